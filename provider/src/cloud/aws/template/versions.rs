//! `DescribeLaunchTemplateVersions`: which versions to ask for, and what they say.

use serde::Deserialize;

use super::{Recipe, Reference, requirements::Written, user_data};
use crate::{
    cloud::aws::{
        ec2::{Page, Params},
        types::Items,
    },
    fleet::group::Market,
};

/// Most versions in one page; the API's own limit.
const PAGE: &str = "200";

/// The versions of one template.
pub(super) fn of(template: &Reference) -> Params {
    let key = if template.is_named() { "LaunchTemplateName" } else { "LaunchTemplateId" };
    Params::default().with(key, &template.template).list("LaunchTemplateVersion", [&template.version])
}

/// The latest and the default version of every template in the account: far fewer calls than one for each template.
pub(super) fn of_all() -> Params {
    Params::default().list("LaunchTemplateVersion", ["$Latest", "$Default"]).with("MaxResults", PAGE)
}

/// One page of `DescribeLaunchTemplateVersions`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Versions {
    #[serde(default)]
    launch_template_version_set: Items<Version>,
    next_token: Option<String>,
}

impl Page for Versions {
    type Item = Version;

    fn split(self) -> (Vec<Version>, Option<String>) {
        (self.launch_template_version_set.item, self.next_token)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    #[serde(default)]
    launch_template_id: String,
    #[serde(default)]
    launch_template_name: String,
    #[serde(default)]
    version_number: u64,
    #[serde(default)]
    default_version: bool,
    #[serde(default)]
    launch_template_data: Data,
}

impl Version {
    pub(super) fn number(&self) -> u64 {
        self.version_number
    }

    /// Whether this is what `reference` means, given the highest number of its template that was seen.
    pub(super) fn answers(&self, reference: &Reference, latest: u64) -> bool {
        self.is_of(reference)
            && match reference.version.as_str() {
                "$Latest" => self.version_number == latest,
                "$Default" => self.default_version,
                number => number.parse() == Ok(self.version_number),
            }
    }

    pub(super) fn is_of(&self, reference: &Reference) -> bool {
        [&self.launch_template_id, &self.launch_template_name].contains(&&reference.template)
    }

    pub(super) fn recipe(&self) -> Recipe {
        let data = &self.launch_template_data;
        let volume = |it: &Mapping| Some((it.device_name.clone(), it.ebs.volume_size? << 30));
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Recipe {
            instance_type: text(&data.instance_type),
            requirements: data.instance_requirements.clone().map(Into::into),
            image: text(&data.image_id),
            volumes: data.block_device_mapping_set.item.iter().filter_map(volume).collect(),
            market: match data.instance_market_options.market_type.as_str() {
                "spot" => Some(Market::Spot),
                "" => None,
                _ => Some(Market::OnDemand),
            },
            user_data: data.user_data.as_deref().map(user_data::read).unwrap_or_default(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Data {
    instance_type: Option<String>,
    instance_requirements: Option<Written>,
    image_id: Option<String>,
    user_data: Option<String>,
    block_device_mapping_set: Items<Mapping>,
    instance_market_options: MarketOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Mapping {
    pub(super) device_name: String,
    pub(super) ebs: Ebs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Ebs {
    /// GiB.
    pub(super) volume_size: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MarketOptions {
    market_type: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "<DescribeLaunchTemplateVersionsResponse><launchTemplateVersionSet><item>\
        <launchTemplateId>lt-1</launchTemplateId><launchTemplateName>gpu</launchTemplateName><versionNumber>3</versionNumber>\
        <defaultVersion>true</defaultVersion><launchTemplateData><instanceType>g5.xlarge</instanceType><imageId>ami-1</imageId>\
        <blockDeviceMappingSet><item><deviceName>/dev/xvda</deviceName><ebs><volumeSize>100</volumeSize><volumeType>gp3</volumeType></ebs></item>\
        <item><deviceName>/dev/sdb</deviceName><virtualName>ephemeral0</virtualName></item></blockDeviceMappingSet>\
        <instanceMarketOptions><marketType>spot</marketType></instanceMarketOptions>\
        <userData>LS1tYXgtcG9kcz0xMTA=</userData></launchTemplateData></item></launchTemplateVersionSet>\
        </DescribeLaunchTemplateVersionsResponse>";

    fn reference(template: &str, version: &str) -> Reference {
        Reference { template: template.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn a_version_is_a_recipe() {
        let page: Versions = quick_xml::de::from_str(ANSWER).unwrap();
        let version = page.split().0.remove(0);
        let recipe = version.recipe();
        assert_eq!((recipe.instance_type.as_deref(), recipe.image.as_deref()), (Some("g5.xlarge"), Some("ami-1")));
        assert_eq!(recipe.volumes, [("/dev/xvda".to_owned(), 100 << 30)]);
        assert_eq!((recipe.market, recipe.user_data.max_pods), (Some(Market::Spot), Some(110)));
        for (template, wanted, latest, answers) in [
            ("lt-1", "3", 4, true),
            ("gpu", "$Default", 4, true),
            ("gpu", "$Latest", 4, false),
            ("gpu", "$Latest", 3, true),
            ("lt-1", "2", 3, false),
            ("lt-2", "3", 3, false),
        ] {
            assert_eq!(version.answers(&reference(template, wanted), latest), answers, "{template} {wanted}");
        }
    }
}
