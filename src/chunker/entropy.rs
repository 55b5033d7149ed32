//! Whether bytes look random, and so will not compress. Integers only: every
//! machine must decide alike.

/// Bytes taken of every stride.
const SAMPLE: usize = 64;
/// One sample is taken of as many bytes.
const STRIDE: usize = 512;

/// True if the collision entropy of a sample of the bytes is at least about 7.7 bits a byte.
///
/// The sample is the first 64 bytes of every 512. With m sampled bytes, of which c(v) have the
/// value v: `1024 · Σ c(v)·(c(v) − 1) ≤ 5 · m·(m − 1)`. For random bytes the left side is about
/// four fifths of the right one; compressed images stay below it, text and base64 are far above.
pub fn looks_random(data: &[u8]) -> bool {
    let mut counts = [[0u32; 256]; 2];
    let mut sampled = 0u64;
    for sample in data.chunks(STRIDE).map(|s| &s[..s.len().min(SAMPLE)]) {
        sampled += sample.len() as u64;
        let (pairs, rest) = sample.as_chunks::<2>();
        for [a, b] in pairs {
            counts[0][usize::from(*a)] += 1;
            counts[1][usize::from(*b)] += 1;
        }
        for a in rest {
            counts[0][usize::from(*a)] += 1;
        }
    }
    let collisions: u64 =
        counts[0].iter().zip(&counts[1]).map(|(a, b)| u64::from(a + b)).map(|c| c * c.saturating_sub(1)).sum();
    sampled > 1 && 1024 * collisions <= 5 * sampled * (sampled - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_random_from_text() {
        let mut random = vec![0; 300_001];
        blake3::Hasher::new_keyed(&[1; 32]).finalize_xof().fill(&mut random);
        assert!(looks_random(&random));
        let base64: Vec<u8> = random
            .iter()
            .map(|b| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[usize::from(b & 63)])
            .collect();
        assert!(!looks_random(&base64));
        assert!(!looks_random(&vec![0; 100_000]));
        assert!(!looks_random(b""));
        assert!(!looks_random(b"a"));
    }

    #[test]
    fn zstd_output_looks_random() {
        let mut seed = vec![0; 400_000];
        blake3::Hasher::new_keyed(&[2; 32]).finalize_xof().fill(&mut seed);
        let text: Vec<u8> = seed.iter().flat_map(|b| format!("{:02},", b % 100).into_bytes()).collect();
        let packed = zstd::bulk::compress(&text, 3).unwrap();
        assert!(!looks_random(&text));
        assert!(looks_random(&packed));
    }
}
