//! Follows the configuration file. It is compared by content, so that a ConfigMap's swapped links count as the change
//! they are; what is wrong leaves the old configuration in force, and says so once.

use std::{path::Path, sync::Arc};

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    Shared,
    config::{Config, limits},
    keeper::Command,
};

/// Follows until told to stop.
///
/// # Errors
/// None; the type is that of a task.
pub(crate) async fn follow(config: Config, shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut current = config;
    let mut text = read(&current.file).await;
    let mut look = time::interval(limits::FILE_POLL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = look.tick() => {}
        }
        let _changed = shared.policies.poll();
        let fresh = read(&current.file).await;
        // A file that is being replaced may be away for a moment.
        if fresh.is_none() || fresh == text {
            continue;
        }
        text = fresh;
        let (file, words) = (current.file.clone(), text.clone().unwrap_or_default());
        match tokio::task::spawn_blocking(move || Config::parse(&words, &file)).await? {
            Ok(fresh) => {
                for key in fixed(&current, &fresh) {
                    tracing::warn!(key, "changed; takes effect at the next start");
                }
                shared.policies.configure(&fresh.expander, &shared.dialect.gpu_label);
                if shared.keeper.note(Command::Reload(Box::new(fresh.clone()))).await.is_ok() {
                    tracing::info!(config = ?fresh, "the configuration was read again");
                }
                shared.metrics.reload(true);
                current = fresh;
            }
            Err(problems) => {
                shared.metrics.reload(false);
                for problem in problems {
                    tracing::error!("the configuration changed and is wrong, the old one stands: {problem}");
                }
            }
        }
    }
}

async fn read(file: &Path) -> Option<String> {
    tokio::fs::read_to_string(file).await.ok()
}

/// Keys that only a start can change.
fn fixed(old: &Config, new: &Config) -> Vec<&'static str> {
    let keys = [
        ("cloud", old.cloud == new.cloud),
        ("provider", old.provider == new.provider),
        ("expander.listen", old.expander.listen == new.expander.listen),
        ("expander.tls", old.expander.tls == new.expander.tls),
        ("expander.selfSigned", old.expander.self_signed == new.expander.self_signed),
        ("http", old.http == new.http),
        ("gpuLabel", old.gpu_label == new.gpu_label),
        ("state", old.state == new.state),
        ("usage", old.usage == new.usage),
    ];
    keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
}
