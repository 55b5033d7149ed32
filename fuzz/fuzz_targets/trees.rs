//! See `estrato_fuzz::trees`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    estrato_fuzz::trees::run(data);
});
