//! The groups as AWS described them last, and how often AWS is asked: all of them once in `refresh`, as the in-tree
//! provider does, and between those only groups in which something happens, by name. A group that only waits for what an
//! order of ours brings is left to the order's activities, which tell when there is something to read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_sdk_autoscaling::{Client, types::AutoScalingGroup};

use super::{
    desired::Growth,
    discovery::{self, Ours},
    states,
};
use crate::{cloud::CloudError, fleet::group::GroupId, timestamp::Timestamp};

/// Names in one call; the API's own limit.
const PAGE: usize = 100;
/// Groups in which machines come or go are read again after this.
pub(super) const BUSY: Duration = Duration::from_secs(15);
/// Groups that only want more machines than they have, with nothing that tells what becomes of it, are after this.
const SHORT: Duration = Duration::from_secs(30);
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

    /// Reads what is due. `followed`: groups whose orders are followed by their activities.
    ///
    /// # Errors
    /// AWS's own; what was known stays known.
    pub(super) async fn read(
        &self,
        client: &Client,
        ours: &Ours,
        now: Timestamp,
        followed: &BTreeSet<String>,
    ) -> Result<(), CloudError> {
        let ask = self.known().ask(self.refresh, now, followed);
        match ask {
            Ask::All => {
                let groups = ours.find(client).await?;
                let mut known = self.known();
                let lasts = |at: &Option<Timestamp>| at.is_none_or(|at| now.since(at) < ATTENTION);
                known.touched.retain(|name, at| groups.contains_key(name) && lasts(at));
                (known.groups, known.all_read, known.busy_read) = (groups, Some(now), now);
            }
            Ask::Named(names) => {
                self.reread(client, &names).await?;
                self.known().busy_read = now;
            }
            Ask::Nothing => {}
        }
        Ok(())
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
    fn ask(&mut self, refresh: Duration, now: Timestamp, followed: &BTreeSet<String>) -> Ask {
        self.touched.values_mut().for_each(|at| _ = at.get_or_insert(now));
        if self.all_read.is_none_or(|at| now.since(at) >= refresh) {
            return Ask::All;
        }
        let unread = |at: Timestamp| at >= self.busy_read && now.since(at) >= FIRST.min(refresh);
        let first = self.touched.values().flatten().any(|at| unread(*at));
        let touched =
            |name: &String| self.touched.get(name).is_some_and(|at| at.is_some_and(|at| now.since(at) < ATTENTION));
        let age = now.since(self.busy_read);
        let due = |name: &String, group: &AutoScalingGroup| {
            let short = is_short(group);
            let waits = short && followed.contains(name);
            let pace = if is_moving(group) || (touched(name) && !waits) {
                BUSY
            } else if short && !waits {
                SHORT
            } else {
                return false;
            };
            age >= pace.min(refresh)
        };
        if !first && !self.groups.iter().any(|(name, group)| due(name, group)) {
            return Ask::Nothing;
        }
        // One call names a hundred: what is not due yet costs nothing beside what is.
        let busy = self.groups.iter().filter(|(name, group)| touched(name) || is_moving(group) || is_short(group));
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

/// Machines come or go.
fn is_moving(group: &AutoScalingGroup) -> bool {
    let rests = |state: &str| matches!(state, "InService" | "Standby") || state.starts_with("Warmed");
    group.instances().iter().filter_map(|it| it.lifecycle_state.as_ref()).any(|state| !rests(state.as_str()))
}

/// Machines are still to come.
fn is_short(group: &AutoScalingGroup) -> bool {
    let counted = group.instances().iter().filter(|it| states::counts(states::lifecycle(it)));
    usize::try_from(group.desired_capacity.unwrap_or(0)).is_ok_and(|wanted| wanted > counted.count())
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

    fn named(names: &[&str]) -> Ask {
        Ask::Named(names.iter().map(|name| (*name).to_owned()).collect())
    }

    /// What is asked at these moments when no answer ever comes.
    fn check(known: &mut Known, followed: &[&str], expected: &[(u64, Ask)]) {
        let followed = followed.iter().map(|name| (*name).to_owned()).collect();
        for (seconds, expected) in expected {
            assert_eq!(known.ask(MINUTE, after(*seconds), &followed), *expected, "{seconds}");
        }
    }

    #[test]
    fn quiet_groups_are_read_once_in_a_refresh() {
        let mut known = known(vec![group("a", 1, &["InService"]), group("b", 1, &["InService", "Standby"])], after(0));
        check(&mut known, &[], &[(1, Ask::Nothing), (30, Ask::Nothing), (59, Ask::Nothing), (60, Ask::All)]);
        check(&mut Known::default(), &[], &[(0, Ask::All)]);
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
        check(&mut known, &[], &[(14, Ask::Nothing), (15, named(&["ending", "pending", "short"]))]);
        known.touched.insert("quiet".to_owned(), None);
        check(&mut known, &[], &[(4, Ask::Nothing)]);
        let all = named(&["ending", "pending", "quiet", "short"]);
        check(&mut known, &[], &[(6, all)]);
        known.busy_read = after(6);
        check(&mut known, &[], &[(7, Ask::Nothing)]);
        known.touched.insert("quiet".to_owned(), Some(Timestamp(0)));
        let asked = known.ask(Duration::from_secs(1), after(1), &BTreeSet::new());
        assert_eq!(asked, Ask::All, "a shorter refresh is the operator's wish");
    }

    #[test]
    fn a_group_that_only_waits_is_read_seldom_and_not_at_all_while_its_activities_are() {
        let waits = || known(vec![group("g", 2, &["InService"])], after(0));
        check(&mut waits(), &[], &[(29, Ask::Nothing), (30, named(&["g"]))]);
        check(&mut waits(), &["g"], &[(30, Ask::Nothing), (59, Ask::Nothing), (60, Ask::All)]);
        let mut ordered = waits();
        ordered.touched.insert("g".to_owned(), Some(after(1)));
        check(&mut ordered, &["g"], &[(2, Ask::Nothing), (3, named(&["g"]))]);
        ordered.busy_read = after(3);
        check(&mut ordered, &["g"], &[(18, Ask::Nothing), (59, Ask::Nothing)]);
        let mut unseen = known(vec![group("g", 1, &["InService"])], after(3));
        unseen.touched.insert("g".to_owned(), Some(after(1)));
        check(&mut unseen, &["g"], &[(17, Ask::Nothing), (18, named(&["g"]))]);
        let mut comes = known(vec![group("g", 2, &["InService", "Pending"])], after(0));
        check(&mut comes, &["g"], &[(14, Ask::Nothing), (15, named(&["g"]))]);
    }

    #[test]
    fn a_group_that_one_answer_lacks_is_kept_until_all_are_read() {
        let mut known = known(vec![group("a", 1, &[]), group("b", 1, &[])], after(0));
        known.take(vec![group("a", 3, &[]).1, group("stranger", 1, &[]).1]);
        assert_eq!(known.groups.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(known.groups["a"].desired_capacity, Some(3));
    }
}
