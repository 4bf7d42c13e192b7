//! Attribute-based instance selection: what Auto Scaling and launch templates say of it, as parameters of
//! `GetInstanceTypesFromInstanceRequirements`.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::types as autoscaling;
use serde::{Deserialize, Serialize};

use crate::cloud::aws::{
    ec2::{Page, Params},
    types::Items,
};

/// Attributes, under the names that EC2 takes them by.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(in crate::cloud::aws) struct Requirements(BTreeMap<String, String>);

impl Requirements {
    /// As a call for images of that architecture.
    pub(super) fn params(&self, architecture: &str) -> Params {
        let params = Params::default().list("ArchitectureType", [architecture]).list("VirtualizationType", ["hvm"]);
        self.0.iter().fold(params, |params, (name, value)| params.with(&format!("InstanceRequirements.{name}"), value))
    }

    /// As Auto Scaling's SDK has them.
    pub(in crate::cloud::aws) fn of(them: &autoscaling::InstanceRequirements) -> Self {
        let mut all = Writer::default();
        macro_rules! range {
            ($name:literal, $field:ident) => {
                all.range(
                    $name,
                    them.$field().map(|it| (it.min().map(|it| it.to_string()), it.max().map(|it| it.to_string()))),
                );
            };
        }
        range!("VCpuCount", v_cpu_count);
        range!("MemoryMiB", memory_mib);
        range!("MemoryGiBPerVCpu", memory_gib_per_v_cpu);
        range!("NetworkInterfaceCount", network_interface_count);
        range!("TotalLocalStorageGB", total_local_storage_gb);
        range!("BaselineEbsBandwidthMbps", baseline_ebs_bandwidth_mbps);
        range!("AcceleratorCount", accelerator_count);
        range!("AcceleratorTotalMemoryMiB", accelerator_total_memory_mib);
        range!("NetworkBandwidthGbps", network_bandwidth_gbps);
        all.list("CpuManufacturer", them.cpu_manufacturers());
        all.list("ExcludedInstanceType", them.excluded_instance_types());
        all.list("AllowedInstanceType", them.allowed_instance_types());
        all.list("InstanceGeneration", them.instance_generations());
        all.list("LocalStorageType", them.local_storage_types());
        all.list("AcceleratorType", them.accelerator_types());
        all.list("AcceleratorManufacturer", them.accelerator_manufacturers());
        all.list("AcceleratorName", them.accelerator_names());
        all.one("BareMetal", them.bare_metal().map(autoscaling::BareMetal::as_str));
        all.one("BurstablePerformance", them.burstable_performance().map(autoscaling::BurstablePerformance::as_str));
        all.one("LocalStorage", them.local_storage().map(autoscaling::LocalStorage::as_str));
        all.one("RequireHibernateSupport", them.require_hibernate_support().map(|it| it.to_string()));
        all.one(
            "SpotMaxPricePercentageOverLowestPrice",
            them.spot_max_price_percentage_over_lowest_price().map(|it| it.to_string()),
        );
        all.one(
            "OnDemandMaxPricePercentageOverLowestPrice",
            them.on_demand_max_price_percentage_over_lowest_price().map(|it| it.to_string()),
        );
        all.one(
            "MaxSpotPriceAsPercentageOfOptimalOnDemandPrice",
            them.max_spot_price_as_percentage_of_optimal_on_demand_price().map(|it| it.to_string()),
        );
        Self(all.0)
    }
}

#[derive(Default)]
struct Writer(BTreeMap<String, String>);

impl Writer {
    fn one(&mut self, name: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
    }

    fn list<T: AsRef<str>>(&mut self, name: &str, values: &[T]) {
        for (at, value) in (1..).zip(values) {
            self.one(&format!("{name}.{at}"), Some(value.as_ref()));
        }
    }

    fn range(&mut self, name: &str, range: Option<(Option<String>, Option<String>)>) {
        let (min, max) = range.unwrap_or_default();
        self.one(&format!("{name}.Min"), min);
        self.one(&format!("{name}.Max"), max);
    }
}

/// The same inside a launch template. Its XML spells the parameters' names in lower case, and lists as sets.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Written(BTreeMap<String, Value>);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Value {
    min: Option<String>,
    max: Option<String>,
    item: Vec<String>,
    #[serde(rename = "$text")]
    text: Option<String>,
}

impl From<Written> for Requirements {
    fn from(written: Written) -> Self {
        let mut all = Writer::default();
        for (key, Value { min, max, item, text }) in written.0 {
            let mut letters = key.chars();
            let first = letters.next().map(|it| it.to_ascii_uppercase()).into_iter();
            let name: String = first.chain(letters).collect();
            all.list(name.strip_suffix("Set").unwrap_or(&name), &item);
            all.range(&name, Some((min, max)));
            all.one(&name, text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()));
        }
        Self(all.0)
    }
}

/// One page of `GetInstanceTypesFromInstanceRequirements`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Matching {
    #[serde(default)]
    instance_type_set: Items<Match>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Match {
    instance_type: String,
}

impl Page for Matching {
    type Item = String;

    fn split(self) -> (Vec<String>, Option<String>) {
        (self.instance_type_set.item.into_iter().map(|it| it.instance_type).collect(), self.next_token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &Requirements) -> Vec<String> {
        of.0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn auto_scalings_words_and_a_launch_templates_become_the_same_parameters() {
        let expected = [
            "AcceleratorCount.Min=1",
            "AcceleratorManufacturer.1=nvidia",
            "BareMetal=excluded",
            "MemoryMiB.Min=16384",
            "VCpuCount.Max=16",
            "VCpuCount.Min=4",
        ];
        let them = autoscaling::InstanceRequirements::builder()
            .v_cpu_count(autoscaling::VCpuCountRequest::builder().min(4).max(16).build())
            .memory_mib(autoscaling::MemoryMiBRequest::builder().min(16384).build())
            .accelerator_count(autoscaling::AcceleratorCountRequest::builder().min(1).build())
            .accelerator_manufacturers(autoscaling::AcceleratorManufacturer::Nvidia)
            .bare_metal(autoscaling::BareMetal::Excluded)
            .build();
        assert_eq!(names(&Requirements::of(&them)), expected);
        let written: Written = quick_xml::de::from_str(
            "<instanceRequirements><vCpuCount><min>4</min><max>16</max></vCpuCount><memoryMiB><min>16384</min></memoryMiB>\
             <acceleratorCount><min>1</min></acceleratorCount><acceleratorManufacturerSet><item>nvidia</item></acceleratorManufacturerSet>\
             <bareMetal>excluded</bareMetal></instanceRequirements>",
        )
        .unwrap();
        assert_eq!(names(&written.into()), expected);
    }
}
