//! The agent as it is shipped: the binary with the rights that its manifest gives it, and the files under `deploy/`.
//! Linux user namespaces stand in for a container, so that no root is needed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use windlass_tests::kubelet::Kubelet;
use windlass_tests::nvml::{Gpus, ModelName, Process, Profile};
use windlass_tests::port::Port;
use windlass_tests::proc::Host;
use windlass_tests::program::{self, Agent};
use windlass_tests::prometheus::{Prometheus, job};
use windlass_tests::scrape::{Page, Scraper};

use crate::agent::node::{holder, main_of, runs, until};

/// The binary in something like its container, on a node with eight GPUs of which one is held.
struct Confined {
    agent: Agent,
    /// Its own, also while it is not there.
    port: Port,
    // Goes after the agent.
    world: (Gpus, Kubelet, Host, tempfile::TempDir),
}

/// Root without a single capability, with no way to gain one, and nowhere to write.
const CONTAINER: &str = r#"mount --rbind / "$0" && mount -o remount,bind,ro "$0" &&
    exec chroot "$0" setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@""#;

impl Confined {
    fn start() -> Self {
        let mut profile = Profile::idle(ModelName::H100, 8);
        profile.gpu(0).processes = vec![Process::new(100, 75.0, 40_000)];
        let (gpus, host, root) = (Gpus::new(&profile).unwrap(), Host::new().unwrap(), tempfile::tempdir().unwrap());
        let kubelet = Kubelet::start(host.root()).unwrap();
        kubelet.set_pods(vec![holder("trainer", 0)]);
        runs(&host, 100, &main_of("trainer"));
        let world = (gpus, kubelet, host, root);
        let port = Port::hold().unwrap();
        Self { agent: spawn(&world, port.address()), port, world }
    }

    /// The agent is killed; after this long another one is there, at the same address.
    fn restart(&mut self, after: std::time::Duration) {
        self.agent.kill();
        std::thread::sleep(after);
        self.agent = spawn(&self.world, self.port.address());
    }

