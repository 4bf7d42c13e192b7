//! What people ask of a GPU exporter on Kubernetes, one test for each: sharing, MPS, MIG, claims, counters, identity.

use std::time::Duration;

use windlass_proto::podresources::PodResources;
use windlass_tests::kubelet::{claimant, pod};
use windlass_tests::nvml::{AnswerName, Fault, Kind, Mig, ModelName, Process, Profile, gpu_uuid, mig_uuid};
use windlass_tests::proc::{Cgroup, Container};
use windlass_tests::scrape::Page;

use crate::agent::node::{Node, holder, main_of, moving, runs, sampled, sharer, unix};

const MIB: f64 = 1_048_576.0;

fn used(page: &Page, pod: &str) -> Option<f64> {
    page.value("gpu_utilization", &[("pod", pod)])
}

/// Within the sampler's whole percents.
fn near(value: Option<f64>, expect: f64) -> bool {
    value.is_some_and(|value| (value - expect).abs() <= 1.0)
}

fn close(page: &Page, expect: &[(&str, f64)]) -> bool {
    expect.iter().all(|(pod, percent)| near(used(page, pod), *percent))
}

fn counter(page: &Page, name: &str, pod: &str) -> f64 {
    page.value(name, &[("pod", pod)]).unwrap()
}

fn instance(profile: &str, gpu_instance: u32) -> Mig {
    Mig::new(profile, gpu_instance)
}

fn inside(pid: u32, gpu_instance: u32, sm: f64, memory: u64) -> Process {
    Process { gpu_instance: Some(gpu_instance), ..Process::new(pid, sm, memory) }
}

#[test]
fn native_sidecars_of_pod_resources_v1_have_their_own_series() {
    let mut profile = Profile::idle(ModelName::A100, 2);
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 1_000)];
    profile.gpu(1).processes = vec![Process::new(200, 20.0, 1_000)];
    // A native sidecar is an init container with restartPolicy Always: the v1 API lists it like any container.
    let mut trainer = holder("trainer", 0);
    trainer.containers.extend(pod("ml", "trainer", "proxy", &[("nvidia.com/gpu", &[&gpu_uuid(1)])]).containers);
    let mut node = Node::start(&profile, vec![trainer], |host| {
        runs(host, 100, &main_of("trainer"));
        runs(host, 200, &Container::new("ml", "trainer", "proxy"));
    });
    node.until("both containers", |page| {
        let of = |container| page.value("gpu_utilization", &[("pod", "trainer"), ("container", container)]);
        near(of("main"), 60.0) && near(of("proxy"), 20.0)
    });
}

#[test]
fn an_init_container_has_its_own_use_of_its_pods_gpu() {
    let mut profile = Profile::idle(ModelName::A100, 1);
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 1_000)];
    let mut node = Node::start(&profile, vec![holder("trainer", 0)], |host| {
        runs(host, 100, &Container::new("ml", "trainer", "warm-up"));
    });
    let page = node.until("the init container has it", |page| {
        let of = |container| page.value("gpu_utilization", &[("container", container)]);
        near(of("warm-up"), 60.0) && near(of("main"), 0.0)
    });
    assert_eq!(page.select("container_gpu_allocated_seconds_total", &[]).len(), 1, "the kubelet gave it to main");
}

#[test]
fn one_pod_resources_connection_is_kept_and_a_rate_limit_is_not_pressed() {
    use windlass_tests::kubelet::Trouble;
    let mut node = Node::start(&Profile::idle(ModelName::A100, 1), vec![holder("a", 0)], |_| ());
    node.until("the map is there", |page| used(page, "a") == Some(0.0));
    node.kubelet.trouble(Trouble::RateLimited);
    node.until("the refusal is told", |page| page.value("windlass_agent_kubelet_up", &[]) == Some(0.0));
    let (refused, since) = (node.kubelet.calls(), unix());
    // Strangers knock all the while; what is refused is asked again after one second, then two, then four.
    for pid in 0..6 {
        node.host.process(300 + pid, &main_of("stranger"), Cgroup::Systemd).unwrap();
        let mut profile = Profile::idle(ModelName::A100, 1);
        profile.gpu(0).processes = vec![Process::new(300 + pid, 5.0, 100)];
        node.gpus.set(&profile).unwrap();
        std::thread::sleep(Duration::from_millis(400));
    }
    let (asked, seconds) = (node.kubelet.calls() - refused, unix() - since);
    assert!(asked as f64 <= 1.0 + (1.0 + seconds).log2(), "{asked} calls in {seconds} s");
    node.kubelet.trouble(Trouble::None);
    node.until("it is heard again", |page| page.value("windlass_agent_kubelet_up", &[]) == Some(1.0));
    assert_eq!(node.kubelet.connections(), 1);
}

