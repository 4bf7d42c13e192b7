//! The autoscaler's calls, listened to: what it asks for, what it is told, and what the expander decided.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde_json::Value;
use windlass_proto::externalgrpc::{ExternalGrpcNode, instance_status::InstanceState};
use windlass_provider::replay::autoscaler::{Call, Failure, Provider, Reply};

use super::{
    narrator::{Narrator, count, list},
    web,
};
use crate::caller::Caller;

/// The calls go through to the real servers; the story is told on the way.
pub(super) struct Watched<'a> {
    /// Makes the calls.
    pub(super) caller: &'a mut Caller,
    /// Tells the story.
    pub(super) narrator: &'a Narrator,
    /// What was heard so far.
    pub(super) heard: &'a mut Heard,
}

/// What the calls came to.
#[derive(Debug)]
pub(super) struct Heard {
    /// Where the provider's pages are.
    pub(super) pages: SocketAddr,
    /// Machines asked for.
    pub(super) asked: usize,
    /// Machines that the cloud refused.
    pub(super) refused: usize,
    /// Times the expander chose a group.
    pub(super) purchases: usize,
    /// Times it held a second purchase back.
    pub(super) vetoes: usize,
    /// Machines that the last decision meant to launch, by group.
    launch: BTreeMap<String, usize>,
    told: BTreeSet<String>,
}

impl Heard {
    /// Nothing yet.
    #[must_use]
    pub(super) fn new(pages: SocketAddr) -> Self {
        Self { pages, asked: 0, refused: 0, purchases: 0, vetoes: 0, launch: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// Whether this is said for the first time.
    fn first(&mut self, what: &str) -> bool {
        self.told.insert(what.to_owned())
    }
}

impl Provider for Watched<'_> {
    fn call(&mut self, call: &Call) -> Result<Reply, Failure> {
        let answer = self.caller.call(call);
        match (call, &answer) {
            (_, Err(failure)) => self.failed(call, failure),
            (Call::BestOptions(_), Ok(_)) => self.decided(),
            (Call::IncreaseSize(request), Ok(_)) => {
                let delta = usize::try_from(request.delta).unwrap_or(0);
                self.heard.asked += delta;
                self.narrator.event("autoscaler", format!("asks {} for {}", request.id, count(delta, "machine")));
                let launch = self.heard.launch.get(&request.id).copied().unwrap_or(delta);
                if launch < delta {
                    let more = delta - launch;
                    self.narrator.more(format!("the provider launches {launch}: {more} more would be bought twice"));
                }
            }
            (Call::DeleteNodes(request), Ok(_)) => self.deleted(&request.nodes),
            (Call::Nodes(request), Ok(Reply::Nodes(reply))) => {
                for instance in &reply.instances {
                    let Some(status) = &instance.status else { continue };
                    let creating = status.instance_state == InstanceState::InstanceCreating as i32;
                    if let Some(error) =
                        status.error_info.as_ref().filter(|error| creating && error.instance_error_class != 0)
                        && self.heard.first(&instance.id)
                    {
                        self.heard.refused += 1;
                        let why = &error.error_message;
                        self.narrator.event("cloud", format!("refuses a machine to {}: {why}", request.id));
                    }
                }
            }
            _ => {}
        }
        answer
    }
}

impl Watched<'_> {
    fn failed(&mut self, call: &Call, failure: &Failure) {
        let name = format!("{call:?}");
        let name = name.split(['(', ' ']).next().unwrap_or_default().to_owned();
        // Optional calls that we do not offer are answered so on purpose.
        if failure.code != tonic::Code::Unimplemented as i32 && self.heard.first(&format!("{name} {failure}")) {
            self.narrator.event("autoscaler", format!("{name} failed: {failure}"));
        }
    }

    fn deleted(&mut self, nodes: &[ExternalGrpcNode]) {
        let fake =
            |node: &&ExternalGrpcNode| node.annotations.contains_key("k8s.io/cluster-autoscaler/fake-node-reason");
        let names: Vec<String> = nodes.iter().filter(|node| !fake(node)).map(|node| node.name.clone()).collect();
        if !names.is_empty() {
            self.narrator.event("autoscaler", format!("returns {}", list(&names)));
        }
        let given_up = nodes.iter().filter(fake).count();
        if given_up > 0 {
            self.narrator.event("autoscaler", format!("gives up on {} that will not come", count(given_up, "machine")));
        }
    }

