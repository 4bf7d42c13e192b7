//! Follows the configuration file. It is compared by content, so that a ConfigMap's swapped links count as the change
//! they are; what is wrong leaves the old configuration in force, and says so once.

use std::sync::Arc;

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    Shared,
    config::{self, Config, limits},
    keeper::Command,
};

/// Follows until told to stop.
///
/// # Errors
/// None; the type is that of a task.
pub(crate) async fn follow(config: Config, shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut current = config;
    // Not what is there now: the file may have changed since the start read it.
    let mut text = None;
    let mut look = time::interval(limits::FILE_POLL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = look.tick() => {}
        }
        let _changed = shared.policies.poll();
        let file = current.file.clone();
        // A file that is being replaced may be away for a moment.
        let Ok(words) = tokio::task::spawn_blocking(move || config::read_text(&file)).await? else { continue };
        if text.as_ref() == Some(&words) {
            continue;
        }
        let (file, words, is_first) = (current.file.clone(), words.clone(), text.replace(words).is_none());
        match tokio::task::spawn_blocking(move || Config::parse(&words, &file)).await? {
            Ok(same) if is_first && same == current => {}
            Ok(fresh) => {
                if shared.keeper.note(Command::Reload(Box::new(fresh.clone()))).await.is_err() {
                    // It is too busy: read again at the next look.
                    text = Some(String::new());
                    continue;
                }
                for key in fixed(&current, &fresh) {
                    tracing::warn!(key, "changed; takes effect at the next start");
                }
                shared.policies.configure(&fresh.expander, &shared.dialect.gpu_label);
                tracing::info!(config = ?fresh, "the configuration was read again");
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
