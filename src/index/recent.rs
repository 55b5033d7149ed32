//! What was used last, by number, bounded by weight. Two halves: what is met
//! again moves to the young one, and when that is full the old one goes, so
//! that keeping and finding cost the same however much is kept.

use std::collections::HashMap;
use std::sync::Arc;

pub(super) struct Recent<T> {
    young: HashMap<i64, (Arc<T>, usize)>,
    old: HashMap<i64, (Arc<T>, usize)>,
    /// Of the young ones.
    weight: usize,
    max: usize,
}

impl<T> Recent<T> {
    /// Holds things of this weight together, or a single one that is heavier than half of it beside
    /// the one before.
    pub(super) fn new(max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), weight: 0, max }
    }

    pub(super) fn get(&mut self, number: i64) -> Option<Arc<T>> {
        if let Some((found, _)) = self.young.get(&number) {
            return Some(Arc::clone(found));
        }
        let (found, weight) = self.old.remove(&number)?;
        self.keep(number, &found, weight);
        Some(found)
    }

    /// A number stands for the same thing for ever.
    pub(super) fn keep(&mut self, number: i64, what: &Arc<T>, weight: usize) {
        if self.young.contains_key(&number) {
            return;
        }
        if self.weight + weight > self.max / 2 {
            std::mem::swap(&mut self.old, &mut self.young);
            self.young.clear();
            self.weight = 0;
        }
        self.old.remove(&number);
        self.young.insert(number, (Arc::clone(what), weight));
        self.weight += weight;
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.weight = 0;
    }

    /// What all of it weighs.
    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        self.young.values().chain(self.old.values()).map(|(_, weight)| weight).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_weight_is_bounded() {
        let mut recent = Recent::new(100);
        for n in 0..1000 {
            recent.keep(n, &Arc::new(n), 7);
            assert!(recent.weight() <= 100);
            assert_eq!(recent.get(0).as_deref(), Some(&0), "used all the time");
        }
        assert!(recent.get(1).is_none() && recent.get(999).is_some());
        recent.keep(999, &Arc::new(5), 7);
        assert_eq!(recent.get(999).as_deref(), Some(&999), "a number stands for one thing");
        recent.clear();
        assert!(recent.get(999).is_none() && recent.weight() == 0);
    }

    #[test]
    fn what_is_heavier_than_the_bound_is_kept_until_the_next() {
        let mut recent = Recent::new(10);
        recent.keep(1, &Arc::new(1), 30);
        assert!(recent.get(1).is_some());
        recent.keep(2, &Arc::new(2), 30);
        recent.keep(3, &Arc::new(3), 30);
        assert!(recent.get(1).is_none() && recent.get(3).is_some());
    }
}
