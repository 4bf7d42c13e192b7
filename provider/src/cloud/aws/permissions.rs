//! The smallest IAM policy that lets Windlass work, made of the list of calls. `deploy/aws/iam-policy.json` is this with
//! placeholders; `windlass-provider iam-policy` prints it for one configuration.

use std::collections::BTreeMap;

use serde::Serialize;

use super::calls::{CALLS, Call, Need, Scope};

/// What the policy is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// `aws`, or that of a region which is a world of its own; see [`partition`].
    pub partition: &'static str,
    /// The cluster's name, as in its tag.
    pub cluster: String,
    /// With the rights to suspend AZRebalance.
    pub suspend_az_rebalance: bool,
    /// The ARN of the interruption queue.
    pub queue: Option<String>,
}

impl Holder {
    /// With everything, and names to be replaced.
    #[must_use]
    pub fn placeholder() -> Self {
        Self {
            partition: partition(""),
            cluster: "CLUSTER_NAME".to_owned(),
            suspend_az_rebalance: true,
            queue: Some("arn:aws:sqs:REGION:ACCOUNT_ID:QUEUE_NAME".to_owned()),
        }
    }

    /// Whether it needs the permission for a call.
    #[must_use]
    pub fn needs(&self, call: &Call) -> bool {
        call.scope != Scope::Free
            && match call.need {
                Need::Always | Need::Doctor => true,
                Need::SuspendAzRebalance => self.suspend_az_rebalance,
                Need::InterruptionQueue => self.queue.is_some(),
            }
    }
}

/// The part of AWS that a region belongs to, as ARNs name it.
#[must_use]
pub fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        region if region.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}

/// The policy document, indented, with a newline at its end.
#[must_use]
pub fn policy(of: &Holder) -> String {
    let mut statements: BTreeMap<(Scope, Need), Vec<String>> = BTreeMap::new();
    for call in CALLS.iter().filter(|call| of.needs(call)) {
        // A dry run needs the right itself; one statement for both.
        let need = if call.need == Need::Doctor { Need::Always } else { call.need };
        statements.entry((call.scope, need)).or_default().push(call.permission());
    }
    let statements: Vec<_> = statements.into_iter().map(|(kind, actions)| statement(of, kind, actions)).collect();
    let document = Document { version: "2012-10-17", statement: statements };
    // Nothing in it can fail to be written.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    version: &'static str,
    statement: Vec<Statement>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: &'static str,
    effect: &'static str,
    action: Vec<String>,
    resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<BTreeMap<&'static str, BTreeMap<String, &'static str>>>,
}

fn statement(of: &Holder, (scope, need): (Scope, Need), mut action: Vec<String>) -> Statement {
    action.sort_unstable();
    let sid = match (scope, need) {
        (Scope::OwnGroup, Need::SuspendAzRebalance) => "OptionalSuspendAzRebalance",
        (Scope::OwnGroup, _) => "ScaleTaggedGroups",
        (Scope::OwnCluster, _) => "ReadManagedNodeGroups",
        (Scope::Queue, _) => "OptionalInterruptionQueue",
        (Scope::Launch, _) => "LaunchInstancesWantsIt",
        (Scope::Any | Scope::Free, _) => "Read",
    };
    let resource = match scope {
        Scope::OwnGroup => format!("arn:{}:autoscaling:*:*:autoScalingGroup:*", of.partition),
        Scope::OwnCluster => format!("arn:{}:eks:*:*:nodegroup/{}/*", of.partition, of.cluster),
        Scope::Queue => of.queue.clone().unwrap_or_default(),
        Scope::Any | Scope::Launch | Scope::Free => "*".to_owned(),
    };
    let tag = format!("aws:ResourceTag/k8s.io/cluster-autoscaler/{}", of.cluster);
    // Null/false: the tag is there, whatever its value.
    let tagged = BTreeMap::from([("Null", BTreeMap::from([(tag, "false")]))]);
    Statement { sid, effect: "Allow", action, resource, condition: (scope == Scope::OwnGroup).then_some(tagged) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/aws/iam-policy.json");

    #[test]
    fn the_policy_in_deploy_is_made_of_the_list_of_calls() {
        let policy = policy(&Holder::placeholder());
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(FILE, &policy).unwrap();
        }
        let shipped = std::fs::read_to_string(FILE).unwrap();
        assert_eq!(shipped, policy, "UPDATE_EXPECT=1 cargo test -p windlass-provider --lib permissions writes it anew");
    }

    #[test]
    fn whoever_changes_a_group_is_tied_to_the_clusters_tag() {
        let holder =
            Holder { partition: "aws-us-gov", cluster: "c1".to_owned(), suspend_az_rebalance: false, queue: None };
        let policy: Value = serde_json::from_str(&policy(&holder)).unwrap();
        let statements = policy["Statement"].as_array().unwrap();
        let sids: Vec<_> = statements.iter().map(|it| it["Sid"].as_str().unwrap()).collect();
        assert_eq!(sids, ["Read", "LaunchInstancesWantsIt", "ScaleTaggedGroups", "ReadManagedNodeGroups"]);
        let scale = &statements[2];
        assert_eq!(scale["Resource"], "arn:aws-us-gov:autoscaling:*:*:autoScalingGroup:*");
        assert_eq!(scale["Condition"]["Null"]["aws:ResourceTag/k8s.io/cluster-autoscaler/c1"], "false");
        let actions: Vec<_> = scale["Action"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        assert_eq!(
            actions,
            [
                "autoscaling:LaunchInstances",
                "autoscaling:SetDesiredCapacity",
                "autoscaling:TerminateInstanceInAutoScalingGroup"
            ]
        );
        let any: Vec<_> = statements[0]["Action"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        assert!(any.iter().all(|it| !it.contains("Terminate") && !it.contains("SetDesired")), "{any:?}");
    }
}
