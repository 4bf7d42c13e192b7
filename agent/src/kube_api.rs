//! The Kubernetes API, for those who allow it (cargo feature `kube`): a taint and Events on the own Node, and a watch on this node's pods.
//! The only users of the kube crate in this program. Nothing here is needed to measure: what fails is logged, counted and tried again.

mod pods;
mod taint;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use kube::api::ApiResource;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, limits};
use crate::live::Live;
use crate::notices::Board;
use crate::pods::poll::Shared;

/// What the tasks work with.
#[derive(Clone)]
pub struct World {
    /// The settings of the start: whose node it is, and the way to the API server.
    pub config: Arc<Config>,
    /// Those in force.
    pub live: Arc<Live>,
    /// The notices that stand.
    pub board: Arc<Board>,
    /// Where the pods' identities go.
    pub pods: Arc<Shared>,
    /// For times.
    pub clock: Clock,
}

/// Starts what the settings ask for. Fails only for a kubeconfig or an environment that no retry mends.
///
/// # Errors
/// When there is no way to an API server.
pub async fn start(
    world: World,
    tasks: &mut JoinSet<anyhow::Result<()>>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(flag) = world.config.kubernetes.wants() else { return Ok(()) };
    let client = client(world.config.kubernetes.kubeconfig.as_deref()).await;
    let client = client.with_context(|| format!("{flag}: no way to the Kubernetes API"))?;
    if !world.config.kubernetes.taint_on.is_empty() {
        tasks.spawn(until_stopped(taint::keep(world.clone(), client.clone()), stop.clone()));
    }
    if world.config.kubernetes.pod_informer {
        tasks.spawn(until_stopped(pods::watch(world, client), stop.clone()));
    }
    Ok(())
}

async fn until_stopped(work: impl Future<Output = ()>, stop: CancellationToken) -> anyhow::Result<()> {
    stop.run_until_cancelled(work).await;
    Ok(())
}

async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let written = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(written, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("--kubeconfig {}", path.display()))?
        }
        None => kube::Config::incluster()
            .context("no service account in this pod: set automountServiceAccountToken, or give --kubeconfig")?,
    };
    (config.connect_timeout, config.write_timeout) = (Some(limits::API_WAIT), Some(limits::API_WAIT));
    Client::try_from(config).context("a client could not be made")
}

/// What does not come in time is an error: the client itself waits for an answer for ever.
async fn within<T, E: Into<anyhow::Error>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(came) => came.map_err(Into::into),
        Err(_elapsed) => anyhow::bail!("the API server has not answered within {limit:?}"),
    }
}

/// A kind of the core group.
fn resource(kind: &str) -> ApiResource {
    let plural = format!("{}s", kind.to_ascii_lowercase());
    ApiResource { group: String::new(), version: "v1".into(), api_version: "v1".into(), kind: kind.into(), plural }
}

/// The pause after this many failures in a row.
fn pause(failures: u32) -> Duration {
    limits::API_RETRY.saturating_mul(2_u32.saturating_pow(failures.min(8))).min(limits::API_RETRY_LAST)
}

#[cfg(test)]
mod tests {
    use kube::api::{Api, DynamicObject};

    use super::*;

    #[tokio::test]
    async fn an_api_server_that_never_answers_is_an_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // The kernel takes the connection and the request, and nobody answers.
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let nodes: Api<DynamicObject> = Api::all_with(client, &resource("Node"));
        let error = within(Duration::from_millis(50), nodes.get("gpu-1")).await.unwrap_err();
        assert!(error.to_string().contains("has not answered within 50ms"), "{error:#}");
    }
}
