//! The shape of every record: a CBOR map whose keys are ascending integers.
//!
//! A reader skips keys that it does not know, except critical ones. Whoever
//! writes a record again must refuse one with unknown keys: [`Fields::unknown`]
//! tells. Lengths are always definite; nothing is allocated on a claimed count.

use crate::clock::Timestamp;
use crate::error::Malformed;
use crate::limits;
use minicbor::data::Type;
use minicbor::decode::Decoder;
use minicbor::encode::Encoder;

/// From this key on, a reader that does not know a key must refuse the record.
pub const CRITICAL: u64 = 128;

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
    pub fn begin(mut d: Decoder<'b>) -> Result<Self, Malformed> {
        let left = d.map()?.ok_or_else(|| Malformed::new("a map without a length"))?;
        Ok(Self { d, left, last: None, unknown: false })
    }

    /// Moves to the next field that `known` names, skipping what it may; `None` at the end.
    pub fn next(&mut self, known: &[u64]) -> Result<Option<u64>, Malformed> {
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
            skip(&mut self.d)?;
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
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        exact(&mut self.d)
    }

    /// Bytes no longer than `max`.
    pub fn bytes(&mut self, max: usize) -> Result<Vec<u8>, Malformed> {
        bounded(&mut self.d, max)
    }

    /// Text no longer than `max` bytes.
    pub fn text(&mut self, max: usize) -> Result<String, Malformed> {
        let text = self.d.str()?;
        if text.len() > max {
            return Err(Malformed(format!("a text of {} bytes, at most {max} expected", text.len())));
        }
        Ok(text.to_owned())
    }

    /// A moment: seconds and nanoseconds.
    pub fn time(&mut self) -> Result<Timestamp, Malformed> {
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
    pub fn count(&mut self, max: usize) -> Result<usize, Malformed> {
        count(&mut self.d, max)
    }
}

/// Passes over one item. What this program does not know is still a record's: lengths are definite,
/// and it is no deeper than a record would be, so that it takes no memory to pass over it.
fn skip(d: &mut Decoder<'_>) -> Result<(), Malformed> {
    let deep = || Malformed(format!("an unknown field more than {} levels deep", limits::CBOR_DEPTH_MAX));
    let indefinite = || Malformed::new("an unknown field without a length");
    let mut left = [0u64; limits::CBOR_DEPTH_MAX];
    let mut depth = 0;
    loop {
        let items = match d.datatype()? {
            Type::Array => d.array()?.ok_or_else(indefinite)?,
            Type::Map => d.map()?.ok_or_else(indefinite)?.checked_mul(2).ok_or_else(deep)?,
            Type::ArrayIndef | Type::MapIndef | Type::BytesIndef | Type::StringIndef | Type::Break => {
                return Err(indefinite());
            }
            // What a tag is about follows it.
            Type::Tag => {
                d.tag()?;
                1
            }
            _ => {
                d.skip()?;
                0
            }
        };
        if items > 0 {
            *left.get_mut(depth).ok_or_else(deep)? = items;
            depth += 1;
            continue;
        }
        while depth > 0 {
            left[depth - 1] -= 1;
            if left[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            return Ok(());
        }
    }
}

/// Bytes of exactly this length.
pub fn exact<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], Malformed> {
    let bytes = d.bytes()?;
    bytes.try_into().map_err(|_| Malformed(format!("{} bytes, {N} expected", bytes.len())))
}

/// Bytes no longer than `max`, where they are.
pub fn within<'b>(d: &mut Decoder<'b>, max: usize) -> Result<&'b [u8], Malformed> {
    let bytes = d.bytes()?;
    if bytes.len() > max {
        return Err(Malformed(format!("{} bytes, at most {max} expected", bytes.len())));
    }
    Ok(bytes)
}

/// A copy of bytes no longer than `max`.
pub fn bounded(d: &mut Decoder<'_>, max: usize) -> Result<Vec<u8>, Malformed> {
    Ok(within(d, max)?.to_vec())
}

/// An array's length, no larger than `max` and than the bytes that could hold it.
pub fn count(d: &mut Decoder<'_>, max: usize) -> Result<usize, Malformed> {
    let n = d.array()?.ok_or_else(|| Malformed::new("an array without a length"))?;
    let left = d.input().len().saturating_sub(d.position());
    match usize::try_from(n) {
        Ok(n) if n <= max && n <= left => Ok(n),
        _ => Err(Malformed(format!("an array of {n}, at most {} expected", max.min(left)))),
    }
}

