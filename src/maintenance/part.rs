//! Which packs a check reads where it is not to read all of them: those that
//! were read longest ago come first, so that checks that follow one another come
//! around to every pack. Reads nothing.

use super::packs::Job;
use crate::id::PackName;
use crate::repo::Verified;
use std::time::Duration;

/// How much of the packs is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All.
    All,
    /// Of all packs' bytes so many parts of 10,000, at the least: those that were read longest ago.
    Share(u32),
    /// Of so many parts, by the packs' names, the one of this number, from 1 on. Needs no memory.
    Nth {
        /// Which.
        nth: u64,
        /// Of how many.
        of: u64,
    },
    /// So many bytes at the most, and one pack at the least: those that were read longest ago.
    Bytes(u64),
}

/// What part of the packs is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// How much of them.
    pub part: Part,
    /// Only those that were not found whole within so long.
    pub older_than: Option<Duration>,
}

impl Portion {
    /// Every pack.
    pub const ALL: Self = Self { part: Part::All, older_than: None };

    /// Chooses packs; `now` in seconds since 1970.
    pub(super) fn choose(self, mut jobs: Vec<Job>, known: &Verified, now: u64) -> Vec<Job> {
        let total: u64 = jobs.iter().map(|job| job.size).sum();
        if let Some(age) = self.older_than {
            jobs.retain(|job| {
                let verified = known.of(&job.name).verified;
                verified == 0 || now.saturating_sub(verified) >= age.as_secs()
            });
        }
        match self.part {
            Part::All => {}
            Part::Nth { nth, of } => jobs.retain(|job| part_of(&job.name, of) + 1 == nth),
            Part::Share(share) => {
                // Rounded up: as many checks as there are such shares read everything.
                let wanted = (u128::from(total) * u128::from(share)).div_ceil(10_000);
                oldest_first(&mut jobs, known);
                take_while(&mut jobs, |before, _| u128::from(before) < wanted);
            }
            Part::Bytes(max) => {
                oldest_first(&mut jobs, known);
                take_while(&mut jobs, |before, size| before == 0 || before.saturating_add(size) <= max);
            }
        }
        jobs
    }
}

/// In which of so many parts a pack is, from 0 on; the same at every check, whatever else is there.
pub(super) fn part_of(pack: &PackName, of: u64) -> u64 {
    let begin = pack.0.first_chunk().map_or(0, |begin| u64::from_be_bytes(*begin));
    ((u128::from(begin) * u128::from(of)) >> 64) as u64
}

/// What could not be read when it was tried last waits its turn like all others.
fn oldest_first(jobs: &mut [Job], known: &Verified) {
    jobs.sort_by_cached_key(|job| (known.of(&job.name).tried, job.name));
}

/// Keeps the first few: as long as `fits`, given the bytes before one and its own.
fn take_while(jobs: &mut Vec<Job>, fits: impl Fn(u64, u64) -> bool) {
    let mut before = 0_u64;
    let kept = jobs.iter().take_while(|job| {
        let fits = fits(before, job.size);
        before = before.saturating_add(job.size);
        fits
    });
    let kept = kept.count();
    jobs.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    fn name(n: u8) -> PackName {
        PackName(*blake3::hash(&[n]).as_bytes())
    }

    /// Packs of 100 to 199 bytes.
    fn jobs(n: u8) -> Vec<Job> {
        (0..n).map(|n| Job { name: name(n), size: 100 + u64::from(n), entries: Vec::new() }).collect()
    }

    fn names(jobs: &[Job]) -> BTreeSet<PackName> {
        jobs.iter().map(|job| job.name).collect()
    }

    fn portion(part: Part) -> Portion {
        Portion { part, older_than: None }
    }

    #[test]
    fn shares_in_a_row_come_around_to_all() {
        for (share, runs) in [(500, 20), (10_000, 1), (3_333, 4), (1, 60)] {
            let mut known = Verified::default();
            let mut read = BTreeSet::new();
            for run in 0..runs {
                let chosen = portion(Part::Share(share)).choose(jobs(60), &known, NOW);
                assert!(!chosen.is_empty());
                let bytes: u64 = chosen.iter().map(|job| job.size).sum();
                assert!(bytes * 10_000 <= (60 * 130) * u64::from(share) + 160 * 10_000, "{share}: {bytes}");
                for job in &chosen {
                    known.note(&job.name, NOW + run, job.size % 7 != 0);
                    read.insert(job.name);
                }
            }
            assert_eq!(read, names(&jobs(60)), "{share} of 10,000, {runs} times");
        }
    }

    #[test]
    fn bytes_are_a_bound_and_the_oldest_come_first() {
        let mut known = Verified::default();
        jobs(60).iter().zip(1..).for_each(|(job, n)| known.note(&job.name, NOW - n * DAY, true));
        let chosen = portion(Part::Bytes(400)).choose(jobs(60), &known, NOW);
        assert_eq!(names(&chosen), [name(59), name(58)].into());
        assert_eq!(portion(Part::Bytes(1)).choose(jobs(60), &known, NOW).len(), 1, "or none would ever be read");
        assert!(portion(Part::Bytes(1)).choose(Vec::new(), &known, NOW).is_empty());
    }

    #[test]
    fn parts_by_name_are_all_packs_and_none_is_in_two() {
        let known = Verified::default();
        let mut seen: BTreeMap<PackName, u64> = BTreeMap::new();
        for nth in 1..=7 {
            for job in portion(Part::Nth { nth, of: 7 }).choose(jobs(60), &known, NOW) {
                assert_eq!(seen.insert(job.name, nth), None);
            }
        }
        assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), names(&jobs(60)));
        // Packs that come later move none into another part.
        for job in portion(Part::Nth { nth: 3, of: 7 }).choose(jobs(100), &known, NOW) {
            assert!(seen.get(&job.name).is_none_or(|nth| *nth == 3));
        }
        assert_eq!((part_of(&PackName([0xff; 32]), 7), part_of(&PackName([0; 32]), 7)), (6, 0));
        assert_eq!(part_of(&PackName([0xff; 32]), u64::MAX), u64::MAX - 1);
    }

    #[test]
    fn what_was_found_whole_lately_is_left_out() {
        let mut known = Verified::default();
        for (n, job) in (0..).zip(jobs(10)) {
            known.note(&job.name, NOW - n * DAY, n != 2);
        }
        let chosen = Portion { older_than: Some(Duration::from_secs(7 * DAY)), ..Portion::ALL };
        let chosen = names(&chosen.choose(jobs(10), &known, NOW));
        assert_eq!(chosen, [name(2), name(7), name(8), name(9)].into(), "one was read, and was not whole");
    }
}
