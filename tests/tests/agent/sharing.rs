//! Who used how much of a GPU: what the agent says, held against what the fake knows to be true.

use std::time::Duration;

use windlass_tests::kubelet::{devices, pod};
use windlass_tests::nvml::{AnswerName, Fault, Kind, ModelName, Process, Profile, gpu_uuid};
use windlass_tests::proc::{Cgroup, Container};
use windlass_tests::scrape::Page;

use crate::agent::node::{Node, holder, main_of, moving, runs, sampled, sharer};

const MIB: f64 = 1_048_576.0;

/// Percent points by which a gauge may miss the truth: samples are whole percents.
const CLOSE: f64 = 1.0;

fn close(page: &Page, metric: &str, labels: &[(&str, &str)], expect: f64) -> bool {
    page.value(metric, labels).is_some_and(|value| (value - expect).abs() <= CLOSE)
}

#[test]
fn namespace_pod_and_container_labels_stand_on_an_exclusive_gpus_series() {
    let mut profile = Profile::idle(ModelName::A100, 1);
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 8_000)];
    let mut node = Node::start(&profile, vec![holder("trainer", 0)], |host| runs(host, 100, &main_of("trainer")));
    let labels = [("namespace", "ml"), ("pod", "trainer"), ("container", "main")];
    let page = node.until("60 percent are the holder's", |page| close(page, "gpu_utilization", &labels, 60.0));
    let series = page.select("gpu_utilization", &labels);
    assert_eq!(series[0].labels["uuid"], gpu_uuid(0));
    assert_eq!(series[0].labels["gpu"], "0");
    assert_eq!(series[0].labels["node"], "node-a");
    assert_eq!(page.value("gpu_memory_used_bytes", &labels), Some(8_000.0 * MIB));
    assert!(close(&page, "DCGM_FI_DEV_GPU_UTIL", &labels, 60.0));
    assert_eq!(page.value("DCGM_FI_DEV_FB_USED", &labels), Some(8_000.0));
    assert!(close(&page, "gpu_device_unattributed_utilization_ratio", &[], 0.0));
}

#[test]
fn time_slicing_ids_are_understood_and_process_utilization_goes_to_its_pod() {
    let mut profile = Profile::idle(ModelName::T4, 1);
    profile.gpu(0).processes =
        vec![moving(100, 0.0, 80.0, 3.0), moving(200, 15.0, 35.0, 2.0), Process::new(300, 20.0, 500)];
    let pods = vec![sharer("a", 0, 0), sharer("b", 0, 1), sharer("c", 0, 2), sharer("idle", 0, 3)];
    let mut node = Node::start(&profile, pods, |host| {
        for (pid, name) in [(100, "a"), (200, "b"), (300, "c")] {
            runs(host, pid, &main_of(name));
        }
    });
    let used = |page: &Page, name: &str| page.value("container_gpu_usage_seconds_total", &[("pod", name)]);
    let first = node.until("all three are measured", |page| {
        page.value("gpu_device_holders", &[]) == Some(4.0)
            && ["a", "b", "c"].iter().all(|name| used(page, name) > Some(0.0))
    });
    let (first, last) = node.without_gap(first, 8.0);
    let (start, end) = (sampled(&first), sampled(&last));
    let mut sum = 0.0;
    for (pid, name) in [(100, "a"), (200, "b"), (300, "c")] {
        let truth = node.gpus.mean_sm(0, pid, Duration::from_secs_f64(start), Duration::from_secs_f64(end));
        let said = 100.0 * (used(&last, name).unwrap() - used(&first, name).unwrap()) / (end - start);
        // The driver's sample periods and the agent's ticks do not begin together: one period of eight seconds may be missing or double.
        assert!((said - truth).abs() < 4.0, "{name}: said {said}, true {truth}");
        sum += said;
    }
    let truth = node.gpus.mean_gpu(0, Duration::from_secs_f64(start), Duration::from_secs_f64(end));
    assert!((sum - truth).abs() < 5.0, "all: said {sum}, true {truth}");
    assert_eq!(last.value("gpu_utilization", &[("pod", "idle")]), Some(0.0), "an idle holder is 0, not absent");
    assert_eq!(last.value("gpu_memory_used_bytes", &[("pod", "idle")]), Some(0.0));
    assert_eq!(last.value("gpu_memory_used_bytes", &[("pod", "c")]), Some(500.0 * MIB));
    assert_eq!(last.value("gpu_device_holders", &[]), Some(4.0));
}

