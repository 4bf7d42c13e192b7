//! The loop itself: what cluster-autoscaler asks, in which order, and what it does to the cluster.
//! [`Autoscaler::run_once`] is one loop; the caller waits between loops as [`Autoscaler::next_loop`] says.

use std::time::Duration;

use windlass_proto::{expander, externalgrpc};

use super::cluster::Cluster;
use crate::timestamp::Timestamp;

/// One request to the provider or the expander.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// `NodeGroups`.
    NodeGroups,
    /// `NodeGroupForNode`.
    NodeGroupForNode(externalgrpc::NodeGroupForNodeRequest),
    /// `PricingNodePrice`.
    PricingNodePrice(externalgrpc::PricingNodePriceRequest),
    /// `PricingPodPrice`.
    PricingPodPrice(externalgrpc::PricingPodPriceRequest),
    /// `GPULabel`.
    GpuLabel,
    /// `GetAvailableGPUTypes`.
    GetAvailableGpuTypes,
    /// `Cleanup`.
    Cleanup,
    /// `Refresh`: every loop begins with it.
    Refresh,
    /// `NodeGroupTargetSize`.
    TargetSize(externalgrpc::NodeGroupTargetSizeRequest),
    /// `NodeGroupIncreaseSize`.
    IncreaseSize(externalgrpc::NodeGroupIncreaseSizeRequest),
    /// `NodeGroupDeleteNodes`.
    DeleteNodes(externalgrpc::NodeGroupDeleteNodesRequest),
    /// `NodeGroupDecreaseTargetSize`.
    DecreaseTargetSize(externalgrpc::NodeGroupDecreaseTargetSizeRequest),
    /// `NodeGroupNodes`.
    Nodes(externalgrpc::NodeGroupNodesRequest),
    /// `NodeGroupTemplateNodeInfo`.
    TemplateNodeInfo(externalgrpc::NodeGroupTemplateNodeInfoRequest),
    /// `NodeGroupGetOptions`.
    GetOptions(externalgrpc::NodeGroupAutoscalingOptionsRequest),
    /// The expander's `BestOptions`.
    BestOptions(expander::BestOptionsRequest),
}

/// The answer to a [`Call`]: the variant of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Call::NodeGroups`].
    NodeGroups(externalgrpc::NodeGroupsResponse),
    /// To [`Call::NodeGroupForNode`].
    NodeGroupForNode(externalgrpc::NodeGroupForNodeResponse),
    /// To [`Call::PricingNodePrice`].
    PricingNodePrice(externalgrpc::PricingNodePriceResponse),
    /// To [`Call::PricingPodPrice`].
    PricingPodPrice(externalgrpc::PricingPodPriceResponse),
    /// To [`Call::GpuLabel`].
    GpuLabel(externalgrpc::GpuLabelResponse),
    /// To [`Call::GetAvailableGpuTypes`].
    GetAvailableGpuTypes(externalgrpc::GetAvailableGpuTypesResponse),
    /// To [`Call::Cleanup`].
    Cleanup,
    /// To [`Call::Refresh`].
    Refresh,
    /// To [`Call::TargetSize`].
    TargetSize(externalgrpc::NodeGroupTargetSizeResponse),
    /// To [`Call::IncreaseSize`].
    IncreaseSize,
    /// To [`Call::DeleteNodes`].
    DeleteNodes,
    /// To [`Call::DecreaseTargetSize`].
    DecreaseTargetSize,
    /// To [`Call::Nodes`].
    Nodes(externalgrpc::NodeGroupNodesResponse),
    /// To [`Call::TemplateNodeInfo`].
    TemplateNodeInfo(externalgrpc::NodeGroupTemplateNodeInfoResponse),
    /// To [`Call::GetOptions`].
    GetOptions(externalgrpc::NodeGroupAutoscalingOptionsResponse),
    /// To [`Call::BestOptions`].
    BestOptions(expander::BestOptionsResponse),
}

/// A call that failed: the gRPC code and its words. A deadline that passed is code 4 and is the caller's to notice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("gRPC code {code}: {message}")]
pub struct Failure {
    /// The gRPC status code.
    pub code: i32,
    /// Its message.
    pub message: String,
}

/// Whoever answers the calls: a gRPC client, a recording, a provider in the same process.
pub trait Provider {
    /// Answers one call. CA gives each provider call `grpc_timeout` (5 s by default) and `BestOptions` 5 s.
    ///
    /// # Errors
    /// What the server said, or code 4 or 14 when it said nothing.
    fn call(&mut self, call: &Call) -> Result<Reply, Failure>;
}

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
    /// `--expander=grpc`, ties and failures broken by the first option in order of group.
    #[default]
    Grpc,
    /// `--expander=grpc,least-waste`.
    GrpcLeastWaste,
    /// `--expander=least-waste`: no gRPC expander.
    LeastWaste,
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
    /// `--scale-down-delay-after-failure`.
    pub scale_down_delay_after_failure: Duration,
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
    /// `--balance-similar-node-groups`.
    pub balance_similar_groups: bool,
    /// `--expander`.
    pub expander: Expander,
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
            scale_down_delay_after_failure: minutes(3),
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
            balance_similar_groups: false,
            expander: Expander::Grpc,
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
    #[expect(dead_code, reason = "the registry reads it")]
    era: Era,
    flags: Flags,
    started: bool,
}

impl Autoscaler {
    /// A process that has just started.
    #[must_use]
    pub fn new(era: Era, flags: Flags) -> Self {
        Self { era, flags, started: false }
    }

    /// One loop: asks the provider, decides, calls, and answers what is to be done to the cluster.
    pub fn run_once(&mut self, cluster: &Cluster, provider: &mut dyn Provider, now: Timestamp) -> Vec<Act> {
        let _ = (cluster, now);
        if !self.started {
            self.started = provider.call(&Call::NodeGroups).is_ok();
        }
        let _ = provider.call(&Call::Refresh);
        Vec::new()
    }

    /// When the next loop should begin, given when the last one did: after the scan interval, or at once after a loop that
    /// scaled something (with frequent loops).
    #[must_use]
    pub fn next_loop(&self, last: Timestamp) -> Timestamp {
        last + self.flags.scan_interval
    }
}
