//! Two sizes of node: GPUs that containers share, and GPUs in MIG instances that containers share. Every process is a real one, so that programs
//! which look at the host's processes find them.

use std::path::PathBuf;
use std::process::{Child, Command};

use anyhow::Context as _;
use windlass_proto::podresources::PodResources;
use windlass_tests::kubelet::{Kubelet, pod};
use windlass_tests::nvml::{Curve, Gpus, Mig, ModelName, Process, Profile, Shape, gpu_uuid, mig_uuid};
use windlass_tests::proc::{Cgroup, Container, Host};

use crate::programs::end;

pub(crate) const GPUS: u32 = 8;
const INSTANCES: u32 = 7;
/// What each process holds.
const PROCESS_MIB: u32 = 1_000;

/// What there is on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// 8 GPUs, time-sliced between 30 containers.
    Shared,
    /// 8 GPUs in 7 MIG instances each, with 200 containers on them.
    Partitioned,
}

impl Size {
    pub(crate) fn title(self) -> String {
        match self {
            Self::Shared => format!("{GPUS} GPUs, {} containers", self.containers()),
            Self::Partitioned => format!("{GPUS} GPUs x {INSTANCES} MIG instances, {} containers", self.containers()),
        }
    }

    fn containers(self) -> u32 {
        match self {
            Self::Shared => 30,
            Self::Partitioned => 200,
        }
    }

    fn resource(self) -> &'static str {
        match self {
            Self::Shared => "nvidia.com/gpu",
            Self::Partitioned => "nvidia.com/mig-1g.10gb",
        }
    }

    /// GPU, GPU instance and device id of a container's place.
    fn device(self, place: u32) -> (u32, Option<u32>, String) {
        let gpu = place % GPUS;
        match self {
            Self::Shared => (gpu, None, format!("{}::{}", gpu_uuid(gpu), place / GPUS)),
            Self::Partitioned => {
                let instance = place / GPUS % INSTANCES + 7;
                (gpu, Some(instance), format!("{}::{}", mig_uuid(gpu, instance, 0), place / GPUS / INSTANCES))
            }
        }
    }
}

/// The node.
pub(crate) struct World {
    pub(crate) gpus: Gpus,
    pub(crate) kubelet: Kubelet,
    pub(crate) host: Host,
    pub(crate) pods: Vec<PodResources>,
    size: Size,
    work: Vec<Child>,
}

impl World {
    pub(crate) fn new(size: Size) -> anyhow::Result<Self> {
        let host = Host::new()?;
        let mut profile = Profile::idle(ModelName::H100, GPUS);
        if size == Size::Partitioned {
            for gpu in 0..GPUS {
                profile.gpu(gpu).mig = Some((0..INSTANCES).map(instance).collect());
            }
        }
        let (mut pods, mut work) = (Vec::new(), Vec::new());
        for place in 0..size.containers() {
            let child = Command::new("sleep").arg("3600").spawn().context("sleep")?;
            let container = Container::new("ml", &format!("worker-{place}"), "main");
            host.container(&container)?;
            host.process(child.id(), &container, Cgroup::Systemd)?;
            let (gpu, gpu_instance, id) = size.device(place);
            let sm = Shape::Square { low: 5.0, high: 25.0, period_s: f64::from(place % 30 + 3), duty: 0.6 };
            let process =
                Process { sm: Curve::Shape(sm), gpu_instance, ..Process::new(child.id(), 0.0, PROCESS_MIB.into()) };
            profile.gpu(gpu).processes.push(process);
            pods.push(pod(&container.namespace, &container.pod, &container.name, &[(size.resource(), &[id.as_str()])]));
            work.push(child);
        }
        let kubelet = Kubelet::start(host.root())?;
        kubelet.set_pods(pods.clone());
        Ok(Self { gpus: Gpus::new(&profile)?, kubelet, host, pods, size, work })
    }

    /// MiB that the processes hold on a GPU.
    pub(crate) fn memory_mib(&self, gpu: u32) -> f64 {
        (0..self.size.containers()).filter(|place| place % GPUS == gpu).map(|_| f64::from(PROCESS_MIB)).sum()
    }

    /// A pod that holds a replica of the first device and runs nothing.
    pub(crate) fn visitor(&self) -> PodResources {
        let (_, _, id) = self.size.device(GPUS * INSTANCES * 99);
        pod("ml", "visitor", "main", &[(self.size.resource(), &[id.as_str()])])
    }

    /// Where the fake library counts its calls.
    pub(crate) fn counts(&self) -> PathBuf {
        self.gpus.folder().join("calls.txt")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.work.iter_mut().for_each(end);
    }
}

fn instance(index: u32) -> Mig {
    Mig { index: Some(index), ..Mig::new("1g.10gb", index + 7) }
}
