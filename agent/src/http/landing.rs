//! The page at `/`, for a person who opens the port in a browser: what the agent sees, and where the rest is.

use super::Views;

/// The whole page.
pub(super) fn page(views: &Views) -> String {
    let state = match views.ready.check() {
        Ok(()) => "ready".to_owned(),
        Err(pending) => format!("not ready: {pending}"),
    };
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>windlass-agent</title>\
         <h1>windlass-agent {}</h1><p>Node {}: {}</p><ul>\
         <li><a href=\"/metrics\">/metrics</a> for Prometheus</li>\
         <li><a href=\"/usage\">/usage</a> recent use per GPU, as JSON</li>\
         <li><a href=\"/readyz\">/readyz</a> what is pending</li>\
         <li><a href=\"/healthz\">/healthz</a> whether the agent turns</li></ul>\n",
        env!("CARGO_PKG_VERSION"),
        escape(&views.live.config().node_name),
        escape(&state)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
