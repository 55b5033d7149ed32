//! See `estrato_fuzz::chunker`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    estrato_fuzz::chunker::run(data);
});
