//! How things are printed: numbers, times, names that may hold anything.

use crate::clock::Timestamp;
use anyhow::{Context as _, Result};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Prints a result. A reader that has gone away is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e).context("cannot print"),
        _ => Ok(()),
    }
}

/// Prints a JSON document on a line of its own.
pub fn print_json(document: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_string(document).context("cannot make JSON")?;
    text.push('\n');
    print(&text)
}

/// Prints to standard error. Where that is closed there is nobody to tell.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A name or path: control characters and bytes that are no UTF-8 are escaped, so that no name can
/// move a terminal's cursor.
pub fn escaped(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(needs_escape) => Cow::Borrowed(text),
        _ => {
            let mut out = String::new();
            for part in bytes.utf8_chunks() {
                escape_into(&mut out, part.valid());
                for byte in part.invalid() {
                    let _ = write!(out, "\\x{byte:02x}");
                }
            }
            Cow::Owned(out)
        }
    }
}

fn needs_escape(c: char) -> bool {
    // Bidirectional controls reorder what a person reads, separators break the line, and what has no
    // width makes two names look alike.
    c.is_control()
        || c == '\\'
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{ad}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        if needs_escape(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

/// A message, on one line: as [`escaped`], but with its backslashes.
pub fn escaped_text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if needs_escape(c) && c != '\\' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A word as a shell takes it.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Bytes, for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.5 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A count, in groups of three.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// "1 file", "2 files".
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// So many in a thousand, as hundredths.
pub fn per_mille(n: u16) -> String {
    if n.is_multiple_of(10) { format!("{} %", n / 10) } else { format!("{}.{} %", n / 10, n % 10) }
}

fn moment(time: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(time.seconds, i32::try_from(time.nanos).ok()?).ok()
}

/// A moment in this machine's time zone, to the second.
pub fn local_time(time: Timestamp) -> String {
    time_in(time, &jiff::tz::TimeZone::system())
}

/// A moment in a time zone, to the second.
pub fn time_in(time: Timestamp, zone: &jiff::tz::TimeZone) -> String {
    match moment(time) {
        Some(t) => t.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        None => format!("{} s", time.seconds),
    }
}

/// A moment in UTC, whole.
pub fn utc_time(time: Timestamp) -> String {
    moment(time).map_or_else(|| format!("{}", time.seconds), |t| t.to_string())
}

/// Reads a moment: with a zone or `Z`, or in this machine's time zone; a date alone is its first moment.
pub fn parse_time(text: &str) -> Result<Timestamp> {
    let zoned = || -> Result<jiff::Timestamp, jiff::Error> {
        if let Ok(t) = text.parse::<jiff::Timestamp>() {
            return Ok(t);
        }
        let civil: jiff::civil::DateTime = text.parse()?;
        Ok(civil.to_zoned(jiff::tz::TimeZone::system())?.timestamp())
    };
    let t = zoned().map_err(|e| {
        crate::error::Error::Invalid(format!(
            "{text:?} is no time: give 2026-11-21, '2026-11-21 14:30' or 2026-11-21T14:30Z ({e})"
        ))
    })?;
    let (mut seconds, mut nanos) = (t.as_second(), t.subsec_nanosecond());
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    Ok(Timestamp { seconds, nanos: nanos.unsigned_abs() })
}

/// Rows as a table: columns as wide as they need to be; the ones in `right` to the right.
pub fn table(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count());
        cells.chain(head.get(column).map(|h| h.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            if right.contains(&column) {
                let _ = write!(line, "{pad}{cell}  ");
            } else {
                let _ = write!(line, "{cell}{pad}  ");
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_move_the_cursor() {
        assert_eq!(escaped(b"plain \xc3\xa9"), "plain é");
        assert_eq!(escaped(b"a\x1b[2Jb\n\xff\\"), "a\\u{1b}[2Jb\\n\\xff\\\\");
        assert_eq!(escaped("a\u{202e}b".as_bytes()), "a\\u{202e}b");
        assert_eq!(escaped("a\u{61c}\u{2028}\u{200b}b".as_bytes()), "a\\u{61c}\\u{2028}\\u{200b}b");
        assert_eq!(escaped("नि\u{200d}".as_bytes()), "नि\u{200d}", "joiners belong to letters");
    }

    #[test]
    fn sizes_and_counts() {
        assert_eq!(
            [0, 999, 1000, 15_400, 999_600, 4_600_000_000].map(size),
            ["0 B", "999 B", "1.0 kB", "15.4 kB", "1.0 MB", "4.6 GB"]
        );
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn shell_words() {
        assert_eq!(shell_word("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(shell_word("it's here"), "'it'\\''s here'");
    }

    #[test]
    fn times() {
        assert_eq!(parse_time("2026-11-21T14:30:00Z").unwrap(), Timestamp { seconds: 1_795_271_400, nanos: 0 });
        assert_eq!(parse_time("1969-12-31T23:59:59.5Z").unwrap(), Timestamp { seconds: -1, nanos: 500_000_000 });
        assert!(parse_time("2026-11-21").is_ok() && parse_time("2026-11-21 14:30").is_ok());
        assert!(parse_time("yesterday").is_err());
        assert_eq!(utc_time(Timestamp { seconds: 0, nanos: 0 }), "1970-01-01T00:00:00Z");
    }
}
