//! The prices that are shipped: on-demand and spot by type and region, each with the date at which it was true. They
//! age; the operator's file goes over them.

use std::{collections::HashMap, sync::LazyLock};

use aws_smithy_types::date_time::{DateTime, Format};

use super::overrides::micros;
use crate::{fleet::group::Market, timestamp::Timestamp};

const TABLE: &str = include_str!("../prices.csv");

type Cell = Option<(u64, Timestamp)>;
/// Type and region.
type Key = (&'static str, &'static str);

/// On-demand and spot.
static ROWS: LazyLock<HashMap<Key, (Cell, Cell)>> =
    LazyLock::new(|| TABLE.lines().filter(|line| !line.starts_with('#')).skip(1).filter_map(row).collect());

/// Millionths of a dollar an hour, and when that was true; None when the table does not have it.
pub(super) fn price(instance_type: &str, region: &str, market: Market) -> Cell {
    let (on_demand, spot) = ROWS.get(&(instance_type, region))?;
    match market {
        Market::OnDemand => *on_demand,
        Market::Spot => *spot,
    }
}

fn row(line: &'static str) -> Option<(Key, (Cell, Cell))> {
    let mut cells = line.split(',');
    let key = (cells.next()?, cells.next()?);
    let mut cell = || {
        let (price, date) = (cells.next()?, cells.next()?);
        Some((micros(price)?, day(date)?))
    };
    Some((key, (cell(), cell())))
}

/// Midnight at the begin of `2026-07-20`, UTC.
fn day(date: &str) -> Option<Timestamp> {
    let at = DateTime::from_str(&format!("{date}T00:00:00Z"), Format::DateTime).ok()?;
    Some(Timestamp(u64::try_from(at.secs()).ok()?.saturating_mul(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_read() {
        let lines: Vec<_> = TABLE.lines().filter(|line| !line.starts_with('#')).skip(1).collect();
        assert!(lines.len() > 1700);
        assert_eq!(ROWS.len(), lines.len(), "a type and region stand once, and every line is read");
        for line in lines {
            let written = line.split(',').skip(2).step_by(2).filter(|cell| !cell.is_empty()).count();
            let (on_demand, spot) = row(line).unwrap().1;
            assert_eq!(written, usize::from(on_demand.is_some()) + usize::from(spot.is_some()), "{line}");
        }
    }

    #[test]
    fn a_price_has_its_date() {
        let (micros, at) = price("g5.xlarge", "us-east-1", Market::OnDemand).unwrap();
        assert_eq!(micros, 1_006_000);
        assert!(at > Timestamp(1_700_000_000_000));
        assert_eq!(price("g5.xlarge", "mars-north-1", Market::OnDemand), None);
    }
}
