//! The operator's own prices (`cloud.priceOverrides`): lines of `type,market,place,dollars per hour`, where the place is a
//! zone, a region or `*`. The nearest place wins; what cannot be read is said with its line.

use std::{collections::BTreeMap, path::Path};

use crate::{config, fleet::group::Market};

const FORM: &str = "write `type,market,place,dollars per hour`, e.g. p5.48xlarge,on-demand,us-east-1,38.50; the place is a zone, a region or *";

/// Prices by (type, market, place).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<(String, Market, String), u64>);

/// Reads the file.
///
/// # Errors
/// What is wrong with it, in which line, and what would be right.
pub fn read(file: &Path) -> Result<Overrides, String> {
    let text = config::read_text(file);
    let text = text.map_err(|error| format!("{} cannot be read: {error}", file.display()));
    parse(&text?).map_err(|wrong| format!("{}:{wrong}", file.display()))
}

fn parse(text: &str) -> Result<Overrides, String> {
    let mut found = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with("type,market,place,") {
            continue;
        }
        let (key, price) = row(line).ok_or_else(|| format!("{number}: \"{line}\" is no price; {FORM}"))?;
        if found.insert(key, price).is_some() {
            return Err(format!("{number}: \"{line}\" says a price a second time; remove one of the two"));
        }
    }
    Ok(Overrides(found))
}

fn row(line: &str) -> Option<((String, Market, String), u64)> {
    let cells: Vec<_> = line.split(',').map(str::trim).collect();
    let [kind, market, place, price] = cells.as_slice() else { return None };
    let market = match *market {
        "on-demand" => Market::OnDemand,
        "spot" => Market::Spot,
        _ => return None,
    };
    let named = !kind.is_empty() && !place.is_empty();
    named.then_some(())?;
    Some((((*kind).to_owned(), market, (*place).to_owned()), micros(price)?))
}

impl Overrides {
    /// Millionths of a dollar an hour in that zone; None when nothing is said of it.
    pub(super) fn price(&self, kind: &str, market: Market, zone: &str, region: &str) -> Option<u64> {
        let at = |place: &str| self.0.get(&(kind.to_owned(), market, place.to_owned())).copied();
        at(zone).or_else(|| at(region)).or_else(|| at("*"))
    }
}

/// Dollars as they are written, in millionths; more digits than six are cut. None for what is no price below a million.
pub(super) fn micros(dollars: &str) -> Option<u64> {
    let (whole, part) = dollars.trim().split_once('.').unwrap_or((dollars.trim(), ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || whole.len() > 6 || whole.len() + part.len() == 0 {
        return None;
    }
    let part: String = part.chars().chain("000000".chars()).take(6).collect();
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    Some(whole * 1_000_000 + part.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dollars_are_read_exactly() {
        for (text, expected) in [
            ("1.006", Some(1_006_000)),
            ("0.0000009", Some(0)),
            ("38.5", Some(38_500_000)),
            ("12", Some(12_000_000)),
            (".5", Some(500_000)),
            ("", None),
            ("-1", None),
            ("1e3", None),
            ("NaN", None),
            ("9999999", None),
        ] {
            assert_eq!(micros(text), expected, "{text}");
        }
    }

    #[test]
    fn the_nearest_place_wins() {
        let text = "type,market,place,dollars_per_hour\n# ours\np5,spot,*,9\np5,spot,us-east-1,8 # since March\np5, spot, us-east-1b, 7.5\n";
        let overrides = parse(text).unwrap();
        for (zone, region, expected) in [
            ("us-east-1a", "us-east-1", Some(8_000_000)),
            ("us-east-1b", "us-east-1", Some(7_500_000)),
            ("eu-west-1a", "eu-west-1", Some(9_000_000)),
        ] {
            assert_eq!(overrides.price("p5", Market::Spot, zone, region), expected, "{zone}");
        }
        assert_eq!(overrides.price("p5", Market::OnDemand, "us-east-1a", "us-east-1"), None);
    }

    #[test]
    fn a_line_that_is_no_price_is_named() {
        for (text, expected) in [
            ("p5,spot,*,9\np5,sp0t,*,9", "2: \"p5,sp0t,*,9\" is no price; write `type,market,place"),
            ("p5,spot,*", "1: \"p5,spot,*\" is no price"),
            ("p5,spot,*,cheap", "1: "),
            (",spot,*,1", "1: "),
            ("p5,spot,*,9\np5,spot,*,8", "2: \"p5,spot,*,8\" says a price a second time"),
        ] {
            let wrong = parse(text).unwrap_err();
            assert!(wrong.starts_with(expected), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
