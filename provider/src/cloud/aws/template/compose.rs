//! From what a group may launch to the one machine that CA is shown: the least of everything that may come, and a word
//! about every guess.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::types::AutoScalingGroup;

use super::{
    Facts, Recipe,
    facts::{Way, ways},
};
use crate::{
    cloud::aws::{
        allocatable::{self, Family, Host},
        eks::{self, Nodegroup},
        types::InstanceType,
    },
    fleet::group::{Market, Shape, Taint},
};

/// Shapes that a warning names; more are counted.
const NAMED: usize = 6;
/// The device of pods' data on Bottlerocket.
const BOTTLEROCKET_DATA: &str = "/dev/xvdb";
/// Root devices of the images of EKS and of Ubuntu.
const ROOTS: [&str; 2] = ["/dev/xvda", "/dev/sda1"];

/// A machine to come.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cloud::aws) struct Machine {
    /// None when nothing is known of any type.
    pub(in crate::cloud::aws) shape: Option<Shape>,
    pub(in crate::cloud::aws) market: Option<Market>,
    pub(in crate::cloud::aws) labels: BTreeMap<String, String>,
    pub(in crate::cloud::aws) taints: Vec<Taint>,
    /// Tags of the managed node group.
    pub(in crate::cloud::aws) tags: BTreeMap<String, String>,
    pub(in crate::cloud::aws) warnings: Vec<String>,
    /// What EKS puts on its nodes is not known yet: nothing may be promised of it, or pods would buy machines whose
    /// taints they do not tolerate.
    pub(in crate::cloud::aws) unread: bool,
}

/// The machine that `asg` would launch, its tags aside. `told` is the type that a tag tells, for want of another.
pub(in crate::cloud::aws) fn machine(
    asg: &AutoScalingGroup,
    facts: &Facts,
    told: Option<&str>,
    prefixes: bool,
) -> Machine {
    let mut machine = Machine::default();
    let nodegroup = machine.take_nodegroup(asg, facts);
    let ways = ways(asg);
    for way in &ways {
        machine.take_way(way, facts);
    }
    let windows = |way: &Way| facts.images.get(&way.image(facts)?).map(|image| image.family == Family::Windows);
    // EKS chooses the image of a managed node group, whatever stands in its launch template.
    let chosen = nodegroup.as_ref().is_some_and(|it| !it.custom);
    if !chosen && ways.iter().any(|way| windows(way) == Some(true)) {
        machine.labels.insert("kubernetes.io/os".to_owned(), "windows".to_owned());
    }
    let mut types: Vec<(String, &Way)> =
        ways.iter().flat_map(|way| way.types(facts).into_iter().map(move |name| (name, way))).collect();
    if types.is_empty() {
        let there = asg.instances().iter().find_map(|it| it.instance_type());
        types.extend(told.or(there).map(ToOwned::to_owned).zip(ways.first()));
    }
    let mut shapes = Vec::new();
    for (name, way) in types {
        match facts.instance_type(&name) {
            Some(of) => shapes.push(shape(&of, way, facts, (nodegroup.as_ref(), prefixes))),
            None => machine.warn(format!("instance type {name} is not known{}", because(facts.types.failure(&name)))),
        }
    }
    shapes.dedup();
    machine.several(&shapes);
    machine.shape = shapes.into_iter().reduce(least);
    machine
}

