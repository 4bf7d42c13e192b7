//! What CA believes of each group: how many nodes are ready, starting, missing, too long missing, and which scale-ups are open.
//! Rebuilt every loop from target sizes, instance lists and Node objects.

use std::collections::{BTreeMap, BTreeSet};

use windlass_proto::externalgrpc::{Instance, NodeGroup, instance_status::InstanceState};

use super::{
    backoff::Backoff,
    client::{Answer, tolerate},
    flags::Era,
    pass::{Pass, Seen, fake, wire},
};
use crate::timestamp::Timestamp;

/// A scale-up that has not come yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) increase: i64,
    expected_by: Timestamp,
}

/// Nodes of one group by how far they have come.
#[derive(Clone, Debug, Default)]
pub(super) struct Readiness {
    pub(super) ready: i64,
    pub(super) unready: i64,
    pub(super) not_started: Vec<String>,
    pub(super) registered: i64,
    pub(super) long_unregistered: i64,
    pub(super) unregistered: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Range {
    least: i64,
    most: i64,
    target: i64,
}

/// A size that Kubernetes and the provider disagree on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incorrect {
    pub(super) current: i64,
    pub(super) expected: i64,
    pub(super) since: Timestamp,
}

/// The registry. Instance lists are kept between loops and asked anew where a group is scaling up or was changed.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) requests: BTreeMap<String, Request>,
    /// Group and the end of the time in which a deleted node may linger.
    pub(super) scale_downs: Vec<(String, Timestamp)>,
    pub(super) readiness: BTreeMap<String, Readiness>,
    ranges: BTreeMap<String, Range>,
    pub(super) incorrect: BTreeMap<String, Incorrect>,
    /// Instance id to when it was first seen without a Node.
    pub(super) unregistered: BTreeMap<String, Timestamp>,
    instances: BTreeMap<String, Vec<Instance>>,
    previous: BTreeMap<String, Vec<Instance>>,
    cache: BTreeMap<String, Vec<Instance>>,
    pub(super) backoff: Backoff,
    unready_in_all: i64,
    nodes_in_all: i64,
}

/// The error of an instance that could not be made.
fn create_error(instance: &Instance) -> Option<(i32, &str)> {
    let status = instance.status.as_ref()?;
    let error = status.error_info.as_ref().filter(|error| !error.error_code.is_empty())?;
    (status.instance_state() == InstanceState::InstanceCreating)
        .then_some((error.instance_error_class, error.error_code.as_str()))
}

fn expected_to_register(instance: &Instance, era: Era) -> bool {
    // 1.27 waits even for instances that are going or could not be made.
    era == Era::V1_27
        || instance.status.as_ref().is_none_or(|status| {
            let failed = status.error_info.as_ref().is_some_and(|error| !error.error_code.is_empty());
            status.instance_state() == InstanceState::Unspecified
                || status.instance_state() != InstanceState::InstanceDeleting && !failed
        })
}

impl Registry {
    /// Asks every group for its instances; what fails counts as empty.
    pub(super) fn refresh_instances(&mut self, pass: &mut Pass) -> Answer<()> {
        self.cache.clear();
        for group in pass.client.groups() {
            let instances = tolerate(pass.client.nodes(&group.id))?.unwrap_or_default();
            self.cache.insert(group.id, instances);
        }
        Ok(())
    }

    /// The next loop asks this group for its instances.
    pub(super) fn invalidate(&mut self, group: &str) {
        self.cache.remove(group);
    }

    /// One loop's view.
    pub(super) fn update(&mut self, pass: &mut Pass, nodes: &[Seen]) -> Answer<()> {
        let targets = pass.client.target_sizes()?;
        let groups = pass.client.groups();
        self.read_instances(pass, &groups)?;
        self.find_unregistered(nodes, pass.era(), pass.now);
        self.judge_readiness(pass, nodes)?;
        self.set_ranges(&targets);
        self.close_requests(pass)?;
        self.note_create_errors(pass, &groups)?;
        self.set_ranges(&targets);
        self.find_incorrect(pass);
        Ok(())
    }

    fn read_instances(&mut self, pass: &mut Pass, groups: &[NodeGroup]) -> Answer<()> {
        for group in groups {
            if self.scaling_up(&group.id) {
                self.cache.remove(&group.id);
            }
        }
        for group in groups {
            if !self.cache.contains_key(&group.id) {
                self.cache.insert(group.id.clone(), pass.client.nodes(&group.id)?);
            }
        }
        self.previous = std::mem::replace(&mut self.instances, self.cache.clone());
        Ok(())
    }

    fn find_unregistered(&mut self, nodes: &[Seen], era: Era, now: Timestamp) {
        let registered: BTreeSet<&str> = nodes.iter().map(|seen| seen.node.provider_id.as_str()).collect();
        let before = std::mem::take(&mut self.unregistered);
        let missing = self
            .instances
            .values()
            .flatten()
            .filter(|instance| !registered.contains(instance.id.as_str()) && expected_to_register(instance, era));
        self.unregistered =
            missing.map(|instance| (instance.id.clone(), before.get(&instance.id).copied().unwrap_or(now))).collect();
    }

