//! The tags by which cluster-autoscaler's users describe a machine that does not exist yet
//! (`k8s.io/cluster-autoscaler/node-template/…`): labels, taints, resources, options. Nothing has to be re-tagged.

use std::collections::BTreeMap;

use windlass_proto::quantity;

use crate::fleet::group::{Overrides, Shape, Taint, seconds};

const TEMPLATE: &str = "k8s.io/cluster-autoscaler/node-template/";

/// What a group's tags say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Described {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) taints: Vec<Taint>,
    pub(super) resources: BTreeMap<String, String>,
    pub(super) overrides: Overrides,
    /// A tag that could not be read, and what would be right: it costs that tag, not the group.
    pub(super) warnings: Vec<String>,
}

/// Reads every `node-template` tag.
pub(super) fn describe<'a>(tags: impl Iterator<Item = (&'a str, &'a str)>) -> Described {
    let mut described = Described::default();
    let mut tags: Vec<_> = tags.filter_map(|(key, value)| Some((key.strip_prefix(TEMPLATE)?, value))).collect();
    tags.sort_unstable();
    for (key, value) in tags {
        if let Err(remedy) = described.read(key, value) {
            described.warnings.push(format!("tag {TEMPLATE}{key}={value}: {remedy}"));
        }
    }
    described
}

impl Described {
    /// With `over` over it.
    pub(super) fn under(mut self, over: Self) -> Self {
        self.labels.extend(over.labels);
        self.resources.extend(over.resources);
        let replaced =
            |taint: &Taint| over.taints.iter().any(|it| (&it.key, &it.effect) == (&taint.key, &taint.effect));
        self.taints.retain(|taint| !replaced(taint));
        self.taints.extend(over.taints);
        self.overrides = over.overrides.over(&self.overrides);
        self.warnings.extend(over.warnings);
        self
    }

    fn read(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key.split_once('/') {
            Some(("label", name)) => {
                self.labels.insert(name.to_owned(), value.to_owned());
            }
            Some(("taint", name)) => self.taints.push(taint(name, value)?),
            Some(("resources", name)) => {
                quantity::value(value).map_err(|error| error.to_string())?;
                self.resources.insert(name.to_owned(), value.to_owned());
            }
            Some(("autoscaling-options", name)) => option(&mut self.overrides, name, value)?,
            _ => return Err("only label/, taint/, resources/ and autoscaling-options/ are known here".to_owned()),
        }
        Ok(())
    }

    /// Puts what the tags say of resources over what the instance type says.
    pub(super) fn reshape(&self, shape: &mut Shape) {
        shape.overlay(&self.resources);
    }
}

fn taint(key: &str, value: &str) -> Result<Taint, String> {
    let remedy =
        || "write value:Effect with NoSchedule, PreferNoSchedule or NoExecute, e.g. present:NoSchedule".to_owned();
    let (value, effect) = value.rsplit_once(':').ok_or_else(remedy)?;
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(remedy());
    }
    Ok(Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
}

fn option(overrides: &mut Overrides, name: &str, value: &str) -> Result<(), String> {
    let share = || match value.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(Some(share)),
        _ => Err("write a share between 0 and 1, e.g. 0.5".to_owned()),
    };
    let span = || seconds::parse(value).map(Some);
    // As Go's strconv.ParseBool has it, with which the in-tree provider reads these tags.
    let switch = || match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
        _ => Err("write true or false".to_owned()),
    };
    match name {
        "scaledownutilizationthreshold" => overrides.scale_down_utilization_threshold = share()?,
        "scaledowngpuutilizationthreshold" => overrides.scale_down_gpu_utilization_threshold = share()?,
        "scaledownunneededtime" => overrides.scale_down_unneeded_time = span()?,
        "scaledownunreadytime" => overrides.scale_down_unready_time = span()?,
        "maxnodeprovisiontime" => overrides.max_node_provision_time = span()?,
        "ignoredaemonsetsutilization" => overrides.ignore_daemon_sets_utilization = switch()?,
        _ => return Err("this option is not known".to_owned()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(tags: &[(&str, &str)]) -> Described {
        let tags: Vec<_> = tags.iter().map(|(key, value)| (format!("{TEMPLATE}{key}"), *value)).collect();
        describe(tags.iter().map(|(key, value)| (key.as_str(), *value)))
    }

    #[test]
    fn labels_taints_and_options_are_read_as_the_in_tree_provider_reads_them() {
        let described = read(&[
            ("label/team", "vision"),
            ("taint/nvidia.com/gpu", "present:NoSchedule"),
            ("taint/empty", ":NoExecute"),
            ("autoscaling-options/scaledownunneededtime", "5m"),
            ("autoscaling-options/scaledownunreadytime", "1h30m0s"),
            ("autoscaling-options/maxnodeprovisiontime", "90s"),
            ("autoscaling-options/ignoredaemonsetsutilization", "True"),
        ]);
        assert_eq!(described.labels["team"], "vision");
        let taints: Vec<_> =
            described.taints.iter().map(|t| (t.key.as_str(), t.value.as_str(), t.effect.as_str())).collect();
        assert_eq!(taints, [("empty", "", "NoExecute"), ("nvidia.com/gpu", "present", "NoSchedule")]);
        assert_eq!(described.overrides.scale_down_unneeded_time, Some(Duration::from_mins(5)));
        assert_eq!(described.overrides.scale_down_unready_time, Some(Duration::from_mins(90)));
        assert_eq!(described.overrides.max_node_provision_time, Some(Duration::from_secs(90)));
        assert_eq!(described.overrides.ignore_daemon_sets_utilization, Some(true));
        assert_eq!(described.warnings, [""; 0]);
    }

    #[test]
    fn a_tag_that_cannot_be_read_costs_that_tag_and_says_what_would_be_right() {
        let described = read(&[
            ("taint/gpu", "NoSchedule"),
            ("resources/memory", "many"),
            ("autoscaling-options/scaledownutilizationthreshold", "50"),
            ("autoscaling-options/zap", "1"),
            ("label/ok", "1"),
        ]);
        assert_eq!(described.labels.len(), 1);
        assert_eq!(described.warnings.len(), 4);
        assert!(described.warnings.iter().any(|it| it.contains("e.g. present:NoSchedule")), "{:?}", described.warnings);
        assert!(described.warnings.iter().any(|it| it.contains("between 0 and 1")), "{:?}", described.warnings);
    }

    #[test]
    fn resources_go_over_the_instance_type() {
        let described =
            read(&[("resources/nvidia.com/gpu", "4"), ("resources/cpu", "3500m"), ("resources/pods", "58")]);
        let mut shape = super::super::types::unknown("g5.xlarge");
        described.reshape(&mut shape);
        assert_eq!((shape.gpus.unwrap().count, shape.cpu_milli, shape.pods), (4, 3500, 58));
    }
}
