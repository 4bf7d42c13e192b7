//! As whom and where AWS is asked: each source of credentials in the SDK's chain and each kind of endpoint, for the SDK's
//! clients and for our own of EC2 alike.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    path::Path,
    process::Output,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use windlass_tests::{
    aws::{ACCESS_KEY, AwsCloud, written},
    metadata::{Cloud, Metadata, Trouble},
};

use super::{
    proxy::Proxy,
    stage::{Stage, gpu_group},
};

type Variables<'a> = Vec<(&'a str, String)>;

/// No credentials in the environment.
const NONE: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
const ROLE: &str = "arn:aws:iam::123456789012:role/windlass";

fn account() -> AwsCloud {
    let cloud = AwsCloud::start().unwrap();
    cloud.add(
        "gpu",
        gpu_group().mixed(&["g5.xlarge"], true).tag("eks:cluster-name", "c1").tag("eks:nodegroup-name", "n"),
    );
    cloud
}

fn prepared(cloud: AwsCloud, settings: &Value, variables: &Variables<'_>) -> Stage {
    let variables: Vec<_> = NONE.into_iter().chain(variables.iter().map(|(name, value)| (*name, &**value))).collect();
    Stage::prepared(cloud, settings, &variables)
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The keys that signed what was asked of these services.
fn keys(cloud: &AwsCloud, services: &[&str]) -> BTreeSet<String> {
    cloud.with(|account, _| {
        let calls = account.calls.iter().filter(|call| services.contains(&call.service));
        calls.filter(|call| !call.action.starts_with("AssumeRole")).filter_map(|call| call.key.clone()).collect()
    })
}

/// With these variables `doctor` finds everything well, and all that it asked was signed by keys that begin so.
fn everyone_is_known_by(cloud: AwsCloud, settings: &Value, variables: &Variables<'_>, key: &str) -> Stage {
    let stage = prepared(cloud, settings, variables);
    let (code, text) = said(&stage.run(&["doctor"]));
    assert_eq!(code, Some(0), "{variables:?}: {text}");
    for service in ["autoscaling", "ec2", "eks", "sts"] {
        let keys = keys(&stage.cloud, &[service]);
        assert!(!keys.is_empty() && keys.iter().all(|it| it.starts_with(key)), "{service} {keys:?} {variables:?}");
    }
    stage
}

fn web_identity(cloud: &AwsCloud, token: &Path) -> Variables<'static> {
    std::fs::write(token, "a.web.identity").unwrap();
    vec![
        ("AWS_ROLE_ARN", ROLE.to_owned()),
        ("AWS_ROLE_SESSION_NAME", "provider".to_owned()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string()),
        ("AWS_ENDPOINT_URL_STS", cloud.endpoint()),
    ]
}

/// EKS Pod Identity's agent: credentials for whoever shows the token that holds now, another key each time.
struct PodIdentity {
    port: u16,
    token: Arc<Mutex<&'static str>>,
}

impl PodIdentity {
    /// Its credentials are good for so long.
    fn start(last: Duration) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, token) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new("the-pods-token")));
        let holds = Arc::clone(&token);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap();
                let shown = String::from_utf8_lossy(&request[..length]).to_ascii_lowercase();
                let holds = *holds.lock().unwrap_or_else(PoisonError::into_inner);
                let (status, body) = match shown.contains(&format!("authorization: {holds}")) {
                    true => (200, temporary(&format!("ASIAPOD{number}"), last).to_string()),
                    false => (403, "{}".to_owned()),
                };
                let head =
                    format!("HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
                write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}").unwrap();
            }
        });
        Self { port, token }
    }

    fn variables(&self, token: &Path) -> Variables<'static> {
        std::fs::write(token, "the-pods-token").unwrap();
        vec![
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://127.0.0.1:{}/v1/credentials", self.port)),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.display().to_string()),
        ]
    }

    /// Another token holds from now on; the kubelet has written it.
    fn rotate(&self, token: &Path) {
        std::fs::write(token, "its-next-token").unwrap();
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = "its-next-token";
    }
}

#[expect(clippy::disallowed_methods, reason = "credentials end at a time of day")]
fn temporary(key: &str, last: Duration) -> Value {
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + last;
    let end = written(u64::try_from(end.as_millis()).unwrap());
    json!({"Version": 1, "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": key, "SecretAccessKey": "-", "Token": "-",
           "SessionToken": "-", "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": end})
}

