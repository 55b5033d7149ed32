//! See `estrato_fuzz::index`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    estrato_fuzz::index::run(data);
});
