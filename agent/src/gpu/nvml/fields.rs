//! Field values: many numbered questions in one call. What a device does not answer is left out of the next call.
//! Ids follow the numbering of drivers before 580.82, which moved some of them.

use nvml_wrapper::FieldIdScheme;
use nvml_wrapper::error::NvmlError;

use super::calls::Calls;
use super::errors::Meaning;
use super::links::{Bytes, Carried};
use super::raw::Handle;
use crate::gpu::{EccErrors, Health, Traffic};

/// A question: a word for the counts, NVML's number, and the link where it is about links.
type Field = (&'static str, u32, u32);

/// Scope of a question about no link in particular, and about all links together.
const NONE: u32 = 0;
const ALL_LINKS: u32 = u32::MAX;
const KIBIBYTE: f64 = 1024.0;

/// What moves from second to second.
pub(super) const MOVING: &[Field] = &[
    ("memory_temperature", 82, NONE),
    ("power_average", 185, NONE),
    ("power_instant", 186, NONE),
    ("pcie_sent", 197, NONE),
    ("pcie_received", 198, NONE),
    ("nvlink_sent", 138, ALL_LINKS),
    ("nvlink_received", 139, ALL_LINKS),
    ("power_violation", 74, NONE),
    ("thermal_violation", 75, NONE),
    ("sync_boost_violation", 76, NONE),
    ("board_limit_violation", 77, NONE),
    ("low_utilization_violation", 78, NONE),
    ("reliability_violation", 79, NONE),
    ("application_clocks_violation", 80, NONE),
    ("base_clocks_violation", 81, NONE),
    ("sw_thermal_slowdown", 251, NONE),
    ("hw_thermal_slowdown", 252, NONE),
    ("hw_power_brake_slowdown", 253, NONE),
];

/// What changes once in a while.
pub(super) const LASTING: &[Field] = &[
    ("ecc_corrected", 3, NONE),
    ("ecc_uncorrected", 4, NONE),
    ("ecc_lifetime_corrected", 5, NONE),
    ("ecc_lifetime_uncorrected", 6, NONE),
    ("retired_single_bit", 29, NONE),
    ("retired_double_bit", 30, NONE),
    ("retired_pending", 31, NONE),
    ("pcie_replays", 94, NONE),
    ("remapped_correctable", 142, NONE),
    ("remapped_uncorrectable", 143, NONE),
    ("remap_pending", 144, NONE),
    ("remap_failed", 145, NONE),
    ("recovery_action", 230, NONE),
];

/// The questions of one call that a device still answers.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    name: &'static str,
    all: &'static [Field],
    left: Vec<Field>,
}

/// The answers by their words.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Values(Vec<(&'static str, f64)>);

impl Batch {
    /// `name` is the call's word for the counts.
    pub(super) fn new(name: &'static str, all: &'static [Field]) -> Self {
        Self { name, all, left: all.to_vec() }
    }

    /// Everything is asked again: the device has changed.
    pub(super) fn forget(&mut self) {
        self.left = self.all.to_vec();
    }

    /// Asks.
    pub(super) fn read(&mut self, gpu: &Handle, calls: &mut Calls<'_>) -> Values {
        if self.left.is_empty() {
            return Values::default();
        }
        let scheme = gpu.nvml().field_id_scheme();
        let questions: Vec<(u32, u32)> =
            self.left.iter().map(|&(_, id, scope)| (numbered(id, scheme), scope)).collect();
        let Some(answers) = calls.ask(self.name, || gpu.fields(&questions)) else { return Values::default() };
        let mut values = Vec::with_capacity(answers.len());
        let mut answers = answers.into_iter();
        self.left.retain(|&(word, ..)| match answers.next() {
            Some(Ok(value)) => {
                if value.is_finite() {
                    values.push((word, value));
                }
                true
            }
            Some(Err(error)) => keeps(word, error, calls),
            None => true,
        });
        Values(values)
    }
}

/// Whether a question that was not answered is asked again. Drivers that are older than a field call it an invalid argument.
fn keeps(word: &'static str, error: NvmlError, calls: &mut Calls<'_>) -> bool {
    let error = if matches!(error, NvmlError::InvalidArg) { NvmlError::NotSupported } else { error };
    calls.failed(word, error) != Meaning::Unsupported
}

/// The number of a field in this driver: 580.82 moved the clock event counters from 251 to 269.
fn numbered(id: u32, scheme: FieldIdScheme) -> u32 {
    match scheme {
        FieldIdScheme::V13Update1 if (251..=255).contains(&id) => id + 18,
        _ => id,
    }
}

