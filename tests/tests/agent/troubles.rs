//! One bad thing stays one bad thing: lost GPUs, refused calls, a driver that goes and comes, a kubelet that is slow, gone or huge.

use std::time::Duration;

use windlass_proto::podresources::{ContainerDevices, ContainerResources, PodResources};
use windlass_tests::kubelet::Trouble;
use windlass_tests::nvml::{AnswerName, Fault, ModelName, Process, Profile, gpu_uuid};

use crate::agent::node::{Node, holder, main_of, runs};

fn two_busy() -> Profile {
    let mut profile = Profile::idle(ModelName::A100, 2);
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 1_000)];
    profile.gpu(1).processes = vec![Process::new(200, 40.0, 1_000)];
    profile
}

fn node(profile: &Profile) -> Node {
    Node::start(profile, vec![holder("a", 0), holder("b", 1)], |host| {
        runs(host, 100, &main_of("a"));
        runs(host, 200, &main_of("b"));
    })
}

fn utilization(page: &windlass_tests::scrape::Page, pod: &str) -> Option<f64> {
    page.value("gpu_utilization", &[("pod", pod)])
}

#[test]
fn a_gpu_that_is_lost_or_wants_a_reset_is_down_and_the_others_go_on() {
    let mut profile = two_busy();
    let mut node = node(&profile);
    for fault in [AnswerName::GpuIsLost, AnswerName::ResetRequired] {
        node.until("both are up", |page| utilization(page, "a") == Some(60.0) && utilization(page, "b") == Some(40.0));
        profile.faults = vec![Fault::of_gpu(1, fault)];
        node.gpus.set(&profile).unwrap();
        let page = node.until("the second is down", |page| {
            assert_eq!(page.value("gpu_device_up", &[("gpu", "0")]), Some(1.0), "no page without the first");
            page.value("gpu_device_up", &[("gpu", "1")]) == Some(0.0)
        });
        assert_eq!(utilization(&page, "a"), Some(60.0));
        assert_eq!(utilization(&page, "b"), None, "not read is absent, not 0");
        profile.faults.clear();
        node.gpus.set(&profile).unwrap();
    }
    node.until("it is back after a reset", |page| utilization(page, "b") == Some(40.0));
}

#[test]
fn a_gpu_that_does_not_tell_its_name_at_first_is_asked_again_and_found_by_its_holder() {
    let mut profile = two_busy();
    profile.faults = vec![Fault { gpu: Some(0), ..Fault::of_calls(&["nvmlDeviceGetUUID"], AnswerName::Timeout) }];
    let mut node = node(&profile);
    let page = node.until("both are read", |page| page.select("gpu_device_temperature_celsius", &[]).len() == 2);
    assert_eq!(page.value("gpu_device_up", &[("gpu", "0"), ("uuid", "")]), Some(1.0));
    profile.faults.clear();
    node.gpus.set(&profile).unwrap();
    node.until("it has its name", |page| utilization(page, "a") == Some(60.0));
}

#[test]
fn a_refused_call_costs_only_its_own_metric() {
    let mut profile = two_busy();
    profile.faults = vec![
        Fault { gpu: Some(0), ..Fault::of_calls(&["nvmlDeviceGetPowerUsage"], AnswerName::NotSupported) },
        Fault::of_calls(&["nvmlDeviceGetTemperature"], AnswerName::FunctionNotFound),
        Fault::of_calls(&["nvmlDeviceGetClockInfo"], AnswerName::NotReady),
    ];
    let mut node = node(&profile);
    let page = node
        .until("both are read", |page| utilization(page, "a") == Some(60.0) && utilization(page, "b") == Some(40.0));
    assert_eq!(page.select("gpu_device_power_watts", &[("gpu", "0")]).len(), 0);
    assert_eq!(page.select("gpu_device_power_watts", &[("gpu", "1")]).len(), 1);
    assert_eq!(page.select("gpu_device_temperature_celsius", &[]).len(), 0);
    assert_eq!(page.select("gpu_device_sm_clock_hertz", &[]).len(), 0);
}

#[test]
fn memory_is_read_the_old_way_where_the_driver_does_not_know_the_new_one() {
    for answer in [AnswerName::ArgumentVersionMismatch, AnswerName::FunctionNotFound, AnswerName::NotSupported] {
        let mut profile = two_busy();
        profile.faults = vec![Fault::of_calls(&["nvmlDeviceGetMemoryInfo_v2"], answer)];
        node(&profile).until("both have memory", |page| page.select("gpu_device_memory_used_bytes", &[]).len() == 2);
    }
}

