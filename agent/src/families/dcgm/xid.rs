//! Xid errors as dcgm-exporter shows them. The last one as dcgm-exporter shows it: the code as value and as `err_code`, with a few words as `err_msg`.
//! Codes and their meaning are from NVIDIA's Xid catalogue; the words are ours.

use crate::families::{GpuRow, Sample};
use crate::gpu::{EVENT_WINDOW, Xid};

/// What an administrator meets.
const MEANINGS: &[(u64, &str)] = &[
    (0, "none"),
    (8, "GPU stopped processing"),
    (13, "graphics engine exception"),
    (31, "GPU memory page fault"),
    (32, "invalid or corrupted push buffer"),
    (38, "driver firmware error"),
    (43, "GPU stopped processing"),
    (44, "graphics engine fault during context switch"),
    (45, "preemptive cleanup, due to previous errors"),
    (46, "GPU stopped processing"),
    (48, "double-bit ECC error"),
    (54, "auxiliary power is not connected"),
    (56, "display engine error"),
    (57, "error programming video memory interface"),
    (58, "unstable video memory interface"),
    (60, "video processor exception"),
    (61, "internal micro-controller breakpoint"),
    (62, "internal micro-controller halt"),
    (63, "ECC page retirement or row remapping recorded"),
    (64, "ECC page retirement or row remapping failed"),
    (65, "video processor exception"),
    (66, "illegal access by driver"),
    (67, "illegal access by driver"),
    (68, "video processor exception"),
    (69, "graphics engine class error"),
    (74, "NVLink error"),
    (79, "GPU has fallen off the bus"),
    (92, "high rate of single-bit ECC errors"),
    (94, "contained ECC error"),
    (95, "uncontained ECC error"),
    (109, "context switch timeout"),
    (119, "GSP RPC timeout"),
    (120, "GSP error"),
    (121, "C2C link error"),
    (140, "unrecovered ECC error"),
    (143, "GPU initialization failure"),
    (149, "NVLink error"),
    (154, "recovery action changed"),
];

/// The last one, of a GPU that answers.
pub(super) fn last(row: &GpuRow<'_>) -> Vec<Sample> {
    let gpu = &row.gpu.gpu;
    let latest = gpu.xids.iter().max_by(|one, other| one.last.total_cmp(&other.last));
    let code = latest.map_or(0, |xid| xid.code);
    let meaning = MEANINGS.iter().find(|(known, _)| *known == code).map_or("unknown error", |(_, meaning)| *meaning);
    let pairs = vec![("err_code", code.to_string()), ("err_msg", meaning.to_owned())];
    gpu.up.then_some((pairs, code as f64)).into_iter().collect()
}

/// How many in the window, by code; where there was none a 0 without a code, as there.
pub(super) fn recent(row: &GpuRow<'_>) -> Vec<Sample> {
    let gpu = &row.gpu.gpu;
    let of = |xid: &Xid| (vec![window(), ("xid", xid.code.to_string())], f64::from(xid.recent));
    let mut found: Vec<Sample> = gpu.xids.iter().filter(|xid| xid.recent > 0).map(of).collect();
    if found.is_empty() && gpu.up {
        found.push((vec![window()], 0.0));
    }
    found
}

/// How many since the agent started, by code.
pub(super) fn total(row: &GpuRow<'_>) -> Vec<Sample> {
    row.gpu.gpu.xids.iter().map(|xid| (vec![("xid", xid.code.to_string())], xid.count as f64)).collect()
}

/// How far back is counted, as a label.
pub(super) fn window() -> (&'static str, String) {
    ("window_size_in_ms", EVENT_WINDOW.as_millis().to_string())
}
