//! Broken answers, expired credentials and regions that do not answer cost what they concern, and nothing else.

use std::time::Duration;

use serde_json::{Value, json};
use windlass_proto::externalgrpc::instance_status::InstanceState;
use windlass_tests::aws::{Asg, AwsCloud, Fault};

use super::stage::{Stage, gpu_group};

/// A group with nothing wrong beside the others.
fn with_a_sound_group() -> AwsCloud {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("sound", gpu_group());
    cloud
}

/// A group that only its launch template describes.
fn untold() -> Asg {
    Asg::new(&["us-east-1a"]).between(0, 5).of_cluster("c1")
}

/// What a command prints.
fn printed(stage: &Stage, arguments: &[&str]) -> String {
    String::from_utf8_lossy(&stage.run(arguments).stdout).into_owned()
}

/// The warnings that `groups` prints for a group.
fn warnings(stage: &Stage, group: &str) -> String {
    let text = printed(stage, &["groups", "--json"]);
    let groups: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let found = groups.as_array().unwrap().iter().find(|it| it["id"] == group).unwrap_or_else(|| panic!("{text}"));
    found["warnings"].to_string()
}

/// The group says what is wrong with it: on the page, in `groups` for people and for programs, and as a metric. The
/// sound one is bought from all the same.
async fn only_that_group_suffers(cloud: AwsCloud, group: &str, says: &str) -> Stage {
    only_it_suffers(Stage::new(cloud).await, group, says).await
}

async fn only_it_suffers(mut stage: Stage, group: &str, says: &str) -> Stage {
    let on_page = async |stage: &mut Stage| stage.page("/").await.contains(&says.replace('"', "&quot;"));
    stage.until(&format!("the page says {says}"), on_page).await;
    let told = warnings(&stage, group);
    assert!(told.contains(says), "{says}: {told}");
    assert!(!warnings(&stage, "sound").contains(says));
    let text = printed(&stage, &["groups"]);
    let row = text.split(&format!("\n{group}")).nth(1).unwrap_or_else(|| panic!("{text}"));
    assert!(row.lines().skip(1).take_while(|line| line.starts_with("  ! ")).any(|line| line.contains(says)), "{text}");
    let metrics = stage.page("/metrics").await;
    let gauge = format!("windlass_provider_group_warnings{{group=\"{group}\"}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&gauge)).unwrap_or_else(|| panic!("{metrics}"));
    assert_ne!(count, "0");
    stage.increase("sound", 1).await.unwrap();
    let runs = async |stage: &mut Stage| stage.count("sound", InstanceState::InstanceRunning).await == 1;
    stage.until("the sound group's machine runs", runs).await;
    stage
}

/// Whether the autoscaler is told of a machine on which any pod fits.
async fn is_promised(stage: &mut Stage, group: &str) -> bool {
    let Some(node) = stage.template_of(group).await else { return false };
    node.status.unwrap_or_default().allocatable.get("pods").is_some_and(|pods| pods.string() != "0")
}

#[tokio::test]
async fn a_missing_launch_template_is_told_and_nothing_is_promised_of_it() {
    let cloud = with_a_sound_group();
    cloud.add("broken", untold().launch_template("lt-gone", "$Latest"));
    let mut stage = only_that_group_suffers(cloud, "broken", "lt-gone").await;
    assert!(!is_promised(&mut stage, "broken").await, "a machine of which nothing is known was promised");
    assert!(is_promised(&mut stage, "sound").await);
}

#[tokio::test]
async fn a_launch_template_without_a_type_is_told() {
    let cloud = with_a_sound_group();
    cloud.with(|account, _| account.launch_template("lt-empty", json!({"imageId": "ami-0"})));
    cloud.add("broken", untold().launch_template("lt-empty", "$Latest"));
    let mut stage = only_that_group_suffers(cloud, "broken", "instance type").await;
    assert!(!is_promised(&mut stage, "broken").await);
}

#[tokio::test]
async fn an_unknown_instance_type_is_told() {
    let cloud = with_a_sound_group();
    cloud.with(|account, _| account.launch_template("lt-odd", json!({"instanceType": "zz9.plural"})));
    cloud.add("broken", untold().launch_template("lt-odd", "$Latest"));
    let mut stage = only_that_group_suffers(cloud, "broken", "zz9.plural").await;
    assert!(!is_promised(&mut stage, "broken").await);
}

#[tokio::test]
async fn a_tag_that_does_not_parse_is_told_with_what_would_be_right() {
    let cloud = with_a_sound_group();
    cloud.add("broken", gpu_group().node_template("taint/gpu", "NoSchedule"));
    let mut stage = only_that_group_suffers(cloud, "broken", "e.g. present:NoSchedule").await;
    assert!(is_promised(&mut stage, "broken").await, "one tag costs that tag, not the group");
}

#[tokio::test]
async fn a_minimum_above_the_maximum_is_told_and_the_group_stays_as_it_is() {
    let cloud = with_a_sound_group();
    cloud.add("broken", gpu_group().between(3, 2).desired(2));
    let mut stage = only_that_group_suffers(cloud, "broken", "minimum is above").await;
    stage.increase("broken", 1).await.unwrap_err();
    assert_eq!((stage.target("broken").await, stage.cloud.group("broken").desired()), (2, 2));
}

// in-tree: a group given by name is never given up.
#[tokio::test]
async fn a_group_that_is_named_and_not_there_is_told_and_no_machine_is_asked_of_it() {
    let named = json!({"cloud": {"groups": [{"name": "gpu-gone", "max": 4}, {"name": "sound"}]}});
    let stage = Stage::with(with_a_sound_group(), &named).await;
    let mut stage = only_it_suffers(stage, "gpu-gone", "has no such Auto Scaling group").await;
    let refused = stage.increase("gpu-gone", 1).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound, "{refused}");
    // It is no group with a guessed size, and it is one as soon as it is there.
    assert_eq!(stage.groups().await.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["sound"]);
    stage.cloud.add("gpu-gone", Asg::new(&["us-east-1a"]));
    stage.until("the group is there", async |stage| stage.groups().await.len() == 2).await;
    assert!(!stage.page("/").await.contains("has no such Auto Scaling group"));
}

