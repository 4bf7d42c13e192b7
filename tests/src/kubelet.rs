//! A kubelet's PodResources v1 API on a unix socket, and its Pods API where a test wants one: the pods are what a test says, and so is what goes wrong.
//! It has a runtime of its own, so that stopping it cuts every connection at once, as a kubelet that dies does.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use prost::Message as _;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};
use windlass_proto::podresources::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use windlass_proto::podresources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ClaimResource, ContainerDevices, ContainerResources,
    DynamicResource, GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesRequest,
    ListPodResourcesResponse, PodResources,
};
use windlass_proto::pods::pods_server::{Pods, PodsServer};
use windlass_proto::pods::{ContainerStatus, ListPodsRequest, ListPodsResponse, ObjectMeta, Pod, PodStatus};

use crate::proc::Container;

/// What the kubelet does to a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Answers.
    #[default]
    None,
    /// Answers after this long.
    Slow(Duration),
    /// Refuses as the kubelet's own rate limit does.
    RateLimited,
    /// Refuses with an internal error.
    Broken,
}

#[derive(Debug, Default)]
struct State {
    pods: Vec<PodResources>,
    allocatable: Vec<ContainerDevices>,
    identities: Vec<Pod>,
    trouble: Trouble,
}

/// A running kubelet, until dropped.
#[derive(Debug)]
pub struct Kubelet {
    socket: PathBuf,
    pods_socket: Option<PathBuf>,
    service: Service,
    runtime: Option<Runtime>,
}

#[derive(Clone, Debug, Default)]
struct Service {
    state: Arc<Mutex<State>>,
    calls: Arc<AtomicU64>,
    pods_calls: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Kubelet {
    /// Listens on `kubelet.sock` in `folder`, with no pods.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let socket = folder.join("kubelet.sock");
        let mut kubelet = Self { socket, pods_socket: None, service: Service::default(), runtime: None };
        kubelet.resume()?;
        Ok(kubelet)
    }

    /// Serves the Pods API too, on `pods-api.sock` beside the other socket; what it says of pods is this.
    pub fn serve_pods_api(&mut self, pods: Vec<Pod>) -> anyhow::Result<()> {
        self.set_identities(pods);
        self.pods_socket = Some(self.pods_socket());
        self.resume()
    }

    /// Where the Pods API is, or would be: for `--kubelet-pods-socket`.
    pub fn pods_socket(&self) -> PathBuf {
        self.socket.with_file_name("pods-api.sock")
    }

    /// The Pods API says this of pods from now on.
    pub fn set_identities(&self, pods: Vec<Pod>) {
        self.service.state().identities = pods;
    }

    /// Calls of the Pods API since the start.
    pub fn pods_calls(&self) -> u64 {
        self.service.pods_calls.load(Ordering::Relaxed)
    }

    /// The socket, for `--kubelet-socket`.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// These are the pods from now on.
    pub fn set_pods(&self, pods: Vec<PodResources>) {
        self.service.state().pods = pods;
    }

    /// These are the node's devices from now on.
    pub fn set_allocatable(&self, devices: Vec<ContainerDevices>) {
        self.service.state().allocatable = devices;
    }

    /// This happens to every call from now on.
    pub fn trouble(&self, trouble: Trouble) {
        self.service.state().trouble = trouble;
    }

    /// Calls received since the start.
    pub fn calls(&self) -> u64 {
        self.service.calls.load(Ordering::Relaxed)
    }

    /// Connections to the PodResources socket since the start.
    pub fn connections(&self) -> u64 {
        self.service.connections.load(Ordering::Relaxed)
    }

    /// Dies: connections are cut and the socket is gone.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        for socket in [Some(&self.socket), self.pods_socket.as_ref()].into_iter().flatten() {
            // A socket that is gone already is what was wanted.
            let _ = std::fs::remove_file(socket);
        }
    }

    /// Lives again, with the pods it had.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.stop();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let inside = runtime.enter();
        let listen = |socket: &PathBuf| {
            let listener = UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()));
            listener.map(UnixListenerStream::new)
        };
        let (resources, pods) = (listen(&self.socket)?, self.pods_socket.as_ref().map(listen).transpose()?);
        drop(inside);
        let server = || tonic::transport::Server::builder();
        let lister = PodResourcesListerServer::new(self.service.clone());
        let connections = Arc::clone(&self.service.connections);
        let counted = resources.map(move |connection| {
            connections.fetch_add(1, Ordering::Relaxed);
            connection
        });
        runtime.spawn(server().serve_with_incoming(lister, counted));
        if let Some(pods) = pods {
            runtime.spawn(server().serve_with_incoming(PodsServer::new(self.service.clone()), pods));
        }
        self.runtime = Some(runtime);
        Ok(())
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Service {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn suffer(&self) -> Result<(), Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let trouble = self.state().trouble;
        match trouble {
            Trouble::None => Ok(()),
            Trouble::Slow(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Trouble::RateLimited => Err(Status::resource_exhausted("rejected by rate limit")),
            Trouble::Broken => Err(Status::internal("checkpoint is corrupt")),
        }
    }
}

