//! The loop itself: what cluster-autoscaler asks, in which order, and what it does to the cluster.
//! [`Autoscaler::run_once`] is one loop; the caller waits between loops as [`Autoscaler::next_loop`] says.
//!
//! Not modelled: balancing of similar groups, cluster-wide limits, PodDisruptionBudgets, priorities, the pause
//! after a failed deletion, DaemonSet pods on nodes to come, and node groups that scale to their maximum or zero only when scaling down.

use std::{collections::BTreeMap, time::Duration};

use super::cluster::{Cluster, NodeView, PodView};
use crate::timestamp::Timestamp;

mod backoff;
mod call;
mod choice;
mod client;
mod deletion;
mod estimator;
mod flags;
mod options;
mod pass;
mod price;
mod registry;
mod repair;
mod scale_down;
mod scale_up;
mod snapshot;

pub use call::{Call, Failure, Provider, Reply};
use client::{Answer, Client, Memory, Trouble, tolerate};
use deletion::Deletions;
pub use flags::{Era, Expander, Flags};
use pass::{Pass, Seen, marked, wire};
use registry::Registry;
use scale_down::Planner;
use scale_up::{Outcome, scale_up};
use snapshot::Snapshot;

/// A node must have been ready this long to stand for its group.
const STABLE: Duration = Duration::from_secs(60);
/// Instance lists are asked anew this often, whatever happens.
const INSTANCES_KEPT: Duration = Duration::from_secs(120);

/// What CA does to the cluster; the caller carries it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Adds the taint `ToBeDeletedByClusterAutoscaler:NoSchedule` to a node.
    Taint {
        /// The node's name.
        node: String,
    },
    /// Takes that taint off again.
    Untaint {
        /// The node's name.
        node: String,
    },
    /// Evicts a pod.
    Evict {
        /// The pod's uid.
        pod: String,
    },
    /// Writes an event, or a line of the log where CA writes no event.
    Event {
        /// CA's word for it: `TriggeredScaleUp`, `ScaleDown`, `ScaleUpTimedOut`, `FailedToScaleUpGroup`, `ScaledUpGroup`, …
        reason: String,
        /// The group, node or pod it is about.
        about: String,
        /// A sentence.
        message: String,
    },
    /// The process would have died here. The [`Autoscaler`] does nothing more; a new one stands for its restart.
    Crash {
        /// Why.
        why: String,
    },
}

/// One cluster-autoscaler process. A restart is a new one.
#[derive(Debug)]
pub struct Autoscaler {
    era: Era,
    flags: Flags,
    memory: Memory,
    registry: Registry,
    planner: Planner,
    deletions: Deletions,
    /// Templates learned from real nodes: kept for good, as `--node-info-cache-expire-time` is ten years.
    learned: BTreeMap<String, NodeView>,
    instances_at: Option<Timestamp>,
    last_scale_up: Option<Timestamp>,
    last_scale_down: Option<Timestamp>,
    productive: bool,
    cleaned: bool,
    crashed: bool,
}

impl Autoscaler {
    /// A process that has just started.
    #[must_use]
    pub fn new(era: Era, flags: Flags) -> Self {
        Self {
            era,
            flags,
            memory: Memory::default(),
            registry: Registry::default(),
            planner: Planner::default(),
            deletions: Deletions::default(),
            learned: BTreeMap::new(),
            instances_at: None,
            last_scale_up: None,
            last_scale_down: None,
            productive: false,
            cleaned: false,
            crashed: false,
        }
    }

    /// One loop: asks the provider, decides, calls, and answers what is to be done to the cluster.
    pub fn run_once(&mut self, cluster: &Cluster, provider: &mut dyn Provider, now: Timestamp) -> Vec<Act> {
        if self.crashed {
            return Vec::new();
        }
        self.productive = false;
        let mut memory = std::mem::take(&mut self.memory);
        let flags = self.flags.clone();
        let client = Client { provider, memory: &mut memory, era: self.era, flags: &flags };
        let mut pass = Pass { client, acts: Vec::new(), now, templates: BTreeMap::new() };
        match self.run(&mut pass, cluster) {
            Ok(()) => {}
            Err(Trouble::Failed(failure)) => pass.event("LoopAborted", "", failure.to_string()),
            Err(Trouble::Crash(why)) => {
                self.crashed = true;
                pass.acts.push(Act::Crash { why });
            }
        }
        let acts = pass.acts;
        self.memory = memory;
        acts
    }

