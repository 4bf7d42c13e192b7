//! What holds of the agent on any NVML: on our fake by default; `NVML_LIBRARY=/path/to/libnvidia-ml.so.1` has it read another: NVIDIA's mock, or a
//! real driver's. Nothing here knows what the library will say; `nvidia-ml-py` reads the same one beside the agent.

use std::path::PathBuf;

use serde_json::Value;
use windlass_agent::config::Config;
use windlass_agent::doctor::{Grade, examine};
use windlass_agent::families::{self, Kind};
use windlass_agent::once::once;
use windlass_tests::kubelet::pod;
use windlass_tests::nvml::{Gpus, Mig, ModelName, NvlinkCounters, Process, Profile};
use windlass_tests::opinion::{Opinion, Reader, library};
use windlass_tests::proc::Host;
use windlass_tests::prometheus::{Prometheus, job, lint};
use windlass_tests::scrape::Page;

use crate::agent::node::{Node, main_of, runs};

/// Where nobody names another library: of each generation one, busy, shared, divided and idle.
fn machine() -> Profile {
    let mut profile = Profile::idle(ModelName::H100, 4);
    profile.gpu(0).processes = vec![Process::new(100, 50.0, 8_000), Process::new(101, 25.0, 4_000)];
    profile.gpu(1).model = Some(ModelName::A100);
    profile.gpu(1).mig = Some(vec![Mig::new("1g.5gb", 7), Mig::new("3g.20gb", 2)]);
    profile.gpu(2).model = Some(ModelName::T4);
    profile.gpu(2).health.retired_pages = (3, 1);
    profile.gpu(3).health.remapped_rows = (2, 1);
    profile.gpu(3).health.recovery_action = 1;
    profile.gpu(3).virtualization = 1;
    profile.confidential = Some((true, false));
    profile.gpu(3).nvlink = NvlinkCounters::LinkBytes;
    profile
}

fn fake() -> (Gpus, PathBuf) {
    let gpus = Gpus::new(&machine()).unwrap();
    let library = library(&gpus);
    (gpus, library)
}

fn node(settings: impl FnOnce(&mut Config)) -> Node {
    Node::on_any(&machine(), settings)
}

fn some_ticks(page: &Page) -> bool {
    page.value("windlass_agent_ticks_total", &[]) >= Some(6.0)
}

/// What the others say there is.
fn opinion() -> Opinion {
    let (_gpus, library) = fake();
    Reader::start(&library).unwrap().finish().unwrap()
}

#[test]
fn the_agent_and_nvidia_ml_py_say_the_same_of_every_gpu() {
    let (_gpus, path) = fake();
    let reader = Reader::start(&path).unwrap();
    let mut node = node(|config| config.nvml_library = Some(path));
    let page = node.until("some ticks", some_ticks);
    let opinion = reader.finish().unwrap();
    let rows = opinion.compare(&page);
    let differs: Vec<_> = rows.iter().filter(|row| !row.agrees).collect();
    assert!(differs.is_empty(), "{differs:#?}");
    let told = rows.iter().filter(|row| row.theirs.is_some()).count();
    assert!(told >= 10 * opinion.devices.len(), "{told} series can be compared");
    assert_eq!(page.value("windlass_agent_driver_info", &[("version", &opinion.driver)]), Some(1.0));
    for device in &opinion.devices {
        let labels = [("uuid", device.uuid.as_str()), ("model", device.name.as_str())];
        assert_eq!(page.value("gpu_device_up", &labels), Some(1.0), "{device:?}");
    }
    assert_eq!(page.select("gpu_device_up", &[]).len(), opinion.devices.len());
}

