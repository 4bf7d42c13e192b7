//! What may change while the agent runs: settings, the web configuration, the choice of DCGM families. Each file is read again when its file changes by content, or at once on SIGHUP;
//! readers see the old whole or the new whole, and a mistake leaves the old one in force, is logged once and shows in a metric.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::reload::Reloaded;
use crate::config::{Config, DcgmNames, command_line, limits};
use crate::families::choice::Choice;
use crate::http::web::Web;
use crate::log;

const CONFIG: &str = "--config";
const WEB: &str = "--web-config-file";
const COLLECTORS: &str = "--collectors";
/// Largest counters CSV: with every field of DCGM it has some 50 KiB.
const COUNTERS_MAX: u64 = 1 << 20;

/// How the last reading of a file ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reload {
    /// Whether what the file says is in force.
    pub ok: bool,
    /// When it was last taken over, seconds since 1970.
    pub unix: f64,
}

/// The flag that names a file -> how its last reading ended.
pub type Reloads = BTreeMap<&'static str, Reload>;

/// Settings that readers take anew each time they need them.
#[derive(Debug)]
pub struct Live {
    config: watch::Sender<Arc<Config>>,
    /// Whether the start reached for the Kubernetes API to taint the node.
    taints: bool,
    web: ArcSwap<Web>,
    choice: ArcSwap<Choice>,
    counters: Mutex<Written>,
    settings: Mutex<Written>,
    reloads: Mutex<Reloads>,
    complaints: Mutex<BTreeMap<&'static str, String>>,
    clock: Clock,
}

/// The bytes of a file: those in force, and those that the last look found.
#[derive(Debug, Default)]
struct Written {
    in_force: Option<Vec<u8>>,
    found: Vec<u8>,
}

impl Written {
    fn new(in_force: Option<Vec<u8>>) -> Self {
        Self { in_force, found: Vec::new() }
    }

    /// Whether what a look found is to be read: it is new and, unless somebody asks for it `now`, the look before found the same. One look may come
    /// while the file is being written, when half of it or none is there.
    fn is_news(&mut self, found: &[u8], now: bool) -> bool {
        let still = std::mem::replace(&mut self.found, found.to_vec()) == found;
        (still || now) && self.in_force.as_deref() != Some(found)
    }
}

impl Live {
    /// Reads every file that the settings name. Fails for whatever is wrong with one: at the start a mistake is worth an end.
    pub fn new(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let web = Web::read(config.web_config_file.as_deref()).map_err(|error| complaint(WEB, &config, &error))?;
        let live = Self {
            choice: ArcSwap::from_pointee(Choice::of(config.dcgm_names)),
            counters: Mutex::default(),
            settings: Mutex::new(Written::new(config.file.as_deref().and_then(|file| settings(file).ok()))),
            web: ArcSwap::from_pointee(web),
            taints: !config.kubernetes.taint_on.is_empty(),
            config: watch::Sender::new(Arc::new(config)),
            reloads: Mutex::default(),
            complaints: Mutex::default(),
            clock,
        };
        if live.config().file.is_some() {
            live.note(CONFIG, Ok(true));
        }
        if live.config().web_config_file.is_some() {
            live.note(WEB, Ok(true));
        }
        if let Some(file) = &live.config().collectors {
            live.collect(file, true).map_err(|error| complaint(COLLECTORS, &live.config(), &error))?;
            live.note(COLLECTORS, Ok(true));
        }
        Ok(live)
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// The settings in force, for who has to do something when they change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }

    /// The web configuration in force.
    #[must_use]
    pub fn web(&self) -> Arc<Web> {
        self.web.load_full()
    }

    /// The DCGM families in force.
    #[must_use]
    pub fn choice(&self) -> Arc<Choice> {
        self.choice.load_full()
    }

    /// How the files' last readings ended.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads every file again; what is new at once when that was asked for, else when it has stood still since the last look.
    pub fn reload(&self, now: bool) {
        if let Some(file) = &self.config().file {
            self.note(CONFIG, self.settle(file, now));
        }
        let config = self.config();
        if config.web_config_file.is_some() {
            let renewed = self.web().renewed(config.web_config_file.as_deref());
            let taken = renewed.map(|fresh| fresh.map(|web| self.web.store(Arc::new(web))).is_some());
            self.note(WEB, taken);
        }
        match &config.collectors {
            Some(file) => self.note(COLLECTORS, self.collect(file, now)),
            None => self.forget(COLLECTORS),
        }
    }

    /// Reads the settings file; true when it says something new. What only a start can change is named and left as it was.
    fn settle(&self, file: &Path, now: bool) -> Result<bool, String> {
        let bytes = settings(file)?;
        let mut known = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.is_news(&bytes, now) {
            return Ok(false);
        }
        let current = self.config();
        let (_, args) = command_line::parse(&current.line).map_err(|error| {
            let said = error.to_string();
            let line = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
            // Which file it is about is said by who tells.
            line.split_once(&format!("{}: ", file.display())).map_or(line, |(_, what)| what).to_owned()
        })?;
        let Reloaded { config: fresh, waiting } = current.reloaded(Config::from(args), self.taints);
        if !waiting.is_empty() {
            let flags = waiting.join(", ");
            tracing::warn!("{CONFIG} {}: takes effect at the next start only: {flags}", file.display());
        }
        if fresh.log != current.log {
            log::set(fresh.log);
        }
        if fresh.dcgm_names != current.dcgm_names || fresh.collectors != current.collectors {
            *self.counters.lock().unwrap_or_else(PoisonError::into_inner) = Written::default();
            if fresh.collectors.is_none() {
                self.choice.store(Arc::new(Choice::of(fresh.dcgm_names)));
            }
        }
        self.config.send_replace(Arc::new(fresh));
        known.in_force = Some(bytes);
        Ok(true)
    }

    /// Reads the counters CSV; true when it says something new. Rows that cannot be used are told and left out.
    fn collect(&self, file: &Path, now: bool) -> Result<bool, String> {
        let bytes = counters(file)?;
        let mut known = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.is_news(&bytes, now) {
            return Ok(false);
        }
        let (mut choice, complaints) = Choice::read(&bytes)?;
        for row in &complaints.rows {
            tracing::warn!("{COLLECTORS} {}: {row}", file.display());
        }
        if !complaints.unknown.is_empty() {
            let fields = complaints.unknown.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            tracing::warn!("{COLLECTORS} {}: not read by the agent, left out: {fields}", file.display());
        }
        if self.config().dcgm_names == DcgmNames::Off {
            choice = Choice::default();
        }
        self.choice.store(Arc::new(choice));
        known.in_force = Some(bytes);
        Ok(true)
    }

    /// Remembers and tells: what was taken over, and what is wrong, each once.
    fn note(&self, flag: &'static str, taken: Result<bool, String>) {
        let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let known = reloads.entry(flag).or_insert(Reload { ok: true, unix: self.clock.unix() });
        match taken {
            Ok(fresh) => {
                if fresh {
                    known.unix = self.clock.unix();
                    tracing::info!("{flag}: read");
                }
                known.ok = true;
                complaints.remove(flag);
            }
            Err(error) => {
                known.ok = false;
                if complaints.get(flag) != Some(&error) {
                    tracing::error!("{}; what was read before stays in force", complaint(flag, &self.config(), &error));
                    complaints.insert(flag, error);
                }
            }
        }
    }

    /// No file is named any more: how its last reading ended concerns nobody.
    fn forget(&self, flag: &'static str) {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner).remove(flag);
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).remove(flag);
    }

