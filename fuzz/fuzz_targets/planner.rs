//! See `estrato_fuzz::planner`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    estrato_fuzz::planner::run(data);
});
