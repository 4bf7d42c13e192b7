//! MIG: instances have their own holders, memory and names, and a layout that changes is taken up without a restart.

use windlass_tests::kubelet::pod;
use windlass_tests::nvml::{AnswerName, Fault, Mig, ModelName, Process, Profile, mig_uuid};
use windlass_tests::scrape::Page;

use crate::agent::node::{Node, main_of, runs};

const MIB: f64 = 1_048_576.0;

fn instance(profile: &str, gpu_instance: u32, index: u32) -> Mig {
    Mig { index: Some(index), ..Mig::new(profile, gpu_instance) }
}

#[test]
fn an_instance_is_its_holders_and_the_parent_has_no_utilization() {
    let mut profile = Profile::idle(ModelName::A100, 1);
    // Index 1 is a hole, as after a deletion.
    profile.gpu(0).mig = Some(vec![instance("1g.5gb", 7, 0), instance("3g.20gb", 2, 2)]);
    let inside = |pid, gi, memory| Process { gpu_instance: Some(gi), ..Process::new(pid, 90.0, memory) };
    profile.gpu(0).processes = vec![inside(100, 7, 1_500), inside(200, 2, 9_000)];
    let small = pod("ml", "small", "main", &[("nvidia.com/mig-1g.5gb", &[mig_uuid(0, 7, 0).as_str()])]);
    let large = pod("ml", "large", "main", &[("nvidia.com/mig-3g.20gb", &[mig_uuid(0, 2, 0).as_str()])]);
    let mut node = Node::start(&profile, vec![small, large], |host| {
        runs(host, 100, &main_of("small"));
        runs(host, 200, &main_of("large"));
    });
    let memory = |pod| [("pod", pod), ("container", "main")];
    let page = node.until("both instances have memory", |page| {
        page.value("gpu_memory_used_bytes", &memory("small")) == Some(1_500.0 * MIB)
            && page.value("gpu_memory_used_bytes", &memory("large")) == Some(9_000.0 * MIB)
    });
    let series = page.select("gpu_memory_used_bytes", &memory("large"));
    assert_eq!(series[0].labels["mig_profile"], "3g.20gb");
    assert_eq!(series[0].labels["uuid"], mig_uuid(0, 2, 0));
    assert_eq!(page.value("gpu_device_mig_instances", &[]), Some(2.0));
    assert_eq!(page.select("gpu_device_utilization_ratio", &[]).len(), 0, "absent, not 0");
    assert_eq!(page.select("gpu_utilization", &memory("small")).len(), 0, "absent, not 0");

    profile.gpu(0).mig = Some(vec![instance("1g.5gb", 7, 0), instance("1g.5gb", 8, 1), instance("1g.5gb", 9, 2)]);
    profile.gpu(0).processes = vec![inside(100, 7, 1_600)];
    node.gpus.set(&profile).unwrap();
    let page = node.until("three instances", |page| page.value("gpu_device_mig_instances", &[]) == Some(3.0));
    assert_eq!(page.value("gpu_device_up", &[]), Some(1.0));
    node.until("the first goes on", |page| {
        page.value("gpu_memory_used_bytes", &memory("small")) == Some(1_600.0 * MIB)
    });
}

#[test]
fn a_layout_that_the_driver_does_not_tell_for_the_moment_stands() {
    let mut profile = Profile::idle(ModelName::A100, 1);
    profile.gpu(0).mig = Some(vec![Mig::new("1g.5gb", 7), Mig::new("3g.20gb", 2)]);
    let mut node = Node::start(&profile, vec![], |_| ());
    node.until("two instances", |page| page.value("gpu_device_mig_instances", &[]) == Some(2.0));
    for (call, name) in [("nvmlDeviceGetMigMode", "mig_mode"), ("nvmlDeviceGetMaxMigDeviceCount", "mig_device_count")] {
        profile.faults = vec![Fault::of_calls(&[call], AnswerName::Timeout)];
        node.gpus.set(&profile).unwrap();
        let labels = [("call", name), ("cause", "timeout")];
        let page =
            node.until("it was asked", |page| page.value("windlass_agent_nvml_errors_total", &labels) >= Some(1.0));
        assert_eq!(page.value("gpu_device_mig_instances", &[]), Some(2.0), "{call}");
    }
}

#[test]
fn an_instance_stays_its_holders_while_the_driver_tells_nothing_of_it() {
    let mut profile = Profile::idle(ModelName::H100, 1);
    profile.gpu(0).mig = Some(vec![instance("1g.10gb", 7, 0)]);
    let uuid = mig_uuid(0, 7, 0);
    let pods = vec![pod("ml", "small", "main", &[("nvidia.com/mig-1g.10gb", &[uuid.as_str()])])];
    let mut node = Node::start(&profile, pods, |_| ());
    let allocated = |page: &Page| page.value("container_gpu_allocated_seconds_total", &[("uuid", &uuid)]);
    node.until("it is allocated", |page| allocated(page) > Some(0.2));
    let no_memory = Fault::of_calls(&["nvmlDeviceGetMemoryInfo_v2"], AnswerName::NotFound);
    for (fault, up) in [(no_memory, 1.0), (Fault::of_gpu(0, AnswerName::GpuIsLost), 0.0)] {
        profile.faults = vec![fault];
        node.gpus.set(&profile).unwrap();
        let before = node.until("the fault shows", |page| {
            page.select("gpu_mig_memory_used_bytes", &[]).is_empty() && page.value("gpu_device_up", &[]) == Some(up)
        });
        assert_eq!(before.value("gpu_device_mig_instances", &[]), Some(1.0), "up {up}");
        let page = node.until("it counts on", |page| allocated(page) > allocated(&before).map(|seconds| seconds + 0.5));
        assert_eq!(page.value("gpu_device_up", &[]), Some(up));
        assert_eq!(page.select("gpu_device_unattributed_memory_bytes", &[]).len(), 0, "up {up}: absent, not 0");
    }
}
