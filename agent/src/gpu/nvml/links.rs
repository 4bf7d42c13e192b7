//! Bytes over NVLink: one pair of counters over all links where the driver has it, else a pair for each link, added up.
//! NVLink 5 has counters of its own; and some drivers answer the pair over all links with 0 while links count.

use std::time::Duration;

use super::calls::{Calls, Paced};
use super::raw::Handle;

/// Links of a GPU, at most (`NVML_NVLINK_MAX_LINKS`).
const LINKS: u32 = 18;
/// Counters of one link: sent and received, and their unit in bytes. `NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_*` count KiB, `NVML_FI_DEV_NVLINK_COUNT_*_BYTES` bytes.
const COUNTERS: [(u32, u32, f64); 2] = [(138, 139, 1024.0), (202, 204, 1.0)];
/// How often links are asked one by one while nothing has moved on any: nobody knows yet which counters count.
const SEEK_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes since the driver was loaded: sent and received.
pub(super) type Bytes = (f64, f64);

/// How one GPU is asked, and what it said last.
#[derive(Debug, Default)]
pub(super) struct Links {
    way: Way,
    pace: Paced<Way>,
    last: Option<(Duration, f64)>,
    sum: Bytes,
    /// Whether the links are sought anew, since one went down.
    anew: bool,
    /// What was carried by those that went down: a counter must not fall.
    gone: Bytes,
}

#[derive(Debug, Clone, Default, PartialEq)]
enum Way {
    /// Not known yet.
    #[default]
    Sought,
    /// All links in one.
    Whole,
    /// One by one.
    Each(Each),
    /// There is no link.
    Absent,
}

/// The links that have counters of one kind.
#[derive(Debug, Clone, PartialEq)]
struct Each {
    counters: (u32, u32, f64),
    links: Vec<u32>,
}

/// What the links carried.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Carried {
    pub(super) bytes: Option<Bytes>,
    /// Both ways together since the pass before.
    pub(super) bytes_per_second: Option<f64>,
}

impl Links {
    /// The device has changed: everything is asked again.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// One pass. `whole` is what the counters over all links say.
    pub(super) fn read(&mut self, gpu: &Handle, whole: Option<Bytes>, calls: &mut Calls<'_>) -> Carried {
        let bytes = self.bytes(gpu, whole, calls).map(|bytes| self.go_on(bytes));
        let sum = bytes.map(|(sent, received)| sent + received);
        let before = std::mem::replace(&mut self.last, sum.map(|sum| (calls.now, sum)));
        Carried { bytes, bytes_per_second: sum.zip(before).and_then(|(sum, before)| rate(before, (calls.now, sum))) }
    }

    fn bytes(&mut self, gpu: &Handle, whole: Option<Bytes>, calls: &mut Calls<'_>) -> Option<Bytes> {
        if self.way == Way::Sought {
            self.way = match whole {
                Some((sent, received)) if sent + received > 0.0 => Way::Whole,
                _ => self.seek(gpu, whole.is_some(), calls),
            };
        }
        let bytes = match &self.way {
            Way::Each(each) => each.read(gpu, calls),
            Way::Whole => return whole,
            Way::Sought | Way::Absent => return whole.filter(|_| !self.anew),
        };
        if bytes.is_none() {
            *self = Self { anew: true, sum: self.sum, ..Self::default() };
        }
        bytes
    }

    /// Where links were sought anew the sum goes on where it stood.
    fn go_on(&mut self, (sent, received): Bytes) -> Bytes {
        if std::mem::take(&mut self.anew) {
            self.gone = ((self.sum.0 - sent).max(0.0), (self.sum.1 - received).max(0.0));
        }
        self.sum = (sent + self.gone.0, received + self.gone.1);
        self.sum
    }