    fn names_files(&self) -> bool {
        let config = self.config();
        config.file.is_some() || config.web_config_file.is_some() || config.collectors.is_some()
    }

    /// Reads away from the loop. A file that does not answer is told of and awaited further: no second reader is sent after it.
    async fn read(self: Arc<Self>, now: bool) -> anyhow::Result<()> {
        let mut reading = tokio::task::spawn_blocking(move || self.reload(now));
        match tokio::time::timeout(limits::FILE_WAIT, &mut reading).await {
            Ok(read) => Ok(read?),
            Err(_elapsed) => {
                let wait = limits::FILE_WAIT;
                tracing::error!(
                    "a file of settings has not been read within {wait:?}; what was read before stays in force; is it on a network that is down?"
                );
                Ok(reading.await?)
            }
        }
    }

    /// Looks at the files until cancelled.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + limits::FILE_POLL, limits::FILE_POLL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = look.tick(), if self.names_files() => false,
                _ = hangup.recv() => true,
            };
            if now {
                tracing::info!("SIGHUP: the files are read again");
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                read = Arc::clone(&self).read(now) => read?,
            }
        }
    }
}

fn settings(file: &Path) -> Result<Vec<u8>, String> {
    crate::config::read(file, command_line::FILE_MAX)
}

/// The bytes of a counters CSV.
pub(crate) fn counters(file: &Path) -> Result<Vec<u8>, String> {
    crate::config::read(file, COUNTERS_MAX)
}

fn complaint(flag: &str, config: &Config, error: &str) -> anyhow::Error {
    let file = match flag {
        CONFIG => config.file.as_deref(),
        WEB => config.web_config_file.as_deref(),
        COLLECTORS => config.collectors.as_deref(),
        _ => None,
    };
    anyhow!("{flag} {}: {error}", file.unwrap_or(Path::new("")).display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_being_written_is_not_read_by_halves() {
        let mut file = Written::new(Some(b"old".into()));
        let looks = [("old", false), ("", false), ("ne", false), ("new", false), ("new", true)];
        for (found, expect) in looks {
            assert_eq!(file.is_news(found.as_bytes(), false), expect, "{found}");
        }
        file.in_force = Some(b"new".into());
        assert!(!file.is_news(b"new", false) && !file.is_news(b"new", true), "it is in force");
        assert!(file.is_news(b"newer", true), "somebody asks for it now");
    }
}
