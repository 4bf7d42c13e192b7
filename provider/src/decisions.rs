//! The last decisions, for people: a ring for `/decisions` and the page, a log line each, and counters.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use crate::expander::{Decision, Verdict, plural};

/// Most decisions kept.
pub const MOST_DECISIONS: usize = 1_000;
/// Most candidates kept over all of them: with two hundred groups in each question, the oldest decisions go earlier.
/// At some 400 bytes each this bounds the ring to about 8 MB.
pub const MOST_CANDIDATES: usize = 20_000;
/// Most dropped candidates named in a log line; the others are counted.
const MOST_NAMED: usize = 8;

/// What decisions came to since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions answered with a group, by the filter that left one candidate (`name` for a tie).
    pub chosen: BTreeMap<&'static str, u64>,
    /// Questions answered empty on purpose.
    pub vetoed: u64,
    /// Candidates dropped, by filter.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Questions that we could not answer.
    pub failed: u64,
    /// Time spent on all answers together.
    pub took: Duration,
}

/// The last decisions, oldest first, and what all of them came to.
#[derive(Debug, Default)]
pub struct Decisions {
    ring: VecDeque<Arc<Decision>>,
    candidates: usize,
    counts: Counts,
}

impl Decisions {
    /// Counts a decision and keeps it, at the cost of the oldest.
    pub fn record(&mut self, decision: Arc<Decision>, took: Duration) {
        self.counts.took += took;
        match (&decision.veto, decision.decided_by()) {
            (Some(_), _) => self.counts.vetoed += 1,
            (None, Some(filter)) => *self.counts.chosen.entry(filter).or_default() += 1,
            (None, None) => {}
        }
        for filter in decision.candidates.iter().filter_map(|verdict| verdict.dropped_by) {
            *self.counts.dropped.entry(filter).or_default() += 1;
        }
        self.candidates += decision.candidates.len();
        self.ring.push_back(decision);
        while self.ring.len() > 1 && (self.ring.len() > MOST_DECISIONS || self.candidates > MOST_CANDIDATES) {
            self.candidates -= self.ring.pop_front().map_or(0, |oldest| oldest.candidates.len());
        }
    }

    /// A question that could not be answered.
    pub fn failed(&mut self) {
        self.counts.failed += 1;
    }

    /// The newest first.
    #[must_use]
    pub fn latest(&self, most: usize) -> Vec<Arc<Decision>> {
        self.ring.iter().rev().take(most).cloned().collect()
    }

    /// Since the start.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Decision {
    /// The filter after which nothing more was to be decided: the last that dropped a candidate, `only` where there was
    /// nothing to choose from; None for a veto and for a question without candidates.
    #[must_use]
    pub fn decided_by(&self) -> Option<&'static str> {
        if self.best.is_empty() {
            return None;
        }
        let last = self
            .candidates
            .iter()
            .filter(|verdict| verdict.dropped_by.is_some())
            .max_by_key(|verdict| verdict.reasons.len());
        Some(last.and_then(|verdict| verdict.dropped_by).unwrap_or("only"))
    }

    fn survivor(&self) -> Option<&Verdict> {
        let best = self.best.first()?;
        self.candidates.iter().find(|verdict| verdict.group == *best)
    }
}

/// One line: what was chosen, for whom, and why each other was not.
impl fmt::Display for Decision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(veto) = &self.veto {
            return write!(out, "nothing: {}, for {} s at most", veto.reason, veto.until.since(self.at).as_secs());
        }
        let Some(best) = self.survivor() else { return write!(out, "nothing: no candidate") };
        let others = self.best.iter().skip(1).map(|group| format!(" or {group}")).collect::<String>();
        let (nodes, pods) = (plural(best.launch, "node"), plural(best.pods, "pod"));
        write!(out, "{}{others}: {nodes} for {pods}", best.group)?;
        if best.launch < best.node_count {
            write!(out, " ({} already on the way)", best.node_count - best.launch)?;
        }
        let mut dropped: Vec<_> = self.candidates.iter().filter(|verdict| verdict.dropped_by.is_some()).collect();
        dropped.sort_by(|a, b| a.group.cmp(&b.group));
        for verdict in dropped.iter().take(MOST_NAMED) {
            let why = verdict.reasons.last().map_or("", |reason| reason.why.as_str());
            write!(out, "; not {} ({}: {why})", verdict.group, verdict.dropped_by.unwrap_or_default())?;
        }
        match dropped.len().saturating_sub(MOST_NAMED) {
            0 => Ok(()),
            more => write!(out, "; and not {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fleet::group::GroupId, timestamp::Timestamp};

    fn decision(at: u64, groups: &[&str]) -> Arc<Decision> {
        let verdict = |id: &&str| Verdict {
            group: GroupId::from(*id),
            node_count: 1,
            launch: 1,
            pods: 1,
            dropped_by: None,
            reasons: Vec::new(),
        };
        Arc::new(Decision {
            at: Timestamp(at),
            best: groups.iter().take(1).map(|id| GroupId::from(*id)).collect(),
            candidates: groups.iter().map(verdict).collect(),
            pods: 1,
            covered: 0,
            veto: None,
        })
    }

    #[test]
    fn the_ring_keeps_a_thousand_and_the_newest_come_first() {
        let mut decisions = Decisions::default();
        for at in 0..1_500 {
            decisions.record(decision(at, &["spot"]), Duration::ZERO);
        }
        let latest = decisions.latest(usize::MAX);
        assert_eq!((latest.len(), latest[0].at, latest[999].at), (1_000, Timestamp(1_499), Timestamp(500)));
        assert_eq!(decisions.counts().chosen["only"], 1_500);
    }

    #[test]
    fn many_candidates_push_the_oldest_out_earlier() {
        let mut decisions = Decisions::default();
        for at in 0..1_000 {
            decisions.record(decision(at, &["group"; 200]), Duration::ZERO);
        }
        assert_eq!(decisions.latest(usize::MAX).len(), MOST_CANDIDATES / 200);
    }
}
