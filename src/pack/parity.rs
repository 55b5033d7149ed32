//! Computing a pack's parity, and mending a pack by it: Reed–Solomon over shards of
//! which each has a mark, so that damage is found shard by shard. Pure, and with no
//! key: what was mended hashes to the pack's name, or it was not mended.
//!
//! The code is the one that the crate `reed-solomon-simd` calls *high rate*: a
//! systematic code over 16 bits, of which each column of 64 bytes stands alone. So
//! shards are worked on in strips that stay in the processor's cache, and take little
//! memory beside the pack.

use crate::error::{Error, Result};
use crate::format::header::HASH_LEN;
use crate::format::parity::{Descriptor, Layout, MAGIC, MARK_LEN, Mark};
use crate::id::PackName;
use crate::limits;
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder as _, RateEncoder as _};
use std::borrow::Cow;
use std::ops::Range;

/// Bytes of each shard that are worked on at a time: a multiple of 64.
const STRIP: usize = 1024;

fn mark(shard: &[u8]) -> Mark {
    blake3::hash(shard).as_bytes().first_chunk::<MARK_LEN>().copied().unwrap_or_default()
}

/// The code takes no sizes but those that a layout may not have.
fn failed(e: reed_solomon_simd::Error) -> Error {
    Error::Invalid(format!("parity: {e}"))
}

fn strips(layout: &Layout) -> impl Iterator<Item = Range<usize>> {
    let size = layout.shard as usize;
    (0..size).step_by(STRIP).map(move |at| at..size.min(at + STRIP))
}

/// A shard filled up with zeros.
fn padded<'b>(bytes: &'b [u8], layout: &Layout) -> Cow<'b, [u8]> {
    let size = layout.shard as usize;
    if bytes.len() == size {
        return Cow::Borrowed(bytes);
    }
    let mut shard = Vec::with_capacity(size);
    shard.extend_from_slice(bytes);
    shard.resize(size, 0);
    Cow::Owned(shard)
}

/// The recovery shards of data shards, one after the other.
fn encode(layout: &Layout, data: &[Cow<'_, [u8]>]) -> Result<Vec<u8>> {
    let (size, count) = (layout.shard as usize, layout.recovery as usize);
    let mut out = vec![0; layout.recovery_len()];
    let width = size.min(STRIP);
    let mut encoder = HighRateEncoder::new(data.len(), count, width, DefaultEngine::new(), None).map_err(failed)?;
    for strip in strips(layout) {
        for shard in data {
            encoder.add_original_shard(&shard[strip.clone()]).map_err(failed)?;
        }
        let encoded = encoder.encode().map_err(failed)?;
        for (shard, recovery) in out.chunks_exact_mut(size).zip(encoded.recovery_iter()) {
            shard[strip.clone()].copy_from_slice(recovery);
        }
    }
    Ok(out)
}

/// Appends the parity of what a pack holds before it (`front`) and behind it (`back`).
///
/// # Errors
/// [`Error::Invalid`] if the layout is not of parts of these lengths.
pub(super) fn append(layout: Layout, pack: &mut Vec<u8>, back: &[u8]) -> Result<()> {
    let front = &pack[..];
    if (front.len() as u64, back.len() as u64) != (layout.front, layout.back) {
        return Err(Error::Invalid("parity of other parts than a pack has".into()));
    }
    let size = layout.shard as usize;
    let data: Vec<Cow<'_, [u8]>> =
        front.chunks(size).chain(back.chunks(size)).map(|shard| padded(shard, &layout)).collect();
    let recovery = encode(&layout, &data)?;
    let marks = data.iter().map(|shard| mark(shard)).chain(recovery.chunks(size).map(mark)).collect();
    let descriptor = Descriptor { layout, marks }.encode();
    pack.extend_from_slice(&descriptor);
    pack.extend_from_slice(&recovery);
    pack.extend_from_slice(&descriptor);
    Ok(())
}

/// A pack that was mended.
#[derive(Debug)]
pub struct Mended {
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// Shards that were damaged or gone.
    pub damaged: usize,
    /// Its shards.
    pub shards: usize,
}

/// Why a pack was not mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmended {
    /// No parity was found in it.
    NoParity,
    /// More shards are damaged than there are to recover them.
    Beyond {
        /// Damaged or gone, recovery shards included.
        damaged: usize,
        /// As many could be mended.
        most: usize,
    },
    /// What was mended does not hash to the pack's name.
    Another,
}

