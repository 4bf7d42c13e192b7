//! What the cloud announces reaches `/metrics` and `/usage`: EC2's sessions and 404s, GCE's long polls, and a service that is not to be had.

use windlass_tests::metadata::{Cloud, Metadata, Trouble};
use windlass_tests::nvml::{ModelName, Profile};
use windlass_tests::port::Port;
use windlass_tests::scrape::Page;

use crate::agent::node::Node;

fn node(metadata: &Metadata) -> Node {
    let endpoint = metadata.endpoint().parse().unwrap();
    Node::on_any(&Profile::idle(ModelName::T4, 1), |config| config.metadata = Some(endpoint))
}

fn stands(page: &Page, kind: &str, action: &str) -> bool {
    page.value("gpu_node_notice", &[("kind", kind), ("action", action), ("node", "node-a")]) == Some(1.0)
}

fn up(page: &Page) -> Option<f64> {
    page.value("windlass_agent_metadata_up", &[])
}

fn json(node: &mut Node) -> serde_json::Value {
    serde_json::from_slice(&node.get("/usage").body).unwrap()
}

#[test]
fn an_ec2_spot_notice_is_shown_with_its_deadline_and_goes_when_it_is_taken_back() {
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    metadata.set("instance-life-cycle", Some("spot"));
    metadata.set("instance-id", Some("i-0a1b2c3d4e5f60718"));
    metadata.set("placement/availability-zone", Some("us-east-1a"));
    metadata.set("autoscaling/target-lifecycle-state", Some("InService"));
    metadata.set("spot/instance-action", Some(r#"{"action":"terminate","time":"2017-09-18T08:22:00Z"}"#));
    metadata.set("events/recommendations/rebalance", Some(r#"{"noticeTime":"2017-09-18T08:10:00Z"}"#));
    let event = r#"[{"NotBefore":"21 Jan 2019 09:00:43 GMT","Code":"system-reboot","State":"active"}]"#;
    metadata.set("events/maintenance/scheduled", Some(event));
    let mut node = node(&metadata);
    let page = node.until("every notice is there", |page| {
        stands(page, "spot_interruption", "terminate")
            && stands(page, "rebalance_recommendation", "rebalance")
            && stands(page, "maintenance", "system-reboot")
            && up(page) == Some(1.0)
    });
    let spot = [("kind", "spot_interruption")];
    assert_eq!(page.value("gpu_node_notice_deadline_timestamp_seconds", &spot), Some(1_505_722_920.0));
    let hint = [("kind", "rebalance_recommendation")];
    assert_eq!(page.value("gpu_node_notice_timestamp_seconds", &hint), Some(1_505_722_200.0));
    assert_eq!(page.value("gpu_node_notice_deadline_timestamp_seconds", &hint), None, "the cloud does not say");
    assert_eq!(page.value("gpu_node_market_info", &[("cloud", "ec2"), ("market", "spot")]), Some(1.0));
    assert_eq!(page.value("gpu_node_lifecycle_info", &[("state", "InService")]), Some(1.0));
    let usage = json(&mut node);
    assert_eq!(usage["market"], "spot");
    assert_eq!(usage["provider_id"], "aws:///us-east-1a/i-0a1b2c3d4e5f60718");
    assert_eq!(usage["notices"][0]["kind"], "spot_interruption");
    assert_eq!(usage["notices"][0]["action"], "terminate");
    assert_eq!(usage["notices"][0]["deadline"], 1_505_722_920.0);
    assert_eq!(usage["notices"][2]["deadline"], serde_json::Value::Null);

    metadata.set("spot/instance-action", None);
    metadata.set("autoscaling/target-lifecycle-state", Some("Terminated"));
    let page = node.until("the group ends it instead", |page| stands(page, "scale_in", "terminate"));
    assert!(!stands(&page, "spot_interruption", "terminate"));
}

#[test]
fn a_question_that_can_wait_and_fails_keeps_no_urgent_notice_from_being_heard() {
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    metadata.set("events/maintenance/scheduled", Some("<html>"));
    metadata.set("spot/instance-action", Some(r#"{"action":"stop","time":"2017-09-18T08:22:00Z"}"#));
    let mut node = node(&metadata);
    node.until("the notice is there, and the failure is told", |page| {
        stands(page, "spot_interruption", "stop") && up(page) == Some(0.0)
    });
}

#[test]
fn no_question_that_fails_keeps_another_from_being_heard() {
    let spot = r#"{"action":"stop","time":"2017-09-18T08:22:00Z"}"#;
    let hint = r#"{"noticeTime":"2017-09-18T08:10:00Z"}"#;
    for (broken, value, kind, action) in [
        ("events/recommendations/rebalance", "<html>", "spot_interruption", "stop"),
        ("spot/instance-action", "<html>", "rebalance_recommendation", "rebalance"),
    ] {
        let metadata = Metadata::start(Cloud::Ec2).unwrap();
        for (path, good) in [("spot/instance-action", spot), ("events/recommendations/rebalance", hint)] {
            metadata.set(path, Some(if path == broken { value } else { good }));
        }
        let mut node = node(&metadata);
        node.until(broken, |page| stands(page, kind, action) && up(page) == Some(0.0));
    }
}

#[test]
fn a_spot_machine_is_asked_at_the_usual_pace_whatever_else_fails() {
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    metadata.set("instance-life-cycle", Some("spot"));
    metadata.set("events/maintenance/scheduled", Some("<html>"));
    let mut node = node(&metadata);
    node.until("the failure is told", |page| up(page) == Some(0.0));
    // With growing pauses this would take five minutes.
    crate::agent::node::until("it is asked seven times", || {
        metadata.calls().get("/latest/meta-data/spot/instance-action").is_some_and(|calls| *calls >= 7)
    });
}

#[test]
fn a_later_hint_is_a_new_one() {
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    let mut node = node(&metadata);
    for (time, unix) in [("2017-09-18T08:10:00Z", 1_505_722_200.0), ("2017-09-18T09:10:00Z", 1_505_725_800.0)] {
        metadata.set("events/recommendations/rebalance", Some(&format!(r#"{{"noticeTime":"{time}"}}"#)));
        let hint = [("kind", "rebalance_recommendation")];
        node.until(time, |page| page.value("gpu_node_notice_timestamp_seconds", &hint) == Some(unix));
    }
}

#[test]
fn an_answer_that_is_not_googles_says_nothing() {
    let metadata = Metadata::start(Cloud::Gce).unwrap();
    metadata.set("preempted", Some("FALSE"));
    metadata.set("maintenance-event", Some("NONE"));
    metadata.set("scheduling/", Some(r#"{"preemptible":"FALSE"}"#));
    let mut node = node(&metadata);
    node.until("it answers", |page| up(page) == Some(1.0));
    metadata.trouble(Trouble::Unsigned);
    metadata.set("preempted", Some("TRUE"));
    let page = node.until("it is told", |page| up(page) == Some(0.0));
    assert!(!stands(&page, "preemption", "preempt"));
    metadata.trouble(Trouble::None);
    node.until("it is heard from Google", |page| stands(page, "preemption", "preempt"));
}

#[test]
fn a_session_that_ends_is_renewed_without_losing_a_notice() {
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    metadata.set("instance-life-cycle", Some("spot"));
    let mut node = node(&metadata);
    node.until("it answers", |page| up(page) == Some(1.0));
    metadata.end_sessions();
    metadata.set("spot/instance-action", Some(r#"{"action":"stop","time":"2017-09-18T08:22:00Z"}"#));
    let page = node.until("the notice is there", |page| stands(page, "spot_interruption", "stop"));
    assert_eq!(page.value("windlass_agent_metadata_errors_total", &[]), Some(0.0), "401 is no failure");
    assert_eq!(metadata.calls().get("/latest/api/token"), Some(&2), "one to begin, one anew");
}

#[test]
fn an_on_demand_machine_is_not_asked_for_spot_notices() {
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    metadata.set("instance-life-cycle", Some("on-demand"));
    let mut node = node(&metadata);
    node.until("it answers", |page| up(page) == Some(1.0));
    let calls = metadata.calls();
    assert!(calls.contains_key("/latest/meta-data/autoscaling/target-lifecycle-state"));
    assert!(!calls.contains_key("/latest/meta-data/spot/instance-action"), "{calls:?}");
}

#[test]
fn a_token_that_never_arrives_is_told_and_costs_the_gpus_nothing() {
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    metadata.trouble(Trouble::HopLimit);
    let mut node = node(&metadata);
    let page = node.until("it is known as down", |page| up(page) == Some(0.0));
    assert!(!page.select("gpu_device_up", &[]).is_empty());
    assert_eq!(node.get("/readyz").status, 200, "notices are no condition of readiness");
}

#[test]
fn a_service_that_breaks_keeps_the_last_notice_and_counts_failures() {
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    metadata.set("spot/instance-action", Some(r#"{"action":"terminate","time":"2017-09-18T08:22:00Z"}"#));
    let mut node = node(&metadata);
    node.until("the notice is there", |page| stands(page, "spot_interruption", "terminate"));
    for trouble in [Trouble::Status(503), Trouble::Nonsense] {
        metadata.trouble(trouble);
        let page = node.until("it is down", |page| up(page) == Some(0.0));
        assert!(stands(&page, "spot_interruption", "terminate"), "stale beats none");
        assert!(page.value("windlass_agent_metadata_errors_total", &[]) > Some(0.0));
        metadata.trouble(Trouble::None);
        node.until("it is back", |page| up(page) == Some(1.0));
    }
}

#[test]
fn gce_is_asked_for_the_market_until_it_answers() {
    let metadata = Metadata::start(Cloud::Gce).unwrap();
    metadata.trouble(Trouble::Status(503));
    metadata.set("scheduling/", Some(r#"{"preemptible":"TRUE","provisioningModel":"SPOT"}"#));
    let mut node = node(&metadata);
    node.until("it is down", |page| up(page) == Some(0.0));
    metadata.trouble(Trouble::None);
    node.until("the market is known", |page| page.value("gpu_node_market_info", &[("market", "spot")]) == Some(1.0));
}

#[test]
fn gce_tells_of_preemption_and_maintenance_as_it_happens() {
    let metadata = Metadata::start(Cloud::Gce).unwrap();
    metadata.set("preempted", Some("FALSE"));
    metadata.set("maintenance-event", Some("NONE"));
    metadata.set("project/project-id", Some("my-project"));
    metadata.set("zone", Some("projects/123456/zones/us-central1-a"));
    metadata.set("name", Some("gke-gpu-1"));
    metadata.set("scheduling/", Some(r#"{"automaticRestart":"FALSE","onHostMaintenance":"TERMINATE","preemptible":"TRUE","provisioningModel":"SPOT"}"#));
    let mut node = node(&metadata);
    let page = node.until("it answers", |page| {
        let market = [("cloud", "gce"), ("market", "spot")];
        up(page) == Some(1.0) && page.value("gpu_node_market_info", &market) == Some(1.0)
    });
    assert!(page.select("gpu_node_notice", &[]).is_empty());
    metadata.set("maintenance-event", Some("TERMINATE_ON_HOST_MAINTENANCE"));
    metadata.set("preempted", Some("TRUE"));
    node.until("both are there", |page| {
        stands(page, "preemption", "preempt") && stands(page, "maintenance", "terminate_on_host_maintenance")
    });
    let usage = json(&mut node);
    assert_eq!(usage["notices"][0]["kind"], "preemption");
    assert_eq!(usage["provider_id"], "gce://my-project/us-central1-a/gke-gpu-1");
    metadata.set("maintenance-event", Some("NONE"));
    node.until("the maintenance is over", |page| !stands(page, "maintenance", "terminate_on_host_maintenance"));
    let calls = metadata.calls();
    assert!(calls.values().sum::<u64>() < 16, "a long poll asks when something changes: {calls:?}");
}

#[test]
fn off_cloud_it_is_silent() {
    // The kernel refuses at once, as a network without the address does.
    let nobody = Port::hold().unwrap();
    let endpoint = nobody.url().parse().unwrap();
    let profile = Profile::idle(ModelName::T4, 1);
    let mut node = Node::configured(&profile, Vec::new(), |_| (), |config, _| config.metadata = Some(endpoint));
    let page = node.until("the GPU is read", |page| page.value("gpu_device_up", &[]) == Some(1.0));
    let said = |name: &str| name.starts_with("gpu_node_") || name.starts_with("windlass_agent_metadata");
    assert!(!page.series.iter().any(|series| said(&series.name)));
    let usage = json(&mut node);
    assert_eq!((&usage["market"], &usage["notices"]), (&serde_json::Value::Null, &serde_json::json!([])));
    assert_eq!(usage["provider_id"], serde_json::Value::Null);
}
