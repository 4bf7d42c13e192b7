//! What others wrote against dcgm-exporter, asked unchanged of a real Prometheus that scrapes the real agent: the panels of dashboard 12239 in both its
//! ages, queries of KEDA scalers (those of public repositories: `public_rules.rs`). And what we hand out ourselves: alerts and a dashboard.

use serde_json::{Value, json};
use windlass_tests::kubelet::pod;
use windlass_tests::metadata::{Cloud, Metadata};
use windlass_tests::nvml::{AnswerName, Fault, Mig, ModelName, Process, Profile, mig_uuid};
use windlass_tests::prometheus::{Prometheus, check_rules, job};
use windlass_tests::scrape::Series;

use crate::agent::node::{Node, holder, main_of, runs, sharer};

/// GPU 0 is one trainer's; GPU 1 is shared by two, of which one idles; GPU 2 is in MIG instances, of which one is held.
fn profile() -> Profile {
    let mut profile = Profile::idle(ModelName::H100, 3);
    profile.gpu(0).processes = vec![Process::new(100, 75.0, 40_000)];
    profile.gpu(1).processes = vec![Process::new(200, 30.0, 8_000)];
    let instance = |gpu_instance, index| Mig {
        profile: "1g.10gb".to_owned(),
        gpu_instance,
        compute_instance: 0,
        index: Some(index),
        uuid: None,
        placement: None,
    };
    profile.gpu(2).mig = Some(vec![instance(7, 0), instance(8, 1)]);
    profile.gpu(2).processes = vec![Process { gpu_instance: Some(7), ..Process::new(300, 60.0, 2_000) }];
    profile
}

fn node(profile: &Profile, metadata: Option<&Metadata>) -> Node {
    let sliced = pod("ml", "sliced", "main", &[("nvidia.com/mig-1g.10gb", &[mig_uuid(2, 7, 0).as_str()])]);
    let pods = vec![holder("trainer", 0), sharer("left", 1, 0), sharer("right", 1, 1), sliced];
    let world = |host: &windlass_tests::proc::Host| {
        for (pid, name) in [(100, "trainer"), (200, "left"), (300, "sliced")] {
            runs(host, pid, &main_of(name));
        }
    };
    let endpoint = metadata.map(|metadata| metadata.endpoint().parse().unwrap());
    let mut node = Node::configured(profile, pods, world, |config, _| config.metadata = endpoint);
    node.until("all is measured", |page| page.value("gpu_utilization", &[("pod", "left")]) == Some(30.0));
    node
}

/// Asks each query until it has the values that are expected, as a set, give or take a hundredth.
fn check(prometheus: &Prometheus, queries: &[(&str, &[f64])]) {
    for (query, expect) in queries {
        let fits = |series: &[Series]| {
            let mut found: Vec<f64> = series.iter().map(|series| series.value).collect();
            found.sort_by(f64::total_cmp);
            let mut expect = expect.to_vec();
            expect.sort_by(f64::total_cmp);
            found.len() == expect.len()
                && found.iter().zip(&expect).all(|(found, expect)| (found - expect).abs() < 0.01)
        };
        if let Err(error) = prometheus.until(query, fits) {
            panic!("{query}: expected {expect:?}\n{error:#}");
        }
    }
}

