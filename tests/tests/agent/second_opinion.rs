//! The agent and `nvidia-ml-py` on one library say the same. On our fake by default; `NVML_LIBRARY=/path/to/libnvidia-ml.so.1` has them read another:
//! NVIDIA's mock, or a real driver's.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use windlass_tests::nvml::{Gpus, ModelName, Process, Profile};
use windlass_tests::python;

use crate::agent::node::Node;

/// A folder in which programs find the library under its own name.
struct Library {
    folder: tempfile::TempDir,
    _gpus: Gpus,
}

impl Library {
    fn find() -> Self {
        let mut profile = Profile::idle(ModelName::H100, 2);
        profile.gpu(1).processes = vec![Process::new(100, 50.0, 8_000)];
        let gpus = Gpus::new(&profile).unwrap();
        let given = std::env::var_os("NVML_LIBRARY").map(PathBuf::from);
        let folder = tempfile::tempdir().unwrap();
        let library = given.unwrap_or_else(|| gpus.library());
        std::os::unix::fs::symlink(library.canonicalize().unwrap(), folder.path().join("libnvidia-ml.so.1")).unwrap();
        Self { folder, _gpus: gpus }
    }

    /// What `nvidia-ml-py` reads from it.
    fn read(&self) -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/second_opinion.py");
        let python = python::interpreter().unwrap();
        let output = Command::new(python).arg(script).env("LD_LIBRARY_PATH", self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn the_agent_and_nvidia_ml_py_say_the_same_of_any_library() {
    let library = Library::find();
    let path = library.folder.path().join("libnvidia-ml.so.1");
    let settle = |config: &mut windlass_agent::config::Config, _: &Gpus| config.nvml_library = Some(path.clone());
    let mut node = Node::configured(&Profile::idle(ModelName::T4, 1), vec![], |_| (), settle);
    let page = node.until("some ticks", |page| page.value("windlass_agent_ticks_total", &[]) >= Some(5.0));
    let opinion = library.read();
    let devices = opinion["devices"].as_array().unwrap();
    assert_eq!(page.select("gpu_device_up", &[]).len(), devices.len());
    let version = opinion["driver"].as_str().unwrap();
    assert_eq!(page.value("windlass_agent_driver_info", &[("version", version)]), Some(1.0));
    for (index, device) in devices.iter().enumerate() {
        let gpu = index.to_string();
        let labels = [
            ("gpu", gpu.as_str()),
            ("uuid", device["uuid"].as_str().unwrap()),
            ("model", device["name"].as_str().unwrap()),
        ];
        assert_eq!(page.value("gpu_device_up", &labels), Some(1.0), "{labels:?}");
        // What does not move from one second to the next: all of it or none.
        for (name, key, unit) in [
            ("gpu_device_memory_total_bytes", "memory_total", 1.0),
            ("gpu_device_power_limit_watts", "power_limit_milliwatts", 1e-3),
            ("gpu_device_remapped_rows_correctable_total", "remapped_correctable", 1.0),
            ("gpu_device_ecc_lifetime_uncorrected_errors_total", "ecc_uncorrected", 1.0),
        ] {
            let (ours, theirs) = (page.value(name, &labels), device[key].as_f64().map(|value| value * unit));
            assert_eq!(ours, theirs, "GPU {index}: {name}");
        }
    }
    let misunderstood = [("cause", "argument_version_mismatch")];
    assert_eq!(page.select("windlass_agent_nvml_errors_total", &misunderstood).len(), 0);
}
