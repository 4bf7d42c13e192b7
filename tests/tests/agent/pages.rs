//! What the agent serves, as programs of others read it: whole pages held against golden files, dashboards' names, compression, `/usage`.

use std::path::Path;

use serde_json::Value;
use windlass_agent::config::DcgmNames;
use windlass_tests::kubelet::pod;
use windlass_tests::nvml::{Kind, Mig, ModelName, Process, Profile, gpu_uuid, mig_uuid};
use windlass_tests::scrape::Page;

use crate::agent::node::{Node, holder, main_of, runs, sharer};

/// A machine on which nothing moves: an exclusive GPU, a shared one, a partitioned one, an idle one.
fn still() -> Profile {
    let mut profile = Profile::idle(ModelName::H100, 4);
    profile.gpu(0).processes = vec![Process::new(100, 75.0, 40_000)];
    profile.gpu(1).processes = vec![
        Process::new(200, 30.0, 8_000),
        Process { kind: Kind::Mps, ..Process::new(300, 20.0, 4_000) },
        Process { kind: Kind::Graphics, ..Process::new(900, 10.0, 100) },
    ];
    profile.gpu(2).mig = Some(vec![Mig::new("2g.20gb", 3)]);
    profile.gpu(2).processes = vec![Process { gpu_instance: Some(3), ..Process::new(400, 50.0, 12_000) }];
    for (gpu, millijoules) in [(0, 5_000_000), (1, 4_000_000), (2, 3_000_000), (3, 2_000_000)] {
        profile.gpu(gpu).energy_mj = Some(millijoules);
    }
    profile
}

fn still_node(names: DcgmNames) -> Node {
    let sliced = pod("ml", "sliced", "main", &[("nvidia.com/mig-2g.20gb", &[mig_uuid(2, 3, 0).as_str()])]);
    let pods = vec![holder("trainer", 0), sharer("left", 1, 0), sharer("right", 1, 1), sliced];
    let world = |host: &windlass_tests::proc::Host| {
        for (pid, name) in [(100, "trainer"), (200, "left"), (300, "right"), (400, "sliced")] {
            runs(host, pid, &main_of(name));
        }
        host.host_process(900, "Xorg").unwrap();
    };
    Node::configured(&still(), pods, world, |config, _| config.dcgm_names = names)
}

/// Everything is measured and the sampling windows hold nothing but this machine's load.
fn settled(page: &Page) -> bool {
    let is = |pod, value| page.value("gpu_utilization", &[("pod", pod)]) == Some(value);
    is("trainer", 75.0)
        && is("left", 30.0)
        && is("right", 20.0)
        && page.value("windlass_agent_pods_age_seconds", &[]).is_some()
        && page.select("gpu_mig_sm_active_ratio", &[]).len() == 1
}

/// Lines whose value is time or a count of what happened so far: the name and labels stay, the value is left out.
fn without_time(text: &str) -> String {
    let moves = |line: &str| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let grows = name.ends_with("_total")
            && !name.contains("DCGM")
            && !name.contains("device_energy")
            && !name.contains("ecc");
        grows
            || name.contains("timestamp")
            || name.contains("age_seconds")
            || name.contains("duration")
            || name.contains("_build_info")
            || name == "windlass_agent_series"
    };
    let line = |line: &str| {
        if line.starts_with('#') || !moves(line) {
            return line.to_owned();
        }
        line.rsplit_once(' ').map_or_else(|| line.to_owned(), |(series, _)| format!("{series} …"))
    };
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    text.lines().map(line).map(|line| line.replace(&version, "version=\"…\"") + "\n").collect()
}

