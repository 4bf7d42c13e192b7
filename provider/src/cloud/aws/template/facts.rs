//! Everything that was read of launch templates, images, types and node groups, and which of it a group rests on.

use std::collections::BTreeSet;

use aws_sdk_autoscaling::types::{AutoScalingGroup, LaunchTemplateOverrides};
use serde::{Deserialize, Serialize};

use super::{Image, Recipe, Reference, kept::Kept, requirements::Requirements};
use crate::cloud::aws::{
    eks::{self, Nodegroup},
    types::{self, InstanceType},
};

/// Attributes, and the architecture of the image they are for.
pub(super) type Wanted = (Requirements, String);

/// What is known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::cloud::aws) struct Facts {
    pub(in crate::cloud::aws) templates: Kept<Reference, Recipe>,
    pub(in crate::cloud::aws) configurations: Kept<String, Recipe>,
    pub(in crate::cloud::aws) images: Kept<String, Image>,
    pub(in crate::cloud::aws) matching: Kept<Wanted, Vec<String>>,
    pub(in crate::cloud::aws) types: Kept<String, InstanceType>,
    pub(in crate::cloud::aws) nodegroups: Kept<eks::Name, Nodegroup>,
}

/// One of the ways in which a group may launch a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) template: Option<Reference>,
    pub(super) configuration: Option<String>,
    /// In place of the template's.
    instance_type: Option<String>,
    /// In place of the template's.
    requirements: Option<Requirements>,
    /// In place of the template's.
    image: Option<String>,
}

/// Every way in which `asg` may launch; one for each override of a mixed policy.
pub(super) fn ways(asg: &AutoScalingGroup) -> Vec<Way> {
    let Some(policy) = asg.mixed_instances_policy().and_then(|policy| policy.launch_template()) else {
        let template = asg.launch_template().and_then(Reference::of);
        let configuration = asg.launch_configuration_name().map(ToOwned::to_owned);
        return vec![Way { template, configuration, ..Way::default() }];
    };
    let base = Way { template: policy.launch_template_specification().and_then(Reference::of), ..Way::default() };
    let way = |over: &LaunchTemplateOverrides| Way {
        template: over.launch_template_specification().and_then(Reference::of).or_else(|| base.template.clone()),
        configuration: None,
        instance_type: over.instance_type().map(ToOwned::to_owned),
        requirements: over.instance_requirements().map(Requirements::of),
        image: over.image_id().map(ToOwned::to_owned),
    };
    let ways: Vec<Way> = policy.overrides().iter().map(way).collect();
    if ways.is_empty() { vec![base] } else { ways }
}

impl Way {
    /// What the launch template or configuration says; None before it was read.
    pub(super) fn recipe<'a>(&self, facts: &'a Facts) -> Option<&'a Recipe> {
        match (&self.template, &self.configuration) {
            (Some(template), _) => facts.templates.get(template),
            (None, Some(name)) => facts.configurations.get(name),
            (None, None) => None,
        }
    }

    /// The image, where it is named by its id.
    pub(super) fn image(&self, facts: &Facts) -> Option<String> {
        let named = self.image.as_ref().or_else(|| self.recipe(facts)?.image.as_ref());
        named.filter(|id| id.starts_with("ami-")).cloned()
    }

    /// The attributes asked for in place of a type.
    pub(super) fn wanted(&self, facts: &Facts) -> Option<Wanted> {
        if self.instance_type.is_some() {
            return None;
        }
        let requirements = self.requirements.as_ref().or_else(|| self.recipe(facts)?.requirements.as_ref())?;
        let image = self.image(facts).and_then(|id| facts.images.get(&id));
        let architecture = image.map_or("x86_64", |image| image.architecture.as_str());
        Some((requirements.clone(), architecture.to_owned()))
    }

    /// Every type that may come of it.
    pub(super) fn types(&self, facts: &Facts) -> Vec<String> {
        if let Some(wanted) = self.wanted(facts) {
            return facts.matching.get(&wanted).cloned().unwrap_or_default();
        }
        let named = self.instance_type.as_ref().or_else(|| self.recipe(facts)?.instance_type.as_ref());
        named.cloned().into_iter().collect()
    }
}

impl Facts {
    /// How often something was put: what changed it is worth keeping.
    pub(super) fn puts(&self) -> u64 {
        self.templates.puts()
            + self.configurations.puts()
            + self.images.puts()
            + self.matching.puts()
            + self.types.puts()
            + self.nodegroups.puts()
    }

    /// The type as EC2 says, or as the shipped table does.
    pub(super) fn instance_type(&self, name: &str) -> Option<InstanceType> {
        self.types.get(&name.to_owned()).cloned().or_else(|| types::shipped(name))
    }
}

/// What a listing's groups rest on.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    pub(super) ways: BTreeSet<Way>,
    pub(super) nodegroups: BTreeSet<eks::Name>,
    /// Types that are there already.
    there: BTreeSet<String>,
}

impl Needs {
    pub(super) fn of(groups: &[AutoScalingGroup]) -> Self {
        let there = groups.iter().flat_map(|group| group.instances()).filter_map(|it| it.instance_type());
        let there: BTreeSet<&str> = there.collect();
        Self {
            ways: groups.iter().flat_map(ways).collect(),
            nodegroups: groups.iter().filter_map(eks::Name::of).collect(),
            there: there.into_iter().map(ToOwned::to_owned).collect(),
        }
    }

    pub(super) fn templates(&self) -> impl Iterator<Item = Reference> {
        self.ways.iter().filter_map(|way| way.template.clone())
    }

    pub(super) fn configurations(&self) -> impl Iterator<Item = String> {
        self.ways.iter().filter_map(|way| way.configuration.clone())
    }

    pub(super) fn images(&self, facts: &Facts) -> BTreeSet<String> {
        self.ways.iter().filter_map(|way| way.image(facts)).collect()
    }

    pub(super) fn matching(&self, facts: &Facts) -> BTreeSet<Wanted> {
        self.ways.iter().filter_map(|way| way.wanted(facts)).collect()
    }

    pub(super) fn types(&self, facts: &Facts) -> BTreeSet<String> {
        let launched = self.ways.iter().flat_map(|way| way.types(facts));
        launched.chain(self.there.iter().cloned()).collect()
    }
}