#[test]
fn all_pods_of_a_shared_gpu_are_shown_with_their_memory_and_an_idle_holder_is_an_explicit_zero() {
    let mut profile = Profile::idle(ModelName::T4, 1);
    profile.gpu(0).processes = vec![Process::new(100, 30.0, 700), Process::new(101, 20.0, 300)];
    // One pod holds two slots; it is one holder.
    let two = [format!("{}::3", gpu_uuid(0)), format!("{}::4", gpu_uuid(0))];
    let two: Vec<&str> = two.iter().map(String::as_str).collect();
    let pods = vec![
        sharer("a", 0, 0),
        sharer("b", 0, 1),
        sharer("idle", 0, 2),
        pod("ml", "slots", "main", &[("nvidia.com/gpu", &two)]),
    ];
    let mut node = Node::start(&profile, pods, |host| {
        runs(host, 100, &main_of("a"));
        runs(host, 101, &main_of("b"));
    });
    let page = node.until("each", |page| close(page, &[("a", 30.0), ("b", 20.0), ("idle", 0.0), ("slots", 0.0)]));
    assert_eq!(page.select("gpu_utilization", &[]).len(), 4);
    let memory = |pod| page.value("gpu_memory_used_bytes", &[("pod", pod)]);
    assert_eq!((memory("a"), memory("b"), memory("idle")), (Some(700.0 * MIB), Some(300.0 * MIB), Some(0.0)));
}

#[test]
fn the_window_average_keeps_what_was_last_seen_of_each_gpu() {
    let mut profile = Profile::idle(ModelName::A100, 2);
    // On one GPU something happens all the time, on the other in bursts with silence between.
    profile.gpu(0).processes = vec![moving(100, 10.0, 50.0, 1.7)];
    profile.gpu(1).processes = vec![moving(200, 0.0, 80.0, 5.0)];
    let mut node =
        Node::start(&profile, vec![sharer("steady", 0, 0), sharer("bursts", 1, 0), sharer("idle", 1, 1)], |host| {
            runs(host, 100, &main_of("steady"));
            runs(host, 200, &main_of("bursts"));
        });
    let total = "container_gpu_usage_seconds_total";
    let first = node.until("both are measured", |page| {
        ["steady", "bursts"].iter().all(|pod| page.value(total, &[("pod", pod)]) > Some(0.0))
    });
    let time = |page: &Page, gpu: u32| {
        page.value("gpu_device_last_sample_timestamp_seconds", &[("gpu", gpu.to_string().as_str())]).unwrap()
    };
    let (first, last) = node.without_gap(first, 10.0);
    for (gpu, pid, pod) in [(0, 100, "steady"), (1, 200, "bursts")] {
        let (start, end) = (time(&first, gpu), time(&last, gpu));
        let truth = node.gpus.mean_sm(gpu, pid, Duration::from_secs_f64(start), Duration::from_secs_f64(end));
        let said = 100.0 * (counter(&last, total, pod) - counter(&first, total, pod)) / (end - start);
        assert!((said - truth).abs() < 4.0, "{pod}: said {said}, true {truth}");
    }
}

