//! Who a pod is: uid and labels from the kubelet's Pods API, ids in all their forms, claims.

use windlass_agent::pods::identity::{LabelNames, Shown};
use windlass_tests::kubelet::{claimant, identity};
use windlass_tests::nvml::{ModelName, Process, Profile};
use windlass_tests::proc::{Cgroup, Container};
use windlass_tests::scrape::Page;

use crate::agent::node::{Node, holder, main_of, runs, sharer};

#[test]
fn pod_uid_and_allowed_labels_come_from_the_kubelets_pods_api() {
    let mut profile = Profile::idle(ModelName::A100, 1);
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 1_000)];
    let mut node = Node::configured(
        &profile,
        vec![sharer("a", 0, 0), sharer("b", 0, 1)],
        // No log of any container: the Pods API alone knows whose process this is.
        |host| host.process(100, &main_of("a"), Cgroup::Systemd).unwrap(),
        |config, _| {
            let names = LabelNames::parse(r"team|app\.kubernetes\.io/.*").unwrap();
            config.shown = Shown { uid: true, labels: Some(names) };
        },
    );
    let labels = [("team", "vision"), ("app.kubernetes.io/name", "llm"), ("pod-template-hash", "5d9c")];
    let page = node.until("without the API everything else is there", |page| {
        page.value("gpu_device_utilization_ratio", &[]) == Some(0.6) && page.select("gpu_utilization", &[]).len() <= 2
    });
    assert!(page.series.iter().all(|series| !series.labels.contains_key("pod_uid")));
    assert_eq!(page.select("windlass_agent_pods_api_up", &[]).len(), 0, "absent where the kubelet has none");
    node.serve_pods_api(vec![identity(&main_of("a"), &labels), identity(&main_of("b"), &[])]);
    let page = node.until("the Pods API is found", |page| page.value("gpu_utilization", &[("pod", "a")]) == Some(60.0));
    assert_eq!(page.value("windlass_agent_pods_api_up", &[]), Some(1.0));
    let series = page.select("gpu_utilization", &[("pod", "a")])[0];
    let label = |name: &str| series.labels.get(name).map(String::as_str);
    assert_eq!(label("pod_uid"), Some(main_of("a").uid.as_str()));
    assert_eq!((label("label_team"), label("label_app_kubernetes_io_name")), (Some("vision"), Some("llm")));
    assert_eq!(label("label_pod_template_hash"), None, "not asked for");
    let dcgm = page.select("DCGM_FI_DEV_GPU_UTIL", &[("pod", "a")])[0];
    assert_eq!(dcgm.labels.get("team").map(String::as_str), Some("vision"), "as dcgm-exporter names it");
}

#[test]
fn a_pod_made_again_under_its_name_has_its_new_uid_and_labels() {
    let mut profile = Profile::idle(ModelName::A100, 1);
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 1_000)];
    let first = main_of("a");
    let mut node = Node::configured(
        &profile,
        vec![holder("a", 0)],
        |host| runs(host, 100, &first),
        |config, _| config.shown = Shown { uid: true, labels: Some(LabelNames::parse("team").unwrap()) },
    );
    node.serve_pods_api(vec![identity(&first, &[("team", "vision")])]);
    let is = |page: &Page, uid: &str, team: &str| {
        !page.select("gpu_utilization", &[("pod", "a"), ("pod_uid", uid), ("label_team", team)]).is_empty()
    };
    node.until("the first is known", |page| is(page, &first.uid, "vision"));
    // Its place is taken between two questions: names, devices, all is as before.
    let again = Container { uid: Container::new("ml", "other", "main").uid, id: "e".repeat(64), ..first };
    node.kubelet.set_identities(vec![identity(&again, &[("team", "speech")])]);
    runs(&node.host, 200, &again);
    profile.gpu(0).processes = vec![Process::new(200, 60.0, 1_000)];
    node.gpus.set(&profile).unwrap();
    node.until("the second is known", |page| is(page, &again.uid, "speech"));
}

#[test]
fn dra_claims_are_held_like_any_other_device() {
    let mut profile = Profile::idle(ModelName::A100, 2);
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 1_000)];
    profile.gpu(1).processes = vec![Process::new(200, 30.0, 1_000), Process::new(201, 20.0, 500)];
    // Claims name device nodes, NVML counts by bus.
    (profile.gpu(0).minor, profile.gpu(1).minor) = (Some(1), Some(0));
    let pods = vec![
        claimant("ml", "own", "main", &["gpu-1"], None),
        // One claim of two pods, each with its share of it.
        claimant("ml", "first", "main", &["gpu-0"], Some("5e1c")),
        claimant("ml", "second", "main", &["gpu-0"], Some("90ab")),
    ];
    let mut node = Node::start(&profile, pods, |host| {
        runs(host, 100, &main_of("own"));
        runs(host, 200, &main_of("first"));
        runs(host, 201, &main_of("second"));
    });
    let page = node.until("each has its part", |page| {
        [("own", 60.0), ("first", 30.0), ("second", 20.0)]
            .iter()
            .all(|(pod, percent)| page.value("gpu_utilization", &[("pod", pod)]) == Some(*percent))
            && page.value("gpu_device_holders", &[("gpu", "1")]) == Some(2.0)
    });
    assert_eq!(page.value("windlass_agent_unknown_device_ids", &[]), Some(0.0));
    assert!(page.value("container_gpu_allocated_seconds_total", &[("pod", "own")]).is_some());
}

#[test]
fn a_plugin_with_ids_of_its_own_is_attributed_by_cgroup_alone() {
    let mut profile = Profile::idle(ModelName::A100, 2);
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 1_000), Process::new(101, 10.0, 500)];
    profile.gpu(1).processes = vec![Process::new(200, 40.0, 1_000)];
    let slots = windlass_tests::nvml::gpu_uuid(1) + "-7";
    let pod =
        |name: &str, resource: &str, id: &str| windlass_tests::kubelet::pod("ml", name, "main", &[(resource, &[id])]);
    let pods = vec![
        pod("slot", "vendor.com/gpu-share", "slot-17"),
        // The slot names the other GPU: which one is used is decided elsewhere.
        pod("hami", "nvidia.com/gpu", &slots),
        holder("owner", 1),
    ];
    let mut node = Node::start(&profile, pods, |host| {
        runs(host, 100, &main_of("slot"));
        runs(host, 101, &main_of("hami"));
        runs(host, 200, &main_of("owner"));
    });
    let page = node.until("each has what it uses", |page| {
        [("slot", 60.0), ("hami", 10.0), ("owner", 40.0)]
            .iter()
            .all(|(pod, percent)| page.value("gpu_utilization", &[("pod", pod)]) == Some(*percent))
            && page.value("windlass_agent_unknown_device_ids", &[]) == Some(1.0)
    });
    assert_eq!(page.select("gpu_utilization", &[("pod", "hami"), ("gpu", "1")]).len(), 0);
}
