//! `all-smi` from crates.io, built once into cargo's target folder. It needs a protoc, which PyPI has; it links against libdrm, of which the run-time
//! half is enough; and it opens NVML only where it finds `nvidia-smi` or `lspci`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use windlass_tests::nvml::gpu_uuid;
use windlass_tests::port::Port;
use windlass_tests::python;

use crate::programs::{Program, target};
use crate::run;
use crate::world::{GPUS, World};

/// The newest that builds with the Rust of this repository.
pub(crate) const VERSION: &str = "0.22.0";
/// The fake's H100.
const MEMORY_MIB: f64 = 81_559.0;
const POWER_LIMIT_WATTS: f64 = 700.0;

impl World {
    pub(crate) fn all_smi(&self) -> anyhow::Result<Program> {
        let port = Port::hold()?;
        let listed: String =
            (0..GPUS).map(|index| format!("GPU {index}: NVIDIA H100 80GB HBM3 (UUID: GPU-{index})\\n")).collect();
        script(&self.gpus.folder().join("nvidia-smi"), &format!("#!/bin/sh\nprintf '{listed}'\n"))?;
        let mut command = Command::new(binary()?);
        command.args(["api", "--port", &port.number().to_string(), "--interval", "1", "--processes=true"]);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.gpus.folder().display()));
        command.env("LD_LIBRARY_PATH", self.gpus.folder());
        Ok(Program { name: "all-smi", command, port })
    }
}

/// Where it is; built on first use, for minutes.
pub(crate) fn binary() -> anyhow::Result<PathBuf> {
    let root = target()?.join("peers");
    let here = root.join(format!("all-smi-{VERSION}"));
    let program = here.join("bin/all-smi");
    if program.exists() {
        return Ok(program);
    }
    let python = python::protoc()?;
    let protoc = root.join("protoc");
    let libraries = root.join("lib");
    std::fs::create_dir_all(&libraries)?;
    let own = "import grpc_tools, os; print(os.path.dirname(grpc_tools.__file__))";
    let python = python.display();
    let include = format!("\"$('{python}' -c '{own}')/_proto\"");
    script(&protoc, &format!("#!/bin/sh\nexec '{python}' -m grpc_tools.protoc -I {include} \"$@\"\n"))?;
    for name in ["libdrm", "libdrm_amdgpu"] {
        let link = libraries.join(format!("{name}.so"));
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(shared_library(name)?, link)?;
    }
    let cargo = std::env::var_os("CARGO").context("CARGO is not set: run this with `cargo bench`")?;
    run(Command::new(cargo)
        .args(["install", "--quiet", "--locked", "all-smi", "--version", VERSION, "--root"])
        .arg(&here)
        .arg("--target-dir")
        .arg(root.join("build"))
        .env("PROTOC", protoc)
        .env("LIBRARY_PATH", libraries))?;
    ensure!(program.exists(), "all-smi was built, but not to {}", program.display());
    // Its intermediate files are many times its size.
    std::fs::remove_dir_all(root.join("build")).context("clean up after the build")?;
    Ok(program)
}

/// What its page says of the fake's GPUs, held against what the fake was told.
pub(crate) fn reading(page: &str, world: &World) -> anyhow::Result<String> {
    let said = |name: &str, gpu: u32| -> anyhow::Result<f64> {
        let uuid = format!("gpu_uuid=\"{}\"", gpu_uuid(gpu));
        let mut lines = page.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(&uuid));
        let line = lines.next().with_context(|| format!("all-smi has no {name} of GPU {gpu}"))?;
        line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).with_context(|| line.to_owned())
    };
    for gpu in 0..GPUS {
        for (name, expect) in [
            ("all_smi_gpu_memory_total_bytes", MEMORY_MIB),
            ("all_smi_gpu_memory_used_bytes", world.memory_mib(gpu)),
            ("all_smi_gpu_power_limit_current_watts", POWER_LIMIT_WATTS),
        ] {
            let unit = if name.ends_with("_bytes") { 1_048_576.0 } else { 1.0 };
            let found = said(name, gpu)? / unit;
            ensure!((found - expect).abs() < 0.5, "all-smi says {name} {found} of GPU {gpu}, the fake {expect}");
        }
        for (name, most) in [("all_smi_gpu_utilization", 100.0), ("all_smi_gpu_temperature_celsius", 64.0)] {
            let found = said(name, gpu)?;
            ensure!((0.0..=most).contains(&found), "all-smi says {name} {found} of GPU {gpu}");
        }
    }
    Ok(format!("all-smi reads the fake as it is: {GPUS} GPUs by uuid, memory, power limit, use, temperature"))
}

/// The newest `lib<name>.so.<n>` of the machine, by the loader's own list.
fn shared_library(name: &str) -> anyhow::Result<PathBuf> {
    let listed = Command::new("/sbin/ldconfig").arg("-p").output().context("ldconfig")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut found = listed.lines().filter(|line| line.trim_start().starts_with(&format!("{name}.so.")));
    let path = found.find_map(|line| line.split_once("=> ")).map(|(_, path)| PathBuf::from(path.trim()));
    path.with_context(|| format!("{name} is not installed: all-smi needs it (Debian: libdrm2, libdrm-amdgpu1)"))
}

fn script(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