#[test]
fn mps_clients_are_attributed_whether_the_driver_tells_of_them_or_of_their_server() {
    let mut profile = Profile::idle(ModelName::A100, 2);
    let client = |pid, sm, sampled| Process { kind: Kind::Mps, sampled, ..Process::new(pid, sm, 500) };
    let server = |pid| Process { kind: Kind::MpsServer, ..Process::new(pid, 0.0, 30) };
    profile.gpu(0).processes = vec![client(100, 40.0, true), client(101, 10.0, true), server(90)];
    profile.gpu(1).processes = vec![client(200, 25.0, false), client(201, 25.0, false), server(91)];
    let pods = vec![sharer("a", 0, 0), sharer("b", 0, 1), sharer("c", 1, 0), sharer("d", 1, 1), sharer("idle", 1, 2)];
    let mut node = Node::start(&profile, pods, |host| {
        for (pid, name) in [(100, "a"), (101, "b"), (200, "c"), (201, "d")] {
            runs(host, pid, &main_of(name));
        }
        let daemon = Container::new("gpu-operator", "mps-control-daemon", "main");
        host.container(&daemon).unwrap();
        host.mps_server(90, &daemon).unwrap();
        host.mps_server(91, &daemon).unwrap();
    });
    let page = node.until("clients have their parts", |page| {
        close(page, &[("a", 40.0), ("b", 10.0), ("c", 25.0), ("d", 25.0), ("idle", 0.0)])
    });
    assert_eq!(
        page.select("gpu_utilization", &[("namespace", "gpu-operator")]).len(),
        0,
        "the server has no use of its own"
    );
    let rest = page.value("gpu_device_unattributed_utilization_ratio", &[("gpu", "1")]);
    assert!(rest.is_some_and(|rest| rest <= 0.01), "{rest:?}");
    profile.faults = vec![Fault::of_calls(&["nvmlDeviceGetMPSComputeRunningProcesses_v3"], AnswerName::Unknown)];
    node.gpus.set(&profile).unwrap();
    let failures = [("call", "mps_processes"), ("cause", "unknown")];
    let page = node
        .until("clients are not told", |page| page.select("windlass_agent_nvml_errors_total", &failures).len() == 1);
    assert!(close(&page, &[("c", 25.0), ("d", 25.0)]), "those of before stand");
}

#[test]
fn gpu_seconds_energy_and_allocated_time_are_counted_per_pod() {
    let mut profile = Profile::idle(ModelName::A100, 2);
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 1_000), Process::new(101, 20.0, 500)];
    let mut node =
        Node::start(&profile, vec![sharer("a", 0, 0), sharer("b", 0, 1), holder("requested-but-idle", 1)], |host| {
            runs(host, 100, &main_of("a"));
            runs(host, 101, &main_of("b"));
        });
    let [usage, allocated, energy] = [
        "container_gpu_usage_seconds_total",
        "container_gpu_allocated_seconds_total",
        "container_gpu_energy_joules_total",
    ];
    let device = |page: &Page, gpu| page.value("gpu_device_energy_joules_total", &[("gpu", gpu)]).unwrap();
    let first = node.until("all count", |page| {
        ["a", "b"].iter().all(|pod| page.value(energy, &[("pod", pod)]) > Some(0.0)) && close(page, &[("a", 60.0)])
    });
    let (first, last) = node.without_gap(first, 5.0);
    let seconds = sampled(&last) - sampled(&first);
    let grown = |name, pod| counter(&last, name, pod) - counter(&first, name, pod);
    assert!((grown(usage, "a") / seconds - 0.6).abs() < 0.04, "{} in {seconds}", grown(usage, "a"));
    assert!((grown(usage, "b") / seconds - 0.2).abs() < 0.04);
    assert!((grown(allocated, "b") / seconds - 1.0).abs() < 0.02);
    let (a, b, all) = (grown(energy, "a"), grown(energy, "b"), device(&last, "0") - device(&first, "0"));
    assert!((a / b - 3.0).abs() < 0.3, "by SM share: {a} J and {b} J");
    assert!((a + b - all).abs() < 0.05 * all, "{a} and {b} of {all} J");
    // Requested but idle: allocated, not used, and its watts are its holder's.
    assert!(grown(usage, "requested-but-idle").abs() < f64::EPSILON);
    assert!((grown(allocated, "requested-but-idle") / seconds - 1.0).abs() < 0.02);
    let idle = device(&last, "1") - device(&first, "1");
    assert!((grown(energy, "requested-but-idle") - idle).abs() < 0.05 * idle);
}

