//! What the agents on the nodes announce: the shipped provider asks the shipped agent, which asks the instance metadata;
//! and agents that are wrong, hostile or dead.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use windlass_proto::externalgrpc::instance_status::InstanceState;
use windlass_tests::{
    aws::{AwsCloud, instance},
    certificates::Mutual,
    metadata::Metadata,
    port::Port,
    program::{self, Agent},
};

use super::stage::{Stage, gpu_group};

/// From EC2's notice to the end.
const NOTICE: Duration = Duration::from_mins(2);

/// The shipped agent on a machine without a GPU.
fn agent(metadata: &Metadata, arguments: &[&str]) -> Agent {
    let mut command = Command::new(program::agent().unwrap());
    command.args(["--listen", "127.0.0.1:0", "--node-name", "gpu-1", "--kubelet-socket", ""]);
    command.args(["--nvml-library", "/nonexistent/libnvidia-ml.so.1", "--metadata-endpoint", &metadata.endpoint()]);
    Agent::start(command.args(arguments)).unwrap()
}

/// The instance metadata of a machine of the group `gpu`.
fn metadata_of(cloud: &AwsCloud) -> Metadata {
    instance::metadata(&cloud.group("gpu").machines()[0]).unwrap()
}

fn spot_cloud(machines: u32) -> AwsCloud {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group().mixed(&["g5.xlarge"], true).desired(machines));
    cloud
}

/// Whether the provider's page of metrics has this line.
async fn shows(stage: &mut Stage, line: &str) -> bool {
    stage.page("/metrics").await.lines().any(|it| it == line)
}

async fn leaving(stage: &mut Stage, machines: usize) -> bool {
    stage.count("gpu", InstanceState::InstanceDeleting).await == machines
}

