//! Who speaks for which machine, and what of it the keeper has to hear. Pure; time is an argument.
//!
//! An agent cannot prove which machine it is on, so that what a wrong one can do is bounded: an address speaks for one
//! machine until it has been silent for five minutes, a machine has one address that speaks for it, and only machines of
//! our groups count.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::Said;
use crate::{
    config::limits,
    fleet::{
        Fleet,
        group::InstanceId,
        notices::{Notice, NoticeKind, VOID},
    },
    timestamp::Timestamp,
};

/// Notices that announce an end.
const HARD: [NoticeKind; 2] = [NoticeKind::Interruption, NoticeKind::Ending];
/// An end further away than this is not believed: EC2 tells two minutes ahead.
const AHEAD: Duration = Duration::from_secs(600);

/// How it stands with an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Not asked yet.
    #[default]
    New,
    /// It speaks for a machine of ours.
    Heard,
    /// It speaks for a machine that is none of ours.
    Stranger,
    /// Another agent speaks for its machine.
    Taken,
    /// It spoke for another machine a moment ago.
    Changed,
    /// It does not answer, or nothing that can be read.
    Silent,
}

impl State {
    /// Every state that a metric shows.
    pub const SHOWN: [Self; 5] = [Self::Heard, Self::Stranger, Self::Taken, Self::Changed, Self::Silent];

    /// As in the metric.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Heard => "heard",
            Self::Stranger => "stranger",
            Self::Taken => "machine-taken",
            Self::Changed => "machine-changed",
            Self::Silent => "silent",
        }
    }
}

/// What an answer, or the lack of one, came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The states before and now, when they differ.
    pub changed: Option<(State, State)>,
    /// What the keeper has to hear.
    pub tell: Vec<Notice>,
    /// Notices that nobody hears, each told once.
    pub ignored: Vec<NoticeKind>,
}

/// One agent.
#[derive(Clone, Debug, Default)]
struct Row {
    /// The last look at the name showed it.
    listed: bool,
    state: State,
    /// Questions in a row that it did not answer.
    failures: u32,
    /// When it is asked next.
    next: Timestamp,
    /// Since when it is silent, or unheard of.
    silent_since: Option<Timestamp>,
    /// The machine that it speaks for, and when it did so last.
    machine: Option<(InstanceId, Timestamp)>,
    ignored: BTreeSet<NoticeKind>,
}

/// Every agent by its address.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: BTreeMap<Arc<str>, Row>,
    speakers: BTreeMap<InstanceId, Arc<str>>,
    /// What the keeper has heard of a machine and stands.
    told: BTreeMap<InstanceId, BTreeSet<NoticeKind>>,
}

