//! The table as a person sees it.

use std::sync::Arc;

use super::*;
use crate::attribution::attribute;
use crate::gpu::{Gpu, Identity, Memory, Reading};
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
    let lost = Gpu { identity: gpu(2, 0).identity, ..Gpu::default() };
    let owner = Owner { namespace: "ml".into(), pod: "train-0".into(), container: "main".into() };
    let holders = Holders::new(vec![Assignment { owner: Arc::new(owner), device_id: "GPU-0".into(), claimed: false }]);
    let reading = Reading { driver_version: Some("580.95.05".into()), gpus: vec![gpu(0, 4), gpu(1, 0), lost] };
    let snapshot = attribute(reading, &holders, &[].into());
    let expect = "\
Node node-1, driver 580.95.05, 3 GPUs

GPU          UTIL            MEMORY      POWER   TEMP  WHO
0 NVIDIA T4  42 %  4096 / 16384 MiB  33 / 70 W  51 °C
             42 %          4096 MiB                      ml/train-0/main
1 NVIDIA T4  42 %     0 / 16384 MiB  33 / 70 W  51 °C  not given out
             42 %             0 MiB                      (nobody)
2 NVIDIA T4     -                 -          -      -  LOST: reset it or reboot the node
";
    assert_eq!(table("node-1", &snapshot, true), expect);
    assert!(!table("node-1", &snapshot, false).contains("free"), "unknown is not free");
    let json = serde_json::to_value(json::node("node-1", &snapshot, Some("no kubelet"))).unwrap();
    assert_eq!((&json["driver_version"], &json["owners_problem"]), (&"580.95.05".into(), &"no kubelet".into()));
    assert_eq!(json["gpus"][0]["containers"][0]["pod"], "train-0");
    assert_eq!((&json["gpus"][0]["up"], &json["gpus"][2]["up"]), (&true.into(), &false.into()));
    assert_eq!(json["gpus"][2]["utilization"], serde_json::Value::Null, "not measured");
}