    fn until(&self, what: &str, is_so: impl Fn(&Page) -> bool) -> Page {
        let mut scraper = Scraper::connect(self.port.address()).unwrap();
        for _ in 0..1_200 {
            let answer = scraper.get("/metrics", &[]).unwrap();
            if answer.status == 200 {
                let page = Page::parse(&answer.text().unwrap()).unwrap();
                if is_so(&page) {
                    return page;
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("never: {what}");
    }

    /// A line of `/proc/<pid>/status`.
    fn status(&self, name: &str) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.agent.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }
}

/// Starts the binary; it listens.
fn spawn((gpus, kubelet, host, root): &(Gpus, Kubelet, Host, tempfile::TempDir), listen: SocketAddr) -> Agent {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", CONTAINER]).arg(root.path());
    command.arg(program::agent().unwrap()).args(["--listen", &listen.to_string(), "--node-name", "node-a"]);
    command.arg("--nvml-library").arg(gpus.library()).arg("--kubelet-socket").arg(kubelet.socket());
    command.arg("--host-proc").arg(host.proc()).arg("--host-logs").arg(host.logs());
    Agent::start(command.args(["--metadata-endpoint", ""])).expect("unshare (util-linux)")
}

#[test]
fn a_file_that_never_answers_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counters.csv");
    std::fs::write(&file, "DCGM_FI_DEV_GPU_TEMP, gauge, C.\n").unwrap();
    let mut command = Command::new(program::agent().unwrap());
    command.args(["--listen", "127.0.0.1:0", "--kubelet-socket", "", "--metadata-endpoint", ""]);
    let mut agent = Agent::start(command.arg("--collectors").arg(&file)).unwrap();
    // A pipe that somebody could write to, and never does, stands in for a file on a network that is down.
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _writer = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    std::fs::rename(&pipe, &file).unwrap();
    let open = format!("/proc/{}/fd", agent.id());
    until("the agent reads it", || {
        let files = std::fs::read_dir(&open).unwrap().flatten();
        files.filter_map(|it| std::fs::read_link(it.path()).ok()).any(|it| it == file)
    });
    agent.signal("TERM").unwrap();
    until("the agent has ended", || agent.ended().unwrap().is_some());
}

#[test]
fn feature_50_a_hangup_has_the_files_read_again_and_ends_nothing() {
    let gpus = Gpus::new(&Profile::idle(ModelName::T4, 1)).unwrap();
    let file = gpus.folder().join("agent.yaml");
    std::fs::write(&file, "node-name: first\n").unwrap();
    let mut command = Command::new(program::agent().unwrap());
    command.args(["--listen", "127.0.0.1:0", "--kubelet-socket", "", "--metadata-endpoint", ""]);
    command.arg("--nvml-library").arg(gpus.library()).env("WINDLASS_CONFIG", &file);
    let mut agent = Agent::start(&mut command).unwrap();
    let mut scraper = Scraper::connect(agent.address).unwrap();
    let mut named = |name: &str| {
        until(name, || {
            let answer = scraper.get("/metrics", &[]).unwrap();
            let page = (answer.status == 200).then(|| Page::parse(&answer.text().unwrap()).unwrap());
            page.is_some_and(|page| page.value("gpu_device_up", &[("node", name)]) == Some(1.0))
        });
    };
    named("first");
    for name in ["second", "third"] {
        std::fs::write(&file, format!("node-name: {name}\n")).unwrap();
        agent.signal("HUP").unwrap();
        named(name);
    }
    assert!(agent.ended().unwrap().is_none());
}

#[test]
fn feature_63_the_fake_library_shows_a_machine_without_gpus_what_others_have() {
    let mut command = Command::new(program::agent().unwrap());
    command.args(["--once", "--json", "--kubelet-socket", "", "--metadata-endpoint", "", "--nvml-library"]);
    command.arg(windlass_tests::nvml::library_path().unwrap()).env_clear().env("FAKE_NVML_PROFILE", "8xH100");
    let out = command.stdin(Stdio::null()).output().unwrap();
    let seen: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"));
    let gpus = seen["gpus"].as_array().unwrap();
    assert_eq!(gpus.len(), 8);
    assert!(gpus.iter().all(|gpu| gpu["model"] == "NVIDIA H100 80GB HBM3"), "{seen:#}");
}

#[test]
fn what_is_wrong_in_the_environment_is_said_by_the_name_of_the_variable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.yaml");
    std::fs::write(&file, "sample-interval: 2h\n").unwrap();
    let file = file.to_str().unwrap();
    // A variable, the flags, what is said of it.
    let table: &[(&str, &str, &[&str], &[&str])] = &[
        ("WINDLASS_SAMPLE_INTERVAL", "2h", &[], &["WINDLASS_SAMPLE_INTERVAL: ", "'2h'", "500ms, 1s or 1m", "unset"]),
        ("WINDLASS_DCGM_NAMES", "new", &["doctor"], &["WINDLASS_DCGM_NAMES: ", "'new'", "compat, 4.6, off"]),
        ("WINDLASS_POD_UID", "1", &[], &["WINDLASS_POD_UID: ", "'1'", "true, false"]),
        ("WINDLASS_LISTEN", "", &["--once"], &["WINDLASS_LISTEN: ", "0.0.0.0:9400"]),
        ("WINDLASS_REBALANCE_HOLD", "1 day", &["--once"], &["WINDLASS_REBALANCE_HOLD: ", "'1 day'", "from 1m to 24h"]),
        ("WINDLASS_CONFIG", file, &[], &["WINDLASS_CONFIG ", file, "'2h'", "sample-interval", "500ms, 1s or 1m"]),
        ("WINDLASS_MAX_SERIES", "0", &["--listen", "here"], &["'here'", "--listen", "0.0.0.0:9400"]),
    ];
    for (variable, value, flags, expect) in table {
        let mut command = Command::new(program::agent().unwrap());
        let out = command.env_clear().env(variable, value).args(*flags).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{variable}: {said}");
        assert!(expect.iter().all(|part| said.contains(part)), "{variable}={value}: {said}");
    }
}

#[test]
fn feature_49_everything_is_read_without_capabilities_on_a_read_only_root() {
    let agent = Confined::start();
    agent.until("the pod's use, and the kubelet's word", |page| {
        page.value("gpu_utilization", &[("pod", "trainer")]) == Some(75.0)
            && page.value("windlass_agent_kubelet_up", &[]) == Some(1.0)
    });
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(agent.status(set), "0000000000000000", "{set}");
    }
    assert_eq!(agent.status("NoNewPrivs"), "1");
}

#[test]
fn feature_49_the_manifest_gives_no_more_than_that() {
    let container = &daemon_set()["spec"]["template"]["spec"]["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(
        security["capabilities"],
        serde_json::json!({"drop": ["ALL"]}),
        "nothing is added, SYS_ADMIN least of all"
    );
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert!(security["privileged"].is_null());
    for mount in container["volumeMounts"].as_array().unwrap() {
        assert_eq!(mount["readOnly"], true, "{mount}");
    }
}

