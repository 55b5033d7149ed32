//! Which packs go: those of which nothing is needed, and of the others those
//! whose rest is worth writing anew. A pure choice: it reads nothing.

use crate::format::pack::StorageClass;
use crate::id::PackName;
use crate::limits;
use std::collections::HashSet;

/// A pack, and how much of it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PackUse {
    pub name: PackName,
    pub class: StorageClass,
    /// Bytes.
    pub size: u64,
    /// Bytes of its frames: the rest is its key and its directory, which every pack has.
    pub holds: u64,
    /// Bytes of these that snapshots need; none for a pack that no index object names.
    pub needed: u64,
    /// It is to be written anew whatever it holds: it is sealed to a key pair that the tenant had before.
    pub is_outdated: bool,
}

impl PackUse {
    /// One that no index object names: what it holds is unknown, and nothing needs it.
    pub fn unnamed(name: PackName, size: u64) -> Self {
        Self { name, class: StorageClass::Data, size, holds: size, needed: 0, is_outdated: false }
    }

    /// Bytes that nothing needs.
    pub fn idle(&self) -> u64 {
        self.holds.saturating_sub(self.needed)
    }
}

/// How much may stay unused, and how much may be written anew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Of what is needed, so many hundredths may lie unused.
    pub unused_percent: f64,
    /// Bytes of packs that are read and written anew, at the most.
    pub repack: Option<u64>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { unused_percent: 5.0, repack: None }
    }
}

/// What becomes of packs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// Nothing of them is needed.
    pub unused: Vec<PackUse>,
    /// What is needed of them is written anew.
    pub repacked: Vec<PackUse>,
    pub kept: Vec<PackUse>,
}

/// Chooses. The same packs give the same choice, in whatever order they come.
pub(super) fn choose(mut packs: Vec<PackUse>, bounds: Bounds) -> Choice {
    packs.sort_unstable_by_key(|p| p.name);
    packs.dedup_by_key(|p| p.name);
    let (unused, mut used): (Vec<_>, Vec<_>) = packs.into_iter().partition(|p| p.needed == 0);
    let mut choice = Choice { unused, ..Choice::default() };
    let mut left = bounds.repack.unwrap_or(u64::MAX);
    let small = merged(&used, &mut left);
    let needed: u64 = used.iter().map(|p| p.needed).sum();
    let allowed = (needed as f64 * bounds.unused_percent.max(0.0) / 100.0) as u64;
    let mut too_much: u64 = used.iter().filter(|p| !small.contains(&p.name)).map(PackUse::idle).sum();
    // What frees most for what it costs comes first.
    used.sort_by(|a, b| {
        let share = |p: &PackUse| p.idle() as f64 / p.size.max(1) as f64;
        share(b).total_cmp(&share(a)).then(a.name.cmp(&b.name))
    });
    for pack in used {
        let is_small = small.contains(&pack.name);
        let frees = pack.idle() > pack.size / limits::PRUNE_WORTH_PART;
        if pack.is_outdated || is_small || too_much > allowed && frees && pack.size <= left {
            if !is_small {
                left = left.saturating_sub(pack.size);
                too_much = too_much.saturating_sub(pack.idle());
            }
            choice.repacked.push(pack);
        } else {
            choice.kept.push(pack);
        }
    }
    choice
}

