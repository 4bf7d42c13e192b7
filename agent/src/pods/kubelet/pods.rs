//! The client of the kubelet's Pods API (KEP-4188; alpha in Kubernetes 1.36): uid, labels and container ids of this node's pods, without the API
//! server. Absent on most clusters today, which is no fault.

use std::path::{Path, PathBuf};

use prost::Message as _;
use prost::bytes::Bytes;
use tonic::transport::Channel;
use windlass_proto::pods::{ContainerStatus, ListPodsRequest, ListPodsResponse};

use super::{DEADLINE, Refusal, answered, call, channel};
use crate::pods::identity::Pod;

/// The same call in each version of the API that a kubelet may serve; what is not served answers UNIMPLEMENTED.
const CALLS: [&str; 3] = ["/v1alpha1.Pods/ListPods", "/v1beta1.Pods/ListPods", "/v1.Pods/ListPods"];

/// The connection, made when first needed.
#[derive(Debug)]
pub struct PodsApi {
    socket: PathBuf,
    channel: Channel,
    version: usize,
}

impl PodsApi {
    /// Names the socket; nothing is opened yet.
    pub fn new(socket: &Path) -> Result<Self, tonic::transport::Error> {
        Ok(Self { socket: socket.to_owned(), channel: channel(socket)?, version: 0 })
    }

    /// Whether this kubelet has the API at all.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.socket.exists()
    }

    /// Asks for every pod of the node.
    pub async fn pods(&mut self) -> Result<Vec<Pod>, Refusal> {
        for version in 0..CALLS.len() {
            let at = (self.version + version) % CALLS.len();
            let listed = call(&self.channel, CALLS.get(at).copied().unwrap_or_default(), ListPodsRequest {});
            let answer = tokio::time::timeout(DEADLINE, listed).await;
            if matches!(&answer, Ok(Err(status)) if status.code() == tonic::Code::Unimplemented) {
                continue;
            }
            self.version = at;
            return Ok(pods(&answered::<ListPodsResponse>(answer)?));
        }
        let reason = format!("{} serves no version of the Pods API that this agent knows", self.socket.display());
        Err(Refusal { reason, rate_limited: false })
    }
}

/// Reads an answer's bytes: the door for those who have no kubelet.
///
/// # Errors
/// When the bytes are no message.
pub fn decode(answer: &[u8]) -> Result<Vec<Pod>, prost::DecodeError> {
    Ok(pods(&ListPodsResponse::decode(answer)?))
}

/// The pods that can be decoded.
fn pods(list: &ListPodsResponse) -> Vec<Pod> {
    list.pods.iter().filter_map(pod).collect()
}

fn pod(bytes: &Bytes) -> Option<Pod> {
    let pod = windlass_proto::pods::Pod::decode(bytes.clone()).ok()?;
    let (meta, status) = (pod.metadata?, pod.status.unwrap_or_default());
    let statuses = [status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses];
    Some(Pod {
        namespace: meta.namespace.unwrap_or_default(),
        name: meta.name.unwrap_or_default(),
        uid: meta.uid.unwrap_or_default(),
        labels: meta.labels,
        containers: statuses.into_iter().flatten().filter_map(container).collect(),
    })
}

/// A container has an id once it has started.
fn container(status: ContainerStatus) -> Option<(String, String)> {
    Some((status.name?, status.container_id.filter(|id| !id.is_empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_proto::pods::{ObjectMeta, PodStatus};

    #[test]
    fn a_pod_that_cannot_be_decoded_costs_only_itself() {
        let meta = ObjectMeta {
            name: Some("train".into()),
            namespace: Some("ml".into()),
            uid: Some("u-1".into()),
            labels: [("team".to_owned(), "vision".to_owned())].into(),
        };
        let started = |name: &str, id: &str| ContainerStatus { name: Some(name.into()), container_id: Some(id.into()) };
        let status = PodStatus {
            container_statuses: vec![started("main", "containerd://aa"), started("waits", "")],
            init_container_statuses: vec![started("proxy", "cri-o://bb")],
            ephemeral_container_statuses: Vec::new(),
        };
        let good = windlass_proto::pods::Pod { metadata: Some(meta), status: Some(status) }.encode_to_vec();
        let list = ListPodsResponse { pods: vec![vec![0xff, 0xff].into(), good.into()] };
        let found = decode(&list.encode_to_vec()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].uid.as_str()), ("train", "u-1"));
        let ids: Vec<_> = found[0].containers.iter().map(|(name, id)| (name.as_str(), id.as_str())).collect();
        assert_eq!(ids, [("main", "containerd://aa"), ("proxy", "cri-o://bb")]);
    }
}
