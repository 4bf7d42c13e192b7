//! The page as golden text: a whole GPU, a shared one, a MIG instance, a lost GPU; and properties of every page.

mod earlier;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::attribution::attribute;
use crate::config::DcgmNames;
use crate::gpu::{Gpm, Gpu, Identity, Memory, MigInstance, Process, ProcessUtilization, Reading, Xid};
use crate::pods::identity::{LabelNames, Pod, Shown};
use crate::pods::{Assignment, Holders, Owner, Whose};

const GIB: u64 = 1 << 30;

fn owner(pod: &str, container: &str) -> Arc<Owner> {
    Arc::new(Owner { namespace: "ml".into(), pod: pod.into(), container: container.into() })
}

fn identity(index: u32) -> Arc<Identity> {
    let model = Some(r#"Fake "8\0""#.into());
    Arc::new(Identity { index, uuid: format!("GPU-{index}").into(), model, minor: Some(index), pci_bus_id: None })
}

fn gpu(index: u32) -> Gpu {
    Gpu {
        identity: identity(index),
        up: true,
        utilization: Some(80.0),
        memory: Some(Memory { total: 80 * GIB, used: 30 * GIB, free: 49 * GIB, reserved: GIB }),
        power_watts: Some(312.5),
        energy_joules: Some(5000.25),
        processes: Some(vec![]),
        process_utilization: Some(vec![]),
        ..Gpu::default()
    }
}

/// GPU 0 is train's, GPU 1 is shared by a (with one process) and b (idle), GPU 2 has a MIG instance of c, GPU 3 is lost.
fn snapshot() -> Snapshot {
    let shared = Gpu {
        processes: Some(vec![Process { pid: 7, memory: Some(10 * GIB), ..Process::default() }]),
        process_utilization: Some(vec![ProcessUtilization { pid: 7, sm: 60.0 }]),
        ..gpu(1)
    };
    let instance = MigInstance {
        uuid: "MIG-1".into(),
        gpu_instance: Some(9),
        compute_instance: Some(0),
        profile: "1g.10gb".into(),
        placement: None,
        memory: Some(Memory { total: 10 * GIB, used: 4 * GIB, free: 6 * GIB, reserved: 0 }),
        ..MigInstance::default()
    };
    let partitioned =
        Gpu { utilization: None, memory: None, process_utilization: None, mig: Some(vec![instance]), ..gpu(2) };
    let lost = Gpu { identity: identity(3), ..Gpu::default() };
    let give = |owner: Arc<Owner>, id: &str| Assignment { owner, device_id: id.into(), claimed: false };
    let holders = Holders::new(vec![
        give(owner("train", "main"), "GPU-0"),
        give(owner("a", "main"), "GPU-1::0"),
        give(owner("b", "main"), "GPU-1::1"),
        give(owner("c", "main"), "MIG-1"),
        give(owner("d", "main"), "GPU-3"),
    ]);
    let reading = Reading { driver_version: Some("580.95.05".into()), gpus: vec![gpu(0), shared, partitioned, lost] };
    attribute(reading, &holders, &[(7, Whose::Container(owner("a", "main")))].into())
}

fn page(snapshot: &Snapshot, names: DcgmNames, series_max: usize) -> (Page, String) {
    shown(snapshot, &Choice::of(names), series_max)
}

fn shown(snapshot: &Snapshot, choice: &Choice, series_max: usize) -> (Page, String) {
    let mut totals = Totals::default();
    totals.advance(snapshot, Duration::from_secs(10), Duration::from_secs(3));
    totals.advance(snapshot, Duration::from_secs(11), Duration::from_secs(3));
    let own = Own { version: "1.2.3", nvml_failures: vec![("power_usage", "not_supported", 2)], ..Own::default() };
    let sources = Sources {
        snapshot,
        identities: &Arc::default(),
        totals: &totals,
        time: 1_700_000_000.5,
        node: "node-1",
        choice: &Arc::new(choice.clone()),
        own: &own,
        series_max,
    };
    let page = render(&sources, Page::default());
    let text = String::from_utf8(page.text.to_vec()).unwrap();
    (page, text)
}

fn check(family: &str, expect: &[&str]) {
    let (_, text) = page(&snapshot(), DcgmNames::Compat, 1000);
    let lines: Vec<_> = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(family)).collect();
    assert_eq!(lines, expect);
}

