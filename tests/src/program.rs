//! Our programs as users run them: built by cargo with the very features they are shipped with, and as the tests
//! around them were built, so that nothing is compiled twice.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Where the provider lies; the first call builds it.
///
/// # Errors
/// With what the compiler said.
pub fn provider() -> Result<PathBuf> {
    program("windlass-provider")
}

/// Where the agent lies; the first call builds it.
///
/// # Errors
/// With what the compiler said.
pub fn agent() -> Result<PathBuf> {
    program("windlass-agent")
}

/// The agent in a process of its own, until dropped.
#[derive(Debug)]
pub struct Agent {
    process: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Agent {
    /// Runs a command that is the agent, or becomes it; it listens.
    ///
    /// # Errors
    /// With what it said when it does not.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("starting the agent")?;
        let mut said = String::new();
        let log = BufReader::new(process.stderr.take().context("the agent's log")?);
        let mut lines = log.lines().map_while(Result::ok);
        let address = lines.by_ref().find_map(|line| {
            said += &format!("{line}\n");
            line.split(' ').find_map(|word| word.strip_prefix("address="))?.parse().ok()
        });
        let address = address.with_context(|| format!("the agent does not listen:\n{said}"))?;
        // Whatever else it says is read, so that it never waits for its log.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, address })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal, such as `TERM`.
    ///
    /// # Errors
    /// When there is no such process any more.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.id().to_string()]).status()?;
        ensure!(status.success(), "the agent is gone");
        Ok(())
    }

    /// How it ended; nothing while it runs.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.process.try_wait()?)
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        // Both fail only for a process that is gone already.
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program(name: &'static str) -> Result<PathBuf> {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(program) = built.get(name) {
        return Ok(program.clone());
    }
    let program = build(name)?;
    built.insert(name, program.clone());
    Ok(program)
}

fn build(name: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--message-format=json-render-diagnostics", "--workspace", "--bin", name]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let out = command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting cargo to build {name}"))?;
    ensure!(out.status.success(), "cargo could not build {name}");
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == name).then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    let said = String::from_utf8_lossy(&out.stdout);
    said.lines().find_map(executable).with_context(|| format!("cargo named no {name}"))
}
