//! See `estrato_fuzz::bases`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    estrato_fuzz::bases::run(data);
});
