//! Every era of cluster-autoscaler: what each release sent decodes without loss, and what we answer is what its own client
//! needs to see.

#![expect(clippy::unwrap_used, reason = "a recording that cannot be read is a failed test")]

use std::collections::BTreeSet;

use prost::Message as _;
use tonic::Code;
use windlass_proto::{core, externalgrpc::NodeGroupAutoscalingOptions};
use windlass_provider::replay::{
    autoscaler::{Call, Era, Reply},
    cluster::PodView,
};
use windlass_tests::recording::{self, Rpc, VERSIONS, What};

mod eras {
    pub(crate) mod client;
    pub(crate) mod server;
}

use eras::{
    client::{Chosen, Options, nodes_shown, options, template},
    server::Server,
};

/// Every call of every recording of a version.
fn calls(version: &str) -> Vec<Rpc> {
    let stories = recording::stories(version).unwrap();
    let lines = stories.iter().flat_map(|story| recording::read(version, story).unwrap());
    lines
        .filter_map(|line| match line.what {
            What::Rpc(rpc) => Some(*rpc),
            What::Stage(_) => None,
        })
        .collect()
}

/// The same, each different request once.
fn questions(version: &str) -> Vec<Rpc> {
    let mut seen = BTreeSet::new();
    calls(version).into_iter().filter(|rpc| seen.insert((rpc.method.clone(), rpc.request.clone()))).collect()
}

fn encoded(call: &Call) -> usize {
    match call {
        Call::NodeGroups | Call::GpuLabel | Call::GetAvailableGpuTypes | Call::Cleanup | Call::Refresh => 0,
        Call::NodeGroupForNode(request) => request.encoded_len(),
        Call::PricingNodePrice(request) => request.encoded_len(),
        Call::PricingPodPrice(request) => request.encoded_len(),
        Call::TargetSize(request) => request.encoded_len(),
        Call::IncreaseSize(request) => request.encoded_len(),
        Call::DeleteNodes(request) => request.encoded_len(),
        Call::DecreaseTargetSize(request) => request.encoded_len(),
        Call::Nodes(request) => request.encoded_len(),
        Call::TemplateNodeInfo(request) => request.encoded_len(),
        Call::GetOptions(request) => request.encoded_len(),
        Call::BestOptions(request) => request.encoded_len(),
    }
}

#[test]
fn every_request_of_every_era_decodes_without_loss() {
    for (version, _) in VERSIONS {
        let mut methods = BTreeSet::new();
        for rpc in calls(version) {
            let call = rpc.call().unwrap();
            let length = rpc.request.len();
            // A field that our contracts lack would be dropped, and a lost byte shows in the length. (A price is asked for a
            // node or a pod at an hour; Go writes the nanoseconds of its times even where they are zero.)
            let lost = length - encoded(&call);
            let allowed = if rpc.method.starts_with("Pricing") { 4 } else { 0 };
            assert!(lost <= allowed, "{version} {}: {lost} bytes lost of {length}", rpc.method);
            methods.insert(rpc.method);
        }
        println!("{version}: {methods:?}");
        assert!(methods.len() >= 13, "{version}: {methods:?}");
    }
}

#[test]
fn options_carry_the_fields_of_their_era() {
    for (version, era) in VERSIONS {
        let defaults: Vec<NodeGroupAutoscalingOptions> = questions(version)
            .iter()
            .filter_map(|rpc| match rpc.call().unwrap() {
                Call::GetOptions(request) => request.defaults,
                _ => None,
            })
            .collect();
        assert!(!defaults.is_empty(), "{version}");
        for one in defaults {
            let old = (one.scale_down_unneeded_time.is_some(), one.max_node_provision_time.is_some());
            let new = one.scale_down_unneeded_duration.is_some() && one.max_node_provision_duration.is_some();
            let expect = match era {
                Era::V1_27 => ((true, false), false),
                Era::V1_29 | Era::V1_33 => ((true, true), false),
                Era::V1_34 => ((true, true), true),
                Era::V1_36 => ((false, false), true),
            };
            assert_eq!((old, new), expect, "{version}");
            assert!((one.scale_down_utilization_threshold - 0.5).abs() < f64::EPSILON, "{version}");
        }
    }
}