#[test]
fn a_pid_that_another_process_got_is_another_process() {
    let mut profile = Profile::idle(ModelName::A100, 1);
    profile.gpu(0).processes = vec![Process::new(100, 40.0, 500)];
    let mut node = Node::start(&profile, vec![sharer("a", 0, 0), sharer("b", 0, 1)], |host| {
        runs(host, 100, &main_of("a"));
        host.container(&main_of("b")).unwrap();
    });
    node.until("it is a's", |page| close(page, &[("a", 40.0), ("b", 0.0)]));
    node.gpus.set(&Profile::idle(ModelName::A100, 1)).unwrap();
    node.until("it has ended", |page| close(page, &[("a", 0.0), ("b", 0.0)]));
    node.host.reuse(100, &main_of("b"), Cgroup::Systemd).unwrap();
    node.gpus.set(&profile).unwrap();
    node.until("now it is b's", |page| close(page, &[("a", 0.0), ("b", 40.0)]));
}

#[test]
fn mig_utilization_and_memory_per_instance_are_normalised_to_the_instance() {
    let mut profile = Profile::idle(ModelName::H100, 1);
    profile.gpu(0).mig =
        Some(vec![instance("3g.40gb", 2), instance("1g.10gb", 9), instance("1g.10gb", 10), instance("1g.10gb", 11)]);
    profile.gpu(0).processes = vec![
        inside(100, 2, 90.0, 9_000),
        inside(200, 9, 50.0, 1_500),
        inside(300, 10, 20.0, 300),
        inside(301, 10, 10.0, 100),
        inside(400, 11, 70.0, 200),
    ];
    let mig = |name: &str, gpu_instance, replica: &str| {
        pod("ml", name, "main", &[("nvidia.com/mig", &[&(mig_uuid(0, gpu_instance, 0) + replica)])])
    };
    let mut pods = vec![mig("large", 2, ""), mig("small", 9, ""), mig("first", 10, "::0"), mig("second", 10, "::1")];
    pods.extend([mig("lone", 11, "::0"), mig("waiting", 11, "::1")]);
    let mut node = Node::start(&profile, pods, |host| {
        for (pid, name) in [(100, "large"), (200, "small"), (300, "first"), (301, "second"), (400, "lone")] {
            runs(host, pid, &main_of(name));
        }
    });
    // Of two that share an instance and of which one has a process, all of its time is that one's.
    let page = node.until("percent of the instance", |page| {
        close(page, &[("large", 90.0), ("small", 50.0), ("lone", 70.0), ("waiting", 0.0)])
    });
    let memory = |pod| page.value("gpu_memory_used_bytes", &[("pod", pod)]);
    assert_eq!((memory("large"), memory("small")), (Some(9_000.0 * MIB), Some(1_500.0 * MIB)));
    let dcgm = page.select("DCGM_FI_DEV_GPU_UTIL", &[("pod", "large")])[0];
    assert_eq!((dcgm.labels["GPU_I_ID"].as_str(), dcgm.labels["GPU_I_PROFILE"].as_str()), ("2", "3g.40gb"));
    // Two inside one instance: memory is told apart, time is not, and is nobody's.
    assert_eq!((used(&page, "first"), memory("first"), memory("second")), (None, Some(300.0 * MIB), Some(100.0 * MIB)));
    let shared = [("uuid", &*mig_uuid(0, 10, 0))];
    let rest = page.value("gpu_mig_unattributed_utilization_ratio", &shared).map(|ratio| ratio * 100.0);
    assert!(near(rest, 30.0), "{rest:?}");
    assert_eq!(page.value("gpu_mig_unattributed_memory_bytes", &shared), Some(0.0));
    assert!(page.value("container_gpu_usage_seconds_total", &[("pod", "large")]).is_some());
}

