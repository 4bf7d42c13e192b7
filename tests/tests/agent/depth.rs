//! What the driver offers, read to its depth: each test is named after what operators look for in a GPU exporter, and holds the agent against the fake's truth.

use std::time::Duration;

use windlass_tests::nvml::{
    AnswerName, Curve, EccErrors, Fault, Health, Mig, ModelName, NvlinkCounters, Process, Profile, mig_uuid,
};
use windlass_tests::scrape::Page;

use crate::agent::node::{Node, main_of, moving, runs, sharer, unix};

const MIB: f64 = 1_048_576.0;

/// GPU 0 as on the page.
const FIRST: &[(&str, &str)] = &[("gpu", "0")];

fn alone(profile: &Profile) -> Node {
    Node::start(profile, vec![], |_| ())
}

fn busy(model: ModelName, percent: f64) -> Profile {
    let mut profile = Profile::idle(model, 1);
    profile.gpu(0).processes = vec![Process::new(100, percent, 8_000)];
    profile
}

fn reads(page: &Page, name: &str, expect: f64) -> bool {
    page.value(name, FIRST).is_some_and(|value| (value - expect).abs() < 1e-6 * expect.abs().max(1.0))
}

fn throttled(page: &Page, reason: &str) -> Option<f64> {
    page.value("gpu_device_throttle_seconds_total", &[("gpu", "0"), ("reason", reason)])
}

#[test]
fn gpu_utilization_memory_power_temperature_and_clocks() {
    let mut profile = busy(ModelName::H100, 50.0);
    profile.gpu(0).processes[0].encoder = Curve::Constant(30.0);
    profile.gpu(0).processes[0].decoder = Curve::Constant(10.0);
    let mut node = alone(&profile);
    let page = node.until("warm", |page| reads(page, "gpu_device_temperature_celsius", 46.0));
    for (name, expect) in [
        ("gpu_device_up", 1.0),
        ("gpu_device_utilization_ratio", 0.5),
        ("gpu_device_memory_copy_utilization_ratio", 0.2),
        ("gpu_device_encoder_utilization_ratio", 0.3),
        ("gpu_device_decoder_utilization_ratio", 0.1),
        ("gpu_device_memory_total_bytes", 81_559.0 * MIB),
        ("gpu_device_memory_used_bytes", 8_000.0 * MIB),
        ("gpu_device_memory_free_bytes", 73_008.0 * MIB),
        ("gpu_device_memory_reserved_bytes", 551.0 * MIB),
        ("gpu_device_power_watts", 385.0),
        ("gpu_device_power_average_watts", 385.0),
        ("gpu_device_power_instant_watts", 385.0),
        ("gpu_device_power_limit_watts", 700.0),
        ("gpu_device_memory_temperature_celsius", 55.0),
        ("gpu_device_sm_clock_hertz", 1.98e9),
        ("gpu_device_memory_clock_hertz", 2.619e9),
        ("gpu_device_video_clock_hertz", 1.545e9),
    ] {
        assert!(reads(&page, name, expect), "{name}: {:?}, not {expect}", page.value(name, FIRST));
    }
    let energy = page.value("gpu_device_energy_joules_total", FIRST);
    node.until("energy grows", |page| page.value("gpu_device_energy_joules_total", FIRST) > energy);
}

#[test]
fn no_dcgm_dependency_and_no_nvidia_smi_subprocess() {
    let agent = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent");
    let manifest = std::fs::read_to_string(agent.join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("dcgm"), "the agent links no DCGM");
    let mut folders = vec![agent.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(!text.contains("process::Command"), "{} starts a process", path.display());
            }
        }
    }
}

#[test]
fn sampling_independent_of_scrape_avg_and_max_over_the_interval() {
    let mut profile = Profile::idle(ModelName::A100, 1);
    // Quicker than a tick: a single reading sees either the peak or the trough.
    profile.gpu(0).processes = vec![moving(100, 20.0, 90.0, 2.0 / 6.0)];
    let mut node =
        Node::configured(&profile, vec![], |_| (), |config, _| config.sample_interval = Duration::from_secs(1));
    let page = node.until("a whole interval is sampled", |page| {
        page.value("windlass_agent_ticks_total", &[]) >= Some(3.0)
            && page.value("gpu_device_utilization_max_ratio", FIRST) == Some(0.9)
    });
    let mean = page.value("gpu_device_utilization_ratio", FIRST).unwrap();
    assert!(mean > 0.3 && mean < 0.8, "{mean}: the mean of both");
    let before = page.value("gpu_device_busy_seconds_total", FIRST);
    node.until("busy time adds up", |page| page.value("gpu_device_busy_seconds_total", FIRST) > before);
}