#[test]
fn each_container_has_its_use() {
    check(
        "gpu_utilization",
        &[
            r#"gpu_utilization{namespace="ml",pod="train",container="main",gpu="0",uuid="GPU-0",mig_profile="",node="node-1"} 80"#,
            r#"gpu_utilization{namespace="ml",pod="a",container="main",gpu="1",uuid="GPU-1",mig_profile="",node="node-1"} 60"#,
            r#"gpu_utilization{namespace="ml",pod="b",container="main",gpu="1",uuid="GPU-1",mig_profile="",node="node-1"} 0"#,
        ],
    );
    check(
        "gpu_memory_used_bytes",
        &[
            r#"gpu_memory_used_bytes{namespace="ml",pod="train",container="main",gpu="0",uuid="GPU-0",mig_profile="",node="node-1"} 32212254720"#,
            r#"gpu_memory_used_bytes{namespace="ml",pod="a",container="main",gpu="1",uuid="GPU-1",mig_profile="",node="node-1"} 10737418240"#,
            r#"gpu_memory_used_bytes{namespace="ml",pod="b",container="main",gpu="1",uuid="GPU-1",mig_profile="",node="node-1"} 0"#,
            r#"gpu_memory_used_bytes{namespace="ml",pod="c",container="main",gpu="2",uuid="MIG-1",mig_profile="1g.10gb",node="node-1"} 4294967296"#,
        ],
    );
    check(
        "container_gpu_usage_seconds_total",
        &[
            r#"container_gpu_usage_seconds_total{namespace="ml",pod="train",container="main",gpu="0",uuid="GPU-0",mig_profile="",node="node-1"} 0.8"#,
            r#"container_gpu_usage_seconds_total{namespace="ml",pod="a",container="main",gpu="1",uuid="GPU-1",mig_profile="",node="node-1"} 0.6"#,
            r#"container_gpu_usage_seconds_total{namespace="ml",pod="b",container="main",gpu="1",uuid="GPU-1",mig_profile="",node="node-1"} 0"#,
        ],
    );
}

#[test]
fn what_was_not_read_is_not_there() {
    check(
        "gpu_device_up",
        &[
            r#"gpu_device_up{gpu="0",uuid="GPU-0",model="Fake \"8\\0\"",node="node-1"} 1"#,
            r#"gpu_device_up{gpu="1",uuid="GPU-1",model="Fake \"8\\0\"",node="node-1"} 1"#,
            r#"gpu_device_up{gpu="2",uuid="GPU-2",model="Fake \"8\\0\"",node="node-1"} 1"#,
            r#"gpu_device_up{gpu="3",uuid="GPU-3",model="Fake \"8\\0\"",node="node-1"} 0"#,
        ],
    );
    check(
        "gpu_device_utilization_ratio",
        &[
            r#"gpu_device_utilization_ratio{gpu="0",uuid="GPU-0",model="Fake \"8\\0\"",node="node-1"} 0.8"#,
            r#"gpu_device_utilization_ratio{gpu="1",uuid="GPU-1",model="Fake \"8\\0\"",node="node-1"} 0.8"#,
        ],
    );
    check("gpu_device_temperature_celsius", &[]);
    check(
        "gpu_device_unattributed_memory_bytes",
        &[
            r#"gpu_device_unattributed_memory_bytes{gpu="0",uuid="GPU-0",model="Fake \"8\\0\"",node="node-1"} 0"#,
            r#"gpu_device_unattributed_memory_bytes{gpu="1",uuid="GPU-1",model="Fake \"8\\0\"",node="node-1"} 21474836480"#,
            r#"gpu_device_unattributed_memory_bytes{gpu="2",uuid="GPU-2",model="Fake \"8\\0\"",node="node-1"} 0"#,
        ],
    );
}