#[test]
fn questions_to_the_expander_show_pods_and_nodes_in_the_form_of_their_era() {
    for (version, era) in VERSIONS {
        for rpc in questions(version).iter().filter(|rpc| rpc.method == "BestOptions") {
            let Call::BestOptions(request) = rpc.call().unwrap() else { continue };
            let forms = (era <= Era::V1_34, era >= Era::V1_34);
            assert_eq!(nodes_shown(rpc), (3 * usize::from(forms.0), 3 * usize::from(forms.1)), "{version}");
            for option in &request.options {
                assert_eq!((!option.pod.is_empty(), !option.pod_bytes.is_empty()), forms, "{version}");
                assert!(option.node_count > 0 && !option.node_group_id.is_empty(), "{version}");
                for bytes in option.pod.iter().chain(&option.pod_bytes) {
                    let pod = PodView::from_proto(&core::Pod::decode(bytes.as_ref()).unwrap());
                    assert_eq!(pod.uid.len(), 36, "{version}: {}", pod.uid);
                    assert!(pod.requests.contains_key("cpu") && !pod.name.is_empty(), "{version}: {pod:?}");
                }
            }
        }
    }
}

#[test]
fn prices_are_asked_with_the_fields_of_their_era() {
    for (version, era) in VERSIONS {
        let mut asked = 0;
        for rpc in questions(version) {
            let (old, new) = match rpc.call().unwrap() {
                Call::PricingNodePrice(request) => (request.start_time, request.start_timestamp),
                Call::PricingPodPrice(request) => {
                    assert_eq!(request.pod.is_empty(), era == Era::V1_36, "{version}");
                    assert_eq!(request.pod_bytes.is_empty(), era < Era::V1_34, "{version}");
                    (request.start_time, request.start_timestamp)
                }
                _ => continue,
            };
            asked += 1;
            assert_eq!((old.is_some(), new.is_some()), (era <= Era::V1_34, era >= Era::V1_34), "{version}");
        }
        assert!(asked >= 4, "{version}: {asked}");
    }
}

/// Our answers to one era's own requests, as its client reads them.
async fn check_answers(server: &Server, version: &str, era: Era) {
    for rpc in questions(version) {
        let Rpc { method, request, .. } = &rpc;
        let changes = ["NodeGroupIncreaseSize", "NodeGroupDecreaseTargetSize", "NodeGroupDeleteNodes", "BestOptions"];
        if changes.contains(&method.as_str()) || method.starts_with("Pricing") {
            continue;
        }
        let answer = server.call(method, request.clone()).await;
        let bytes = answer.unwrap_or_else(|code| panic!("{version} {method}: {code:?}"));
        let ours = Rpc { response: bytes.clone(), code: "OK".into(), ms: 0.0, ..rpc.clone() };
        match (rpc.call().unwrap(), ours.reply().unwrap()) {
            (Call::NodeGroups, Reply::NodeGroups(response)) => {
                let groups: Vec<_> =
                    response.node_groups.iter().map(|group| (group.id.as_str(), group.max_size)).collect();
                assert_eq!(groups, [("cpu", 3), ("od-a10g", 3), ("spot-a10g", 3)], "{version}");
            }
            // The recorded instances are not ours: no group, and no error.
            (Call::NodeGroupForNode(_), Reply::NodeGroupForNode(response)) => {
                assert!(response.node_group.is_none_or(|group| group.id.is_empty()), "{version}");
            }
            (Call::GpuLabel, Reply::GpuLabel(response)) => assert_eq!(response.label, "windlass.example/accelerator"),
            (Call::GetAvailableGpuTypes, Reply::GetAvailableGpuTypes(response)) => {
                assert_eq!(response.gpu_types.keys().collect::<Vec<_>>(), ["a10g"]);
            }
            (Call::TargetSize(_), Reply::TargetSize(response)) => assert_eq!(response.target_size, 0),
            (Call::TemplateNodeInfo(asked), _) => check_template(version, &asked.id, template(era, &bytes)),
            (Call::GetOptions(asked), _) => check_options(era, &asked.id, options(era, &bytes)),
            _ => {}
        }
    }
}

