//! See `estrato_fuzz::records`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    estrato_fuzz::records::run(data);
});
