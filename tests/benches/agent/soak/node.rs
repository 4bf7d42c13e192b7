//! The node of a long run: each second something comes, goes, breaks or is mended, on a schedule of its own that repeats in no short time.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use windlass_proto::podresources::PodResources;
use windlass_tests::certificates::{Mutual, Pair};
use windlass_tests::kubelet::{Kubelet, Trouble, identity, pod};
use windlass_tests::metadata::{Cloud, Metadata, Trouble as Sick};
use windlass_tests::nvml::{AnswerName, Fault, Gpus, Mig, ModelName, Process, Profile, gpu_uuid, mig_uuid};
use windlass_tests::proc::{Cgroup, Container, Host};

use super::push;

pub(crate) const WHAT_CHANGES: &str = "pods and processes come and go each second, MIG is laid out anew, GPUs are lost and hang, the driver is \
     replaced, the kubelet stops and stumbles, the cloud gives notice, settings, counters, jobs, certificates and passwords change";

const GPUS: u32 = 8;
/// The GPU in instances; those before it are shared.
const PARTITIONED: u32 = 7;
/// Pods at a time.
const PODS: usize = 60;
/// No pid is used twice by chance.
const FIRST_PID: u32 = 10_000;

/// What runs.
struct Work {
    container: Container,
    resources: PodResources,
    gpu: u32,
    instance: Option<u32>,
    pid: u32,
}

/// The node.
pub(crate) struct Node {
    gpus: Gpus,
    kubelet: Kubelet,
    host: Host,
    metadata: Metadata,
    folder: tempfile::TempDir,
    work: VecDeque<Work>,
    profile: Profile,
    next: u32,
    replaced: u32,
    certificates: (Mutual, u64),
}

