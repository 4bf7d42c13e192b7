//! `DescribeImages`: what runs on a machine, for what architecture, and on what volumes.

use serde::Deserialize;

use super::{Image, versions::Mapping};
use crate::cloud::aws::{
    allocatable::Family,
    ec2::{Page, Params},
    types::Items,
};

/// These images. By a filter, since an id that is gone would fail a call by id as a whole.
pub(super) fn of<'a>(ids: impl IntoIterator<Item = &'a String>) -> Params {
    Params::default().filter("image-id", ids)
}

/// The answer to `DescribeImages`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Images {
    #[serde(default)]
    images_set: Items<Described>,
    next_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Described {
    image_id: String,
    name: String,
    image_location: String,
    architecture: String,
    platform: String,
    root_device_name: String,
    block_device_mapping: Items<Mapping>,
}

impl Page for Images {
    type Item = (String, Image);

    fn split(self) -> (Vec<(String, Image)>, Option<String>) {
        (self.images_set.item.into_iter().map(Described::read).collect(), self.next_token)
    }
}

impl Described {
    fn read(self) -> (String, Image) {
        let name = format!("{} {}", self.name, self.image_location).to_lowercase();
        let family = match () {
            () if self.platform.eq_ignore_ascii_case("windows") => Family::Windows,
            () if name.contains("bottlerocket") => Family::Bottlerocket,
            () => Family::AmazonLinux,
        };
        let volume = |it: Mapping| Some((it.device_name, it.ebs.volume_size? << 30));
        let image = Image {
            architecture: self.architecture,
            family,
            root_device: self.root_device_name,
            volumes: self.block_device_mapping.item.into_iter().filter_map(volume).collect(),
        };
        (self.image_id, image)
    }
}
