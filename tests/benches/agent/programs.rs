//! Ours and the peers: `nvitop-exporter` from PyPI, `all-smi` from crates.io, each built or installed once into a cache and started on the fake library.

use std::path::PathBuf;
use std::process::{Child, Command};

use anyhow::Context as _;
use windlass_tests::port::Port;
use windlass_tests::python;

use crate::all_smi;
use crate::run;
use crate::world::World;

/// A program under measurement.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) command: Command,
    pub(crate) port: Port,
}

impl World {
    pub(crate) fn agent(&self) -> anyhow::Result<Program> {
        let port = Port::hold()?;
        let mut command = Command::new(agent_binary("dist", &[])?);
        command.args(["--listen", &port.address().to_string(), "--sample-interval", "1s", "--node-name", "bench"]);
        command.args(["--kubelet-pods-socket", "", "--metadata-endpoint", ""]);
        command.arg("--nvml-library").arg(self.gpus.library());
        command.arg("--kubelet-socket").arg(self.kubelet.socket());
        command.arg("--host-proc").arg(self.host.proc()).arg("--host-logs").arg(self.host.logs());
        // As the manifest sets it.
        command.env("MALLOC_ARENA_MAX", "1").env("MALLOC_MMAP_THRESHOLD_", "131072");
        Ok(Program { name: "windlass-agent", command, port })
    }

    pub(crate) fn nvitop(&self) -> anyhow::Result<Program> {
        let port = Port::hold()?;
        let mut command = Command::new(python::program(&python::interpreter()?, "nvitop-exporter"));
        command.args(["--bind-address", "127.0.0.1", "--port", &port.number().to_string(), "--interval", "1"]);
        command.env("LD_LIBRARY_PATH", self.gpus.folder());
        Ok(Program { name: "nvitop-exporter", command, port })
    }
}

/// Builds the agent as it is shipped and says where it is.
pub(crate) fn agent_binary(profile: &str, features: &[&str]) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").context("CARGO is not set: run this with `cargo bench`")?;
    run(Command::new(cargo).args(["build", "--quiet", "--profile", profile, "-p", "windlass-agent"]).args(features))?;
    Ok(target()?.join(profile).join("windlass-agent"))
}

pub(crate) fn target() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.ancestors().nth(3).context("cargo's target folder")?.to_owned())
}

/// Prints the size of what is shipped, without and with what needs the Kubernetes API. Builds for minutes.
#[expect(clippy::print_stdout, reason = "a bench prints its table")]
pub(crate) fn sizes() -> anyhow::Result<()> {
    for features in [&[][..], &["--features", "kube"]] {
        let size = std::fs::metadata(agent_binary("dist", features)?)?.len();
        println!("windlass-agent, profile dist {}: {:.1} MB", features.join(" "), size as f64 / 1e6);
    }
    let size = std::fs::metadata(all_smi::binary()?)?.len();
    println!("all-smi {}, its release profile: {:.1} MB", all_smi::VERSION, size as f64 / 1e6);
    Ok(())
}

pub(crate) fn end(child: &mut Child) {
    // It may have ended by itself; either way it is gone after this.
    let _ = child.kill();
    let _ = child.wait();
}
