//! Quantities as options give them: times such as `90`, `5m` or `12h`, sizes and rates such as `500k` or `10M`,
//! and parts such as `5%`, `3/7` or `10G`.

use crate::format::parity::Parity;
use crate::maintenance::Part;
use std::num::NonZeroU64;
use std::time::Duration;

/// A number and the factor of the unit behind it; no unit is 1.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        unit => units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A time in seconds, minutes, hours or days.
pub fn time(text: &str) -> Result<Duration, String> {
    let seconds = scaled(text, &[("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]);
    let seconds = seconds.filter(|seconds| *seconds <= crate::limits::WAIT_SECONDS_MAX);
    seconds.map(Duration::from_secs).ok_or_else(|| "give seconds, or a number with s, m, h or d behind it".into())
}

/// Hundredths, from 0 to 100.
pub fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok();
    number.filter(|n| (0.0..=100.0).contains(n)).ok_or_else(|| "give a number from 0 to 100, such as 5%".into())
}

/// Recovery shards for a hundred others, in tenths.
pub fn parity(text: &str) -> Result<Parity, String> {
    let per_mille = percent(text).ok().map(|hundredths| hundredths * 10.0).filter(|n| n.fract() == 0.0);
    let found = per_mille.and_then(|n| Parity::per_mille(n as u64));
    let most = f64::from(crate::limits::PARITY_MAX) / 10.0;
    found.ok_or_else(|| format!("give a number from 0 to {most} with one decimal at most, such as 5% or 0.5%"))
}

/// A span of the calendar: numbers with h, d, w, m (months) or y behind each, the largest unit first or not.
pub fn span(text: &str) -> Result<jiff::Span, String> {
    let wrong = || "give a number with h, d, w, m (months) or y behind it, or several such as 1y6m".to_owned();
    let mut span = jiff::Span::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
        let number: i64 = number.parse().map_err(|_| wrong())?;
        let unit = tail.chars().next().ok_or_else(wrong)?;
        let added = match unit.to_ascii_lowercase() {
            'h' if span.get_hours() == 0 => span.try_hours(number),
            'd' if span.get_days() == 0 => span.try_days(number),
            'w' if span.get_weeks() == 0 => span.try_weeks(number),
            'm' if span.get_months() == 0 => span.try_months(number),
            'y' if span.get_years() == 0 => span.try_years(number),
            _ => return Err(wrong()),
        };
        span = added.map_err(|_| "that is longer than any calendar".to_owned())?;
        rest = &tail[unit.len_utf8()..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(span) }
}

/// Bytes per second; `None` for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub Option<NonZeroU64>);

const BYTES: [(&str, u64); 4] = [("k", 1000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)];

/// Bytes.
pub fn size(text: &str) -> Result<u64, String> {
    scaled(text, &BYTES).ok_or_else(|| "give bytes, such as 500M or 10G".into())
}

/// Bytes per second; 0 is no bound.
pub fn rate(text: &str) -> Result<Rate, String> {
    scaled(text, &BYTES)
        .map(|bytes| Rate(NonZeroU64::new(bytes)))
        .ok_or_else(|| "give bytes per second, such as 500k or 10M; 0 for no bound".into())
}

/// A part of the packs: `5%` or `0.5%` of their bytes, `3/7` for the third of seven parts, or bytes.
pub fn part(text: &str) -> Result<Part, String> {
    let found = if let Some(percent) = text.strip_suffix('%') {
        share(percent)
    } else if let Some((nth, of)) = text.split_once('/') {
        let (nth, of) = (plain(nth), plain(of));
        nth.zip(of).filter(|(nth, of)| (1..=*of).contains(nth)).map(|(nth, of)| Part::Nth { nth, of })
    } else {
        let units = [("k", 1000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)];
        scaled(text, &units).filter(|bytes| *bytes > 0).map(Part::Bytes)
    };
    found.ok_or_else(|| "give a percentage (5%), the n-th of m parts (3/7), or bytes (500M, 10G)".into())
}

fn plain(digits: &str) -> Option<u64> {
    scaled(digits, &[])
}

/// Up to 100, with at most two digits behind the point.
fn share(percent: &str) -> Option<Part> {
    let (whole, fraction) = percent.split_once('.').unwrap_or((percent, "0"));
    if !(1..=2).contains(&fraction.len()) {
        return None;
    }
    let fraction = plain(fraction)? * if fraction.len() == 1 { 10 } else { 1 };
    let share = plain(whole)?.checked_mul(100)?.checked_add(fraction)?;
    match u32::try_from(share).ok().filter(|share| (1..=10_000).contains(share))? {
        10_000 => Some(Part::All),
        share => Some(Part::Share(share)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("5m", 300), ("12h", 43_200), ("2D", 172_800)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "m", "-1", "5 m", "1.5h", "5w", "99999999999999999999", "9999999999999999999d", "400d"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percents() {
        for (text, number) in [("5%", 5.0), ("0", 0.0), ("2.5%", 2.5), ("100", 100.0)] {
            assert_eq!(percent(text), Ok(number), "{text}");
        }
        for text in ["", "%", "-1%", "101", "NaN", "inf", "5 %", "five"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("1", 1), ("500k", 500_000), ("3M", 3_000_000), ("2t", 2_000_000_000_000)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "1.5M", "10MB", "18446744073709551615k"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans() {
        let of = |text| span(text).map(|s| s.fieldwise());
        for (text, expected) in [
            ("12h", jiff::Span::new().hours(12)),
            ("30d", jiff::Span::new().days(30)),
            ("8W", jiff::Span::new().weeks(8)),
            ("1y6m", jiff::Span::new().years(1).months(6)),
            ("0d", jiff::Span::new()),
        ] {
            assert_eq!(of(text), Ok(expected.fieldwise()), "{text}");
        }
        for text in ["", "d", "30", "-1d", "1d2d", "1 d", "5s", "1é", "99999999999999999999d", "20000y"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parts() {
        for (text, expected) in [
            ("5%", Part::Share(500)),
            ("0.5%", Part::Share(50)),
            ("0.05%", Part::Share(5)),
            ("99.99%", Part::Share(9_999)),
            ("100%", Part::All),
            ("3/7", Part::Nth { nth: 3, of: 7 }),
            ("1/1", Part::Nth { nth: 1, of: 1 }),
            ("10G", Part::Bytes(10_000_000_000)),
            ("2t", Part::Bytes(2_000_000_000_000)),
            ("1", Part::Bytes(1)),
        ] {
            assert_eq!(part(text), Ok(expected), "{text}");
        }
        for text in [
            "", "%", "0%", "0.00%", "101%", "5.%", "5.001%", "-5%", "0/7", "8/7", "/7", "3/", "3/7/9", "0", "G",
            "1.5G",
        ] {
            assert!(part(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates() {
        for (text, bytes) in
            [("1", 1), ("500k", 500_000), ("500K", 500_000), ("10M", 10_000_000), ("2g", 2_000_000_000)]
        {
            assert_eq!(rate(text), Ok(Rate(NonZeroU64::new(bytes))), "{text}");
        }
        assert_eq!((rate("0"), rate("0k")), (Ok(Rate(None)), Ok(Rate(None))));
        for text in ["", "k", "-1", "1.5M", "10MB", "10 M", "18446744073709551615k"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
