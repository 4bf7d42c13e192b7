//! A scenario as it is written: every key of the YAML, each value with its place. Unknown keys are refused here; what
//! the values mean is decided in `check`.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::fleet::group::{Market, Overrides, Taint};

use super::{Failing, ScenarioError};

/// A scalar with its place: numbers, sizes and durations are read as text first, so that `8` and `"8"` are the same.
pub(super) type Text = Spanned<String>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Written {
    #[serde(default)]
    pub(super) seed: u64,
    pub(super) gpu_label: Option<String>,
    #[serde(default)]
    pub(super) machines: WrittenTimes,
    pub(super) groups: Spanned<Vec<WrittenGroup>>,
    #[serde(default)]
    pub(super) events: Vec<Spanned<WrittenEvent>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WrittenGroup {
    pub(super) id: Text,
    #[serde(default)]
    pub(super) min: u32,
    pub(super) max: Spanned<u32>,
    pub(super) initial: Option<Spanned<u32>>,
    pub(super) instance_type: String,
    #[serde(default = "on_demand")]
    pub(super) market: Market,
    #[serde(default = "region")]
    pub(super) region: String,
    pub(super) zones: Option<Spanned<Vec<String>>>,
    pub(super) price: Option<Spanned<f64>>,
    #[serde(default = "amd64")]
    pub(super) arch: String,
    pub(super) cpu: Text,
    pub(super) memory: Text,
    pub(super) ephemeral_storage: Option<Text>,
    #[serde(default = "pods")]
    pub(super) pods: u32,
    pub(super) reserved: Option<WrittenReserved>,
    pub(super) gpu: Option<WrittenGpu>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) taints: Vec<Spanned<Taint>>,
    pub(super) pending_time: Option<Text>,
    pub(super) boot_time: Option<Text>,
    pub(super) device_delay: Option<Text>,
    pub(super) jitter: Option<Text>,
    pub(super) shutdown_time: Option<Text>,
    pub(super) capacity: Option<Spanned<BTreeMap<String, u32>>>,
    #[serde(default)]
    pub(super) options: Overrides,
}

/// What holds for the machines of every group that does not say otherwise.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct WrittenTimes {
    pub(super) pending_time: Option<Text>,
    pub(super) boot_time: Option<Text>,
    pub(super) device_delay: Option<Text>,
    pub(super) jitter: Option<Text>,
    pub(super) shutdown_time: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WrittenReserved {
    pub(super) cpu: Option<Text>,
    pub(super) memory: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WrittenGpu {
    pub(super) model: String,
    pub(super) count: Spanned<u32>,
    pub(super) memory: Text,
    #[serde(default = "gpu_resource")]
    pub(super) resource: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WrittenEvent {
    pub(super) at: Text,
    #[serde(rename = "for")]
    pub(super) lasts: Option<Text>,
    pub(super) group: Option<Text>,
    pub(super) stock_out: Option<bool>,
    pub(super) capacity: Option<Spanned<BTreeMap<String, u32>>>,
    pub(super) quota: Option<u32>,
    pub(super) interrupt: Option<WrittenInterrupt>,
    pub(super) never_register: Option<bool>,
    pub(super) slow_calls: Option<Text>,
    pub(super) fail_calls: Option<Failing>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WrittenInterrupt {
    pub(super) instances: u32,
    pub(super) notice: Option<Text>,
}

/// Parses the YAML, strictly.
pub(super) fn read(text: &str, file: &Path) -> Result<Written, ScenarioError> {
    serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |place| (place.line(), place.column()));
        ScenarioError { file: file.to_owned(), line, column, what: crate::config::said(&error) }
    })
}

fn on_demand() -> Market {
    Market::OnDemand
}

fn region() -> String {
    "sim-1".into()
}

fn amd64() -> String {
    "amd64".into()
}

/// The kubelet's own default.
fn pods() -> u32 {
    110
}

fn gpu_resource() -> String {
    "nvidia.com/gpu".into()
}
