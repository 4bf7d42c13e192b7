//! The client of the kubelet's PodResources API: one connection that is kept, a deadline and a size limit on every answer.
//! The only user of the generated PodResources types; out come plain assignments.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use windlass_proto::podresources::pod_resources_lister_client::PodResourcesListerClient;
use windlass_proto::podresources::{ListPodResourcesRequest, ListPodResourcesResponse};

use super::{Assignment, Holders, Owner};

/// A List that takes longer is given up: the last good map stands meanwhile.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer taken. The kubelet's own client uses 16 MiB.
const MESSAGE_MAX: usize = 16 << 20;
/// Device ids kept out of one answer: 16 GPUs with 48 replicas each, ten times over.
const ASSIGNMENTS_MAX: usize = 8192;

/// The connection. It is made at the first call and again after a loss, by itself.
#[derive(Debug, Clone)]
pub struct Kubelet {
    client: PodResourcesListerClient<Channel>,
    /// Whether the last answer named more devices than are kept: said in the log when it begins, not at every answer.
    cut: bool,
}

impl Kubelet {
    /// Names the socket; nothing is opened yet.
    pub fn new(socket: &Path) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::try_from(format!("unix://{}", socket.display()))?
            .connect_timeout(DEADLINE)
            .timeout(DEADLINE)
            // A List is small and rare: the smallest windows that HTTP/2 allows keep the connection's buffers small.
            .initial_connection_window_size(65_535)
            .initial_stream_window_size(65_535)
            .connect_lazy();
        Ok(Self { client: PodResourcesListerClient::new(channel).max_decoding_message_size(MESSAGE_MAX), cut: false })
    }

    /// Asks who holds what. The error says what the kubelet or the socket answered.
    pub async fn holders(&mut self) -> Result<Holders, String> {
        let answer = tokio::time::timeout(DEADLINE, self.client.list(ListPodResourcesRequest {}));
        match answer.await {
            Ok(Ok(list)) => Ok(Holders::new(self.within_limit(assignments(list.into_inner())))),
            Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {
                Err(format!("{}; is the socket mounted, and does the agent run as root?", reason(&status)))
            }
            Ok(Err(status)) => Err(format!("{} ({:?}); the kubelet's log says more", reason(&status), status.code())),
            Err(_elapsed) => Err(format!("no answer within {DEADLINE:?}; the kubelet may be overloaded")),
        }
    }

    fn within_limit(&mut self, mut found: Vec<Assignment>) -> Vec<Assignment> {
        let cut = found.len() > ASSIGNMENTS_MAX;
        if cut && !self.cut {
            let named = found.len();
            tracing::warn!(
                named,
                kept = ASSIGNMENTS_MAX,
                "the kubelet names more devices than are kept: some pods will miss"
            );
        }
        self.cut = cut;
        found.truncate(ASSIGNMENTS_MAX);
        found
    }
}

/// The innermost cause, where the transport has one ("No such file or directory" rather than "transport error").
fn reason(status: &tonic::Status) -> String {
    let mut reason = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        reason = error.to_string();
        source = error.source();
    }
    reason
}

/// Only GPUs are kept: a node's other devices are many and none of our business.
fn assignments(list: ListPodResourcesResponse) -> Vec<Assignment> {
    let mut found = Vec::new();
    for pod in list.pod_resources {
        let (namespace, name): (Arc<str>, Arc<str>) = (pod.namespace.into(), pod.name.into());
        for container in pod.containers {
            let container_name: Arc<str> = container.name.into();
            let devices = container.devices.into_iter().filter(|device| is_gpu(&device.resource_name));
            let mut owner = None;
            for id in devices.flat_map(|device| device.device_ids) {
                let owner = owner.get_or_insert_with(|| {
                    let (namespace, pod, container) = (&namespace, &name, &container_name);
                    Arc::new(Owner { namespace: namespace.clone(), pod: pod.clone(), container: container.clone() })
                });
                found.push(Assignment { owner: Arc::clone(owner), device_id: id.into() });
            }
        }
    }
    found
}

/// `nvidia.com/gpu`, `nvidia.com/gpu.shared`, `nvidia.com/mig-1g.10gb`, and the names that operators give with `renameByDefault`.
fn is_gpu(resource: &str) -> bool {
    resource.starts_with("nvidia.com/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_proto::podresources::{ContainerDevices, ContainerResources, PodResources};

    #[test]
    fn only_gpus_are_kept() {
        let devices = |resource: &str, ids: &[&str]| ContainerDevices {
            resource_name: resource.into(),
            device_ids: ids.iter().map(|id| (*id).into()).collect(),
        };
        let containers = vec![
            ContainerResources {
                name: "main".into(),
                devices: vec![devices("nvidia.com/gpu", &["GPU-1", "GPU-2"]), devices("vendor.com/nic", &["eth7"])],
                ..ContainerResources::default()
            },
            ContainerResources { name: "sidecar".into(), ..ContainerResources::default() },
        ];
        let pod = PodResources { name: "train".into(), namespace: "ml".into(), containers };
        let found = assignments(ListPodResourcesResponse { pod_resources: vec![pod] });
        let found: Vec<_> = found.iter().map(|a| (&*a.owner.pod, &*a.owner.container, &*a.device_id)).collect();
        assert_eq!(found, [("train", "main", "GPU-1"), ("train", "main", "GPU-2")]);
    }
}
