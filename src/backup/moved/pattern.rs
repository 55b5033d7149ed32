//! Names that differ by numbers only: `dump-2026-11-20.sql` and the one of the
//! day before. Pure.

/// What a name has in common with those that differ from it by numbers: itself, with each number
/// become one digit. `None` if it has no number.
pub fn of(name: &[u8]) -> Option<Vec<u8>> {
    let mut pattern = Vec::with_capacity(name.len());
    let mut has_number = false;
    for run in runs(name) {
        match run {
            Run::Number(_) => {
                has_number = true;
                pattern.push(b'0');
            }
            Run::Text(text) => pattern.extend_from_slice(text),
        }
    }
    has_number.then_some(pattern)
}

/// A name's numbers, so that those of one pattern stand in the order of their values, the first number
/// first: `9` before `10`, and both `7` and `007` before `8`.
pub fn numbers(name: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::new();
    for run in runs(name) {
        if let Run::Number(digits) = run {
            let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
            let digits = &digits[zeros..];
            // A name is shorter than what two bytes count, if not on this machine then on no other.
            let len = u16::try_from(digits.len()).unwrap_or(u16::MAX);
            numbers.extend_from_slice(&len.to_be_bytes());
            numbers.extend_from_slice(digits);
        }
    }
    numbers
}

enum Run<'n> {
    Number(&'n [u8]),
    Text(&'n [u8]),
}

/// A name in turns of digits and of anything else.
fn runs(name: &[u8]) -> impl Iterator<Item = Run<'_>> {
    let same = |one: &u8, next: &u8| one.is_ascii_digit() == next.is_ascii_digit();
    name.chunk_by(same).map(|run| if run[0].is_ascii_digit() { Run::Number(run) } else { Run::Text(run) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn common(name: &str) -> Option<String> {
        of(name.as_bytes()).map(|pattern| String::from_utf8(pattern).unwrap())
    }

    #[test]
    fn each_number_becomes_one_digit() {
        assert_eq!(common("dump-2026-11-20.sql").unwrap(), "dump-0-0-0.sql");
        assert_eq!(common("dump-2026-11-9.sql"), common("dump-1999-1-31.sql"));
        assert_eq!(common("20261120.gz").unwrap(), "0.gz");
        assert_eq!(common("a7").unwrap(), "a0");
        assert_ne!(common("a1.sql"), common("a1.json"), "an ending is part of it");
        assert_ne!(common("a1b"), common("a1"));
        assert_ne!(common("a.log.1"), common("a.log"));
        assert_eq!((common("notes.txt"), common(""), common("\u{663}")), (None, None, None));
    }

    #[test]
    fn numbers_stand_in_the_order_of_their_values() {
        let order = ["b-0", "b-9", "b-10", "b-0099", "b-100", "b-20261120", "b-99999999999999999999999"];
        for pair in order.windows(2) {
            assert!(numbers(pair[0].as_bytes()) < numbers(pair[1].as_bytes()), "{pair:?}");
        }
        assert_eq!(numbers(b"b-007"), numbers(b"b-7"));
        assert!(numbers(b"2026-9-30") < numbers(b"2026-10-01"));
        assert!(numbers(b"2025-12-31") < numbers(b"2026-01-01"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_name(name in proptest::collection::vec(any::<u8>(), 0..300)) {
            let pattern = of(&name);
            prop_assert_eq!(pattern.is_some(), name.iter().any(u8::is_ascii_digit));
            prop_assert_eq!(pattern.is_none(), numbers(&name).is_empty());
            prop_assert_eq!(pattern.as_deref().and_then(of), pattern);
        }

        #[test]
        fn values_decide(one in any::<[u32; 3]>(), other in any::<[u32; 3]>()) {
            let name = |n: [u32; 3]| format!("a{}-{:09}.{}", n[0], n[1], n[2]).into_bytes();
            prop_assert_eq!(numbers(&name(one)).cmp(&numbers(&name(other))), one.cmp(&other));
        }
    }
}
