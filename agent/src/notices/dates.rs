//! The two ways in which EC2 writes a time, as seconds since 1970. Pure; what is no time is `None`.

/// `2015-01-05T18:02:00Z`, with a fraction or an offset where there is one (RFC 3339).
#[must_use]
pub fn rfc3339(text: &str) -> Option<f64> {
    let text = text.trim();
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (digits(date.next()?, 4)?, digits(date.next()?, 2)?, digits(date.next()?, 2)?);
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at_checked(zone)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: f64 = format!("0.{fraction}").parse().ok()?;
    Some((seconds(year, month, day, clock)? - offset(zone)?) as f64 + fraction)
}

/// `21 Jan 2019 09:00:43 GMT`.
#[must_use]
pub fn spelled(text: &str) -> Option<f64> {
    let mut parts = text.split_ascii_whitespace();
    let day = digits(parts.next()?, 0)?;
    let month = parts.next()?;
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        .iter()
        .position(|name| *name == month)?;
    let year = digits(parts.next()?, 4)?;
    let clock = parts.next()?;
    let known_zone = matches!(parts.next(), Some("GMT" | "UTC"));
    (known_zone && parts.next().is_none())
        .then_some(())
        .and_then(|()| seconds(year, i64::try_from(month).ok()? + 1, day, clock))
        .map(|seconds| seconds as f64)
}

/// Digits and nothing else; exactly `count` of them unless that is 0.
fn digits(text: &str, count: usize) -> Option<i64> {
    let right =
        (count == 0 || text.len() == count) && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    if right { text.parse().ok() } else { None }
}

/// `Z`, `+02:00`.
fn offset(zone: &str) -> Option<i64> {
    let (sign, rest) = match zone.as_bytes().first()? {
        b'Z' | b'z' => return (zone.len() == 1).then_some(0),
        b'+' => (1, zone.get(1..)?),
        _ => (-1, zone.get(1..)?),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn seconds(year: i64, month: i64, day: i64, clock: &str) -> Option<i64> {
    let mut clock = clock.splitn(3, ':');
    let (hour, minute, second) = (digits(clock.next()?, 2)?, digits(clock.next()?, 2)?, digits(clock.next()?, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second is written as :60.
    let sane = year >= 1970 && (1..=length).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    // Days from civil: years begin in March, so that the leap day is the last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468;
    sane.then_some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_a_time_are_read() {
        for (text, expect) in [
            ("1970-01-01T00:00:00Z", Some(0.0)),
            ("2015-01-05T18:02:00Z", Some(1_420_480_920.0)),
            ("2020-02-29T23:59:60Z", Some(1_583_020_800.0)),
            ("2020-10-27T08:22:00.5Z", Some(1_603_786_920.5)),
            ("2020-10-27T10:22:00+02:00", Some(1_603_786_920.0)),
            ("2020-10-27T08:22:00", None),
            ("2019-02-29T00:00:00Z", None),
            ("2020-13-01T00:00:00Z", None),
            ("99999-01-01T00:00:00Z", None),
            ("2020-1-1T00:00:00Z", None),
            ("2020-10-27T08:22:00+2", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(rfc3339(text), expect, "{text}");
        }
        for (text, expect) in [
            ("21 Jan 2019 09:00:43 GMT", Some(1_548_061_243.0)),
            ("1 Mar 2024 00:00:00 GMT", Some(1_709_251_200.0)),
            ("21 Jan 2019 09:00:43", None),
            ("21 Janvier 2019 09:00:43 GMT", None),
            ("31 Apr 2019 09:00:43 GMT", None),
            ("", None),
        ] {
            assert_eq!(spelled(text), expect, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,40}") {
            let _times = (rfc3339(&text), spelled(&text));
        }

        #[test]
        fn what_is_nearly_a_time_is_read_without_a_panic(text in "[0-9]{1,5}-[0-9]{1,2}-[0-9]{1,2}T[0-9:.é]{0,10}[Z+-]?[0-9:]{0,6}") {
            let _time = rfc3339(&text);
        }
    }
}