impl Node {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (host, folder) = (Host::new()?, tempfile::tempdir()?);
        let profile = Profile::idle(ModelName::H100, GPUS);
        let mut kubelet = Kubelet::start(host.root())?;
        kubelet.serve_pods_api(Vec::new())?;
        let certificates = (Mutual::new(folder.path())?, 0);
        std::fs::create_dir(folder.path().join("jobs"))?;
        let mut node = Self {
            gpus: Gpus::new(&profile)?,
            metadata: Metadata::start(Cloud::Ec2)?,
            work: VecDeque::new(),
            next: 0,
            replaced: 0,
            kubelet,
            host,
            folder,
            profile,
            certificates,
        };
        node.settings(0)?;
        node.web_config(0)?;
        Ok(node)
    }

    /// For the command line of an agent.
    pub(crate) fn flags(&self) -> Vec<OsString> {
        let path = |name: &str| self.folder.path().join(name).into_os_string();
        let pairs = [
            ("--config", path("agent.yaml")),
            ("--collectors", path("counters.csv")),
            ("--hpc-job-mapping-dir", path("jobs")),
            ("--nvml-library", self.gpus.library().into()),
            ("--kubelet-socket", self.kubelet.socket().into()),
            ("--kubelet-pods-socket", self.kubelet.pods_socket().into()),
            ("--kubelet-checkpoint", "".into()),
            ("--host-proc", self.host.proc().into()),
            ("--host-logs", self.host.logs().into()),
            ("--metadata-endpoint", self.metadata.endpoint().into()),
        ];
        pairs.into_iter().flat_map(|(flag, value)| [flag.into(), value]).chain(["--pod-uid".into()]).collect()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn web(&self) -> PathBuf {
        self.folder.path().join("web.yaml")
    }

    /// Who signs, the client that it knows, and how often both were renewed.
    pub(crate) fn trust(&self) -> (&Path, &Pair, u64) {
        let (made, renewed) = &self.certificates;
        (&made.authority, &made.client, *renewed)
    }

    /// What happened, in numbers.
    pub(crate) fn told(&self) -> String {
        format!(
            "{} pods, {} drivers, {} certificates; the kubelet was asked {} times over {} connections",
            self.next,
            self.replaced,
            self.certificates.1,
            self.kubelet.calls(),
            self.kubelet.connections()
        )
    }

    /// What happens in this second.
    pub(crate) fn second(&mut self, second: u64) -> anyhow::Result<()> {
        self.pods(second)?;
        self.driver(second)?;
        self.kubelet(second)?;
        self.cloud(second);
        if second.is_multiple_of(23) {
            self.settings(second)?;
        }
        if second.is_multiple_of(19) {
            self.jobs(second)?;
        }
        if second.is_multiple_of(47) {
            self.web_config(second)?;
        }
        self.show()
    }

    /// One comes, the oldest goes, one gets a new process, and one a pid that another had.
    fn pods(&mut self, second: u64) -> anyhow::Result<()> {
        let name = format!("worker-{}", self.next);
        let container = Container::new("ml", &name, "main");
        let gpu = self.next % GPUS;
        let instance = (gpu == PARTITIONED).then(|| self.next / GPUS % 7 + 7);
        let (resource, id) = match instance {
            None => ("nvidia.com/gpu", format!("{}::{}", gpu_uuid(gpu), self.next % 48)),
            Some(instance) => ("nvidia.com/mig-1g.10gb", format!("{}::{}", mig_uuid(gpu, instance, 0), self.next % 48)),
        };
        let resources = pod("ml", &name, "main", &[(resource, &[&id])]);
        let pid = FIRST_PID + self.next * 4;
        self.host.container(&container)?;
        self.host.process(pid, &container, shape(self.next))?;
        self.next += 1;
        if let Some(gone) = push(&mut self.work, Work { container, resources, gpu, instance, pid }, PODS) {
            self.host.exit(gone.pid)?;
            self.host.remove_container(&gone.container)?;
        }
        let place = second as usize * 7 % self.work.len();
        if let Some(work) = self.work.get_mut(place) {
            self.host.exit(work.pid)?;
            work.pid = if second.is_multiple_of(3) { work.pid } else { work.pid / 4 * 4 + (work.pid + 1) % 4 };
            self.host.process(work.pid, &work.container, shape(self.next))?;
            if second.is_multiple_of(3) {
                self.host.reuse(work.pid, &work.container, shape(self.next))?;
            }
        }
        Ok(())
    }

    /// GPUs are lost or hang for a while, the layout of MIG changes, a new driver comes.
    fn driver(&mut self, second: u64) -> anyhow::Result<()> {
        let gpu = (second / 90) as u32 % GPUS;
        let reset = if (second / 90).is_multiple_of(2) { AnswerName::GpuIsLost } else { AnswerName::ResetRequired };
        match second % 90 {
            30..45 => self.profile.faults = vec![Fault::of_gpu(gpu, reset)],
            60..68 => self.profile.faults = vec![Fault::hang(&["nvmlDeviceGetTemperature"], Some(gpu))],
            _ => self.profile.faults.clear(),
        }
        let upgrade = second % 200;
        if (180..190).contains(&upgrade) {
            let answer = Fault::of_gpu(0, AnswerName::LibRmVersionMismatch).answer;
            self.profile.faults = vec![Fault { answer, ..Fault::default() }];
        }
        if upgrade == 185 {
            let (library, aside) = (self.gpus.library(), self.gpus.folder().join("new.so"));
            std::fs::copy(&library, &aside).and_then(|_| std::fs::rename(&aside, &library)).context("a new library")?;
            self.replaced += 1;
            self.profile.driver = format!("580.{}.05", self.replaced);
        }
        self.profile.sampler_clock_s = if second % 300 < 10 { -3_600.0 } else { 0.0 };
        let instances =
            |profile: &str, ids: std::ops::Range<u32>| ids.map(|id| Mig::new(profile, id)).collect::<Vec<_>>();
        self.profile.gpu(PARTITIONED).mig = match second / 60 % 4 {
            0 => Some(instances("1g.10gb", 7..14)),
            1 => Some([instances("3g.40gb", 1..2), instances("1g.10gb", 7..11)].concat()),
            2 => Some(Vec::new()),
            _ => None,
        };
        Ok(())
    }

    fn kubelet(&mut self, second: u64) -> anyhow::Result<()> {
        let trouble = match second / 40 % 5 {
            1 => Trouble::Slow(Duration::from_secs(3)),
            2 => Trouble::RateLimited,
            3 => Trouble::Broken,
            _ => Trouble::None,
        };
        self.kubelet.trouble(trouble);
        match second % 110 {
            70 => self.kubelet.stop(),
            80 => self.kubelet.resume()?,
            _ => {}
        }
        self.kubelet.set_pods(self.work.iter().map(|work| work.resources.clone()).collect());
        let team = format!("team-{}", second / 30);
        let of = |work: &Work| {
            identity(&work.container, &[("team", &team), ("app.kubernetes.io/name", &work.container.pod)])
        };
        self.kubelet.set_identities(self.work.iter().map(of).collect());
        Ok(())
    }

    fn cloud(&self, second: u64) {
        let deadline = r#"{"action":"terminate","time":"2030-09-18T08:22:00Z"}"#;
        self.metadata.set("spot/instance-action", (second % 70 < 20).then_some(deadline));
        let rebalance = r#"{"noticeTime":"2026-10-27T08:22:00Z"}"#;
        self.metadata.set("events/recommendations/rebalance", (second % 90 < 30).then_some(rebalance));
        self.metadata.set("instance-id", Some("i-0123456789abcdef0"));
        self.metadata.set("placement/availability-zone", Some("us-east-1a"));
        self.metadata.set("instance-life-cycle", Some("spot"));
        self.metadata.trouble(match second / 45 % 6 {
            3 => Sick::Status(500),
            4 => Sick::Nonsense,
            _ => Sick::None,
        });
        if second.is_multiple_of(100) {
            self.metadata.end_sessions();
        }
    }

    /// Settings and counters; each fifth with a mistake.
    fn settings(&mut self, second: u64) -> anyhow::Result<()> {
        let turn = second / 23;
        let names = ["compat", "4.6", "off"][turn as usize % 3];
        let labels = ["team", "team|app.*", "'.*'"][turn as usize / 2 % 3];
        let interval = if turn % 4 == 3 { "500ms" } else { "1s" };
        let series = if turn % 7 == 6 { 300 } else { 20_000 };
        let wrong = if turn % 5 == 4 { "sample-intervall: 1s\n" } else { "" };
        let settings = format!(
            "node-name: node-{}\ndcgm-names: '{names}'\npod-labels: {labels}\nsample-interval: {interval}\nmax-series: {series}\n{wrong}",
            turn % 10
        );
        self.put("agent.yaml", &settings)?;
        let row = ["DCGM_FI_DEV_FB_FREE, gauge, Free.", "DCGM_FI_DRIVER_VERSION, label, Driver.", "nonsense"]
            [turn as usize % 3];
        self.put("counters.csv", &format!("DCGM_FI_DEV_GPU_UTIL, gauge, Utilization.\n{row}\n"))
    }

    fn jobs(&self, second: u64) -> anyhow::Result<()> {
        let file = self.folder.path().join(format!("jobs/{}", second / 19 % u64::from(GPUS)));
        if second / 19 % 3 == 2 {
            let _gone = std::fs::remove_file(&file);
            return Ok(());
        }
        std::fs::write(&file, format!("{second}\n{}\n", second + 1)).context("a job")
    }

    /// A new authority with its certificates, users with another password, now and then with a mistake.
    fn web_config(&mut self, second: u64) -> anyhow::Result<()> {
        let turn = second / 47;
        if turn % 4 == 3 {
            return self.put("web.yaml", "tls_server_config: {}\n");
        }
        let folder = self.folder.path().join(format!("certificates-{turn}"));
        std::fs::create_dir_all(&folder)?;
        let made = Mutual::new(&folder)?;
        if turn > 2 {
            // The agent may still be about to read the one before.
            let _gone = std::fs::remove_dir_all(self.folder.path().join(format!("certificates-{}", turn - 3)));
        }
        let text = format!(
            "tls_server_config:\n  cert_file: {}\n  key_file: {}\n  client_ca_file: {}\n  client_auth_type: VerifyClientCertIfGiven\n",
            made.server.certificate.display(),
            made.server.key.display(),
            made.authority.display()
        );
        self.certificates = (made, self.certificates.1 + 1);
        self.put("web.yaml", &text)
    }

    fn put(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let aside = self.folder.path().join("next");
        std::fs::write(&aside, text)?;
        std::fs::rename(&aside, self.folder.path().join(name)).with_context(|| name.to_owned())
    }

    /// The driver shows what runs, and an Xid error now and then.
    fn show(&mut self) -> anyhow::Result<()> {
        let layout = self.profile.gpu(PARTITIONED).mig.clone();
        for gpu in 0..GPUS {
            self.profile.gpu(gpu).processes.clear();
        }
        for (work, place) in self.work.iter().zip(0_u32..) {
            let there = layout.iter().flatten().any(|mig| Some(mig.gpu_instance) == work.instance);
            if work.instance.is_some() && !there {
                continue;
            }
            let load = Process::new(work.pid, f64::from(place % 6 + 3), 900);
            self.profile.gpu(work.gpu).processes.push(Process { gpu_instance: work.instance, ..load });
        }
        let gpu = self.next % GPUS;
        self.profile.gpu(gpu).xids = vec![(unix() + 1.2, u64::from(self.next % 150))];
        self.gpus.set(&self.profile)
    }
}

fn shape(number: u32) -> Cgroup {
    Cgroup::ALL.get(number as usize % Cgroup::ALL.len()).copied().unwrap_or(Cgroup::Systemd)
}

#[expect(clippy::disallowed_methods, reason = "the fake's events have wall times")]
fn unix() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