impl Values {
    /// Answers, for tests.
    #[cfg(test)]
    pub(super) fn of(answers: &[(&'static str, f64)]) -> Self {
        Self(answers.to_vec())
    }

    /// One answer.
    pub(super) fn get(&self, word: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }

    fn count(&self, word: &str) -> Option<u64> {
        self.get(word).map(|value| value.max(0.0) as u64)
    }

    fn flag(&self, word: &str) -> Option<bool> {
        self.get(word).map(|value| value > 0.0)
    }

    /// Milliwatts as watts.
    pub(super) fn watts(&self, word: &str) -> Option<f64> {
        self.get(word).map(|milliwatts| milliwatts / 1e3)
    }

    /// Bytes over all NVLinks, which count KiB.
    pub(super) fn nvlink(&self) -> Option<Bytes> {
        Some((self.get("nvlink_sent")? * KIBIBYTE, self.get("nvlink_received")? * KIBIBYTE))
    }

    /// Counters of links. PCIe counts bytes.
    pub(super) fn traffic(&self, lasting: &Self, nvlink: Carried) -> Traffic {
        Traffic {
            pcie_sent_bytes: self.get("pcie_sent"),
            pcie_received_bytes: self.get("pcie_received"),
            pcie_replays: lasting.count("pcie_replays"),
            nvlink_sent_bytes: nvlink.bytes.map(|(sent, _)| sent),
            nvlink_received_bytes: nvlink.bytes.map(|(_, received)| received),
            nvlink_bytes_per_second: nvlink.bytes_per_second,
        }
    }

    /// Wear and damage.
    pub(super) fn health(&self, fabric_state: Option<&'static str>) -> Health {
        let errors = |corrected, uncorrected| EccErrors {
            corrected: self.count(corrected),
            uncorrected: self.count(uncorrected),
        };
        Health {
            ecc_volatile: errors("ecc_corrected", "ecc_uncorrected"),
            ecc_aggregate: errors("ecc_lifetime_corrected", "ecc_lifetime_uncorrected"),
            remapped_correctable: self.count("remapped_correctable"),
            remapped_uncorrectable: self.count("remapped_uncorrectable"),
            remap_pending: self.flag("remap_pending"),
            remap_failed: self.flag("remap_failed"),
            retired_single_bit: self.count("retired_single_bit"),
            retired_double_bit: self.count("retired_double_bit"),
            retired_pending: self.flag("retired_pending"),
            recovery_action: self.count("recovery_action").map(recovery_action),
            fabric_state,
        }
    }
}

/// `NVML_GPU_RECOVERY_ACTION_*`.
fn recovery_action(code: u64) -> &'static str {
    match code {
        0 => "none",
        1 => "gpu_reset",
        2 => "node_reboot",
        3 => "drain_p2p",
        4 => "drain_and_reset",
        _ => "other",
    }
}

/// `NVML_GPU_FABRIC_STATE_*`; a registration that is complete can have ended badly.
pub(super) fn fabric_state((state, status): (u8, u32)) -> Option<&'static str> {
    match (state, status) {
        (1, _) => Some("not_started"),
        (2, _) => Some("in_progress"),
        (3, 0) => Some("completed"),
        (3, _) => Some("failed"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_driver_580_82_moved_are_asked_by_their_new_number() {
        for (id, before, after) in [(250, 250, 250), (251, 251, 269), (253, 253, 271), (197, 197, 197)] {
            assert_eq!((numbered(id, FieldIdScheme::V12), numbered(id, FieldIdScheme::V13Update1)), (before, after));
        }
    }

    #[test]
    fn words_are_unique_and_a_fabric_that_failed_says_so() {
        let mut words: Vec<&str> = MOVING.iter().chain(LASTING).map(|field| field.0).collect();
        words.sort_unstable();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]), "{words:?}");
        let states = [(0, 0), (1, 0), (2, 0), (3, 0), (3, 999), (9, 0)].map(fabric_state);
        assert_eq!(states, [None, Some("not_started"), Some("in_progress"), Some("completed"), Some("failed"), None]);
    }

    #[test]
    fn links_are_counted_in_bytes_and_health_in_words() {
        let values = Values::of(&[
            ("nvlink_sent", 2.0),
            ("nvlink_received", 1.0),
            ("pcie_sent", 7.0),
            ("recovery_action", 1.0),
            ("remap_failed", 1.0),
        ]);
        let traffic = values.traffic(&Values::default(), Carried { bytes: values.nvlink(), bytes_per_second: None });
        assert_eq!(
            (traffic.nvlink_sent_bytes, traffic.pcie_sent_bytes, traffic.pcie_replays),
            (Some(2048.0), Some(7.0), None)
        );
        let health = values.health(None);
        assert_eq!(
            (health.recovery_action, health.remap_failed, health.remap_pending),
            (Some("gpu_reset"), Some(true), None)
        );
    }
}
