//! A Kubernetes control plane of plain processes on loopback: etcd, kube-apiserver, kube-scheduler and
//! kube-controller-manager, with no kubelet anywhere.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use kube::Client;
use serde_json::json;

use super::{binaries::Binaries, process::Process};
use crate::port::Port;

/// How long the apiserver may take to become ready; it needs 3 to 10 s.
const READY: Duration = Duration::from_mins(3);
/// kube-controller-manager's controllers that the scenarios need. Without node-lifecycle no node ever loses the
/// not-ready taint that admission gives it.
const CONTROLLERS: &str = "node-lifecycle-controller,taint-eviction-controller,replicaset-controller,\
    deployment-controller,daemonset-controller,job-controller,disruption-controller,pod-garbage-collector-controller,\
    namespace-controller,serviceaccount-controller,garbage-collector-controller,\
    clusterrole-aggregation-controller";

/// A running control plane; dropping it ends its processes.
pub struct Plane {
    // In the order of the drop: etcd goes last.
    clients: Vec<Process>,
    apiserver: Process,
    etcd: Process,
    /// As a cluster administrator.
    pub client: Client,
    /// For programs that read one; same rights as `client`.
    pub kubeconfig: PathBuf,
    kubectl: PathBuf,
    url: String,
    _ports: [Port; 3],
}

impl Plane {
    /// Starts everything in `dir` and waits until the apiserver is ready.
    ///
    /// # Errors
    /// Names the process that did not come up, with the end of its log.
    pub async fn start(binaries: &Binaries, dir: &Path) -> Result<Self> {
        let dir = &dir.join("plane");
        fs::create_dir_all(dir).context("making the plane's folder")?;
        let ports = [Port::hold()?, Port::hold()?, Port::hold()?];
        let [clients, peers, secure] = &ports;
        let etcd = etcd(binaries, dir, clients, peers)?;
        let token = "rig-admin";
        let apiserver = apiserver(binaries, dir, &clients.url(), token, secure)?;
        let url = format!("https://{}", secure.address());
        let kubeconfig = dir.join("kubeconfig");
        fs::write(&kubeconfig, kubeconfig_of(&url, token)).context("writing the kubeconfig")?;
        let client = client_of(&kubeconfig)?;
        let kubectl = binaries.path("kubectl");
        let mut plane = Self { clients: Vec::new(), apiserver, etcd, client, kubeconfig, kubectl, url, _ports: ports };
        plane.until_ready().await?;
        let common = [
            format!("--kubeconfig={}", plane.kubeconfig.display()),
            "--leader-elect=false".to_owned(),
            // Nobody asks them anything: no port.
            "--secure-port=0".to_owned(),
        ];
        let scheduler = Process::start("kube-scheduler", &binaries.path("kube-scheduler"), common.clone(), dir)?;
        let controllers = common.into_iter().chain([format!("--controllers={CONTROLLERS}")]);
        let manager =
            Process::start("kube-controller-manager", &binaries.path("kube-controller-manager"), controllers, dir)?;
        plane.clients = vec![scheduler, manager];
        Ok(plane)
    }

    /// Fails when any of its processes has ended.
    ///
    /// # Errors
    /// Names the process, with the end of its log.
    pub fn alive(&mut self) -> Result<()> {
        self.clients.iter_mut().chain([&mut self.apiserver, &mut self.etcd]).try_for_each(Process::alive)
    }

