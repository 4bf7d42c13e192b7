//! Which group to grow: a question in, a [`Decision`] with its reasons out. No clock, no I/O, no state of its own.
//!
//! ```text
//! choices ─► bought ─► gpu_fit ─► offering ─► priority ─► waste ─► price ─► name ─► Decision
//!              │          each filter judges what the one before it left, and never drops all of it
//!              └─► veto: every pod has a machine on its way
//! ```

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    fleet::{
        group::{Group, GroupId},
        offering::Shunned,
    },
    timestamp::Timestamp,
};

pub mod bought;
mod demand;
mod gpu_fit;
mod offering;
pub mod packing;
mod pod;
mod price;
pub mod priority;
mod waste;

pub use pod::{Needs, PodAsk};

use bought::{Bought, Offer};
use demand::Demand;

/// One option of a `BestOptions` request, and what is known of its group.
#[derive(Clone, Debug)]
pub struct Choice<'a> {
    /// CA's name for the group that would grow.
    pub id: GroupId,
    /// The group; None for one that no listing has shown. It may still win when there is nothing else.
    pub group: Option<&'a Group>,
    /// Why it is better left alone now.
    pub shunned: Option<Shunned>,
    /// Zones of it that refused lately, while others may give.
    pub refusing: Vec<String>,
    /// By how many nodes, by CA's estimate.
    pub node_count: u32,
    /// The pods it would help.
    pub pods: Arc<[Arc<PodAsk>]>,
}

impl Choice<'_> {
    /// What the purchase memory keeps of it.
    #[must_use]
    pub fn offer(&self) -> Offer {
        let room = self.group.map(|group| packing::Room::of(&group.shape));
        Offer { group: self.id.clone(), node_count: self.node_count, pods: self.pods.clone(), room }
    }
}

/// The filters an operator may put in order. The purchase memory is before them all and has its own switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Pods that ask no GPU keep off GPU groups when another fits; GPU model and memory are respected.
    GpuFit,
    /// Groups that were refused lately are left alone while there is another.
    Offering,
    /// CA's priority list; without one, spot before on-demand.
    Priority,
    /// The least GPU, then GPU memory, then CPU, then memory that nobody asked for.
    Waste,
    /// The cheapest by the hour, for each pod that an option helps.
    Price,
    /// One of what is left: the first by name. Without it every tied group is answered and CA's next expander decides.
    Name,
}

impl Filter {
    /// The default order: feasibility, then what the cloud refused lately, then the operator's wish, then taste.
    pub const ALL: [Self; 6] = [Self::GpuFit, Self::Offering, Self::Priority, Self::Waste, Self::Price, Self::Name];

    /// Its name in configurations, decisions and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GpuFit => "gpu_fit",
            Self::Offering => "offering",
            Self::Priority => "priority",
            Self::Waste => "waste",
            Self::Price => "price",
            Self::Name => "name",
        }
    }
}

/// The operator's part in a decision.
#[derive(Clone, Debug)]
pub struct Policy {
    /// In this order, each at most once.
    pub filters: Vec<Filter>,
    /// CA's priority list; None: spot first.
    pub priorities: Option<Arc<priority::Priorities>>,
    /// The label whose value is a GPU model.
    pub gpu_label: Arc<str>,
    /// What a person should know of the list: shown and logged, never acted on.
    pub warnings: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        let filters = Filter::ALL.to_vec();
        Self { filters, priorities: None, gpu_label: "k8s.amazonaws.com/accelerator".into(), warnings: Vec::new() }
    }
}

/// One filter's word on one candidate, in its own order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Which filter.
    pub filter: &'static str,
    /// Whether it left the candidate in.
    pub kept: bool,
    /// A phrase for people.
    pub why: String,
}

/// What became of one candidate, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The candidate.
    pub group: GroupId,
    /// CA's estimate of nodes.
    pub node_count: u32,
    /// Nodes that would be launched: fewer where machines are on their way already.
    pub launch: u32,
    /// How many pods it would help.
    pub pods: u32,
    /// The filter that dropped it; None for a survivor.
    pub dropped_by: Option<&'static str>,
    /// Each filter's word on it, in order, up to the one that dropped it.
    pub reasons: Vec<Reason>,
}