#[test]
fn last_sample_timestamp_and_age_per_gpu() {
    let mut profile = Profile::idle(ModelName::T4, 2);
    let mut node = alone(&profile);
    node.until("both are fresh", |page| page.select("gpu_device_last_sample_age_seconds", &[]).len() == 2);
    profile.faults = vec![Fault::of_gpu(0, AnswerName::GpuIsLost)];
    node.gpus.set(&profile).unwrap();
    let page = node.until("the first ages", |page| page.value("gpu_device_last_sample_age_seconds", FIRST) > Some(0.5));
    assert_eq!(page.value("gpu_device_last_sample_age_seconds", &[("gpu", "1")]), Some(0.0));
    let at = |page: &Page, gpu| page.value("gpu_device_last_sample_timestamp_seconds", &[("gpu", gpu)]).unwrap();
    assert!(at(&page, "0") < at(&page, "1"));
    assert_eq!(page.value("gpu_device_down_info", &[("gpu", "0"), ("state", "lost")]), Some(1.0));
}

#[test]
fn xid_counter_by_code_with_last_seen_time() {
    let mut profile = Profile::idle(ModelName::H100, 2);
    let mut node = alone(&profile);
    node.until("up", |page| page.value("windlass_agent_ticks_total", &[]) >= Some(3.0));
    let now = unix();
    profile.gpu(1).xids = vec![(now + 0.2, 31), (now + 0.4, 79), (now + 0.6, 31)];
    node.gpus.set(&profile).unwrap();
    let of = |xid| [("gpu", "1"), ("xid", xid)];
    let page = node.until("all three", |page| {
        page.value("gpu_device_xid_errors_total", &of("31")) == Some(2.0)
            && page.value("gpu_device_xid_errors_total", &of("79")) == Some(1.0)
    });
    let last = |xid| page.value("gpu_device_xid_last_timestamp_seconds", &of(xid)).unwrap();
    assert!(last("31") >= last("79") && last("79") >= now, "{} {} {now}", last("31"), last("79"));
    assert_eq!(page.select("gpu_device_xid_errors_total", FIRST).len(), 0);
}

#[test]
fn ecc_remapped_rows_and_retired_pages() {
    let mut profile = Profile::idle(ModelName::H100, 2);
    profile.gpu(0).ecc_errors = EccErrors { corrected: 7, uncorrected: 1 };
    profile.gpu(0).health =
        Health { remapped_rows: (3, 2), remap_pending: true, remap_failed: true, pcie_replays: 5, ..Health::default() };
    profile.gpu(1).model = Some(ModelName::T4);
    profile.gpu(1).health = Health { retired_pages: (4, 1), retired_pending: true, ..Health::default() };
    let page = alone(&profile).until("both are read", |page| page.select("gpu_device_up", &[]).len() == 2);
    let value = |gpu, name| page.value(&format!("gpu_device_{name}"), &[("gpu", gpu)]);
    for (gpu, name, expect) in [
        ("0", "ecc_corrected_errors_total", Some(7.0)),
        ("0", "ecc_uncorrected_errors_total", Some(1.0)),
        ("0", "ecc_lifetime_corrected_errors_total", Some(7.0)),
        ("0", "ecc_lifetime_uncorrected_errors_total", Some(1.0)),
        ("0", "remapped_rows_correctable_total", Some(3.0)),
        ("0", "remapped_rows_uncorrectable_total", Some(2.0)),
        ("0", "row_remap_pending", Some(1.0)),
        ("0", "row_remap_failed", Some(1.0)),
        ("0", "pcie_replays_total", Some(5.0)),
        ("0", "retired_pages_single_bit_total", None),
        ("1", "ecc_corrected_errors_total", Some(0.0)),
        ("1", "remapped_rows_correctable_total", None),
        ("1", "retired_pages_single_bit_total", Some(4.0)),
        ("1", "retired_pages_double_bit_total", Some(1.0)),
        ("1", "retired_pages_pending", Some(1.0)),
    ] {
        assert_eq!(value(gpu, name), expect, "GPU {gpu} {name}");
    }
}

