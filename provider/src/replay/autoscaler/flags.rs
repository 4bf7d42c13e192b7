//! Which release, and its command line.
//! Times are CA's own defaults unless a caller says otherwise.

use std::time::Duration;

/// Which release is modelled. Each stands for the ones that behave alike: 1.27–1.28, 1.29–1.32, 1.33–1.34.1, 1.34.2 and later, 1.35 and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Era {
    /// 1.27 and 1.28.
    V1_27,
    /// 1.29 to 1.32 (1.32 differs in what an empty expander answer means; see [`Era::V1_33`]).
    V1_29,
    /// 1.33 to 1.34.1.
    V1_33,
    /// 1.34.2 and later 1.34.
    V1_34,
    /// 1.35 and newer.
    V1_36,
}

/// Which expander chooses among options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Expander {
    /// `--expander=grpc`, then a random one of what is left.
    #[default]
    Grpc,
    /// `--expander=grpc,least-waste`.
    GrpcLeastWaste,
    /// `--expander=least-waste`: no gRPC expander.
    LeastWaste,
    /// `--expander=price`: no gRPC expander; prices are the provider's.
    Price,
}

/// CA's command line, as far as the model reads it. The default is that of the release binaries.
#[derive(Clone, Debug, PartialEq)]
pub struct Flags {
    /// `--scan-interval`.
    pub scan_interval: Duration,
    /// `--scale-down-enabled`.
    pub scale_down_enabled: bool,
    /// `--scale-down-delay-after-add`.
    pub scale_down_delay_after_add: Duration,
    /// `--scale-down-delay-after-delete`; None means the scan interval.
    pub scale_down_delay_after_delete: Option<Duration>,
    /// `--scale-down-unneeded-time`.
    pub unneeded_time: Duration,
    /// `--scale-down-unready-time`.
    pub unready_time: Duration,
    /// `--scale-down-utilization-threshold`.
    pub utilization_threshold: f64,
    /// `--scale-down-gpu-utilization-threshold`.
    pub gpu_utilization_threshold: f64,
    /// `--unremovable-node-recheck-timeout`.
    pub unremovable_recheck: Duration,
    /// `--node-delete-delay-after-taint`.
    pub delete_delay_after_taint: Duration,
    /// `--max-node-provision-time`.
    pub max_node_provision_time: Duration,
    /// `--max-node-startup-time` (1.35 and newer; 15 min before).
    pub max_node_startup_time: Duration,
    /// `--initial-node-group-backoff-duration`.
    pub initial_backoff: Duration,
    /// `--max-node-group-backoff-duration`.
    pub max_backoff: Duration,
    /// `--node-group-backoff-reset-timeout`.
    pub backoff_reset: Duration,
    /// How long pods that ask for GPUs wait for more of their kind: 30 s, or none where `--bypassed-scheduler-names` is set.
    pub gpu_wait: Option<Duration>,
    /// The same for other pods: 2 s, or none.
    pub pod_wait: Option<Duration>,
    /// `--new-pod-scale-up-delay`.
    pub new_pod_delay: Duration,
    /// `--frequent-loops-enabled`: on by default from 1.35.
    pub frequent_loops: bool,
    /// `--max-total-unready-percentage`, in percent.
    pub max_total_unready_percentage: f64,
    /// `--ok-total-unready-count`.
    pub ok_total_unready_count: u32,
    /// `--max-nodes-per-scaleup`.
    pub max_nodes_per_scale_up: u32,
    /// `--expander`.
    pub expander: Expander,
    /// What CA's random choice among equals comes to: it takes the option of this number, modulo how many there are.
    pub tie: usize,
}

impl Flags {
    /// What the release's binary does with no flags but the expander.
    #[must_use]
    pub fn of(era: Era) -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            scan_interval: Duration::from_secs(10),
            scale_down_enabled: true,
            scale_down_delay_after_add: minutes(10),
            scale_down_delay_after_delete: None,
            unneeded_time: minutes(10),
            unready_time: minutes(20),
            utilization_threshold: 0.5,
            gpu_utilization_threshold: 0.5,
            unremovable_recheck: minutes(5),
            delete_delay_after_taint: Duration::from_secs(5),
            max_node_provision_time: minutes(15),
            max_node_startup_time: minutes(15),
            initial_backoff: minutes(5),
            max_backoff: minutes(30),
            backoff_reset: minutes(180),
            gpu_wait: Some(Duration::from_secs(30)),
            pod_wait: Some(Duration::from_secs(2)),
            new_pod_delay: Duration::ZERO,
            frequent_loops: era >= Era::V1_36,
            max_total_unready_percentage: 45.0,
            ok_total_unready_count: 3,
            max_nodes_per_scale_up: 1000,
            expander: Expander::Grpc,
            tie: 0,
        }
    }

    /// The short times that tests and the demo use: loops of 1 s, idle nodes gone after 8 s, 20 s to register, no wait for GPU pods.
    #[must_use]
    pub fn quick(era: Era) -> Self {
        let seconds = Duration::from_secs;
        Self {
            scan_interval: seconds(1),
            scale_down_delay_after_add: seconds(5),
            unneeded_time: seconds(8),
            unready_time: seconds(20),
            unremovable_recheck: seconds(5),
            delete_delay_after_taint: seconds(1),
            max_node_provision_time: seconds(20),
            initial_backoff: seconds(15),
            gpu_wait: None,
            pod_wait: None,
            ..Self::of(era)
        }
    }
}