/// The answer to one question, with its reasons. Log line, counter, page and wire answer are renderings of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// When it was asked.
    pub at: Timestamp,
    /// Groups that passed, by name. Empty only for a veto, or for a question without a candidate.
    pub best: Vec<GroupId>,
    /// Every candidate, in the order of the request.
    pub candidates: Vec<Verdict>,
    /// Different pods in the question.
    pub pods: u32,
    /// Those of them that have a machine on its way.
    pub covered: u32,
    /// Set when nothing is to be bought: why, and until when.
    pub veto: Option<Veto>,
}

/// A deliberate "buy nothing now".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Veto {
    /// A sentence for people.
    pub reason: String,
    /// When it ends at the latest.
    pub until: Timestamp,
}

/// A candidate as the filters see it: without what is on its way already.
struct Candidate<'a> {
    /// Its place in the question.
    place: usize,
    choice: &'a Choice<'a>,
    /// Machines that would be launched.
    launch: u32,
    covered: usize,
    /// Of the pods that have no machine yet; of all when all are covered.
    demand: Demand<'a>,
}

/// One filter's word on one candidate.
enum Word {
    Keep(String),
    Drop(String),
}

/// Picks where to grow, with what is on its way by a memory that was told of the question ([`Bought::offered`]). The order of the choices changes nothing in the outcome, and the outcome is never empty for a
/// question with candidates, except for a veto.
#[must_use]
pub fn choose(choices: &[Choice<'_>], bought: &Bought, policy: &Policy, now: Timestamp) -> Decision {
    let mut row: Vec<_> =
        choices.iter().enumerate().map(|(place, choice)| candidate(place, choice, bought, now)).collect();
    let mut decision = Decision {
        at: now,
        best: Vec::new(),
        candidates: row.iter().map(verdict).collect(),
        pods: 0,
        covered: 0,
        veto: None,
    };
    (decision.pods, decision.covered) = count(choices, bought, now);
    decision.veto = veto(&row, &decision, bought, now);
    if decision.veto.is_some() {
        decision.candidates.iter_mut().for_each(|verdict| verdict.dropped_by = Some("bought"));
        return decision;
    }
    if decision.covered > 0 {
        row = settle("bought", row, already_bought, policy, &mut decision.candidates);
    }
    for filter in &policy.filters {
        let judge = match filter {
            Filter::GpuFit => gpu_fit::judge,
            Filter::Offering => offering::judge,
            Filter::Priority => priority::judge,
            Filter::Waste => waste::judge,
            Filter::Price => price::judge,
            Filter::Name => first_by_name,
        };
        row = settle(filter.name(), row, judge, policy, &mut decision.candidates);
    }
    decision.best =
        row.iter().map(|candidate| candidate.choice.id.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    decision
}

/// Lets one filter speak, writes its words down and takes out what it dropped; if that is everything, nothing.
fn settle<'a>(
    filter: &'static str,
    row: Vec<Candidate<'a>>,
    judge: fn(&[Candidate<'a>], &Policy) -> Vec<Word>,
    policy: &Policy,
    verdicts: &mut [Verdict],
) -> Vec<Candidate<'a>> {
    let words = judge(&row, policy);
    let all_dropped = words.iter().all(|word| matches!(word, Word::Drop(_)));
    let mut left = Vec::with_capacity(row.len());
    for (candidate, word) in row.into_iter().zip(words) {
        let verdict = &mut verdicts[candidate.place];
        let (kept, why) = match word {
            Word::Keep(why) => (true, why),
            Word::Drop(why) if all_dropped => (true, format!("{why}; kept, as this holds for every candidate left")),
            Word::Drop(why) => (false, why),
        };
        verdict.reasons.push(Reason { filter, kept, why });
        if kept {
            left.push(candidate);
        } else {
            verdict.dropped_by = Some(filter);
        }
    }
    left
}

fn candidate<'a>(place: usize, choice: &'a Choice<'a>, bought: &Bought, now: Timestamp) -> Candidate<'a> {
    let pods = || choice.pods.iter().map(Arc::as_ref);
    let covered = if bought.is_empty() { 0 } else { pods().filter(|pod| bought.covers(&pod.uid, now)).count() };
    let (launch, demand) = match covered {
        0 => (choice.node_count, Demand::of(pods())),
        all if all == choice.pods.len() => (0, Demand::of(pods())),
        _ => {
            let open = pods().filter(|pod| !bought.covers(&pod.uid, now));
            (bought.plan(&choice.offer(), choice.node_count, now).launch, Demand::of(open))
        }
    };
    Candidate { place, choice, launch, covered, demand }
}

fn verdict(candidate: &Candidate<'_>) -> Verdict {
    Verdict {
        group: candidate.choice.id.clone(),
        node_count: candidate.choice.node_count,
        launch: candidate.launch,
        pods: u32::try_from(candidate.choice.pods.len()).unwrap_or(u32::MAX),
        dropped_by: None,
        reasons: Vec::new(),
    }
}

/// How many different pods are asked for, and how many of them have a machine on its way.
fn count(choices: &[Choice<'_>], bought: &Bought, now: Timestamp) -> (u32, u32) {
    let pods: std::collections::HashSet<*const PodAsk> =
        choices.iter().flat_map(|choice| choice.pods.iter().map(Arc::as_ptr)).collect();
    if bought.is_empty() {
        return (u32::try_from(pods.len()).unwrap_or(u32::MAX), 0);
    }
    let uids: std::collections::HashSet<&str> =
        choices.iter().flat_map(|choice| choice.pods.iter().map(|pod| &*pod.uid)).collect();
    let covered = uids.iter().filter(|uid| bought.covers(uid, now)).count();
    (u32::try_from(pods.len()).unwrap_or(u32::MAX), u32::try_from(covered).unwrap_or(u32::MAX))
}

/// Nothing is to be bought when every candidate names pods and all of them have a machine on its way.
fn veto(row: &[Candidate<'_>], decision: &Decision, bought: &Bought, now: Timestamp) -> Option<Veto> {
    let covered = |candidate: &Candidate<'_>| candidate.covered > 0 && candidate.covered == candidate.choice.pods.len();
    if row.is_empty() || !row.iter().all(covered) {
        return None;
    }
    let covers =
        row.iter().flat_map(|candidate| candidate.choice.pods.iter()).filter_map(|pod| bought.cover(&pod.uid, now));
    let (mut until, mut intents) = (None, BTreeSet::new());
    for cover in covers {
        until = Some(until.map_or(cover.until, |until: Timestamp| until.min(cover.until)));
        intents.insert(format!("{} ({})", cover.group, cover.intent));
    }
    let shown: Vec<_> = intents.iter().take(3).map(String::as_str).collect();
    let more = if intents.len() > 3 { format!(" and {} more", intents.len() - 3) } else { String::new() };
    let pods =
        if decision.pods == 1 { "the pod has".to_owned() } else { format!("each of the {} pods has", decision.pods) };
    let reason = format!("{pods} a machine on its way: {}{more}", shown.join(", "));
    Some(Veto { reason, until: until? })
}

/// A candidate all of whose pods are covered helps nobody, while another helps somebody.
fn already_bought(row: &[Candidate<'_>], _: &Policy) -> Vec<Word> {
    let word = |candidate: &Candidate<'_>| match (candidate.covered, candidate.choice.pods.len()) {
        (0, _) => Word::Keep("none of its pods has a machine on its way".to_owned()),
        (covered, pods) if covered == pods => Word::Drop("each of its pods has a machine on its way".to_owned()),
        (covered, pods) => Word::Keep(format!(
            "{covered} of its {pods} pods have a machine on its way: {} of {} to launch",
            candidate.launch, candidate.choice.node_count
        )),
    };
    row.iter().map(word).collect()
}

/// `3 nodes`, `1 node`.
pub(crate) fn plural(count: impl Into<u64>, noun: &str) -> String {
    let count = count.into();
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The last tie is broken by name, so that the same question always gets the same answer.
fn first_by_name(row: &[Candidate<'_>], _: &Policy) -> Vec<Word> {
    let Some(first) = row.iter().map(|candidate| &candidate.choice.id).min() else { return Vec::new() };
    let word = |candidate: &Candidate<'_>| match candidate.choice.id == *first {
        true if row.len() == 1 => Word::Keep("the only one left".to_owned()),
        true => Word::Keep(format!("first by name of {} equals", row.len())),
        false => Word::Drop(format!("equal to {first}, and later by name")),
    };
    row.iter().map(word).collect()
}

#[cfg(test)]
mod tests;