#[tokio::test]
async fn an_instance_that_two_groups_claim_is_told_and_never_ended_by_guess() {
    let cloud = with_a_sound_group();
    cloud.add("broken", gpu_group().desired(1));
    cloud.add("other", gpu_group());
    let machine = cloud.group("broken").machines().remove(0);
    let id = machine.id.clone();
    cloud.group("other").with(|group, _| {
        group.machines.insert(machine.id.clone(), machine);
        group.desired = 1;
    });
    let stage = only_that_group_suffers(cloud, "broken", &format!("{id} is claimed by")).await;
    assert!(stage.cloud.calls("TerminateInstanceInAutoScalingGroup").is_empty());
}

#[tokio::test]
async fn a_region_that_does_not_answer_leaves_the_last_good_listing() {
    let mut stage = Stage::of(gpu_group().desired(1)).await;
    stage.relisted().await;
    stage.cloud.fault("*", Fault::Hang);
    stage.asked("DescribeAutoScalingGroups", 1).await;
    stage.refresh().await.unwrap();
    assert_eq!((stage.groups().await.len(), stage.target("gpu").await), (1, 1));
    assert_eq!(stage.instances("gpu").await.len(), 1);
}

#[tokio::test]
async fn a_region_that_fails_is_told_on_the_page_in_groups_and_as_a_metric() {
    let mut stage = Stage::of(gpu_group().desired(1)).await;
    stage.cloud.fault("*", Fault::Down);
    everything_says(&mut stage, "unknown", "no answer from the cloud").await;
    assert_eq!((stage.groups().await.len(), stage.target("gpu").await), (1, 1));
    stage.cloud.no_faults();
    let well = async |stage: &mut Stage| !stage.page("/").await.contains("cannot be listed");
    stage.until("the page says nothing any more", well).await;
}

