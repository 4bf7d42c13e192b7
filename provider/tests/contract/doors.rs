//! Who may come in, and how.

use std::{os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use windlass_proto::externalgrpc::{GpuLabelRequest, cloud_provider_client::CloudProviderClient};
use windlass_provider::{Running, config::Config};

use crate::stage::{GROUPS, Stage, eventually};

#[tokio::test]
async fn a_socket_left_behind_is_taken_over_and_a_living_one_is_not() {
    let mut stage = Stage::start("").await;
    let socket = stage.folder.path().join("provider.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "no one else may delete nodes");
    let config = Config::load(&stage.folder.path().join("windlass.yaml")).unwrap();
    let refused = windlass_provider::start(config.clone()).await.err().unwrap();
    assert!(format!("{refused:#}").contains("another process listens"), "{refused:#}");
    drop(stage.running.take());
    stage.let_go().await;
    drop(std::os::unix::net::UnixListener::bind(&socket));
    assert!(socket.exists(), "as a killed process leaves it");
    windlass_provider::start(config).await.unwrap();
}

#[tokio::test]
async fn a_gentle_end_answers_and_takes_the_socket_away() {
    let mut stage = Stage::start("").await;
    let running = stage.running.take().unwrap();
    running.stop();
    running.finished().await.unwrap();
    assert!(!stage.folder.path().join("provider.sock").exists());
    assert!(stage.client.gpu_label(GpuLabelRequest {}).await.is_err());
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }
}

async fn mutual_tls(folder: &Path, authority: &Authority) -> Running {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let (cert, key) = authority.issue("localhost");
    write("cert.pem", &cert);
    write("key.pem", &key);
    write("ca.pem", &authority.pem());
    write("scenario.yaml", GROUPS);
    write(
        "windlass.yaml",
        "cloud: {kind: sim, scenario: scenario.yaml}
provider: {listen: \"127.0.0.1:0\", tls: {cert: cert.pem, key: key.pem, clientCa: ca.pem}}
expander: {listen: \"127.0.0.1:0\", selfSigned: {caFile: expander-ca.crt}}
http: {listen: \"127.0.0.1:0\"}
",
    );
    windlass_provider::start(Config::load(&folder.join("windlass.yaml")).unwrap()).await.unwrap()
}

/// Whether a client that trusts `root` and shows `identity` gets an answer.
async fn answers(running: &Running, root: &str, identity: Option<(String, String)>) -> bool {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root)).domain_name("localhost");
    if let Some((cert, key)) = identity {
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", running.provider)).unwrap().tls_config(tls).unwrap();
    let Ok(channel) = endpoint.connect().await else { return false };
    CloudProviderClient::new(channel).gpu_label(GpuLabelRequest {}).await.is_ok()
}

#[tokio::test]
async fn tcp_wants_a_client_certificate_of_the_right_authority() {
    let (folder, authority, stranger) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let running = mutual_tls(folder.path(), &authority).await;
    assert!(answers(&running, &authority.pem(), Some(authority.issue("ca"))).await);
    assert!(!answers(&running, &authority.pem(), None).await);
    assert!(!answers(&running, &authority.pem(), Some(stranger.issue("ca"))).await);
    let plain = Endpoint::from_shared(format!("http://{}", running.provider)).unwrap().connect_lazy();
    assert!(CloudProviderClient::<Channel>::new(plain).gpu_label(GpuLabelRequest {}).await.is_err());
}

#[tokio::test]
async fn a_changed_certificate_is_used_without_a_restart() {
    let (folder, old, new) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let running = Arc::new(mutual_tls(folder.path(), &old).await);
    assert!(answers(&running, &old.pem(), Some(old.issue("ca"))).await);
    std::fs::write(folder.path().join("cert.pem"), "broken").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert!(answers(&running, &old.pem(), Some(old.issue("ca"))).await, "a broken one leaves the old one in use");
    let (cert, key) = new.issue("localhost");
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    std::fs::write(folder.path().join("cert.pem"), cert).unwrap();
    std::fs::write(folder.path().join("ca.pem"), new.pem()).unwrap();
    let renewed = async || answers(&running, &new.pem(), Some(new.issue("ca"))).await;
    eventually("the new one is shown", renewed).await;
    assert!(!answers(&running, &old.pem(), Some(old.issue("ca"))).await);
}

#[tokio::test]
async fn a_changed_configuration_is_followed_and_a_wrong_one_is_not() {
    let stage = Stage::start("").await;
    let file = stage.folder.path().join("windlass.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    let overridden = async || {
        let snapshot = stage.running.as_ref().unwrap().shared.keeper.snapshot();
        snapshot.fleet.group("spot").unwrap().group.overrides.zero_or_max_node_scaling.is_some()
    };
    std::fs::write(&file, format!("{good}groups: {{spot: {{options: {{zeroOrMaxNodeScaling: false}}}}}}\n")).unwrap();
    eventually("the new one is in force", overridden).await;
    std::fs::write(&file, format!("{good}grups: {{}}\n")).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert!(overridden().await, "the last good one stands");
    std::fs::write(&file, good).unwrap();
    eventually("the first one is back", async || !overridden().await).await;
}
