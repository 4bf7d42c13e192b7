//! A node with everything the agent meets on one, and the agent on it: in this process, on a port of the kernel's choice.

use std::time::{Duration, Instant, SystemTime};

use windlass_agent::config::Config;
use windlass_proto::podresources::PodResources;
use windlass_tests::kubelet::{Kubelet, pod};
use windlass_tests::nvml::{Gpus, Process, Profile, gpu_uuid};
use windlass_tests::proc::{Cgroup, Container, Host};
use windlass_tests::scrape::{Answer, Page, Scraper};

/// Far longer than anything takes: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_mins(2);
const INTERVAL: Duration = Duration::from_millis(200);
/// Seconds, well below those from which on the agent counts nothing.
const PAUSE: f64 = 1.5;

/// The node. Fields are the world's; what the agent does with them shows on its pages.
pub(crate) struct Node {
    // In this order they go: the agent first, then its world.
    scraper: Scraper,
    agent: windlass_agent::Running,
    _runtime: tokio::runtime::Runtime,
    pub(crate) kubelet: Kubelet,
    pub(crate) gpus: Gpus,
    pub(crate) host: Host,
}

impl Node {
    /// A node with these GPUs and pods. The world is there before the agent starts.
    pub(crate) fn start(profile: &Profile, pods: Vec<PodResources>, world: impl FnOnce(&Host)) -> Self {
        Self::configured(profile, pods, world, |_, _| ())
    }

    /// The same with other settings.
    pub(crate) fn configured(
        profile: &Profile,
        pods: Vec<PodResources>,
        world: impl FnOnce(&Host),
        settings: impl FnOnce(&mut Config, &Gpus),
    ) -> Self {
        let gpus = Gpus::new(profile).unwrap();
        let host = Host::new().unwrap();
        let kubelet = Kubelet::start(host.root()).unwrap();
        kubelet.set_pods(pods);
        world(&host);
        let mut config = Config {
            nvml_library: Some(gpus.library()),
            kubelet_socket: Some(kubelet.socket().to_owned()),
            kubelet_pods_socket: Some(kubelet.pods_socket()),
            host_proc: host.proc(),
            host_logs: host.logs(),
            sample_interval: INTERVAL,
            node_name: "node-a".to_owned(),
            ..Config::default()
        };
        settings(&mut config, &gpus);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let agent = runtime.block_on(windlass_agent::start(config)).unwrap();
        let scraper = Scraper::connect(agent.address).unwrap();
        Self { gpus, kubelet, host, agent, _runtime: runtime, scraper }
    }

    /// A node with whatever GPUs the library has that `NVML_LIBRARY` names, else with these: for what does not depend on them.
    pub(crate) fn on_any(profile: &Profile, settings: impl FnOnce(&mut Config)) -> Self {
        let settings = |config: &mut Config, gpus: &Gpus| {
            config.nvml_library = Some(windlass_tests::opinion::library(gpus));
            settings(config);
        };
        Self::configured(profile, vec![], |_| (), settings)
    }

    /// Where the agent listens.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.agent.address
    }

    /// The kubelet has the Pods API from now on, and says this of pods.
    pub(crate) fn serve_pods_api(&mut self, pods: Vec<windlass_proto::pods::Pod>) {
        self.kubelet.serve_pods_api(pods).unwrap();
    }

    /// Any answer of the agent.
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.scraper.get(path, &[]).unwrap()
    }

    /// An answer to a request with further headers.
    pub(crate) fn get_with(&mut self, path: &str, headers: &[&str]) -> Answer {
        self.scraper.get(path, headers).unwrap()
    }

    /// The first page on which something is so. Ends the test with the last page when it never is.
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&Page) -> bool) -> Page {
        let start = now();
        loop {
            let answer = self.get("/metrics");
            let text = answer.text().unwrap();
            // Before the first tick there is no page, and says so.
            let page = (answer.status == 200).then(|| Page::parse(&text).unwrap());
            if let Some(page) = page.filter(&is_so) {
                return page;
            }
            assert!(start.elapsed() < PATIENCE, "never: {what}\nstatus {}\n{text}", answer.status);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The page of `first`, or of a later moment, and one at least so many seconds after it by the agent's own word: between them it never paused
    /// so long that it counted nothing, as it may on a machine that has no time for it.
    pub(crate) fn without_gap(&mut self, first: Page, seconds: f64) -> (Page, Page) {
        let (mut first, mut last) = (first.clone(), first);
        while sampled(&last) < sampled(&first) + seconds {
            let next = self.until("it goes on", |page| sampled(page) > sampled(&last));
            if sampled(&next) > sampled(&last) + PAUSE {
                first = next.clone();
            }
            last = next;
        }
        (first, last)
    }

    /// The first answer of `path` that is so.
    pub(crate) fn answer_until(&mut self, path: &str, what: &str, is_so: impl Fn(&Answer) -> bool) -> Answer {
        let start = now();
        loop {
            let answer = self.get(path);
            if is_so(&answer) {
                return answer;
            }
            assert!(start.elapsed() < PATIENCE, "never: {what}\nstatus {}\n{}", answer.status, answer.text().unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Asks until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test that waits for the real agent has to give up at some time")]
fn now() -> Instant {
    Instant::now()
}

/// When GPU 0 was read last, by the agent's word.
pub(crate) fn sampled(page: &Page) -> f64 {
    page.value("gpu_device_last_sample_timestamp_seconds", &[("gpu", "0")]).unwrap()
}

/// A pod with a whole GPU.
pub(crate) fn holder(pod_name: &str, gpu: u32) -> PodResources {
    pod("ml", pod_name, "main", &[("nvidia.com/gpu", &[gpu_uuid(gpu).as_str()])])
}

/// A pod with one replica of a shared GPU.
pub(crate) fn sharer(pod_name: &str, gpu: u32, replica: u32) -> PodResources {
    pod("ml", pod_name, "main", &[("nvidia.com/gpu", &[format!("{}::{replica}", gpu_uuid(gpu)).as_str()])])
}

/// The container `main` of a pod in namespace `ml`.
pub(crate) fn main_of(pod_name: &str) -> Container {
    Container::new("ml", pod_name, "main")
}

/// A process of that container, on the host's side.
pub(crate) fn runs(host: &Host, pid: u32, container: &Container) {
    // A container may have several processes; it starts once.
    let _ = host.container(container);
    host.process(pid, container, Cgroup::Systemd).unwrap();
}

/// A process with a moving load.
pub(crate) fn moving(pid: u32, low: f64, high: f64, period_s: f64) -> Process {
    use windlass_tests::nvml::{Curve, Shape};
    let sm = Curve::Shape(Shape::Square { low, high, period_s, duty: 0.5 });
    Process { sm, ..Process::new(pid, 0.0, 1_000) }
}

/// The wall clock, seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the fake's events have wall times")]
pub(crate) fn unix() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}