    /// Runs kubectl and answers what it printed.
    ///
    /// # Errors
    /// With what kubectl said, when it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let out = tokio::process::Command::new(&self.kubectl)
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .args(arguments)
            .output()
            .await
            .context("running kubectl")?;
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        ensure!(out.status.success(), "kubectl {} failed: {said}", arguments.join(" "));
        Ok(said)
    }

    /// A kubeconfig with the rights that our manifests give the autoscaler, and no others.
    ///
    /// # Errors
    /// When the manifests are not taken.
    pub async fn autoscaler_kubeconfig(&self) -> Result<PathBuf> {
        self.account_kubeconfig(&["autoscaler.yaml"], "windlass-autoscaler", "kube-system", &[]).await
    }

    /// A kubeconfig with the rights that some of our manifests give a service account, and no others; further arguments are `kubectl create token`'s.
    ///
    /// # Errors
    /// When the manifests are not taken.
    pub async fn account_kubeconfig(
        &self,
        manifests: &[&str],
        account: &str,
        namespace: &str,
        token: &[&str],
    ) -> Result<PathBuf> {
        // No workload: its pod would wait for a node, and that is what the autoscaler looks for.
        let about_rights = |document: &&str| {
            let kind = document.lines().find_map(|line| line.strip_prefix("kind: "));
            kind.is_some_and(|kind| {
                kind == "ServiceAccount" || kind.contains("Role") || kind.starts_with("ValidatingAdmissionPolicy")
            })
        };
        let mut rights = String::new();
        for manifest in manifests {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes").join(manifest);
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            text.split("\n---\n").filter(about_rights).for_each(|document| rights += &format!("{document}\n---\n"));
        }
        let file = self.kubeconfig.with_file_name(format!("{account}-rights.yaml"));
        fs::write(&file, rights).context("writing the rights of an account")?;
        self.kubectl(&["apply", "-f", &file.display().to_string()]).await?;
        let namespace = format!("--namespace={namespace}");
        let token = self.kubectl(&[&["create", "token", account, &namespace], token].concat()).await?;
        let path = self.kubeconfig.with_file_name(format!("{account}-kubeconfig"));
        fs::write(&path, kubeconfig_of(&self.url, token.trim())).context("writing the account's kubeconfig")?;
        Ok(path)
    }

    /// Waits for `/readyz`.
    async fn until_ready(&mut self) -> Result<()> {
        let wait = async {
            loop {
                self.etcd.alive()?;
                self.apiserver.alive()?;
                let asked = tonic::codegen::http::Request::get("/readyz").body(Vec::new()).context("asking /readyz")?;
                if self.client.request_text(asked).await.is_ok_and(|text| text == "ok") {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        match tokio::time::timeout(READY, wait).await {
            Ok(done) => done,
            Err(_) => {
                bail!("kube-apiserver not ready within {READY:?}; the end of its log:\n{}", self.apiserver.tail())
            }
        }
    }
}

/// Starts etcd.
fn etcd(binaries: &Binaries, dir: &Path, clients: &Port, peers: &Port) -> Result<Process> {
    let (url, peer) = (clients.url(), peers.url());
    let flags = [
        format!("--data-dir={}", dir.join("etcd").display()),
        // Nothing here outlives a crash of the machine.
        "--unsafe-no-fsync".to_owned(),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ];
    Process::start("etcd", &binaries.path("etcd"), flags, dir)
}

/// Starts the apiserver with one administrator's token.
fn apiserver(binaries: &Binaries, dir: &Path, etcd: &str, token: &str, port: &Port) -> Result<Process> {
    let certs = dir.join("certs");
    fs::create_dir_all(&certs).context("making the folder of certificates")?;
    let tokens = dir.join("tokens.csv");
    fs::write(&tokens, format!("{token},admin,admin,system:masters\n")).context("writing the tokens")?;
    let (key, public) = (dir.join("service-account.key"), dir.join("service-account.pub"));
    let pair = rcgen::KeyPair::generate().context("making the key of service accounts")?;
    fs::write(&key, pair.serialize_pem()).context("writing the key of service accounts")?;
    fs::write(&public, pair.public_key_pem()).context("writing the public key of service accounts")?;
    let flags = [
        format!("--etcd-servers={etcd}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", port.number()),
        format!("--cert-dir={}", certs.display()),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        format!("--token-auth-file={}", tokens.display()),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", public.display()),
        format!("--service-account-signing-key-file={}", key.display()),
        // Pods here run nothing and mount nothing.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        // Loopback has no endpoint that a cluster could reach.
        "--endpoint-reconciler-type=none".to_owned(),
    ];
    Process::start("kube-apiserver", &binaries.path("kube-apiserver"), flags, dir)
}

/// JSON is YAML; the certificate is one that the apiserver made for itself a moment ago, on loopback.
fn kubeconfig_of(url: &str, token: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "rig",
        "clusters": [{"name": "rig", "cluster": {"server": url, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "rig", "user": {"token": token}}],
        "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "rig", "namespace": "default"}}],
    })
    .to_string()
}

/// A client for the apiserver of a kubeconfig that the rig wrote.
///
/// # Errors
/// When the file is not one of ours.
pub fn client_of(kubeconfig: &Path) -> Result<Client> {
    let text = fs::read(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
    let read: serde_json::Value = serde_json::from_slice(&text).context("reading the kubeconfig")?;
    let url = read["clusters"][0]["cluster"]["server"].as_str().context("the kubeconfig names no server")?;
    let token = read["users"][0]["user"]["token"].as_str().context("the kubeconfig holds no token")?;
    let mut config = kube::Config::new(url.parse().context("the apiserver's URL")?);
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(token.to_owned().into());
    Client::try_from(config).context("making a client for the apiserver")
}
