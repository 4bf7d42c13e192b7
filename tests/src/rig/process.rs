//! A child process that cannot outlive its owner: log and pid file beside it, killed on drop, and by the kernel when
//! the harness itself dies (`setpriv --pdeathsig`, where util-linux has it).

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail};

/// How much of a log a message quotes.
const TAIL_BYTES: u64 = 2_000;

/// One running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; its output is appended to `<dir>/<name>.log` and its pid written to `<dir>/<name>.pid`.
    ///
    /// # Errors
    /// When the program cannot be started or its files cannot be written.
    pub fn start<A: Into<OsString>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        dir: &Path,
    ) -> Result<Self> {
        Self::start_with(name, program, arguments, dir, &[])
    }

    /// The same with more in its environment than the rig's own.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with<A: Into<OsString>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        dir: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).context("opening the log of a process")?;
        let mut command = match setpriv() {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments.into_iter().map(Into::into));
        for (key, _) in std::env::vars_os() {
            // A proxy of the environment must not come between loopback peers.
            if key.to_string_lossy().to_ascii_lowercase().ends_with("_proxy") {
                command.env_remove(key);
            }
        }
        let child = command
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("sharing the log")?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        fs::write(dir.join(format!("{name}.pid")), child.id().to_string()).context("writing a pid file")?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Fails with the end of its log when the process has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().with_context(|| format!("asking after {}", self.name))? {
            bail!("{} ended ({status}); the end of {}:\n{}", self.name, self.log.display(), self.tail());
        }
        Ok(())
    }

    /// Ends it at once, as a crash would (SIGKILL), and waits until it is gone.
    pub fn kill(&mut self) {
        // Already gone is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// util-linux's `setpriv`, if this machine has it.
fn setpriv() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| on_path("setpriv")).as_deref()
}

/// The first executable of this name on `PATH`.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
