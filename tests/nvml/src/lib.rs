//! A `libnvidia-ml.so.1` with GPUs that a YAML profile describes: what the tests, the benches and the demo run on, and what any other NVML program
//! (`nvidia-ml-py`, `nvitop`) can be pointed at. It is the world, faked at the border where NVIDIA's driver begins; nothing above it knows.
//!
//! # Where it lands
//! Cargo builds it together with `windlass-tests`: `target/<profile>/deps/libfake_nvml.so`, and `target/<profile>/libfake_nvml.so` after
//! `cargo build -p fake-nvml`. Its SONAME is `libnvidia-ml.so.1`. Give a program the path (`windlass-agent --nvml-library PATH`), or put a link called
//! `libnvidia-ml.so.1` into a folder and name that in `LD_LIBRARY_PATH`. `windlass_tests::nvml` does both.
//!
//! # Which profile
//! 1. a file `fake-nvml.yaml` beside the very copy of the library that was loaded (so that two tests in one process can have two machines),
//! 2. `FAKE_NVML_PROFILE`: a path, or a name such as `H100` or `8xA100` for idle GPUs,
//! 3. two idle T4.
//!
//! A profile file that is written anew is taken up within 10 ms; a broken one is told on stderr and the old one stays. See [`profile`] for its keys:
//!
//! ```yaml
//! model: A100          # T4 | A100 | H100 | H200
//! count: 2
//! gpus:
//!   0:
//!     processes:
//!       - {pid: 4242, memory_mib: 8000, sm: 60}
//!       - {pid: 4243, memory_mib: 2000, sm: {square: {low: 0, high: 30, period_s: 20}}, kind: mps}
//!   1:
//!     mig: [{profile: 1g.5gb, gpu_instance: 7}, {profile: 3g.20gb, gpu_instance: 2}]
//!     processes: [{pid: 5000, sm: 90, gpu_instance: 7, memory_mib: 1500}]
//! faults:
//!   - {gpu: 0, answer: gpu_is_lost, after_calls: 200}
//!   - {calls: [nvmlDeviceGetFieldValues], slow_ms: 30}
//!   - {calls: [nvmlDeviceGetCount_v2], hangs: true, until_s: 20}
//! costs_us: {nvmlDeviceGetMemoryInfo_v2: 11.6}
//! ```
//!
//! # What is true
//! Every figure of load comes from [`timeline::Timeline`], which is public: a test reads the same curves and compares. With `FAKE_NVML_CALLS=PATH` the
//! library writes there how often each function was called, twice a second and at `nvmlShutdown`.

pub mod curve;
pub mod fault;
pub mod machine;
pub mod model;
pub mod profile;
pub mod raw;
pub mod timeline;

mod answer;
#[allow(non_snake_case, reason = "the names are NVML's")]
mod exports;
mod handle;
mod library;
mod session;

/// Name of the profile that belongs to one copy of the library and lies beside it.
pub const PROFILE_FILE: &str = "fake-nvml.yaml";

/// The name under which programs look for NVML.
pub const SONAME: &str = "libnvidia-ml.so.1";
