//! Keys as people hold them: a line of text that can be kept on paper, and the
//! public half that may be given away. Base32 without look-alike letters, in
//! groups of five, with a checksum that finds a mistyped letter.

use super::aead::KeyBytes;
use super::hpke::{self, PublicKey};
use crate::error::Malformed;
use zeroize::{Zeroize, Zeroizing};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const KEY_PREFIX: &str = "ESTRATO-KEY-0";
const RECIPIENT_PREFIX: &str = "ESTRATO-RECIPIENT-0";
const CHECK_LEN: usize = 4;

/// A key file's secret. Wiped when dropped.
pub struct KeyFile(pub KeyBytes);

fn checksum(prefix: &str, bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(prefix.as_bytes()).update(bytes);
    let mut out = [0; CHECK_LEN];
    hasher.finalize_xof().fill(&mut out);
    out
}

fn encode(prefix: &str, bytes: &[u8]) -> String {
    // Nothing here may move while it grows: what is left behind would not be wiped.
    let mut all = Zeroizing::new(Vec::with_capacity(bytes.len() + CHECK_LEN));
    all.extend_from_slice(bytes);
    all.extend_from_slice(&checksum(prefix, bytes));
    let mut text = String::with_capacity(prefix.len() + 8 + all.len() * 2);
    text.push_str(prefix);
    text.push(' ');
    let (mut held, mut bits, mut letters) = (0u32, 0, 0);
    let mut put = |value: u32| {
        if letters > 0 && letters % 5 == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[(value & 31) as usize]));
        letters += 1;
    };
    for byte in all.iter() {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            put(held >> bits);
        }
        held &= 0xff;
    }
    if bits > 0 {
        put(held << (5 - bits));
    }
    text
}

/// Without spaces and dashes, in capitals; letters that look alike stand for each other.
fn normal(text: &str) -> Vec<u8> {
    let mut letters = Vec::with_capacity(text.len());
    for letter in text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'-') {
        letters.push(match letter.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            other => other,
        });
    }
    letters
}

fn decode(prefix: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    let letters = Zeroizing::new(normal(text));
    let letters = letters
        .strip_prefix(&normal(prefix)[..])
        .ok_or_else(|| Malformed(format!("does not begin with {prefix}")))?;
    let mut out = Zeroizing::new(Vec::with_capacity(letters.len() * 5 / 8));
    let (mut held, mut bits) = (0u32, 0);
    for letter in letters.iter().copied() {
        let value = ALPHABET.iter().position(|a| *a == letter);
        let value = value.ok_or_else(|| Malformed::new("holds a letter that no key has"))?;
        held = held << 5 | value as u32;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits & 0xff) as u8);
            held &= (1 << bits) - 1;
        }
    }
    let spare = held;
    held.zeroize();
    // Less than a letter is left over, and nothing in it.
    if spare != 0 || bits >= 5 {
        return Err(Malformed::new("has a mistyped last letter"));
    }
    let (bytes, check) = out.split_last_chunk::<CHECK_LEN>().ok_or_else(|| Malformed::new("is too short"))?;
    if checksum(prefix, bytes) != *check {
        return Err(Malformed::new("has a mistyped letter, or is not whole"));
    }
    Ok(Zeroizing::new(bytes.to_vec()))
}

impl KeyFile {
    /// The same key once more, for whoever must keep one.
    pub fn again(&self) -> Self {
        Self(Zeroizing::new(*self.0))
    }