    /// When the next loop should begin, given when the last one did: after the scan interval, or (with frequent loops) at
    /// once after a loop that scaled something. With frequent loops a caller may also begin one as soon as a pod waits.
    #[must_use]
    pub fn next_loop(&self, last: Timestamp) -> Timestamp {
        if self.productive && self.flags.frequent_loops { last } else { last + self.flags.scan_interval }
    }

    /// The process's last words on an orderly exit: `Cleanup`.
    pub fn stop(&mut self, provider: &mut dyn Provider) {
        if !self.crashed {
            // CA ignores the answer.
            let _ = provider.call(&Call::Cleanup);
        }
        self.crashed = true;
    }

    fn run(&mut self, pass: &mut Pass, cluster: &Cluster) -> Answer<()> {
        self.deletions.carry_out(pass, &mut self.registry, cluster)?;
        if self.instances_at.is_none_or(|at| at + INSTANCES_KEPT <= pass.now) {
            self.registry.refresh_instances(pass)?;
            self.instances_at = Some(pass.now);
        }
        self.clean_up(pass, cluster)?;
        let nodes = judge(pass, cluster)?;
        pass.client.refresh()?;
        pass.client.groups();
        self.learn_templates(pass, &nodes)?;
        self.registry.update(pass, &nodes)?;
        repair::delete_long_unregistered(pass, &mut self.registry)?;
        if !self.registry.cluster_healthy(pass) {
            self.planner.clear();
            pass.event("ClusterUnhealthy", "", "too many nodes are not ready: nothing is scaled".into());
            return Ok(());
        }
        let deleted = repair::delete_failed(pass, &mut self.registry)?;
        if deleted && self.era <= Era::V1_29 {
            return Ok(());
        }
        if repair::fix_sizes(pass, &self.registry)? {
            return Ok(());
        }
        self.scale(pass, cluster, &nodes)
    }

    fn scale(&mut self, pass: &mut Pass, cluster: &Cluster, nodes: &[Seen]) -> Answer<()> {
        let (counts, standing_in) = self.registry.upcoming(pass);
        let mut snapshot = Snapshot::new(cluster, nodes, &counts, &standing_in, pass);
        let pods: Vec<PodView> = cluster
            .pending()
            .into_iter()
            .filter(|pod| pod.controller.as_deref() != Some("DaemonSet"))
            .filter(|pod| !snapshot.schedule(pod))
            .filter(|pod| pass.now.since(pod.created_at) >= self.flags.new_pod_delay)
            .cloned()
            .collect();
        let too_new = !pods.is_empty() && self.too_new(&pods, pass.now);
        if !pods.is_empty() && !too_new {
            let outcome = match scale_up(pass, &mut self.registry, &snapshot, &pods) {
                Err(Trouble::Failed(failure)) => {
                    pass.event("ScaleUpFailed", "", failure.to_string());
                    Outcome::Failed
                }
                other => other?,
            };
            if outcome == Outcome::Done {
                self.last_scale_up = Some(pass.now);
                self.productive = true;
            }
            // Until 1.33 a loop that scaled up, or could not, ends here.
            if outcome != Outcome::NoOptions && self.era <= Era::V1_33 {
                return Ok(());
            }
        }
        if !self.flags.scale_down_enabled {
            return Ok(());
        }
        let rest: Vec<Seen> = nodes.iter().filter(|seen| !standing_in.contains(&seen.node.name)).cloned().collect();
        let cooling = too_new || self.cooling(pass.now);
        let view = (&snapshot, rest.as_slice(), cooling);
        if self.planner.run(pass, &mut self.registry, &mut self.deletions, view)? {
            self.last_scale_down = Some(pass.now);
            self.productive = true;
        }
        Ok(())
    }

    fn cooling(&self, now: Timestamp) -> bool {
        let within = |at: Option<Timestamp>, span: Duration| at.is_some_and(|at| at + span > now);
        within(self.last_scale_up, self.flags.scale_down_delay_after_add)
            || within(self.last_scale_down, self.flags.scale_down_delay_after_delete.unwrap_or_default())
    }

    /// Pods that may have company coming: all of them under two seconds old, or GPU pods with the oldest under thirty.
    fn too_new(&self, pods: &[PodView], now: Timestamp) -> bool {
        let young = |span: Option<Duration>, pods: &mut dyn Iterator<Item = &PodView>| {
            let oldest = pods.map(|pod| pod.created_at).min();
            span.zip(oldest).is_some_and(|(span, oldest)| oldest + span > now)
        };
        let wants_gpu = |pod: &&PodView| pod.requests.keys().any(|name| name.contains("/gpu"));
        young(self.flags.pod_wait, &mut pods.iter()) || young(self.flags.gpu_wait, &mut pods.iter().filter(wants_gpu))
    }