#[tonic::async_trait]
impl PodResourcesLister for Service {
    async fn list(&self, _: Request<ListPodResourcesRequest>) -> Result<Response<ListPodResourcesResponse>, Status> {
        self.suffer().await?;
        Ok(Response::new(ListPodResourcesResponse { pod_resources: self.state().pods.clone() }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        self.suffer().await?;
        Ok(Response::new(AllocatableResourcesResponse { devices: self.state().allocatable.clone() }))
    }

    async fn get(&self, request: Request<GetPodResourcesRequest>) -> Result<Response<GetPodResourcesResponse>, Status> {
        self.suffer().await?;
        let wanted = request.into_inner();
        let state = self.state();
        let found = state.pods.iter().find(|pod| pod.name == wanted.pod_name && pod.namespace == wanted.pod_namespace);
        let pod = found.cloned().ok_or_else(|| Status::not_found("pod is not on this node"))?;
        Ok(Response::new(GetPodResourcesResponse { pod_resources: Some(pod) }))
    }
}

#[tonic::async_trait]
impl Pods for Service {
    async fn list_pods(&self, _: Request<ListPodsRequest>) -> Result<Response<ListPodsResponse>, Status> {
        self.pods_calls.fetch_add(1, Ordering::Relaxed);
        let pods = self.state().identities.iter().map(|pod| pod.encode_to_vec().into()).collect();
        Ok(Response::new(ListPodsResponse { pods }))
    }
}

/// What the Pods API says of a container's pod.
pub fn identity(container: &Container, labels: &[(&str, &str)]) -> Pod {
    let status = ContainerStatus {
        name: Some(container.name.clone()),
        container_id: Some(format!("containerd://{}", container.id)),
    };
    Pod {
        metadata: Some(ObjectMeta {
            name: Some(container.pod.clone()),
            namespace: Some(container.namespace.clone()),
            uid: Some(container.uid.clone()),
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }),
        status: Some(PodStatus { container_statuses: vec![status], ..PodStatus::default() }),
    }
}

/// A pod with one container that holds `ids` of `resource`.
pub fn pod(namespace: &str, name: &str, container: &str, devices: &[(&str, &[&str])]) -> PodResources {
    let devices = devices.iter().map(|(resource, ids)| self::devices(resource, ids)).collect();
    let container = ContainerResources { name: bytes(container), devices, ..ContainerResources::default() };
    PodResources { name: bytes(name), namespace: bytes(namespace), containers: vec![container] }
}

/// A pod with one container that claims devices of NVIDIA's DRA driver; several may share one (`share`).
pub fn claimant(namespace: &str, name: &str, container: &str, devices: &[&str], share: Option<&str>) -> PodResources {
    let device = |device: &&str| ClaimResource {
        driver_name: bytes("gpu.nvidia.com"),
        pool_name: bytes("node-a"),
        device_name: bytes(device),
        share_id: share.map(bytes),
        ..ClaimResource::default()
    };
    let claim = DynamicResource {
        claim_name: bytes("gpus"),
        claim_namespace: bytes(namespace),
        claim_resources: devices.iter().map(device).collect(),
    };
    let mut pod = pod(namespace, name, container, &[]);
    if let Some(container) = pod.containers.first_mut() {
        container.dynamic_resources = vec![claim];
    }
    pod
}

/// Some devices of one resource.
pub fn devices(resource: &str, ids: &[&str]) -> ContainerDevices {
    ContainerDevices { resource_name: bytes(resource), device_ids: ids.iter().map(|&id| bytes(id)).collect() }
}

/// A name as it travels.
fn bytes(text: &str) -> Bytes {
    text.to_owned().into()
}