#[test]
fn throttle_time_as_counters_by_reason() {
    // Software power cap and hardware thermal slowdown: both numberings of the fields count them.
    for driver in ["575.57.08", "580.95.05"] {
        let mut profile = busy(ModelName::H100, 100.0);
        profile.driver = driver.to_owned();
        profile.gpu(0).clocks_event_reasons = 0x44;
        let mut node = alone(&profile);
        let page = node.until("both count", |page| {
            throttled(page, "sw_power_cap") > Some(0.3) && throttled(page, "hw_thermal_slowdown") > Some(0.3)
        });
        for reason in ["sw_thermal_slowdown", "hw_power_brake_slowdown", "sync_boost", "hw_slowdown"] {
            assert_eq!(throttled(&page, reason), Some(0.0), "{driver} {reason}");
        }
        profile.gpu(0).clocks_event_reasons = 0;
        node.gpus.set(&profile).unwrap();
        let stopped = node.until("the cap is off", |page| page.value("windlass_agent_ticks_total", &[]).is_some());
        let ticks = stopped.value("windlass_agent_ticks_total", &[]).unwrap();
        let page = node.until("two ticks on", |page| page.value("windlass_agent_ticks_total", &[]) > Some(ticks + 1.0));
        let held = throttled(&page, "sw_power_cap");
        let page = node.until("two more", |page| page.value("windlass_agent_ticks_total", &[]) > Some(ticks + 3.0));
        assert_eq!(throttled(&page, "sw_power_cap"), held, "{driver}: it stands still");
    }
}

#[test]
fn throttle_time_is_added_up_where_the_driver_does_not_count() {
    let mut profile = busy(ModelName::T4, 100.0);
    profile.faults = vec![Fault::of_calls(&["nvmlDeviceGetFieldValues"], AnswerName::FunctionNotFound)];
    profile.gpu(0).clocks_event_reasons = 0x8;
    let mut node = alone(&profile);
    let page = node.until("it adds up", |page| throttled(page, "hw_slowdown") > Some(0.3));
    assert_eq!(throttled(&page, "sw_power_cap"), Some(0.0));
    assert_eq!(throttled(&page, "board_limit"), None, "nobody counts it");
}

#[test]
fn recovery_action_and_fabric_state() {
    let mut profile = Profile::idle(ModelName::H100, 3);
    profile.gpu(0).health = Health { recovery_action: 1, fabric_state: Some(3), ..Health::default() };
    profile.gpu(1).health = Health { fabric_state: Some(3), fabric_status: 999, ..Health::default() };
    let page = alone(&profile).until("all are read", |page| page.select("gpu_device_up", &[]).len() == 3);
    let states = |name| page.select(name, &[]).iter().map(|series| series.labels["state"].clone()).collect::<Vec<_>>();
    assert_eq!(states("gpu_device_recovery_action_info"), ["gpu_reset", "none", "none"]);
    assert_eq!(states("gpu_device_fabric_state_info"), ["completed", "failed"], "absent without a fabric");
}

#[test]
fn sm_active_occupancy_tensor_and_dram_by_gpm_without_privileges() {
    let mut profile = busy(ModelName::H100, 80.0);
    profile.count = 2;
    profile.gpu(1).model = Some(ModelName::A100);
    let page = alone(&profile).until("two samples were taken", |page| reads(page, "gpu_device_sm_active_ratio", 0.8));
    for (name, expect) in [
        ("gpu_device_graphics_active_ratio", 0.8),
        ("gpu_device_sm_occupancy_ratio", 0.4),
        ("gpu_device_tensor_active_ratio", 0.48),
        ("gpu_device_dram_active_ratio", 0.32),
        ("gpu_device_fp32_active_ratio", 0.24),
        ("gpu_device_pcie_sent_bytes_per_second", 160.0 * MIB),
        ("gpu_device_nvlink_received_bytes_per_second", 1_600.0 * MIB),
    ] {
        assert!(reads(&page, name, expect), "{name}: {:?}, not {expect}", page.value(name, FIRST));
        assert_eq!(page.value(name, &[("gpu", "1")]), None, "{name}: not before Hopper");
    }
}

#[test]
fn samples_of_gpm_keep_their_distance_when_a_pass_is_held_up() {
    let mut profile = busy(ModelName::H100, 80.0);
    let mut node = alone(&profile);
    let ticks = |page: &Page| page.value("windlass_agent_ticks_total", &[]).unwrap();
    // A pass that ends slowly is followed by one that does not: less than 100 ms lie between their samples.
    for slow_ms in [150.0, 0.0, 150.0, 0.0] {
        profile.faults =
            vec![Fault { calls: vec!["nvmlDeviceGetTemperature".to_owned()], slow_ms, ..Fault::default() }];
        node.gpus.set(&profile).unwrap();
        let before = ticks(&node.until("a page", |_| true));
        node.until("some ticks", |page| ticks(page) >= before + 4.0);
    }
    let page = node.until("it is measured", |page| reads(page, "gpu_device_sm_active_ratio", 0.8));
    assert_eq!(page.select("windlass_agent_nvml_errors_total", &[("call", "gpm_metrics")]).len(), 0);
}

