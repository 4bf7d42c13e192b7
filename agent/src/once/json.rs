//! The same as the table, for programs: `--once --json`. What was not measured is `null`.

use serde::Serialize;

use crate::attribution::{GpuUse, InstanceUse, Share, Snapshot};
use crate::gpu::{Memory, MigInstance};

/// The whole.
#[derive(Debug, Serialize)]
pub(super) struct Node<'a> {
    node: &'a str,
    driver_version: Option<&'a str>,
    /// Why owners are not known.
    owners_problem: Option<&'a str>,
    gpus: Vec<Gpu<'a>>,
}

/// Percentages are 0 to 100, memory is bytes.
#[derive(Debug, Serialize)]
struct Gpu<'a> {
    index: u32,
    uuid: &'a str,
    model: Option<&'a str>,
    up: bool,
    /// Why it is not up: `lost`, `hangs` or `silent`.
    down: Option<&'a str>,
    utilization: Option<f64>,
    memory_total_bytes: Option<u64>,
    memory_used_bytes: Option<u64>,
    power_watts: Option<f64>,
    power_limit_watts: Option<f64>,
    temperature_celsius: Option<f64>,
    mig_instances: Option<Vec<Instance<'a>>>,
    containers: Vec<Container<'a>>,
    unattributed_utilization: Option<f64>,
    unattributed_memory_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Instance<'a> {
    uuid: &'a str,
    profile: &'a str,
    utilization: Option<f64>,
    memory_total_bytes: Option<u64>,
    memory_used_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Container<'a> {
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    /// Whether the kubelet gave it the device.
    held: bool,
    mig_uuid: Option<&'a str>,
    utilization: Option<f64>,
    memory_used_bytes: Option<u64>,
}

pub(super) fn node<'a>(node: &'a str, snapshot: &'a Snapshot, owners_problem: Option<&'a str>) -> Node<'a> {
    let gpus = snapshot.gpus.iter().enumerate().map(|(position, gpu)| of(position, gpu, snapshot)).collect();
    Node { node, driver_version: snapshot.driver_version.as_deref(), owners_problem, gpus }
}

fn of<'a>(position: usize, used: &'a GpuUse, snapshot: &'a Snapshot) -> Gpu<'a> {
    let gpu = &used.gpu;
    let total = |memory: Option<Memory>| memory.map(|memory| memory.total);
    let held = |memory: Option<Memory>| memory.map(|memory| memory.used);
    let instances = gpu.mig.as_ref().map(|instances| {
        let instance = |(instance, used): (&'a MigInstance, &InstanceUse)| Instance {
            uuid: &instance.uuid,
            profile: &instance.profile,
            utilization: used.utilization,
            memory_total_bytes: total(instance.memory),
            memory_used_bytes: held(instance.memory),
        };
        instances.iter().zip(&used.instances).map(instance).collect()
    });
    let container = |share: &'a Share| Container {
        namespace: &share.owner.namespace,
        pod: &share.owner.pod,
        container: &share.owner.container,
        held: share.held,
        mig_uuid: share.instance.and_then(|index| Some(&*gpu.mig.as_ref()?.get(index)?.uuid)),
        utilization: share.utilization,
        memory_used_bytes: share.memory_used,
    };
    Gpu {
        index: gpu.identity.index,
        uuid: &gpu.identity.uuid,
        model: gpu.identity.model.as_deref(),
        up: gpu.up,
        down: gpu.down(),
        utilization: gpu.utilization,
        memory_total_bytes: total(gpu.memory),
        memory_used_bytes: held(gpu.memory),
        power_watts: gpu.power_watts,
        power_limit_watts: gpu.power_limit_watts,
        temperature_celsius: gpu.temperature_celsius,
        mig_instances: instances,
        containers: snapshot.shares.iter().filter(|share| share.gpu == position).map(container).collect(),
        unattributed_utilization: used.unattributed_utilization,
        unattributed_memory_bytes: used.unattributed_memory,
    }
}
