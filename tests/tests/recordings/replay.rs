//! Plays a recording to the model: the cluster as each loop saw it, the recorded answers to its calls.

use std::collections::{BTreeMap, BTreeSet};

use windlass_provider::replay::autoscaler::{Act, Autoscaler, Call, Era, Failure, Flags, Provider, Reply};

use super::{
    compare::{differences, plain},
    stage::{Exchange, Process, Segment, Story},
};

/// Answers from a recording: the n-th asking of a question in a loop gets the n-th recorded answer to it.
struct Recorded<'a> {
    process: &'a Process,
    segment: usize,
    asked: BTreeMap<String, usize>,
    calls: Vec<Call>,
}

/// What makes two questions the same one, for the purpose of answering.
fn question(call: &Call) -> String {
    match call {
        Call::BestOptions(_) => "BestOptions".into(),
        Call::DeleteNodes(request) => format!("DeleteNodes {}", request.id),
        Call::GetOptions(request) => format!("GetOptions {}", request.id),
        Call::NodeGroupForNode(request) => {
            let node = request.node.clone().unwrap_or_default();
            format!("NodeGroupForNode {}", if node.provider_id.is_empty() { "upcoming" } else { &node.name })
        }
        Call::PricingNodePrice(request) => {
            format!("PricingNodePrice {}", plain(&request.node.clone().unwrap_or_default().name))
        }
        // The sample provider has one price for every pod.
        Call::PricingPodPrice(_) => "PricingPodPrice".into(),
        other => format!("{other:?}"),
    }
}

impl Recorded<'_> {
    fn answers(&self, segment: usize, question_asked: &str) -> Vec<&Result<Reply, Failure>> {
        let segment = self.process.segments.get(segment);
        let calls = segment.map_or(&[] as &[Exchange], |segment| segment.calls.as_slice());
        calls.iter().filter(|(call, _)| question(call) == question_asked).map(|(_, reply)| reply).collect()
    }
}

impl Provider for Recorded<'_> {
    fn call(&mut self, call: &Call) -> Result<Reply, Failure> {
        self.calls.push(call.clone());
        if *call == Call::Refresh {
            self.asked.clear();
        }
        let name = question(call);
        let number = self.asked.entry(name.clone()).or_default();
        let index = *number;
        *number += 1;
        // Before Refresh the last loop's tail answers; what was not asked in this loop is answered as it last was.
        let here = self.answers(self.segment, &name);
        if let Some(reply) = here.get(index).or(here.last()) {
            return (*reply).clone();
        }
        let others = (0..self.segment).rev().chain(self.segment + 1..self.process.segments.len());
        for segment in others {
            if let Some(reply) = self.answers(segment, &name).last() {
                return (*reply).clone();
            }
        }
        Err(Failure { code: 5, message: format!("never asked in the recording: {name}") })
    }
}

/// A difference and the loop it is in.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) process: usize,
    pub(crate) number: usize,
    pub(crate) text: String,
}

/// What came of one recording.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) loops: usize,
    pub(crate) calls: usize,
    pub(crate) decisions: usize,
    pub(crate) found: Vec<Found>,
    /// Why the model's process died, where it did.
    pub(crate) crash: Option<String>,
}

/// Plays every loop of every process. The last loop of a process is played and not compared: it may have been cut off.
pub(crate) fn play(story: &Story, era: Era, flags: &Flags) -> Outcome {
    let mut outcome = Outcome::default();
    for (number, process) in story.processes.iter().enumerate() {
        play_process(story, (number, process), &mut Autoscaler::new(era, flags.clone()), &mut outcome);
    }
    outcome
}

fn play_process(story: &Story, (number, process): (usize, &Process), model: &mut Autoscaler, outcome: &mut Outcome) {
    let mut marks = BTreeSet::new();
    // What the model asks before Refresh belongs to the tail of the loop before.
    let mut said: Vec<Vec<Call>> = vec![Vec::new()];
    for (index, segment) in process.segments.iter().enumerate().skip(1) {
        let cluster = story.cluster(segment, &marks);
        let mut recorded = Recorded { process, segment: index, asked: BTreeMap::new(), calls: Vec::new() };
        let acts = model.run_once(&cluster, &mut recorded, segment.at);
        let cut = recorded.calls.iter().position(|call| *call == Call::Refresh).unwrap_or(recorded.calls.len());
        let (before, after) = recorded.calls.split_at(cut);
        said[index - 1].extend_from_slice(before);
        said.push(after.to_vec());
        for act in acts {
            match act {
                Act::Taint { node } => {
                    marks.insert(node);
                }
                Act::Untaint { node } => {
                    marks.remove(&node);
                }
                Act::Crash { why } => outcome.crash = Some(why),
                Act::Evict { .. } | Act::Event { .. } => {}
            }
        }
    }
    // A process that died by itself was not cut off.
    let complete = process.segments.len() - usize::from(outcome.crash.is_none());
    for (index, segment) in process.segments.iter().enumerate().take(complete.max(1)) {
        let recorded = calls(segment);
        outcome.loops += 1;
        outcome.calls += recorded.len();
        outcome.decisions += recorded.iter().filter(|call| decides(call)).count();
        for text in differences(&recorded, &said[index]) {
            outcome.found.push(Found { process: number, number: index, text });
        }
    }
}

fn calls(segment: &Segment) -> Vec<Call> {
    segment.calls.iter().map(|(call, _)| call.clone()).collect()
}

fn decides(call: &Call) -> bool {
    matches!(call, Call::BestOptions(_) | Call::IncreaseSize(_) | Call::DecreaseTargetSize(_) | Call::DeleteNodes(_))
}