#[test]
fn a_driver_that_is_missing_is_named_and_taken_up_when_it_comes() {
    let mut profile = two_busy();
    let away = Fault::of_calls(&["nvmlInit_v2", "nvmlInitWithFlags"], AnswerName::DriverNotLoaded);
    profile.faults = vec![away];
    let mut node = node(&profile);
    let answer = node.answer_until("/readyz", "nvml is pending", |answer| answer.status == 503);
    assert!(answer.text().unwrap().contains("nvml"), "{}", answer.text().unwrap());
    assert_eq!(node.get("/healthz").status, 200, "alive: a restart would not help");
    node.until("the metric says so", |page| page.value("windlass_agent_nvml_up", &[]) == Some(0.0));
    profile.faults.clear();
    node.gpus.set(&profile).unwrap();
    node.until("the driver came", |page| utilization(page, "a") == Some(60.0));
    node.answer_until("/readyz", "ready", |answer| answer.status == 200);
}

#[test]
fn a_library_that_comes_later_is_found() {
    let mut later = std::path::PathBuf::new();
    let mut node = Node::configured(
        &two_busy(),
        vec![holder("a", 0)],
        |host| runs(host, 100, &main_of("a")),
        |config, gpus| {
            later = gpus.folder().join("later.so.1");
            config.nvml_library = Some(later.clone());
        },
    );
    node.answer_until("/readyz", "nvml is pending", |answer| answer.status == 503);
    // Put in place whole, as a driver container does: a half-written library is not the agent's fault.
    let aside = later.with_extension("new");
    std::fs::copy(node.gpus.library(), &aside).unwrap();
    std::fs::rename(&aside, &later).unwrap();
    node.until("it is found", |page| utilization(page, "a") == Some(60.0));
}

#[test]
fn a_driver_swapped_underneath_is_survived() {
    let mut profile = two_busy();
    let mut node = node(&profile);
    node.until("both are up", |page| utilization(page, "a") == Some(60.0));
    profile.faults =
        vec![Fault { answer: Fault::of_gpu(0, AnswerName::LibRmVersionMismatch).answer, ..Fault::default() }];
    node.gpus.set(&profile).unwrap();
    node.until("nothing answers", |page| {
        page.value("windlass_agent_nvml_up", &[]) == Some(0.0) && utilization(page, "a").is_none()
    });
    profile.faults.clear();
    node.gpus.set(&profile).unwrap();
    node.until("the session is opened anew", |page| utilization(page, "a") == Some(60.0));
}

#[test]
fn a_slow_call_holds_up_no_scrape() {
    let mut profile = two_busy();
    profile.faults =
        vec![Fault { calls: vec!["nvmlDeviceGetPowerUsage".to_owned()], slow_ms: 300.0, ..Fault::default() }];
    let mut node = node(&profile);
    let page = node
        .until("both are read", |page| utilization(page, "a") == Some(60.0) && utilization(page, "b") == Some(40.0));
    assert_eq!(page.select("gpu_device_power_watts", &[]).len(), 2);
}

#[test]
fn the_last_known_pod_map_is_kept_without_a_kubelet_and_its_age_is_exported() {
    let mut node = node(&two_busy());
    node.until("the map is there", |page| utilization(page, "a") == Some(60.0));
    node.kubelet.stop();
    let page = node.until("the loss is told", |page| page.value("windlass_agent_kubelet_up", &[]) == Some(0.0));
    let age = page.value("windlass_agent_pods_age_seconds", &[]).unwrap();
    let page = node.until("the map ages", |page| page.value("windlass_agent_pods_age_seconds", &[]) > Some(age + 1.0));
    assert_eq!(utilization(&page, "a"), Some(60.0), "the last good map stands");
    node.kubelet.resume().unwrap();
    node.until("it is asked again", |page| {
        page.value("windlass_agent_kubelet_up", &[]) == Some(1.0)
            && page.value("windlass_agent_pods_age_seconds", &[]) < Some(age)
    });
}

#[test]
fn a_kubelet_that_is_slow_or_refuses_keeps_the_last_map() {
    let keeps_the_map = |trouble| {
        let mut node = node(&two_busy());
        node.until("the map is there", |page| page.value("windlass_agent_kubelet_up", &[]) == Some(1.0));
        node.until("the use is measured", |page| utilization(page, "a") == Some(60.0));
        node.kubelet.trouble(trouble);
        let page = node.until("the failure is told", |page| page.value("windlass_agent_kubelet_up", &[]) == Some(0.0));
        assert_eq!(utilization(&page, "a"), Some(60.0), "{trouble:?}");
        assert!(page.value("windlass_agent_kubelet_errors_total", &[]) >= Some(1.0));
        node.kubelet.trouble(Trouble::None);
        node.until("it recovers", |page| page.value("windlass_agent_kubelet_up", &[]) == Some(1.0));
    };
    // Each waits for the agent's slow polls of the kubelet; side by side they wait once.
    std::thread::scope(|scope| {
        for trouble in [Trouble::Slow(Duration::from_secs(30)), Trouble::RateLimited, Trouble::Broken] {
            scope.spawn(move || keeps_the_map(trouble));
        }
    });
}