#[tokio::test]
async fn a_spot_notice_goes_from_the_instance_metadata_through_the_agent_to_the_autoscaler() {
    let cloud = spot_cloud(2);
    let metadata = metadata_of(&cloud);
    let agent = agent(&metadata, &[]);
    let agents = json!({"usage": {"agents": {"urls": [format!("http://{}", agent.address)], "interval": "200ms"}}});
    let mut stage = Stage::with(cloud, &agents).await;
    let heard = "windlass_provider_agents{state=\"heard\"} 1";
    stage.until("the agent is heard", async |stage| shows(stage, heard).await).await;
    let doctor = String::from_utf8(stage.run(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("1 agent heard\n"), "{doctor}");
    metadata.set("events/recommendations/rebalance", Some(r#"{"noticeTime":"2020-10-27T08:22:00Z"}"#));
    let hint = "windlass_provider_machines_total{outcome=\"rebalance-recommended\"} 1";
    stage.until("the hint is counted", async |stage| shows(stage, hint).await).await;
    assert!(leaving(&mut stage, 0).await, "a hint may come to nothing");

    instance::take_back(&stage.cloud, &metadata, NOTICE);
    stage.until("it is shown as leaving", async |stage| leaving(stage, 1).await).await;
    assert_eq!(stage.target("gpu").await, 1);
    metadata.set("spot/instance-action", None);
    stage.until("it stays after all", async |stage| leaving(stage, 0).await).await;
    assert_eq!(stage.target("gpu").await, 2);

    instance::take_back(&stage.cloud, &metadata, NOTICE);
    stage.until("it is shown as leaving once more", async |stage| leaving(stage, 1).await).await;
    drop(agent);
    let silent = "windlass_provider_agents{state=\"silent\"} 1";
    stage.until("the agent is gone", async |stage| shows(stage, silent).await).await;
    stage.relisted().await;
    assert!(leaving(&mut stage, 1).await, "silence takes nothing back");
    stage.increase("gpu", 1).await.unwrap();
    let replaced = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 2;
    stage.until("another runs beside it, before it is gone", replaced).await;
    assert!(leaving(&mut stage, 1).await);
    assert!(shows(&mut stage, hint).await, "the hint stood all the time, and was told once");
}

#[tokio::test]
async fn an_agent_with_tls_and_users_is_heard_by_who_has_both() {
    let cloud = spot_cloud(1);
    let metadata = metadata_of(&cloud);
    let folder = tempfile::tempdir().unwrap();
    let Mutual { authority, server, client } = Mutual::new(folder.path()).unwrap();
    let text = |path: &Path| path.display().to_string();
    let web = json!({
        "tls_server_config": {
            "cert_file": server.certificate, "key_file": server.key,
            "client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": authority,
        },
        "basic_auth_users": {"windlass": bcrypt::hash("not-a-secret", 4).unwrap()},
    });
    let (web_file, password) = (folder.path().join("web.yaml"), folder.path().join("password"));
    std::fs::write(&web_file, web.to_string()).unwrap();
    std::fs::write(&password, "wrong\n").unwrap();
    let agent = agent(&metadata, &["--web-config-file", &text(&web_file)]);
    let mut agents = json!({
        "address": format!("localhost:{}", agent.address.port()), "interval": "200ms",
        "tls": {"ca": authority, "cert": client.certificate, "key": client.key},
        "basicAuth": {"username": "windlass", "passwordFile": password},
    });
    let failed = async |stage: &mut Stage, reason: &str| {
        let line = format!("windlass_provider_agent_failures_total{{reason=\"{reason}\"}}");
        stage.page("/metrics").await.contains(&line)
    };
    let mut stage = Stage::with(cloud, &json!({"usage": {"agents": agents}})).await;
    stage.until("the wrong password is refused", async |stage| failed(stage, "status").await).await;
    std::fs::write(&password, "not-a-secret\n").unwrap();
    instance::take_back(&stage.cloud, &metadata, NOTICE);
    stage.until("the right one is taken over", async |stage| leaving(stage, 1).await).await;

    agents["tls"]["serverName"] = json!("someone-else");
    let mut stage = Stage::with(spot_cloud(1), &json!({"usage": {"agents": agents}})).await;
    stage.until("another name in the certificate", async |stage| failed(stage, "tls").await).await;
}

/// What an address answers to whoever asks.
#[derive(Clone, Debug)]
enum Answer {
    Usage(Value),
    Raw(Vec<u8>),
    Nothing,
}

/// An address that answers as it is told.
#[derive(Clone)]
struct Impostor {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
}

impl Impostor {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let impostor = Self { address: listener.local_addr().unwrap(), answer: Arc::new(Mutex::new(answer)) };
        let answers = impostor.answer.clone();
        // Ends with the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answer = answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
                std::thread::spawn(move || reply(stream, &answer));
            }
        });
        impostor
    }

    fn say(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn reply(mut stream: TcpStream, answer: &Answer) -> Option<()> {
    let lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    // The request has no body.
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let body = match answer {
        Answer::Usage(usage) => usage.to_string(),
        Answer::Raw(bytes) => return stream.write_all(bytes).ok(),
        Answer::Nothing => {
            // Longer than anyone waits for it.
            std::thread::sleep(Duration::from_mins(1));
            return None;
        }
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).ok()
}

/// An agent's answer, with a notice that its machine is taken back.
fn interrupted(machine: &Value) -> Answer {
    let notice = json!({"kind": "spot_interruption", "action": "terminate", "at": 1.0, "deadline": null});
    Answer::Usage(json!({"node": "n", "provider_id": machine, "notices": [notice]}))
}

#[tokio::test]
async fn an_agent_can_have_one_machine_marked_at_most_and_none_of_another_agent() {
    let cloud = spot_cloud(4);
    let ids: Vec<Value> = cloud.group("gpu").machines().iter().map(|it| json!(it.provider_id())).collect();
    let honest = Impostor::start(Answer::Usage(json!({"node": "n", "provider_id": ids[0], "notices": []})));
    let hostile = Impostor::start(interrupted(&json!("aws:///us-east-1a/i-0ffff")));
    let agents = json!({"usage": {"agents": {"urls": [honest.url(), hostile.url()], "interval": "100ms"}}});
    let mut stage = Stage::with(cloud, &agents).await;
    let one = |state: &str| format!("windlass_provider_agents{{state=\"{state}\"}} 1");
    for (what, machine, state) in [
        ("a machine of no group", json!("aws:///us-east-1a/i-0ffff"), "stranger"),
        ("the other's machine", ids[0].clone(), "machine-taken"),
        ("no machine", Value::Null, "stranger"),
    ] {
        hostile.say(interrupted(&machine));
        let is_so = async |stage: &mut Stage| shows(stage, &one("heard")).await && shows(stage, &one(state)).await;
        stage.until(what, is_so).await;
    }
    let ignored = "windlass_provider_agent_notices_total{kind=\"interruption\",outcome=\"ignored\"} 1";
    assert!(shows(&mut stage, ignored).await && leaving(&mut stage, 0).await, "counted once, and nothing follows");
    hostile.say(interrupted(&ids[1]));
    stage.until("it has its one machine", async |stage| leaving(stage, 1).await).await;
    hostile.say(interrupted(&ids[2]));
    stage.until("another one", async |stage| shows(stage, &one("machine-changed")).await).await;
    stage.relisted().await;
    assert_eq!((leaving(&mut stage, 1).await, stage.target("gpu").await), (true, 3));
}

#[tokio::test]
async fn agents_that_break_cost_nothing_but_their_own_row() {
    let cloud = spot_cloud(1);
    let machine = cloud.group("gpu").machines()[0].clone();
    let whole = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let broken = [
        Answer::Nothing,
        Answer::Raw(Vec::new()),
        Answer::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        Answer::Raw(whole("<html>")),
        Answer::Raw(whole(&format!("{{\"node\": \"n\", \"gpus\": \"{}\"}}", "x".repeat(2 << 20)))),
        Answer::Raw(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n".to_vec()),
    ];
    let count = broken.len() + 1;
    let mut urls: Vec<String> = broken.into_iter().map(|answer| Impostor::start(answer).url()).collect();
    let nobody = Port::hold().unwrap();
    urls.push(nobody.url());
    let sound = Impostor::start(interrupted(&json!(machine.provider_id())));
    urls.push(sound.url());
    let agents = json!({"usage": {"agents": {"urls": urls, "interval": "100ms"}}});
    let mut stage = Stage::with(cloud, &agents).await;
    stage.until("the one that works is heard", async |stage| leaving(stage, 1).await).await;
    let silent = format!("windlass_provider_agents{{state=\"silent\"}} {count}");
    stage.until("the others are silent", async |stage| shows(stage, &silent).await).await;
    for reason in ["timeout", "http", "unreadable", "body", "status", "connection"] {
        let line = format!("windlass_provider_agent_failures_total{{reason=\"{reason}\"}}");
        let counted = async |stage: &mut Stage| stage.page("/metrics").await.contains(&line);
        stage.until(&format!("{reason} is counted"), counted).await;
    }
    stage.relisted().await;
    let log = std::fs::read_to_string(stage.path("log")).unwrap();
    let told = log.lines().filter(|line| line.contains("an agent cannot be heard") && !line.contains(&sound.url()));
    assert_eq!(told.count(), count, "once each, whatever the round: {log}");
}

#[tokio::test]
async fn an_agent_that_cannot_tell_its_machine_is_known_by_its_nodes_name() {
    let cloud = spot_cloud(2);
    let machine = cloud.group("gpu").machines()[0].clone();
    let agent = Impostor::start(interrupted(&Value::Null));
    let agents = json!({"usage": {"agents": {"urls": [agent.url()], "interval": "100ms"}}});
    let mut stage = Stage::with(cloud, &agents).await;
    let stranger = "windlass_provider_agents{state=\"stranger\"} 1";
    stage.until("nobody knows it yet", async |stage| shows(stage, stranger).await).await;
    stage.shown("n", &machine.provider_id()).await;
    stage.until("its machine leaves", async |stage| leaving(stage, 1).await).await;
}
