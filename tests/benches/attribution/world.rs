//! One node with a GPU for each way of sharing, and the agent on it.

use windlass_agent::config::Config;
use windlass_proto::podresources::PodResources;
use windlass_tests::kubelet::{Kubelet, claimant, pod};
use windlass_tests::nvml::{Curve, Gpus, Kind, Mig, ModelName, Process, Profile, Shape, gpu_uuid, mig_uuid};
use windlass_tests::proc::{Cgroup, Container, Host};
use windlass_tests::scrape::Scraper;

const EXCLUSIVE: &str = "exclusive, a host process beside it";
const SLICED: &str = "time-sliced, four pods and an idle one";
const MPS: &str = "MPS, clients told one by one";
const SERVED: &str = "MPS, booked on the server (equal clients)";
const ONE_POD: &str = "several containers of one pod";
const CLAIM: &str = "a claim shared by two pods (DRA)";
const CGROUP: &str = "ids of a plugin's own, by cgroup alone";
const MIG: &str = "MIG, one pod an instance (GPM)";

/// Every way of sharing; each has the GPU of its place.
pub(crate) const MODES: [&str; 8] = [EXCLUSIVE, SLICED, MPS, SERVED, ONE_POD, CLAIM, CGROUP, MIG];

/// A container whose use is known to be what these processes do.
pub(crate) struct Subject {
    pub(crate) mode: &'static str,
    pub(crate) gpu: u32,
    pub(crate) pids: Vec<u32>,
    pub(crate) container: Container,
}

/// The node. Fields are dropped in this order: the agent first, then its world.
pub(crate) struct World {
    pub(crate) scraper: Scraper,
    _agent: windlass_agent::Running,
    _runtime: tokio::runtime::Runtime,
    pub(crate) kubelet: Kubelet,
    pub(crate) host: Host,
    pub(crate) gpus: Gpus,
    pub(crate) profile: Profile,
    pub(crate) pods: Vec<PodResources>,
    pub(crate) subjects: Vec<Subject>,
}

/// The node while it is put together.
struct Plan {
    profile: Profile,
    host: Host,
    pods: Vec<PodResources>,
    subjects: Vec<Subject>,
    next_pid: u32,
}

impl World {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let plan = plan()?;
        let gpus = Gpus::new(&plan.profile)?;
        let kubelet = Kubelet::start(plan.host.root())?;
        kubelet.set_pods(plan.pods.clone());
        let config = Config {
            nvml_library: Some(gpus.library()),
            kubelet_socket: Some(kubelet.socket().to_owned()),
            host_proc: plan.host.proc(),
            host_logs: plan.host.logs(),
            node_name: "bench".to_owned(),
            ..Config::default()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let agent = runtime.block_on(windlass_agent::start(config))?;
        let scraper = Scraper::connect(agent.address)?;
        let Plan { profile, host, pods, subjects, .. } = plan;
        Ok(Self { scraper, _agent: agent, _runtime: runtime, kubelet, host, gpus, profile, pods, subjects })
    }
}

/// A load that moves: `high` in part of each period, `low` in the rest.
fn moving(low: f64, high: f64, period_s: f64) -> Curve {
    Curve::Shape(Shape::Square { low, high, period_s, duty: 0.4 })
}

impl Plan {
    /// A process with this load in a container of the GPU's pod.
    fn runs(&mut self, mode: &'static str, container: &Container, process: Process) -> anyhow::Result<()> {
        let gpu = gpu_of(mode);
        let pid = self.next_pid;
        self.next_pid += 1;
        // A container may have several processes; it starts once.
        let _ = self.host.container(container);
        self.host.process(pid, container, Cgroup::Systemd)?;
        self.profile.gpu(gpu).processes.push(Process { pid, ..process });
        match self.subjects.iter_mut().find(|subject| subject.container == *container) {
            Some(subject) => subject.pids.push(pid),
            None => self.subjects.push(Subject { mode, gpu, pids: vec![pid], container: container.clone() }),
        }
        Ok(())
    }

    /// A pod with one container and one process; it holds `id` of a resource.
    fn pod(&mut self, mode: &'static str, name: &str, held: (&str, &str), process: Process) -> anyhow::Result<()> {
        let (resource, id) = held;
        self.pods.push(pod("ml", name, "main", &[(resource, &[id])]));
        self.runs(mode, &Container::new("ml", name, "main"), process)
    }
}

fn gpu_of(mode: &str) -> u32 {
    MODES.iter().zip(0..).find(|(other, _)| **other == mode).map_or(0, |(_, gpu)| gpu)
}

fn load(sm: Curve) -> Process {
    Process { sm, ..Process::new(0, 0.0, 2_000) }
}