/// Small packs of one class that fill one together.
fn merged(used: &[PackUse], left: &mut u64) -> HashSet<PackName> {
    let mut names = HashSet::new();
    for (class, target) in
        [(StorageClass::Data, limits::PACK_TARGET), (StorageClass::Trees, limits::TREE_PACK_TARGET)]
    {
        let target = target as u64;
        let small: Vec<&PackUse> = used.iter().filter(|p| p.class == class && p.size < target / 4).collect();
        let bytes: u64 = small.iter().map(|p| p.size).sum();
        let many = small.len() >= limits::PRUNE_SMALL_PACKS || bytes >= target;
        if many && small.len() > 1 && bytes <= *left {
            *left -= bytes;
            names.extend(small.iter().map(|p| p.name));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(n: u8, size: u64, needed: u64) -> PackUse {
        let (name, class) = (PackName([n; 32]), StorageClass::Data);
        PackUse { name, class, size, holds: size, needed, is_outdated: false }
    }

    const LARGE: u64 = limits::PACK_TARGET as u64;

    #[test]
    fn what_nothing_needs_goes_and_what_is_full_stays() {
        let choice = choose(vec![pack(1, LARGE, 0), pack(2, LARGE, LARGE - 100)], Bounds::default());
        assert_eq!((choice.unused.len(), choice.repacked.len(), choice.kept.len()), (1, 0, 1));
    }

    #[test]
    fn the_emptiest_is_written_anew_first_until_little_is_unused() {
        let packs = vec![pack(1, LARGE, LARGE / 10), pack(2, LARGE, LARGE / 10 * 9), pack(3, LARGE, LARGE - 100)];
        let choice = choose(packs.clone(), Bounds::default());
        let names = |packs: &[PackUse]| packs.iter().map(|p| p.name.0[0]).collect::<Vec<_>>();
        // A tenth of a pack is more than a twentieth of what is needed of two.
        assert_eq!((names(&choice.repacked), names(&choice.kept)), (vec![1, 2], vec![3]));
        let choice = choose(packs.clone(), Bounds { unused_percent: 10.0, ..Bounds::default() });
        assert_eq!(names(&choice.repacked), [1]);
        let choice = choose(packs, Bounds { repack: Some(LARGE - 1), ..Bounds::default() });
        assert_eq!(names(&choice.repacked), Vec::<u8>::new());
    }

    #[test]
    fn a_pack_of_which_all_is_needed_is_left_alone_however_small_it_is() {
        let small = PackUse { holds: 1_000, ..pack(1, 2_500, 1_000) };
        assert_eq!(choose(vec![small], Bounds { unused_percent: 0.0, repack: None }).kept.len(), 1);
    }

    #[test]
    fn small_packs_are_merged_once_there_are_many() {
        let few: Vec<_> = (0..3).map(|n| pack(n, 10_000, 10_000)).collect();
        assert_eq!(choose(few, Bounds::default()).repacked, []);
        let many: Vec<_> = (0..limits::PRUNE_SMALL_PACKS as u8).map(|n| pack(n, 10_000, 10_000)).collect();
        assert_eq!(choose(many, Bounds::default()).repacked.len(), limits::PRUNE_SMALL_PACKS);
    }

    #[test]
    fn what_is_sealed_to_a_former_key_pair_is_written_anew_and_what_nothing_needs_goes() {
        let packs = [(1, LARGE, true), (2, LARGE, false), (3, 0, true)]
            .map(|(n, needed, is_outdated)| PackUse { is_outdated, ..pack(n, LARGE, needed) });
        let choice = choose(packs.to_vec(), Bounds { repack: Some(1), ..Bounds::default() });
        let names = |packs: &[PackUse]| packs.iter().map(|p| p.name.0[0]).collect::<Vec<_>>();
        assert_eq!(
            (names(&choice.unused), names(&choice.repacked), names(&choice.kept)),
            (vec![3], vec![1], vec![2])
        );
    }

    proptest! {
        #[test]
        fn every_pack_has_one_fate_and_what_is_needed_never_goes(
            packs in proptest::collection::vec((any::<u8>(), 1..LARGE, 0..=100u64, any::<bool>()), 0..60),
            percent in 0.0..100.0f64,
            most in proptest::option::of(0..10 * LARGE),
        ) {
            let class = |trees| if trees { StorageClass::Trees } else { StorageClass::Data };
            let mut packs: Vec<PackUse> = packs
                .into_iter()
                .map(|(n, size, part, trees)| PackUse { class: class(trees), ..pack(n, size, size * part / 100) })
                .collect();
            packs.sort_by_key(|p| p.name);
            packs.dedup_by_key(|p| p.name);
            let bounds = Bounds { unused_percent: percent, repack: most };
            let choice = choose(packs.clone(), bounds);
            prop_assert!(choice.unused.iter().all(|p| p.needed == 0));
            let written: u64 = choice.repacked.iter().map(|p| p.size).sum();
            prop_assert!(most.is_none_or(|most| written <= most));
            let mut all = [choice.unused.clone(), choice.repacked.clone(), choice.kept.clone()].concat();
            all.sort_by_key(|p| p.name);
            prop_assert_eq!(all, packs.clone());
            packs.reverse();
            prop_assert_eq!(choose(packs, bounds), choice);
        }
    }
}
