//! A real Prometheus scrapes the real agent, in each way it can; promtool reads every line of the page.

use serde_json::json;
use windlass_agent::config::DcgmNames;
use windlass_agent::families;
use windlass_tests::certificates::Mutual;
use windlass_tests::nvml::{ModelName, Process, Profile};
use windlass_tests::prometheus::{Prometheus, job, lint};
use windlass_tests::scrape::Series;

use crate::agent::node::{Node, holder, main_of, runs, sharer};

fn busy() -> Profile {
    let mut profile = Profile::idle(ModelName::H100, 2);
    profile.gpu(0).processes = vec![Process::new(100, 75.0, 40_000)];
    profile.gpu(1).processes = vec![Process::new(200, 30.0, 8_000)];
    profile
}

fn node(settings: impl FnOnce(&mut windlass_agent::config::Config)) -> Node {
    let pods = vec![holder("trainer", 0), sharer("left", 1, 0), sharer("right", 1, 1)];
    let world = |host: &windlass_tests::proc::Host| {
        runs(host, 100, &main_of("trainer"));
        runs(host, 200, &main_of("left"));
    };
    Node::configured(&busy(), pods, world, |config, _| settings(config))
}

fn one(series: &[Series], value: f64) -> bool {
    matches!(series, [series] if (series.value - value).abs() < 0.01)
}

#[test]
fn promtool_finds_fault_only_with_names_that_dcgm_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counters.csv");
    let dcgm = families::table().chain(families::further()).filter(|family| family.name.starts_with("DCGM_"));
    let every = dcgm.map(|family| format!("{}, {}, \"A \"\"\\help\"\"\"\n", family.name, family.kind.word()));
    std::fs::write(&file, every.collect::<String>()).unwrap();
    let modes =
        [(DcgmNames::Off, false), (DcgmNames::Compat, false), (DcgmNames::V46, false), (DcgmNames::Compat, true)];
    for (names, by_file) in modes {
        let mut node = node(|config| {
            config.dcgm_names = names;
            config.collectors = by_file.then(|| file.clone());
        });
        let page =
            node.until("all is measured", |page| page.value("gpu_utilization", &[("pod", "left")]) == Some(30.0));
        assert_eq!(page.select("DCGM_FI_DEV_FB_TOTAL", &[]).is_empty(), !by_file, "the file chooses");
        let said = lint(&node.get("/metrics").text().unwrap()).unwrap();
        let ours: Vec<_> = said.lines().filter(|line| !line.starts_with("DCGM_")).collect();
        assert!(ours.is_empty(), "{names:?}: {ours:#?}");
        assert!(names != DcgmNames::Off || said.is_empty(), "{said}");
    }
}

#[test]
fn prometheus_scrapes_openmetrics_and_keeps_our_labels() {
    let node = node(|_| ());
    let prometheus = Prometheus::start(&[job("gpus", node.address(), &json!({}))], None).unwrap();
    prometheus.until(r#"gpu_utilization{namespace="ml",pod="trainer"}"#, |series| one(series, 75.0)).unwrap();
    prometheus.until(r#"sum(DCGM_FI_DEV_GPU_UTIL{gpu="1"})"#, |series| one(series, 30.0)).unwrap();
    prometheus.until("windlass_agent_ticks_total > 1", |series| series.len() == 1).unwrap();
    let energy = prometheus.query("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION").unwrap();
    assert_eq!(energy.len(), 2, "a counter without _total keeps its name: {energy:?}");
    let kinds = prometheus.get("/api/v1/targets/metadata?metric=windlass_agent_ticks").unwrap();
    let kinds = if kinds == json!([]) {
        prometheus.get("/api/v1/targets/metadata?metric=windlass_agent_ticks_total").unwrap()
    } else {
        kinds
    };
    assert_eq!(kinds[0]["type"], "counter", "{kinds}");
    let targets = prometheus.get("/api/v1/targets").unwrap();
    assert_eq!(targets["activeTargets"][0]["lastError"], "", "{targets:#}");
}

#[test]
fn prometheus_scrapes_over_mtls_with_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let made = Mutual::new(folder.path()).unwrap();
    let hash = bcrypt::hash_with_salt("sesame", 4, [7; 16]).unwrap();
    let web = folder.path().join("web.yaml");
    let text = format!(
        "tls_server_config: {{cert_file: server.crt, key_file: server.key, client_ca_file: authority.crt, \
         client_auth_type: RequireAndVerifyClientCert, min_version: TLS13}}\nbasic_auth_users: {{prometheus: {hash}}}\n"
    );
    std::fs::write(&web, text).unwrap();
    let node = node(|config| config.web_config_file = Some(web.clone()));
    let tls = json!({
        "ca_file": made.authority, "cert_file": made.client.certificate, "key_file": made.client.key,
        "server_name": "localhost",
    });
    let with = |password: &str| {
        json!({
            "scheme": "https", "tls_config": tls,
            "basic_auth": {"username": "prometheus", "password": password},
        })
    };
    let jobs = [
        job("right", node.address(), &with("sesame")),
        job("wrong", node.address(), &with("guess")),
        job("plain", node.address(), &json!({})),
    ];
    let prometheus = Prometheus::start(&jobs, None).unwrap();
    prometheus.until(r#"gpu_utilization{pod="trainer"}"#, |series| one(series, 75.0)).unwrap();
    prometheus.until("up == 0", |series| series.len() == 2).unwrap();
    let targets = prometheus.get("/api/v1/targets").unwrap();
    let error = |job: &str| {
        let of = |target: &&serde_json::Value| target["labels"]["job"] == job;
        targets["activeTargets"].as_array().unwrap().iter().find(of).unwrap()["lastError"].as_str().unwrap().to_owned()
    };
    assert_eq!(error("right"), "");
    assert!(error("wrong").contains("401"), "{}", error("wrong"));
}