#[test]
fn nvlink_and_pcie_throughput_without_the_20_ms_block() {
    let mut profile = busy(ModelName::H100, 80.0);
    // The call that blocks would show as a GPU that hangs.
    profile.faults =
        vec![Fault { calls: vec!["nvmlDeviceGetPcieThroughput".to_owned()], slow_ms: 60_000.0, ..Fault::default() }];
    let mut node = alone(&profile);
    let names = ["pcie_sent", "pcie_received", "nvlink_sent", "nvlink_received"];
    let counters = |page: &Page| names.map(|name| page.value(&format!("gpu_device_{name}_bytes_total"), FIRST));
    let page = node.until("all four count", |page| counters(page).iter().all(Option::is_some));
    let before = counters(&page);
    let grown = |page: &Page| counters(page).iter().zip(&before).all(|(now, before)| now > before);
    let page = node.until("they grow", grown);
    assert_eq!(page.value("gpu_device_up", FIRST), Some(1.0));
}

#[test]
fn nvlink_is_counted_link_by_link_where_the_driver_has_no_sum() {
    let mut profile = Profile::idle(ModelName::H100, 3);
    for (gpu, counters) in
        [NvlinkCounters::All, NvlinkCounters::Links, NvlinkCounters::LinkBytes].into_iter().enumerate()
    {
        let gpu = profile.gpu(gpu as u32);
        (gpu.nvlink, gpu.energy_mj) = (counters, Some(64_000));
    }
    let mut node = alone(&profile);
    let page = node.until("all are counted", |page| page.select("gpu_device_nvlink_sent_bytes_total", &[]).len() == 3);
    for gpu in ["0", "1", "2"] {
        for way in ["sent", "received"] {
            let bytes = page.value(&format!("gpu_device_nvlink_{way}_bytes_total"), &[("gpu", gpu)]);
            assert_eq!(bytes, Some(18.0 * 1_024_000.0), "GPU {gpu}, {way}");
        }
    }
    // A rate in MB/s: 40 W and more are some hundred mJ a tick, and each mJ is 16 bytes on each of 18 links in each direction.
    profile.gpus.values_mut().for_each(|gpu| gpu.energy_mj = None);
    profile.gpu(0).processes = vec![Process::new(100, 100.0, 1_000)];
    let mut node = alone(&profile);
    node.until("traffic moves", |page| page.value("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", FIRST) > Some(0.0));
}

#[test]
fn self_metrics_build_info_errors_by_cause_and_nvml_call_time() {
    let mut profile = busy(ModelName::H100, 10.0);
    profile.faults = vec![
        Fault::of_calls(&["nvmlDeviceGetPowerUsage"], AnswerName::NoPermission),
        Fault::of_calls(&["nvmlDeviceGetTemperature"], AnswerName::Unknown),
    ];
    let mut node = alone(&profile);
    let page = node.until("some ticks", |page| page.value("windlass_agent_ticks_total", &[]) >= Some(5.0));
    assert_eq!(page.select("windlass_agent_build_info", &[]).len(), 1);
    let errors = |call, cause| page.value("windlass_agent_nvml_errors_total", &[("call", call), ("cause", cause)]);
    assert_eq!(errors("power_usage", "no_permission"), Some(1.0), "refused is counted once and not asked again");
    assert!(errors("temperature", "unknown") >= Some(4.0), "bad luck is asked again");
    let calls = |call| page.value("windlass_agent_nvml_calls_total", &[("call", call)]);
    assert_eq!(calls("power_usage"), Some(1.0));
    assert!(calls("memory_info") >= Some(4.0));
    assert!(page.value("windlass_agent_nvml_call_seconds_total", &[("call", "memory_info")]) > Some(0.0));
}

