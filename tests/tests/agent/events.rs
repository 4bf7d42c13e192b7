//! What dcgm-exporter adds to DCGM's own fields, and how a GPU is set up for virtual and confidential machines.

use windlass_tests::nvml::{AnswerName, Fault, ModelName, Process, Profile};
use windlass_tests::scrape::Page;

use crate::agent::node::{Node, unix};

const FIRST: (&str, &str) = ("gpu", "0");
const SECOND: (&str, &str) = ("gpu", "1");

fn counters(profile: &Profile, rows: &str) -> (Node, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counters.csv");
    std::fs::write(&file, rows).unwrap();
    (Node::configured(profile, vec![], |_| (), |config, _| config.collectors = Some(file)), folder)
}

#[test]
fn xid_errors_and_clock_events_are_counted_as_dcgm_exporter_counts_them() {
    let mut profile = Profile::idle(ModelName::H100, 2);
    profile.gpu(0).processes = vec![Process::new(100, 100.0, 1_000)];
    profile.gpu(0).clocks_event_reasons = 0x4;
    let rows = "DCGM_EXP_XID_ERRORS_COUNT, gauge, x\nDCGM_EXP_XID_ERRORS_TOTAL, counter, x\n\
                DCGM_EXP_CLOCK_EVENTS_COUNT, gauge, x\nDCGM_EXP_CLOCK_EVENTS_TOTAL, counter, x\n";
    let (mut node, _folder) = counters(&profile, rows);
    node.until("it listens", |page| page.value("windlass_agent_ticks_total", &[]) >= Some(3.0));
    let now = unix();
    profile.gpu(0).xids = vec![(now + 0.2, 31), (now + 0.4, 79), (now + 0.6, 31)];
    node.gpus.set(&profile).unwrap();
    let window = ("window_size_in_ms", "300000");
    let page = node.until("two of three errors are one kind, and clocks were held down for a while", |page| {
        page.value("DCGM_EXP_XID_ERRORS_COUNT", &[FIRST, ("xid", "31"), window]) == Some(2.0)
            && page.value("DCGM_EXP_CLOCK_EVENTS_COUNT", &[FIRST, ("clock_event", "power_cap"), window]) >= Some(5.0)
    });
    assert_eq!(page.value("DCGM_EXP_XID_ERRORS_COUNT", &[FIRST, ("xid", "79"), window]), Some(1.0));
    assert_eq!(page.value("DCGM_EXP_XID_ERRORS_TOTAL", &[FIRST, ("xid", "31")]), Some(2.0));
    assert_eq!(page.value("DCGM_EXP_CLOCK_EVENTS_TOTAL", &[FIRST, ("clock_event", "power_cap")]), Some(1.0));
    let none = |page: &Page, name| page.value(name, &[SECOND, ("xid", ""), window]);
    assert_eq!(none(&page, "DCGM_EXP_XID_ERRORS_COUNT"), Some(0.0), "0 without a code where there was none");
    assert_eq!(page.select("DCGM_EXP_XID_ERRORS_TOTAL", &[SECOND]).len(), 0);
    let idle = [SECOND, ("clock_event", "gpu_idle"), window];
    assert!(page.value("DCGM_EXP_CLOCK_EVENTS_COUNT", &idle) >= Some(5.0));
}

#[test]
fn a_driver_that_gives_no_events_at_first_is_asked_again() {
    for call in ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents"] {
        let mut profile = Profile::idle(ModelName::H100, 1);
        profile.faults = vec![Fault::of_calls(&[call], AnswerName::Unknown)];
        let mut node = Node::start(&profile, vec![], |_| ());
        node.until("it is refused", |page| {
            page.select("windlass_agent_nvml_errors_total", &[("cause", "unknown")]).iter().any(|one| one.value >= 1.0)
        });
        profile.faults.clear();
        let now = unix();
        profile.gpu(0).xids = (0..120).map(|second| (now + f64::from(second), 31)).collect();
        node.gpus.set(&profile).unwrap();
        node.until("one is counted", |page| page.value("gpu_device_xid_errors_total", &[("xid", "31")]) >= Some(1.0));
    }
}

#[test]
fn feature_64_hosts_of_virtual_gpus_and_confidential_machines_show_as_such() {
    let mut profile = Profile::idle(ModelName::H100, 3);
    profile.confidential = Some((true, true));
    (profile.gpu(1).virtualization, profile.gpu(1).vgpu_license) = (3, Some(false));
    (profile.gpu(2).virtualization, profile.gpu(2).vgpu_license) = (2, Some(true));
    let mut node = Node::start(&profile, vec![], |_| ());
    let page = node.until("all are read", |page| page.select("gpu_device_virtualization_info", &[]).len() == 3);
    for (gpu, state, licensed, dcgm) in
        [("0", "none", None, 0.0), ("1", "host_vgpu", Some(0.0), 0.0), ("2", "vgpu", Some(1.0), 1.0)]
    {
        assert_eq!(page.value("gpu_device_virtualization_info", &[("gpu", gpu), ("state", state)]), Some(1.0), "{gpu}");
        assert_eq!(page.value("gpu_device_vgpu_licensed", &[("gpu", gpu)]), licensed, "{gpu}");
        assert_eq!(page.value("DCGM_FI_DEV_VGPU_LICENSE_STATUS", &[("gpu", gpu)]), Some(dcgm), "{gpu}");
    }
    assert_eq!(page.select("gpu_device_confidential_compute_info", &[("state", "devtools")]).len(), 3);
    profile.confidential = None;
    let (mut node, _folder) = counters(&profile, "DCGM_FI_DEV_VIRTUAL_MODE, gauge, x\nDCGM_FI_DEV_CC_MODE, gauge, x\n");
    let page = node.until("modes", |page| page.value("DCGM_FI_DEV_VIRTUAL_MODE", &[SECOND]) == Some(3.0));
    assert_eq!(page.select("gpu_device_confidential_compute_info", &[]).len(), 0, "not on a machine that cannot");
    assert_eq!(page.select("DCGM_FI_DEV_CC_MODE", &[]).len(), 0);
}
