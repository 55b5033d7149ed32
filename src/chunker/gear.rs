//! The table of the rolling hash, from a key.

/// 256 random numbers, and the same shifted by one, as `cut_gear` wants them.
pub struct Gear {
    /// One number for each byte value.
    pub table: Box<[u64; 256]>,
    /// `table`, each shifted left by one.
    pub shifted: Box<[u64; 256]>,
}

impl Gear {
    /// The table that grows from `key`: the BLAKE3 keyed hash of nothing, read on for 2,048
    /// bytes, as little-endian numbers.
    pub fn new(key: &[u8; 32]) -> Self {
        let mut stream = blake3::Hasher::new_keyed(key).finalize_xof();
        let (mut table, mut shifted) = (Box::new([0; 256]), Box::new([0; 256]));
        for (number, twice) in table.iter_mut().zip(shifted.iter_mut()) {
            let mut bytes = [0; 8];
            stream.fill(&mut bytes);
            *number = u64::from_le_bytes(bytes);
            *twice = *number << 1;
        }
        Self { table, shifted }
    }
}

impl Drop for Gear {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.table.zeroize();
        self.shifted.zeroize();
    }
}