#[test]
fn feature_16_a_killed_agent_is_a_counter_reset_and_invents_no_time() {
    let mut agent = Confined::start();
    let prometheus = Prometheus::start(&[job("gpus", agent.port.address(), &json!({}))], None).unwrap();
    let (used, given) = ("container_gpu_usage_seconds_total", "container_gpu_allocated_seconds_total");
    let scraped = |times: usize| {
        prometheus.until(&format!("count_over_time({used}[5m]) >= {times}"), |series| series.len() == 1).unwrap()
    };
    scraped(8);
    let gap = 5.0;
    agent.restart(std::time::Duration::from_secs_f64(gap));
    scraped(12);
    // By the time of the scrape, in milliseconds.
    let scrapes = |series: &str| -> BTreeMap<i64, f64> {
        let data = prometheus.get(&format!("/api/v1/query?query={series}%5B5m%5D")).unwrap();
        let values = data["result"][0]["values"].as_array().unwrap().iter();
        let value = |pair: &Value| pair[1].as_str().unwrap().parse().unwrap();
        values.map(|pair| ((pair[0].as_f64().unwrap() * 1000.0).round() as i64, value(pair))).collect()
    };
    // When the agent looked, by its own word: however late a scrape is, this goes with the numbers beside it.
    let looked = scrapes("gpu_device_last_sample_timestamp_seconds%7Bgpu%3D%220%22%7D");
    for (name, share) in [(used, 0.75), (given, 1.0)] {
        assert_eq!(prometheus.query(&format!("resets({name}[5m]) == 1")).unwrap().len(), 1, "{name}");
        let samples: Vec<(f64, f64)> =
            scrapes(name).into_iter().filter_map(|(at, value)| Some((*looked.get(&at)?, value))).collect();
        for pair in samples.windows(2) {
            let ((from, before), (to, after)) = (pair[0], pair[1]);
            let (grown, most) = if after < before { (after, to - from - gap) } else { (after - before, to - from) };
            assert!(grown <= share * most + 0.1, "{name}: {grown} in {most} s of watching: {samples:?}");
        }
    }
    let (part, whole) = ("container_gpu_energy_joules_total", r#"gpu_device_energy_joules_total{gpu="0"}"#);
    let bounded = format!("sum(increase({part}[5m])) < sum(increase({whole}[5m]))");
    assert_eq!(prometheus.query(&bounded).unwrap().len(), 1, "joules of the gap are nobody's");
}

#[test]
fn feature_60_what_it_allocates_leaves_room_for_its_code_in_20_megabytes() {
    let agent = Confined::start();
    agent.until("some ticks", |page| page.value("windlass_agent_ticks_total", &[]) > Some(5.0));
    let own: u64 = agent.status("RssAnon").trim_end_matches(" kB").parse().unwrap();
    // The code of this build is unoptimised and several times the shipped one's; the bench has that one's whole size.
    assert!(own < 8_000, "{own} kB");
}

#[test]
fn feature_61_the_binary_needs_the_loader_of_glibc_and_the_image_has_it() {
    let binary = std::fs::read(program::agent().unwrap()).unwrap();
    let head = String::from_utf8_lossy(&binary[..4096]).into_owned();
    assert!(head.contains("/ld-linux"), "not dynamic, or not glibc: it could not load the driver's library");
    let dockerfile = include_str!("../../../deploy/images/Dockerfile");
    let stage = dockerfile.lines().find(|line| line.ends_with(" AS agent")).unwrap();
    assert!(stage.contains("debian") && !stage.contains("--platform"), "{stage}");
    for word in ["amd64", "x86_64", "arm64", "aarch64", "musl"] {
        assert!(
            !dockerfile.lines().any(|line| !line.starts_with('#') && line.contains(word)),
            "one architecture: {word}"
        );
    }
}

#[test]
fn feature_62_the_monitor_scrapes_the_port_that_the_pods_have_and_keeps_their_labels() {
    let monitors = documents(include_str!("../../../deploy/kubernetes/prometheus-operator/podmonitors.yaml"));
    let monitor = monitors.iter().find(|monitor| monitor["metadata"]["name"] == "windlass-agent").unwrap();
    let pods = daemon_set()["spec"]["template"].clone();
    let labels: BTreeMap<String, Value> = serde_json::from_value(pods["metadata"]["labels"].clone()).unwrap();
    for (name, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(labels.get(name), Some(value), "{name}");
    }
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["honorLabels"], true);
    let ports = pods["spec"]["containers"][0]["ports"].as_array().unwrap().clone();
    assert!(ports.iter().any(|port| port["name"] == endpoint["port"]), "{ports:?}");
}

fn daemon_set() -> Value {
    let documents = documents(include_str!("../../../deploy/kubernetes/agent.yaml"));
    documents.into_iter().find(|document| document["kind"] == "DaemonSet").unwrap()
}

fn documents(text: &str) -> Vec<Value> {
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}
