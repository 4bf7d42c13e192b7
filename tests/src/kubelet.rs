//! A kubelet's PodResources v1 API on a unix socket: the pods are what a test says, and so is what goes wrong.
//! It has a runtime of its own, so that stopping it cuts every connection at once, as a kubelet that dies does.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};
use windlass_proto::podresources::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use windlass_proto::podresources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
    GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
};

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
    trouble: Trouble,
}

/// A running kubelet, until dropped.
#[derive(Debug)]
pub struct Kubelet {
    socket: PathBuf,
    service: Service,
    runtime: Option<Runtime>,
}

#[derive(Clone, Debug, Default)]
struct Service {
    state: Arc<Mutex<State>>,
    calls: Arc<AtomicU64>,
}

impl Kubelet {
    /// Listens on `kubelet.sock` in `folder`, with no pods.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let socket = folder.join("kubelet.sock");
        let mut kubelet = Self { socket, service: Service::default(), runtime: None };
        kubelet.resume()?;
        Ok(kubelet)
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

    /// Dies: connections are cut and the socket is gone.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // A socket that is gone already is what was wanted.
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Lives again, with the pods it had.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.stop();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let inside = runtime.enter();
        let listener =
            UnixListener::bind(&self.socket).with_context(|| format!("listen on {}", self.socket.display()))?;
        drop(inside);
        let service = PodResourcesListerServer::new(self.service.clone());
        let server = tonic::transport::Server::builder();
        runtime.spawn(server.serve_with_incoming(service, UnixListenerStream::new(listener)));
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

/// A pod with one container that holds `ids` of `resource`.
pub fn pod(namespace: &str, name: &str, container: &str, devices: &[(&str, &[&str])]) -> PodResources {
    let devices = devices.iter().map(|(resource, ids)| self::devices(resource, ids)).collect();
    let container = ContainerResources { name: container.to_owned(), devices, ..ContainerResources::default() };
    PodResources { name: name.to_owned(), namespace: namespace.to_owned(), containers: vec![container] }
}

/// Some devices of one resource.
pub fn devices(resource: &str, ids: &[&str]) -> ContainerDevices {
    let device_ids = ids.iter().map(|&id| id.to_owned()).collect();
    ContainerDevices { resource_name: resource.to_owned(), device_ids }
}