fn plan() -> anyhow::Result<Plan> {
    let profile = Profile::idle(ModelName::H100, u32::try_from(MODES.len())?);
    let mut plan = Plan { profile, host: Host::new()?, pods: Vec::new(), subjects: Vec::new(), next_pid: 1_000 };
    let replica = |mode: &str, replica: u32| format!("{}::{replica}", gpu_uuid(gpu_of(mode)));
    plan.pod(EXCLUSIVE, "trainer", ("nvidia.com/gpu", &gpu_uuid(0)), load(moving(30.0, 90.0, 7.0)))?;
    plan.host.host_process(900, "monitor")?;
    plan.profile.gpu(0).processes.push(Process::new(900, 5.0, 200));

    let curves = [moving(0.0, 60.0, 3.0), moving(5.0, 25.0, 2.3), Curve::Constant(12.0), moving(0.0, 20.0, 11.0)];
    for (place, curve) in (0..).zip(curves) {
        plan.pod(SLICED, &format!("slice-{place}"), ("nvidia.com/gpu", &replica(SLICED, place)), load(curve))?;
    }
    plan.pods.push(pod("ml", "slice-idle", "main", &[("nvidia.com/gpu", &[&replica(SLICED, 4)])]));

    for (place, curve) in (0..).zip([moving(0.0, 50.0, 4.0), moving(10.0, 30.0, 3.0), Curve::Constant(20.0)]) {
        let client = Process { kind: Kind::Mps, ..load(curve) };
        plan.pod(MPS, &format!("client-{place}"), ("nvidia.com/gpu.shared", &replica(MPS, place)), client)?;
    }
    for place in 0..2 {
        let client = Process { kind: Kind::Mps, sampled: false, ..load(moving(10.0, 40.0, 5.0)) };
        plan.pod(SERVED, &format!("served-{place}"), ("nvidia.com/gpu.shared", &replica(SERVED, place)), client)?;
    }
    plan.host.mps_server(901, &Container::new("gpu-operator", "mps-control-daemon", "main"))?;
    let server = Process { kind: Kind::MpsServer, ..Process::new(901, 0.0, 30) };
    plan.profile.gpu(gpu_of(SERVED)).processes.push(server);

    let mut several = pod("ml", "several", "main", &[("nvidia.com/gpu", &[&replica(ONE_POD, 0)])]);
    several.containers.extend(pod("ml", "several", "proxy", &[("nvidia.com/gpu", &[&replica(ONE_POD, 1)])]).containers);
    plan.pods.push(several);
    for (name, curve) in
        [("main", moving(20.0, 60.0, 6.0)), ("main", Curve::Constant(5.0)), ("proxy", moving(0.0, 30.0, 4.0))]
    {
        plan.runs(ONE_POD, &Container::new("ml", "several", name), load(curve))?;
    }

    let device = format!("gpu-{}", gpu_of(CLAIM));
    for (name, share, curve) in
        [("claim-a", "5e1c", moving(10.0, 70.0, 9.0)), ("claim-b", "90ab", Curve::Constant(15.0))]
    {
        plan.pods.push(claimant("ml", name, "main", &[&device], Some(share)));
        plan.runs(CLAIM, &Container::new("ml", name, "main"), load(curve))?;
    }
    for (place, curve) in (0..).zip([moving(0.0, 55.0, 5.0), Curve::Constant(30.0)]) {
        plan.pod(CGROUP, &format!("slot-{place}"), ("vendor.com/gpu-share", &format!("slot-{place}")), load(curve))?;
    }
    instances(&mut plan)?;
    Ok(plan)
}

/// Three instances of unlike size.
fn instances(plan: &mut Plan) -> anyhow::Result<()> {
    let gpu = gpu_of(MIG);
    let profiles = [
        ("3g.40gb", 2, moving(20.0, 95.0, 5.0)),
        ("2g.20gb", 3, moving(0.0, 60.0, 3.0)),
        ("1g.10gb", 9, Curve::Constant(50.0)),
    ];
    let mig = |(profile, gpu_instance, _): &(&str, u32, Curve)| Mig::new(profile, *gpu_instance);
    plan.profile.gpu(gpu).mig = Some(profiles.iter().map(mig).collect());
    for (profile, gpu_instance, curve) in profiles {
        let resource = format!("nvidia.com/mig-{profile}");
        let inside = Process { gpu_instance: Some(gpu_instance), ..load(curve) };
        plan.pod(MIG, &format!("mig-{gpu_instance}"), (&resource, &mig_uuid(gpu, gpu_instance, 0)), inside)?;
    }
    Ok(())
}
