//! What the provider says of itself: counters and durations, kept here; what a snapshot shows is rendered from it on
//! each scrape, so that groups that are gone leave nothing behind.

pub mod snapshot;

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

/// Seconds. Reads take microseconds; a BestOptions request or a cloud call may take seconds.
const BUCKETS: [f64; 10] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0, 5.0, 30.0];

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
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// Two metrics of one name: a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        let count = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(format!("windlass_provider_{name}"), help), labels)
        };
        let time = |name: &str, help: &str, labels: &[&str]| {
            let opts = HistogramOpts::new(format!("windlass_provider_{name}"), help);
            HistogramVec::new(opts.buckets(BUCKETS.to_vec()), labels)
        };
        let metrics = Self {
            registry: Registry::new(),
            rpcs: count("rpcs_total", "Requests answered, by method and gRPC code.", &["method", "code"])?,
            rpc_seconds: time("rpc_seconds", "How long an answer took.", &["method"])?,
            cloud_calls: count("cloud_calls_total", "Cloud calls, by verb and outcome.", &["verb", "outcome"])?,
            cloud_seconds: time("cloud_call_seconds", "How long a cloud call took.", &["verb"])?,
            machines: count("machines_total", "Machines by what became of them.", &["outcome"])?,
            reloads: count("config_reloads_total", "Changes of the configuration file, by outcome.", &["outcome"])?,
            config_ok: IntGauge::new(
                "windlass_provider_config_last_reload_successful",
                "1 while the configuration file is in force, 0 while it is wrong and an older one stands.",
            )?,
            state_failures: count("state_write_failures_total", "Writes of the state file that failed.", &[])?,
        };
        metrics.config_ok.set(1);
        metrics.state_failures.with_label_values::<&str>(&[]);
        let all: [Box<dyn Collector>; 8] = [
            Box::new(metrics.rpcs.clone()),
            Box::new(metrics.rpc_seconds.clone()),
            Box::new(metrics.cloud_calls.clone()),
            Box::new(metrics.cloud_seconds.clone()),
            Box::new(metrics.machines.clone()),
            Box::new(metrics.reloads.clone()),
            Box::new(metrics.config_ok.clone()),
            Box::new(metrics.state_failures.clone()),
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

    /// Something became of some machines: `asked`, `not-launched` (already on their way), `launched`, `registered`,
    /// `terminated`, `reaped`, or a refusal's class.
    pub fn machines(&self, outcome: &str, count: u32) {
        self.machines.with_label_values(&[outcome]).inc_by(u64::from(count));
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
