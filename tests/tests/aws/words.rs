//! What people are told: the commands, the page, the warnings.

use std::process::Output;

use serde_json::{Value, json};
use windlass_proto::externalgrpc::{ExternalGrpcNode, NodeGroupForNodeRequest};
use windlass_tests::aws::{ACCESS_KEY, AwsCloud, Fault};

use super::stage::{Stage, gpu_group};

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An account with a spot group, whose zones have prices of their own, and an on-demand one.
fn two_groups() -> AwsCloud {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu-spot", gpu_group().mixed(&["g5.xlarge"], true).between(0, 5).desired(1));
    cloud.add("gpu-od", gpu_group().mixed(&["g5.xlarge"], false).between(1, 3).desired(1));
    let price = |zone: &str, dollars: &str| {
        json!({"instanceType": "g5.xlarge", "availabilityZone": zone, "spotPrice": dollars,
               "productDescription": "Linux/UNIX", "timestamp": "2026-11-22T10:00:00.000Z"})
    };
    cloud.with(|account, _| {
        account.spot_prices = vec![price("us-east-1a", "0.401000"), price("us-east-1b", "0.520000")];
    });
    cloud
}

/// The actions of the policy that is printed for this configuration.
fn allowed(stage: &Stage) -> Vec<String> {
    let (code, text) = said(&stage.run(&["iam-policy"]));
    assert!(code == Some(0) && text.contains("aws:ResourceTag/k8s.io/cluster-autoscaler/c1"), "{text}");
    let policy: Value = serde_json::from_str(&text).unwrap();
    let actions = policy["Statement"].as_array().unwrap().iter().flat_map(|it| it["Action"].as_array().unwrap());
    actions.map(|action| action.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_page_names_every_group_and_check_finds_the_configuration_good() {
    let stage = Stage::of(gpu_group()).await;
    let page = stage.page("/").await;
    assert!(page.contains("gpu"), "{page}");
    let checked = stage.run(&["check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

// in-tree: no price.
#[tokio::test]
async fn groups_shows_what_was_discovered_for_people_and_for_programs() {
    let stage = Stage::prepared(two_groups(), &json!({}), &[]);
    let (code, text) = said(&stage.run(&["groups"]));
    assert_eq!(code, Some(0), "{text}");
    let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
    let spot = row("gpu-spot");
    for word in ["spot", "g5.xlarge", "1 × nvidia-a10g, ", "us-east-1a b", "$0.401 to $0.52", "spot history"] {
        assert!(spot.contains(word), "{word}: {spot}");
    }
    for word in ["on-demand", "$1.006 ", "table of 20"] {
        assert!(row("gpu-od").contains(word), "{word}: {text}");
    }
    let (code, text) = said(&stage.run(&["groups", "--json"]));
    let groups: Value = serde_json::from_str(&text).unwrap();
    let spot = groups.as_array().unwrap().iter().find(|it| it["id"] == "gpu-spot").unwrap();
    assert_eq!((code, &spot["max"], &spot["target"], &spot["market"]), (Some(0), &json!(5), &json!(1), &json!("spot")));
    assert_eq!(spot["price"]["zones"], json!({"us-east-1a": 0.401, "us-east-1b": 0.52}));
    assert_eq!(spot["price"]["source"], "spot-history");
}

#[tokio::test]
async fn doctor_finds_a_sound_installation_sound_and_asks_for_each_permission() {
    let stage = Stage::prepared(two_groups(), &json!({}), &[]);
    let (code, text) = said(&stage.run(&["doctor"]));
    assert_eq!(code, Some(0), "{text}");
    for word in [
        "assumed-role/windlass",
        "within half a minute",
        "2 groups",
        " allowed:",
        "permissions     all ",
        "nothing to mend",
        "set usage.agents.address",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let asked = stage.cloud.actions();
    for action in allowed(&stage) {
        assert!(asked.contains_key(&action), "{action} was not looked at: {asked:?}");
    }
    let desired = stage.cloud.group("gpu-spot").desired();
    assert_eq!((desired, stage.cloud.group("gpu-od").desired()), (1, 1), "it changed nothing");
}

#[tokio::test]
async fn doctor_and_the_policy_know_what_was_opted_into() {
    let cloud = two_groups();
    let url = cloud.queue("interruptions");
    cloud.with(|account, _| account.denied.insert("sqs:DeleteMessage".to_owned()));
    let opted = json!({"cloud": {"interruptionQueue": url, "suspendAzRebalance": true}});
    let stage = Stage::prepared(cloud, &opted, &[]);
    let policy = allowed(&stage);
    for action in ["sqs:ReceiveMessage", "sqs:DeleteMessage", "autoscaling:SuspendProcesses"] {
        assert!(policy.contains(&action.to_owned()), "{policy:?}");
    }
    let (code, text) = said(&stage.run(&["doctor"]));
    assert!(code == Some(1) && text.contains("sqs:DeleteMessage is denied"), "{text}");
    assert!(text.contains("sqs: ReceiveMessage"), "{text}");
}

#[tokio::test]
async fn doctor_names_each_missing_permission_and_what_to_do() {
    let cloud = two_groups();
    cloud.with(|account, _| {
        for action in ["autoscaling:SetDesiredCapacity", "ec2:DescribeSpotPriceHistory", "eks:DescribeNodegroup"] {
            account.denied.insert(action.to_owned());
        }
    });
    let stage = Stage::prepared(cloud, &json!({}), &[]);
    let (code, text) = said(&stage.run(&["doctor", "--json"]));
    let findings: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mend: Vec<_> = findings.iter().filter(|it| it["grade"] == "mend").collect();
    assert_eq!((code, mend.len()), (Some(1), 3), "{text}");
    for (finding, action) in mend.iter().zip(["SetDesiredCapacity", "DescribeSpotPriceHistory", "DescribeNodegroup"]) {
        assert!(finding["what"].as_str().unwrap().contains(action), "{finding}");
        assert!(finding["remedy"].as_str().unwrap().contains("iam-policy"), "{finding}");
    }
}

#[tokio::test]
async fn doctor_tells_a_wrong_cluster_name_from_missing_tags() {
    let stage = Stage::prepared(two_groups(), &json!({"cloud": {"clusterName": "c-1"}}), &[]);
    let (code, text) = said(&stage.run(&["doctor"]));
    assert_eq!(code, Some(1), "{text}");
    let words = "2 groups with k8s.io/cluster-autoscaler/enabled, 0 groups with k8s.io/cluster-autoscaler/c-1";
    assert!(text.contains(words), "{text}");
}

#[tokio::test]
async fn doctor_knows_groups_that_are_named_and_not_there() {
    let named = json!({"cloud": {"clusterName": null, "groups": [{"name": "gpu-od"}, {"name": "gpu-gone"}]}});
    let stage = Stage::prepared(two_groups(), &named, &[]);
    let (code, text) = said(&stage.run(&["doctor"]));
    assert!(code == Some(1) && text.contains("no Auto Scaling group gpu-gone"), "{code:?} {text}");
}

#[tokio::test]
async fn doctor_tells_what_is_wrong_with_credentials() {
    let stage = Stage::prepared(two_groups(), &json!({}), &[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")]);
    let (code, text) = said(&stage.run(&["doctor"]));
    assert!(code == Some(1) && text.contains("Pod Identity"), "{code:?} {text}");
    let expired = two_groups();
    expired.with(|account, _| account.expired.insert(ACCESS_KEY.to_owned()));
    let stage = Stage::prepared(expired, &json!({}), &[]);
    let (code, text) = said(&stage.run(&["doctor"]));
    assert!(code == Some(1) && text.contains("ExpiredToken") && text.contains("renew"), "{code:?} {text}");
}

#[tokio::test]
async fn a_gpu_node_that_registered_without_its_label_is_told_everywhere() {
    let mut stage = Stage::new(two_groups()).await;
    let id = stage.instances("gpu-spot").await.remove(0).id;
    let node = ExternalGrpcNode { provider_id: id.clone(), name: "node-1".to_owned(), ..Default::default() };
    let show = |node: &ExternalGrpcNode| NodeGroupForNodeRequest { node: Some(node.clone()) };
    stage.client.node_group_for_node(show(&node)).await.unwrap();
    let (code, text) = said(&stage.run(&["doctor"]));
    assert!(code == Some(1) && text.contains("1 node of gpu-spot registered without k8s.amazonaws.com/acc"), "{text}");
    assert!(stage.page("/").await.contains("1 GPU node registered without the label"));
    let metric = "windlass_provider_unlabelled_gpu_nodes{group=\"gpu-spot\"}";
    assert!(stage.page("/metrics").await.contains(&format!("{metric} 1")));
    let labels = [("k8s.amazonaws.com/accelerator".to_owned(), "nvidia-a10g".to_owned())];
    stage.client.node_group_for_node(show(&ExternalGrpcNode { labels: labels.into(), ..node })).await.unwrap();
    assert!(stage.page("/metrics").await.contains(&format!("{metric} 0")));
    let (code, text) = said(&stage.run(&["doctor"]));
    assert!(code == Some(0) && text.contains("no GPU node that cluster-autoscaler showed lacks"), "{text}");
}

#[tokio::test]
async fn a_zone_that_refused_is_shown_while_another_gives() {
    let mut stage = Stage::new(two_groups()).await;
    stage.cloud.group("gpu-spot").zone("us-east-1b").refuse("InsufficientInstanceCapacity");
    stage.increase("gpu-spot", 2).await.unwrap();
    stage.until("both come", async |stage| stage.cloud.group("gpu-spot").desired() == 3).await;
    let words = "us-east-1b is asked last for";
    stage.until("the page says so", async |stage| stage.page("/").await.contains(words)).await;
    let (_, text) = said(&stage.run(&["groups"]));
    assert!(text.contains(words) && text.contains("InsufficientInstanceCapacity"), "{text}");
    let (_, text) = said(&stage.run(&["groups", "--json"]));
    let groups: Value = serde_json::from_str(&text).unwrap();
    let spot = groups.as_array().unwrap().iter().find(|it| it["id"] == "gpu-spot").unwrap();
    assert!(spot["refusing"]["us-east-1b"]["why"].is_string() && spot["leftAlone"].is_null(), "{spot}");
}

#[tokio::test]
async fn the_policy_that_is_printed_allows_all_that_the_provider_asks_for() {
    let mut stage = Stage::new(two_groups()).await;
    stage.increase("gpu-spot", 1).await.unwrap();
    stage.until("it comes", async |stage| stage.cloud.group("gpu-spot").desired() == 2).await;
    let allowed = allowed(&stage);
    for action in stage.cloud.actions().into_keys() {
        assert!(allowed.contains(&action), "{action} is asked for and not allowed: {allowed:?}");
    }
}

#[tokio::test]
async fn prices_that_cannot_be_read_are_said_and_the_table_stands() {
    let cloud = two_groups();
    cloud.fault("DescribeSpotPriceHistory", Fault::Error(500, "InternalError".to_owned(), "later".to_owned()));
    let stage = Stage::prepared(cloud, &json!({}), &[]);
    let (code, text) = said(&stage.run(&["groups"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("spot prices cannot be read"), "{text}");
}