#[test]
fn any_page_is_whole_and_within_its_units() {
    let mut node = node(|_| ());
    let earlier = node.until("some ticks", some_ticks);
    let page = node.until("more ticks", |page| page.value("windlass_agent_ticks_total", &[]) >= Some(12.0));
    for series in &page.series {
        let name = series.name.as_str();
        assert!(series.value.is_finite() && series.value >= 0.0, "{series:?}");
        let ratio = name.ends_with("_ratio") || name.starts_with("DCGM_FI_PROF_") && name.ends_with("_ACTIVE");
        assert!(!ratio || series.value <= 1.0, "{series:?}");
        let percent = name.starts_with("DCGM_FI_DEV_") && name.ends_with("_UTIL");
        assert!(!percent || series.value <= 100.0, "{series:?}");
    }
    for family in families::table().filter(|family| family.kind == Kind::Counter) {
        for before in earlier.select(family.name, &[]) {
            let labels: Vec<(&str, &str)> =
                before.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let after = page.value(family.name, &labels);
            assert!(after >= Some(before.value), "{before:?} fell to {after:?}");
        }
    }
    let said = lint(&node.get("/metrics").text().unwrap()).unwrap();
    let ours: Vec<_> = said.lines().filter(|line| !line.starts_with("DCGM_")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    let openmetrics = node.get_with("/metrics", &["Accept: application/openmetrics-text; version=1.0.0"]);
    assert!(openmetrics.text().unwrap().ends_with("# EOF\n"));
    assert_eq!(node.get("/readyz").status, 200);
    assert_eq!(node.get("/healthz").status, 200);
}

#[test]
fn any_library_is_asked_only_what_it_understands() {
    let mut node = node(|_| ());
    let page = node.until("some ticks", some_ticks);
    let calls = |call: &str| page.value("windlass_agent_nvml_calls_total", &[("call", call)]).unwrap_or(0.0);
    let gpus = page.select("gpu_device_up", &[]).len() as f64;
    for error in page.select("windlass_agent_nvml_errors_total", &[]) {
        let (call, cause) = (error.labels["call"].as_str(), error.labels["cause"].as_str());
        assert!(["not_supported", "no_permission", "function_not_found"].contains(&cause), "{call}: {cause}");
        assert!(error.value <= gpus * 8.0, "{call} is asked again and again: {} of {} calls", error.value, calls(call));
    }
}

#[test]
fn a_pod_that_holds_a_gpu_of_any_library_is_told_with_all_that_the_gpu_does() {
    let opinion = opinion();
    let held = opinion.devices.first().expect("a GPU");
    let holder = pod("ml", "holder", "main", &[("nvidia.com/gpu", &[held.uuid.as_str()])]);
    let world = |host: &Host| held.pids.iter().for_each(|pid| runs(host, *pid, &main_of("holder")));
    let settings = |config: &mut Config, gpus: &Gpus| config.nvml_library = Some(library(gpus));
    let mut node = Node::configured(&machine(), vec![holder], world, settings);
    let (gpu, share) = ([("uuid", held.uuid.as_str())], [("uuid", held.uuid.as_str()), ("pod", "holder")]);
    let page = node.until("the pod is known", |page| {
        some_ticks(page)
            && page.value("gpu_memory_used_bytes", &share).is_some()
            && page.value("gpu_device_holders", &gpu) == Some(1.0)
    });
    let dcgm = [("UUID", held.uuid.as_str()), ("pod", "holder"), ("namespace", "ml"), ("container", "main")];
    assert_eq!(page.value("DCGM_FI_DEV_GPU_TEMP", &dcgm), page.value("gpu_device_temperature_celsius", &gpu));
    let shared = page.value("gpu_utilization", &share).unwrap();
    let rest = page.value("gpu_device_unattributed_utilization_ratio", &gpu).unwrap() * 100.0;
    let whole = page.value("gpu_device_utilization_ratio", &gpu).unwrap() * 100.0;
    assert!((shared + rest - whole).abs() < 1e-6, "{shared} and {rest} of {whole}");
    let usage: Value = serde_json::from_str(&node.get("/usage").text().unwrap()).unwrap();
    assert_eq!(usage["gpus"].as_array().unwrap().len(), opinion.devices.len());
    assert_eq!(usage["gpus"][0]["owners"][0]["pod"], "holder");
}

#[test]
fn once_and_doctor_show_every_gpu_of_any_library() {
    let (_gpus, path) = fake();
    let opinion = opinion();
    let config = Config {
        nvml_library: Some(path),
        kubelet_socket: None,
        metadata: None,
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let show = |json| {
        let mut out = Vec::new();
        runtime.block_on(once(&config, json, &mut out)).unwrap();
        String::from_utf8(out).unwrap()
    };
    let (table, json) = (show(false), show(true));
    let json: Value = serde_json::from_str(&json).unwrap();
    let report = runtime.block_on(examine(&config)).unwrap();
    assert!(table.contains(&opinion.driver), "{table}");
    for (index, device) in opinion.devices.iter().enumerate() {
        assert!(table.contains(device.name.trim_start_matches("NVIDIA ")), "{table}");
        assert_eq!(json["gpus"][index]["uuid"], device.uuid.as_str());
        let about = format!("GPU {index}");
        let finding = report.findings.iter().find(|finding| finding.about == about).unwrap();
        assert_eq!(finding.grade, Grade::Ok, "{report}");
    }
}

#[test]
fn prometheus_scrapes_any_library() {
    let mut node = node(|_| ());
    let page = node.until("some ticks", some_ticks);
    let gpus = page.select("gpu_device_up", &[]).len() as f64;
    let prometheus = Prometheus::start(&[job("gpus", node.address(), &serde_json::json!({}))], None).unwrap();
    let count = |series: &[windlass_tests::scrape::Series]| matches!(series, [one] if (one.value - gpus).abs() < 0.5);
    prometheus.until("count(gpu_device_up == 1)", count).unwrap();
    prometheus.until("count(count by (gpu) (DCGM_FI_DEV_FB_FREE))", count).unwrap();
}
