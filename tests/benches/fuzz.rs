//! Every parser of foreign bytes, against a million arbitrary inputs each: half of them bytes at random, half real ones with a few bytes changed.
//! `cargo bench -p windlass-tests --bench fuzz` (`-- --cases N` for another number, `-- --only NAME` for one parser). Ends with 1 and the smallest
//! input found when a parser panics.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use prost::Message as _;
use windlass_agent::notices::{dates, ec2, gce};
use windlass_agent::pods::{Holders, cgroup, checkpoint, device, kubelet, processes};
use windlass_proto::podresources::ListPodResourcesResponse;
use windlass_proto::pods::ListPodsResponse;
use windlass_tests::kubelet::{claimant, identity, pod};
use windlass_tests::proc::{Cgroup, Container};

/// Longest input drawn at random: what is longer is found by changing real ones.
const RANDOM_MAX: usize = 192;
/// Bytes changed in a real input at most.
const CHANGES_MAX: usize = 12;

/// A parser under test, with inputs that it understands.
struct Parser {
    name: &'static str,
    parse: fn(&[u8]),
    real: Vec<Vec<u8>>,
}

fn parsers() -> Vec<Parser> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    vec![
        Parser { name: "pod-resources", parse: pod_resources, real: vec![pod_resources_answer()] },
        Parser { name: "pods-api", parse: pods_api, real: vec![pods_api_answer()] },
        Parser { name: "device-id", parse: device_id, real: texts(DEVICE_IDS) },
        Parser { name: "claimed-device", parse: claimed_device, real: texts(CLAIMED_DEVICES) },
        Parser { name: "cgroup", parse: cgroup_lines, real: cgroups() },
        Parser { name: "proc-stat", parse: proc_stat, real: texts(STATS) },
        Parser { name: "checkpoint", parse: checkpoint_file, real: texts(CHECKPOINTS) },
        Parser { name: "ec2-metadata", parse: ec2_metadata, real: texts(EC2_METADATA) },
        Parser { name: "gce-metadata", parse: gce_metadata, real: texts(GCE_METADATA) },
        Parser { name: "counters-csv", parse: counters_csv, real: texts(COUNTERS) },
        Parser { name: "web-config", parse: web_config, real: texts(WEB_CONFIGS) },
        Parser { name: "hpc-jobs", parse: hpc_jobs, real: texts(&["0\n4711\n", "2.7\n12_1\n12_2"]) },
        Parser { name: "metadata-dates", parse: metadata_dates, real: texts(METADATA_DATES) },
        Parser { name: "agents-usage", parse: agents_usage, real: texts(AGENTS_USAGE) },
    ]
}

const COUNTERS: &[&str] = &[
    "# a comment\nDCGM_FI_DEV_GPU_UTIL, gauge, GPU utilization (in %).\nDCGM_FI_DRIVER_VERSION, label, Driver Version\n",
];
const WEB_CONFIGS: &[&str] = &[
    "tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca\n",
    "basic_auth_users:\n  ada: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG\nhttp_server_config:\n  http2: false\n",
];

fn counters_csv(bytes: &[u8]) {
    let _choice = windlass_agent::families::choice::Choice::parse(&String::from_utf8_lossy(bytes));
}

fn web_config(bytes: &[u8]) {
    let folder = std::path::Path::new("folder");
    let _config = windlass_agent::config::web::parse(&String::from_utf8_lossy(bytes), folder);
}

fn pod_resources(bytes: &[u8]) {
    if let Ok(assignments) = kubelet::decode(bytes) {
        let _holders = Holders::new(assignments);
    }
}

fn pod_resources_answer() -> Vec<u8> {
    let pods = vec![
        pod("ml", "train", "main", &[("nvidia.com/gpu", &["GPU-6a1fe0c2-41b5-4d62-9a4f-0d8a6ee9ce7f::3"])]),
        claimant("ml", "claims", "main", &["gpu-0", "gpu-0-mig-1g10gb-19-2"], Some("5e1c")),
    ];
    ListPodResourcesResponse { pod_resources: pods }.encode_to_vec()
}

fn pods_api(bytes: &[u8]) {
    if let Ok(pods) = kubelet::pods::decode(bytes) {
        let shown = windlass_agent::pods::identity::Shown { uid: true, labels: None };
        let _identities = windlass_agent::pods::identity::Identities::new(pods, &shown);
    }
}

fn pods_api_answer() -> Vec<u8> {
    let pod = identity(&Container::new("ml", "train", "main"), &[("team", "vision")]);
    ListPodsResponse { pods: vec![pod.encode_to_vec().into()] }.encode_to_vec()
}

const DEVICE_IDS: &[&str] =
    &["GPU-6a1fe0c2-41b5-4d62-9a4f-0d8a6ee9ce7f::12", "MIG-GPU-6a1fe0c2/7/0", "nvidia0/gi2/vgpu1", "MIG-77aa"];
const CLAIMED_DEVICES: &[&str] = &["gpu-12", "gpu-3-mig-1g10gb-me-20-0", "gpu-vfio-0"];

fn device_id(bytes: &[u8]) {
    let _device = device::device(&String::from_utf8_lossy(bytes));
}