/// Refuses bytes behind a record that should be alone.
pub fn finished(d: &Decoder<'_>) -> Result<(), Malformed> {
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

    /// A record that does not move while it grows to this size: what is secret is left nowhere.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { body: Vec::with_capacity(bytes), ..Self::default() }
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

    /// Reads the one field of a record.
    fn read<T>(record: &Record, value: impl FnOnce(&mut Fields<'_>) -> Result<T, Malformed>) -> Result<T, Malformed> {
        let bytes = record.finish();
        let mut f = Fields::begin(Decoder::new(&bytes))?;
        assert_eq!(f.next(&[1])?, Some(1));
        let value = value(&mut f)?;
        assert_eq!(f.next(&[1])?, None);
        assert!(!f.unknown());
        finished(&f.end())?;
        Ok(value)
    }

    #[test]
    fn records_are_laid_out_as_the_page_says() {
        let mut r = Record::new();
        r.u64(0, 7).bytes(1, b"ab").text(2, "c").time(24, Timestamp { seconds: -1, nanos: 256 });
        r.list(25, &[b"d", b"e"]).raw(200, &[0xf5]);
        let expected = [
            &[0xa6][..],
            &[0x00, 0x07],
            &[0x01, 0x42, b'a', b'b'],
            &[0x02, 0x61, b'c'],
            &[0x18, 24, 0x82, 0x20, 0x19, 1, 0],
            &[0x18, 25, 0x82, 0x41, b'd', 0x41, b'e'],
            &[0x18, 200, 0xf5],
        ]
        .concat();
        assert_eq!(r.finish(), expected);
        let mut behind = vec![9];
        r.write_to(&mut behind);
        assert_eq!(behind, [&[9][..], &expected].concat());
    }

    #[test]
    fn a_wiped_record_holds_nothing() {
        let mut r = Record::new();
        r.bytes(1, b"secret");
        r.wipe();
        assert!(r.body.is_empty());
    }

    #[test]
    fn bytes_and_texts_end_at_their_bound() {
        let (mut bytes, mut text) = (Record::new(), Record::new());
        bytes.bytes(1, b"four");
        text.text(1, "four");
        for (max, fits) in [(0, false), (3, false), (4, true), (5, true)] {
            assert_eq!(read(&bytes, |f| f.bytes(max)).ok(), fits.then(|| b"four".to_vec()), "{max}");
            assert_eq!(read(&text, |f| f.text(max)).ok(), fits.then(|| "four".to_owned()), "{max}");
        }
        assert_eq!(read(&bytes, |f| f.array::<4>()).unwrap(), *b"four");
        assert!(read(&bytes, |f| f.array::<3>()).is_err() && read(&bytes, |f| f.array::<5>()).is_err());
    }

    #[test]
    fn an_array_is_no_longer_than_its_bound_and_its_bytes() {
        for (max, fits) in [(2, false), (3, true), (4, true)] {
            let counted = count(&mut Decoder::new(&[0x83, 1, 2, 3]), max);
            assert_eq!(counted.ok(), fits.then_some(3), "{max}");
        }
        assert!(count(&mut Decoder::new(&[0x83, 1, 2]), 9).is_err(), "an element takes a byte at least");
        assert!(count(&mut Decoder::new(&[0x9f, 1, 0xff]), 9).is_err(), "without a length");
        assert_eq!(count(&mut Decoder::new(&[0x80]), 0).unwrap(), 0);
    }

    #[test]
    fn a_time_has_two_parts_and_less_than_a_second_of_nanoseconds() {
        for (nanos, good) in [(0, true), (999_999_999, true), (1_000_000_000, false), (u32::MAX, false)] {
            let time = Timestamp { seconds: i64::MIN, nanos };
            let mut r = Record::new();
            r.time(1, time);
            assert_eq!(read(&r, |f| f.time()).ok(), good.then_some(time));
        }
        for parts in [&[0x80][..], &[0x81, 5], &[0x83, 5, 6, 7]] {
            let mut r = Record::new();
            r.raw(1, parts);
            assert!(read(&r, |f| f.time()).is_err(), "{parts:?}");
        }
    }

    #[test]
    fn a_record_that_should_be_alone_is() {
        assert!(finished(&Decoder::new(&[])).is_ok());
        assert!(finished(&Decoder::new(&[0])).is_err());
    }

    #[test]
    fn a_field_is_critical_from_128_on() {
        for (key, skipped) in [(127, true), (128, false), (u64::MAX, false)] {
            let mut r = Record::new();
            r.u64(key, 1);
            let bytes = r.finish();
            let mut f = Fields::begin(Decoder::new(&bytes)).unwrap();
            assert_eq!(f.next(&[]).ok(), skipped.then_some(None), "{key}");
            assert_eq!(f.unknown(), skipped, "{key}");
        }
    }

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
    fn passes_over_one_item_and_no_more() {
        let item = |bytes: &[u8]| {
            let mut d = Decoder::new(bytes);
            skip(&mut d).map(|()| d.position())
        };
        let nested = |n: usize| [vec![0x81; n], vec![0x07, 0x09]].concat();
        for whole in [
            &[0x07][..],
            b"\x43abc",
            b"\x63abc",
            &[0x80],
            &[0xa0],
            &[0x82, 0x81, 0x01, 0xa1, 0x01, 0x82, 0x02, 0x03],
            &[0xc1, 0xc2, 0x41, 0x00],
            &[0x83, 0x80, 0xa0, 0x80],
            &[0xf6],
            &[0xfb, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x1b, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x38, 0x20],
        ] {
            assert_eq!(item(&[whole, &[0x09]].concat()).unwrap(), whole.len(), "{whole:x?}");
            assert!(item(&whole[..whole.len() - 1]).is_err(), "{whole:x?}");
        }
        assert_eq!(item(&nested(limits::CBOR_DEPTH_MAX)).unwrap(), limits::CBOR_DEPTH_MAX + 1);
        assert!(item(&nested(limits::CBOR_DEPTH_MAX + 1)).is_err());
        for indefinite in [&[0x9f, 0xff][..], &[0xbf, 0xff], &[0x5f, 0xff], &[0x7f, 0xff], &[0xff], &[0x81, 0xff]] {
            assert!(item(indefinite).is_err(), "{indefinite:x?}");
        }
        assert!(item(&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
        assert!(item(&[0xc1; 100_000]).is_err());
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