fn check_template(version: &str, group: &str, node: Option<core::Node>) {
    let node = node.unwrap_or_else(|| panic!("{version}: the client of this era finds no node in {group}'s template"));
    let (metadata, status) = (node.metadata.unwrap(), node.status.unwrap());
    let gpu = |resources: &std::collections::BTreeMap<String, core::Quantity>| {
        resources.get("nvidia.com/gpu").map(|quantity| quantity.string().to_owned())
    };
    let expect = (group != "cpu").then(|| "1".to_owned());
    assert_eq!(
        (gpu(&status.capacity), gpu(&status.allocatable)),
        (expect.clone(), expect.clone()),
        "{version} {group}"
    );
    assert_eq!(metadata.labels.contains_key("windlass.example/accelerator"), expect.is_some(), "{version} {group}");
    assert!(status.allocatable.contains_key("pods"), "{version} {group}: without it nothing fits");
    assert!(status.conditions.iter().any(|one| one.r#type() == "Ready" && one.status() == "True"), "{version} {group}");
}

fn check_options(era: Era, group: &str, read: Option<Options>) {
    // 1.27 and 1.28 take any answer for "a machine may take no time at all", so they get none.
    let expect = (group == "od-a10g" && era > Era::V1_27).then_some(Options {
        utilization: 0.5,
        gpu_utilization: 0.5,
        unneeded: Some(1200),
        unready: Some(20),
        provision: Some(20),
    });
    assert_eq!(read, expect, "{era:?} {group}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_answers_are_what_the_client_of_each_era_reads() {
    let server = Server::start("groups: {od-a10g: {options: {scaleDownUnneededTime: 20m}}}\n").await;
    for (version, era) in VERSIONS {
        check_answers(&server, version, era).await;
    }
}

/// Each costs its sender an error, and nobody else anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_request_are_refused_and_change_nothing() {
    let server = Server::start("").await;
    let methods: BTreeSet<_> = VERSIONS.iter().flat_map(|(version, _)| calls(version)).map(|rpc| rpc.method).collect();
    assert!(methods.len() >= 15, "{methods:?}");
    let before = server.call("NodeGroups", Vec::new()).await.unwrap();
    // A field number of zero; a length beyond the end; text that is no text; a number cut short.
    let nonsense: [&[u8]; 4] = [&[0, 0], &[10, 200, 1], &[10, 2, 0xff, 0xfe, 18, 2, 0xff, 0xfe], &[8, 0x80]];
    for method in &methods {
        for bytes in nonsense {
            let code = server.call(method, bytes.to_vec()).await.err();
            // Requests without fields step over fields they do not know, as protobuf wants it.
            let empty = matches!(&**method, "NodeGroups" | "GPULabel" | "GetAvailableGPUTypes" | "Cleanup" | "Refresh");
            assert!(code.is_some() || (empty && bytes[0] == 10), "{method} {bytes:?}");
            assert_ne!(code, Some(Code::Unavailable), "{method} {bytes:?}: the connection lives");
        }
    }
    assert_eq!(server.call("NodeGroups", Vec::new()).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_expander_answers_the_questions_of_each_era() {
    for (version, _) in VERSIONS {
        // Without the memory of purchases: the recordings ask for the same pods again and again.
        let server = Server::start("purchaseMemory: {enabled: false}\n").await;
        for rpc in questions(version).into_iter().filter(|rpc| rpc.method == "BestOptions") {
            let Call::BestOptions(request) = rpc.call().unwrap() else { continue };
            let answer = server.call("BestOptions", rpc.request.clone()).await.unwrap();
            let chosen = Chosen::decode(answer.as_slice()).unwrap();
            let offered: Vec<&str> = request.options.iter().map(|option| option.node_group_id.as_str()).collect();
            // A pod without GPUs belongs on a machine without, one with them on the spot market first.
            let best = ["cpu", "spot-a10g", "od-a10g"].into_iter().find(|group| offered.contains(group)).unwrap();
            assert_eq!(chosen.options.first().map(|option| option.group.as_str()), Some(best), "{version} {offered:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_of_each_era_shows_at_once() {
    for (version, _) in VERSIONS {
        let server = Server::start("").await;
        let calls = questions(version);
        let increase = calls.iter().find(|rpc| rpc.method == "NodeGroupIncreaseSize").unwrap();
        let Call::IncreaseSize(asked) = increase.call().unwrap() else { continue };
        assert_eq!(server.call(&increase.method, increase.request.clone()).await.unwrap(), Vec::<u8>::new());
        let sizes = calls.iter().filter(|rpc| rpc.method == "NodeGroupTargetSize");
        for rpc in sizes {
            let Call::TargetSize(of) = rpc.call().unwrap() else { continue };
            let response = server.call(&rpc.method, rpc.request.clone()).await.unwrap();
            let ours = Rpc { response, code: "OK".into(), ms: 0.0, ..rpc.clone() };
            let Ok(Reply::TargetSize(size)) = ours.reply() else { panic!("{version}") };
            assert_eq!(size.target_size, if of.id == asked.id { asked.delta } else { 0 }, "{version} {}", of.id);
        }
    }
}