impl Table {
    /// These are the agents now.
    pub fn list<'a>(&mut self, agents: impl Iterator<Item = &'a Arc<str>>) {
        self.rows.values_mut().for_each(|row| row.listed = false);
        for agent in agents {
            match self.rows.get_mut(agent) {
                Some(row) => row.listed = true,
                None => _ = self.rows.insert(agent.clone(), Row { listed: true, ..Row::default() }),
            }
        }
    }

    /// Whom to ask now; those who answered last time first.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Vec<Arc<str>> {
        let mut due: Vec<_> = self.rows.iter().filter(|(_, row)| row.listed && row.next <= now).collect();
        due.sort_by_key(|(_, row)| row.failures);
        due.into_iter().map(|(agent, _)| agent.clone()).collect()
    }

    /// An agent did not answer. It is asked again every time, then every second, then every fourth.
    pub fn silent(&mut self, agent: &str, interval: Duration, now: Timestamp) -> Outcome {
        let Some(row) = self.rows.get_mut(agent) else { return Outcome::default() };
        row.failures = row.failures.saturating_add(1);
        row.silent_since.get_or_insert(now);
        row.next = now + (interval * (1 << (row.failures - 1).min(2))).saturating_sub(interval / 2);
        Outcome { changed: row.turn(State::Silent), ..Outcome::default() }
    }

    /// An agent answered; `machine` is the one of ours that it is about.
    pub fn heard(&mut self, agent: &Arc<str>, said: &Said, machine: Option<InstanceId>, now: Timestamp) -> Outcome {
        let state = match &machine {
            None => State::Stranger,
            Some(machine) => self.claim(agent, machine, now),
        };
        let Some(row) = self.rows.get_mut(agent) else { return Outcome::default() };
        (row.failures, row.silent_since, row.next) = (0, None, now);
        let changed = row.turn(state);
        let standing = standing(said, now);
        match machine.filter(|_| state == State::Heard) {
            Some(machine) => {
                row.ignored.clear();
                Outcome { changed, tell: self.tell(machine, said, standing), ignored: Vec::new() }
            }
            None => {
                let ignored = standing.into_keys().filter(|kind| row.ignored.insert(*kind)).collect();
                Outcome { changed, tell: Vec::new(), ignored }
            }
        }
    }

    /// Whether an agent may speak for a machine, and from now on does.
    fn claim(&mut self, agent: &Arc<str>, machine: &InstanceId, now: Timestamp) -> State {
        let is_recent = |at: Timestamp| now.since(at) < limits::AGENT_FORGOTTEN;
        let before = self.rows.get(agent).and_then(|row| row.machine.as_ref());
        if before.is_some_and(|(other, at)| other != machine && is_recent(*at)) {
            return State::Changed;
        }
        let answers =
            |row: &Row| row.listed && row.failures == 0 && row.machine.as_ref().is_some_and(|(it, _)| it == machine);
        let first = self.speakers.get(machine).filter(|first| *first != agent);
        if first.and_then(|first| self.rows.get(first)).is_some_and(answers) {
            return State::Taken;
        }
        self.speakers.insert(machine.clone(), agent.clone());
        if let Some(row) = self.rows.get_mut(agent) {
            row.machine = Some((machine.clone(), now));
        }
        State::Heard
    }

    /// What the keeper has not heard yet. What was told and is not said any more is withdrawn, if the agent knows.
    fn tell(&self, machine: InstanceId, said: &Said, standing: BTreeMap<NoticeKind, Option<Timestamp>>) -> Vec<Notice> {
        let nothing = BTreeSet::new();
        let told = self.told.get(&machine).unwrap_or(&nothing);
        let notice = |kind, ends_at| Notice { machine: machine.as_str().to_owned(), kind, ends_at };
        let stands = |kind: &NoticeKind| said.machine.is_none() || standing.contains_key(kind);
        let is_withdrawn = HARD.iter().any(|kind| told.contains(kind)) && !HARD.iter().any(stands);
        let fresh = standing.iter().filter(|(kind, _)| !told.contains(kind)).map(|(kind, at)| notice(*kind, *at));
        fresh.chain(is_withdrawn.then(|| notice(NoticeKind::Withdrawn, None))).collect()
    }

    /// The keeper has heard it.
    pub fn told(&mut self, notice: &Notice) {
        let told = self.told.entry(notice.machine.as_str().into()).or_default();
        if notice.kind == NoticeKind::Withdrawn {
            told.retain(|kind| !HARD.contains(kind));
        } else {
            told.insert(notice.kind);
        }
    }

    /// Whether an agent has been silent for so long that its address may be someone else's.
    #[must_use]
    pub fn is_lost(&self, agent: &str, now: Timestamp) -> bool {
        let silent = self.rows.get(agent).and_then(|row| row.silent_since);
        silent.is_some_and(|since| now.since(since) >= limits::AGENT_FORGOTTEN)
    }

    /// Forgets who is gone: agents that are listed no more once nobody can mistake them, machines that are not there.
    pub fn forget(&mut self, fleet: &Fleet, now: Timestamp) {
        let is_recent =
            |row: &Row| row.machine.as_ref().is_some_and(|(_, at)| now.since(*at) < limits::AGENT_FORGOTTEN);
        self.rows.retain(|_, row| row.listed || is_recent(row));
        let rows = &self.rows;
        self.speakers.retain(|_, agent| rows.contains_key(agent));
        self.told.retain(|machine, kinds| !kinds.is_empty() && fleet.has_instance(machine.as_str()));
    }

    /// How many agents are in each state.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<State, usize> {
        let mut counts: BTreeMap<_, _> = State::SHOWN.map(|state| (state, 0)).into();
        for row in self.rows.values().filter(|row| row.listed) {
            *counts.entry(row.state).or_default() += 1;
        }
        counts
    }
}

impl Row {
    fn turn(&mut self, state: State) -> Option<(State, State)> {
        let before = std::mem::replace(&mut self.state, state);
        (before != state).then_some((before, state))
    }
}

/// What stands at `now`: a machine that was to go long ago and speaks was not taken.
fn standing(said: &Said, now: Timestamp) -> BTreeMap<NoticeKind, Option<Timestamp>> {
    let over = |ends_at: &Option<Timestamp>| ends_at.is_some_and(|at| at + VOID <= now);
    let notices = said.notices.iter().filter(|(_, ends_at)| !over(ends_at));
    notices.map(|(kind, ends_at)| (*kind, ends_at.map(|at| at.min(now + AHEAD)))).collect()
}

#[cfg(test)]
mod tests;
