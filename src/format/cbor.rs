//! The shape of every record: a CBOR map whose keys are ascending integers.
//!
//! A reader skips keys that it does not know, except critical ones. Whoever
//! writes a record again must refuse one with unknown keys: [`Fields::unknown`]
//! tells. Lengths are always definite; nothing is allocated on a claimed count.

use crate::clock::Timestamp;
use crate::error::Malformed;
use minicbor::decode::Decoder;
use minicbor::encode::Encoder;

/// From this key on, a reader that does not know a key must refuse the record.
pub const CRITICAL: u64 = 128;

type Parse<T> = Result<T, Malformed>;

impl From<minicbor::decode::Error> for Malformed {
    fn from(e: minicbor::decode::Error) -> Self {
        Malformed(format!("not the expected CBOR: {e}"))
    }
}

/// Reads a record's fields in order.
pub struct Fields<'b> {
    d: Decoder<'b>,
    left: u64,
    last: Option<u64>,
    unknown: bool,
}

impl<'b> Fields<'b> {
    /// Starts on the map that begins at `d`.
    pub fn begin(mut d: Decoder<'b>) -> Parse<Self> {
        let left = d.map()?.ok_or_else(|| Malformed::new("a map without a length"))?;
        Ok(Self { d, left, last: None, unknown: false })
    }

    /// Moves to the next field that `known` names, skipping what it may; `None` at the end.
    pub fn next(&mut self, known: &[u64]) -> Parse<Option<u64>> {
        while self.left > 0 {
            self.left -= 1;
            let key = self.d.u64()?;
            if self.last.is_some_and(|last| last >= key) {
                return Err(Malformed::new("keys of a record do not ascend"));
            }
            self.last = Some(key);
            if known.contains(&key) {
                return Ok(Some(key));
            }
            if key >= CRITICAL {
                return Err(Malformed(format!("needs a newer program (critical field {key})")));
            }
            self.unknown = true;
            self.d.skip()?;
        }
        Ok(None)
    }

    /// True if a field was skipped: the record must not be written again.
    pub fn unknown(&self) -> bool {
        self.unknown
    }

    /// The decoder, at the current field's value.
    pub fn value(&mut self) -> &mut Decoder<'b> {
        &mut self.d
    }

    /// The decoder, behind the record.
    pub fn end(self) -> Decoder<'b> {
        self.d
    }

    /// Bytes of exactly this length.
    pub fn array<const N: usize>(&mut self) -> Parse<[u8; N]> {
        exact(&mut self.d)
    }

    /// Bytes no longer than `max`.
    pub fn bytes(&mut self, max: usize) -> Parse<Vec<u8>> {
        bounded(&mut self.d, max)
    }

    /// Text no longer than `max` bytes.
    pub fn text(&mut self, max: usize) -> Parse<String> {
        let text = self.d.str()?;
        if text.len() > max {
            return Err(Malformed(format!("a text of {} bytes, at most {max} expected", text.len())));
        }
        Ok(text.to_owned())
    }

    /// A moment: seconds and nanoseconds.
    pub fn time(&mut self) -> Parse<Timestamp> {
        if self.count(2)? != 2 {
            return Err(Malformed::new("a time without two parts"));
        }
        let time = Timestamp { seconds: self.d.i64()?, nanos: self.d.u32()? };
        if time.nanos >= 1_000_000_000 {
            return Err(Malformed::new("a time with too many nanoseconds"));
        }
        Ok(time)
    }

    /// The length of the array that begins here, no larger than `max`.
    pub fn count(&mut self, max: usize) -> Parse<usize> {
        count(&mut self.d, max)
    }
}

/// Bytes of exactly this length.
pub fn exact<const N: usize>(d: &mut Decoder<'_>) -> Parse<[u8; N]> {
    let bytes = d.bytes()?;
    bytes.try_into().map_err(|_| Malformed(format!("{} bytes, {N} expected", bytes.len())))
}

/// Bytes no longer than `max`.
pub fn bounded(d: &mut Decoder<'_>, max: usize) -> Parse<Vec<u8>> {
    let bytes = d.bytes()?;
    if bytes.len() > max {
        return Err(Malformed(format!("{} bytes, at most {max} expected", bytes.len())));
    }
    Ok(bytes.to_vec())
}

/// An array's length, no larger than `max` and than the bytes that could hold it.
pub fn count(d: &mut Decoder<'_>, max: usize) -> Parse<usize> {
    let n = d.array()?.ok_or_else(|| Malformed::new("an array without a length"))?;
    let left = d.input().len().saturating_sub(d.position());
    match usize::try_from(n) {
        Ok(n) if n <= max && n <= left => Ok(n),
        _ => Err(Malformed(format!("an array of {n}, at most {} expected", max.min(left)))),
    }
}