#[test]
fn every_shape_of_cgroup_leads_to_its_container() {
    let mut profile = Profile::idle(ModelName::H100, 1);
    let names: Vec<String> = Cgroup::ALL.iter().map(|shape| format!("{shape:?}").to_lowercase()).collect();
    let processes = names.iter().zip(1_u32..).map(|(_, place)| Process::new(100 + place, f64::from(place), 100));
    profile.gpu(0).processes = processes.collect();
    let pods = names.iter().zip(0..).map(|(name, replica)| sharer(name, 0, replica)).collect();
    let mut node = Node::start(&profile, pods, |host| {
        for ((name, shape), place) in names.iter().zip(Cgroup::ALL).zip(1..) {
            let container = main_of(name);
            host.container(&container).unwrap();
            host.process(100 + place, &container, shape).unwrap();
        }
    });
    node.until("each shape's pod has its own share", |page| {
        let mut places = names.iter().zip(1_u32..);
        places.all(|(name, place)| page.value("gpu_utilization", &[("pod", name)]) == Some(f64::from(place)))
    });
}

#[test]
fn containers_of_one_pod_are_split_with_no_double_count() {
    let mut profile = Profile::idle(ModelName::A100, 1);
    let mps = |pid, sm, memory| Process { kind: Kind::Mps, ..Process::new(pid, sm, memory) };
    profile.gpu(0).processes = vec![mps(100, 40.0, 1_000), mps(101, 10.0, 2_000), mps(102, 5.0, 300)];
    let id = |replica| format!("{}::{replica}", gpu_uuid(0));
    let mut both = pod("ml", "pair", "server", &[("nvidia.com/gpu.shared", &[id(0).as_str(), id(1).as_str()])]);
    let mut sidecar = both.containers[0].clone();
    sidecar.name = "sidecar".into();
    sidecar.devices = vec![devices("nvidia.com/gpu.shared", &[id(2).as_str()])];
    both.containers.push(sidecar);
    let mut node = Node::start(&profile, vec![both], |host| {
        let (server, sidecar) = (Container::new("ml", "pair", "server"), Container::new("ml", "pair", "sidecar"));
        runs(host, 100, &server);
        runs(host, 101, &sidecar);
        runs(host, 102, &server);
    });
    let page = node.until("server 45, sidecar 10", |page| {
        close(page, "gpu_utilization", &[("container", "server")], 45.0)
            && close(page, "gpu_utilization", &[("container", "sidecar")], 10.0)
    });
    assert_eq!(
        page.value("gpu_memory_used_bytes", &[("container", "server")]),
        Some(1_300.0 * MIB),
        "in two lists, counted once"
    );
    assert_eq!(page.select("gpu_utilization", &[("pod", "pair")]).len(), 2, "two replicas of one GPU are one holder");
}

#[test]
fn a_residual_series_holds_unattributed_use_and_it_is_never_spread() {
    let mut profile = Profile::idle(ModelName::T4, 1);
    profile.gpu(0).processes =
        vec![Process::new(100, 30.0, 1_000), Process::new(900, 25.0, 700), Process::new(901, 10.0, 40)];
    let mut node = Node::start(&profile, vec![sharer("a", 0, 0), sharer("b", 0, 1)], |host| {
        runs(host, 100, &main_of("a"));
        host.host_process(900, "Xorg :0) (x").unwrap();
        host.host_process(901, "dcgm").unwrap();
    });
    let page = node.until("35 percent are nobody's", |page| {
        page.value("gpu_device_unattributed_utilization_ratio", &[]).is_some_and(|ratio| (ratio - 0.35).abs() <= 0.011)
            && close(page, "gpu_utilization", &[("pod", "a")], 30.0)
            // Absent until the host's processes are known for what they are: before, one of them could have been its own.
            && page.value("gpu_utilization", &[("pod", "b")]) == Some(0.0)
    });
    assert_eq!(page.value("gpu_device_unattributed_memory_bytes", &[]), Some(740.0 * MIB));
    let dcgm: f64 = page.select("DCGM_FI_DEV_GPU_UTIL", &[]).iter().map(|series| series.value).sum();
    assert!((dcgm - 65.0).abs() <= 2.0, "the sum over a shared GPU is the GPU's: {dcgm}");
}

