//! Each permission, by a call that can have no effect: EC2's dry runs, reads of one thing, and writes that AWS must refuse
//! for another reason than permission once it has looked at that.

use aws_sdk_autoscaling::Client;

use super::super::{
    access::Access,
    calls::{CALLS, Call},
    ec2::{Ec2, Params},
    errors,
    permissions::Holder,
};
use crate::{cloud::CloudError, config::Config, doctor::Finding, fleet::group::RefusalClass};

const ABOUT: &str = "permissions";
/// Names nothing that there is.
const NOBODY: &str = "windlass-doctor";

/// What a call told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Allowed,
    Denied(String),
    /// Neither: why, and what to do.
    Unclear(String),
}

struct Probe<'a> {
    access: &'a Access,
    scaling: Client,
    ec2: Ec2,
    /// The cluster, where one is named.
    cluster: Option<&'a str>,
    /// One of our groups, to try writes on.
    group: Option<String>,
    /// The interruption queue's URL.
    queue: Option<&'a str>,
}

pub(super) async fn examine(access: &Access, config: &Config, holder: &Holder) -> Vec<Finding> {
    let scaling = Client::new(&access.sdk);
    let group = super::tags::first_group(&scaling, config).await;
    let ec2 = Ec2::new(&access.sdk, &access.region);
    let probe = Probe {
        access,
        scaling,
        ec2,
        cluster: config.cloud.cluster_name.as_deref(),
        group,
        queue: config.cloud.interruption_queue.as_deref(),
    };
    let (mut allowed, mut findings) = (Vec::new(), Vec::new());
    for call in CALLS.iter().filter(|call| holder.needs(call)) {
        match probe.ask(call).await {
            Told::Allowed => allowed.push(call.permission()),
            Told::Denied(why) => findings.push(Finding::mend(
                ABOUT,
                format!("{} is denied ({}): {why}", call.permission(), call.why),
                "allow it: `windlass-provider iam-policy` prints the smallest policy that does",
            )),
            Told::Unclear(why) => {
                findings.push(Finding::note(ABOUT, format!("{} could not be told: {why}", call.permission()), ""));
            }
        }
    }
    if !allowed.is_empty() {
        let all = if findings.is_empty() { "all " } else { "" };
        findings.insert(0, Finding::ok(ABOUT, format!("{all}{} allowed: {}", allowed.len(), by_service(&allowed))));
    }
    findings
}

/// `autoscaling` and its actions on one line, `ec2` and its own on the next.
fn by_service(permissions: &[String]) -> String {
    let mut services: Vec<(&str, Vec<&str>)> = Vec::new();
    for (service, action) in permissions.iter().filter_map(|it| it.split_once(':')) {
        match services.last_mut() {
            Some((last, actions)) if *last == service => actions.push(action),
            _ => services.push((service, vec![action])),
        }
    }
    let line = |(service, actions): &(&str, Vec<&str>)| format!("\n{service}: {}", actions.join(", "));
    services.iter().map(line).collect()
}

