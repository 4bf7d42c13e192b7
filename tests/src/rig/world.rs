//! The machines of a scenario: what the cloud is told, and the Node that such a machine's kubelet registers.
//! The Node is made from this and never from the provider's template, so that the two can be compared.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use crate::aws;

/// The label that carries the GPU's model.
pub const GPU_LABEL: &str = "windlass.test/accelerator";
/// The extended resource of a GPU.
pub const GPU: &str = "nvidia.com/gpu";
/// The embedded cloud's one region.
const REGION: &str = "rig";
/// Its one zone, so that a template has no choice.
const ZONE: &str = "rig-a";
/// The zones of AWS, of which a scenario has as many as it says.
const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// Which cloud the provider scales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum On {
    /// The embedded one.
    #[default]
    Sim,
    /// AWS, faked.
    Aws(Buying),
}

/// How machines are asked for on AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buying {
    /// `LaunchInstances`, zone by zone.
    LaunchInstances,
    /// `SetDesiredCapacity`, and what the group makes of it.
    DesiredCapacity,
}

/// What happens to a group, from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has nothing to give for so long.
    SoldOut {
        /// Which.
        group: &'static str,
        /// How long.
        lasts: Duration,
    },
    /// It has so many machines left and gets no more.
    Left {
        /// Which.
        group: &'static str,
        /// How many.
        machines: u32,
    },
}

/// One kind of machine in one group.
#[derive(Clone, Debug)]
pub struct MachineGroup {
    /// The group's id.
    pub id: &'static str,
    /// Most machines.
    pub max: u32,
    /// `node.kubernetes.io/instance-type`.
    pub instance_type: &'static str,
    /// `spot` or `on-demand`.
    pub market: &'static str,
    /// US dollars an hour.
    pub price: f64,
    /// GPUs of a machine; they are all of the same model.
    pub gpus: u32,
    /// `options` of the group in the scenario: what it says differently from CA's flags.
    pub options: Value,
}

/// Everything there is in a scenario.
#[derive(Clone, Debug)]
pub struct World {
    /// Where.
    pub on: On,
    /// How many zones each group has on AWS, up to three.
    pub zones: usize,
    /// Whether AWS's warnings come through a queue.
    pub queue: bool,
    /// The groups, in the order of their price.
    pub groups: Vec<MachineGroup>,
    /// What happens.
    pub events: Vec<Event>,
}

impl Default for World {
    /// Two GPU groups that differ in price and market, and one without GPUs.
    fn default() -> Self {
        let group = |id, instance_type, market, price, gpus| MachineGroup {
            id,
            max: 3,
            instance_type,
            market,
            price,
            gpus,
            options: Value::Null,
        };
        Self {
            on: On::Sim,
            zones: 1,
            queue: false,
            groups: vec![
                group("cpu", "c5.xlarge", "on-demand", 0.2, 0),
                group("spot-a10g", "g5.xlarge", "spot", 0.4, 1),
                group("od-a10g", "g5.xlarge", "on-demand", 1.0, 1),
            ],
            events: Vec::new(),
        }
    }
}

impl World {
    /// The group of this id.
    #[must_use]
    pub fn group(&self, id: &str) -> Option<&MachineGroup> {
        self.groups.iter().find(|group| group.id == id)
    }

    /// The group of this id, to be changed.
    pub fn group_mut(&mut self, id: &str) -> Option<&mut MachineGroup> {
        self.groups.iter_mut().find(|group| group.id == id)
    }

    /// Adds an event.
    #[must_use]
    pub fn with_event(mut self, event: Event) -> Self {
        self.events.push(event);
        self
    }

    /// The zones of every group.
    #[must_use]
    pub fn zones(&self) -> Vec<&'static str> {
        match self.on {
            On::Sim => vec![ZONE],
            On::Aws(_) => ZONES.into_iter().take(self.zones).collect(),
        }
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &'static str {
        if self.on == On::Sim { REGION } else { aws::REGION }
    }

    /// The scenario file of the embedded cloud; JSON is YAML.
    #[must_use]
    pub fn scenario(&self) -> Value {
        let groups: Vec<Value> = self.groups.iter().map(MachineGroup::scenario).collect();
        let events: Vec<Value> = self.events.iter().map(Event::scenario).collect();
        json!({"seed": 1, "gpuLabel": GPU_LABEL, "groups": groups, "events": events})
    }
}

impl Event {
    fn scenario(&self) -> Value {
        match self {
            Self::SoldOut { group, lasts } => {
                json!({"at": "0s", "for": format!("{}s", lasts.as_secs()), "group": group, "stockOut": true})
            }
            Self::Left { group, machines } => json!({"at": "0s", "group": group, "capacity": {ZONE: machines}}),
        }
    }
}

impl MachineGroup {
    fn scenario(&self) -> Value {
        let mut group = json!({
            "id": self.id, "min": 0, "max": self.max, "instanceType": self.instance_type, "market": self.market,
            "region": REGION, "zones": [ZONE], "price": self.price, "cpu": "4", "memory": "16Gi",
            "ephemeralStorage": "100Gi", "pods": 110, "bootTime": "1s", "deviceDelay": "0s",
            "labels": {"rig/group": self.id},
        });
        if self.gpus > 0 {
            group["gpu"] = json!({"model": "nvidia-a10g", "count": self.gpus, "memory": "24Gi"});
            group["taints"] = json!([{"key": GPU, "value": "present", "effect": "NoSchedule"}]);
        }
        if !self.options.is_null() {
            group["options"] = self.options.clone();
        }
        group
    }

    /// The labels that a kubelet, its flags and its cloud give the Node of a machine.
    #[must_use]
    pub fn labels(&self, node: &str, zone: &str, region: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from(
            [
                ("kubernetes.io/arch", "amd64"),
                ("kubernetes.io/os", "linux"),
                ("kubernetes.io/hostname", node),
                ("node.kubernetes.io/instance-type", self.instance_type),
                ("topology.kubernetes.io/region", region),
                ("topology.kubernetes.io/zone", zone),
                // As a managed node group labels its machines, and the embedded cloud with it.
                ("eks.amazonaws.com/capacityType", if self.market == "spot" { "SPOT" } else { "ON_DEMAND" }),
                ("rig/group", self.id),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        if self.gpus > 0 {
            labels.insert(GPU_LABEL.to_owned(), "nvidia-a10g".to_owned());
        }
        labels
    }

    /// The taints that the kubelet registers with.
    #[must_use]
    pub fn taints(&self) -> Value {
        if self.gpus > 0 { json!([{"key": GPU, "value": "present", "effect": "NoSchedule"}]) } else { json!([]) }
    }

    /// Capacity, or allocatable; with the GPUs once the device plugin has spoken.
    #[must_use]
    pub fn resources(&self, with_gpus: bool) -> Value {
        let mut resources: Map<String, Value> =
            [("cpu", "4"), ("memory", "16Gi"), ("ephemeral-storage", "100Gi"), ("pods", "110")]
                .map(|(name, amount)| (name.to_owned(), json!(amount)))
                .into_iter()
                .collect();
        if with_gpus && self.gpus > 0 {
            resources.insert(GPU.to_owned(), json!(self.gpus.to_string()));
        }
        Value::Object(resources)
    }
}
