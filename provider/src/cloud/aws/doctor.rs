//! What `doctor` looks at on AWS: whose credentials these are, each permission by a call that can have no effect, the
//! clock, and the tags by which groups are found.

mod permission;
mod tags;

use std::{sync::Arc, time::Duration};

use super::{
    Settings,
    access::Access,
    errors,
    permissions::{self, Holder},
};
use crate::{cloud::CloudError, config::Config, doctor::Finding, metrics::Metrics};

/// AWS refuses a signature whose time is five minutes off.
const SKEW_REFUSED: Duration = Duration::from_mins(5);
/// Beyond this something is wrong with the machine's clock.
const SKEW_NOTED: Duration = Duration::from_secs(30);

/// Everything, in an order in which the first thing to mend is the cause of those after it.
pub async fn examine(config: &Config) -> Vec<Finding> {
    let access = match load(config).await {
        Ok(access) => access,
        Err(_) => {
            return vec![Finding::mend(
                "region",
                "none is set",
                "set cloud.region in the configuration, or AWS_REGION",
            )];
        }
    };
    let caller = caller(&access).await;
    let known = caller.grade == crate::doctor::Grade::Ok;
    let mut findings = vec![Finding::ok("region", place(&access, config)), caller, clock(access.manners.clock_ahead())];
    if known {
        findings.extend(tags::examine(&access, config).await);
        findings.extend(permission::examine(&access, config, &holder(config)).await);
    }
    findings
}

async fn load(config: &Config) -> anyhow::Result<Access> {
    let settings = Settings::glance(config)?;
    Ok(Access::load(&settings, Arc::new(Metrics::new()?)).await?)
}

/// What the policy of this configuration has to allow.
#[must_use]
pub fn holder(config: &Config) -> Holder {
    let cluster = config.cloud.cluster_name.clone().unwrap_or_else(|| Holder::placeholder().cluster);
    let queue = config.cloud.interruption_queue.as_deref().map(queue_arn);
    let partition = permissions::partition(config.cloud.region.as_deref().unwrap_or_default());
    Holder { partition, cluster, suspend_az_rebalance: config.cloud.suspend_az_rebalance, queue }
}

/// `https://sqs.us-east-1.amazonaws.com/123456789012/name` as an ARN; the placeholder for a URL of another form.
fn queue_arn(url: &str) -> String {
    let parts: Vec<_> = url.split('/').collect();
    let region = |host: &str| host.strip_prefix("sqs.").and_then(|rest| rest.split('.').next()).map(ToOwned::to_owned);
    match parts.as_slice() {
        [_, _, host, account, name] => region(host).map(|region| {
            let partition = permissions::partition(&region);
            format!("arn:{partition}:sqs:{region}:{account}:{name}")
        }),
        _ => None,
    }
    .unwrap_or_else(|| Holder::placeholder().queue.unwrap_or_default())
}

fn place(access: &Access, config: &Config) -> String {
    let endpoint = config.cloud.endpoint.as_ref().map(|it| format!(" at {it}")).unwrap_or_default();
    let (fips, dual) = (access.sdk.use_fips() == Some(true), access.sdk.use_dual_stack() == Some(true));
    let kind = match (fips, dual) {
        (true, true) => ", FIPS and dual-stack endpoints",
        (true, false) => ", FIPS endpoints",
        (false, true) => ", dual-stack endpoints",
        (false, false) => "",
    };
    format!("{}{endpoint}{kind}", access.region)
}

async fn caller(access: &Access) -> Finding {
    const ABOUT: &str = "credentials";
    match aws_sdk_sts::Client::new(&access.sdk).get_caller_identity().send().await {
        Ok(answer) => Finding::ok(ABOUT, answer.arn.unwrap_or_else(|| "without a name".to_owned())),
        Err(error) => {
            let error = errors::failed("GetCallerIdentity", &error);
            let remedy = remedy(&error);
            let what = match error {
                CloudError::Refused(refusal) => format!("{}: {}", refusal.code, refusal.message),
                CloudError::Unknown(why) => why,
            };
            Finding::mend(ABOUT, what, remedy)
        }
    }
}

fn remedy(error: &CloudError) -> &'static str {
    match error {
        CloudError::Refused(refusal) if refusal.code.contains("Expired") => {
            "the credentials have run out: renew them; a pod with IRSA or Pod Identity does so by itself, look at its service account"
        }
        CloudError::Refused(refusal) if refusal.code.contains("Skew") || refusal.code.contains("Signature") => {
            "set this machine's clock right (chrony, systemd-timesyncd), and look whether the secret key is whole"
        }
        CloudError::Refused(_) => {
            "look whether the key exists and is active, and whether the role's trust policy names this service account"
        }
        CloudError::Unknown(_) => {
            "give the pod a role (EKS Pod Identity, or IRSA's annotation on its service account), or set AWS_PROFILE or AWS_ACCESS_KEY_ID; \
             instance metadata answers pods only with a hop limit of 2; if credentials are there, look whether the endpoint can be reached"
        }
    }
}

/// By the `Date` of AWS's last answer: how many milliseconds it is ahead of ours.
fn clock(ahead: Option<i64>) -> Finding {
    const ABOUT: &str = "clock";
    let Some(ahead) = ahead else {
        return Finding::note(ABOUT, "not looked at: AWS has not answered", "");
    };
    let (off, side) = (Duration::from_millis(ahead.unsigned_abs()), if ahead < 0 { "ahead of" } else { "behind" });
    let what = format!("this machine is {} s {side} AWS", off.as_secs());
    match off {
        off if off >= SKEW_REFUSED => Finding::mend(
            ABOUT,
            format!("{what}: AWS refuses five minutes"),
            "set the clock (chrony, systemd-timesyncd)",
        ),
        off if off >= SKEW_NOTED => {
            Finding::note(ABOUT, what, "set the clock (chrony, systemd-timesyncd); from five minutes on AWS refuses")
        }
        _ => Finding::ok(ABOUT, "within half a minute of AWS's"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_noted_and_one_that_aws_refuses_is_to_be_mended() {
        use crate::doctor::Grade::{Mend, Note, Ok};
        for (ahead, grade, says) in [
            (None, Note, "not looked at"),
            (Some(-29_000), Ok, "within half a minute"),
            (Some(-31_000), Note, "31 s ahead of AWS"),
            (Some(299_000), Note, "299 s behind AWS"),
            (Some(300_000), Mend, "AWS refuses five minutes"),
        ] {
            let finding = clock(ahead);
            assert!(finding.grade == grade && finding.what.contains(says), "{ahead:?}: {finding:?}");
        }
    }

    #[test]
    fn a_queues_url_has_its_arn() {
        let url = "https://sqs.eu-west-1.amazonaws.com/123456789012/interruptions";
        assert_eq!(queue_arn(url), "arn:aws:sqs:eu-west-1:123456789012:interruptions");
        let url = "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/interruptions";
        assert_eq!(queue_arn(url), "arn:aws-cn:sqs:cn-north-1:123456789012:interruptions");
        assert_eq!(queue_arn("http://127.0.0.1:1/1/q"), "arn:aws:sqs:REGION:ACCOUNT_ID:QUEUE_NAME");
    }
}