impl Probe<'_> {
    async fn ask(&self, call: &Call) -> Told {
        match call.action {
            "DescribeAutoScalingGroups" => told(
                self.scaling
                    .describe_auto_scaling_groups()
                    .max_records(1)
                    .send()
                    .await
                    .map_err(|it| errors::failed(call.action, &it)),
            ),
            "DescribeScalingActivities" => told(
                self.scaling
                    .describe_scaling_activities()
                    .max_records(1)
                    .send()
                    .await
                    .map_err(|it| errors::failed(call.action, &it)),
            ),
            "DescribeAutoScalingInstances" => told(
                self.scaling
                    .describe_auto_scaling_instances()
                    .max_records(1)
                    .send()
                    .await
                    .map_err(|it| errors::failed(call.action, &it)),
            ),
            "DescribeLaunchConfigurations" => told(
                self.scaling
                    .describe_launch_configurations()
                    .max_records(1)
                    .send()
                    .await
                    .map_err(|it| errors::failed(call.action, &it)),
            ),
            "DescribeNodegroup" => self.nodegroup().await,
            "ReceiveMessage" | "DeleteMessage" => self.queue(call).await,
            "LaunchInstances" | "SetDesiredCapacity" | "SuspendProcesses" | "TerminateInstanceInAutoScalingGroup" => {
                self.write(call).await
            }
            _ if call.service == super::super::calls::Service::Ec2 => self.dry_run(call).await,
            _ => Told::Unclear("nothing without an effect asks for it".to_owned()),
        }
    }

    async fn dry_run(&self, call: &Call) -> Told {
        let params = Params::default().with("DryRun", "true");
        let params = match call.action {
            "DescribeLaunchTemplateVersions" => params.with("LaunchTemplateName", NOBODY),
            "GetInstanceTypesFromInstanceRequirements" => params
                .list("ArchitectureType", ["x86_64"])
                .list("VirtualizationType", ["hvm"])
                .with("InstanceRequirements.VCpuCount.Min", "1")
                .with("InstanceRequirements.MemoryMiB.Min", "1"),
            "CreateFleet" => params
                .with("Type", "instant")
                .with("TargetCapacitySpecification.TotalTargetCapacity", "1")
                .with("LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName", NOBODY)
                .with("LaunchTemplateConfigs.1.LaunchTemplateSpecification.Version", "1"),
            _ => params,
        };
        told(self.ec2.call::<serde::de::IgnoredAny>(call.action, &params).await)
    }

    /// A message that is read here is there for the next reader at once; a receipt of nobody's deletes nothing.
    async fn queue(&self, call: &Call) -> Told {
        let Some(url) = self.queue else { return Told::Unclear("cloud.interruptionQueue is not set".to_owned()) };
        let client = aws_sdk_sqs::Client::new(&self.access.sdk);
        if call.action == "ReceiveMessage" {
            let request = client.receive_message().queue_url(url).max_number_of_messages(1);
            let answer = request.visibility_timeout(0).wait_time_seconds(0).send().await;
            return told(answer.map_err(|error| errors::failed(call.action, &error)));
        }
        let answer = client.delete_message().queue_url(url).receipt_handle(NOBODY).send().await;
        told(answer.map_err(|error| errors::failed(call.action, &error)))
    }

    async fn nodegroup(&self) -> Told {
        let Some(cluster) = self.cluster else {
            return Told::Unclear("cloud.clusterName is not set, so no managed node group is asked for".to_owned());
        };
        let client = aws_sdk_eks::Client::new(&self.access.sdk);
        let answer = client.describe_nodegroup().cluster_name(cluster).nodegroup_name(NOBODY).send().await;
        told(answer.map_err(|error| errors::failed("DescribeNodegroup", &error)))
    }

    /// Each must be refused: a zone that does not exist, a capacity above every maximum, a process or a
    /// machine that does not exist.
    async fn write(&self, call: &Call) -> Told {
        let Some(group) = &self.group else {
            return Told::Unclear("there is no group to try it on".to_owned());
        };
        let failed = |error: CloudError| told::<()>(Err(error));
        match call.action {
            "LaunchInstances" => {
                let request = self.scaling.launch_instances().auto_scaling_group_name(group).requested_capacity(1);
                let request = request.availability_zones(NOBODY).client_token(NOBODY);
                let answer = request.send().await;
                answer.map_or_else(|error| failed(errors::failed(call.action, &error)), |_| Told::Allowed)
            }
            "SetDesiredCapacity" => {
                let request = self.scaling.set_desired_capacity().auto_scaling_group_name(group);
                let answer = request.desired_capacity(i32::MAX).send().await;
                answer.map_or_else(|error| failed(errors::failed(call.action, &error)), |_| Told::Allowed)
            }
            _ => {
                let request =
                    self.scaling.terminate_instance_in_auto_scaling_group().instance_id("i-00000000000000000");
                let answer = request.should_decrement_desired_capacity(true).send().await;
                match answer.map_or_else(|error| failed(errors::failed(call.action, &error)), |_| Told::Allowed) {
                    Told::Denied(_) => Told::Unclear(
                        "AWS denies it for a machine that does not exist, and a policy tied to the group's tag says so too".to_owned(),
                    ),
                    other => other,
                }
            }
        }
    }
}

/// AWS looks at permission before it looks at anything else that these calls get wrong.
fn told<T>(answer: Result<T, CloudError>) -> Told {
    match answer {
        Ok(_) => Told::Allowed,
        Err(CloudError::Refused(refusal)) if refusal.class == RefusalClass::Permission => Told::Denied(refusal.message),
        Err(CloudError::Refused(refusal)) if refusal.class == RefusalClass::Throttled => Told::Unclear(refusal.message),
        Err(CloudError::Refused(_)) => Told::Allowed,
        Err(CloudError::Unknown(why)) => Told::Unclear(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_denial_is_a_denial() {
        let answer = |code: &str| told::<()>(Err(CloudError::Refused(errors::refusal(Some(code), Some("because")))));
        for code in [
            "DryRunOperation",
            "ValidationError",
            "ResourceNotFoundException",
            "InvalidLaunchTemplateName.NotFoundException",
        ] {
            assert_eq!(answer(code), Told::Allowed, "{code}");
        }
        for code in ["UnauthorizedOperation", "AccessDenied", "AccessDeniedException"] {
            assert_eq!(answer(code), Told::Denied("because".to_owned()), "{code}");
        }
        assert_eq!(answer("Throttling"), Told::Unclear("because".to_owned()));
        assert_eq!(told::<()>(Err(CloudError::Unknown("gone".to_owned()))), Told::Unclear("gone".to_owned()));
    }
}
