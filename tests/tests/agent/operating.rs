//! What operators rely on besides the numbers: the agent tells of itself, keeps to its limits, and says when it is not ready.

use windlass_agent::families::{self, Kind};
use windlass_tests::nvml::{Mig, ModelName, Process, Profile};

use crate::agent::node::{Node, holder, main_of, runs};

fn busy_and_idle() -> Profile {
    let mut profile = Profile::idle(ModelName::A100, 2);
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 1_000)];
    profile
}

fn node(settings: impl FnOnce(&mut windlass_agent::config::Config)) -> Node {
    let pods = vec![holder("busy", 0), holder("idle", 1)];
    Node::configured(&busy_and_idle(), pods, |host| runs(host, 100, &main_of("busy")), |config, _| settings(config))
}

#[test]
fn feature_31_native_names_are_in_base_units() {
    for family in
        families::native().filter(|family| !["gpu_utilization", "gpu_memory_utilization"].contains(&family.name))
    {
        assert!(
            !["percent", "MiB", "MHz", "millijoules", "ms"].contains(&family.unit),
            "{}: {}",
            family.name,
            family.unit
        );
        assert_eq!(family.kind == Kind::Counter, family.name.ends_with("_total"), "{}", family.name);
    }
}

#[test]
fn feature_51_the_agent_tells_of_itself() {
    let mut node = node(|_| ());
    let page = node.until("calls are counted", |page| {
        !page.select("windlass_agent_nvml_call_seconds_total", &[]).is_empty()
            && page.value("windlass_agent_ticks_total", &[]) > Some(1.0)
    });
    for name in ["build_info", "driver_info", "nvml_up", "tick_duration_seconds", "kubelet_up", "series"] {
        assert_eq!(page.select(&format!("windlass_agent_{name}"), &[]).len(), 1, "{name}");
    }
    let errors = page.select("windlass_agent_nvml_errors_total", &[]);
    assert!(errors.iter().all(|series| series.labels.contains_key("cause")), "{errors:?}");
}

#[test]
fn feature_55_a_full_page_is_cut_and_says_so() {
    let mut node = node(|config| config.max_series = 90);
    let dropped = [("cause", "max_series")];
    let page = node.until("it is cut", |page| page.value("windlass_agent_series_dropped_total", &dropped) > Some(0.0));
    assert_eq!(page.series.len(), 90);
    assert_eq!(page.value("windlass_agent_series", &[]), Some(90.0));
    assert_eq!(page.value("windlass_agent_series_dropped_total", &[("cause", "label_too_long")]), Some(0.0));
}

#[test]
fn feature_56_readiness_names_what_is_pending() {
    let mut node = node(|config| config.kubelet_socket = Some("/nowhere/kubelet.sock".into()));
    let answer = node.answer_until("/readyz", "the kubelet is pending and the driver is not", |answer| {
        let text = answer.text().unwrap();
        answer.status == 503 && text.contains("kubelet") && !text.contains("nvml")
    });
    assert_eq!(answer.status, 503);
    assert_eq!(node.get("/metrics").status, 200, "what can be read is served meanwhile");
}

#[test]
fn feature_59_a_gpu_that_is_given_and_not_used_shows() {
    let mut node = node(|_| ());
    let page = node.until("time is counted", |page| {
        page.value("container_gpu_allocated_seconds_total", &[("pod", "idle")]) > Some(0.5)
    });
    let seconds = |kind: &str, pod: &str| page.value(&format!("container_gpu_{kind}_seconds_total"), &[("pod", pod)]);
    assert_eq!(seconds("usage", "idle"), Some(0.0), "measured, and nothing");
    assert!(seconds("usage", "busy") > Some(0.0));
    let usage: serde_json::Value = serde_json::from_str(&node.get("/usage").text().unwrap()).unwrap();
    assert_eq!(usage["gpus"][1]["owners"][0]["pod"], "idle");
    assert_eq!(usage["gpus"][1]["last_activity"], serde_json::Value::Null);
}

#[test]
fn feature_46_jobs_of_a_batch_system_stand_on_the_series_of_their_gpus() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let mut profile = Profile::idle(ModelName::H100, 3);
    profile.gpu(2).mig = Some(vec![Mig::new("1g.10gb", 7), Mig::new("1g.10gb", 8)]);
    let settings = |config: &mut windlass_agent::config::Config, _: &_| {
        config.hpc_job_mapping_dir = Some(folder.path().join("jobs"));
        config.kubelet_socket = None;
    };
    // A machine without Kubernetes, on which no job has run yet.
    let mut node = Node::configured(&profile, Vec::new(), |_| (), settings);
    node.until("there is no job", |page| {
        page.value("windlass_agent_hpc_jobs_up", &[]) == Some(1.0)
            && page.series.iter().all(|series| !series.labels.contains_key("hpc_job"))
    });
    write("0", "4711\n");
    write("1", "12_1\n12_2\n");
    write("2.7", "99\n");
    std::fs::create_dir(folder.path().join("jobs")).unwrap();
    for name in ["0", "1", "2.7"] {
        std::fs::rename(folder.path().join(name), folder.path().join("jobs").join(name)).unwrap();
    }
    let page = node.until("each job is named", |page| page.select("gpu_device_hpc_job_info", &[]).len() == 4);
    assert_eq!(page.select("DCGM_FI_DEV_GPU_TEMP", &[("gpu", "0"), ("hpc_job", "4711")]).len(), 1);
    assert_eq!(page.select("DCGM_FI_DEV_FB_FREE", &[("GPU_I_ID", "7"), ("hpc_job", "99")]).len(), 1);
    let shared = page.select("DCGM_FI_DEV_GPU_TEMP", &[("gpu", "1")]);
    assert!(matches!(*shared, [series] if !series.labels.contains_key("hpc_job")), "not repeated: {shared:?}");
    assert_eq!(page.select("gpu_device_hpc_job_info", &[("gpu", "1"), ("hpc_job", "12_2")]).len(), 1);
    // The epilog.
    std::fs::remove_file(folder.path().join("jobs/0")).unwrap();
    node.until("the job is over", |page| page.select("DCGM_FI_DEV_GPU_TEMP", &[("hpc_job", "4711")]).is_empty());
}

#[test]
fn no_command_line_and_no_environment_is_on_any_page() {
    let mut node = node(|_| ());
    for (file, text) in
        [("cmdline", "burn\0--token=hunter2\0"), ("environ", "PASSWORD=hunter2\0"), ("comm", "hunter2\n")]
    {
        std::fs::write(node.host.proc().join("100").join(file), text).unwrap();
    }
    node.until("its use is shown", |page| page.value("gpu_utilization", &[("pod", "busy")]) == Some(60.0));
    for path in ["/metrics", "/usage", "/readyz", "/"] {
        assert!(!node.get(path).text().unwrap().contains("hunter2"), "{path}");
    }
}