/// The instance metadata of a node with a role, in our region.
fn instance() -> Metadata {
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    metadata.set("iam/security-credentials/", Some("node"));
    metadata.set("iam/security-credentials/node", Some(&temporary("ASIANODE", Duration::from_hours(6)).to_string()));
    metadata.set("placement/region", Some("us-east-1"));
    metadata
}

fn on_the_instance(metadata: &Metadata) -> Variables<'static> {
    vec![("AWS_EC2_METADATA_DISABLED", String::new()), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.endpoint())]
}

/// A configuration file with a profile for each way to have one.
fn profiles(folder: &Path, profile: &str) -> Variables<'static> {
    let process = folder.join("process.json");
    std::fs::write(&process, temporary("ASIAPROCESS", Duration::from_hours(1)).to_string()).unwrap();
    let text = format!(
        "[profile keys]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = -\n\
         [profile process]\ncredential_process = cat {}\n\
         [profile role]\nrole_arn = {ROLE}\nsource_profile = keys\nrole_session_name = provider\n",
        process.display()
    );
    let file = folder.join("config");
    std::fs::write(&file, text).unwrap();
    vec![("AWS_PROFILE", profile.to_owned()), ("AWS_CONFIG_FILE", file.display().to_string())]
}

#[tokio::test]
async fn a_pod_with_a_web_identity_is_known_by_its_role() {
    let (cloud, folder) = (account(), tempfile::tempdir().unwrap());
    let variables = web_identity(&cloud, &folder.path().join("token"));
    let stage = everyone_is_known_by(cloud, &json!({}), &variables, "ASIA000");
    let asked = stage.cloud.calls("AssumeRoleWithWebIdentity");
    assert!(asked.iter().all(|call| call.parameters["WebIdentityToken"] == "a.web.identity"), "{asked:?}");
}

#[tokio::test]
async fn a_pod_with_pod_identity_is_known_by_what_its_agent_says() {
    let folder = tempfile::tempdir().unwrap();
    let agent = PodIdentity::start(Duration::from_hours(6));
    let variables = agent.variables(&folder.path().join("token"));
    everyone_is_known_by(account(), &json!({}), &variables, "ASIAPOD");
}

#[tokio::test]
async fn a_node_with_a_role_is_known_by_it_and_its_region_is_the_nodes() {
    let metadata = instance();
    let settings = json!({"cloud": {"region": null}});
    everyone_is_known_by(account(), &settings, &on_the_instance(&metadata), "ASIANODE");
}

#[tokio::test]
async fn a_hop_limit_of_one_is_named_as_what_keeps_the_nodes_role_away() {
    let metadata = instance();
    metadata.trouble(Trouble::HopLimit);
    let stage = prepared(account(), &json!({}), &on_the_instance(&metadata));
    let (code, text) = said(&stage.run(&["doctor"]));
    assert!(code == Some(1) && text.contains("hop limit of 2"), "{text}");
    assert_eq!(stage.cloud.calls("DescribeAutoScalingGroups"), []);
}

#[tokio::test]
async fn a_shell_is_known_by_the_keys_of_its_profile_by_its_process_and_by_the_role_it_names() {
    for (profile, key) in [("keys", ACCESS_KEY), ("process", "ASIAPROCESS"), ("role", "ASIA000")] {
        let (cloud, folder) = (account(), tempfile::tempdir().unwrap());
        let mut variables = profiles(folder.path(), profile);
        variables.push(("AWS_ENDPOINT_URL_STS", cloud.endpoint()));
        everyone_is_known_by(cloud, &json!({}), &variables, key);
    }
}

/// Credentials that soon end: they are asked for anew in time, and no request ever fails.
async fn new_ones_come_in_time(cloud: AwsCloud, variables: &Variables<'_>, then: impl FnOnce()) {
    let mut stage = prepared(cloud, &json!({}), variables);
    stage.start();
    stage.until("the groups are listed", async |stage| !stage.groups().await.is_empty()).await;
    then();
    let used = async |stage: &mut Stage| keys(&stage.cloud, &["autoscaling"]).len() >= 2;
    stage.until("a second key is used", used).await;
    // Our own client of EC2 has the new one, too: a group of a type that was not asked for yet.
    let before = keys(&stage.cloud, &["ec2"]);
    stage.cloud.add("other", gpu_group().mixed(&["g4dn.xlarge"], false));
    let used = async |stage: &mut Stage| keys(&stage.cloud, &["ec2"]).len() > before.len();
    stage.until("EC2 is asked with another key", used).await;
    stage.until("both groups are listed", async |stage: &mut Stage| stage.groups().await.len() == 2).await;
    assert_eq!(stage.cloud.with(|account, _| account.calls.iter().filter(|it| it.failed).count()), 0);
}