#[test]
fn a_pod_that_is_gone_leaves_nothing_behind() {
    let mut profile = Profile::idle(ModelName::T4, 2);
    profile.gpu(0).processes = vec![Process::new(100, 50.0, 1_000)];
    profile.gpu(1).processes = vec![Process::new(200, 40.0, 1_000)];
    let mut node = Node::start(&profile, vec![holder("stays", 0), holder("goes", 1)], |host| {
        runs(host, 100, &main_of("stays"));
        runs(host, 200, &main_of("goes"));
    });
    node.until("both are there", |page| {
        close(page, "gpu_utilization", &[("pod", "stays")], 50.0)
            && close(page, "gpu_utilization", &[("pod", "goes")], 40.0)
    });
    profile.gpu(1).processes.clear();
    node.gpus.set(&profile).unwrap();
    node.host.exit(200).unwrap();
    node.host.remove_container(&main_of("goes")).unwrap();
    node.kubelet.set_pods(vec![holder("stays", 0)]);
    let page = node.until("the other's series end", |page| {
        page.series.iter().all(|series| series.labels.get("pod").is_none_or(|pod| pod != "goes"))
    });
    assert!(close(&page, "gpu_utilization", &[("pod", "stays")], 50.0));
    assert!(close(&page, "gpu_device_utilization_ratio", &[("gpu", "1")], 0.0));
}

/// Containers and nobody are the GPU, in time, in memory, and in the counters of time. A GPU that a starved machine did not read says nothing.
fn add_up(page: &Page, what: &str) {
    for gpu in [[("gpu", "0")], [("gpu", "1")]].iter().filter(|gpu| page.value("gpu_device_up", *gpu) == Some(1.0)) {
        let sum = |name| page.select(name, gpu).iter().map(|series| series.value).sum::<f64>();
        let value = |name| page.value(name, gpu).unwrap_or_else(|| panic!("{what}: no {name} of {gpu:?}"));
        for (containers, nobody, device, scale) in [
            ("gpu_utilization", "gpu_device_unattributed_utilization_ratio", "gpu_device_utilization_ratio", 100.0),
            ("gpu_memory_used_bytes", "gpu_device_unattributed_memory_bytes", "gpu_device_memory_used_bytes", 1.0),
            (
                "container_gpu_usage_seconds_total",
                "gpu_device_unattributed_usage_seconds_total",
                "gpu_device_busy_seconds_total",
                1.0,
            ),
        ] {
            let (ours, whole) = (sum(containers) + scale * value(nobody), scale * value(device));
            assert!((ours - whole).abs() <= 1e-6 * whole.max(1.0), "{what}, {gpu:?}: {containers} {ours} of {whole}");
        }
    }
}

#[test]
fn on_every_page_containers_and_nobody_add_up_to_the_gpu() {
    let base = Profile::idle(ModelName::H100, 2);
    let mut node = Node::start(&base, vec![sharer("a", 0, 0), sharer("b", 0, 1), holder("c", 1)], |host| {
        for (pid, name) in [(100, "a"), (101, "a"), (200, "b"), (300, "c")] {
            runs(host, pid, &main_of(name));
        }
        host.host_process(900, "Xorg").unwrap();
        host.mps_server(901, &Container::new("gpu-operator", "mps-control", "main")).unwrap();
    });
    node.until("the holders are known", |page| page.value("gpu_device_holders", &[("gpu", "1")]) == Some(1.0));
    let mps = |pid, sm| Process { kind: Kind::Mps, ..Process::new(pid, sm, 700) };
    let gone = Process::new(777, 20.0, 900);
    let faulty = |call: &str| vec![Fault::of_calls(&[call], AnswerName::Unknown)];
    let mixed = vec![moving(100, 5.0, 45.0, 1.5), Process::new(200, 30.0, 4_000), Process::new(900, 7.0, 300)];
    for (what, processes, faults) in [
        ("time-sliced beside the node's own", mixed.clone(), vec![]),
        ("one without a name", vec![Process::new(200, 30.0, 4_000), gone.clone()], vec![]),
        ("MPS, clients told of", vec![mps(100, 60.0), mps(101, 50.0), mps(200, 40.0)], vec![]),
        ("MPS, server told of", vec![mps(100, 0.0), mps(200, 0.0), Process::new(901, 70.0, 50)], vec![]),
        ("no times of processes", mixed.clone(), faulty("nvmlDeviceGetProcessUtilization")),
        ("no lists of processes", mixed.clone(), faulty("nvmlDeviceGetComputeRunningProcesses_v3")),
        ("no samples", mixed.clone(), faulty("nvmlDeviceGetSamples")),
        ("idle", vec![], vec![]),
        ("busy again", mixed, vec![]),
    ] {
        let mut profile = base.clone();
        profile.gpu(0).processes = processes;
        profile.gpu(1).processes = vec![Process::new(300, 50.0, 9_000), Process::new(900, 20.0, 100), gone.clone()];
        profile.faults = faults;
        node.gpus.set(&profile).unwrap();
        for _ in 0..4 {
            let tick = node.until("a page", |_| true).value("windlass_agent_ticks_total", &[]);
            let page = node.until("the next", |page| page.value("windlass_agent_ticks_total", &[]) > tick);
            add_up(&page, what);
        }
    }
}
