//! Activities in AWS's own words, in tables.

use aws_sdk_autoscaling::types::ScalingActivityStatusCode;

use super::*;

const ICE: &str = "We currently do not have sufficient p5.48xlarge capacity in the Availability Zone you requested \
                   (us-east-1a). Our system will be working on provisioning additional capacity. Launching EC2 \
                   instance failed.";

fn activity(id: &str, at: i64, status: &str, message: &str, zone: &str) -> Activity {
    let details = format!("{{\"Subnet ID\":\"subnet-1\",\"Availability Zone\":\"{zone}\"}}");
    Activity::builder()
        .activity_id(id)
        .description("Launching a new EC2 instance.  Status Reason: …")
        .start_time(DateTime::from_secs(at))
        .status_code(ScalingActivityStatusCode::from(status))
        .status_message(message)
        .details(details)
        .build()
}

fn zones() -> Vec<String> {
    ["us-east-1a", "us-east-1b"].map(str::to_owned).to_vec()
}

/// In-tree knows one reason for all of these.
#[test]
fn a_failure_is_told_in_its_class_with_awss_own_code() {
    use RefusalClass::{Configuration, NoCapacity, Permission, Quota, Throttled};
    for (message, code, class) in [
        (ICE, "InsufficientInstanceCapacity", NoCapacity),
        (
            "Could not launch Spot Instances. UnfulfillableCapacity - Unable to fulfill capacity due to your request \
             configuration. Please adjust your request and try again. Launching EC2 instance failed.",
            "UnfulfillableCapacity",
            NoCapacity,
        ),
        ("There is no Spot capacity available that matches your request.", "InsufficientInstanceCapacity", NoCapacity),
        (
            "You have requested more vCPU capacity than your current vCPU limit of 0 allows for the instance bucket \
             that the specified instance type belongs to. Launching EC2 instance failed.",
            "VcpuLimitExceeded",
            Quota,
        ),
        (
            "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count exceeded.",
            "MaxSpotInstanceCountExceeded",
            Quota,
        ),
        (
            "You are not authorized to perform this operation. Launching EC2 instance failed.",
            "UnauthorizedOperation",
            Permission,
        ),
        ("The image id '[ami-0]' does not exist. Launching EC2 instance failed.", "LaunchFailed", Configuration),
        (
            "Could not launch On-Demand Instances. InvalidParameterValue - The architecture is wrong.",
            "InvalidParameterValue",
            Configuration,
        ),
        ("Request limit exceeded. Launching EC2 instance failed.", "RequestLimitExceeded", Throttled),
        ("", "LaunchFailed", Configuration),
        ("a - b", "LaunchFailed", Configuration),
    ] {
        let failed = activity("1", 1, "Failed", message, "us-east-1a");
        let outlook = Outlook::of(&Watermark::default(), &[failed]);
        let failure = &outlook.failures[0];
        assert_eq!((failure.refusal.code.as_str(), failure.refusal.class), (code, class), "{message}");
        assert_eq!(failure.zone.as_deref(), Some("us-east-1a"));
    }
}

/// In-tree counts six weeks of failures after a restart.
#[test]
fn what_failed_before_the_order_never_counts() {
    let before = [activity("new", 50, "Failed", ICE, "us-east-1a"), activity("old", 40, "Failed", ICE, "us-east-1a")];
    let watermark = Watermark::of(&before);
    assert_eq!(Watermark::lower_bound([&watermark]).as_deref(), Some("1970-01-01T00:00:50Z"));
    let older = activity("older", 30, "Failed", ICE, "us-east-1a");
    assert_eq!(Outlook::of(&watermark, &[before[0].clone(), before[1].clone(), older]), Outlook::default());
    let same_second = activity("since", 50, "Failed", ICE, "us-east-1b");
    let outlook = Outlook::of(&watermark, &[same_second, before[0].clone()]);
    assert_eq!(outlook.failures.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["since"]);
}

#[test]
fn an_order_to_a_group_that_tried_for_nothing_counts_from_its_own_time() {
    let watermark = Watermark::at(Timestamp(50_000));
    let failed = |at| Outlook::of(&watermark, &[activity("1", at, "Failed", ICE, "us-east-1a")]).failures.len();
    assert_eq!([47, 48, 50, 60].map(failed), [0, 1, 1, 1]);
    let later = Watermark::at(Timestamp(90_000));
    assert_eq!(Watermark::lower_bound([&later, &watermark]).as_deref(), Some("1970-01-01T00:00:48Z"));
    assert_eq!(Watermark::lower_bound([&later, &Watermark::default()]), None);
}

#[test]
fn a_zone_that_failed_is_no_refusal_while_the_next_is_tried() {
    let failed = |id: &str, zone: &str| activity(id, 1, "Failed", ICE, zone);
    let trying = |text: &str| {
        let status = ScalingActivityStatusCode::WaitingForInstanceId;
        let of = Activity::builder().activity_id("t").description(text).status_code(status);
        of.start_time(DateTime::from_secs(2)).build()
    };
    let (soon, later) = (Timestamp(2_000), Timestamp(6_000));
    let quota = activity("q", 1, "Failed", "VcpuLimitExceeded - no more.", "us-east-1a");
    for (activities, now, told) in [
        (vec![], later, None),
        (vec![failed("1", "us-east-1a")], soon, None),
        (vec![failed("1", "us-east-1a")], later, Some("InsufficientInstanceCapacity")),
        (vec![trying("Launching a new EC2 instance"), failed("1", "us-east-1a")], later, None),
        (
            vec![trying("Launching a new EC2 instance: i-0f"), failed("1", "us-east-1a")],
            later,
            Some("InsufficientInstanceCapacity"),
        ),
        (vec![failed("2", "us-east-1b"), failed("1", "us-east-1a")], soon, Some("InsufficientInstanceCapacity")),
        (vec![quota], soon, Some("VcpuLimitExceeded")),
        (
            vec![trying("Terminating EC2 instance: i-0f"), failed("1", "us-east-1a")],
            later,
            Some("InsufficientInstanceCapacity"),
        ),
    ] {
        let outlook = Outlook::of(&Watermark::default(), &activities);
        assert_eq!(outlook.refusal(&zones(), now).map(|it| it.code).as_deref(), told, "{activities:?}");
    }
}
