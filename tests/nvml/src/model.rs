//! What a GPU model is made of: the silicon facts that no load changes.
//! The four built-in models are the YAML files in `profiles/`.

use serde::{Deserialize, Serialize};

/// A GPU model that the fake knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelName {
    /// Turing, 16 GB.
    T4,
    /// Ampere, 40 GB, MIG.
    A100,
    /// Hopper, 80 GB, MIG and GPM.
    H100,
    /// Hopper, 141 GB, MIG and GPM.
    H200,
}

impl ModelName {
    /// The facts of this model. The files are compiled in; a test holds that each can be read.
    pub fn model(self) -> Result<Model, String> {
        let text = match self {
            Self::T4 => include_str!("../profiles/T4.yaml"),
            Self::A100 => include_str!("../profiles/A100.yaml"),
            Self::H100 => include_str!("../profiles/H100.yaml"),
            Self::H200 => include_str!("../profiles/H200.yaml"),
        };
        serde_saphyr::from_str(text).map_err(|error| format!("built-in model {self:?}: {error}"))
    }

    /// The model called `name`, as in `T4` or `h100`.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::T4, Self::A100, Self::H100, Self::H200]
            .into_iter()
            .find(|model| format!("{model:?}").eq_ignore_ascii_case(name))
    }
}

/// The facts of one model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// As `nvmlDeviceGetName` says it.
    pub name: String,
    /// Product line.
    pub brand: Brand,
    /// Generation of the chip.
    pub architecture: Architecture,
    /// CUDA compute capability, major and minor.
    pub compute_capability: (i32, i32),
    /// PCI device id in the upper, vendor id in the lower 16 bits.
    pub pci_device_id: u32,
    /// CUDA cores.
    pub cores: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Frame buffer in MiB, reserved part included.
    pub memory_mib: u64,
    /// What driver and firmware keep for themselves, in MiB.
    pub reserved_mib: u64,
    /// BAR1 window in MiB.
    pub bar1_mib: u64,
    /// Width of the memory bus.
    pub memory_bus_bits: u32,
    /// Power figures in watts.
    pub power_watts: Power,
    /// Clock figures in MHz.
    pub clocks_mhz: Clocks,
    /// Temperature figures in degrees Celsius.
    pub temperature_celsius: Temperature,
    /// The PCIe link.
    pub pcie: Pcie,
    /// Number of NVLinks.
    #[serde(default)]
    pub nvlinks: u32,
    /// Whether GPM (per-instance counters since Hopper) answers.
    #[serde(default)]
    pub gpm: bool,
    /// MIG limits; `None` where the model has no MIG.
    #[serde(default)]
    pub mig: Option<MigLimits>,
}

/// Product line, as far as the built-in models need it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Brand {
    /// `NVML_BRAND_TESLA`.
    Tesla,
    /// `NVML_BRAND_NVIDIA`.
    Nvidia,
}

/// Generation of the chip.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// `NVML_DEVICE_ARCH_TURING`.
    Turing,
    /// `NVML_DEVICE_ARCH_AMPERE`.
    Ampere,
    /// `NVML_DEVICE_ARCH_HOPPER`.
    Hopper,
}

/// Watts.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// With no load.
    pub idle: f64,
    /// The enforced limit, reached at full load.
    pub limit: f64,
    /// Lowest limit that can be set.
    pub min: f64,
    /// Highest limit that can be set.
    pub max: f64,
}

/// One clock domain in MHz.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// With no load.
    pub idle: u32,
    /// Under load.
    pub busy: u32,
    /// Highest.
    pub max: u32,
}

/// The clock domains.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// Graphics and SM.
    pub graphics: Clock,
    /// Memory.
    pub memory: Clock,
    /// Video encoder and decoder.
    pub video: Clock,
}

/// Degrees Celsius.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temperature {
    /// With no load.
    pub idle: f64,
    /// At full load.
    pub busy: f64,
    /// How much warmer the memory is; `None` where it has no sensor.
    #[serde(default)]
    pub memory_over_gpu: Option<f64>,
    /// Where clocks fall.
    pub slowdown: u32,
    /// Where the GPU turns itself off.
    pub shutdown: u32,
}

/// The PCIe link.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pcie {
    /// Generation.
    pub generation: u32,
    /// Lanes.
    pub width: u32,
}

/// MIG limits of a model.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigLimits {
    /// Most MIG devices at once.
    pub max_instances: u32,
    /// Memory slices of the whole GPU.
    pub memory_slices: u32,
    /// Multiprocessors of one compute slice.
    pub multiprocessors_per_slice: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_model_can_be_read() {
        for name in [ModelName::T4, ModelName::A100, ModelName::H100, ModelName::H200] {
            let model = name.model().unwrap();
            assert!(model.memory_mib > model.reserved_mib);
            assert_eq!(ModelName::parse(&format!("{name:?}").to_lowercase()), Some(name));
        }
    }
}