    fn seek(&mut self, gpu: &Handle, whole: bool, calls: &mut Calls<'_>) -> Way {
        let seek = |calls: &mut Calls<'_>| {
            // Without an answer nothing is known: it is asked again.
            let answered: Option<Vec<_>> = COUNTERS.iter().map(|counters| Each::find(gpu, *counters, calls)).collect();
            let found: Vec<_> = answered?.into_iter().filter(|(each, _)| !each.links.is_empty()).collect();
            let counts = found.iter().position(|(_, (sent, received))| sent + received > 0.0);
            // Without counters over all links those that stand still are the best there is.
            let chosen = counts.or((!whole && !found.is_empty()).then_some(0));
            let none = if found.is_empty() { Way::Absent } else { Way::Sought };
            Some(chosen.and_then(|at| found.into_iter().nth(at)).map_or(none, |(each, _)| Way::Each(each)))
        };
        calls.paced(&mut self.pace, SEEK_INTERVAL, seek).unwrap_or_default()
    }
}

impl Each {
    /// The links that have these counters, with what they say.
    fn find(gpu: &Handle, counters: (u32, u32, f64), calls: &mut Calls<'_>) -> Option<(Self, Bytes)> {
        let all = Self { counters, links: (0..LINKS).collect() };
        let answers = all.ask(gpu, calls)?;
        let links: Vec<u32> =
            all.links.iter().zip(&answers).filter_map(|(link, answer)| answer.map(|_| *link)).collect();
        Some((Self { counters, links }, sum(answers.into_iter().flatten(), counters.2)))
    }

    /// The sum, if every link answers.
    fn read(&self, gpu: &Handle, calls: &mut Calls<'_>) -> Option<Bytes> {
        let answers: Option<Vec<Bytes>> = self.ask(gpu, calls)?.into_iter().collect();
        Some(sum(answers?.into_iter(), self.counters.2))
    }

    fn ask(&self, gpu: &Handle, calls: &mut Calls<'_>) -> Option<Vec<Option<Bytes>>> {
        let (sent, received, _) = self.counters;
        let questions: Vec<(u32, u32)> =
            self.links.iter().flat_map(|link| [(sent, *link), (received, *link)]).collect();
        let answers = calls.ask("nvlink_field_values", || gpu.fields(&questions))?;
        let pair = |pair: &[Result<f64, _>]| match pair {
            [Ok(sent), Ok(received)] if sent.is_finite() && received.is_finite() => Some((*sent, *received)),
            _ => None,
        };
        Some(answers.chunks(2).map(pair).collect())
    }
}

fn sum(links: impl Iterator<Item = Bytes>, unit: f64) -> Bytes {
    links.fold((0.0, 0.0), |(sent, received), link| (sent + link.0 * unit, received + link.1 * unit))
}

/// Growth per second between two moments; nothing where the counter started again.
fn rate(before: (Duration, f64), now: (Duration, f64)) -> Option<f64> {
    let (time, growth) = (now.0.saturating_sub(before.0).as_secs_f64(), now.1 - before.1);
    (time > 0.0 && growth >= 0.0).then(|| growth / time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_goes_down_takes_nothing_from_what_was_carried() {
        let mut links = Links::default();
        let mut read = |anew, bytes| {
            links.anew |= anew;
            links.go_on(bytes)
        };
        assert_eq!(read(false, (10.0, 100.0)), (10.0, 100.0));
        assert_eq!(read(true, (6.0, 101.0)), (10.0, 101.0), "one of several is gone");
        assert_eq!(read(false, (7.0, 102.0)), (11.0, 102.0));
        assert_eq!(read(true, (20.0, 200.0)), (20.0, 200.0), "and back");
        assert_eq!(read(false, (1.0, 2.0)), (1.0, 2.0), "the driver counts anew: a counter that starts again");
    }

    #[test]
    fn a_rate_is_growth_over_time_and_a_counter_that_fell_has_none() {
        let second = Duration::from_secs;
        for (before, now, expect) in [
            ((second(1), 10.0), (second(3), 30.0), Some(10.0)),
            ((second(1), 10.0), (second(1), 30.0), None),
            ((second(1), 10.0), (second(2), 3.0), None),
        ] {
            assert_eq!(rate(before, now), expect, "{before:?} {now:?}");
        }
        assert_eq!(sum([(1.0, 2.0), (3.0, 4.0)].into_iter(), 1024.0), (4096.0, 6144.0));
    }
}
