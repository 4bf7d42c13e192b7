//! The groups as AWS described them last, and how often AWS is asked: all of them once in `refresh`, as the in-tree
//! provider does, and between those only groups in which something happens, by name.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_sdk_autoscaling::{Client, types::AutoScalingGroup};

use super::{
    desired::Growth,
    discovery::{self, Ours},
};
use crate::{
    cloud::{CloudError, Look},
    fleet::group::GroupId,
    timestamp::Timestamp,
};

/// Names in one call; the API's own limit.
const PAGE: usize = 100;
/// Groups in which something happens are read again after this. Cluster-autoscaler's loops come every ten seconds and
/// have them read when an order is open; no need to do so in between.
const BUSY: Duration = Duration::from_secs(15);
/// A group that we changed is first read after this: AWS needs a moment to make something of it.
const FIRST: Duration = Duration::from_secs(2);
/// It is looked at for this long, whatever it shows.
const ATTENTION: Duration = Duration::from_mins(2);

/// What is known, and since when.
pub(super) struct Roster {
    refresh: Duration,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    groups: BTreeMap<String, AutoScalingGroup>,
    all_read: Option<Timestamp>,
    busy_read: Timestamp,
    /// Groups that we changed; None until a listing has taken note of when.
    touched: BTreeMap<String, Option<Timestamp>>,
}

/// What is to be asked now.
#[derive(Debug, PartialEq, Eq)]
enum Ask {
    All,
    Named(Vec<String>),
    Nothing,
}

impl Roster {
    pub(super) fn new(refresh: Duration) -> Self {
        Self { refresh, known: Mutex::default() }
    }

    /// Something of this group was changed by us.
    pub(super) fn touch(&self, group: &GroupId) {
        self.known().touched.insert(group.to_string(), None);
    }

    /// Every group of ours, by name, as it was read last.
    pub(super) fn groups(&self) -> Vec<AutoScalingGroup> {
        self.known().groups.values().cloned().collect()
    }

    /// One of them, as far as it matters to its growth.
    pub(super) fn growth(&self, group: &GroupId) -> Option<Growth> {
        self.known().groups.get(group.as_str()).map(Growth::of)
    }

    /// Reads what is due; false when nothing was.
    ///
    /// # Errors
    /// AWS's own; what was known stays known.
    pub(super) async fn read(&self, client: &Client, ours: &Ours, look: Look) -> Result<bool, CloudError> {
        let ask = self.known().ask(self.refresh, look);
        match ask {
            Ask::All => {
                let groups = ours.find(client).await?;
                let mut known = self.known();
                let lasts = |at: &Option<Timestamp>| at.is_none_or(|at| look.now.since(at) < ATTENTION);
                known.touched.retain(|name, at| groups.contains_key(name) && lasts(at));
                (known.groups, known.all_read, known.busy_read) = (groups, Some(look.now), look.now);
            }
            Ask::Named(names) => {
                self.reread(client, &names).await?;
                self.known().busy_read = look.now;
            }
            Ask::Nothing => return Ok(false),
        }
        Ok(true)
    }