    fn judge_readiness(&mut self, pass: &mut Pass, nodes: &[Seen]) -> Answer<()> {
        self.readiness.clear();
        self.unready_in_all = 0;
        self.nodes_in_all = i64::try_from(nodes.len()).unwrap_or(i64::MAX);
        let mut startup = pass.flags().max_node_startup_time;
        for seen in nodes {
            let group = tolerate(pass.client.group_of(&wire(&seen.node)))?.flatten();
            // 1.35 and newer ask for the start-up time, once for the group and once for the whole; a group's answer
            // also stands for nodes outside any group that come after it.
            if pass.era() >= Era::V1_36
                && let Some(group) = &group
            {
                for _ in 0..2 {
                    if let Some(options) = tolerate(pass.client.options(&group.id))? {
                        startup = options.startup;
                    }
                }
            }
            let starting = seen.node.created_at + startup > pass.now;
            let unready = !seen.marked() && !seen.ready && !starting;
            self.unready_in_all += i64::from(unready);
            let Some(group) = group else { continue };
            let entry = self.readiness.entry(group.id).or_default();
            entry.registered += 1;
            if seen.marked() {
            } else if seen.ready {
                entry.ready += 1;
            } else if starting {
                entry.not_started.push(seen.node.name.clone());
            } else {
                entry.unready += 1;
            }
        }
        self.judge_unregistered(pass)
    }

    fn judge_unregistered(&mut self, pass: &mut Pass) -> Answer<()> {
        for (id, since) in self.unregistered.clone() {
            let Some(group) = tolerate(pass.client.group_of(&fake(&id, "unregistered")))?.flatten() else { continue };
            let Some(options) = tolerate(pass.client.options(&group.id))? else { continue };
            let entry = self.readiness.entry(group.id).or_default();
            if since + options.provision < pass.now {
                entry.long_unregistered += 1;
            } else {
                entry.unregistered += 1;
            }
        }
        Ok(())
    }

    fn set_ranges(&mut self, targets: &BTreeMap<String, i64>) {
        let missing = |group: &String| self.readiness.get(group).map_or(0, |entry| entry.long_unregistered);
        self.ranges = targets
            .iter()
            .map(|(group, size)| (group.clone(), Range { least: size - missing(group), most: *size, target: *size }))
            .collect();
        for (group, request) in &self.requests {
            self.ranges.entry(group.clone()).or_default().least -= request.increase;
        }
        for (group, _) in &self.scale_downs {
            self.ranges.entry(group.clone()).or_default().most += 1;
        }
    }

    /// After something was asked or deleted within a loop.
    pub(super) fn recalculate(&mut self, pass: &mut Pass) -> Answer<()> {
        let targets = tolerate(pass.client.target_sizes())?.unwrap_or_default();
        self.set_ranges(&targets);
        Ok(())
    }

    /// Opens a request, widens it, or (with a negative delta) narrows it.
    pub(super) fn register_scale_up(&mut self, pass: &mut Pass, group: &str, delta: i64) -> Answer<()> {
        let Some(options) = tolerate(pass.client.options(group))? else { return Ok(()) };
        let expected_by = pass.now + options.provision;
        match self.requests.get_mut(group) {
            None if delta > 0 => {
                self.requests.insert(group.to_owned(), Request { increase: delta, expected_by });
            }
            None => {}
            Some(request) if request.increase + delta <= 0 => {
                self.requests.remove(group);
            }
            Some(request) => {
                request.increase += delta;
                if delta > 0 {
                    request.expected_by = expected_by;
                }
            }
        }
        Ok(())
    }

    fn close_requests(&mut self, pass: &mut Pass) -> Answer<()> {
        self.backoff.forget_stale(pass.flags().backoff_reset, pass.now);
        for (group, request) in self.requests.clone() {
            if self.upcoming_in(&group).is_none_or(|count| count <= 0) {
                self.requests.remove(&group);
                if pass.era() <= Era::V1_29 {
                    self.backoff.forget(&group);
                }
            } else if request.expected_by < pass.now {
                self.time_out(pass, &group, request)?;
            }
        }
        self.scale_downs.retain(|(_, until)| *until > pass.now);
        Ok(())
    }

    fn time_out(&mut self, pass: &mut Pass, group: &str, request: Request) -> Answer<()> {
        pass.event("ScaleUpTimedOut", group, format!("nodes added to group {group} did not register in time"));
        self.fail(pass, group);
        if pass.era() >= Era::V1_36
            && request.increase > 0
            && tolerate(pass.client.decrease(group, -request.increase))?.is_none()
        {
            pass.event("FailedToRevertScaleUp", group, format!("the target size of {group} could not be lowered"));
        }
        self.requests.remove(group);
        Ok(())
    }

