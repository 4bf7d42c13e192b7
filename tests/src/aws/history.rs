//! Reads that lag behind: what the groups were a moment ago, for an API that is only eventually consistent.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{Asg, machine::millis, moment::Moment};

/// Most moments that are remembered.
const MOMENTS: usize = 512;

/// What the groups were, as far back as reads lag.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    lag: Duration,
    moments: VecDeque<(Moment, BTreeMap<String, Asg>)>,
}

impl History {
    /// From now on reads are this much behind; what was before now is not known and reads as now.
    pub(super) fn lag(&mut self, lag: Duration, groups: &BTreeMap<String, Asg>, now: Moment) {
        self.lag = lag;
        self.moments.clear();
        self.note(groups, now);
    }

    /// The groups have changed.
    pub(super) fn note(&mut self, groups: &BTreeMap<String, Asg>, now: Moment) {
        if self.lag.is_zero() {
            return;
        }
        let seen = now.saturating_sub(millis(self.lag));
        while self.moments.len() >= MOMENTS || self.moments.get(1).is_some_and(|(at, _)| *at <= seen) {
            self.moments.pop_front();
        }
        self.moments.push_back((now, groups.clone()));
    }

    /// What a read sees now, and the moment at which that was true.
    pub(super) fn seen<'a>(
        &'a self,
        groups: &'a BTreeMap<String, Asg>,
        now: Moment,
    ) -> (&'a BTreeMap<String, Asg>, Moment) {
        let at = now.saturating_sub(millis(self.lag));
        match self.moments.iter().rev().find(|(noted, _)| *noted <= at).or(self.moments.front()) {
            Some((noted, groups)) => (groups, at.max(*noted)),
            None => (groups, at),
        }
    }
}