/// A pod with many containers, each with a device that is no GPU of this node.
fn crowd(containers: usize, name: &str) -> PodResources {
    let container = |place: usize| ContainerResources {
        name: format!("{name}-{place}").into(),
        devices: vec![ContainerDevices {
            resource_name: "vendor.com/nic".into(),
            device_ids: vec![format!("nic-{place}").into()],
        }],
        ..ContainerResources::default()
    };
    PodResources { name: "crowd".into(), namespace: "ml".into(), containers: (0..containers).map(container).collect() }
}

#[test]
fn ten_thousand_containers_are_no_trouble() {
    let pods = vec![crowd(10_000, "c"), holder("a", 0)];
    let mut node = Node::start(&two_busy(), pods, |host| runs(host, 100, &main_of("a")));
    node.until("the one among them is found, and only it counts", |page| {
        utilization(page, "a") == Some(60.0) && page.value("windlass_agent_containers", &[]) == Some(1.0)
    });
}

#[test]
fn names_that_are_no_text_and_devices_given_twice_cost_nothing_else() {
    let broken = PodResources { name: vec![b'x', 0xff].into(), ..holder("broken", 1) };
    // Finished and running pods of one device, as kubelets before 1.34 list them, and one id twice.
    let twice = windlass_tests::kubelet::pod("ml", "a", "main", &[("nvidia.com/gpu", &[&gpu_uuid(0), &gpu_uuid(0)])]);
    let mut node = Node::start(&two_busy(), vec![broken, twice, holder("a", 0)], |host| {
        runs(host, 100, &main_of("a"));
        host.host_process(200, "burn").unwrap();
    });
    // Before the kubelet has answered, only the one with a process is there.
    let page = node.until("both are there", |page| {
        utilization(page, "a") == Some(60.0) && page.select("gpu_utilization", &[("pod", "x\u{fffd}")]).len() == 1
    });
    assert_eq!(page.select("gpu_utilization", &[("gpu", "0")]).len(), 1);
}

#[test]
fn an_answer_of_nearly_16_mib_is_taken() {
    // A little under 16 MiB in names alone; of each, no more is kept than a name can have.
    let long = "x".repeat(15 << 10);
    let mut node =
        Node::start(&two_busy(), vec![crowd(1_080, &long), holder("a", 0)], |host| runs(host, 100, &main_of("a")));
    // The process alone tells whose use it is: the answer may come later.
    let page = node.until("it is read", |page| page.value("windlass_agent_kubelet_up", &[]) == Some(1.0));
    assert_eq!(page.value("windlass_agent_containers", &[]), Some(1.0));
}

#[test]
fn an_answer_that_is_too_large_is_refused_and_the_last_map_stands() {
    let mut node = node(&two_busy());
    node.until("the map is there", |page| utilization(page, "a") == Some(60.0));
    // A little over 16 MiB in names alone.
    let long = "x".repeat(16 << 10);
    node.kubelet.set_pods(vec![crowd(1_100, &long), holder("other", 0)]);
    let page = node.until("it is told", |page| page.value("windlass_agent_kubelet_up", &[]) == Some(0.0));
    assert_eq!(utilization(&page, "a"), Some(60.0));
    node.kubelet.set_pods(vec![holder("other", 0)]);
    node.until("the next good answer is taken", |page| page.select("gpu_utilization", &[("pod", "other")]).len() == 1);
}

#[test]
fn replicas_beyond_any_limit_do_not_flood_the_page() {
    let ids: Vec<String> = (0..20_000).map(|replica| format!("{}::{replica}", gpu_uuid(0))).collect();
    let pods = ids.chunks(2).zip(0..).map(|(ids, place)| {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        windlass_tests::kubelet::pod("ml", &format!("p{place}"), "main", &[("nvidia.com/gpu", &ids)])
    });
    let mut node = Node::start(&two_busy(), pods.collect(), |host| {
        // Named as the node's own, so that every holder has measured zeros.
        host.host_process(100, "burn").unwrap();
    });
    let page = node.until("the page is bounded", |page| {
        page.value("windlass_agent_series_dropped_total", &[("cause", "max_series")]) > Some(0.0)
    });
    assert!(page.series.len() <= 20_100, "{}", page.series.len());
}
