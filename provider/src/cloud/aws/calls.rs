//! Every operation that Windlass asks of AWS, in one table: from it come the IAM policy, the rates, the metrics' labels
//! and what `doctor` tries. What does not stand here is not sent ([`super::manners`]).

/// An API of AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// `autoscaling`.
    AutoScaling,
    /// `ec2`.
    Ec2,
    /// `eks`.
    Eks,
    /// `sqs`.
    Sqs,
    /// `sts`.
    Sts,
}

impl Service {
    /// Its name in IAM actions, in signatures and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AutoScaling => "autoscaling",
            Self::Ec2 => "ec2",
            Self::Eks => "eks",
            Self::Sqs => "sqs",
            Self::Sts => "sts",
        }
    }
}

/// When an operation is asked for at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// In every installation.
    Always,
    /// With `cloud.suspendAzRebalance: true`.
    SuspendAzRebalance,
    /// With `cloud.interruptionQueue`.
    InterruptionQueue,
    /// By `windlass-provider doctor` alone, as a dry run.
    Doctor,
}

/// What IAM can tie the permission to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// IAM wants no permission for it.
    Free,
    /// Reads that know no resource: `*`.
    Any,
    /// What EC2 asks of whoever has a group launch: `*`, in a statement of its own.
    Launch,
    /// One Auto Scaling group, by the cluster's tag on it.
    OwnGroup,
    /// The node groups of one cluster.
    OwnCluster,
    /// One queue.
    Queue,
}

/// How often an operation may be asked for: so many at once, then so many a second. AWS publishes EC2's buckets (100
/// at once and 20 a second for reads, per account and region) and none of Auto Scaling's; these are a small part of
/// them, since others live in the same account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Calls at once.
    pub burst: u32,
    /// Calls a second after that.
    pub per_second: u32,
}

/// Reads with many answers a page.
const PAGES: Rate = Rate { burst: 20, per_second: 5 };
/// Reads of one thing for each group.
const EACH_GROUP: Rate = Rate { burst: 30, per_second: 8 };
/// What changes something.
const WRITES: Rate = Rate { burst: 20, per_second: 5 };
/// What is asked for now and then.
const SELDOM: Rate = Rate { burst: 5, per_second: 1 };

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Whose.
    pub service: Service,
    /// Its name, as in IAM actions.
    pub action: &'static str,
    /// When it is asked for.
    pub need: Need,
    /// What its permission can be tied to.
    pub scope: Scope,
    /// How often it may be asked for.
    pub rate: Rate,
    /// What it is asked for; for people.
    pub why: &'static str,
}

impl Call {
    /// `autoscaling:LaunchInstances`.
    #[must_use]
    pub fn permission(&self) -> String {
        format!("{}:{}", self.service.name(), self.action)
    }

    /// Whether it changes something.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(self.scope, Scope::Free | Scope::Any | Scope::Launch | Scope::OwnCluster)
    }
}

const fn call(service: Service, action: &'static str, terms: (Need, Scope, Rate), why: &'static str) -> Call {
    Call { service, action, need: terms.0, scope: terms.1, rate: terms.2, why }
}

/// All of them. `ec2:CreateFleet` is never called except as a dry run: IAM wants it of whoever calls LaunchInstances.
pub const CALLS: &[Call] = &[
    call(
        Service::AutoScaling,
        "DescribeAutoScalingGroups",
        (Need::Always, Scope::Any, PAGES),
        "the groups, and the machines in them",
    ),
    call(
        Service::AutoScaling,
        "DescribeScalingActivities",
        (Need::Always, Scope::Any, EACH_GROUP),
        "why a group does not reach its desired capacity",
    ),
    call(
        Service::AutoScaling,
        "DescribeAutoScalingInstances",
        (Need::Always, Scope::Any, PAGES),
        "whether a machine that cannot be ended is on its way out already",
    ),
    call(
        Service::AutoScaling,
        "DescribeLaunchConfigurations",
        (Need::Always, Scope::Any, PAGES),
        "what a group without a launch template launches",
    ),
    call(
        Service::AutoScaling,
        "LaunchInstances",
        (Need::Always, Scope::OwnGroup, WRITES),
        "new machines, zone by zone",
    ),
    call(
        Service::AutoScaling,
        "SetDesiredCapacity",
        (Need::Always, Scope::OwnGroup, WRITES),
        "new machines in groups that LaunchInstances does not serve",
    ),
    call(
        Service::AutoScaling,
        "TerminateInstanceInAutoScalingGroup",
        (Need::Always, Scope::OwnGroup, WRITES),
        "exactly the machines that cluster-autoscaler returns",
    ),
    call(
        Service::AutoScaling,
        "SuspendProcesses",
        (Need::SuspendAzRebalance, Scope::OwnGroup, SELDOM),
        "keeps AZRebalance from ending machines behind the autoscaler's back",
    ),
    call(
        Service::Ec2,
        "DescribeLaunchTemplateVersions",
        (Need::Always, Scope::Any, EACH_GROUP),
        "what a group's launch template launches",
    ),
    call(
        Service::Ec2,
        "DescribeInstanceTypes",
        (Need::Always, Scope::Any, PAGES),
        "CPU, memory, GPUs and network interfaces of instance types",
    ),
    call(
        Service::Ec2,
        "GetInstanceTypesFromInstanceRequirements",
        (Need::Always, Scope::Any, EACH_GROUP),
        "the types that attribute-based groups may take",
    ),
    call(Service::Ec2, "DescribeImages", (Need::Always, Scope::Any, PAGES), "architecture and root volume of images"),
    call(Service::Ec2, "DescribeSpotPriceHistory", (Need::Always, Scope::Any, SELDOM), "spot prices by type and zone"),
    call(
        Service::Ec2,
        "CreateFleet",
        (Need::Doctor, Scope::Launch, SELDOM),
        "IAM wants it of whoever calls LaunchInstances",
    ),
    call(
        Service::Eks,
        "DescribeNodegroup",
        (Need::Always, Scope::OwnCluster, EACH_GROUP),
        "labels, taints and capacity type of managed node groups",
    ),
    call(
        Service::Sqs,
        "ReceiveMessage",
        (Need::InterruptionQueue, Scope::Queue, PAGES),
        "spot interruption notices from EventBridge",
    ),
    call(
        Service::Sqs,
        "DeleteMessage",
        (Need::InterruptionQueue, Scope::Queue, WRITES),
        "so that a notice is read once",
    ),
    call(Service::Sts, "GetCallerIdentity", (Need::Doctor, Scope::Free, SELDOM), "whose credentials these are"),
];

/// The operation of that service and name.
#[must_use]
pub fn find(service: &str, action: &str) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.service.name() == service && call.action == action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_stands_once_and_is_found_by_its_name() {
        for call in CALLS {
            assert_eq!(find(call.service.name(), call.action), Some(call));
            assert!(call.rate.burst > 0 && call.rate.per_second > 0, "{}", call.action);
        }
        let mut names: Vec<_> = CALLS.iter().map(Call::permission).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CALLS.len());
        assert_eq!(find("ec2", "RunInstances"), None);
    }

    #[test]
    fn what_changes_something_is_tied_to_something() {
        for call in CALLS {
            let reads =
                call.action.starts_with("Describe") || call.action.starts_with("Get") || call.need == Need::Doctor;
            assert_eq!(call.writes(), !reads, "{}", call.action);
        }
    }
}
