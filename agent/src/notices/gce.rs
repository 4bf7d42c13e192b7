//! GCE's metadata server: two long polls that answer when something changes, and how the machine is scheduled.
//! The parsers are pure.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::metadata::{Answer, Failure, Header, Metadata};
use super::{Kind, Notice, Watch, patience, word};
use crate::config::limits;

/// Every request carries it, and so does every answer.
pub const FLAVOR: Header<'static> = ("metadata-flavor", "Google");
const INSTANCE: &str = "/computeMetadata/v1/instance/";
const PROJECT: &str = "/computeMetadata/v1/project/project-id";

/// Listens for as long as the agent runs.
pub async fn watch(watch: &Watch) {
    tokio::join!(
        scheduling(watch),
        listen(watch, "preempted", &[Kind::Preemption], preempted),
        listen(watch, "maintenance-event", &[Kind::Maintenance], maintenance),
    );
}

/// How the machine is scheduled never changes: asked until it is known, or refused.
async fn scheduling(watch: &Watch) {
    let mut metadata = Metadata::new(watch.authority.clone());
    let path = format!("{INSTANCE}scheduling/?recursive=true&alt=json");
    for failures in 1_u32.. {
        match get(&mut metadata, &path, limits::METADATA_WAIT).await {
            Ok(answer) => return watch.board.change(|seen| seen.market = market(&answer.body)),
            Err(failure) => {
                watch.board.bad(&failure);
                if matches!(failure, Failure::Refused(_, 400..=499)) {
                    return;
                }
            }
        }
        tokio::time::sleep(patience(limits::METADATA_INTERVAL, failures)).await;
    }
}

/// One path: its value now, then an answer at every change. A wait that ends without one is asked for again.
async fn listen(watch: &Watch, path: &str, kinds: &[Kind], read: fn(&str, f64) -> Option<Vec<Notice>>) {
    let mut metadata = Metadata::new(watch.authority.clone());
    let (mut etag, mut failures) = (None, 0_u32);
    loop {
        match ask(&mut metadata, path, etag.as_deref()).await {
            Ok((text, tag)) => {
                let unix = watch.clock.unix();
                match read(&text, unix) {
                    Some(notices) => {
                        failures = 0;
                        etag = tag;
                        watch.board.change(|seen| seen.replace(kinds, notices, unix));
                        watch.board.good(unix);
                        if kinds == [Kind::Preemption] && watch.board.load().provider_id.is_none() {
                            let machine = identity(&mut metadata).await;
                            watch.board.change(|seen| seen.provider_id = machine);
                        }
                    }
                    None => {
                        failures = failures.saturating_add(1);
                        watch.board.bad(&Failure::Unreadable(path.to_owned()));
                    }
                }
            }
            Err(failure) => {
                failures = failures.saturating_add(1);
                etag = None;
                watch.board.bad(&failure);
            }
        }
        // A server that answers at once although nothing changed, or fails, must not be asked in a circle.
        let pause = if failures == 0 && etag.is_some() { limits::METADATA_PAUSE } else { limits::METADATA_INTERVAL };
        tokio::time::sleep(patience(pause, failures)).await;
    }
}

/// The node's `spec.providerID`, as the cloud's own controller writes it; asked for again with the next answer when it is not known.
async fn identity(metadata: &mut Metadata) -> Option<Arc<str>> {
    let mut parts = Vec::new();
    for path in [PROJECT.to_owned(), format!("{INSTANCE}zone"), format!("{INSTANCE}name")] {
        let answer = get(metadata, &path, limits::METADATA_WAIT).await.ok()?;
        // The zone is `projects/<number>/zones/<zone>`.
        let last = answer.text()?.trim().rsplit('/').next()?;
        parts.push(word(last)?);
    }
    Some(format!("gce://{}", parts.join("/")).into())
}

/// A good answer. Without the flavor it is somebody else's, such as a proxy's.
async fn get(metadata: &mut Metadata, path: &str, wait: Duration) -> Result<Answer, Failure> {
    let answer = metadata.get(path, &[FLAVOR], wait).await?;
    match answer.status {
        200 if answer.header(FLAVOR.0) == Some(FLAVOR.1) => Ok(answer),
        200 => Err(Failure::Unreadable(path.to_owned())),
        status => Err(Failure::Refused(path.to_owned(), status)),
    }
}

