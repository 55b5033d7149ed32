//! Data for the benches: the same at every run, and made without a source of randomness.

// Each bench includes this file and uses its own part of it.
#![allow(dead_code)]

use std::io::Write as _;

/// SplitMix64: small, and good enough to choose rows by.
pub struct Numbers(pub u64);

impl Numbers {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Bytes that nothing compresses.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Rows of a table, as databases export them.
pub fn table(seed: u64, len: usize) -> Vec<u8> {
    const PLACES: [&str; 8] = ["Almería", "Cádiz", "Córdoba", "Granada", "Huelva", "Jaén", "Málaga", "Sevilla"];
    const STATES: [&str; 4] = ["open", "paid", "cancelled", "returned"];
    let mut numbers = Numbers(seed);
    let mut rows = Vec::with_capacity(len + 128);
    let mut row = seed % 1000 * 1_000_000;
    while rows.len() < len {
        row += 1 + numbers.below(3);
        let place = PLACES[numbers.below(8) as usize];
        let state = STATES[numbers.below(4) as usize];
        let (customer, cents) = (numbers.below(50_000), numbers.below(2_000_000));
        let (day, second) = (1 + numbers.below(28), numbers.below(86_400));
        writeln!(
            rows,
            "{row};2026-03-{day:02}T{:02}:{:02}:{:02}Z;C{customer:06};{place};{state};{}.{:02}",
            second / 3600,
            second / 60 % 60,
            second % 60,
            cents / 100,
            cents % 100,
        )
        .unwrap();
    }
    rows.truncate(len);
    rows
}
