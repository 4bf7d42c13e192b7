//! Launch templates and their versions, and what a group would launch: types and market, from the words that describe
//! it.

use serde_json::{Value, json};

use super::{
    Account, Asg,
    machine::{Market, Offer},
    moment::Moment,
    types::Requirements,
};

/// A launch template: its versions, the first is number 1.
#[derive(Clone, Debug)]
pub(super) struct LaunchTemplate {
    pub(super) id: String,
    pub(super) versions: Vec<Value>,
    /// The number of the default version.
    pub(super) default: usize,
}

impl LaunchTemplate {
    /// The version of this name, `$Latest`, `$Default` or a number, with its number.
    pub(super) fn version(&self, name: &str) -> Option<(usize, &Value)> {
        let number = match name {
            "$Latest" => self.versions.len(),
            "$Default" | "" => self.default,
            number => number.parse().ok()?,
        };
        Some((number, self.versions.get(number.checked_sub(1)?)?))
    }
}

impl Account {
    /// Makes a launch template, or its next version; the first version stays the default. `data` is
    /// `LaunchTemplateData` in EC2's own words as it describes it: `instanceType`, `imageId`, `blockDeviceMapping`, …
    pub fn launch_template(&mut self, name: &str, data: Value) {
        let fresh = || LaunchTemplate { id: format!("lt-0{name}"), versions: Vec::new(), default: 1 };
        self.templates.entry(name.to_owned()).or_insert_with(fresh).versions.push(data);
    }

    /// Takes a launch template away.
    pub fn remove_launch_template(&mut self, name: &str) {
        self.templates.remove(name);
    }

    /// Makes a version of a launch template the default.
    pub fn default_version(&mut self, name: &str, version: usize) {
        if let Some(template) = self.templates.get_mut(name) {
            template.default = version;
        }
    }

    pub(super) fn template(&self, id_or_name: &str) -> Option<(&String, &LaunchTemplate)> {
        self.templates.iter().find(|(name, template)| *name == id_or_name || template.id == id_or_name)
    }

    /// What the group would launch in this zone, in the order in which it tries.
    pub(super) fn offers(&self, group: &Asg, zone: &str, now: Moment) -> Vec<Offer> {
        let policy = group.description.get("MixedInstancesPolicy");
        let specification = policy
            .map(|policy| &policy["LaunchTemplate"]["LaunchTemplateSpecification"])
            .or(group.description.get("LaunchTemplate"));
        let data = specification.and_then(|it| self.template_data(it));
        let market = match policy {
            Some(policy) => mixed_market(&policy["InstancesDistribution"], group, now),
            None => self.plain_market(group, data),
        };
        let mut types = policy.map_or_else(Vec::new, |policy| self.overrides(&policy["LaunchTemplate"]["Overrides"]));
        if types.is_empty() {
            types = self.plain_types(group, data);
        }
        let offer = |instance_type| Offer { zone: zone.to_owned(), instance_type, market };
        types.into_iter().map(offer).collect()
    }

    fn template_data(&self, specification: &Value) -> Option<&Value> {
        let of = |key: &str| specification[key].as_str();
        let template = of("LaunchTemplateName").or(of("LaunchTemplateId"))?;
        Some(self.template(template)?.1.version(of("Version").unwrap_or_default())?.1)
    }

    fn overrides(&self, overrides: &Value) -> Vec<String> {
        let types = |it: &Value| match it["InstanceType"].as_str() {
            Some(name) => vec![name.to_owned()],
            None => Requirements::of_value(&it["InstanceRequirements"]).matching(&self.types),
        };
        overrides.as_array().into_iter().flatten().flat_map(types).collect()
    }

    fn plain_types(&self, group: &Asg, data: Option<&Value>) -> Vec<String> {
        if let Some(requirements) = data.and_then(|data| data.get("instanceRequirements")) {
            return Requirements::of_value(requirements).matching(&self.types);
        }
        let configuration = || self.launch_configuration_of(group).and_then(|it| it["InstanceType"].as_str());
        let named = data.and_then(|data| data["instanceType"].as_str()).or_else(configuration);
        named.map(str::to_owned).into_iter().collect()
    }

    fn plain_market(&self, group: &Asg, data: Option<&Value>) -> Market {
        let asked = data.is_some_and(|data| data["instanceMarketOptions"]["marketType"] == "spot");
        let priced = self.launch_configuration_of(group).is_some_and(|it| !it["SpotPrice"].is_null());
        if asked || priced { Market::Spot } else { Market::OnDemand }
    }

    fn launch_configuration_of(&self, group: &Asg) -> Option<&Value> {
        self.launch_configurations.get(group.description.get("LaunchConfigurationName")?.as_str()?)
    }

    /// Whether every machine of the group comes from one market, as `LaunchInstances` wants it.
    pub(super) fn one_market(group: &Asg) -> bool {
        let Some(policy) = group.description.get("MixedInstancesPolicy") else { return true };
        let (base, share) = split(&policy["InstancesDistribution"]);
        share == 100 || (base == 0 && share == 0)
    }
}

/// Machines that are always on-demand, and the share of the rest in per cent.
fn split(distribution: &Value) -> (u64, u64) {
    let number = |key: &str, absent: u64| distribution[key].as_u64().unwrap_or(absent);
    (number("OnDemandBaseCapacity", 0), number("OnDemandPercentageAboveBaseCapacity", 100))
}

/// The market of the group's next machine.
fn mixed_market(distribution: &Value, group: &Asg, now: Moment) -> Market {
    let (base, share) = split(distribution);
    let on_demand = group.machines.values().filter(|it| it.counts(now) && it.market == Market::OnDemand).count();
    let next = u64::from(group.counted(now)) + 1;
    let wanted = base.min(next) + (next.saturating_sub(base) * share).div_ceil(100);
    if u64::try_from(on_demand).unwrap_or(u64::MAX) < wanted { Market::OnDemand } else { Market::Spot }
}

/// A version as `DescribeLaunchTemplateVersions` has it.
pub(super) fn described(name: &str, template: &LaunchTemplate, number: usize, data: &Value) -> Value {
    json!({
        "launchTemplateId": template.id, "launchTemplateName": name, "versionNumber": number,
        "createTime": "2026-01-01T00:00:00.000Z", "defaultVersion": number == template.default,
        "launchTemplateData": data,
    })
}
