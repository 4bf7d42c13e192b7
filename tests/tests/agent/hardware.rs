//! The program for machines with a GPU, on the fake: every part of it but the hardware.

use std::os::unix::fs::PermissionsExt as _;

use windlass_tests::hardware::{Args, run};
use windlass_tests::nvml::{Gpus, Profile};

#[test]
fn the_program_for_machines_with_a_gpu_tells_its_story_on_the_fake() {
    let folder = tempfile::tempdir().unwrap();
    // The H200 of the fake with nothing to do: what moves under load differs, and the program must find that out.
    let nvidia_smi = folder.path().join("nvidia-smi");
    let words = "0, 0, 0, 0, 143771, 612, 0, 143159, 76.00, 76.00, 76.00, 700.00, 27, 35, 345, 3201, 765, 0, 0, 0, 0, [N/A], [N/A], [N/A]";
    let script = format!("#!/bin/sh\ncase $1 in *remapped*) echo 0, 0, No, No;; *) echo '{words}';; esac\n");
    std::fs::write(&nvidia_smi, script).unwrap();
    std::fs::set_permissions(&nvidia_smi, std::fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = run(&Args {
        nvml_library: "libnvidia-ml.so.1".into(),
        fake: true,
        seconds: 2,
        readings: 3,
        python: Some(windlass_tests::python::interpreter().unwrap()),
        nvidia_smi,
        out: folder.path().join("out"),
    });
    let outcome = outcome.unwrap();
    assert!(outcome.compared > 120, "{outcome:?}");
    assert!((10..30).contains(&outcome.differ), "only nvidia-smi's idle words under load differ: {outcome:?}");
    assert_eq!(outcome.failed, Vec::<String>::new());
    let cost = &outcome.cost;
    assert!(cost.ratio() > Some(0.0), "{cost:?}");
    assert!(cost.calls.values().all(|call| call.made <= cost.readings), "twice in one reading: {cost:?}");
    assert_eq!(cost.calls["compute_processes"].made, cost.readings);
    let profile = std::fs::read_to_string(outcome.written.last().unwrap()).unwrap();
    let profile: Profile = serde_json::from_str(&profile).unwrap();
    let shares: Vec<_> = profile.gpus[&0].processes.iter().map(|process| process.memory_mib).collect();
    assert_eq!(shares, [8_000, 8_000]);
    assert!(
        profile.costs_us["nvmlDeviceGetPowerUsage"] >= 365.0,
        "no call is back before its time: {:?}",
        profile.costs_us
    );
    assert!(Gpus::new(&profile).is_ok(), "the fake takes it");
}