#[test]
fn gke_ids_are_understood() {
    let mut profile = Profile::idle(ModelName::H100, 3);
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 1_000)];
    profile.gpu(1).processes = vec![Process::new(200, 30.0, 1_000), Process::new(201, 20.0, 500)];
    profile.gpu(2).mig = Some(vec![instance("1g.10gb", 7), instance("1g.10gb", 8)]);
    profile.gpu(2).processes = vec![inside(300, 7, 40.0, 100), inside(301, 8, 70.0, 100)];
    // Ids count by device node, NVML by bus.
    (0..3).zip([2, 0, 1]).for_each(|(gpu, minor)| profile.gpu(gpu).minor = Some(minor));
    let gke = |name: &str, id: &str| pod("ml", name, "main", &[("nvidia.com/gpu", &[id])]);
    let pods = vec![
        gke("whole", "nvidia2"),
        gke("shared", "nvidia0/vgpu0"),
        gke("other", "nvidia0/vgpu1"),
        gke("instance", "nvidia1/gi7"),
        gke("part", "nvidia1/gi8/vgpu0"),
    ];
    let mut node = Node::start(&profile, pods, |host| {
        for (pid, name) in [(100, "whole"), (200, "shared"), (201, "other"), (300, "instance"), (301, "part")] {
            runs(host, pid, &main_of(name));
        }
    });
    let page = node.until("each has its part, as the kubelet gave it", |page| {
        close(page, &[("whole", 60.0), ("shared", 30.0), ("other", 20.0), ("instance", 40.0), ("part", 70.0)])
            && page.value("gpu_device_holders", &[("gpu", "0")]).is_some_and(|holders| holders > 0.0)
    });
    assert_eq!(page.value("windlass_agent_unknown_device_ids", &[]), Some(0.0));
    for (gpu, holders) in [("0", 1.0), ("1", 2.0), ("2", 2.0)] {
        assert_eq!(page.value("gpu_device_holders", &[("gpu", gpu)]), Some(holders), "GPU {gpu}");
    }
}

#[test]
fn claims_and_sharing_at_once_with_share_ids_and_dynamic_mig() {
    let mut profile = Profile::idle(ModelName::H100, 3);
    profile.gpu(0).processes = vec![Process::new(100, 30.0, 1_000), Process::new(101, 20.0, 500)];
    profile.gpu(1).processes = vec![Process::new(200, 10.0, 500), Process::new(201, 5.0, 500)];
    profile.gpu(2).mig = Some(Vec::new());
    let claim = |name: &str, device: &str, share| -> PodResources { claimant("ml", name, "main", &[device], share) };
    let mut pods = vec![
        claim("first", "gpu-0", Some("5e1c")),
        claim("second", "gpu-0", Some("90ab")),
        sharer("slice-a", 1, 0),
        sharer("slice-b", 1, 1),
    ];
    let mut node = Node::start(&profile, pods.clone(), |host| {
        for (pid, name) in
            [(100, "first"), (101, "second"), (200, "slice-a"), (201, "slice-b"), (300, "dynamic"), (301, "twin")]
        {
            runs(host, pid, &main_of(name));
        }
    });
    node.until("claims and slices, side by side", |page| {
        close(page, &[("first", 30.0), ("second", 20.0), ("slice-a", 10.0), ("slice-b", 5.0)])
    });
    // Claims of instances that did not exist before they were prepared; two of one profile.
    pods.push(claim("dynamic", "gpu-2-mig-1g10gb-19-4", None));
    pods.push(claim("twin", "gpu-2-mig-1g10gb-19-0", None));
    node.kubelet.set_pods(pods);
    profile.gpu(2).mig = Some(vec![instance("1g.10gb", 7), instance("1g.10gb", 8)]);
    profile.gpu(2).processes = vec![inside(300, 8, 80.0, 900), inside(301, 7, 40.0, 300)];
    node.gpus.set(&profile).unwrap();
    let allocated = [("pod", "dynamic"), ("uuid", &*mig_uuid(2, 8, 0))];
    node.until("the new instances are their claims'", |page| {
        close(page, &[("dynamic", 80.0), ("twin", 40.0)])
            && page.value("container_gpu_allocated_seconds_total", &allocated).is_some()
    });
}

#[test]
fn a_claimed_instance_that_idles_is_found_by_its_place() {
    let mut profile = Profile::idle(ModelName::H100, 1);
    let place = |gpu_instance, placement| Mig { placement: Some(placement), ..Mig::new("1g.10gb", gpu_instance) };
    profile.gpu(0).mig = Some(vec![place(7, 4), place(8, 0)]);
    let pods = vec![
        claimant("ml", "first", "main", &["gpu-0-mig-1g10gb-19-0"], None),
        claimant("ml", "second", "main", &["gpu-0-mig-1g10gb-19-4"], None),
    ];
    let mut node = Node::start(&profile, pods, |_| ());
    let page = node.until("both idle in their instances", |page| close(page, &[("first", 0.0), ("second", 0.0)]));
    let uuid = |pod| page.select("gpu_utilization", &[("pod", pod)])[0].labels["uuid"].clone();
    assert_eq!((uuid("first"), uuid("second")), (mig_uuid(0, 8, 0), mig_uuid(0, 7, 0)));
}