/// Mends a pack by what is left of it: `left` are all the bytes under its name, and those of other copies that
/// are damaged too. Takes time and memory in proportion to these bytes, whatever they claim.
///
/// # Errors
/// Why it cannot be mended.
pub fn mend(name: &PackName, left: &[&[u8]]) -> Result<Mended, Unmended> {
    let mut last = Unmended::NoParity;
    for (descriptor, found) in descriptors(left) {
        match (Mend { name, left, descriptor: &descriptor }).by(&found) {
            Ok(mended) => return Ok(mended),
            // Of several reasons the one that says most.
            Err(why @ Unmended::Beyond { .. }) => last = why,
            Err(why) if last == Unmended::NoParity => last = why,
            Err(_) => {}
        }
    }
    Err(last)
}

/// Where a descriptor was found: in which of the sources, and at which byte.
type Found = (usize, usize);

/// The descriptors that are whole, each once, with the places where it was found.
fn descriptors(left: &[&[u8]]) -> Vec<(Descriptor, Vec<Found>)> {
    let mut known: Vec<(Descriptor, Vec<Found>)> = Vec::new();
    let mut hashed = left.iter().map(|bytes| bytes.len()).sum::<usize>().saturating_mul(limits::PARITY_SEARCH);
    for (source, bytes) in left.iter().enumerate() {
        let begins = bytes.windows(MAGIC.len()).enumerate().filter(|(_, eight)| *eight == MAGIC).map(|(at, _)| at);
        for at in begins {
            let Ok(layout) = Descriptor::sizes(&bytes[at..]) else { continue };
            let Some(rest) = hashed.checked_sub(layout.descriptor_len()) else { return known };
            hashed = rest;
            let Ok(descriptor) = Descriptor::read(&bytes[at..]) else { continue };
            if let Some((_, places)) = known.iter_mut().find(|(other, _)| *other == descriptor) {
                places.push((source, at));
            } else if known.len() < limits::PARITY_DESCRIPTORS {
                known.push((descriptor, vec![(source, at)]));
            }
        }
    }
    known
}

struct Mend<'m> {
    name: &'m PackName,
    left: &'m [&'m [u8]],
    descriptor: &'m Descriptor,
}

impl<'m> Mend<'m> {
    /// Mends by one descriptor.
    fn by(&self, found: &[Found]) -> Result<Mended, Unmended> {
        let layout = &self.descriptor.layout;
        let (data, all) = (layout.data_shards(), self.descriptor.marks.len());
        let shifts = self.shifts(found);
        let whole: Vec<Option<Cow<'_, [u8]>>> = (0..all).map(|number| self.shard(number, &shifts)).collect();
        let damaged = whole.iter().filter(|shard| shard.is_none()).count();
        if damaged > layout.recovery as usize {
            return Err(Unmended::Beyond { damaged, most: layout.recovery as usize });
        }
        // From here on as many bytes are there as the data has.
        let restored = self.restored(&whole).map_err(|_| Unmended::Another)?;
        let shards: Vec<Cow<'_, [u8]>> =
            whole[..data].iter().zip(&restored).filter_map(|(whole, new)| whole.clone().or(new.clone())).collect();
        let recovery = encode(layout, &shards).map_err(|_| Unmended::Another)?;
        let mut bytes = Vec::with_capacity(layout.pack_len() as usize);
        let part = |bytes: &mut Vec<u8>, numbers: Range<usize>| {
            for number in numbers {
                let (_, len) = layout.shard_at(number);
                bytes.extend_from_slice(shards.get(number).and_then(|shard| shard.get(..len)).unwrap_or_default());
            }
        };
        let descriptor = self.descriptor.encode();
        part(&mut bytes, 0..layout.front_shards());
        bytes.extend_from_slice(&descriptor);
        bytes.extend_from_slice(&recovery);
        bytes.extend_from_slice(&descriptor);
        part(&mut bytes, layout.front_shards()..data);
        if *blake3::hash(&bytes).as_bytes() != self.name.0 {
            return Err(Unmended::Another);
        }
        bytes.extend_from_slice(&self.name.0);
        Ok(Mended { bytes, damaged, shards: all })
    }

