//! The driver at its worst: a call that hangs, a library replaced under us, devices taken away, a clock set back. Nothing else may notice.

use std::time::Duration;

use windlass_tests::nvml::{AnswerName, Fault, ModelName, Process, Profile};
use windlass_tests::scrape::Page;

use crate::agent::node::{Node, main_of, runs, sharer, unix};

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
    profile.faults = vec![Fault::hang(&["nvmlDeviceGetTemperature"], Some(1))];
    node.gpus.set(&profile).unwrap();
    let hangs = [("gpu", "1"), ("state", "hangs")];
    let page = node.until("it is told", |page| page.value("gpu_device_down_info", &hangs) == Some(1.0));
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
    profile.faults.clear();
    node.gpus.set(&profile).unwrap();
    node.until("it is back when the call is", |page| page.value("gpu_device_utilization_ratio", SECOND) == Some(0.4));
}

#[test]
fn a_driver_that_hangs_before_the_first_reading_is_told_and_taken_up_when_it_answers() {
    let hangs_in = |call: &str| {
        let mut profile = two_busy(60.0);
        profile.faults = vec![Fault::hang(&[call], None)];
        let mut node = node(&profile);
        let waits =
            node.answer_until("/readyz", "it is told", |answer| answer.text().unwrap().contains("has not answered"));
        assert_eq!(waits.status, 503, "{call}");
        let page = node.until("so does the page", |page| {
            page.value("windlass_agent_nvml_absence_info", &[("cause", "hangs")]) == Some(1.0)
        });
        assert_eq!(page.value("windlass_agent_nvml_up", &[]), Some(0.0), "{call}");
        assert_eq!(page.select("gpu_device_up", &[]).len(), 0, "{call}: what was never seen is not told");
        assert_eq!(node.get("/healthz").status, 200, "{call}: a restart would hang as well");
        profile.faults.clear();
        node.gpus.set(&profile).unwrap();
        node.until("it is read when the call came back", |page| of_pod(page) == Some(60.0));
        node.answer_until("/readyz", "ready", |answer| answer.status == 200);
    };
    // Each waits as long as the agent does for an answer; side by side they wait once.
    std::thread::scope(|scope| {
        for call in ["nvmlInit_v2", "nvmlSystemGetDriverVersion", "nvmlDeviceGetCount_v2"] {
            scope.spawn(move || hangs_in(call));
        }
    });
}

#[test]
fn a_gpu_that_hangs_before_it_has_said_its_name_costs_only_itself() {
    let mut profile = two_busy(60.0);
    profile.faults = vec![Fault::hang(&["nvmlDeviceGetUUID"], Some(1))];
    let mut node = node(&profile);
    let hangs = [("gpu", "1"), ("state", "hangs")];
    node.until("it is told, and the first is read", |page| {
        page.value("gpu_device_down_info", &hangs) == Some(1.0)
            && page.value("gpu_device_up", SECOND) == Some(0.0)
            && of_pod(page) == Some(60.0)
    });
    // Events of the first are heard all the while, from when they are registered.
    let now = unix();
    profile.gpu(0).xids = (1..600).map(|tenth| (now + f64::from(tenth) / 10.0, 31)).collect();
    node.gpus.set(&profile).unwrap();
    let page = node.until("an Xid error of the first is counted", |page| {
        page.value("gpu_device_xid_errors_total", &[("gpu", "0"), ("xid", "31")]).is_some()
    });
    assert_eq!(page.value("gpu_device_down_info", &hangs), Some(1.0));
    profile.faults.clear();
    node.gpus.set(&profile).unwrap();
    node.until("it is read when the call came back", |page| {
        page.value("gpu_device_utilization_ratio", SECOND) == Some(0.4)
            && page.select("gpu_device_down_info", &[]).is_empty()
    });
}

#[test]
fn a_gpu_that_is_back_at_another_index_after_a_reset_goes_by_its_own_name() {
    let named = |profile: &mut Profile, names: [&str; 2]| {
        for (gpu, name) in (0..).zip(names) {
            profile.gpu(gpu).uuid = Some(format!("GPU-00000000-0000-0000-0000-00000000{name}"));
        }
    };
    let up = |page: &Page, gpu: &str, name: &str| {
        let uuid = format!("GPU-00000000-0000-0000-0000-00000000{name}");
        page.value("gpu_device_up", &[("gpu", gpu), ("uuid", &uuid)])
    };
    let mut profile = Profile::idle(ModelName::H100, 2);
    named(&mut profile, ["aaaa", "bbbb"]);
    let mut node = node(&profile);
    node.until("both are up", |page| up(page, "0", "aaaa") == Some(1.0) && up(page, "1", "bbbb") == Some(1.0));
    profile.faults = vec![Fault::of_gpu(0, AnswerName::GpuIsLost)];
    node.gpus.set(&profile).unwrap();
    node.until("the first is lost", |page| up(page, "0", "aaaa") == Some(0.0));
    profile.faults.clear();
    named(&mut profile, ["bbbb", "aaaa"]);
    node.gpus.set(&profile).unwrap();
    let page = node.until("it is the second now", |page| up(page, "1", "aaaa") == Some(1.0));
    assert_eq!((page.select("gpu_device_up", &[]).len(), up(&page, "0", "bbbb")), (2, Some(1.0)));
}

#[test]
fn survives_a_driver_upgrade_without_a_crash_loop() {
    let mut profile = two_busy(60.0);
    let mut node = node(&profile);
    node.until("both are up", |page| of_pod(page) == Some(60.0));
    profile.faults = vec![everything(AnswerName::LibRmVersionMismatch)];
    node.gpus.set(&profile).unwrap();
    let cause = [("cause", "lib_rm_version_mismatch")];
    let page = node.until("it is told", |page| page.value("windlass_agent_nvml_absence_info", &cause) == Some(1.0));
    for gpu in [FIRST, SECOND] {
        assert_eq!(page.value("gpu_device_up", gpu), Some(0.0), "down, not gone");
        assert!(page.value("gpu_device_last_sample_age_seconds", gpu).is_some());
        assert_eq!(page.value("gpu_device_temperature_celsius", gpu), None, "not read is absent");
    }
    let held = page.value("container_gpu_allocated_seconds_total", &[("pod", "a")]);
    assert!(held.is_some() && of_pod(&page).is_none(), "what is held is held still, and nothing is measured");
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
fn a_drivers_clock_that_jumps_back_or_ahead_costs_nothing() {
    let mut profile = two_busy(60.0);
    let mut node = node(&profile);
    node.until("measured", |page| of_pod(page) == Some(60.0));
    for (clock, load) in [(-3_600.0, 30.0), (3_600.0, 80.0), (0.0, 50.0)] {
        profile.sampler_clock_s = clock;
        profile.gpu(0).processes = vec![Process::new(100, load, 1_000)];
        node.gpus.set(&profile).unwrap();
        node.until("the new load is measured by the new clock", |page| {
            let most = page.value("gpu_device_utilization_max_ratio", FIRST);
            of_pod(page) == Some(load) && most == Some(load / 100.0)
        });
    }
}
