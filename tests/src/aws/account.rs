//! The account as a value: everything that exists in it, and what each request does to it. The time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use super::{
    ACCESS_KEY, Asg, REGION,
    activities::{Activity, KEPT},
    answer::{Answer, Outcome, Refused},
    autoscaling, ec2, eks,
    faults::Faults,
    history::History,
    launch::Answered,
    machine::Machine,
    moment::Moment,
    request::Request,
    sqs::Queue,
    sts,
    supply::Supply,
    templates::LaunchTemplate,
    types,
};

/// A request that was made, as far as tests ask about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// `autoscaling`, `ec2`, `eks`, `sts` or `sqs`.
    pub service: &'static str,
    /// `DescribeAutoScalingGroups`, …
    pub action: String,
    /// Names and values as a form has them; a JSON's top level likewise.
    pub parameters: BTreeMap<String, String>,
    /// The access key that signed it; None for the few that need no signature.
    pub key: Option<String>,
    /// Whether it was answered with an error, or not at all.
    pub failed: bool,
}

/// One AWS account in one region.
#[derive(Clone, Debug)]
pub struct Account {
    /// Auto Scaling groups by name.
    pub groups: BTreeMap<String, Asg>,
    /// `DescribeInstanceTypes` by type, in EC2's own words.
    pub types: BTreeMap<String, Value>,
    /// `DescribeLaunchConfigurations` by name, in the Auto Scaling API's own words.
    pub launch_configurations: BTreeMap<String, Value>,
    /// `DescribeNodegroup` by cluster and name, in EKS's own words.
    pub nodegroups: BTreeMap<(String, String), Value>,
    /// `DescribeCluster` by name, in EKS's own words.
    pub clusters: BTreeMap<String, Value>,
    /// `DescribeImages` by id, in EC2's own words.
    pub images: BTreeMap<String, Value>,
    /// `DescribeSpotPriceHistory`, in EC2's own words.
    pub spot_prices: Vec<Value>,
    /// What goes wrong with requests.
    pub faults: Faults,
    /// `service:Action`s that the caller may not do, or `service:Action/group` where a condition on the group denies it;
    /// `*` at the end stands for anything.
    pub denied: BTreeSet<String>,
    /// Access keys that have expired.
    pub expired: BTreeSet<String>,
    /// How long temporary credentials are good for, as they say themselves.
    pub credentials_last: Duration,
    /// Every request so far.
    pub calls: Vec<Recorded>,
    pub(super) templates: BTreeMap<String, LaunchTemplate>,
    pub(super) queues: BTreeMap<String, Queue>,
    pub(super) supply: Supply,
    pub(super) history: History,
    pub(super) answered: BTreeMap<(String, String), Answered>,
    /// Temporary access keys given out.
    pub(super) keys: u64,
    next: u64,
}

impl Default for Account {
    fn default() -> Self {
        let mut account = Self {
            groups: BTreeMap::new(),
            types: types::known(),
            launch_configurations: BTreeMap::new(),
            nodegroups: BTreeMap::new(),
            clusters: BTreeMap::new(),
            images: BTreeMap::new(),
            spot_prices: Vec::new(),
            faults: Faults::default(),
            denied: BTreeSet::new(),
            expired: BTreeSet::new(),
            credentials_last: Duration::from_hours(1),
            calls: Vec::new(),
            templates: BTreeMap::new(),
            queues: BTreeMap::new(),
            supply: Supply::default(),
            history: History::default(),
            answered: BTreeMap::new(),
            keys: 0,
            next: 1,
        };
        account.launch_template("lt-default", serde_json::json!({"instanceType": "g5.xlarge", "imageId": "ami-0"}));
        account
    }
}

impl Account {
    /// Adds a group; the machines of its desired capacity are in service already.
    pub fn add(&mut self, name: &str, mut group: Asg, now: u64) {
        let missing = group.desired.saturating_sub(group.counted(now));
        for _ in 0..missing {
            let zone = group.balanced(now).into_iter().next().unwrap_or_default();
            let Some(offer) = self.offers(&group, &zone, now).into_iter().next() else { break };
            let machine = Machine::new(self.instance_id(), &offer, now);
            group.machines.insert(machine.id.clone(), machine);
        }
        self.groups.insert(name.to_owned(), group);
        self.history.note(&self.groups, now);
    }

