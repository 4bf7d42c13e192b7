//! The conversation: requests, answers, and whoever gives them.
//! Payloads are the messages on the wire, so that a recording, a gRPC client and a provider in the same process all fit.

use windlass_proto::{expander, externalgrpc};

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