    /// By how much what is left may have moved: where bytes were lost or added, what lies behind them is not
    /// where it was. A descriptor tells by where it is found, and so does the end.
    fn shifts(&self, found: &[Found]) -> Vec<(usize, i64)> {
        let layout = &self.descriptor.layout;
        let mut shifts: Vec<(usize, i64)> = Vec::new();
        for (source, bytes) in self.left.iter().enumerate() {
            let mut add = |by: i64| {
                if !shifts.contains(&(source, by)) {
                    shifts.push((source, by));
                }
            };
            add(0);
            for (_, at) in found.iter().filter(|(of, _)| *of == source).take(limits::PARITY_DESCRIPTORS) {
                layout.descriptors_at().iter().for_each(|should| add(*at as i64 - *should as i64));
            }
            add(bytes.len() as i64 - layout.pack_len() as i64);
        }
        shifts
    }

    /// A shard that is whole, filled up with zeros.
    fn shard(&self, number: usize, shifts: &[(usize, i64)]) -> Option<Cow<'m, [u8]>> {
        let layout = &self.descriptor.layout;
        let (at, len) = layout.shard_at(number);
        shifts.iter().find_map(|(source, by)| {
            let begin = usize::try_from(i64::try_from(at).ok()?.checked_add(*by)?).ok()?;
            let bytes = self.left.get(*source)?.get(begin..begin.checked_add(len)?)?;
            let shard = padded(bytes, layout);
            (self.descriptor.marks.get(number) == Some(&mark(&shard))).then_some(shard)
        })
    }

    /// Of each data shard that is not whole, what it held.
    fn restored(&self, whole: &[Option<Cow<'_, [u8]>>]) -> Result<Vec<Option<Cow<'static, [u8]>>>> {
        let layout = &self.descriptor.layout;
        let (data, recovery) = whole.split_at(layout.data_shards());
        let missing: Vec<usize> = (0..data.len()).filter(|number| data[*number].is_none()).collect();
        let mut restored: Vec<Option<Cow<'static, [u8]>>> = vec![None; data.len()];
        if missing.is_empty() {
            return Ok(restored);
        }
        let mut found: Vec<Vec<u8>> = missing.iter().map(|_| Vec::with_capacity(layout.shard as usize)).collect();
        let width = STRIP.min(layout.shard as usize);
        let (count, engine) = (layout.recovery as usize, DefaultEngine::new());
        let mut decoder = HighRateDecoder::new(data.len(), count, width, engine, None).map_err(failed)?;
        for strip in strips(layout) {
            for (number, shard) in data.iter().enumerate() {
                if let Some(shard) = shard {
                    decoder.add_original_shard(number, &shard[strip.clone()]).map_err(failed)?;
                }
            }
            let there = recovery.iter().enumerate().filter_map(|(number, shard)| Some((number, shard.as_ref()?)));
            for (number, shard) in there.take(missing.len()) {
                decoder.add_recovery_shard(number, &shard[strip.clone()]).map_err(failed)?;
            }
            let decoded = decoder.decode().map_err(failed)?;
            for (number, found) in missing.iter().zip(&mut found) {
                found.extend_from_slice(decoded.restored_original(*number).unwrap_or_default());
            }
        }
        for (number, found) in missing.into_iter().zip(found) {
            restored[number] = Some(Cow::Owned(found));
        }
        Ok(restored)
    }
}

/// True if all of a pack's bytes are those that its name was made of.
pub fn is_itself(name: &PackName, bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk::<HASH_LEN>()
        .is_some_and(|(body, hash)| *hash == name.0 && *blake3::hash(body).as_bytes() == *hash)
}

#[cfg(test)]
mod tests;