#[test]
fn mig_memory_per_instance() {
    let mut profile = Profile::idle(ModelName::A100, 1);
    profile.gpu(0).mig = Some(vec![Mig::new("1g.5gb", 7), Mig::new("3g.20gb", 2)]);
    let inside = |pid, gi, memory| Process { gpu_instance: Some(gi), ..Process::new(pid, 50.0, memory) };
    profile.gpu(0).processes = vec![inside(100, 7, 1_500), inside(200, 2, 9_000)];
    let of = |gi: u32| [("uuid", mig_uuid(0, gi, 0))];
    let value =
        |page: &Page, name: &str, gi| page.value(name, &of(gi).each_ref().map(|(label, uuid)| (*label, uuid.as_str())));
    let page = alone(&profile).until("both", |page| value(page, "gpu_mig_memory_used_bytes", 7) == Some(1_500.0 * MIB));
    assert_eq!(value(&page, "gpu_mig_memory_used_bytes", 2), Some(9_000.0 * MIB));
    assert_eq!(value(&page, "gpu_mig_memory_total_bytes", 7), Some(4_864.0 * MIB));
    assert_eq!(value(&page, "gpu_mig_sm_active_ratio", 7), None, "no GPM before Hopper: absent, not 0");
}

#[test]
fn mig_utilization_per_instance_without_dcgm_normalised_to_the_instance() {
    let mut profile = Profile::idle(ModelName::H100, 1);
    profile.gpu(0).mig = Some(vec![Mig::new("1g.10gb", 7), Mig::new("2g.20gb", 3)]);
    let inside = |pid, gi, sm| Process { gpu_instance: Some(gi), ..Process::new(pid, sm, 1_000) };
    // The small instance is full: 100 % of it, though a seventh of the GPU.
    profile.gpu(0).processes = vec![inside(100, 7, 100.0), inside(200, 3, 40.0)];
    let page = alone(&profile).until("both are measured", |page| {
        page.value("gpu_mig_sm_active_ratio", &[("gpu_instance", "7")]) == Some(1.0)
            && page.value("gpu_mig_sm_active_ratio", &[("gpu_instance", "3")]) == Some(0.4)
    });
    assert_eq!(page.value("gpu_mig_tensor_active_ratio", &[("mig_profile", "2g.20gb")]), Some(0.24));
    assert_eq!(page.select("gpu_device_sm_active_ratio", &[]).len(), 0, "the parent is not asked");
}

#[test]
fn mig_reconfiguration_with_no_restart() {
    let mut profile = busy(ModelName::H100, 60.0);
    let mut node = alone(&profile);
    node.until("undivided", |page| reads(page, "gpu_device_sm_active_ratio", 0.6));
    // Switched on, split anew, switched off: under one agent.
    let inside = |pid, gi, sm| Process { gpu_instance: Some(gi), ..Process::new(pid, sm, 1_000) };
    for (instances, load) in [(vec![("3g.40gb", 1), ("3g.40gb", 2)], 2), (vec![("1g.10gb", 9)], 9)] {
        profile.gpu(0).mig = Some(instances.iter().map(|(profile, gi)| Mig::new(profile, *gi)).collect());
        profile.gpu(0).processes = vec![inside(100, load, 30.0)];
        node.gpus.set(&profile).unwrap();
        let id = load.to_string();
        let page = node.until("the new layout is measured", |page| {
            page.value("gpu_mig_sm_active_ratio", &[("gpu_instance", &id)]) == Some(0.3)
                && page.value("gpu_device_mig_instances", FIRST) == Some(instances.len() as f64)
        });
        assert_eq!(page.value("gpu_device_utilization_ratio", FIRST), None);
        assert_eq!(page.value("gpu_device_up", FIRST), Some(1.0));
    }
    profile.gpu(0).mig = None;
    profile.gpu(0).processes = vec![Process::new(100, 70.0, 8_000)];
    node.gpus.set(&profile).unwrap();
    let page = node.until("undivided again", |page| reads(page, "gpu_device_sm_active_ratio", 0.7));
    assert_eq!(page.select("gpu_device_mig_instances", &[]).len(), 0);
}

#[test]
fn a_process_sampler_with_gaps_does_not_make_a_busy_pod_flicker() {
    let mut profile = busy(ModelName::A100, 60.0);
    // Once a second, while the agent looks five times a second.
    profile.gpu(0).process_samples_every = 6;
    let mut node =
        Node::start(&profile, vec![sharer("a", 0, 0), sharer("b", 0, 1)], |host| runs(host, 100, &main_of("a")));
    node.until("measured", |page| page.value("gpu_utilization", &[("pod", "a")]) == Some(60.0));
    for _ in 0..8 {
        let tick = node.until("a tick", |_| true).value("windlass_agent_ticks_total", &[]);
        let page = node.until("the next", |page| page.value("windlass_agent_ticks_total", &[]) > tick);
        assert_eq!(page.value("gpu_utilization", &[("pod", "a")]), Some(60.0));
    }
}