impl Machine {
    fn warn(&mut self, text: String) {
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    fn take_nodegroup(&mut self, asg: &AutoScalingGroup, facts: &Facts) -> Option<Nodegroup> {
        let name = eks::Name::of(asg)?;
        if let Some(failure) = facts.nodegroups.failure(&name) {
            self.warn(format!("its EKS node group {} could not be read: {failure}", name.nodegroup));
        }
        let known = facts.nodegroups.get(&name).cloned();
        self.unread = known.is_none();
        if self.unread {
            self.warn(format!(
                "its EKS node group {} has not been read yet: nothing is bought for it until then",
                name.nodegroup
            ));
        }
        let nodegroup = known.unwrap_or_else(|| eks::unread(&name));
        self.labels.extend(nodegroup.labels.clone());
        self.taints.extend(nodegroup.taints.iter().cloned());
        self.tags.extend(nodegroup.tags.clone());
        nodegroup.issues.iter().for_each(|issue| self.warn(format!("EKS says of its node group {issue}")));
        Some(nodegroup)
    }

    fn take_way(&mut self, way: &Way, facts: &Facts) {
        if let Some(template) = &way.template {
            let failure = facts.templates.failure(template);
            self.unread("launch template", template, way.recipe(facts), failure);
        } else if let Some(name) = &way.configuration {
            let failure = facts.configurations.failure(name);
            self.unread("launch configuration", name, way.recipe(facts), failure);
        }
        if let Some(failure) =
            way.wanted(facts).and_then(|wanted| facts.matching.failure(&wanted).map(ToOwned::to_owned))
        {
            self.warn(format!("the types with its attributes could not be asked for: {failure}"));
        }
        let Some(Recipe { market, user_data, .. }) = way.recipe(facts) else { return };
        self.market = self.market.or(*market);
        for (key, value) in &user_data.labels {
            self.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let new = user_data.taints.iter().filter(|taint| !self.taints.contains(taint)).cloned();
        self.taints.extend(new.collect::<Vec<_>>());
    }

    fn unread(&mut self, kind: &str, name: &impl std::fmt::Display, recipe: Option<&Recipe>, failure: Option<&str>) {
        match (recipe, failure) {
            (Some(_), None) => {}
            (Some(_), Some(why)) => {
                self.warn(format!("its {kind} {name} can no longer be read, what it said before stands: {why}"));
            }
            (None, Some(why)) => self.warn(format!("its {kind} {name} could not be read: {why}")),
            (None, None) => self.warn(format!("its {kind} {name} has not been read yet")),
        }
    }

    fn several(&mut self, shapes: &[Shape]) {
        let alike = |a: &Shape, b: &Shape| Shape { instance_type: b.instance_type.clone(), ..a.clone() } == *b;
        if shapes.windows(2).all(|pair| matches!(pair, [a, b] if alike(a, b))) {
            return;
        }
        let mut named: Vec<String> = shapes.iter().take(NAMED).map(words).collect();
        if shapes.len() > NAMED {
            named.push(format!("and {} more", shapes.len() - NAMED));
        }
        self.warn(format!(
            "its machines differ, and the autoscaler plans with the least of them: {}; one shape for each group is best",
            named.join(", ")
        ));
    }
}

fn because(failure: Option<&str>) -> String {
    failure.map(|why| format!(": {why}")).unwrap_or_default()
}

fn words(shape: &Shape) -> String {
    let gpus = shape.gpus.as_ref().map(|gpus| format!(", {} {}", gpus.count, gpus.model)).unwrap_or_default();
    format!("{} ({} CPUs, {} GiB{gpus})", shape.instance_type, shape.cpu_milli / 1000, shape.memory >> 30)
}

fn shape(of: &InstanceType, way: &Way, facts: &Facts, group: (Option<&Nodegroup>, bool)) -> Shape {
    let (nodegroup, prefixes) = group;
    let none = Recipe::default();
    let recipe = way.recipe(facts).unwrap_or(&none);
    let image = way.image(facts).and_then(|id| facts.images.get(&id));
    let chosen = nodegroup.filter(|it| !it.custom).map(|it| it.family);
    let family = chosen.or(recipe.user_data.family).or(image.map(|it| it.family)).unwrap_or_default();
    let roots = image.map(|it| it.root_device.as_str()).into_iter().chain(ROOTS);
    let device = |volumes: &[(String, u64)]| match family {
        Family::Bottlerocket => sized(volumes, [BOTTLEROCKET_DATA].into_iter()),
        Family::AmazonLinux | Family::Windows => sized(volumes, roots.clone()),
    };
    let only = || match recipe.volumes.as_slice() {
        [(_, size)] if family != Family::Bottlerocket => Some(*size),
        _ => None,
    };
    let host = Host {
        family,
        max_pods: recipe.user_data.max_pods,
        prefixes,
        managed: nodegroup.is_some_and(|it| !it.custom),
        volume: device(&recipe.volumes).or_else(only).or_else(|| nodegroup?.disk).or_else(|| device(&image?.volumes)),
        on_local_disks: recipe.user_data.on_local_disks,
    };
    allocatable::shape(of, &host)
}

fn sized<'a>(volumes: &[(String, u64)], mut devices: impl Iterator<Item = &'a str>) -> Option<u64> {
    devices.find_map(|device| volumes.iter().find(|(name, _)| name == device).map(|(_, size)| *size))
}

/// A shape that both can keep: a pod that fits it fits either. Named after the one with less CPU and memory.
fn least(a: Shape, b: Shape) -> Shape {
    let left = |shape: &Shape| (shape.cpu_milli, shape.memory);
    let (small, large) = if left(&b) < left(&a) { (b, a) } else { (a, b) };
    let (cpu_milli, memory) = (small.cpu_milli.min(large.cpu_milli), small.memory.min(large.memory));
    let storage = small.ephemeral_storage.min(large.ephemeral_storage);
    let room = |whole: u64, held: u64| whole.saturating_sub(held);
    let held = |least: u64, a: u64, b: u64| least.saturating_sub(a.min(b));
    let gpus = match (small.gpus.clone(), large.gpus.clone()) {
        (Some(a), Some(b)) if a.resource == b.resource => {
            let (count, memory_mib) = (a.count.min(b.count), a.memory_mib.min(b.memory_mib));
            Some(crate::fleet::group::Gpus { count, memory_mib, ..a })
        }
        _ => None,
    };
    let both = |(name, count): (&String, &u64)| Some((name.clone(), *large.extended.get(name)?.min(count)));
    Shape {
        instance_type: small.instance_type.clone(),
        arch: small.arch.clone(),
        cpu_milli,
        memory,
        ephemeral_storage: storage,
        pods: small.pods.min(large.pods),
        reserved_cpu_milli: held(
            cpu_milli,
            room(small.cpu_milli, small.reserved_cpu_milli),
            room(large.cpu_milli, large.reserved_cpu_milli),
        ),
        reserved_memory: held(
            memory,
            room(small.memory, small.reserved_memory),
            room(large.memory, large.reserved_memory),
        ),
        reserved_ephemeral_storage: held(
            storage,
            room(small.ephemeral_storage, small.reserved_ephemeral_storage),
            room(large.ephemeral_storage, large.reserved_ephemeral_storage),
        ),
        gpus,
        extended: small.extended.iter().filter_map(both).collect(),
    }
}