fn claimed_device(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _device = (device::claimed(&text), device::partition_profile(&text));
}

fn cgroup_lines(bytes: &[u8]) {
    let _place = cgroup::place(&String::from_utf8_lossy(bytes));
}

fn cgroups() -> Vec<Vec<u8>> {
    let container = Container::new("ml", "train", "main");
    Cgroup::ALL.iter().map(|shape| shape.text(&container).into_bytes()).collect()
}

const STATS: &[&str] = &["1 (a) b (c) S 0 1 1 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4712 22 3"];

fn proc_stat(bytes: &[u8]) {
    let _start = processes::parse_start_time(&String::from_utf8_lossy(bytes));
}

const CHECKPOINTS: &[&str] = &[
    r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u1","ContainerName":"main","DeviceIDs":{"-1":["GPU-1::0"]},"AllocResp":"Cg=="}]},"Checksum":42}"#,
    r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u2","ContainerName":"main","DeviceIDs":["GPU-1"]}]}}"#,
];

fn checkpoint_file(bytes: &[u8]) {
    let _names = checkpoint::join(bytes, &[]);
}

const AGENTS_USAGE: &[&str] = &[
    r#"{"node":"n","time":1.5,"provider_id":"aws:///us-east-1a/i-1","market":"spot","notices":[{"kind":"spot_interruption","action":"terminate","at":1.5,"deadline":130.0}],"gpus":[{"index":0,"windows":{"1m":null},"owners":[]}]}"#,
    r#"{"node":"n","notices":[{"kind":"preemption","action":"preempt","at":1e9,"deadline":null}]}"#,
];

fn agents_usage(bytes: &[u8]) {
    let _said = windlass_provider::usage::read(bytes);
}

const EC2_METADATA: &[&str] = &[
    r#"{"action":"terminate","time":"2017-09-18T08:22:00Z"}"#,
    r#"{"noticeTime":"2020-10-27T08:22:00Z"}"#,
    r#"[{"NotBefore":"21 Jan 2019 09:00:43 GMT","Code":"system-reboot","EventId":"instance-event-1","State":"active"}]"#,
];
const GCE_METADATA: &[&str] = &[
    "TRUE",
    "TERMINATE_ON_HOST_MAINTENANCE",
    r#"{"automaticRestart":"TRUE","onHostMaintenance":"TERMINATE","preemptible":"TRUE","provisioningModel":"SPOT"}"#,
];
const METADATA_DATES: &[&str] = &["2020-10-27T08:22:00.123+02:00", "21 Jan 2019 09:00:43 GMT"];

fn ec2_metadata(bytes: &[u8]) {
    let _notices = (ec2::instance_action(bytes, 1.0), ec2::rebalance(bytes, 1.0), ec2::maintenance(bytes, 1.0));
}

fn gce_metadata(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _notices = (gce::preempted(&text, 1.0), gce::maintenance(&text, 1.0), gce::market(bytes));
}

/// The first line is the file's name.
fn hpc_jobs(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (name, text) = bytes.split_at(end);
    let _jobs = windlass_agent::jobs::parse(&String::from_utf8_lossy(name), text);
}

fn metadata_dates(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _times = (dates::rfc3339(&text), dates::spelled(&text));
}

/// Bytes at random, or a real input with some bytes changed, doubled or cut off.
fn inputs(real: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<Index>(), any::<u8>()), 0..CHANGES_MAX);
    let changed =
        (select(real), changes, any::<Index>(), any::<Index>()).prop_map(|(mut bytes, changes, cut, again)| {
            let bytes_len = bytes.len().max(1);
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at.index(bytes_len)) {
                    *place = byte;
                }
            }
            let tail = bytes.get(again.index(bytes.len() + 1)..).unwrap_or_default().to_vec();
            bytes.truncate(cut.index(2 * bytes.len() + 1));
            bytes.extend(tail);
            bytes
        });
    prop_oneof![vec(any::<u8>(), 0..RANDOM_MAX), changed]
}

fn main() -> anyhow::Result<ExitCode> {
    let cases = argument("--cases").map_or(Ok(1_000_000), |text| text.parse::<u32>().context("--cases N"))?;
    let only = argument("--only");
    let mut panicked = false;
    println!("{:<16}{:>12}{:>10}", "parser", "cases", "seconds");
    for parser in parsers().into_iter().filter(|parser| only.as_deref().is_none_or(|only| only == parser.name)) {
        let (outcome, took) = run(&parser, cases);
        println!("{:<16}{cases:>12}{:>10.1}", parser.name, took.as_secs_f64());
        if let Err(why) = outcome {
            panicked = true;
            println!("{}: {why}", parser.name);
        }
    }
    println!("repeat with: cargo bench -p windlass-tests --bench fuzz -- --cases {cases}");
    Ok(if panicked { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn argument(name: &str) -> Option<String> {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name)?;
    arguments.get(at + 1).cloned()
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn run(parser: &Parser, cases: u32) -> (Result<(), String>, Duration) {
    let begun = Instant::now();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let parse = parser.parse;
    let outcome = runner.run(&inputs(parser.real.clone()), |bytes| {
        parse(&bytes);
        Ok(())
    });
    (outcome.map_err(|error| error.to_string()), begun.elapsed())
}