/// The cloud as a whole is in trouble: the page, `groups` and the metrics say so.
async fn everything_says(stage: &mut Stage, outcome: &str, says: &str) {
    let on_page = async |stage: &mut Stage| {
        let page = stage.page("/").await;
        page.contains("The cloud cannot be listed since") && page.contains(says)
    };
    stage.until(&format!("the page says {says}"), on_page).await;
    let output = stage.run(&["groups"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(says), "{text}");
    let metrics = stage.page("/metrics").await;
    let is_it = |line: &&str| line.contains("verb=\"list\"") && line.contains(&format!("outcome=\"{outcome}\""));
    let counted = metrics.lines().filter(|line| line.starts_with("windlass_provider_cloud_calls_total{")).find(is_it);
    assert!(counted.is_some(), "{outcome}: {metrics}");
}

#[tokio::test]
async fn without_any_answer_from_the_region_there_is_no_group_and_the_program_is_not_ready() {
    let mut cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group());
    cloud.unplug();
    let mut stage = Stage::prepared(cloud, &json!({}), &[]);
    stage.start();
    stage.until("it serves", async |stage| !stage.page("/readyz").await.is_empty()).await;
    let ready = stage.page("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert_eq!(stage.groups().await, []);
}

#[tokio::test]
async fn broken_answers_change_nothing_and_good_ones_are_taken_again() {
    let mut stage = Stage::of(gpu_group().desired(1)).await;
    for fault in [Fault::BrokenBody, Fault::HalfAnswer, Fault::Down, Fault::Nonsense] {
        stage.cloud.fault("DescribeAutoScalingGroups", fault.clone());
        // The SDK asks three times in a listing.
        stage.asked("DescribeAutoScalingGroups", 4).await;
        assert_eq!((stage.groups().await.len(), stage.target("gpu").await), (1, 1), "{fault:?}");
    }
    stage.cloud.no_faults();
    stage.cloud.group("gpu").with(|group, _| group.max = 7);
    let seen = async |stage: &mut Stage| stage.groups().await.iter().any(|group| group.max_size == 7);
    stage.until("the new bound is seen", seen).await;
}

#[tokio::test]
async fn a_launch_whose_answer_breaks_off_buys_exactly_what_was_asked_for() {
    for fault in [Fault::BrokenBody, Fault::HalfAnswer, Fault::Nonsense, Fault::Down] {
        let mut stage = Stage::of(gpu_group()).await;
        stage.cloud.with(|account, _| account.faults.next("LaunchInstances", fault.clone(), 2));
        stage.increase("gpu", 2).await.unwrap();
        let run = async |stage: &mut Stage| stage.count("gpu", InstanceState::InstanceRunning).await == 2;
        stage.until(&format!("both machines run after {fault:?}"), run).await;
        stage.relisted().await;
        assert_eq!((stage.cloud.group("gpu").machines().len(), stage.target("gpu").await), (2, 2), "{fault:?}");
    }
}

#[tokio::test]
async fn a_page_that_is_missing_in_the_middle_takes_no_group_away() {
    let cloud = AwsCloud::start().unwrap();
    for number in 0..150 {
        cloud.add(&format!("g-{number:03}"), gpu_group());
    }
    let mut stage = Stage::new(cloud).await;
    assert_eq!(stage.groups().await.len(), 150);
    // Good first pages, and second ones that break off.
    for _ in 0..6 {
        stage.cloud.with(|account, _| {
            account.faults.next("DescribeAutoScalingGroups", Fault::Slow(Duration::from_millis(1)), 1);
            account.faults.next("DescribeAutoScalingGroups", Fault::HalfAnswer, 1);
        });
        stage.asked("DescribeAutoScalingGroups", 3).await;
        assert_eq!(stage.groups().await.len(), 150);
    }
}

#[tokio::test]
async fn credentials_that_expire_leave_everything_as_it_is_until_they_are_good_again() {
    let mut stage = Stage::of(gpu_group().desired(1)).await;
    stage.cloud.with(|account, _| account.expired.insert(windlass_tests::aws::ACCESS_KEY.to_owned()));
    // Whatever it is told: no machine may come or go of it.
    let granted = stage.increase("gpu", 1).await.is_ok();
    let refused = async |stage: &mut Stage| !granted || !stage.errors("gpu").await.is_empty();
    stage.until("the refusal is shown", refused).await;
    stage.asked("DescribeAutoScalingGroups", 1).await;
    assert_eq!((stage.groups().await.len(), stage.cloud.group("gpu").machines().len()), (1, 1));
    everything_says(&mut stage, "permission", "ExpiredToken").await;
    stage.cloud.with(|account, _| account.expired.clear());
    stage.relisted().await;
    assert!(!stage.page("/").await.contains("LaunchInstances"), "expired is not forbidden: it is asked again");
    assert_eq!(stage.cloud.group("gpu").in_state("InService").len(), stage.cloud.group("gpu").machines().len());
    stage.increase("gpu", 1).await.unwrap();
}

/// Waits until the page says it.
async fn told(stage: &mut Stage, part: &str) {
    let says = async |stage: &mut Stage| stage.page("/").await.contains(part);
    stage.until(&format!("the page says: {part}"), says).await;
}

#[tokio::test]
async fn an_ec2_that_does_not_answer_holds_up_no_listing() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group().desired(1));
    let mut stage = Stage::new(cloud).await;
    for call in ["DescribeLaunchTemplateVersions", "DescribeInstanceTypes", "DescribeImages"] {
        stage.cloud.fault(call, Fault::Hang);
    }
    stage.cloud.add("late", gpu_group().launch_template("other", "1"));
    let seen = async |stage: &mut Stage| stage.groups().await.len() == 2;
    stage.until("the new group is there", seen).await;
    told(&mut stage, "has not been read yet").await;
    assert_eq!(stage.target("gpu").await, 1);
}
