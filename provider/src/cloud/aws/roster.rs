//! The groups as AWS described them last, and how often AWS is asked: all of them once in `refresh`, as the in-tree
//! provider does, and between those only groups in which something happens, by name.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_sdk_autoscaling::{
    Client,
    types::{Activity, AutoScalingGroup},
};

use super::{discovery::Ours, errors};
use crate::{cloud::CloudError, fleet::group::GroupId, keeper::clock, timestamp::Timestamp};

/// Names in one call; the API's own limit.
const PAGE: usize = 100;
/// Groups in which something happens are read again after this; cluster-autoscaler looks every ten seconds.
const BUSY: Duration = Duration::from_secs(10);
/// A group that we changed is looked at for this long, whatever it shows.
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
    /// Groups that we changed, and when.
    touched: BTreeMap<String, Timestamp>,
    activities: BTreeMap<GroupId, (Timestamp, Vec<Activity>)>,
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

    /// Something of this group was changed by us: the next listing reads it.
    pub(super) fn touch(&self, group: &GroupId) {
        let mut known = self.known();
        known.touched.insert(group.to_string(), clock());
        known.activities.remove(group);
        known.busy_read = Timestamp(0);
    }

    /// Every group of ours, by name, as fresh as is due.
    ///
    /// # Errors
    /// AWS's own; what was known stays known.
    pub(super) async fn read(&self, client: &Client, ours: &Ours) -> Result<Vec<AutoScalingGroup>, CloudError> {
        let now = clock();
        let ask = self.known().ask(self.refresh, now);
        match ask {
            Ask::All => {
                let groups = ours.find(client).await?;
                let mut known = self.known();
                known.touched.retain(|name, at| groups.contains_key(name) && now.since(*at) < ATTENTION);
                known.activities.retain(|group, _| groups.contains_key(group.as_str()));
                (known.groups, known.all_read, known.busy_read) = (groups, Some(now), now);
            }
            Ask::Named(names) => {
                for names in names.chunks(PAGE) {
                    let request =
                        client.describe_auto_scaling_groups().set_auto_scaling_group_names(Some(names.to_vec()));
                    let answer = request.max_records(100).send().await;
                    let answer = answer.map_err(|error| errors::failed("DescribeAutoScalingGroups", &error))?;
                    self.known().take(answer.auto_scaling_groups.unwrap_or_default());
                }
                self.known().busy_read = now;
            }
            Ask::Nothing => {}
        }
        Ok(self.known().groups.values().cloned().collect())
    }

    /// The group's activities that were read a moment ago; None when they are to be read again.
    pub(super) fn activities(&self, group: &GroupId) -> Option<Vec<Activity>> {
        let pace = BUSY.min(self.refresh);
        let now = clock();
        self.known().activities.get(group).filter(|(at, _)| now.since(*at) < pace).map(|(_, found)| found.clone())
    }

    /// These are the group's activities now.
    pub(super) fn note_activities(&self, group: &GroupId, found: &[Activity]) {
        self.known().activities.insert(group.clone(), (clock(), found.to_vec()));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn ask(&self, refresh: Duration, now: Timestamp) -> Ask {
        if self.all_read.is_none_or(|at| now.since(at) >= refresh) {
            return Ask::All;
        }
        if now.since(self.busy_read) < BUSY.min(refresh) {
            return Ask::Nothing;
        }
        let touched = |name: &String| self.touched.get(name).is_some_and(|at| now.since(*at) < ATTENTION);
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

    fn after(seconds: u64) -> Timestamp {
        Timestamp(1_000_000) + Duration::from_secs(seconds)
    }

    #[test]
    fn quiet_groups_are_read_once_in_a_refresh() {
        let known = known(vec![group("a", 1, &["InService"]), group("b", 1, &["InService", "Standby"])], after(0));
        for (seconds, expected) in [(1, Ask::Nothing), (30, Ask::Nothing), (59, Ask::Nothing), (60, Ask::All)] {
            assert_eq!(known.ask(MINUTE, after(seconds)), expected, "{seconds}");
        }
        assert_eq!(Known::default().ask(MINUTE, after(0)), Ask::All);
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
        assert_eq!(known.ask(MINUTE, after(9)), Ask::Nothing);
        let busy = Ask::Named(["ending", "pending", "short"].map(ToOwned::to_owned).into());
        assert_eq!(known.ask(MINUTE, after(10)), busy);
        known.touched.insert("quiet".to_owned(), after(9));
        let Ask::Named(names) = known.ask(MINUTE, after(10)) else { panic!("nothing is asked") };
        assert_eq!(names.len(), 4, "what we changed is looked at, whatever it shows");
        known.touched.insert("quiet".to_owned(), Timestamp(0));
        assert_eq!(known.ask(Duration::from_secs(1), after(1)), Ask::All, "a shorter refresh is the operator's wish");
    }

    #[test]
    fn a_group_that_one_answer_lacks_is_kept_until_all_are_read() {
        let mut known = known(vec![group("a", 1, &[]), group("b", 1, &[])], after(0));
        known.take(vec![group("a", 3, &[]).1, group("stranger", 1, &[]).1]);
        assert_eq!(known.groups.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(known.groups["a"].desired_capacity, Some(3));
    }
}
