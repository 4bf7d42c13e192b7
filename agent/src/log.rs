//! How much is logged, to stderr. One place in the process holds the level, since a log is the process's own.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Begins to log.
pub fn start(level: Level) {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let ansi = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_target(false).with_ansi(ansi).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
    // A second start would have failed above.
    let _first = LEVEL.set(handle);
}

/// Logs as much as this from now on. A program that began no log of ours has none that changes.
pub(crate) fn set(level: Level) {
    if let Some(handle) = LEVEL.get()
        && let Err(error) = handle.reload(LevelFilter::from_level(level))
    {
        tracing::warn!(%error, "--log could not be changed");
    }
}
