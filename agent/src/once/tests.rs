//! The table as a person sees it.

use std::sync::Arc;

use super::*;
use crate::attribution::attribute;
use crate::gpu::{Gpm, Gpu, Identity, Memory, MigInstance, Reading};
use crate::pods::{Assignment, Holders, Owner};

#[test]
fn a_table_for_people() {
    let gib = 1 << 30;
    let gpu = |index: u32, used: u64| Gpu {
        identity: Arc::new(Identity {
            index,
            uuid: format!("GPU-{index}").into(),
            model: Some("NVIDIA T4".into()),
            ..Identity::default()
        }),
        up: true,
        utilization: Some(42.4),
        memory: Some(Memory { total: 16 * gib, used: used * gib, free: (16 - used) * gib, reserved: 0 }),
        power_watts: Some(33.3),
        power_limit_watts: Some(70.0),
        temperature_celsius: Some(51.0),
        ..Gpu::default()
    };
    let lost = Gpu { lost: true, identity: gpu(2, 0).identity, ..Gpu::default() };
    let hung = Gpu { hangs: true, identity: gpu(3, 0).identity, ..Gpu::default() };
    let slice = |id: u32| MigInstance {
        uuid: format!("MIG-{id}").into(),
        gpu_instance: Some(id),
        profile: "1g.10gb".into(),
        memory: Some(Memory { total: 2 * gib, used: 0, free: 2 * gib, reserved: 0 }),
        gpm: Some(Gpm { sm_active: Some(7.0), ..Gpm::default() }),
        ..MigInstance::default()
    };
    let sliced = Gpu { utilization: None, mig: Some(vec![slice(7), slice(8)]), ..gpu(4, 0) };
    let give = |pod: &str, id: &str| Assignment {
        owner: Arc::new(Owner { namespace: "ml".into(), pod: pod.into(), container: "main".into() }),
        device_id: id.into(),
        claimed: false,
    };
    let holders = Holders::new(vec![give("train-0", "GPU-0"), give("evil\u{1b}[2J", "MIG-8")]);
    let gpus = vec![gpu(0, 4), gpu(1, 0), lost, hung, sliced];
    let reading = Reading { driver_version: Some("580.95.05".into()), gpus };
    let snapshot = attribute(reading, &holders, &[].into());
    let expect = "\
Node node-1, driver 580.95.05, 5 GPUs

GPU        UTIL            MEMORY      POWER   TEMP
0 T4       42 %  4096 / 16384 MiB  33 / 70 W  51 °C
           42 %          4096 MiB  ml/train-0/main
1 T4       42 %     0 / 16384 MiB  33 / 70 W  51 °C  not given out
           42 %             0 MiB  (nobody)
2 T4          -                 -          -      -  LOST: reset it or reboot the node
3 T4          -                 -          -      -  a call to it hangs: look at dmesg, reset it or reboot the node
4 T4          -     0 / 16384 MiB  33 / 70 W  51 °C  MIG, 2 instances
  1g.10gb   7 %      0 / 2048 MiB  free
            7 %             0 MiB  (nobody)
  1g.10gb   7 %      0 / 2048 MiB
            7 %             0 MiB  ml/evil\u{fffd}[2J/main
";
    assert_eq!(table("node-1", &snapshot, true), expect);
    assert!(!table("node-1", &snapshot, false).contains("free"), "unknown is not free");
    let json = serde_json::to_value(json::node("node-1", &snapshot, Some("no kubelet"))).unwrap();
    assert_eq!((&json["driver_version"], &json["owners_problem"]), (&"580.95.05".into(), &"no kubelet".into()));
    assert_eq!(json["gpus"][0]["containers"][0]["pod"], "train-0");
    assert_eq!((&json["gpus"][0]["up"], &json["gpus"][2]["up"]), (&true.into(), &false.into()));
    assert_eq!((&json["gpus"][2]["down"], &json["gpus"][3]["down"]), (&"lost".into(), &"hangs".into()));
    assert_eq!(json["gpus"][4]["mig_instances"][0]["utilization"], 7.0);
    assert_eq!(json["gpus"][2]["utilization"], serde_json::Value::Null, "not measured");
    let none = Snapshot::default();
    assert!(
        table("node-1", &none, true).ends_with("The driver lists none; `windlass-agent doctor` says what to try\n")
    );
}
