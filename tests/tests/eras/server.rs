//! Our provider, whole, on the simulated cloud; and a client that sends bytes as they are and gives bytes back.

use std::{path::Path, time::Duration};

use tempfile::TempDir;
use tonic::{
    Code, Request,
    client::Grpc,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use windlass_provider::{Running, config::Config};
use windlass_tests::raw::Raw;

const SCENARIO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/three-groups.yaml");

/// A provider and the ways to it.
pub(crate) struct Server {
    _running: Running,
    _folder: TempDir,
    provider: Channel,
    expander: Channel,
}

impl Server {
    /// A provider with these lines added to its configuration, after its first listing.
    pub(crate) async fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (socket, roots) = (path("provider.sock"), path("roots.crt"));
        let text = format!(
            "cloud: {{kind: sim, scenario: {SCENARIO}}}\n\
             provider: {{listen: \"unix://{socket}\"}}\n\
             expander: {{listen: \"127.0.0.1:0\", selfSigned: {{caFile: {roots}, names: [localhost]}}}}\n\
             http: {{listen: \"127.0.0.1:0\"}}\n{more}"
        );
        let config = Config::parse(&text, Path::new("config.yaml")).unwrap();
        let running = windlass_provider::start(config).await.unwrap();
        let provider = Endpoint::from_shared(format!("unix://{socket}")).unwrap().connect().await.unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(std::fs::read(roots).unwrap()))
            .domain_name("localhost");
        let expander = Endpoint::from_shared(format!("https://{}", running.expander)).unwrap();
        let expander = expander.tls_config(tls).unwrap().connect().await.unwrap();
        let server = Self { _running: running, _folder: folder, provider, expander };
        while server.call("Refresh", Vec::new()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    /// Sends a message as it is.
    pub(crate) async fn call(&self, method: &str, request: Vec<u8>) -> Result<Vec<u8>, Code> {
        let (channel, path) = if method == "BestOptions" {
            (&self.expander, "/grpcplugin.Expander/BestOptions".to_owned())
        } else {
            let service = "/clusterautoscaler.cloudprovider.v1.externalgrpc.CloudProvider";
            (&self.provider, format!("{service}/{method}"))
        };
        let mut client = Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let answer = client.unary(Request::new(request.into()), path.parse().unwrap(), Raw).await;
        answer.map(|answer| answer.into_inner().into()).map_err(|status| status.code())
    }
}