#[test]
fn dcgm_series_add_up_to_the_gpu() {
    let labels = |gpu: u32, rest: &str| {
        format!(
            r#"{{gpu="{gpu}",UUID="GPU-{gpu}",pci_bus_id="",device="nvidia{gpu}",modelName="Fake \"8\\0\"",Hostname="node-1",hostname="node-1",DCGM_FI_DRIVER_VERSION="580.95.05",{rest}}}"#
        )
    };
    let pod = |pod: &str| format!(r#"namespace="ml",pod="{pod}",container="main""#);
    let nobody = r#"namespace="",pod="",container="""#;
    check(
        "DCGM_FI_DEV_GPU_UTIL",
        &[
            &format!("DCGM_FI_DEV_GPU_UTIL{} 80", labels(0, &pod("train"))),
            &format!("DCGM_FI_DEV_GPU_UTIL{} 60", labels(1, &pod("a"))),
            &format!("DCGM_FI_DEV_GPU_UTIL{} 0", labels(1, &pod("b"))),
            &format!("DCGM_FI_DEV_GPU_UTIL{} 20", labels(1, nobody)),
        ],
    );
    let instance = format!(r#"GPU_I_PROFILE="1g.10gb",GPU_I_ID="9",{}"#, pod("c"));
    check(
        "DCGM_FI_DEV_FB_FREE",
        &[
            &format!("DCGM_FI_DEV_FB_FREE{} 50176", labels(0, &pod("train"))),
            &format!("DCGM_FI_DEV_FB_FREE{} 50176", labels(1, nobody)),
            &format!("DCGM_FI_DEV_FB_FREE{} 50176", labels(1, &pod("a"))),
            &format!("DCGM_FI_DEV_FB_FREE{} 50176", labels(1, &pod("b"))),
            &format!("DCGM_FI_DEV_FB_FREE{} 6144", labels(2, &instance)),
        ],
    );
    check(
        "DCGM_FI_DEV_POWER_USAGE",
        &[
            &format!("DCGM_FI_DEV_POWER_USAGE{} 312.5", labels(0, &pod("train"))),
            &format!("DCGM_FI_DEV_POWER_USAGE{} 312.5", labels(1, nobody)),
            &format!("DCGM_FI_DEV_POWER_USAGE{} 312.5", labels(2, nobody)),
        ],
    );
}

#[test]
fn names_and_hostname_can_be_switched() {
    let (_, text) = page(&snapshot(), DcgmNames::V46, 1000);
    assert!(text.contains("DCGM_FI_DEV_GPU_UTIL_RATIO{") && !text.contains("DCGM_FI_DEV_GPU_UTIL{"));
    assert!(text.contains(r#"Hostname="node-1",hostname="node-1""#), "rules select on either");
    let (_, text) = page(&snapshot(), DcgmNames::Off, 1000);
    assert!(!text.contains("DCGM_"));
}

#[test]
fn a_counters_file_decides_on_names_helps_types_and_labels() {
    let (choice, _) = Choice::parse(
        "DCGM_FI_DEV_GPU_UTIL_RATIO, gauge, Mine.\nDCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION, gauge, x\nDCGM_FI_DEV_FB_TOTAL, gauge, All.\nDCGM_FI_DEV_NAME, label, x\n",
    );
    let (_, text) = shown(&snapshot(), &choice, 1000);
    let declared: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE DCGM")).collect();
    assert_eq!(
        declared,
        [
            "# TYPE DCGM_FI_DEV_GPU_UTIL_RATIO gauge",
            "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION gauge",
            "# TYPE DCGM_FI_DEV_FB_TOTAL gauge"
        ]
    );
    assert!(
        text.contains("# HELP DCGM_FI_DEV_GPU_UTIL_RATIO Mine.\n") && text.contains("# TYPE gpu_device_up gauge\n")
    );
    assert!(text.contains("DCGM_FI_DEV_NAME=") && !text.contains("DCGM_FI_DRIVER_VERSION="));
}

#[test]
fn profiling_is_a_part_of_the_gpu_or_of_the_instance_and_the_last_xid_has_its_words() {
    let gpm = |percent: f64| Some(Gpm { graphics: Some(percent), tensor: Some(percent / 2.0), ..Gpm::default() });
    let mut snapshot = snapshot();
    snapshot.gpus[0].gpu.gpm = gpm(50.0);
    snapshot.gpus[2].gpu.mig.as_mut().unwrap()[0].gpm = gpm(90.0);
    let xid = |code, last| Xid { code, count: 1, last, recent: 1 };
    snapshot.gpus[1].gpu.xids = vec![xid(79, 20.0), xid(31, 10.0), xid(999, 5.0)];
    let (_, text) = page(&snapshot, DcgmNames::Compat, 1000);
    let line = |family: &str, gpu: &str| {
        let fits = |line: &&str| line.starts_with(&format!("{family}{{gpu=\"{gpu}\""));
        text.lines().find(fits).unwrap_or_default().to_owned()
    };
    assert!(line("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "0").ends_with(r#"pod="train",container="main"} 0.5"#));
    let instance = line("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "2");
    assert!(
        instance.contains(r#"GPU_I_ID="9""#) && instance.ends_with(r#"pod="c",container="main"} 0.9"#),
        "{instance}"
    );
    assert!(line("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "0").ends_with(" 0.25"));
    assert!(line("DCGM_FI_DEV_XID_ERRORS", "0").ends_with(r#"err_code="0",err_msg="none"} 0"#));
    assert!(line("DCGM_FI_DEV_XID_ERRORS", "1").ends_with(r#"err_code="79",err_msg="GPU has fallen off the bus"} 79"#));
    assert_eq!(line("DCGM_FI_DEV_XID_ERRORS", "3"), "", "a lost GPU says nothing");
}

#[test]
fn no_series_is_there_twice_and_each_family_is_declared_once() {
    let (page, text) = page(&snapshot(), DcgmNames::Compat, 1000);
    let (mut series, mut declared) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(declared.insert(help.split(' ').next().unwrap().to_owned()), "{line}");
        } else if !line.starts_with('#') {
            assert!(series.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "{line}");
        }
    }
    assert_eq!((series.len(), page.dropped), (page.series, Dropped::default()));
}

#[test]
fn a_full_page_drops_and_says_so() {
    let (whole, _) = page(&snapshot(), DcgmNames::Compat, 1000);
    let (cut, text) = page(&snapshot(), DcgmNames::Compat, 10);
    let over = Dropped { max_series: whole.series as u64 - 10, long_label: 0 };
    assert_eq!((cut.series, cut.dropped), (10, over));
    assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 10);
}

#[test]
fn feature_54_labels_are_escaped_and_a_value_without_end_costs_only_its_series() {
    let (_, text) = page(&snapshot(), DcgmNames::Compat, 1000);
    assert!(text.contains(r#"model="Fake \"8\\0\"""#), "{text}");
    let mut long = snapshot();
    long.gpus[1].gpu.identity = Arc::new(Identity { model: Some("x".repeat(513).into()), ..(*identity(1)).clone() });
    let (cut, text) = page(&long, DcgmNames::Compat, 1000);
    assert!(cut.dropped.long_label > 0 && cut.dropped.max_series == 0, "{:?}", cut.dropped);
    assert!(text.contains(r#"gpu_device_up{gpu="0""#) && !text.contains(r#"gpu_device_up{gpu="1""#));
    assert_eq!(page(&long, DcgmNames::Compat, 1000).1, text, "the order is stable");
}

#[test]
fn without_gpus_the_agent_still_speaks_of_itself() {
    let (_, text) = page(&Snapshot::default(), DcgmNames::Compat, 1000);
    assert!(
        text.contains("windlass_agent_nvml_up 1") && text.contains(r#"windlass_agent_build_info{version="1.2.3"} 1"#)
    );
    assert!(text.contains(r#"windlass_agent_nvml_errors_total{call="power_usage",cause="not_supported"} 2"#));
    assert!(!text.contains("gpu_device_up"));
}

#[test]
fn a_pods_uid_and_labels_stand_on_its_series_escaped() {
    let shown = Shown { uid: true, labels: Some(LabelNames::parse("team|pod|9x|xid|GPU_I_ID|job|__name__").unwrap()) };
    let labels = [
        ("team", "a\"b\\c\nd"),
        ("pod", "mine"),
        ("9x", "n"),
        ("xid", "31"),
        ("GPU_I_ID", "7"),
        ("job", "j"),
        ("__name__", "up"),
        ("other", "x"),
    ];
    let pod = Pod {
        namespace: "ml".into(),
        name: "train".into(),
        uid: "u-1".into(),
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        containers: Vec::new(),
    };
    let identities = Arc::new(Identities::new([pod], &shown));
    let (snapshot, totals, own) = (snapshot(), Totals::default(), Own::default());
    let (time, node, choice, series_max) = (1.0, "node-1", Arc::new(Choice::of(DcgmNames::Compat)), 1000);
    let sources = Sources {
        snapshot: &snapshot,
        identities: &identities,
        totals: &totals,
        time,
        node,
        choice: &choice,
        own: &own,
        series_max,
    };
    let text = String::from_utf8(render(&sources, Page::default()).text.into()).unwrap();
    let line = |family: &str, pod: &str| {
        let fits = |line: &&str| line.starts_with(&format!("{family}{{")) && line.contains(&format!("pod=\"{pod}\""));
        text.lines().find(fits).unwrap().to_owned()
    };
    let own = line("gpu_utilization", "train");
    let labels = r#"pod_uid="u-1",label_9x="n",label_GPU_I_ID="7",label___name__="up",label_job="j",label_pod="mine",label_team="a\"b\\c\nd",label_xid="31"}"#;
    assert!(own.contains(labels), "{own}");
    let dcgm = line("DCGM_FI_DEV_GPU_UTIL", "train");
    // A pod label named like a label of the series, or of another series of DCGM's, stays away; one that would be no name, or a scraper's, keeps ours.
    let labels = r#"container="main",pod_uid="u-1",label_9x="n",label___name__="up",label_job="j",team="a\"b\\c\nd"}"#;
    assert!(dcgm.contains(labels), "{dcgm}");
    assert!(!line("gpu_utilization", "a").contains("pod_uid"), "not known, not shown");
}