/// The SDK renews ten seconds before the end.
const SHORT: Duration = Duration::from_secs(13);

#[tokio::test]
async fn a_web_identitys_credentials_are_asked_for_anew_before_they_expire() {
    let (cloud, folder) = (account(), tempfile::tempdir().unwrap());
    cloud.with(|account, _| {
        account.credentials_last = SHORT;
        account.nodegroups.insert(("c1".to_owned(), "n".to_owned()), json!({"status": "ACTIVE"}));
    });
    let variables = web_identity(&cloud, &folder.path().join("token"));
    new_ones_come_in_time(cloud, &variables, || {}).await;
}

#[tokio::test]
async fn a_pod_identitys_credentials_are_asked_for_anew_with_the_token_that_holds_then() {
    let (cloud, folder) = (account(), tempfile::tempdir().unwrap());
    cloud.with(|account, _| account.nodegroups.insert(("c1".to_owned(), "n".to_owned()), json!({"status": "ACTIVE"})));
    let agent = PodIdentity::start(SHORT);
    let token = folder.path().join("token");
    new_ones_come_in_time(cloud, &agent.variables(&token), || agent.rotate(&token)).await;
}

#[tokio::test]
async fn a_nodes_credentials_are_asked_for_anew_before_they_expire() {
    let (cloud, metadata) = (account(), instance());
    cloud.with(|account, _| account.nodegroups.insert(("c1".to_owned(), "n".to_owned()), json!({"status": "ACTIVE"})));
    metadata.make("iam/security-credentials/node", |asked| temporary(&format!("ASIANODE{asked}"), SHORT).to_string());
    new_ones_come_in_time(cloud, &on_the_instance(&metadata), || {}).await;
}

/// The hosts that are asked without an endpoint of one's own.
fn hosts(settings: &Value, variables: &Variables<'_>) -> Vec<String> {
    const NAMES: [&str; 3] = ["*.us-east-1.amazonaws.com", "*.eks.us-east-1.amazonaws.com", "*.us-east-1.api.aws"];
    let (cloud, folder) = (account(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(&NAMES, &cloud.endpoint(), folder.path());
    let mut all: Variables<'_> = vec![
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "-".to_owned()),
        ("HTTPS_PROXY", proxy.url()),
        ("SSL_CERT_FILE", proxy.authority()),
    ];
    all.extend(variables.iter().cloned());
    let mut settings = settings.clone();
    settings["endpoint"] = Value::Null;
    let stage = prepared(cloud, &json!({"cloud": settings}), &all);
    let (code, text) = said(&stage.run(&["doctor"]));
    assert_eq!(code, Some(0), "{text}");
    proxy.hosts().into_iter().collect()
}

#[tokio::test]
async fn every_api_is_asked_at_awss_own_address_over_fips_and_dual_stack_where_that_is_said() {
    let plain = [
        "autoscaling.us-east-1.amazonaws.com",
        "ec2.us-east-1.amazonaws.com",
        "eks.us-east-1.amazonaws.com",
        "sts.us-east-1.amazonaws.com",
    ];
    assert_eq!(hosts(&json!({}), &vec![]), plain);
    let fips = [
        "autoscaling-fips.us-east-1.amazonaws.com",
        "ec2-fips.us-east-1.amazonaws.com",
        "fips.eks.us-east-1.amazonaws.com",
        "sts-fips.us-east-1.amazonaws.com",
    ];
    assert_eq!(hosts(&json!({"fips": true}), &vec![]), fips);
    assert_eq!(hosts(&json!({}), &vec![("AWS_USE_FIPS_ENDPOINT", "true".to_owned())]), fips);
    let dual_stack =
        ["autoscaling.us-east-1.api.aws", "ec2.us-east-1.api.aws", "eks.us-east-1.api.aws", "sts.us-east-1.api.aws"];
    assert_eq!(hosts(&json!({"dualStack": true}), &vec![]), dual_stack);
    let both = [
        "autoscaling-fips.us-east-1.api.aws",
        "ec2-fips.us-east-1.api.aws",
        "eks-fips.us-east-1.api.aws",
        "sts-fips.us-east-1.api.aws",
    ];
    let variables = vec![("AWS_USE_DUALSTACK_ENDPOINT", "true".to_owned())];
    assert_eq!(hosts(&json!({"fips": true}), &variables), both);
}
