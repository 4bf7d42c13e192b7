//! What goes wrong: a fault names the calls and the GPU it hits, when it begins, and what is answered instead.
//! A lost GPU is `{gpu: 0, answer: gpu_is_lost}`; a driver swapped underneath is `{answer: lib_rm_version_mismatch}`.

use serde::{Deserialize, Serialize};

/// One fault. An empty fault hits every call and changes nothing; each key narrows or adds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// NVML functions it hits; all when empty.
    pub calls: Vec<String>,
    /// Only calls on this GPU (and on its MIG devices). Without it, calls that name no GPU are hit too.
    pub gpu: Option<u32>,
    /// What is answered; the true answer when absent (a slow call).
    pub answer: Option<Answer>,
    /// The call takes this much longer, in milliseconds, whole or not.
    pub slow_ms: f64,
    /// The call does not come back while the fault is in force.
    pub hangs: bool,
    /// Begins after this many calls that it would have hit.
    pub after_calls: u64,
    /// Begins this many seconds after the profile's `epoch_s`.
    pub after_s: Option<f64>,
    /// Ends this many seconds after the profile's `epoch_s`.
    pub until_s: Option<f64>,
}

/// An NVML return code by name or by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// By number, for codes that have no name here.
    Code(u32),
    /// By name.
    Name(AnswerName),
}

/// The codes that a program must handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is the NVML_ERROR_* constant of its name")]
pub enum AnswerName {
    NotSupported = 3,
    NoPermission = 4,
    NotFound = 6,
    DriverNotLoaded = 9,
    Timeout = 10,
    LibraryNotFound = 12,
    FunctionNotFound = 13,
    GpuIsLost = 15,
    ResetRequired = 16,
    OperatingSystem = 17,
    LibRmVersionMismatch = 18,
    ArgumentVersionMismatch = 25,
    NotReady = 27,
    Unknown = 999,
}

impl Answer {
    /// The number that goes over the border.
    pub fn code(self) -> u32 {
        match self {
            Self::Code(code) => code,
            Self::Name(name) => name as u32,
        }
    }
}

impl Fault {
    /// A fault of one GPU from now on.
    pub fn of_gpu(gpu: u32, answer: AnswerName) -> Self {
        Self { gpu: Some(gpu), answer: Some(Answer::Name(answer)), ..Self::default() }
    }

    /// A fault of the named calls on every GPU.
    pub fn of_calls(calls: &[&str], answer: AnswerName) -> Self {
        let calls = calls.iter().map(|&call| call.to_owned()).collect();
        Self { calls, answer: Some(Answer::Name(answer)), ..Self::default() }
    }

    /// The named calls do not come back, on one GPU or wherever they are made.
    pub fn hang(calls: &[&str], gpu: Option<u32>) -> Self {
        let calls = calls.iter().map(|&call| call.to_owned()).collect();
        Self { calls, gpu, hangs: true, ..Self::default() }
    }

    /// Whether it is about `call` on `gpu`, whenever it begins.
    pub fn concerns(&self, call: &str, gpu: Option<u32>) -> bool {
        (self.calls.is_empty() || self.calls.iter().any(|name| name == call)) && (self.gpu.is_none() || self.gpu == gpu)
    }

    /// Whether it is in force `seconds` after the epoch.
    pub fn in_force(&self, seconds: f64) -> bool {
        self.after_s.is_none_or(|after| seconds >= after) && self.until_s.is_none_or(|until| seconds < until)
    }
}
