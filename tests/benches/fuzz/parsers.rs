//! The parsers of foreign bytes, each with documents that it understands. A parser says whether it made sense of an input.

use prost::Message as _;
use windlass_agent::config::{command_line, web};
use windlass_agent::families::choice::Choice;
use windlass_agent::http::{accept, users};
use windlass_agent::notices::metadata::Authority;
use windlass_agent::notices::{dates, ec2, gce};
use windlass_agent::pods::identity::{Identities, LabelNames, Pod, Shown};
use windlass_agent::pods::{Holders, cgroup, checkpoint, device, kubelet, processes};
use windlass_proto::podresources::{ListPodResourcesResponse, PodResources};
use windlass_proto::pods::ListPodsResponse;
use windlass_tests::kubelet::{claimant, identity, pod};
use windlass_tests::proc::{Cgroup, Container};

use crate::page;

/// A parser under test, with inputs that it understands.
pub(crate) struct Parser {
    pub(crate) name: &'static str,
    pub(crate) parse: fn(&[u8]) -> bool,
    pub(crate) real: Vec<Vec<u8>>,
}

pub(crate) fn parsers() -> Vec<Parser> {
    let parser = |name, parse, real: &[&str]| {
        let real = real.iter().map(|text| text.as_bytes().to_vec()).collect();
        Parser { name, parse, real }
    };
    vec![
        Parser { name: "pod-resources", parse: pod_resources, real: pod_resources_answers() },
        Parser { name: "pods-api", parse: pods_api, real: pods_api_answers() },
        Parser { name: "cgroup", parse: |bytes| cgroup::place(&text(bytes)).is_some(), real: cgroups() },
        parser("device-id", |bytes| device::device(&text(bytes)).is_some(), DEVICE_IDS),
        parser("claimed-device", claimed_device, CLAIMED_DEVICES),
        parser("proc-stat", |bytes| processes::parse_start_time(&text(bytes)).is_some(), STATS),
        parser("log-names", log_names, LOG_NAMES),
        parser("checkpoint", checkpoint_file, CHECKPOINTS),
        parser("ec2-metadata", ec2_metadata, EC2_METADATA),
        parser("gce-metadata", gce_metadata, GCE_METADATA),
        parser("metadata-dates", metadata_dates, METADATA_DATES),
        parser("counters-csv", counters_csv, COUNTERS),
        parser("web-config", web_config, WEB_CONFIGS),
        parser("settings-file", settings_file, SETTINGS),
        parser("label-names", label_names, LABEL_NAMES),
        parser("endpoint", |bytes| text(bytes).parse::<Authority>().is_ok(), ENDPOINTS),
        parser("http-headers", http_headers, HEADERS),
        parser("hpc-jobs", hpc_jobs, &["0\n4711\n", "2.7\n12_1\n12_2", "1\n77\n78\n\n79 \n"]),
        parser("page", page::holds, page::NAMES),
        parser("agents-usage", |bytes| windlass_provider::usage::read(bytes).is_ok(), AGENTS_USAGE),
    ]
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pod_resources(bytes: &[u8]) -> bool {
    let assignments = kubelet::decode(bytes).unwrap_or_default();
    let found = !assignments.is_empty();
    let _holders = Holders::new(assignments);
    found
}

fn pod_resources_answers() -> Vec<Vec<u8>> {
    let uuid = "GPU-6a1fe0c2-41b5-4d62-9a4f-0d8a6ee9ce7f::3";
    let pods = [
        pod("ml", "train", "main", &[("nvidia.com/gpu", &[uuid])]),
        pod("ml", "both", "main", &[("nvidia.com/mig-1g.10gb", &["MIG-77aa", "nvidia0/gi2/vgpu1"]), ("a.b/c", &["x"])]),
        claimant("ml", "claims", "main", &["gpu-0", "gpu-0-mig-1g10gb-19-2"], Some("5e1c")),
    ];
    let answer = |pods: Vec<PodResources>| ListPodResourcesResponse { pod_resources: pods }.encode_to_vec();
    // A short one, in which a change is seldom lost, and all of them.
    pods.iter().map(|pod| answer(vec![pod.clone()])).chain([answer(pods.to_vec())]).collect()
}

fn pods_api(bytes: &[u8]) -> bool {
    let shown = Shown { uid: true, labels: LabelNames::parse(".*").ok() };
    let pods = kubelet::pods::decode(bytes).unwrap_or_default();
    !Identities::new(pods, &shown).is_empty()
}

fn pods_api_answers() -> Vec<Vec<u8>> {
    let train = identity(&Container::new("ml", "train", "main"), &[("team", "vision")]);
    let many = identity(&Container::new("ml", "many", "main"), &[("a/b", "1"), ("a-b", "2"), ("9", "x y"), ("é", "")]);
    let answer = |pods: &[&windlass_proto::pods::Pod]| {
        let pods = pods.iter().map(|pod| pod.encode_to_vec().into()).collect();
        ListPodsResponse { pods }.encode_to_vec()
    };
    vec![answer(&[&train]), answer(&[&many]), answer(&[&train, &many])]
}

const DEVICE_IDS: &[&str] = &[
    "GPU-6a1fe0c2-41b5-4d62-9a4f-0d8a6ee9ce7f::12",
    "MIG-GPU-6a1fe0c2/7/0",
    "nvidia0/gi2/vgpu1",
    "MIG-77aa",
    "GPU-6a1fe0c2-41b5-4d62-9a4f-0d8a6ee9ce7f-7",
];
const CLAIMED_DEVICES: &[&str] = &["gpu-12", "gpu-3-mig-1g10gb-me-20-0", "gpu-vfio-0"];

fn claimed_device(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let _spelled = device::partition_profile(&text);
    device::claimed(&text).is_some()
}

fn cgroups() -> Vec<Vec<u8>> {
    let container = Container::new("ml", "train", "main");
    Cgroup::ALL.iter().map(|shape| shape.text(&container).into_bytes()).collect()
}

const STATS: &[&str] = &["1 (a) b (c) S 0 1 1 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4712 22 3"];

const LOG_NAMES: &[&str] = &[
    "train_ml_main-00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff.log",
    "ml_train_6a1fe0c2-41b5-4d62-9a4f-0d8a6ee9ce7f",
];

fn log_names(bytes: &[u8]) -> bool {
    let name = text(bytes);
    let found = (processes::container_log(&name), processes::pod_log(&name));
    found.0.is_some() || found.1.is_some()
}

const CHECKPOINTS: &[&str] = &[
    r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u1","ContainerName":"main","DeviceIDs":{"-1":["GPU-1::0"]},"AllocResp":"Cg=="}]},"Checksum":42}"#,
    r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u2","ContainerName":"main","DeviceIDs":["GPU-1"]}]}}"#,
];

fn checkpoint_file(bytes: &[u8]) -> bool {
    let answer = ListPodResourcesResponse {
        pod_resources: vec![
            pod("ml", "a", "main", &[("nvidia.com/gpu", &["GPU-1"])]),
            pod("ml", "b", "main", &[("nvidia.com/gpu", &["GPU-1::0"])]),
        ],
    };
    let assignments = kubelet::decode(&answer.encode_to_vec()).unwrap_or_default();
    checkpoint::join(bytes, &assignments).is_ok_and(|names| !names.is_empty())
}

const AGENTS_USAGE: &[&str] = &[
    r#"{"node":"n","time":1.5,"provider_id":"aws:///us-east-1a/i-1","market":"spot","notices":[{"kind":"spot_interruption","action":"terminate","at":1.5,"deadline":130.0}],"gpus":[{"index":0,"windows":{"1m":null},"owners":[]}]}"#,
    r#"{"node":"n","notices":[{"kind":"preemption","action":"preempt","at":1e9,"deadline":null}]}"#,
];

const EC2_METADATA: &[&str] = &[
    r#"{"action":"terminate","time":"2017-09-18T08:22:00Z"}"#,
    r#"{"noticeTime":"2020-10-27T08:22:00Z"}"#,
    r#"[{"NotBefore":"21 Jan 2019 09:00:43 GMT","NotAfter":"21 Jan 2019 09:17:23 GMT","Code":"system-reboot","EventId":"instance-event-1","State":"active","Description":"scheduled reboot"}]"#,
];
const GCE_METADATA: &[&str] = &[
    "TRUE",
    "NONE",
    "TERMINATE_ON_HOST_MAINTENANCE",
    r#"{"automaticRestart":"TRUE","onHostMaintenance":"TERMINATE","preemptible":"TRUE","provisioningModel":"SPOT"}"#,
];
const METADATA_DATES: &[&str] = &["2020-10-27T08:22:00.123+02:00", "2017-09-18T08:22:00Z", "21 Jan 2019 09:00:43 GMT"];

fn ec2_metadata(bytes: &[u8]) -> bool {
    let told = (ec2::instance_action(bytes, 1.0), ec2::rebalance(bytes, 1.0), ec2::maintenance(bytes, 1.0));
    told.0.is_some() || told.1.is_some() || told.2.is_some_and(|notices| !notices.is_empty())
}

fn gce_metadata(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let told = (gce::preempted(&text, 1.0), gce::maintenance(&text, 1.0), gce::market(bytes));
    told.0.is_some() || told.1.is_some() || told.2.is_some()
}

fn metadata_dates(bytes: &[u8]) -> bool {
    let text = text(bytes);
    let times = [dates::rfc3339(&text), dates::spelled(&text)];
    assert!(times.iter().flatten().all(|time| time.is_finite()));
    times.iter().any(Option::is_some)
}

const COUNTERS: &[&str] = &[
    "# a comment\nDCGM_FI_DEV_GPU_UTIL, gauge, GPU utilization (in %).\nDCGM_FI_DRIVER_VERSION, label, Driver Version\n",
    "DCGM_FI_DEV_BOARD_POWER_WATTS, gauge, \"Power, drawn \"\"now\"\"\"\nDCGM_FI_DEV_XID_ERRORS,gauge,Xid\n\nDCGM_FI_PROF_GR_ENGINE_ACTIVE,  gauge, x",
];

fn counters_csv(bytes: &[u8]) -> bool {
    let (choice, _complaints) = Choice::parse(&text(bytes));
    !choice.shown.is_empty()
}

const WEB_CONFIGS: &[&str] = &[
    "tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca\n  min_version: TLS12\n  client_allowed_sans: [a.b, 10.0.0.1]\n",
    "basic_auth_users:\n  ada: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG\nhttp_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n",
    "rate_limit:\n  interval: 1m30.5s\n  burst: 20\n",
    "rate_limit: {interval: 100ms, burst: 1}\ntls_server_config: {cert: \"-----BEGIN CERTIFICATE-----\", key: x, cipher_suites: [TLS_AES_128_GCM_SHA256]}\n",
];

fn web_config(bytes: &[u8]) -> bool {
    web::parse(&text(bytes), std::path::Path::new("folder")).is_ok_and(|config| config != web::WebConfig::default())
}

const SETTINGS: &[&str] = &[
    "sample-interval: 2s\nnode-name: a\ndcgm-names: off\nmax-series: 100\n",
    "pod-labels: app|team\npod-uid: true\nmetadata-endpoint:\nlog: warn\n",
    "listen: 0.0.0.0:9400\ntaint-on: [spot_interruption, maintenance]\nrebalance-hold: 15m\ncollectors: /a.csv\n",
];

/// As far as a file's own words lead: without the line and the environment around them.
fn settings_file(bytes: &[u8]) -> bool {
    let Ok(flags) = command_line::flags(&text(bytes)) else { return false };
    let line: Vec<_> =
        [String::from("windlass-agent")].into_iter().chain(flags.into_iter().map(|(_, flag)| flag)).collect();
    line.len() > 1 && command_line::parse(&line.into_iter().map(Into::into).collect::<Vec<_>>()).is_ok()
}

const LABEL_NAMES: &[&str] = &["team|app\\.kubernetes\\.io/.*", "[a-z]{1,10}(-[0-9]+)?", "(?i)x*"];

fn label_names(bytes: &[u8]) -> bool {
    let Ok(names) = LabelNames::parse(&text(bytes)) else { return false };
    let labels = ["team", "app.kubernetes.io/name", "a-1", &"x".repeat(317)];
    let pod = Pod {
        name: "a".into(),
        uid: "u".into(),
        labels: labels.into_iter().map(|name| (name.to_owned(), "value".to_owned())).collect(),
        ..Pod::default()
    };
    !Identities::new([pod], &Shown { uid: false, labels: Some(names) }).is_empty()
}

const ENDPOINTS: &[&str] =
    &["http://169.254.169.254", "http://[fd00:ec2::254]:80/", "http://metadata.google.internal:8080"];
const HEADERS: &[&str] = &[
    "Basic YWxpY2U6c2VzYW1l",
    "gzip;q=1.0, identity; q=0.5, *;q=0",
    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
];

fn http_headers(bytes: &[u8]) -> bool {
    let header = text(bytes);
    let _format = accept::format(&header);
    accept::gzip(&header) || users::credentials(&header).is_some()
}

/// The first line is the file's name.
fn hpc_jobs(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (name, lines) = bytes.split_at(end);
    windlass_agent::jobs::parse(&text(name), lines).iter().next().is_some()
}
