//! See `estrato_fuzz::packs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    estrato_fuzz::packs::run(data);
});