/// Holds a text against a file, and asks for it again while it differs: on a crowded machine a reading may come too late for a page.
/// `UPDATE_EXPECT=1` writes the file instead.
fn check(name: &str, mut ask: impl FnMut() -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    let mut text = ask();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expect = std::fs::read_to_string(&path).unwrap_or_default();
    for _ in 0..100 {
        if expect == text {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        text = ask();
    }
    let differs = expect.lines().zip(text.lines()).find(|(expect, text)| expect != text);
    assert!(
        expect == text,
        "{} differs, first at {differs:?}; UPDATE_EXPECT=1 takes the new one\n{text}",
        path.display()
    );
}

fn golden(name: &str, names: DcgmNames) {
    let mut node = still_node(names);
    node.until("all is measured", settled);
    check(name, || without_time(&node.get("/metrics").text().unwrap()));
}

#[test]
fn the_whole_page_of_a_still_machine() {
    golden("still.prom", DcgmNames::Compat);
}

#[test]
fn the_whole_page_with_the_names_of_dcgm_4_6() {
    golden("still-4.6.prom", DcgmNames::V46);
}

#[test]
fn grafana_12239_finds_its_series() {
    let mut node = still_node(DcgmNames::Compat);
    let page = node.until("all is measured", settled);
    for name in [
        "GPU_TEMP",
        "POWER_USAGE",
        "SM_CLOCK",
        "GPU_UTIL",
        "FB_USED",
        "FB_FREE",
        "MEM_COPY_UTIL",
        "TOTAL_ENERGY_CONSUMPTION",
        "PROF_PIPE_TENSOR_ACTIVE",
    ] {
        let name = if name.starts_with("PROF") { format!("DCGM_FI_{name}") } else { format!("DCGM_FI_DEV_{name}") };
        let series = page.select(&name, &[("gpu", "0")]);
        assert_eq!(series.len(), 1, "{name}: one series for a GPU that one container holds");
        let labels = &series[0].labels;
        for (label, value) in [
            ("gpu", "0"),
            ("UUID", gpu_uuid(0).as_str()),
            ("device", "nvidia0"),
            ("modelName", "NVIDIA H100 80GB HBM3"),
            ("Hostname", "node-a"),
            ("namespace", "ml"),
            ("pod", "trainer"),
            ("container", "main"),
        ] {
            assert_eq!(labels.get(label).map(String::as_str), Some(value), "{name} {label}");
        }
    }
}

#[test]
fn a_page_is_compressed_when_asked_for() {
    let mut node = still_node(DcgmNames::Compat);
    node.until("all is measured", settled);
    let plain = node.get("/metrics");
    assert_eq!(plain.headers.get("content-encoding"), None);
    assert_eq!(plain.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let packed = node.get_with("/metrics", &["Accept-Encoding: gzip"]);
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() * 3 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
    let (plain, packed) = (Page::parse(&plain.text().unwrap()).unwrap(), Page::parse(&packed.text().unwrap()).unwrap());
    let names =
        |page: &Page| page.series.iter().map(|series| (series.name.clone(), series.labels.clone())).collect::<Vec<_>>();
    assert_eq!(names(&plain), names(&packed));
}

#[test]
fn feature_58_usage_tells_a_provider_windows_owners_and_activity() {
    let mut node = still_node(DcgmNames::Compat);
    node.until("all is measured", settled);
    let usage: Value = serde_json::from_str(&node.get("/usage").text().unwrap()).unwrap();
    assert_eq!(usage["node"], "node-a");
    assert_eq!(usage["problem"], Value::Null);
    let gpus = usage["gpus"].as_array().unwrap();
    assert_eq!(gpus.len(), 4);
    let (exclusive, shared, divided, idle) = (&gpus[0], &gpus[1], &gpus[2], &gpus[3]);
    for window in ["1m", "5m", "15m"] {
        assert_eq!(exclusive["windows"][window]["avg"], 75.0, "{window}");
        assert_eq!(exclusive["windows"][window]["max"], 75.0, "{window}");
        assert_eq!(idle["windows"][window]["max"], 0.0, "{window}");
        assert_eq!(divided["windows"][window], Value::Null, "not measured is null: {window}");
    }
    assert_eq!(exclusive["owners"][0]["pod"], "trainer");
    assert!(exclusive["last_activity"].is_f64());
    assert_eq!(idle["last_activity"], Value::Null);
    assert_eq!(idle["owners"], serde_json::json!([]));
    assert_eq!(shared["owners"].as_array().unwrap().len(), 2);
    assert_eq!(divided["owners"][0]["mig_uuid"], mig_uuid(2, 3, 0));
}

#[test]
fn there_is_a_page_for_people_and_nothing_else_is_found() {
    let mut node = still_node(DcgmNames::Compat);
    node.answer_until("/readyz", "ready", |answer| answer.status == 200);
    let landing = node.get("/");
    assert_eq!(landing.status, 200);
    let text = landing.text().unwrap();
    assert!(text.contains("NVIDIA H100 80GB HBM3") && text.contains("ml/trainer"), "{text}");
    for path in ["/metrics", "/usage", "/readyz", "/healthz"] {
        assert!(landing.text().unwrap().contains(path), "{path}");
    }
    assert_eq!(node.get("/nothing").status, 404);
    assert_eq!(node.get("/healthz").status, 200);
}