/// The value and its ETag. With an ETag the server waits until the value is another one, or until the wait is over.
async fn ask(metadata: &mut Metadata, path: &str, etag: Option<&str>) -> Result<(String, Option<String>), Failure> {
    let wait = limits::METADATA_LONG_POLL;
    let (query, patience) = match etag {
        None => (String::new(), limits::METADATA_WAIT),
        Some(etag) => {
            let query = format!("?wait_for_change=true&last_etag={etag}&timeout_sec={}", wait.as_secs());
            (query, wait + limits::METADATA_WAIT)
        }
    };
    let answer = get(metadata, &format!("{INSTANCE}{path}{query}"), patience).await?;
    let text = answer.text().ok_or_else(|| Failure::Unreadable(path.to_owned()))?;
    // It goes into a query: only what needs no escaping is sent back.
    let plain = |tag: &&str| !tag.is_empty() && tag.len() <= 64 && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
    Ok((text.to_owned(), answer.header("etag").filter(plain).map(str::to_owned)))
}

/// `TRUE` or `FALSE`; `None` for anything else.
#[must_use]
pub fn preempted(text: &str, unix: f64) -> Option<Vec<Notice>> {
    match text.trim() {
        "TRUE" => Some(vec![Notice { kind: Kind::Preemption, action: "preempt".into(), at: unix, deadline: None }]),
        "FALSE" => Some(Vec::new()),
        _ => None,
    }
}

/// `NONE`, or what will be done; `None` for what is no word.
#[must_use]
pub fn maintenance(text: &str, unix: f64) -> Option<Vec<Notice>> {
    let action: Arc<str> = word(text)?.to_ascii_lowercase().into();
    let stands = &*action != "none";
    let notice = Notice { kind: Kind::Maintenance, action, at: unix, deadline: None };
    Some(stands.then_some(notice).into_iter().collect())
}

/// The market, out of `{"preemptible": "TRUE", "provisioningModel": "SPOT", "onHostMaintenance": "TERMINATE", …}`.
#[must_use]
pub fn market(body: &[u8]) -> Option<Arc<str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Written {
        preemptible: Option<String>,
        provisioning_model: Option<String>,
    }
    let written: Written = serde_json::from_slice(body).ok()?;
    let model = written.provisioning_model.as_deref().and_then(word).map(|model| model.to_ascii_lowercase());
    match (model.as_deref(), written.preemptible.as_deref()) {
        (None | Some("standard"), Some("TRUE")) => Some("preemptible".into()),
        (None | Some("standard"), Some(_)) => Some("on-demand".into()),
        (Some(model), _) => Some(model.into()),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_metadata_server_are_read() {
        assert_eq!(preempted("FALSE", 1.0), Some(Vec::new()));
        assert_eq!(preempted("TRUE\n", 1.0).unwrap()[0].kind, Kind::Preemption);
        assert_eq!(preempted("<!DOCTYPE html>", 1.0), None);
        assert_eq!(maintenance("NONE", 1.0), Some(Vec::new()));
        let found = maintenance("TERMINATE_ON_HOST_MAINTENANCE", 1.0).unwrap();
        assert_eq!(&*found[0].action, "terminate_on_host_maintenance");
        assert_eq!(maintenance("", 1.0), None);
        for (body, expect) in [
            (r#"{"automaticRestart":"TRUE","onHostMaintenance":"TERMINATE","preemptible":"FALSE"}"#, Some("on-demand")),
            (r#"{"preemptible":"TRUE"}"#, Some("preemptible")),
            (r#"{"preemptible":"TRUE","provisioningModel":"SPOT"}"#, Some("spot")),
            (r#"{"preemptible":"FALSE","provisioningModel":"STANDARD"}"#, Some("on-demand")),
            ("{}", None),
            ("[]", None),
        ] {
            assert_eq!(market(body.as_bytes()).as_deref(), expect, "{body}");
        }
    }
}
