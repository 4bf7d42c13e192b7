//! The driver at its worst: a call that hangs, a library replaced under us, devices taken away, a clock set back. Nothing else may notice.

use std::time::Duration;

use windlass_tests::nvml::{AnswerName, Fault, ModelName, Process, Profile};
use windlass_tests::scrape::Page;

use crate::agent::node::{Node, main_of, runs, sharer};

const FIRST: &[(&str, &str)] = &[("gpu", "0")];
const SECOND: &[(&str, &str)] = &[("gpu", "1")];

/// Two GPUs with a process each; the first is shared.
fn two_busy(load: f64) -> Profile {
    let mut profile = Profile::idle(ModelName::H100, 2);
    profile.gpu(0).processes = vec![Process::new(100, load, 1_000)];
    profile.gpu(1).processes = vec![Process::new(200, 40.0, 1_000)];
    profile
}

fn node(profile: &Profile) -> Node {
    let pods = vec![sharer("a", 0, 0), sharer("b", 0, 1)];
    Node::configured(
        profile,
        pods,
        |host| runs(host, 100, &main_of("a")),
        |config, _| config.out_of_reach = Duration::from_secs(1),
    )
}

fn of_pod(page: &Page) -> Option<f64> {
    page.value("gpu_utilization", &[("pod", "a")])
}

/// A fault of every call.
fn everything(answer: AnswerName) -> Fault {
    Fault { gpu: None, ..Fault::of_gpu(0, answer) }
}

#[test]
fn a_hung_call_of_one_gpu_leaves_the_others_their_tick() {
    let mut profile = two_busy(60.0);
    let mut node = node(&profile);
    node.until("both are up", |page| of_pod(page) == Some(60.0) && page.value("gpu_device_up", SECOND) == Some(1.0));
    let calls = vec!["nvmlDeviceGetTemperature".to_owned()];
    profile.faults = vec![Fault { gpu: Some(1), calls, slow_ms: 10_000, ..Fault::default() }];
    node.gpus.set(&profile).unwrap();
    let hangs = [("gpu", "1"), ("state", "hangs")];
    let page = node.until("it is told", |page| page.value("gpu_device_down_info", &hangs) == Some(1.0));
    profile.faults.clear();
    node.gpus.set(&profile).unwrap();
    // The call that is under way goes on hanging; the first GPU is read at each tick all the while.
    let mut ticks = page.value("windlass_agent_ticks_total", &[]);
    for _ in 0..5 {
        let page = node.until("a tick", |page| page.value("windlass_agent_ticks_total", &[]) > ticks);
        ticks = page.value("windlass_agent_ticks_total", &[]);
        assert_eq!(page.value("gpu_device_last_sample_age_seconds", FIRST), Some(0.0));
        assert_eq!((page.value("gpu_device_up", FIRST), of_pod(&page)), (Some(1.0), Some(60.0)));
        assert_eq!(page.value("gpu_device_up", SECOND), Some(0.0));
        assert_eq!(page.value("gpu_device_utilization_ratio", SECOND), None, "absent, not 0 and not old");
    }
    assert_eq!(node.get("/healthz").status, 200);
    node.until("it is back when the call is", |page| page.value("gpu_device_utilization_ratio", SECOND) == Some(0.4));
}

#[test]
fn survives_a_driver_upgrade_without_a_crash_loop() {
    let mut profile = two_busy(60.0);
    let mut node = node(&profile);
    node.until("both are up", |page| of_pod(page) == Some(60.0));
    profile.faults = vec![everything(AnswerName::LibRmVersionMismatch)];
    node.gpus.set(&profile).unwrap();
    let cause = [("cause", "lib_rm_version_mismatch")];
    node.until("it is told", |page| page.value("windlass_agent_nvml_absence_info", &cause) == Some(1.0));
    // The new driver brings a new library to the same place.
    let library = node.gpus.library();
    let aside = library.with_extension("new");
    std::fs::copy(&library, &aside).unwrap();
    std::fs::rename(&aside, &library).unwrap();
    profile.faults.clear();
    profile.driver = "595.58.03".to_owned();
    node.gpus.set(&profile).unwrap();
    let version = [("version", "595.58.03")];
    node.until("the new one is used", |page| {
        page.value("windlass_agent_driver_info", &version) == Some(1.0) && of_pod(page) == Some(60.0)
    });
}

#[test]
fn lost_device_access_fails_liveness_with_the_reason() {
    let mut profile = two_busy(60.0);
    let mut node = node(&profile);
    node.until("both are up", |page| of_pod(page) == Some(60.0));
    assert_eq!(node.get("/healthz").status, 200);
    // What `systemctl daemon-reload` does to a running container.
    profile.faults = vec![everything(AnswerName::Unknown)];
    node.gpus.set(&profile).unwrap();
    let sick = node.answer_until("/healthz", "liveness fails", |answer| answer.status == 503);
    let reason = sick.text().unwrap();
    assert!(reason.contains("out of reach") && reason.contains("devices back"), "{reason}");
    profile.faults.clear();
    node.gpus.set(&profile).unwrap();
    node.answer_until("/healthz", "it is well again by itself", |answer| answer.status == 200);
}

#[test]
fn a_drivers_clock_that_is_set_back_costs_nothing() {
    let mut profile = two_busy(60.0);
    let mut node = node(&profile);
    node.until("measured", |page| of_pod(page) == Some(60.0));
    profile.sampler_clock_s = -3_600.0;
    profile.gpu(0).processes = vec![Process::new(100, 30.0, 1_000)];
    node.gpus.set(&profile).unwrap();
    node.until("the new load is measured by the new clock", |page| {
        of_pod(page) == Some(30.0) && page.value("gpu_device_utilization_max_ratio", FIRST) == Some(0.3)
    });
}