    /// Reads these groups now.
    ///
    /// # Errors
    /// AWS's own; what was known stays known.
    pub(super) async fn reread(&self, client: &Client, names: &[String]) -> Result<(), CloudError> {
        for names in names.chunks(PAGE) {
            let request = client.describe_auto_scaling_groups().set_auto_scaling_group_names(Some(names.to_vec()));
            let groups = discovery::described(&request.max_records(100)).await?;
            self.known().take(groups);
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn ask(&mut self, refresh: Duration, look: Look) -> Ask {
        let now = look.now;
        self.touched.values_mut().for_each(|at| _ = at.get_or_insert(now));
        if self.all_read.is_none_or(|at| now.since(at) >= refresh) {
            return Ask::All;
        }
        let unread = |at: Timestamp| at >= self.busy_read && now.since(at) >= FIRST.min(refresh);
        let first = self.touched.values().flatten().any(|at| unread(*at));
        if !first && !look.awaited && now.since(self.busy_read) < BUSY.min(refresh) {
            return Ask::Nothing;
        }
        let touched =
            |name: &String| self.touched.get(name).is_some_and(|at| at.is_some_and(|at| now.since(at) < ATTENTION));
        let busy = self.groups.iter().filter(|(name, group)| touched(name) || is_busy(group));
        match busy.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            names if names.is_empty() => Ask::Nothing,
            names => Ask::Named(names),
        }
    }

    /// A group that AWS does not name any more stays until all are read: one answer too few is no proof.
    fn take(&mut self, groups: Vec<AutoScalingGroup>) {
        for group in groups {
            if let Some(known) = group.auto_scaling_group_name.as_ref().and_then(|name| self.groups.get_mut(name)) {
                *known = group;
            }
        }
    }
}

/// Machines come or go, or are still to come.
fn is_busy(group: &AutoScalingGroup) -> bool {
    let rests = |state: &str| matches!(state, "InService" | "Standby") || state.starts_with("Warmed");
    let states = group.instances().iter().filter_map(|it| it.lifecycle_state.as_ref()).map(|state| state.as_str());
    let wanted = usize::try_from(group.desired_capacity.unwrap_or(0)).unwrap_or(0);
    let standing =
        group.instances().iter().filter(|it| it.lifecycle_state.as_ref().is_none_or(|it| it.as_str() != "Standby"));
    states.clone().any(|state| !rests(state)) || wanted > standing.count()
}

#[cfg(test)]
mod tests {
    use aws_sdk_autoscaling::types::{Instance, LifecycleState};

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn group(name: &str, desired: i32, states: &[&str]) -> (String, AutoScalingGroup) {
        let instance = |state: &&str| Instance::builder().lifecycle_state(LifecycleState::from(*state)).build();
        let group = AutoScalingGroup::builder().auto_scaling_group_name(name).desired_capacity(desired);
        (name.to_owned(), group.set_instances(Some(states.iter().map(instance).collect())).build())
    }

    fn known(groups: Vec<(String, AutoScalingGroup)>, read: Timestamp) -> Known {
        Known { groups: groups.into_iter().collect(), all_read: Some(read), busy_read: read, ..Known::default() }
    }

    fn at(seconds: u64) -> Look {
        Look { now: after(seconds), awaited: false }
    }

    fn after(seconds: u64) -> Timestamp {
        Timestamp(1_000_000) + Duration::from_secs(seconds)
    }

    #[test]
    fn quiet_groups_are_read_once_in_a_refresh() {
        let mut known = known(vec![group("a", 1, &["InService"]), group("b", 1, &["InService", "Standby"])], after(0));
        for (seconds, expected) in [(1, Ask::Nothing), (30, Ask::Nothing), (59, Ask::Nothing), (60, Ask::All)] {
            assert_eq!(known.ask(MINUTE, at(seconds)), expected, "{seconds}");
        }
        assert_eq!(Known::default().ask(MINUTE, at(0)), Ask::All);
    }

    #[test]
    fn groups_in_which_something_happens_are_read_by_name() {
        let groups = vec![
            group("quiet", 1, &["InService"]),
            group("pending", 1, &["Pending:Wait"]),
            group("short", 2, &["InService"]),
            group("ending", 1, &["InService", "Terminating"]),
        ];
        let mut known = known(groups, after(0));
        assert_eq!(known.ask(MINUTE, at(14)), Ask::Nothing);
        let busy = Ask::Named(["ending", "pending", "short"].map(ToOwned::to_owned).into());
        assert_eq!(known.ask(MINUTE, at(15)), busy);
        assert_eq!(known.ask(MINUTE, Look { now: after(3), awaited: true }), busy, "a loop of CA begins");
        known.touched.insert("quiet".to_owned(), None);
        assert_eq!(known.ask(MINUTE, at(4)), Ask::Nothing, "AWS is given a moment");
        let Ask::Named(names) = known.ask(MINUTE, at(6)) else { panic!("nothing is asked") };
        assert_eq!(names.len(), 4, "what we changed is looked at, whatever it shows");
        known.busy_read = after(6);
        assert_eq!(known.ask(MINUTE, at(7)), Ask::Nothing);
        known.touched.insert("quiet".to_owned(), Some(Timestamp(0)));
        assert_eq!(known.ask(Duration::from_secs(1), at(1)), Ask::All, "a shorter refresh is the operator's wish");
    }

    #[test]
    fn a_group_that_one_answer_lacks_is_kept_until_all_are_read() {
        let mut known = known(vec![group("a", 1, &[]), group("b", 1, &[])], after(0));
        known.take(vec![group("a", 3, &[]).1, group("stranger", 1, &[]).1]);
        assert_eq!(known.groups.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(known.groups["a"].desired_capacity, Some(3));
    }
}