/// Refuses bytes behind a record that should be alone.
pub fn finished(d: &Decoder<'_>) -> Parse<()> {
    if d.position() != d.input().len() {
        return Err(Malformed::new("bytes behind the record"));
    }
    Ok(())
}

/// Writes a record's fields; the count goes first, so they are gathered and counted here.
#[derive(Default)]
pub struct Record {
    body: Vec<u8>,
    fields: u64,
    last: Option<u64>,
}

/// An encoder into memory.
pub type Out<'a> = Encoder<&'a mut Vec<u8>>;

impl Record {
    /// An empty record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field; keys ascend.
    pub fn put(
        &mut self,
        key: u64,
        value: impl FnOnce(&mut Out<'_>) -> Result<(), minicbor::encode::Error<std::convert::Infallible>>,
    ) -> &mut Self {
        debug_assert!(self.last.is_none_or(|last| last < key), "keys of a record ascend");
        self.last = Some(key);
        self.fields += 1;
        let mut e = Encoder::new(&mut self.body);
        written(e.u64(key).map(|_| ()));
        written(value(&mut e));
        self
    }

    /// Adds an unsigned number.
    pub fn u64(&mut self, key: u64, value: u64) -> &mut Self {
        self.put(key, |e| e.u64(value)?.ok())
    }

    /// Adds bytes.
    pub fn bytes(&mut self, key: u64, value: &[u8]) -> &mut Self {
        self.put(key, |e| e.bytes(value)?.ok())
    }

    /// Adds text.
    pub fn text(&mut self, key: u64, value: &str) -> &mut Self {
        self.put(key, |e| e.str(value)?.ok())
    }

    /// Adds a moment.
    pub fn time(&mut self, key: u64, value: Timestamp) -> &mut Self {
        self.put(key, |e| e.array(2)?.i64(value.seconds)?.u32(value.nanos)?.ok())
    }

    /// Adds an array of byte strings.
    pub fn list<T: AsRef<[u8]>>(&mut self, key: u64, values: &[T]) -> &mut Self {
        self.put(key, |e| {
            e.array(values.len() as u64)?;
            values.iter().try_for_each(|v| e.bytes(v.as_ref())?.ok())
        })
    }

    /// Adds a value that is encoded already.
    pub fn raw(&mut self, key: u64, encoded: &[u8]) -> &mut Self {
        self.put(key, |e| {
            e.writer_mut().extend_from_slice(encoded);
            Ok(())
        })
    }

    /// Appends the record to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        written(Encoder::new(&mut *out).map(self.fields).map(|_| ()));
        out.extend_from_slice(&self.body);
    }

    /// Overwrites what was gathered: for records that hold secrets.
    pub fn wipe(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.body);
    }

    /// The record's bytes.
    pub fn finish(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 9);
        self.write_to(&mut out);
        out
    }
}

/// Writing into memory cannot fail; the types do not know.
fn written(result: Result<(), minicbor::encode::Error<std::convert::Infallible>>) {
    if let Err(e) = result {
        unreachable!("encoding into memory failed: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_unknown_fields_but_not_critical_ones() {
        let mut r = Record::new();
        r.u64(1, 7).text(9, "from the future").u64(20, 8);
        let bytes = r.finish();
        let mut f = Fields::begin(Decoder::new(&bytes)).unwrap();
        assert_eq!(f.next(&[1, 20]).unwrap(), Some(1));
        assert_eq!(f.value().u64().unwrap(), 7);
        assert_eq!(f.next(&[1, 20]).unwrap(), Some(20));
        assert!(f.unknown());
        let mut critical = Record::new();
        critical.u64(CRITICAL, 1);
        let bytes = critical.finish();
        assert!(Fields::begin(Decoder::new(&bytes)).unwrap().next(&[1]).is_err());
    }

    #[test]
    fn refuses_descending_keys_and_claimed_lengths() {
        let twice = [0xa2, 1, 7, 1, 7];
        let mut f = Fields::begin(Decoder::new(&twice)).unwrap();
        assert_eq!(f.next(&[1]).unwrap(), Some(1));
        f.value().u64().unwrap();
        assert!(f.next(&[1]).is_err());
        let huge = [0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(count(&mut Decoder::new(&huge), usize::MAX).is_err());
        assert!(Fields::begin(Decoder::new(&[0xbf, 0xff])).is_err());
    }
}
