//! The page at `/`, for a person who opens the port in a browser: what the agent sees, and where the rest is.

use super::Views;
use crate::usage::GpuUsage;

/// The whole page.
pub(super) fn page(views: &Views) -> String {
    let state = match views.ready.check() {
        Ok(()) => "ready".to_owned(),
        Err(pending) => format!("not ready: {pending}"),
    };
    let rows: String = views.latest.load().iter().flat_map(|published| &published.usage.gpus).map(row).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>windlass-agent</title>\
         <style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}}\
         table{{border-collapse:collapse}}td,th{{padding:.2rem 1.5rem .2rem 0;text-align:left}}</style>\
         <h1>windlass-agent <small>{}</small></h1><p>Node {}: {}</p>\
         <table><tr><th>GPU<th>model<th>use<th>held by</tr>{rows}</table><ul>\
         <li><a href=\"/metrics\">/metrics</a> for Prometheus</li>\
         <li><a href=\"/usage\">/usage</a> recent use per GPU, as JSON</li>\
         <li><a href=\"/readyz\">/readyz</a> what is pending</li>\
         <li><a href=\"/healthz\">/healthz</a> whether the agent lives</li></ul>\n",
        env!("CARGO_PKG_VERSION"),
        escape(&views.live.config().node_name),
        escape(&state)
    )
}

/// One GPU: its use now, and who holds it.
fn row(gpu: &GpuUsage) -> String {
    let owners: Vec<_> =
        gpu.owners.iter().map(|owner| format!("{}/{}", owner.name.namespace, owner.name.pod)).collect();
    let owners = if owners.is_empty() { "–".to_owned() } else { owners.join(", ") };
    let used = match gpu.utilization {
        _ if !gpu.up => "lost".to_owned(),
        Some(percent) => format!("{percent:.0} %"),
        None => "not measured".to_owned(),
    };
    let model = gpu.model.as_deref().unwrap_or_default();
    format!("<tr><td>{}<td>{}<td>{used}<td>{}</tr>", gpu.index, escape(model), escape(&owners))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