#[test]
fn feature_29_dashboard_12239_is_answered_in_both_its_ages() {
    let node = node(&profile(), None);
    let prometheus = Prometheus::start(&[job("gpus", node.address(), &json!({}))], None).unwrap();
    let panels = |select: &str, by: &str, by_instance: &str| {
        [
            (format!("count(max(DCGM_FI_DEV_GPU_TEMP{{{select}}}) by ({by}))"), 3.0),
            (format!("count(avg(DCGM_FI_DEV_GPU_TEMP{{{select}}}) > 20)"), 1.0),
            (format!("count(max(DCGM_FI_DEV_POWER_USAGE{{{select}}}) by ({by}) > 20)"), 3.0),
            (format!("count(sum(max(DCGM_FI_DEV_POWER_USAGE{{{select}}}) by (gpu)) > 60)"), 1.0),
            (format!("count(max(DCGM_FI_DEV_SM_CLOCK{{{select}}} * 1000000) by ({by}) > 100000000)"), 3.0),
            (format!("count(max(DCGM_FI_DEV_FB_USED{{{select}}}) by ({by_instance}) > 1000)"), 3.0),
            (format!("max(DCGM_FI_DEV_GPU_UTIL{{{select}}})"), 75.0),
            // Whole GPUs, and the instance that somebody holds.
            (format!("count(max(DCGM_FI_PROF_GR_ENGINE_ACTIVE{{{select}}}) by ({by_instance}) <= 1) >= bool 3"), 1.0),
            (format!("count(max(DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{{select}}}) by ({by_instance}) <= 1) >= bool 3"), 1.0),
        ]
    };
    let instance = format!(r#"instance=~"{}", gpu=~"0|1|2""#, node.address());
    let old = panels(&instance, "instance, gpu", "instance, gpu, GPU_I_ID");
    let new =
        panels(r#"Hostname=~"node-a", gpu=~"0|1|2""#, "Hostname, gpu, UUID", "Hostname, gpu, GPU_I_ID, GPU_I_PROFILE");
    for (query, expect) in old.iter().chain(&new) {
        check(&prometheus, &[(query, &[*expect])]);
    }
    // The dashboard's variables.
    for (label, expect) in [("Hostname", json!(["node-a"])), ("gpu", json!(["0", "1", "2"]))] {
        let found = prometheus.get(&format!("/api/v1/label/{label}/values?match[]=DCGM_FI_DEV_FB_FREE")).unwrap();
        assert_eq!(found, expect, "{label}");
    }
}

#[test]
fn feature_29_queries_of_keda_scalers_are_answered() {
    let node = node(&profile(), None);
    let prometheus = Prometheus::start(&[job("gpus", node.address(), &json!({}))], None).unwrap();
    check(
        &prometheus,
        &[
            (r#"avg(DCGM_FI_DEV_GPU_UTIL{namespace="ml",GPU_I_ID=""})"#, &[35.0]),
            (r#"avg(DCGM_FI_DEV_GPU_UTIL{pod=~"trainer.*"})"#, &[75.0]),
            (
                r#"sum(DCGM_FI_DEV_FB_USED{gpu="0"}) / (sum(DCGM_FI_DEV_FB_USED{gpu="0"}) + sum(DCGM_FI_DEV_FB_FREE{gpu="0"})) > bool 0.4"#,
                &[1.0],
            ),
            (
                r#"count(DCGM_FI_DEV_FB_USED{gpu="0"} / (DCGM_FI_DEV_FB_USED{gpu="0"} + DCGM_FI_DEV_FB_FREE{gpu="0"}))"#,
                &[1.0],
            ),
            // Each of those who share a GPU divides by what it finds under its own labels, and the GPU's own is there too.
            (
                r#"count(DCGM_FI_DEV_FB_USED{gpu="1"} / (DCGM_FI_DEV_FB_USED{gpu="1"} + DCGM_FI_DEV_FB_FREE{gpu="1"}))"#,
                &[3.0],
            ),
            (
                r#"DCGM_FI_DEV_FB_USED{pod="left"} / (DCGM_FI_DEV_FB_USED{pod="left"} + DCGM_FI_DEV_FB_FREE{pod="left"}) > bool 0.09"#,
                &[1.0],
            ),
            (
                r#"sum(max by (Hostname, gpu, GPU_I_ID) (DCGM_FI_DEV_FB_FREE{gpu="1"})) == bool scalar(DCGM_FI_DEV_FB_FREE{gpu="1",pod=""})"#,
                &[1.0],
            ),
            (r#"count(avg(DCGM_FI_PROF_GR_ENGINE_ACTIVE{pod!=""}))"#, &[1.0]),
            (r#"count(DCGM_FI_PROF_GR_ENGINE_ACTIVE{GPU_I_ID="7",pod="sliced"})"#, &[1.0]),
            // Our own names, for whoever begins anew.
            (r#"avg(gpu_utilization{namespace="ml",pod=~"left|right"})"#, &[15.0]),
            (r#"sum(gpu_memory_utilization{pod="trainer"}) > bool 40"#, &[1.0]),
        ],
    );
}

#[test]
fn feature_62_alerts_are_sound_and_fire_for_a_lost_gpu_and_a_notice() {
    let rules = include_str!("../../../deploy/chart/rules/windlass-agent.yaml");
    let mut rules: Value = serde_saphyr::from_str(rules).unwrap();
    check_rules(&rules.to_string()).unwrap();
    // The test has no ten minutes.
    for rule in rules["groups"][0]["rules"].as_array_mut().unwrap() {
        rule["for"] = json!("0s");
    }
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    metadata.set("spot/instance-action", Some(r#"{"action":"terminate","time":"2017-09-18T08:22:00Z"}"#));
    let mut profile = profile();
    let node = node(&profile, Some(&metadata));
    let prometheus = Prometheus::start(&[job("gpus", node.address(), &json!({}))], Some(&rules.to_string())).unwrap();
    let firing = |name: &str| format!(r#"count(ALERTS{{alertname="{name}",alertstate="firing"}})"#);
    check(&prometheus, &[(&firing("GpuNodeInterrupted"), &[1.0])]);
    assert!(prometheus.query(&firing("GpuDown")).unwrap().is_empty(), "all is well yet");
    profile.faults = vec![Fault::of_gpu(1, AnswerName::GpuIsLost)];
    node.gpus.set(&profile).unwrap();
    check(&prometheus, &[(&firing("GpuDown"), &[1.0])]);
}

#[test]
fn feature_62_every_panel_of_our_dashboard_shows_something() {
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    metadata.set("events/recommendations/rebalance", Some(r#"{"noticeTime":"2017-09-18T08:10:00Z"}"#));
    let node = node(&profile(), Some(&metadata));
    let prometheus = Prometheus::start(&[job("gpus", node.address(), &json!({}))], None).unwrap();
    let asked = prometheus.answers(include_str!("../../../deploy/chart/dashboards/windlass-agent.json")).unwrap();
    assert!(asked >= 10, "only {asked} queries: the dashboard is not what it was");
}