    /// The first loop takes marks off that an earlier process left.
    fn clean_up(&mut self, pass: &mut Pass, cluster: &Cluster) -> Answer<()> {
        if self.cleaned {
            return Ok(());
        }
        self.cleaned = true;
        for node in cluster.nodes.values() {
            let ours = tolerate(pass.client.group_of(&wire(node)))?.flatten().is_some();
            if ours && marked(node) {
                pass.acts.push(Act::Untaint { node: node.name.clone() });
            }
        }
        Ok(())
    }

    /// A template per group: from a good node, else the one learned before, else the provider's, else any node's.
    fn learn_templates(&mut self, pass: &mut Pass, nodes: &[Seen]) -> Answer<()> {
        // 1.35 and newer look at every node, older ones at those that are ready.
        let eligible = nodes.iter().filter(|seen| self.era >= Era::V1_36 || seen.ready);
        let good = |seen: &&Seen| {
            let stable = seen.node.ready_since + STABLE < pass.now;
            seen.ready && stable && !seen.node.unschedulable && !seen.marked()
        };
        let (good, bad): (Vec<&Seen>, Vec<&Seen>) = eligible.partition(good);
        for seen in good {
            if let Some(group) = tolerate(pass.client.group_of(&wire(&seen.node)))?.flatten()
                && !pass.templates.contains_key(&group.id)
            {
                let template = sanitized(&seen.node, &group.id);
                self.learned.insert(group.id.clone(), template.clone());
                pass.templates.insert(group.id, template);
            }
        }
        for group in pass.client.groups() {
            if pass.templates.contains_key(&group.id) {
                continue;
            }
            if let Some(template) = self.learned.get(&group.id) {
                pass.templates.insert(group.id, template.clone());
                continue;
            }
            let asked = pass.client.template(&format!("group {}", group.id), &group.id);
            // From 1.31.4, 1.32.3 and 1.33.1 on, a group that fails is left out; before, the loop ended.
            let template = if self.era >= Era::V1_33 { tolerate(asked)?.flatten() } else { asked? };
            if let Some(template) = template {
                let template = labelled(sanitized(&NodeView::from_proto(&template), &group.id), self.era);
                pass.templates.insert(group.id, template);
            }
        }
        for seen in bad {
            if let Some(group) = tolerate(pass.client.group_of(&wire(&seen.node)))?.flatten() {
                let template = || sanitized(&seen.node, &group.id);
                pass.templates.entry(group.id.clone()).or_insert_with(template);
            }
        }
        Ok(())
    }
}

/// A node as its group's template: without the name, the marks and the conditions of one particular node.
fn sanitized(node: &NodeView, group: &str) -> NodeView {
    let mut template = node.clone();
    template.name = format!("template-node-for-{group}");
    template.labels.insert("kubernetes.io/hostname".into(), template.name.clone());
    template.provider_id = String::new();
    template.taints.retain(|taint| {
        let key = taint.key();
        key != pass::TO_BE_DELETED
            && key != "DeletionCandidateOfClusterAutoscaler"
            && !key.starts_with("node.kubernetes.io/")
    });
    template.unschedulable = false;
    template.ready = true;
    template
}

/// What CA adds to a template of the provider's: a mark, and the old names of the common labels.
fn labelled(mut template: NodeView, era: Era) -> NodeView {
    let old_names = [
        ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"),
        ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
        ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
    ];
    for (name, old) in old_names {
        if let Some(value) = template.labels.get(name).cloned() {
            template.labels.insert(old.into(), value);
        }
    }
    if era >= Era::V1_33 {
        template.labels.insert("cluster-autoscaler.kubernetes.io/template-node".into(), "true".into());
    }
    template
}

/// Every Node as this loop sees it; a ready one with the GPU label and no GPU is not ready yet.
fn judge(pass: &mut Pass, cluster: &Cluster) -> Answer<Vec<Seen>> {
    let any_ready = cluster.nodes.values().any(|node| node.ready);
    let label = if any_ready { pass.client.gpu_label() } else { String::new() };
    let nodes: Vec<Seen> = cluster.nodes.values().map(|node| Seen::new(node, &label)).collect();
    if pass.era() >= Era::V1_36 {
        // Dynamic resource allocation looks up ready nodes before Refresh; what it learns is forgotten with it.
        for seen in nodes.iter().filter(|seen| seen.ready) {
            tolerate(pass.client.group_of(&wire(&seen.node)))?;
        }
    }
    Ok(nodes)
}
