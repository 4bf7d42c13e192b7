//! `BestOptions`: decode, choose, tell the keeper what was offered, encode. A failure of ours is an error, which makes CA
//! keep every option; an empty answer is a deliberate veto (which CA <= 1.31 takes for "all pass": see
//! [`crate::expander::bought::Bought::purchase`] for what becomes of that).

mod fields;
mod nodes;
pub(super) mod pods;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tonic::{Request, Response, Status};
use windlass_proto::expander::{
    BestOptionsRequest, BestOptionsResponse, Option as WireOption,
    expander_server::{self, ExpanderServer},
};

use crate::{
    config::limits,
    decisions::Decisions,
    expander::{
        Choice, Decision, PodAsk, Policy,
        bought::{Bought, Offer},
        choose,
    },
    fleet::{
        group::{Group, GroupId},
        learned::Learned,
    },
    keeper::{Command, Handle, clock},
    metrics::Metrics,
    snapshot::Snapshot,
    timestamp::Timestamp,
};

/// What answers `BestOptions`.
#[derive(Clone)]
pub struct Expander {
    /// Where the snapshot comes from, and where offers go.
    pub keeper: Handle,
    /// The operator's part; replaced whole when it changes.
    pub policy: Arc<ArcSwap<Policy>>,
    /// The last decisions.
    pub decisions: Arc<Mutex<Decisions>>,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
}

impl Expander {
    /// The service with its message limits, ready to be added to a server.
    #[must_use]
    pub fn server(self) -> ExpanderServer<Self> {
        ExpanderServer::new(self).max_decoding_message_size(limits::MESSAGE).max_encoding_message_size(limits::MESSAGE)
    }

    fn record(&self, record: impl FnOnce(&mut Decisions)) {
        record(&mut self.decisions.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn answer(&self, request: BestOptionsRequest) -> Result<Arc<Decision>, Status> {
        let (snapshot, policy, now) = (self.keeper.snapshot(), self.policy.load_full(), clock());
        // Tens of MiB take tens of milliseconds: not on a thread that answers reads.
        let work = tokio::task::spawn_blocking(move || decide(request, &snapshot, &policy, now));
        let (decision, offers, learned) = work.await.map_err(|error| Status::internal(error.to_string()))??;
        if !learned.is_empty() {
            self.keeper.tell(Command::Learned(learned));
        }
        // Before the answer, so that the increase it causes finds it.
        self.keeper.note(Command::Offered(offers)).await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Arc::new(decision))
    }
}

#[tonic::async_trait]
impl expander_server::Expander for Expander {
    async fn best_options(
        &self,
        request: Request<BestOptionsRequest>,
    ) -> Result<Response<BestOptionsResponse>, Status> {
        let watch = Stopwatch::start();
        let answer = self.answer(request.into_inner()).await;
        let took = watch.read();
        match &answer {
            Ok(decision) => {
                tracing::info!(took_ms = took.as_millis(), pods = decision.pods, "{decision}");
                self.record(|decisions| decisions.record(decision.clone(), took));
            }
            Err(status) => {
                tracing::warn!(
                    took_ms = took.as_millis(),
                    "no choice, the autoscaler keeps every option: {}",
                    status.message()
                );
                self.record(Decisions::failed);
            }
        }
        let code = answer.as_ref().err().map_or(tonic::Code::Ok, Status::code);
        self.metrics.rpc("BestOptions", &format!("{code:?}"), took);
        answer.map(|decision| Response::new(encode(&decision)))
    }
}

/// CA reads only the ids of an answer.
fn encode(decision: &Decision) -> BestOptionsResponse {
    let option = |group: &GroupId| WireOption { node_group_id: group.to_string(), ..WireOption::default() };
    BestOptionsResponse { options: decision.best.iter().map(option).collect() }
}

fn decide(
    mut request: BestOptionsRequest,
    snapshot: &Snapshot,
    policy: &Policy,
    now: Timestamp,
) -> Result<(Decision, Vec<Offer>, Lessons), Status> {
    if snapshot.synced_at.is_none() {
        return Err(Status::unavailable("the cloud has not been listed yet"));
    }
    let (old, new) = (std::mem::take(&mut request.node_map), std::mem::take(&mut request.node_bytes_map));
    let learned = nodes::learned(if new.is_empty() { &old } else { &new }, &snapshot.fleet, now);
    let choices = choices(request, snapshot, now)?;
    let offers: Vec<Offer> = choices.iter().map(Choice::offer).collect();
    // As the keeper's own will be when it is told.
    let mut bought = Bought::clone(&snapshot.bought);
    bought.offered(offers.clone(), now);
    let decision = choose(&choices, &bought, policy, now);
    Ok((decision, offers, learned))
}

/// What real nodes taught of their groups.
type Lessons = Vec<(GroupId, Learned)>;

/// The request in our words.
fn choices(request: BestOptionsRequest, snapshot: &Snapshot, now: Timestamp) -> Result<Vec<Choice<'_>>, Status> {
    let mut pods = pods::Pods::default();
    request.options.into_iter().map(|option| choice(option, &mut pods, snapshot, now)).collect()
}

fn choice<'a>(
    option: WireOption,
    pods: &mut pods::Pods,
    snapshot: &'a Snapshot,
    now: Timestamp,
) -> Result<Choice<'a>, Status> {
    let view = snapshot.fleet.group(&option.node_group_id);
    let group = view.map(|view| &view.group);
    // CA 1.34.2 to 1.34.5 sends every pod in both fields.
    let bytes = if option.pod_bytes.is_empty() { option.pod } else { option.pod_bytes };
    let read = bytes.iter().enumerate().map(|(place, bytes)| {
        pods.get(bytes).map_err(|error| {
            Status::invalid_argument(format!("pod {place} of option {}: {error}", option.node_group_id))
        })
    });
    let pods: Arc<[Arc<PodAsk>]> = read.collect::<Result<_, _>>()?;
    Ok(Choice {
        id: group.map_or_else(|| option.node_group_id.clone().into(), |group| group.id.clone()),
        group,
        shunned: group.and_then(|group| snapshot.offerings.shunned(group, now)),
        refusing: group.map(|group| refusing(group, snapshot, now)).unwrap_or_default(),
        // A negative estimate is no estimate.
        node_count: u32::try_from(option.node_count).unwrap_or(0),
        pods,
    })
}

fn refusing(group: &Group, snapshot: &Snapshot, now: Timestamp) -> Vec<String> {
    snapshot.offerings.refusing(group, now).map(|(zone, _)| zone.to_owned()).collect()
}

/// How long an answer took, for people and histograms only.
struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the shell measures itself; no decision depends on it")]
    fn start() -> Self {
        Self(Instant::now())
    }

    fn read(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests;
