//! What the script says about a group at a moment: the last event that still holds wins, each kind for itself.

use std::{collections::BTreeMap, time::Duration};

use crate::fleet::group::GroupId;

use super::scenario::{Event, Failing, Happening, Scenario};

/// What holds for calls about one group, or for the whole account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// No new machine at all.
    pub(super) stock_out: bool,
    /// Most machines each zone gives; a zone that is not named gives as many as are asked.
    pub(super) capacity: BTreeMap<String, u32>,
    /// Most machines at a time.
    pub(super) quota: Option<u32>,
    /// Machines launched now will never become Nodes.
    pub(super) never_register: bool,
    /// How late answers come.
    pub(super) slow: Duration,
    /// How calls fail.
    pub(super) failing: Option<Failing>,
}

impl Conditions {
    /// What holds for calls about `group` at `since_start`, events without a group included (but for the account's quota).
    pub(super) fn of_group(scenario: &Scenario, group: &GroupId, since_start: Duration) -> Self {
        let mut found = Self::default();
        if let Some(group) = scenario.groups.get(group) {
            found.capacity.clone_from(&group.capacity);
        }
        let about = |event: &&Event| match &event.group {
            Some(named) => named == group,
            None => !matches!(event.happening, Happening::Quota(_)),
        };
        scenario.events.iter().filter(about).filter(|event| event.holds(since_start)).for_each(|e| found.apply(e));
        found
    }

    /// What holds for the whole account: events that name no group.
    pub(super) fn of_account(scenario: &Scenario, since_start: Duration) -> Self {
        let mut found = Self::default();
        let all = scenario.events.iter().filter(|event| event.group.is_none() && event.holds(since_start));
        all.for_each(|event| found.apply(event));
        found
    }

    fn apply(&mut self, event: &Event) {
        match &event.happening {
            Happening::StockOut(on) => self.stock_out = *on,
            Happening::Capacity(zones) => self.capacity.extend(zones.iter().map(|(zone, most)| (zone.clone(), *most))),
            Happening::Quota(most) => self.quota = Some(*most),
            Happening::NeverRegister(on) => self.never_register = *on,
            Happening::SlowCalls(by) => self.slow = *by,
            Happening::FailCalls(how) => self.failing = Some(*how),
            Happening::Interrupt { .. } => {}
        }
    }
}

impl Event {
    /// Whether it has begun and has not ended.
    fn holds(&self, since_start: Duration) -> bool {
        self.at <= since_start && self.lasts.is_none_or(|lasts| since_start < self.at.saturating_add(lasts))
    }
}
