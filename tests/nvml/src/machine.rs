//! The profile with every default filled in: GPUs and MIG devices with their names, ids and limits.
//! Ids that a profile leaves out are made from the index, so a test can name them beforehand.

use crate::model::{Model, ModelName};
use crate::profile::{Gpu, Mig, Profile};

/// Most GPUs of one machine.
pub const MAX_GPUS: u32 = 64;

/// A profile made whole.
#[derive(Debug)]
pub struct Machine {
    /// What it was made from.
    pub profile: Profile,
    /// By index.
    pub devices: Vec<Device>,
}

/// One GPU.
#[derive(Debug)]
pub struct Device {
    /// NVML index.
    pub index: u32,
    /// Silicon facts.
    pub model: Model,
    /// `GPU-…`.
    pub uuid: String,
    /// What the profile says of it.
    pub gpu: Gpu,
    /// MIG devices; `None` where MIG mode is off.
    pub mig: Option<Vec<MigDevice>>,
}

/// One MIG device.
#[derive(Clone, Debug)]
pub struct MigDevice {
    /// Index under the parent.
    pub index: u32,
    /// GPU instance id.
    pub gpu_instance: u32,
    /// Compute instance id.
    pub compute_instance: u32,
    /// `MIG-…`.
    pub uuid: String,
    /// `1g.10gb`…
    pub profile: String,
    /// Compute slices.
    pub slices: u32,
    /// Frame buffer in MiB.
    pub memory_mib: u64,
    /// First memory slice, where it is told.
    pub placement: Option<u32>,
}

impl Machine {
    /// Fills in a profile.
    pub fn new(profile: Profile) -> Result<Self, String> {
        let devices = (0..profile.count)
            .map(|index| {
                let gpu = profile.gpus.get(&index).cloned().unwrap_or_default();
                Device::new(index, gpu.model.unwrap_or(profile.model), gpu)
            })
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(index) = profile.gpus.keys().find(|&&index| index >= profile.count) {
            return Err(format!("gpus.{index}: the machine has only {} GPUs (count)", profile.count));
        }
        Ok(Self { profile, devices })
    }
}

impl Device {
    fn new(index: u32, name: ModelName, gpu: Gpu) -> Result<Self, String> {
        let model = name.model()?;
        let mig = match &gpu.mig {
            Some(_) if model.mig.is_none() => return Err(format!("gpus.{index}.mig: {name:?} has no MIG")),
            Some(list) => Some(mig_devices(index, list)?),
            None => None,
        };
        let uuid = gpu.uuid.clone().unwrap_or_else(|| gpu_uuid(index));
        Ok(Self { index, model, uuid, gpu, mig })
    }

    /// `00000000:1B:00.0` for index 0, one bus further for each.
    pub fn bus_id(&self) -> String {
        format!("00000000:{:02X}:00.0", self.bus())
    }

    /// PCI bus number.
    pub fn bus(&self) -> u32 {
        0x1B + self.index
    }

    /// Serial number of the board.
    pub fn serial(&self) -> String {
        format!("16530{:08}", 42_000_000 + self.index)
    }

    /// MIG device of these instance ids.
    pub fn mig_device(&self, gpu_instance: u32, compute_instance: u32) -> Option<&MigDevice> {
        let mut devices = self.mig.iter().flatten();
        devices.find(|mig| mig.gpu_instance == gpu_instance && mig.compute_instance == compute_instance)
    }
}

fn mig_devices(gpu: u32, list: &[Mig]) -> Result<Vec<MigDevice>, String> {
    let devices = list.iter().zip(0_u32..).map(|(mig, place)| {
        let (slices, memory_gb) = slices_and_memory(&mig.profile)
            .ok_or_else(|| format!("gpus.{gpu}.mig: profile '{}' is not of the form 1g.10gb", mig.profile))?;
        let uuid = mig.uuid.clone().unwrap_or_else(|| mig_uuid(gpu, mig.gpu_instance, mig.compute_instance));
        Ok(MigDevice {
            index: mig.index.unwrap_or(place),
            gpu_instance: mig.gpu_instance,
            compute_instance: mig.compute_instance,
            uuid,
            profile: mig.profile.clone(),
            slices,
            // A slice's memory is a little less than its name says.
            memory_mib: memory_gb * 1024 * 95 / 100,
            placement: mig.placement,
        })
    });
    devices.collect()
}

/// `1g.10gb` → (1, 10); suffixes such as `+me` are allowed.
fn slices_and_memory(profile: &str) -> Option<(u32, u64)> {
    let (slices, memory) = profile.split_once("g.")?;
    let (memory, _) = memory.split_once("gb")?;
    Some((slices.parse().ok()?, memory.parse().ok()?))
}

/// UUID of the GPU at `index` when the profile gives none.
pub fn gpu_uuid(index: u32) -> String {
    format!("GPU-{}", uuid(&[0x6770_7500, index]))
}

/// UUID of a MIG device when the profile gives none.
pub fn mig_uuid(gpu: u32, gpu_instance: u32, compute_instance: u32) -> String {
    format!("MIG-{}", uuid(&[0x6d69_6700, gpu, gpu_instance, compute_instance]))
}

/// 32 hex digits from a few numbers (FNV-1a, twice).
fn uuid(parts: &[u32]) -> String {
    let hash = |seed: u64| {
        let bytes = parts.iter().flat_map(|part| part.to_le_bytes());
        bytes.fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let digits = format!("{:016x}{:016x}", hash(0xcbf2_9ce4_8422_2325), hash(0x6c62_272e_07bb_0142));
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}
