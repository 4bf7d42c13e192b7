//! What NVML's return codes mean to us: a device that cannot, a device that is gone, a session that is gone, or bad luck.
//! Codes that the wrapper does not know arrive as numbers and keep their NVML name here.

use nvml_wrapper::error::NvmlError;

/// What follows from a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// This device, driver or caller will not answer this call: do not ask again.
    Unsupported,
    /// There is nothing to tell: no samples (idle), or a hole in the list of MIG instances.
    Nothing,
    /// This GPU is gone; the others are not.
    Lost,
    /// The library or driver went away under us: open again.
    Session,
    /// May work next time.
    Transient,
}

/// NVML's codes 25, 27 and 28 (nvml.h), which the wrapper passes on as numbers.
const ARGUMENT_VERSION_MISMATCH: u32 = 25;
const NOT_READY: u32 = 27;
const GPU_NOT_FOUND: u32 = 28;

pub(super) fn meaning(error: &NvmlError) -> Meaning {
    match error {
        NvmlError::NotSupported
        | NvmlError::NoPermission
        | NvmlError::FunctionNotFound
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::UnexpectedVariant(ARGUMENT_VERSION_MISMATCH) => Meaning::Unsupported,
        NvmlError::NotFound | NvmlError::NoData => Meaning::Nothing,
        NvmlError::GpuLost | NvmlError::ResetRequired | NvmlError::UnexpectedVariant(GPU_NOT_FOUND) => Meaning::Lost,
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch => Meaning::Session,
        _ => Meaning::Transient,
    }
}

/// The cause as a metric's label.
pub(super) fn cause(error: &NvmlError) -> &'static str {
    match error {
        NvmlError::Uninitialized => "uninitialized",
        NvmlError::InvalidArg => "invalid_argument",
        NvmlError::NotSupported => "not_supported",
        NvmlError::NoPermission => "no_permission",
        NvmlError::NotFound => "not_found",
        NvmlError::InsufficientSize(_) => "insufficient_size",
        NvmlError::DriverNotLoaded => "driver_not_loaded",
        NvmlError::Timeout => "timeout",
        NvmlError::LibraryNotFound | NvmlError::LibloadingError(_) => "library_not_found",
        NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) => "function_not_found",
        NvmlError::GpuLost => "gpu_is_lost",
        NvmlError::ResetRequired => "reset_required",
        NvmlError::OperatingSystem => "operating_system",
        NvmlError::LibRmVersionMismatch => "lib_rm_version_mismatch",
        NvmlError::InUse => "in_use",
        NvmlError::InsufficientMemory => "memory",
        NvmlError::NoData => "no_data",
        NvmlError::Utf8Error(_) | NvmlError::NulError(_) | NvmlError::StringTooLong { .. } => "bad_text",
        NvmlError::UnexpectedVariant(ARGUMENT_VERSION_MISMATCH) => "argument_version_mismatch",
        NvmlError::UnexpectedVariant(NOT_READY) => "not_ready",
        NvmlError::UnexpectedVariant(GPU_NOT_FOUND) => "gpu_not_found",
        NvmlError::Unknown => "unknown",
        _ => "other",
    }
}

/// What happened, for a person. The wrapper has no words for codes that it does not know.
pub(super) fn said(error: &NvmlError) -> String {
    match error {
        NvmlError::UnexpectedVariant(code) => format!("the driver answers with code {code} ({})", cause(error)),
        NvmlError::LibloadingError(error) => error.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_one_meaning() {
        for (code, expect) in [
            (3, (Meaning::Unsupported, "not_supported")),
            (4, (Meaning::Unsupported, "no_permission")),
            (6, (Meaning::Nothing, "not_found")),
            (9, (Meaning::Session, "driver_not_loaded")),
            (13, (Meaning::Unsupported, "function_not_found")),
            (15, (Meaning::Lost, "gpu_is_lost")),
            (16, (Meaning::Lost, "reset_required")),
            (17, (Meaning::Transient, "operating_system")),
            (18, (Meaning::Session, "lib_rm_version_mismatch")),
            (25, (Meaning::Unsupported, "argument_version_mismatch")),
            (27, (Meaning::Transient, "not_ready")),
            (28, (Meaning::Lost, "gpu_not_found")),
            (999, (Meaning::Transient, "unknown")),
            (4242, (Meaning::Transient, "other")),
        ] {
            let error = NvmlError::from(code);
            assert_eq!((meaning(&error), cause(&error)), expect, "code {code}");
        }
    }
}
