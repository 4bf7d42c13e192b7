//! What may change while the agent runs: the web configuration. Each is read again when its file changes by content, or at once on SIGHUP;
//! readers see the old whole or the new whole, and a mistake leaves the old one in force, is logged once and shows in a metric.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, limits};
use crate::http::web::Web;

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
    config: ArcSwap<Config>,
    web: ArcSwap<Web>,
    reloads: Mutex<Reloads>,
    complaints: Mutex<BTreeMap<&'static str, String>>,
    clock: Clock,
}

impl Live {
    /// Reads every file that the settings name. Fails for whatever is wrong with one: at the start a mistake is worth an end.
    pub fn new(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let web = Web::read(config.web_config_file.as_deref())
            .map_err(|error| complaint("--web-config-file", &config, &error))?;
        let live = Self {
            web: ArcSwap::from_pointee(web),
            config: ArcSwap::from_pointee(config),
            reloads: Mutex::default(),
            complaints: Mutex::default(),
            clock,
        };
        if live.config().web_config_file.is_some() {
            live.note("--web-config-file", Ok(true));
        }
        Ok(live)
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The web configuration in force.
    #[must_use]
    pub fn web(&self) -> Arc<Web> {
        self.web.load_full()
    }

    /// How the files' last readings ended.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads every file again.
    pub fn reload(&self) {
        let config = self.config();
        if config.web_config_file.is_some() {
            let renewed = self.web().renewed(config.web_config_file.as_deref());
            let taken = renewed.map(|fresh| fresh.map(|web| self.web.store(Arc::new(web))).is_some());
            self.note("--web-config-file", taken);
        }
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

    /// Looks at the files until cancelled.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + limits::FILE_POLL, limits::FILE_POLL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = look.tick() => {}
                _ = hangup.recv() => tracing::info!("SIGHUP: the files are read again"),
            }
            let live = Arc::clone(&self);
            tokio::task::spawn_blocking(move || live.reload()).await?;
        }
    }
}

fn complaint(flag: &str, config: &Config, error: &str) -> anyhow::Error {
    let file = match flag {
        "--web-config-file" => config.web_config_file.as_deref(),
        _ => None,
    };
    anyhow!("{flag} {}: {error}", file.unwrap_or(std::path::Path::new("")).display())
}