    /// The newest decision, as `/decisions` shows it to anyone. What is decided again word for word is told once.
    fn decided(&mut self) {
        let page = web::get(self.heard.pages, "/decisions").ok();
        let Some(page) = page.and_then(|page| serde_json::from_str::<Value>(&page).ok()) else { return };
        let decisions = page.get("decisions").unwrap_or(&page);
        let newest = decisions.as_array().and_then(|all| all.iter().max_by_key(|one| one["at"].as_u64()));
        let Some(decision) = newest else { return };
        if decision["veto"].is_null() {
            self.heard.purchases += 1;
        } else {
            self.heard.vetoes += 1;
        }
        let candidates = decision["candidates"].as_array().into_iter().flatten();
        self.heard.launch = candidates.map(|one| (text(one, "group").to_owned(), number(one, "launch"))).collect();
        let lines = told(decision);
        if !decision["veto"].is_null() && !self.heard.first(&lines.concat()) {
            return;
        }
        if let Some((first, more)) = lines.split_first() {
            self.narrator.event("expander", first);
            more.iter().for_each(|line| self.narrator.more(line));
        }
    }
}

/// A decision in words: the question, the groups that passed with the reasons that settled it, and the others with
/// the word that dropped them.
fn told(decision: &Value) -> Vec<String> {
    if let Some(reason) = decision["veto"]["reason"].as_str() {
        return vec![format!("nothing to buy: {reason}")];
    }
    let candidates = decision["candidates"].as_array().map(Vec::as_slice).unwrap_or_default();
    let width = candidates.iter().map(|one| text(one, "group").len()).max().unwrap_or(0);
    let (chosen, dropped): (Vec<&Value>, Vec<&Value>) = candidates.iter().partition(|one| one["dropped_by"].is_null());
    let settled = |reason: &&Value| {
        let filter = text(reason, "filter");
        filter == "bought" || dropped.iter().any(|one| text(one, "dropped_by") == filter)
    };
    let mut lines = vec![format!("where should {} go?", count(number(decision, "pods"), "pod"))];
    for one in &chosen {
        let machines = count(number(one, "launch"), "machine");
        lines.push(format!("yes  {:<width$}  {machines}", text(one, "group")));
        lines
            .extend(reasons(one).iter().filter(settled).map(|reason| format!("     {:<width$}  {}", "", word(reason))));
    }
    for one in &dropped {
        let why = reasons(one).last().map(word).unwrap_or_default();
        lines.push(format!("no   {:<width$}  {why}", text(one, "group")));
    }
    lines
}

fn reasons(verdict: &Value) -> &[Value] {
    verdict["reasons"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `filter: why`.
fn word(reason: &Value) -> String {
    format!("{}: {}", text(reason, "filter"), text(reason, "why"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn number(value: &Value, key: &str) -> usize {
    value[key].as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_told_with_each_reason() {
        let reason = |filter: &str, why: &str| serde_json::json!({"filter": filter, "kept": true, "why": why});
        let decision = serde_json::json!({"at": 1, "pods": 2, "veto": null, "candidates": [
            {"group": "dear", "launch": 1, "dropped_by": "waste", "reasons": [reason("waste", "strands 3 GPUs")]},
            {"group": "spot", "launch": 2, "dropped_by": null,
             "reasons": [reason("priority", "spot first"), reason("waste", "fits")]},
        ]});
        assert_eq!(
            told(&decision),
            [
                "where should 2 pods go?",
                "yes  spot  2 machines",
                "           waste: fits",
                "no   dear  waste: strands 3 GPUs",
            ]
        );
        let veto = serde_json::json!({"veto": {"reason": "all 2 pods have a machine on its way"}});
        assert_eq!(told(&veto), ["nothing to buy: all 2 pods have a machine on its way"]);
    }
}
