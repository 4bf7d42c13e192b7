//! A GPU node as our agent sees it: NVML (the machine's own where there is a GPU, else the fake), a kubelet's socket
//! with the pods on it, and the agent itself.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Context as _;
use tokio::runtime::Runtime;
use windlass_agent::config::Config;

use super::{story::GPU, web};
use crate::{
    kubelet::{self, Kubelet},
    nvml::{Curve, Gpu, Gpus, ModelName, Process, Profile, Shape},
};

/// How long the agent may take to show a GPU.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is asked meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// The process of the pod on the fake GPU.
const PID: u32 = 4242;

/// The node, until dropped.
pub(super) struct GpuNode {
    // The agent first: it reads the others until it is dropped.
    agent: windlass_agent::Running,
    kubelet: Kubelet,
    /// None on a machine with GPUs of its own.
    fake: Option<Gpus>,
    /// The uuid of its first GPU.
    uuid: String,
    /// What its GPUs are called.
    pub(super) model: String,
}

/// What a pod does with its GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Use {
    /// Percent of the time.
    pub(super) busy: f64,
    /// Bytes.
    pub(super) memory: f64,
}

impl GpuNode {
    /// Starts the agent on the machine's own GPUs, or on one fake T4 where there are none.
    ///
    /// # Errors
    /// When neither can be read.
    pub(super) fn start(runtime: &Runtime, folder: &Path) -> anyhow::Result<Self> {
        let kubelet = Kubelet::start(folder)?;
        let own = Path::new("/dev/nvidiactl").exists();
        if own && let Ok(agent) = agent(runtime, None, &kubelet) {
            if let Ok((uuid, model)) = first_gpu(agent.address) {
                return Ok(Self { kubelet, fake: None, agent, uuid, model });
            }
            runtime.block_on(agent.stop());
        }
        let fake = Gpus::new(&profile(false))?;
        let agent = agent(runtime, Some(&fake.library()), &kubelet)?;
        let (uuid, model) = first_gpu(agent.address).context("the agent shows no fake GPU")?;
        Ok(Self { kubelet, fake: Some(fake), agent, uuid, model })
    }

    /// Where the agent's pages are.
    #[must_use]
    pub(super) fn address(&self) -> SocketAddr {
        self.agent.address
    }

    /// Whether the GPU is a simulated one.
    #[must_use]
    pub(super) fn simulated(&self) -> bool {
        self.fake.is_some()
    }

    /// This pod holds the first GPU from now on (and works, where the GPU is fake); None: nobody does.
    ///
    /// # Errors
    /// When the fake's profile cannot be written.
    pub(super) fn hold(&self, pod: Option<&str>) -> anyhow::Result<()> {
        let held = |name| kubelet::pod("default", name, "main", &[(GPU, &[self.uuid.as_str()])]);
        self.kubelet.set_pods(pod.map(held).into_iter().collect());
        self.fake.as_ref().map_or(Ok(()), |fake| fake.set(&profile(pod.is_some())))
    }

    /// What the agent's `/metrics` says about the pod; None while it says nothing.
    #[must_use]
    pub(super) fn measured(&self, pod: &str) -> Option<Use> {
        let page = web::get(self.agent.address, "/metrics").ok()?;
        let owner = format!("pod=\"{pod}\"");
        let value = |name: &str| sample(&page, name, &owner);
        Some(Use { busy: value("gpu_utilization")?, memory: value("gpu_memory_used_bytes")? })
    }

    /// Ends with the reason why the agent ended; never otherwise.
    pub(super) async fn finished(&mut self) -> anyhow::Error {
        self.agent.finished().await.context("the agent ended")
    }

    /// Stops the agent.
    pub(super) async fn stop(self) {
        self.agent.stop().await;
    }
}

fn agent(runtime: &Runtime, library: Option<&Path>, kubelet: &Kubelet) -> anyhow::Result<windlass_agent::Running> {
    let config = Config {
        nvml_library: library.map(Path::to_owned),
        kubelet_socket: Some(kubelet.socket().to_owned()),
        sample_interval: Duration::from_millis(500),
        node_name: "gpu-node".into(),
        ..Config::default()
    };
    runtime.block_on(windlass_agent::start(config))
}

/// One T4, at work or not.
fn profile(works: bool) -> Profile {
    let load = Shape::Square { low: 70.0, high: 96.0, period_s: 3.0, duty: 0.7 };
    let process = Process { sm: Curve::Shape(load), ..Process::new(PID, 0.0, 11_000) };
    let gpu = Gpu { processes: works.then_some(process).into_iter().collect(), ..Gpu::default() };
    Profile { gpus: [(0, gpu)].into(), ..Profile::idle(ModelName::T4, 1) }
}

/// uuid and model of the first GPU that the agent shows.
fn first_gpu(agent: SocketAddr) -> anyhow::Result<(String, String)> {
    let looks = PATIENCE.as_millis() / LOOK.as_millis();
    for _ in 0..looks {
        let page = web::get(agent, "/metrics").unwrap_or_default();
        let line = page.lines().find(|line| line.starts_with("DCGM_FI_DEV_GPU_UTIL{"));
        if let Some((uuid, model)) = line.and_then(|line| Some((label(line, "UUID")?, label(line, "modelName")?))) {
            return Ok((uuid.to_owned(), model.to_owned()));
        }
        std::thread::sleep(LOOK);
    }
    anyhow::bail!("no GPU on http://{agent}/metrics within {} s", PATIENCE.as_secs())
}

/// The first sample of a family whose labels contain this text.
fn sample(page: &str, name: &str, labels: &str) -> Option<f64> {
    let of_family = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
    let line = page.lines().filter(of_family).find(|line| line.contains(labels))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn label<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let begin = line.find(&format!("{name}=\""))? + name.len() + 2;
    line.get(begin..)?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_found_by_family_and_label() {
        let page = "# HELP gpu_utilization x\ngpu_utilization_other{pod=\"a\"} 1\ngpu_utilization{pod=\"b\"} 2\n\
                    gpu_utilization{gpu=\"0\",pod=\"a\"} 87.5\n";
        assert_eq!(sample(page, "gpu_utilization", "pod=\"a\""), Some(87.5));
        assert_eq!(sample(page, "gpu_utilization", "pod=\"c\""), None);
        assert_eq!(label("x{UUID=\"GPU-1\",modelName=\"Tesla T4\"} 0", "modelName"), Some("Tesla T4"));
    }

    #[test]
    fn feature_63_in_the_demo_the_agent_measures_the_pod_that_holds_the_gpu() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let node = GpuNode::start(&runtime, folder.path()).unwrap();
        assert_eq!(node.measured("train-0"), None);
        node.hold(Some("train-0")).unwrap();
        let found = (0..100).any(|_| {
            std::thread::sleep(LOOK);
            node.measured("train-0").is_some_and(|measured| measured.busy > 0.0 || !node.simulated())
        });
        assert!(found, "nothing of the pod on http://{}/metrics", node.address());
        runtime.block_on(node.stop());
    }
}
