//! Device ids in all the forms that plugins and DRA drivers give them. Pure parsing; no form panics, an unknown one is `None`.

/// Characters of a uuid.
const UUID: usize = 36;

/// A device id, understood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// `GPU-<uuid>` or `MIG-<uuid>`.
    Uuid(Box<str>),
    /// `MIG-GPU-<uuid>/<gpu instance>/<compute instance>`: MIG before driver R470.
    Instance {
        /// The GPU it is part of.
        parent: Box<str>,
        /// GPU instance id.
        gpu_instance: u32,
        /// Compute instance id.
        compute_instance: u32,
    },
    /// GKE's `nvidia<minor>` and `nvidia<minor>/gi<instance>`; a claim's `gpu-<minor>`.
    Minor {
        /// The n of `/dev/nvidia<n>`.
        minor: u32,
        /// GPU instance id, on a partitioned GPU.
        gpu_instance: Option<u32>,
    },
    /// A claim's MIG device: named by what it is and where it lies, since it may not exist before it is claimed.
    Partition {
        /// The n of the GPU's `/dev/nvidia<n>`.
        minor: u32,
        /// Such as `1g10gb`: as [`partition_profile`] writes it.
        profile: Box<str>,
        /// NVML's id of the profile.
        profile_id: u32,
        /// First memory slice.
        placement: u32,
    },
}

/// Understands an id that a device plugin gave. The replica of a shared device (`::3`, `/vgpu3`) is dropped: replicas share one device.
/// `None` for the slot ids of plugins that we do not know; their use is found through processes.
#[must_use]
pub fn device(id: &str) -> Option<Device> {
    let id = id.split_once("::").map_or(id, |(device, _replica)| device);
    if let Some(legacy) = id.strip_prefix("MIG-GPU-") {
        let (uuid, ids) = legacy.split_once('/')?;
        let (gpu_instance, compute_instance) = ids.split_once('/')?;
        return Some(Device::Instance {
            parent: format!("GPU-{uuid}").into(),
            gpu_instance: gpu_instance.parse().ok()?,
            compute_instance: compute_instance.parse().ok()?,
        });
    }
    if let Some(uuid) = id.strip_prefix("GPU-").or_else(|| id.strip_prefix("MIG-")) {
        // A uuid with more behind it is a slot (HAMi's `GPU-<uuid>-7`): which GPU the slot's holder uses is decided elsewhere.
        return (uuid.len() <= UUID).then(|| Device::Uuid(id.into()));
    }
    let mut parts = id.strip_prefix("nvidia")?.split('/');
    let minor = parts.next()?.parse().ok()?;
    let mut gpu_instance = None;
    for part in parts {
        match (part.strip_prefix("gi"), part.strip_prefix("vgpu")) {
            (Some(instance), _) => gpu_instance = Some(instance.parse().ok()?),
            (None, Some(_replica)) => {}
            (None, None) => return None,
        }
    }
    Some(Device::Minor { minor, gpu_instance })
}

/// Understands the name of a claimed device of NVIDIA's DRA driver: `gpu-<minor>` and `gpu-<minor>-mig-<profile>-<profile id>-<placement>`.
/// `None` for what NVML does not see (`gpu-vfio-0`).
#[must_use]
pub fn claimed(name: &str) -> Option<Device> {
    let rest = name.strip_prefix("gpu-")?;
    let Some((minor, partition)) = rest.split_once("-mig-") else {
        return Some(Device::Minor { minor: rest.parse().ok()?, gpu_instance: None });
    };
    let (front, placement) = partition.rsplit_once('-')?;
    let (profile, profile_id) = front.rsplit_once('-')?;
    let numbers = (minor.parse().ok()?, profile_id.parse().ok()?, placement.parse().ok()?);
    let (minor, profile_id, placement) = numbers;
    Some(Device::Partition { minor, profile: profile.into(), profile_id, placement })
}

/// A MIG profile as names of claimed devices spell it: `1g.10gb+me` is `1g10gb-me`.
#[must_use]
pub fn partition_profile(profile: &str) -> String {
    let spelled = profile.chars().filter(|character| *character != '.').map(|character| {
        let character = character.to_ascii_lowercase();
        if character.is_ascii_alphanumeric() { character } else { '-' }
    });
    spelled.collect::<String>().trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "6a1fe0c2-41b5-4d62-9a4f-0d8a6ee9ce7f";

    #[test]
    fn every_form_of_device_id_is_understood() {
        let uuid = |uuid: &str| Some(Device::Uuid(uuid.into()));
        let minor = |minor, gpu_instance| Some(Device::Minor { minor, gpu_instance });
        let whole = format!("GPU-{ONE}");
        for (id, expect) in [
            ("GPU-6a1f", uuid("GPU-6a1f")),
            (whole.as_str(), uuid(&whole)),
            (format!("{whole}::12").as_str(), uuid(&whole)),
            ("GPU-6a1f::0", uuid("GPU-6a1f")),
            ("MIG-77aa::3", uuid("MIG-77aa")),
            (
                "MIG-GPU-6a1f/7/0",
                Some(Device::Instance { parent: "GPU-6a1f".into(), gpu_instance: 7, compute_instance: 0 }),
            ),
            ("MIG-GPU-6a1f/7", None),
            ("nvidia0", minor(0, None)),
            ("nvidia3/gi1", minor(3, Some(1))),
            ("nvidia0/vgpu7", minor(0, None)),
            ("nvidia0/gi2/vgpu1", minor(0, Some(2))),
            ("nvidia", None),
            ("nvidia0/mystery", None),
            ("nvidia0/gi", None),
            (format!("{whole}-7").as_str(), None),
            ("slot-47", None),
            ("", None),
            ("::", None),
        ] {
            assert_eq!(device(id), expect, "{id}");
        }
    }

    #[test]
    fn every_form_of_claimed_device_is_understood() {
        let partition = |minor, profile: &str, profile_id, placement| {
            Some(Device::Partition { minor, profile: profile.into(), profile_id, placement })
        };
        for (name, expect) in [
            ("gpu-0", Some(Device::Minor { minor: 0, gpu_instance: None })),
            ("gpu-12", Some(Device::Minor { minor: 12, gpu_instance: None })),
            ("gpu-0-mig-1g10gb-19-2", partition(0, "1g10gb", 19, 2)),
            ("gpu-3-mig-1g10gb-me-20-0", partition(3, "1g10gb-me", 20, 0)),
            ("gpu-vfio-0", None),
            ("gpu-", None),
            ("gpu-0-mig-", None),
            ("gpu-0-mig-1g10gb", None),
            ("gpu-0-mig-1g10gb-19-x", None),
            ("channel-0", None),
            ("GPU-6a1f", None),
        ] {
            assert_eq!(claimed(name), expect, "{name}");
        }
        for (profile, expect) in [("1g.10gb", "1g10gb"), ("1g.10gb+me", "1g10gb-me"), ("1c.3g.40gb", "1c3g40gb")] {
            assert_eq!(partition_profile(profile), expect);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_without_a_panic(id in ".*") {
            let _parsed = (device(&id), claimed(&id), claimed(&format!("gpu-{id}")), partition_profile(&id));
        }
    }
}
