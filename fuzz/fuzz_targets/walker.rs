//! See `estrato_fuzz::walker`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    estrato_fuzz::walker::run(data);
});
