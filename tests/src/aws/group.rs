//! An Auto Scaling group: its bounds, its zones, its machines and its history. What a launch would start is read from
//! the very words in which AWS describes the group, so that a test says it once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::{
    TAGS,
    activities::Activity,
    machine::{Machine, millis},
    moment::Moment,
};

/// How fast a group acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From a new desired capacity to the first attempt to meet it.
    pub react: Duration,
    /// From an attempt that failed to the next.
    pub retry: Duration,
    /// How long an instance is `Pending`.
    pub pending: Duration,
    /// From the end to the last listing.
    pub shutdown: Duration,
    /// From a host's sudden end to the moment the group knows.
    pub health_check: Duration,
}

impl Default for Pace {
    /// Fast, but never at once.
    fn default() -> Self {
        Self {
            react: Duration::from_millis(100),
            retry: Duration::from_secs(5),
            pending: Duration::from_millis(500),
            shutdown: Duration::from_millis(500),
            health_check: Duration::from_secs(2),
        }
    }
}

/// A lifecycle hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// `autoscaling:EC2_INSTANCE_LAUNCHING`, else `autoscaling:EC2_INSTANCE_TERMINATING`.
    pub launching: bool,
    /// How long it holds an instance, unless it is completed before.
    pub holds: Duration,
}

/// A warm pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmPool {
    /// Instances it keeps at least.
    pub min: u32,
    /// `Stopped`, `Running` or `Hibernated`.
    pub state: &'static str,
}

/// An Auto Scaling group.
#[derive(Clone, Debug)]
pub struct Asg {
    /// `MinSize`.
    pub min: u32,
    /// `MaxSize`.
    pub max: u32,
    /// `DesiredCapacity`.
    pub desired: u32,
    /// Its Availability Zones; each has one subnet, `subnet-<zone>`.
    pub zones: Vec<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What else the API says of it, in the API's own words: `LaunchTemplate`, `MixedInstancesPolicy`, `Status`, …
    pub description: Map<String, Value>,
    /// Processes that are suspended, as `AZRebalance`.
    pub suspended: BTreeSet<String>,
    /// Lifecycle hooks.
    pub hooks: Vec<Hook>,
    /// Its warm pool.
    pub warm_pool: Option<WarmPool>,
    /// How fast it acts.
    pub pace: Pace,
    /// Its instances by id, those that are gone not yet forgotten.
    pub machines: BTreeMap<String, Machine>,
    /// The instances of its warm pool.
    pub warm: BTreeMap<String, Machine>,
    /// Its scaling activities, the oldest first.
    pub activities: VecDeque<Activity>,
    /// When it next tries to meet its desired capacity.
    pub(super) acts_at: Moment,
    /// When it last did what was due; 0 before the first time.
    pub(super) looked_at: Moment,
}

impl Asg {
    /// A group in these zones, of at most ten machines and now of none, from the launch template `lt-default`.
    #[must_use]
    pub fn new(zones: &[&str]) -> Self {
        let asg = Self {
            min: 0,
            max: 10,
            desired: 0,
            zones: zones.iter().map(ToString::to_string).collect(),
            tags: BTreeMap::new(),
            description: Map::new(),
            suspended: BTreeSet::new(),
            hooks: Vec::new(),
            warm_pool: None,
            pace: Pace::default(),
            machines: BTreeMap::new(),
            warm: BTreeMap::new(),
            activities: VecDeque::new(),
            acts_at: 0,
            looked_at: 0,
        };
        asg.launch_template("lt-default", "$Default")
    }

    /// Between these sizes.
    #[must_use]
    pub fn between(mut self, min: u32, max: u32) -> Self {
        (self.min, self.max) = (min, max);
        self
    }

    /// With a desired capacity; its machines are there from the start.
    #[must_use]
    pub fn desired(mut self, desired: u32) -> Self {
        self.desired = desired;
        self
    }

    /// With a tag.
    #[must_use]
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With a tag below `k8s.io/cluster-autoscaler/node-template/`.
    #[must_use]
    pub fn node_template(self, key: &str, value: &str) -> Self {
        self.tag(&format!("{TAGS}/node-template/{key}"), value)
    }

    /// With the two tags by which a cluster's groups are found.
    #[must_use]
    pub fn of_cluster(self, name: &str) -> Self {
        self.tag(&format!("{TAGS}/enabled"), "").tag(&format!("{TAGS}/{name}"), "owned")
    }

    /// With one more of the API's own words about it; null takes one away.
    #[must_use]
    pub fn says(mut self, name: &str, value: Value) -> Self {
        self.description.insert(name.to_owned(), value);
        self.description.retain(|_, value| !value.is_null());
        self
    }

    /// From this launch template instead.
    #[must_use]
    pub fn launch_template(self, name: &str, version: &str) -> Self {
        self.says("LaunchTemplate", template(name, version))
    }

    /// From a mixed policy over the launch template `lt-default` with these types; all spot, or all on-demand.
    #[must_use]
    pub fn mixed(self, types: &[&str], spot: bool) -> Self {
        let overrides: Vec<Value> = types.iter().map(|name| json!({"InstanceType": name})).collect();
        let policy = json!({
            "LaunchTemplate": {"LaunchTemplateSpecification": template("lt-default", "$Default"), "Overrides": overrides},
            "InstancesDistribution": {
                "OnDemandBaseCapacity": 0, "OnDemandPercentageAboveBaseCapacity": if spot { 0 } else { 100 },
                "OnDemandAllocationStrategy": "prioritized", "SpotAllocationStrategy": "price-capacity-optimized",
            },
        });
        self.says("LaunchTemplate", Value::Null).says("MixedInstancesPolicy", policy)
    }

    /// From this launch configuration instead.
    #[must_use]
    pub fn launch_configuration(self, name: &str) -> Self {
        self.says("LaunchTemplate", Value::Null).says("LaunchConfigurationName", json!(name))
    }

    /// At this pace.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// With a lifecycle hook.
    #[must_use]
    pub fn hook(mut self, hook: Hook) -> Self {
        self.hooks.push(hook);
        self
    }

    /// With a warm pool.
    #[must_use]
    pub fn warm_pool(mut self, pool: WarmPool) -> Self {
        self.warm_pool = Some(pool);
        self
    }

    /// With this process suspended.
    #[must_use]
    pub fn suspend(mut self, process: &str) -> Self {
        self.suspended.insert(process.to_owned());
        self
    }

    /// How long hooks of this kind hold an instance, together.
    pub(super) fn held(&self, launching: bool) -> Option<Duration> {
        let held = self.hooks.iter().filter(|hook| hook.launching == launching).map(|hook| hook.holds);
        held.reduce(|one, other| one + other)
    }

    /// Machines that count towards the desired capacity.
    pub(super) fn counted(&self, now: Moment) -> u32 {
        let count = self.machines.values().filter(|machine| machine.counts(now)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// A new desired capacity, to be met after the group's own time.
    pub(super) fn want(&mut self, desired: u32, now: Moment) {
        self.desired = desired;
        self.acts_at = now + millis(self.pace.react);
    }

    /// Zones by how few machines they have, as the group fills them.
    pub(super) fn balanced(&self, now: Moment) -> Vec<String> {
        let mut zones = self.zones.clone();
        zones.sort_by_key(|zone| self.machines.values().filter(|it| it.zone == **zone && it.counts(now)).count());
        zones
    }
}

fn template(name: &str, version: &str) -> Value {
    json!({"LaunchTemplateId": format!("lt-0{name}"), "LaunchTemplateName": name, "Version": version})
}