    /// Carries out one request, after everything that was due before it.
    pub(super) fn answer(&mut self, request: &Request, now: Moment) -> Answer {
        self.advance(now);
        let outcome = self.admitted(request).and_then(|()| self.carry_out(request, now));
        if !request.action.starts_with("Describe") {
            self.history.note(&self.groups, now);
        }
        self.advance(now);
        self.record(request, outcome.is_err(), now);
        Answer::new(request.protocol, request.service, &request.action, outcome)
    }

    /// Notes a call that had no effect.
    pub(super) fn record_failure(&mut self, request: &Request, now: Moment) {
        self.record(request, true, now);
    }

    fn record(&mut self, request: &Request, failed: bool, now: Moment) {
        self.calls.push(Recorded {
            at: now,
            service: request.service,
            action: request.action.clone(),
            parameters: request.parameters.0.clone(),
            key: request.signature.as_ref().map(|it| it.key.clone()),
            failed,
        });
    }

    /// Whether the caller is who may do this.
    fn admitted(&self, request: &Request) -> Result<(), Refused> {
        if request.action == "AssumeRoleWithWebIdentity" {
            return Ok(());
        }
        let Some(signature) = &request.signature else {
            return Err(Refused::new(403, "MissingAuthenticationToken", "Missing Authentication Token"));
        };
        if signature.service != request.service || signature.region != REGION {
            let scope = format!("{}/{}", signature.region, signature.service);
            let message = format!("Credential should be scoped to {REGION}/{}, not {scope}.", request.service);
            return Err(Refused::new(403, "SignatureDoesNotMatch", message));
        }
        if self.expired.contains(&signature.key) {
            let code = if matches!(request.service, "eks" | "sqs") { "ExpiredTokenException" } else { "ExpiredToken" };
            let code = if request.service == "ec2" { "RequestExpired" } else { code };
            return Err(Refused::new(403, code, "The security token included in the request is expired"));
        }
        if signature.key != ACCESS_KEY && !signature.key.starts_with("ASIA") {
            return Err(Refused::new(
                403,
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            ));
        }
        self.permitted(request)
    }

    fn permitted(&self, request: &Request) -> Result<(), Refused> {
        let action = format!("{}:{}", request.service, request.action);
        let group = request.parameters.0.get("AutoScalingGroupName");
        let on_group = group.map(|group| format!("{action}/{group}"));
        let denies = |denied: &String| match denied.strip_suffix('*') {
            Some(start) => action.starts_with(start),
            None => action == *denied || on_group.as_ref() == Some(denied),
        };
        if !self.denied.iter().any(denies) {
            return Ok(());
        }
        if request.service == "ec2" {
            let message = format!(
                "You are not authorized to perform this operation. User: {} is not authorized to perform: {action}",
                sts::CALLER
            );
            return Err(Refused::new(403, "UnauthorizedOperation", message));
        }
        let code = if matches!(request.service, "eks" | "sqs") { "AccessDeniedException" } else { "AccessDenied" };
        let message = format!(
            "User: {} is not authorized to perform: {action} because no identity-based policy allows the {action} action",
            sts::CALLER
        );
        Err(Refused::new(403, code, message))
    }

    fn carry_out(&mut self, request: &Request, now: Moment) -> Outcome {
        match request.service {
            "autoscaling" => autoscaling::answer(self, request, now),
            "ec2" => ec2::answer(self, request, now),
            "eks" => eks::answer(self, request),
            "sts" => sts::answer(self, request, now),
            _ => self.queue_answer(request, now),
        }
    }

    /// Lets everything happen that is due.
    pub(super) fn advance(&mut self, now: Moment) {
        let names: Vec<String> = self.groups.keys().cloned().collect();
        let mut changed = false;
        for name in names {
            changed |= self.advance_group(&name, now);
        }
        if changed {
            self.history.note(&self.groups, now);
        }
    }

    /// The id of the next instance.
    pub(super) fn instance_id(&mut self) -> String {
        format!("i-{:017x}", self.number())
    }

    /// A number that was not used before.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Writes an activity into the group's history.
    pub(super) fn note(group: &mut Asg, activity: Activity) {
        if group.activities.len() >= KEPT {
            group.activities.pop_front();
        }
        group.activities.push_back(activity);
    }
}
