//! The fake NVML is good enough when programs that know nothing of it read it without complaint: nvidia-ml-py and nvitop, from PyPI.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use windlass_tests::nvml::{
    AnswerName, Curve, Fault, Gpus, Kind, Mig, ModelName, Process, Profile, gpu_uuid, mig_uuid,
};
use windlass_tests::python;

fn machine() -> Profile {
    let mut profile = Profile::idle(ModelName::A100, 3);
    let mps = Process { kind: Kind::Mps, ..Process::new(102, 25.0, 2_000) };
    profile.gpu(0).processes = vec![Process::new(101, 60.0, 8_000), mps, Process::new(103, 0.0, 500)];
    let mig = |profile, gpu_instance, index| Mig { index: Some(index), ..Mig::new(profile, gpu_instance) };
    profile.gpu(1).mig = Some(vec![mig("1g.5gb", 7, 0), mig("3g.20gb", 2, 4)]);
    profile.gpu(1).processes =
        vec![Process { gpu_instance: Some(7), sm: Curve::Constant(90.0), ..Process::new(201, 0.0, 1_500) }];
    profile.faults =
        vec![Fault { gpu: Some(2), ..Fault::of_calls(&["nvmlDeviceGetPowerUsage"], AnswerName::NoPermission) }];
    profile
}

fn read(gpus: &Gpus) -> Value {
    let python = python::interpreter().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/sweep.py");
    let output = Command::new(python).arg(script).env("LD_LIBRARY_PATH", gpus.folder()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn nvidia_ml_py_reads_the_fake() {
    let gpus = Gpus::new(&machine()).unwrap();
    let seen = read(&gpus);
    assert_eq!(seen["driver"], "580.95.05");
    let (shared, divided, idle) = (&seen["pynvml"][0], &seen["pynvml"][1], &seen["pynvml"][2]);

    assert_eq!(shared["name"], "NVIDIA A100-SXM4-40GB");
    assert_eq!(shared["uuid"], gpu_uuid(0));
    assert_eq!(shared["utilization"], 85);
    assert_eq!(shared["pids"], json!([101, 102, 103]));
    assert_eq!(shared["mps_pids"], json!([102]));
    assert_eq!(shared["sm"], json!({"101": 60, "102": 25}), "a process that does nothing is not sampled");
    assert_eq!(shared["memory"]["used"], 10_500_u64 << 20);
    assert_eq!(shared["samples"], json!(vec![85; 100]));

    assert_eq!(divided["utilization"], json!({"error": 3}), "a GPU in MIG mode has no utilization");
    let instances = json!([
        {"index": 0, "uuid": mig_uuid(1, 7, 0), "gpu_instance": 7, "pids": [201]},
        {"index": 4, "uuid": mig_uuid(1, 2, 0), "gpu_instance": 2, "pids": []},
    ]);
    assert_eq!(divided["migs"], instances);

    assert_eq!(idle["samples"], json!({"error": 6}));
    assert_eq!(idle["sm"], json!({"error": 6}));
    assert_eq!(idle["sweep"]["errors"]["nvmlDeviceGetPowerUsage"], 4);
    for device in seen["pynvml"].as_array().unwrap() {
        let errors = device["sweep"]["errors"].as_object().unwrap();
        let strange: Vec<_> = errors.iter().filter(|(_, code)| ![2, 3, 4].contains(&code.as_u64().unwrap())).collect();
        assert!(strange.is_empty(), "{strange:?}");
    }
}

#[test]
fn nvitop_reads_the_fake() {
    let gpus = Gpus::new(&machine()).unwrap();
    let seen = read(&gpus);
    let first = &seen["nvitop"][0];
    assert_eq!(first["gpu_utilization"], 85);
    assert_eq!(first["power_limit"], 400_000);
    assert_eq!(first["processes"], json!({"101": 60, "102": 25, "103": 0}));

    let nvitop = python::program(&python::interpreter().unwrap(), "nvitop");
    let output = Command::new(nvitop).args(["--once", "--no-unicode"]).env("LD_LIBRARY_PATH", gpus.folder()).output();
    let output = output.unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(table.contains("A100-SXM4-40GB") && table.contains("GI/CI: 7/0"), "{table}");
}
