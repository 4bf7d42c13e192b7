//! Time as the fake counts it: milliseconds since 1970, written as AWS writes it.

/// Milliseconds since 1970.
pub(super) type Moment = u64;

/// Milliseconds since 1970 as `2026-01-02T03:04:05.678Z`.
#[must_use]
pub fn written(at: Moment) -> String {
    let (days, rest) = (at / 86_400_000, at % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute, second, milli) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Reads what [`written`] writes, with or without fractions of a second; None for anything else.
pub(super) fn read(text: &str) -> Option<Moment> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let mut parts = time.splitn(3, ':');
    let (hour, minute) = (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?);
    let (second, fraction) = parts.next().map(|part| part.split_once('.').unwrap_or((part, "0")))?;
    let milli = format!("{fraction:0<3}").get(..3)?.parse::<u64>().ok()?;
    let days =
        (0..).take_while(|days| self::date(*days).0 <= year).find(|days| self::date(*days) == (year, month, day))?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second.parse::<u64>().ok()?;
    Some(seconds * 1000 + milli)
}

/// Year, month and day of a day since 1970: the civil calendar counted from 1 March of the year 0.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_aws_writes_them_and_read_back() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_392_245_678, "2026-11-23T00:04:05.678Z"),
        ] {
            assert_eq!(written(at), text);
            assert_eq!(read(text), Some(at), "{text}");
        }
        assert_eq!(read("1970-01-01T00:00:01Z"), Some(1000));
        for bad in ["", "now", "2026-13-01T00:00:00Z", "2026-01-01"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
