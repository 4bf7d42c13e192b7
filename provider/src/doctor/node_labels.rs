//! Whether real nodes carry the GPU label. Nothing here asks the Kubernetes API: a running provider has seen the nodes
//! that cluster-autoscaler showed it, and says so in its metrics.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time,
};

use super::Finding;
use crate::{
    config::Config, expander::plural, fleet::template::Dialect, metrics::snapshot::UNLABELLED, snapshot::Snapshot,
};

const ABOUT: &str = "GPU label";
/// A provider on the same machine answers in a millisecond.
pub(super) const ANSWER: Duration = Duration::from_secs(3);
/// Most of `/metrics` that is read: a thousand groups have some 2 MB.
const LONGEST: u64 = 32 << 20;

pub(super) async fn examine(config: &Config, snapshot: &Snapshot, label: &str) -> Vec<Finding> {
    let gpus =
        |it: &&std::sync::Arc<crate::fleet::GroupView>| it.group.shape.gpus.as_ref().is_some_and(Dialect::labels_gpus);
    if !snapshot.fleet.groups().any(|view| gpus(&view)) {
        return Vec::new();
    }
    let by_hand = format!("`kubectl get nodes -L {label}` shows which nodes lack it");
    match time::timeout(ANSWER, metrics(config.http.listen)).await {
        Ok(Ok(text)) => told(&text, label, &by_hand),
        _ => {
            let what = format!(
                "not looked at: no provider answers at {}, and only a running one has seen the nodes",
                config.http.listen
            );
            vec![Finding::note(ABOUT, what, by_hand)]
        }
    }
}

/// What a running provider's metrics tell.
fn told(text: &str, label: &str, by_hand: &str) -> Vec<Finding> {
    let series = text.lines().filter_map(|line| line.strip_prefix(UNLABELLED)?.rsplit_once(' '));
    let lacking: Vec<_> = series
        .filter_map(|(labels, value)| Some((labels.split('"').nth(1)?, value.parse::<u32>().ok()?)))
        .filter(|(_, count)| *count > 0)
        .collect();
    if !text.contains("windlass_provider_build_info") {
        return vec![Finding::note(ABOUT, "not looked at: what answers there is no windlass-provider", by_hand)];
    }
    if lacking.is_empty() {
        return vec![Finding::ok(ABOUT, format!("every GPU node that cluster-autoscaler showed carries {label}"))];
    }
    let finding = |(group, count): (&str, u32)| {
        Finding::mend(
            ABOUT,
            format!(
                "{} of {group} registered without {label}: cluster-autoscaler takes such a node for one without GPUs and buys more",
                plural(count, "node")
            ),
            format!(
                "set it with the kubelet's --node-labels, in the launch template or the node group's labels; {by_hand}"
            ),
        )
    };
    lacking.into_iter().map(finding).collect()
}

pub(super) async fn metrics(address: SocketAddr) -> std::io::Result<String> {
    let host = if address.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address };
    let mut stream = TcpStream::connect(host).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut bytes = Vec::new();
    stream.take(LONGEST).read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn a_running_providers_metrics_tell() {
        let check = |text: &str, grade: Grade, said: &str| {
            let found = told(text, "gpu-model", "look");
            assert!(found.len() == 1 && found[0].grade == grade && found[0].what.contains(said), "{found:?}");
        };
        let build = "windlass_provider_build_info{version=\"1\"} 1\n";
        check("hello", Grade::Note, "no windlass-provider");
        check(build, Grade::Ok, "gpu-model");
        check(
            &format!("{build}{UNLABELLED}{{group=\"spot\"}} 2\n{UNLABELLED}{{group=\"od\"}} 0\n"),
            Grade::Mend,
            "2 nodes of spot",
        );
    }
}