    /// The text of the file, one line.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(encode(KEY_PREFIX, &*self.0))
    }

    /// Reads the first line that is not a comment.
    ///
    /// # Errors
    /// If it is no key, or mistyped.
    pub fn from_text(text: &str) -> Result<Self, Malformed> {
        let line = text
            .lines()
            .find(|l| !l.trim().is_empty() && !l.starts_with('#'))
            .ok_or_else(|| Malformed::new("holds no key"))?;
        let bytes = decode(KEY_PREFIX, line)?;
        let bytes: [u8; 32] =
            bytes.as_slice().try_into().map_err(|_| Malformed::new("holds a key of another length"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// The key pair of this key, for slots made without knowing the key itself.
    pub fn recipient(&self) -> (KeyBytes, PublicKey) {
        hpke::pair_from_seed(&super::derive::subkey("estrato 0 recipient", &*self.0))
    }

    /// The public half, as text that may be given away.
    pub fn recipient_text(&self) -> String {
        recipient_to_text(&self.recipient().1)
    }
}

/// A public half, as text that may be given away.
pub fn recipient_to_text(key: &PublicKey) -> String {
    encode(RECIPIENT_PREFIX, &key.to_bytes())
}

/// Reads a recipient's text.
///
/// # Errors
/// If it is none, or mistyped.
pub fn recipient_from_text(text: &str) -> Result<PublicKey, Malformed> {
    PublicKey::from_bytes(&decode(RECIPIENT_PREFIX, text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let key = KeyFile(Zeroizing::new([0x5a; 32]));
        let text = key.to_text();
        assert_eq!(text.lines().count(), 1);
        assert_eq!(*KeyFile::from_text(&text).unwrap().0, [0x5a; 32]);
        let sloppy =
            format!("# my key\n\n{KEY_PREFIX} {} \n", text[KEY_PREFIX.len()..].to_lowercase().replace('0', "o"));
        assert_eq!(*KeyFile::from_text(&sloppy).unwrap().0, [0x5a; 32]);
        let recipient = recipient_from_text(&key.recipient_text()).unwrap();
        assert_eq!(recipient.to_bytes(), key.recipient().1.to_bytes());
    }

    #[test]
    fn a_key_is_written_in_groups_of_five() {
        let text = KeyFile(Zeroizing::new([4; 32])).to_text();
        let groups = "0G208-1040G-20810-40G20-81040-G2081-040G2-08104-0G208-1040G-25AJ0-AKC";
        assert_eq!(*text, format!("ESTRATO-KEY-0 {groups}"));
        // Every bit set: none of a byte may spill into the next letter.
        let text = KeyFile(Zeroizing::new([0xff; 32])).to_text();
        assert!(text.starts_with("ESTRATO-KEY-0 ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-Z"));
        assert_eq!(*KeyFile::from_text(&text).unwrap().0, [0xff; 32]);
    }

    #[test]
    fn a_recipients_letters_end_with_its_last_byte() {
        let text = KeyFile(Zeroizing::new([4; 32])).recipient_text();
        assert!(text.starts_with("ESTRATO-RECIPIENT-0 BPB7A-QCGCY-HK465-DPTGW-MXC23-"));
        // 1,216 bytes and a checksum are a whole number of letters.
        assert_eq!(normal(&text).len() - normal(RECIPIENT_PREFIX).len(), (1216 + CHECK_LEN) * 8 / 5);
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        for len in [0, 31, 33] {
            let text = encode(KEY_PREFIX, &vec![1; len]);
            assert!(KeyFile::from_text(&text).is_err_and(|e| e.0.contains("another length")), "{len}");
        }
    }

    #[test]
    fn a_key_has_so_many_letters_and_no_more() {
        let text = KeyFile(Zeroizing::new([4; 32])).to_text();
        assert_eq!(normal(&text[KEY_PREFIX.len()..]).len(), 58);
        for more in ["0", "00", "-0", "0000000"] {
            assert!(KeyFile::from_text(&format!("{}{more}", *text)).is_err(), "{more:?}");
        }
        assert!(KeyFile::from_text(&format!("{}- \t-", *text)).is_ok());
    }

    #[test]
    fn every_mistyped_letter_is_found() {
        let text = KeyFile(Zeroizing::new([0x5a; 32])).to_text();
        for at in KEY_PREFIX.len() + 1..text.len() {
            let mut letters = text.as_bytes().to_vec();
            if letters[at] == b'-' {
                continue;
            }
            letters[at] = if letters[at] == b'7' { b'8' } else { b'7' };
            assert!(KeyFile::from_text(std::str::from_utf8(&letters).unwrap()).is_err(), "letter {at}");
        }
        for bad in ["", "hello", "ESTRATO-KEY-0", "ESTRATO-KEY-0 é", "ESTRATO-KEY-0 00000"] {
            assert!(KeyFile::from_text(bad).is_err(), "{bad:?}");
        }
    }
}
