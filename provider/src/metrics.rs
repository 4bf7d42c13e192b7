//! What the provider says of itself: counters and durations, kept here; what a snapshot shows is rendered from it on
//! each scrape, so that groups that are gone leave nothing behind.

pub mod snapshot;

use std::time::Duration;

use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};

use crate::fleet::notices::NoticeKind;

/// Seconds. Reads take microseconds; a BestOptions request or a cloud call may take seconds.
const BUCKETS: [f64; 10] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0, 5.0, 30.0];

/// One metric, for whoever documents or checks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// A sentence, with the unit where it is not in the name.
    pub help: &'static str,
}

const fn described(
    name: &'static str,
    kind: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Described {
    Described { name, kind, labels, help }
}

const RPCS: Described = described(
    "windlass_provider_rpcs_total",
    "counter",
    &["method", "code"],
    "Requests answered, by method and gRPC code.",
);
const RPC_SECONDS: Described =
    described("windlass_provider_rpc_seconds", "histogram", &["method"], "How long an answer took.");
const CLOUD_CALLS: Described = described(
    "windlass_provider_cloud_calls_total",
    "counter",
    &["verb", "outcome"],
    "Cloud calls, by verb and outcome.",
);
const CLOUD_SECONDS: Described =
    described("windlass_provider_cloud_call_seconds", "histogram", &["verb"], "How long a cloud call took.");
const AWS_CALLS: Described = described(
    "windlass_provider_aws_calls_total",
    "counter",
    &["service", "action", "outcome"],
    "Requests sent to AWS, repeated ones included: ok, throttled, refused, failed or unanswered.",
);
const AWS_SECONDS: Described = described(
    "windlass_provider_aws_call_seconds",
    "histogram",
    &["action"],
    "How long AWS took to answer, without the wait for our own turn.",
);
const AWS_WAITS: Described = described(
    "windlass_provider_aws_wait_seconds_total",
    "counter",
    &["action"],
    "Time that requests waited for their turn, so that AWS is not asked too fast.",
);
const AWS_CLOCK: Described = described(
    "windlass_provider_aws_clock_ahead_seconds",
    "gauge",
    &[],
    "How far AWS's clock is ahead of ours (negative: behind), by its last answer; AWS refuses what is five minutes off.",
);
const AGENTS: Described = described(
    "windlass_provider_agents",
    "gauge",
    &["state"],
    "Agents by state: heard, stranger (its machine is none of ours), machine-taken (another speaks for it), machine-changed (it spoke for another a moment ago), silent; absent where none is asked.",
);
const AGENT_FAILURES: Described = described(
    "windlass_provider_agent_failures_total",
    "counter",
    &["reason"],
    "Questions to agents that brought nothing: connection, tls, http, status, body, unreadable or timeout.",
);
const AGENT_NOTICES: Described = described(
    "windlass_provider_agent_notices_total",
    "counter",
    &["kind", "outcome"],
    "Notices that agents had of their machines (interruption, ending, rebalance, withdrawn): told, or ignored because the machine is none of ours or the agent may not speak for it.",
);
const MACHINES: Described = described(
    "windlass_provider_machines_total",
    "counter",
    &["outcome"],
    "Machines by what became of them: asked, not-launched (already on their way), launched, registered, terminated, reaped, returned (came when nobody waited any more), interrupted (taken back by the cloud), stays (not taken back after all), rebalance-recommended, or the class of a refusal.",
);
const RELOADS: Described = described(
    "windlass_provider_config_reloads_total",
    "counter",
    &["outcome"],
    "Changes of the configuration file, by outcome.",
);
const CONFIG_OK: Described = described(
    "windlass_provider_config_last_reload_successful",
    "gauge",
    &[],
    "1 while the configuration file is in force, 0 while it is wrong and an older one stands.",
);
const STATE_FAILURES: Described =
    described("windlass_provider_state_write_failures_total", "counter", &[], "Writes of the state file that failed.");

/// Every metric of the provider: what the snapshot shows first, then what is counted.
#[must_use]
pub fn table() -> Vec<Described> {
    let counted = [RPCS, RPC_SECONDS, CLOUD_CALLS, CLOUD_SECONDS, MACHINES, RELOADS, CONFIG_OK, STATE_FAILURES];
    let aws = [AWS_CALLS, AWS_SECONDS, AWS_WAITS, AWS_CLOCK];
    let agents = [AGENTS, AGENT_FAILURES, AGENT_NOTICES];
    snapshot::ROWS.iter().map(|row| row.described).chain(counted).chain(agents).chain(aws).collect()
}

/// The counters of one process.
pub struct Metrics {
    /// Where they are gathered from.
    pub registry: Registry,
    rpcs: IntCounterVec,
    rpc_seconds: HistogramVec,
    cloud_calls: IntCounterVec,
    cloud_seconds: HistogramVec,
    machines: IntCounterVec,
    reloads: IntCounterVec,
    config_ok: IntGauge,
    state_failures: IntCounterVec,
    aws_calls: IntCounterVec,
    aws_seconds: HistogramVec,
    aws_waits: CounterVec,
    aws_clock: GaugeVec,
    agents: GaugeVec,
    agent_failures: IntCounterVec,
    agent_notices: IntCounterVec,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// Two metrics of one name: a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let count = |of: Described| IntCounterVec::new(Opts::new(of.name, of.help), of.labels);
        let time = |of: Described| {
            HistogramVec::new(HistogramOpts::new(of.name, of.help).buckets(BUCKETS.to_vec()), of.labels)
        };
        let metrics = Self {
            registry: Registry::new(),
            rpcs: count(RPCS)?,
            rpc_seconds: time(RPC_SECONDS)?,
            cloud_calls: count(CLOUD_CALLS)?,
            cloud_seconds: time(CLOUD_SECONDS)?,
            machines: count(MACHINES)?,
            reloads: count(RELOADS)?,
            config_ok: IntGauge::new(CONFIG_OK.name, CONFIG_OK.help)?,
            state_failures: count(STATE_FAILURES)?,
            aws_calls: count(AWS_CALLS)?,
            aws_seconds: time(AWS_SECONDS)?,
            aws_waits: CounterVec::new(Opts::new(AWS_WAITS.name, AWS_WAITS.help), AWS_WAITS.labels)?,
            aws_clock: GaugeVec::new(Opts::new(AWS_CLOCK.name, AWS_CLOCK.help), AWS_CLOCK.labels)?,
            agents: GaugeVec::new(Opts::new(AGENTS.name, AGENTS.help), AGENTS.labels)?,
            agent_failures: count(AGENT_FAILURES)?,
            agent_notices: count(AGENT_NOTICES)?,
        };
        metrics.config_ok.set(1);
        metrics.state_failures.with_label_values::<&str>(&[]);
        let all: [Box<dyn Collector>; 15] = [
            Box::new(metrics.rpcs.clone()),
            Box::new(metrics.rpc_seconds.clone()),
            Box::new(metrics.cloud_calls.clone()),
            Box::new(metrics.cloud_seconds.clone()),
            Box::new(metrics.machines.clone()),
            Box::new(metrics.reloads.clone()),
            Box::new(metrics.config_ok.clone()),
            Box::new(metrics.state_failures.clone()),
            Box::new(metrics.aws_calls.clone()),
            Box::new(metrics.aws_seconds.clone()),
            Box::new(metrics.aws_waits.clone()),
            Box::new(metrics.aws_clock.clone()),
            Box::new(metrics.agents.clone()),
            Box::new(metrics.agent_failures.clone()),
            Box::new(metrics.agent_notices.clone()),
        ];
        all.into_iter().try_for_each(|metric| metrics.registry.register(metric))?;
        Ok(metrics)
    }

    /// One request was answered.
    pub fn rpc(&self, method: &str, code: &str, took: Duration) {
        self.rpcs.with_label_values(&[method, code]).inc();
        self.rpc_seconds.with_label_values(&[method]).observe(took.as_secs_f64());
    }

    /// One cloud call was answered, or given up.
    pub fn cloud_call(&self, verb: &str, outcome: &str, took: Duration) {
        self.cloud_calls.with_label_values(&[verb, outcome]).inc();
        self.cloud_seconds.with_label_values(&[verb]).observe(took.as_secs_f64());
    }

    /// One request to AWS, as (service, action, outcome), was answered, or was not.
    pub fn aws_call(&self, (service, action, outcome): (&str, &str, &str), took: Duration) {
        self.aws_calls.with_label_values(&[service, action, outcome]).inc();
        self.aws_seconds.with_label_values(&[action]).observe(took.as_secs_f64());
    }

    /// So long did a request to AWS wait for its turn.
    pub fn aws_waited(&self, action: &str, wait: Duration) {
        self.aws_waits.with_label_values(&[action]).inc_by(wait.as_secs_f64());
    }

    /// AWS's clock is so far from ours.
    pub fn aws_clock(&self, by: Duration, behind: bool) {
        let seconds = by.as_secs_f64();
        self.aws_clock.with_label_values::<&str>(&[]).set(if behind { -seconds } else { seconds });
    }

    /// Something became of some machines: `asked`, `not-launched` (already on their way), `launched`, `registered`,
    /// `terminated`, `reaped`, or a refusal's class.
    pub fn machines(&self, outcome: &str, count: u32) {
        self.machines.with_label_values(&[outcome]).inc_by(u64::from(count));
    }

    /// So many agents are in each state.
    pub fn agents(&self, counts: impl Iterator<Item = (&'static str, usize)>) {
        counts.for_each(|(state, count)| self.agents.with_label_values(&[state]).set(count as f64));
    }

    /// A question to an agent brought nothing.
    pub fn agent_failed(&self, reason: &str) {
        self.agent_failures.with_label_values(&[reason]).inc();
    }

    /// An agent had a notice of its machine, and this became of it: `told` or `ignored`.
    pub fn agent_notice(&self, kind: NoticeKind, outcome: &str) {
        self.agent_notices.with_label_values(&[kind.word(), outcome]).inc();
    }

    /// The configuration file changed.
    pub fn reload(&self, ok: bool) {
        self.reloads.with_label_values(&[if ok { "ok" } else { "refused" }]).inc();
        self.config_ok.set(i64::from(ok));
    }

    /// The state file could not be written.
    pub fn state_failed(&self) {
        self.state_failures.with_label_values::<&str>(&[]).inc();
    }
}
