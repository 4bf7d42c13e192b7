//! The client of the kubelet's PodResources API: one connection that is kept, a deadline and a size limit on every answer.
//! The only user of the generated PodResources types; out come plain assignments.

pub mod pods;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use windlass_proto::podresources::pod_resources_lister_client::PodResourcesListerClient;
use windlass_proto::podresources::{ContainerResources, ListPodResourcesRequest, ListPodResourcesResponse};

use super::{Assignment, Holders, Owner};

/// A List that takes longer is given up: the last good map stands meanwhile.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer taken. The kubelet's own client uses 16 MiB.
const MESSAGE_MAX: usize = 16 << 20;
/// Device ids kept out of one answer: 16 GPUs with 48 replicas each, ten times over.
const ASSIGNMENTS_MAX: usize = 8192;
/// Longest name and longest id taken, in bytes: Kubernetes allows names of 253.
const NAME_MAX: usize = 253;
/// NVIDIA's driver for claims (DRA).
const CLAIM_DRIVER: &[u8] = b"gpu.nvidia.com";

/// The connection. It is made at the first call and again after a loss, by itself.
#[derive(Debug, Clone)]
pub struct Kubelet {
    client: PodResourcesListerClient<Channel>,
    /// Whether the last answer named more devices than are kept: said in the log when it begins, not at every answer.
    cut: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For a person: what the kubelet or the socket answered, and what to try.
    pub reason: String,
    /// The kubelet's own limit of calls was reached, by whomever: asking more often makes it worse.
    pub rate_limited: bool,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl Kubelet {
    /// Names the socket; nothing is opened yet.
    pub fn new(socket: &Path) -> Result<Self, tonic::transport::Error> {
        let client = PodResourcesListerClient::new(channel(socket)?).max_decoding_message_size(MESSAGE_MAX);
        Ok(Self { client, cut: false })
    }

    /// Asks who holds what.
    pub async fn holders(&mut self) -> Result<Holders, Refusal> {
        let answer = tokio::time::timeout(DEADLINE, self.client.list(ListPodResourcesRequest {})).await;
        let list = answered(answer)?.into_inner();
        Ok(Holders::new(self.within_limit(assignments(&list))))
    }

    fn within_limit(&mut self, (found, named): (Vec<Assignment>, usize)) -> Vec<Assignment> {
        let cut = named > found.len();
        if cut && !self.cut {
            let kept = found.len();
            tracing::warn!(named, kept, "the kubelet names more devices than are kept: some pods will miss");
        }
        self.cut = cut;
        found
    }
}

/// A kept connection to one of the kubelet's sockets.
fn channel(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    Ok(Endpoint::try_from(format!("unix://{}", socket.display()))?
        .connect_timeout(DEADLINE)
        .timeout(DEADLINE)
        // A List is small and rare: the smallest windows that HTTP/2 allows keep the connection's buffers small.
        .initial_connection_window_size(65_535)
        .initial_stream_window_size(65_535)
        .connect_lazy())
}

type Answer<T> = Result<Result<T, tonic::Status>, tokio::time::error::Elapsed>;

fn answered<T>(answer: Answer<T>) -> Result<T, Refusal> {
    let rate_limited = matches!(&answer, Ok(Err(status)) if status.code() == tonic::Code::ResourceExhausted);
    let reason = match answer {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {
            format!("{}; is the socket mounted, and does the agent run as root?", innermost(&status))
        }
        Ok(Err(status)) => format!("{} ({:?}); the kubelet's log says more", innermost(&status), status.code()),
        Err(_elapsed) => format!("no answer within {DEADLINE:?}; the kubelet may be overloaded"),
    };
    Err(Refusal { reason, rate_limited })
}

/// The innermost cause, where the transport has one ("No such file or directory" rather than "transport error").
fn innermost(status: &tonic::Status) -> String {
    let mut reason = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        reason = error.to_string();
        source = error.source();
    }
    reason
}

/// Reads an answer's bytes: the door for those who have no kubelet.
///
/// # Errors
/// When the bytes are no message.
pub fn decode(answer: &[u8]) -> Result<Vec<Assignment>, prost::DecodeError> {
    let list: ListPodResourcesResponse = prost::Message::decode(answer)?;
    Ok(assignments(&list).0)
}

/// What is kept of an answer, within the limit, and how many devices it named. Only GPUs are kept: a node's other devices are many and none of
/// our business.
fn assignments(list: &ListPodResourcesResponse) -> (Vec<Assignment>, usize) {
    let mut found = Vec::new();
    let mut named = 0;
    for pod in &list.pod_resources {
        let mut names: Option<(Arc<str>, Arc<str>)> = None;
        for container in &pod.containers {
            let mut owner = None;
            for (id, claimed) in gpus(container) {
                named += 1;
                if found.len() >= ASSIGNMENTS_MAX {
                    continue;
                }
                let names = names.get_or_insert_with(|| (name(&pod.namespace), name(&pod.name)));
                let owner = owner.get_or_insert_with(|| {
                    let (namespace, pod) = names.clone();
                    Arc::new(Owner { namespace, pod, container: name(&container.name) })
                });
                found.push(Assignment { owner: Arc::clone(owner), device_id: (&*name(id)).into(), claimed });
            }
        }
    }
    (found, named)
}

/// The ids of a container's GPUs: from device plugins, then from claims.
fn gpus(container: &ContainerResources) -> impl Iterator<Item = (&[u8], bool)> {
    let plugin = container.devices.iter().flat_map(|devices| {
        let resource = &devices.resource_name;
        devices.device_ids.iter().map(|id| &**id).filter(|id| is_gpu(resource, id)).map(|id| (id, false))
    });
    let claims = container.dynamic_resources.iter().flat_map(|claim| &claim.claim_resources);
    // A claim that several share (share_id) names the same device for each of them.
    let claimed =
        claims.filter(|device| &*device.driver_name == CLAIM_DRIVER).map(|device| (&*device.device_name, true));
    plugin.chain(claimed)
}

/// `nvidia.com/gpu`, `nvidia.com/gpu.shared`, `nvidia.com/mig-1g.10gb`, the names that operators give with `renameByDefault`; and any resource whose
/// ids are a driver's own.
fn is_gpu(resource: &[u8], id: &[u8]) -> bool {
    resource.starts_with(b"nvidia.com/") || id.starts_with(b"GPU-") || id.starts_with(b"MIG-")
}

/// A name as text, whatever its bytes are, and no longer than a name can be.
fn name(bytes: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(bytes.get(..NAME_MAX).unwrap_or(bytes)).into()
}

#[cfg(test)]
mod tests;
