//! The calls of an autoscaler's loop, made over gRPC: what the demo and the rig drive a provider with.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use windlass_proto::{
    expander::expander_client::ExpanderClient,
    externalgrpc::{
        CleanupRequest, GetAvailableGpuTypesRequest, GpuLabelRequest, NodeGroupsRequest, RefreshRequest,
        cloud_provider_client::CloudProviderClient,
    },
};
use windlass_provider::replay::autoscaler::{Call, Failure, Provider, Reply};

/// CA's deadline of every call.
const DEADLINE: Duration = Duration::from_secs(5);
/// What a Go client takes from the provider: gRPC's default of 4 MiB.
const PROVIDER_ANSWER: usize = 4 << 20;
/// CA raises the limit for the expander.
const EXPANDER_ANSWER: usize = 128 << 20;

/// A blocking client of both services, as CA has one: it connects when it first needs to, and again when it must.
#[derive(Debug)]
pub struct Caller {
    runtime: Runtime,
    provider: CloudProviderClient<Channel>,
    expander: ExpanderClient<Channel>,
}

impl Caller {
    /// Plain TCP to the provider, TLS (as `localhost`) to the expander.
    ///
    /// # Errors
    /// When the trust root is none.
    pub fn over_tcp(provider: SocketAddr, expander: SocketAddr, roots: &[u8]) -> Result<Self> {
        Self::connect(format!("http://{provider}"), expander, roots)
    }

    /// A unix socket to the provider, TLS (as `localhost`) to the expander: the shape of one shared pod.
    ///
    /// # Errors
    /// When the trust root is none, or the path is no path for a socket.
    pub fn over_unix(provider: &Path, expander: SocketAddr, roots: &[u8]) -> Result<Self> {
        Self::connect(format!("unix://{}", provider.display()), expander, roots)
    }

    fn connect(provider: String, expander: SocketAddr, roots: &[u8]) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("a runtime for the calls")?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots)).domain_name("localhost");
        let provider = Endpoint::from_shared(provider)?;
        let expander = Endpoint::from_shared(format!("https://{expander}"))?.tls_config(tls)?;
        let inside = runtime.enter();
        let (provider, expander) = (provider.connect_lazy(), expander.connect_lazy());
        drop(inside);
        Ok(Self {
            runtime,
            provider: CloudProviderClient::new(provider).max_decoding_message_size(PROVIDER_ANSWER),
            expander: ExpanderClient::new(expander).max_decoding_message_size(EXPANDER_ANSWER),
        })
    }
}

impl Provider for Caller {
    fn call(&mut self, call: &Call) -> Result<Reply, Failure> {
        let answer = async {
            let answer = answer(&mut self.provider, &mut self.expander, call.clone());
            let late = |_| Err(Status::deadline_exceeded(format!("no answer within {} s", DEADLINE.as_secs())));
            tokio::time::timeout(DEADLINE, answer).await.unwrap_or_else(late)
        };
        let failure = |status: Status| Failure { code: status.code() as i32, message: status.message().to_owned() };
        self.runtime.block_on(answer).map_err(failure)
    }
}

async fn answer(
    provider: &mut CloudProviderClient<Channel>,
    expander: &mut ExpanderClient<Channel>,
    call: Call,
) -> Result<Reply, Status> {
    Ok(match call {
        Call::NodeGroups => Reply::NodeGroups(provider.node_groups(NodeGroupsRequest {}).await?.into_inner()),
        Call::NodeGroupForNode(r) => Reply::NodeGroupForNode(provider.node_group_for_node(r).await?.into_inner()),
        Call::PricingNodePrice(r) => Reply::PricingNodePrice(provider.pricing_node_price(r).await?.into_inner()),
        Call::PricingPodPrice(r) => Reply::PricingPodPrice(provider.pricing_pod_price(r).await?.into_inner()),
        Call::GpuLabel => Reply::GpuLabel(provider.gpu_label(GpuLabelRequest {}).await?.into_inner()),
        Call::GetAvailableGpuTypes => {
            let types = provider.get_available_gpu_types(GetAvailableGpuTypesRequest {}).await?;
            Reply::GetAvailableGpuTypes(types.into_inner())
        }
        Call::Cleanup => provider.cleanup(CleanupRequest {}).await.map(|_| Reply::Cleanup)?,
        Call::Refresh => provider.refresh(RefreshRequest {}).await.map(|_| Reply::Refresh)?,
        Call::TargetSize(r) => Reply::TargetSize(provider.node_group_target_size(r).await?.into_inner()),
        Call::IncreaseSize(r) => provider.node_group_increase_size(r).await.map(|_| Reply::IncreaseSize)?,
        Call::DeleteNodes(r) => provider.node_group_delete_nodes(r).await.map(|_| Reply::DeleteNodes)?,
        Call::DecreaseTargetSize(r) => {
            provider.node_group_decrease_target_size(r).await.map(|_| Reply::DecreaseTargetSize)?
        }
        Call::Nodes(r) => Reply::Nodes(provider.node_group_nodes(r).await?.into_inner()),
        Call::TemplateNodeInfo(r) => {
            Reply::TemplateNodeInfo(provider.node_group_template_node_info(r).await?.into_inner())
        }
        Call::GetOptions(r) => Reply::GetOptions(provider.node_group_get_options(r).await?.into_inner()),
        Call::BestOptions(r) => Reply::BestOptions(expander.best_options(r).await?.into_inner()),
    })
}
