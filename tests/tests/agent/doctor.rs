//! `doctor` and `--once` on faked nodes: a healthy one, and one where everything is missing.

use windlass_agent::config::Config;
use windlass_agent::doctor::{Grade, Report, examine};
use windlass_agent::once::once;
use windlass_tests::kubelet::Kubelet;
use windlass_tests::metadata::{Cloud, Metadata, Trouble};
use windlass_tests::nvml::{AnswerName, Fault, Gpus, Mig, ModelName, Process, Profile};
use windlass_tests::proc::Host;

use crate::agent::node::{holder, main_of, runs};

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

struct World {
    config: Config,
    gpus: Gpus,
    profile: Profile,
    _host: Host,
    _kubelet: Kubelet,
}

fn world() -> World {
    let mut profile = Profile::idle(ModelName::H100, 2);
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 1_000)];
    let (gpus, host) = (Gpus::new(&profile).unwrap(), Host::new().unwrap());
    runs(&host, 100, &main_of("a"));
    host.host_process(1, "systemd").unwrap();
    let kubelet = Kubelet::start(host.root()).unwrap();
    kubelet.set_pods(vec![holder("a", 0)]);
    let config = Config {
        nvml_library: Some(gpus.library()),
        kubelet_socket: Some(kubelet.socket().to_owned()),
        host_proc: host.proc(),
        host_logs: host.logs(),
        ..Config::default()
    };
    World { config, gpus, profile, _host: host, _kubelet: kubelet }
}

fn grade(report: &Report, about: &str) -> Grade {
    report.findings.iter().find(|finding| finding.about == about).unwrap_or_else(|| panic!("{about}\n{report}")).grade
}

#[test]
fn a_healthy_node_has_nothing_to_mend() {
    let mut world = world();
    world.profile.count = 3;
    world.profile.gpu(2).mig = Some(vec![Mig::new("1g.10gb", 7), Mig::new("3g.40gb", 2)]);
    world.gpus.set(&world.profile).unwrap();
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    world.config.metadata = Some(metadata.endpoint().parse().unwrap());
    let report = wait(examine(&world.config)).unwrap();
    assert!(!report.is_ill(), "{report}");
    for about in ["NVML", "GPU 0", "GPU 1", "kubelet", "process ids", "cgroups", "names", "cloud", "port"] {
        assert_eq!(grade(&report, about), Grade::Ok, "{about}\n{report}");
    }
    let text = report.to_string();
    assert!(text.contains("H100") && text.contains("libnvidia-ml.so.1") && text.contains("580.95.05"), "{text}");
    assert!(text.contains("MIG with 2 instances") && text.contains("ec2: notices"), "{text}");
    assert!(text.contains("1 container with a GPU") && text.contains("1 of 1 processes"), "{text}");
    let mut out = Vec::new();
    wait(once(&world.config, false, &mut out)).unwrap();
    let table = String::from_utf8(out).unwrap();
    assert!(table.contains("ml/a/main") && table.contains("60 %") && table.contains("free"), "{table}");
    let mut out = Vec::new();
    wait(once(&world.config, true, &mut out)).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["gpus"][0]["containers"][0]["utilization"], 60.0, "{json:#}");
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let mut world = world();
    world.profile.faults = vec![Fault::of_gpu(1, AnswerName::GpuIsLost)];
    world.gpus.set(&world.profile).unwrap();
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    metadata.trouble(Trouble::HopLimit);
    world.config.metadata = Some(metadata.endpoint().parse().unwrap());
    let nowhere = world.gpus.folder().join("nowhere");
    world.config.kubelet_socket = Some(nowhere.join("kubelet.sock"));
    world.config.host_proc = nowhere.clone();
    world.config.web_config_file = Some(nowhere.join("web.yaml"));
    let counters = world.gpus.folder().join("counters.csv");
    std::fs::write(&counters, "nonsense\n").unwrap();
    world.config.collectors = Some(counters);
    let report = wait(examine(&world.config)).unwrap();
    for about in ["GPU 1", "process ids", "web config", "counters", "cloud"] {
        assert_eq!(grade(&report, about), Grade::Mend, "{about}\n{report}");
    }
    assert_eq!(grade(&report, "GPU 0"), Grade::Ok, "one lost GPU is one");
    for finding in report.findings.iter().filter(|finding| finding.grade != Grade::Ok) {
        assert!(!finding.remedy.is_empty(), "{finding:?}");
    }
    world.profile.faults = vec![Fault::hang(&["nvmlDeviceGetCount_v2"], None)];
    world.gpus.set(&world.profile).unwrap();
    let report = wait(examine(&world.config)).unwrap();
    assert_eq!(grade(&report, "NVML"), Grade::Mend, "{report}");
    assert!(report.to_string().contains("did not answer within"), "{report}");
    world.config.nvml_library = Some(nowhere.join("libnvidia-ml.so.1"));
    let report = wait(examine(&world.config)).unwrap();
    assert!(report.is_ill() && grade(&report, "NVML") == Grade::Mend, "{report}");
    assert!(report.to_string().contains("nowhere/libnvidia-ml.so.1"), "{report}");
    let error = wait(once(&world.config, false, &mut Vec::new())).unwrap_err();
    assert!(error.to_string().contains("windlass-agent doctor"), "{error}");
}

#[test]
fn a_container_without_its_devices_is_told_so_whichever_way_the_driver_says_it() {
    for (calls, answer, about) in [
        // What `systemctl daemon-reload` leaves: the library opens, or it does not, and nothing says why.
        (["nvmlDeviceGetHandleByIndex_v2"], AnswerName::Unknown, "GPUs"),
        (["nvmlInit_v2"], AnswerName::Unknown, "NVML"),
        (["nvmlInit_v2"], AnswerName::OperatingSystem, "NVML"),
        (["nvmlInit_v2"], AnswerName::NoPermission, "NVML"),
    ] {
        let mut world = world();
        world.config.kubelet_socket = None;
        world.profile.faults = vec![Fault::of_calls(&calls, answer)];
        world.gpus.set(&world.profile).unwrap();
        let report = wait(examine(&world.config)).unwrap();
        let finding =
            report.findings.iter().find(|finding| finding.about == about).unwrap_or_else(|| panic!("{report}"));
        assert_eq!(finding.grade, Grade::Mend, "{report}");
        assert!(finding.remedy.contains("/dev/nvidia*") && finding.remedy.contains("daemon-reload"), "{report}");
        assert!(!report.to_string().contains("nothing to do"), "{report}");
    }
}
