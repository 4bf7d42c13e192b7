//! Small renderings for people: text that is safe in HTML, times, ages, money.

use std::fmt;

use crate::{
    fleet::{group::Group, prices::PriceSource},
    timestamp::Timestamp,
};

/// Text that came from elsewhere, safe between tags and in quoted attributes.
pub(crate) struct Safe<'a>(pub(crate) &'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            let (before, from) = rest.split_at(at);
            out.write_str(before)?;
            out.write_str(match from.as_bytes().first() {
                Some(b'&') => "&amp;",
                Some(b'<') => "&lt;",
                Some(b'>') => "&gt;",
                Some(b'"') => "&quot;",
                _ => "&#39;",
            })?;
            rest = from.get(1..).unwrap_or_default();
        }
        out.write_str(rest)
    }
}

/// `2026-11-22 13:45:02`, in UTC. Days are turned into a date by counting years of March to February, in which the leap
/// day is the last.
pub(crate) fn date(at: Timestamp) -> String {
    let (days, seconds) = (at.0 / 86_400_000, at.0 / 1000 % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `now`, `12 s`, `5 min`, `3 h`, `2 days`.
pub(crate) fn span(between: std::time::Duration) -> String {
    match between.as_secs() {
        0 => "now".to_owned(),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Millionths of a dollar as dollars: `$0.4`, `$12.24`.
pub(crate) fn dollars(micros: u64) -> String {
    let (whole, part) = (micros / 1_000_000, micros % 1_000_000 / 100);
    let text = format!("${whole}.{part:04}");
    let end = text.trim_end_matches('0').len().max(text.len().saturating_sub(2));
    text.get(..end).unwrap_or(&text).to_owned()
}

/// What a machine costs, `$0.45` or `$14.25 to $55.04`, and who says so: `spot history, 3 min ago`. Empty without a price.
pub(crate) fn price(group: &Group, now: Timestamp) -> (String, String) {
    let (Some(micros), Some(origin)) = (group.price_micros, &group.price_origin) else {
        return (group.price_micros.map(dollars).unwrap_or_default(), String::new());
    };
    let (low, high) = (origin.zones.values().min(), origin.zones.values().max());
    let sum = match (low, high) {
        (Some(low), Some(high)) if low < high => format!("{} to {}", dollars(*low), dollars(*high)),
        _ => dollars(micros),
    };
    let day = |at: Timestamp| date(at).split(' ').next().unwrap_or_default().to_owned();
    let says = match (origin.source, origin.at) {
        (PriceSource::Override, _) => "your own price".to_owned(),
        (PriceSource::SpotHistory, Some(at)) if now.since(at).as_secs() < 1 => "spot history, just now".to_owned(),
        (PriceSource::SpotHistory, Some(at)) => format!("spot history, {} ago", span(now.since(at))),
        (PriceSource::SpotHistory, None) => "spot history".to_owned(),
        (PriceSource::Table, Some(at)) => format!("table of {}", day(at)),
        (PriceSource::Table, None) => "table".to_owned(),
        (PriceSource::Scenario, _) => "scenario".to_owned(),
    };
    (sum, says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_end_a_tag_or_an_attribute() {
        assert_eq!(Safe("<script>'\"&é").to_string(), "&lt;script&gt;&#39;&quot;&amp;é");
    }

    #[test]
    fn dates_are_right_around_leap_days_and_centuries() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_164_800, "2024-02-29 00:00:00"),
            (1_795_355_102, "2026-11-22 13:45:02"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(date(Timestamp(seconds * 1000)), text);
        }
    }

    #[test]
    fn money_has_cents_and_no_needless_digits() {
        for (micros, text) in [(400_000, "$0.40"), (12_240_000, "$12.24"), (526_200, "$0.5262"), (0, "$0.00")] {
            assert_eq!(dollars(micros), text);
        }
    }
}