    /// Backs a group off. 1.35 and newer cannot without a template.
    pub(super) fn fail(&mut self, pass: &Pass, group: &str) {
        if pass.era() < Era::V1_36 || pass.templates.contains_key(group) {
            self.backoff.fail(group, pass.flags(), pass.now);
        }
    }

    fn note_create_errors(&mut self, pass: &mut Pass, groups: &[NodeGroup]) -> Answer<()> {
        for group in groups {
            let seen_before: BTreeSet<&str> = self
                .previous
                .get(&group.id)
                .into_iter()
                .flatten()
                .filter(|instance| create_error(instance).is_some())
                .map(|instance| instance.id.as_str())
                .collect();
            let mut unseen: BTreeMap<(i32, String), i64> = BTreeMap::new();
            for instance in self.instances.get(&group.id).into_iter().flatten() {
                if let Some((class, code)) = create_error(instance)
                    && !seen_before.contains(instance.id.as_str())
                {
                    *unseen.entry((class, code.to_owned())).or_default() += 1;
                }
            }
            for ((_, code), count) in unseen {
                if self.scaling_up(&group.id) {
                    pass.event("ScaleUpFailed", &group.id, format!("{count} nodes could not be made: {code}"));
                    self.register_scale_up(pass, &group.id, -count)?;
                    self.fail(pass, &group.id);
                }
            }
        }
        Ok(())
    }

    fn find_incorrect(&mut self, pass: &Pass) {
        let before = std::mem::take(&mut self.incorrect);
        for (group, range) in &self.ranges {
            let Some(entry) = self.readiness.get(group) else { continue };
            let wrong = if pass.era() == Era::V1_27 {
                entry.registered > range.most || entry.registered < range.least
            } else {
                let missing = entry.unregistered + entry.long_unregistered;
                entry.registered > range.target || entry.registered < range.target - missing
            };
            if wrong {
                let now = Incorrect { current: entry.registered, expected: range.target, since: pass.now };
                let old = before.get(group).filter(|old| old.current == now.current && old.expected == now.expected);
                self.incorrect.insert(group.clone(), old.copied().unwrap_or(now));
            }
        }
    }

    fn upcoming_in(&self, group: &str) -> Option<i64> {
        let range = self.ranges.get(group)?;
        let arrived =
            self.readiness.get(group).map_or(0, |entry| entry.ready + entry.unready + entry.long_unregistered);
        Some(range.target - arrived)
    }

    fn scaling_up(&self, group: &str) -> bool {
        self.upcoming_in(group).is_some_and(|count| count > 0) && self.requests.contains_key(group)
    }

    /// Nodes that are bought and not ready yet, and the names of those among them that have registered.
    pub(super) fn upcoming(&self, pass: &mut Pass) -> (BTreeMap<String, i64>, BTreeSet<String>) {
        let (mut counts, mut registered) = (BTreeMap::new(), BTreeSet::new());
        for group in pass.client.groups() {
            let count = self.upcoming_in(&group.id).unwrap_or(0);
            // 1.35 and newer count nothing for a group without an open request: after a restart that is every group.
            let forgotten = pass.era() >= Era::V1_36
                && (!self.requests.contains_key(&group.id) || self.backoff.holds(&group.id, pass.now));
            if count > 0 && !forgotten {
                registered
                    .extend(self.readiness.get(&group.id).map_or_else(Vec::new, |entry| entry.not_started.clone()));
                counts.insert(group.id, count);
            }
        }
        (counts, registered)
    }

    /// Instances that could not be made, by group.
    pub(super) fn failed_instances(&self) -> BTreeMap<String, Vec<String>> {
        let failed = |instances: &Vec<Instance>| -> Vec<String> {
            instances.iter().filter(|one| create_error(one).is_some()).map(|one| one.id.clone()).collect()
        };
        self.instances
            .iter()
            .map(|(group, instances)| (group.clone(), failed(instances)))
            .filter(|(_, failed)| !failed.is_empty())
            .collect()
    }

    /// Whether the cluster as a whole is well enough to scale.
    pub(super) fn cluster_healthy(&self, pass: &Pass) -> bool {
        within(self.unready_in_all, self.nodes_in_all, pass)
    }

    /// Whether a group has about the nodes it should have.
    pub(super) fn group_healthy(&self, group: &str, pass: &Pass) -> bool {
        let Some(range) = self.ranges.get(group) else { return false };
        let Some(entry) = self.readiness.get(group) else {
            return range.target == 0 || range.least == 0 && range.target > 0;
        };
        let not_started = i64::try_from(entry.not_started.len()).unwrap_or(i64::MAX);
        within((range.least - entry.ready).max(0), entry.ready + entry.unready + not_started, pass)
    }
}

#[expect(clippy::cast_precision_loss, reason = "node counts are far below 2^52")]
fn within(bad: i64, of: i64, pass: &Pass) -> bool {
    bad <= i64::from(pass.flags().ok_total_unready_count)
        || bad as f64 <= pass.flags().max_total_unready_percentage / 100.0 * of as f64
}
