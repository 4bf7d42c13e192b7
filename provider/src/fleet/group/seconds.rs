//! Durations in configuration files and tags: `500ms`, `90s`, `15m`, `1h30m`, as Go writes them, or a bare number of
//! seconds.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// Writes whole milliseconds as `…ms`.
///
/// # Errors
/// Only those of the serializer.
pub fn serialize<S: Serializer>(span: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => out.serialize_str(&format!("{}ms", span.as_millis())),
        None => out.serialize_none(),
    }
}

/// Reads a duration, or nothing.
///
/// # Errors
/// Text that is not a duration; the message says what would be.
pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Seconds(f64),
        Text(String),
    }
    match Option::<Written>::deserialize(input)? {
        None => Ok(None),
        Some(Written::Seconds(seconds)) => Duration::try_from_secs_f64(seconds).map(Some).map_err(D::Error::custom),
        Some(Written::Text(text)) => parse(&text).map(Some).map_err(D::Error::custom),
    }
}

/// Reads what Go's `time.ParseDuration` reads, as cluster-autoscaler's flags and tags are written (`500ms`, `90s`, `1.5h`,
/// `1h30m`), or a bare number of seconds; a sign is refused.
///
/// # Errors
/// A sentence that says what was read and what would be right.
pub fn parse(text: &str) -> Result<Duration, String> {
    let (mut rest, mut seconds) = (text, 0.0);
    loop {
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
        let (unit, next) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let unit = match if number == text { "s" } else { unit.trim() } {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => f64::NAN,
        };
        seconds += number.parse().unwrap_or(f64::NAN) * unit;
        rest = next;
        if rest.is_empty() {
            break;
        }
    }
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| format!("\"{text}\" is not a duration; write for example 500ms, 90s, 15m or 1h30m"))
}

fn is_number(c: char) -> bool {
    c.is_ascii_digit() || c == '.'
}

/// The same for a duration that must be there (with a default).
pub mod required {
    use super::{Duration, Serializer};
    use serde::{Deserializer, de::Error as _};

    /// Writes whole milliseconds as `…ms`.
    ///
    /// # Errors
    /// Only those of the serializer.
    pub fn serialize<S: Serializer>(span: &Duration, out: S) -> Result<S::Ok, S::Error> {
        super::serialize(&Some(*span), out)
    }

    /// Reads a duration.
    ///
    /// # Errors
    /// Text that is not a duration, or nothing at all.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        super::deserialize(input)?.ok_or_else(|| D::Error::custom("a duration such as 90s is needed here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_and_without_a_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("15m", 900_000),
            ("1.5h", 5_400_000),
            ("1h30m", 5_400_000),
            ("10m0s", 600_000),
            ("1m0.5s", 60_500),
            ("2000µs", 2),
            ("0", 0),
            ("7", 7_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for text in ["", "s", "-1s", "1d", "1.2.3s", "inf", "1e99h", "1h30", "1h 30m x", "1h-30m"] {
            assert!(parse(text).unwrap_err().contains("for example 500ms"), "{text}");
        }
    }
}
