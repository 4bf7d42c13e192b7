//! What a group would launch: by its launch template, its launch configuration or its mixed policy, read once and kept,
//! and turned into the shape that a new node has.

mod compose;
pub(super) mod facts;
mod file;
mod images;
mod kept;
mod requirements;
mod sources;
mod user_data;
mod versions;

use aws_sdk_autoscaling::types::{LaunchConfiguration, LaunchTemplateSpecification};
use serde::{Deserialize, Serialize};

use super::allocatable::Family;
use crate::fleet::group::Market;

pub(super) use compose::machine;
pub(super) use facts::Facts;
pub(super) use file::File;
pub(super) use requirements::Requirements;
pub(super) use sources::Sources;
use user_data::UserData;

/// What one launch template version or one launch configuration says, as far as it shows on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Recipe {
    pub(super) instance_type: Option<String>,
    /// In place of a type: attributes that it must have.
    pub(super) requirements: Option<Requirements>,
    pub(super) image: Option<String>,
    /// Size in bytes by device name.
    pub(super) volumes: Vec<(String, u64)>,
    pub(super) market: Option<Market>,
    pub(super) user_data: UserData,
}

/// A launch template and one of its versions, by number or as `$Latest` or `$Default`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Reference {
    /// `lt-…`, or the name where only that is known.
    pub(super) template: String,
    pub(super) version: String,
}

impl Reference {
    pub(super) fn of(spec: &LaunchTemplateSpecification) -> Option<Self> {
        let template = spec.launch_template_id().or(spec.launch_template_name())?.to_owned();
        Some(Self { template, version: spec.version().unwrap_or("$Default").to_owned() })
    }

    /// A numbered version never changes.
    pub(super) fn is_fixed(&self) -> bool {
        self.version.bytes().all(|byte| byte.is_ascii_digit())
    }

    fn is_named(&self) -> bool {
        !self.template.starts_with("lt-")
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} version {}", self.template, self.version)
    }
}

/// An image, as far as it shows on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Image {
    /// As EC2 writes it: `x86_64` or `arm64`.
    pub(super) architecture: String,
    pub(super) family: Family,
    pub(super) root_device: String,
    pub(super) volumes: Vec<(String, u64)>,
}

/// A launch configuration as a recipe.
pub(super) fn configured(of: &LaunchConfiguration) -> Recipe {
    let volume = |it: &aws_sdk_autoscaling::types::BlockDeviceMapping| {
        let size = u64::try_from(it.ebs()?.volume_size()?).ok()?;
        Some((it.device_name()?.to_owned(), size << 30))
    };
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    Recipe {
        instance_type: text(of.instance_type()),
        requirements: None,
        image: text(of.image_id()),
        volumes: of.block_device_mappings().iter().filter_map(volume).collect(),
        market: Some(if of.spot_price().is_some() { Market::Spot } else { Market::OnDemand }),
        user_data: of.user_data().map(user_data::read).unwrap_or_default(),
    }
}
