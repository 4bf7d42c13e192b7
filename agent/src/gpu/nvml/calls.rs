//! Bookkeeping around the calls to one device: what it refuses is asked once, what fails is counted, what is lost is left alone.
//! Every NVML call of a reading goes through here.

use std::collections::BTreeSet;

use nvml_wrapper::error::NvmlError;

use super::errors::{Meaning, cause, meaning};
use crate::gpu::Failures;

/// What one device will not answer. Forgotten when its MIG mode changes, since that changes what it answers.
pub(super) type Refused = BTreeSet<&'static str>;

/// How a call went, where the caller must know more than a value.
#[derive(Debug)]
pub(super) enum Outcome<T> {
    /// Answered.
    Value(T),
    /// Answered: there is nothing.
    Nothing,
    /// Not answered.
    Failed,
}

impl<T> Outcome<T> {
    pub(super) fn value(self) -> Option<T> {
        match self {
            Outcome::Value(value) => Some(value),
            Outcome::Nothing | Outcome::Failed => None,
        }
    }
}

/// The calls of one pass over one device.
pub(super) struct Calls<'a> {
    failures: &'a mut Failures,
    refused: &'a mut Refused,
    /// Whether anything was answered.
    pub(super) answered: bool,
    /// The device is gone: nothing more is asked in this pass.
    pub(super) lost: bool,
    /// The session is gone, with the error that said so.
    pub(super) session: Option<NvmlError>,
}

impl<'a> Calls<'a> {
    pub(super) fn new(failures: &'a mut Failures, refused: &'a mut Refused) -> Self {
        Self { failures, refused, answered: false, lost: false, session: None }
    }

    /// Makes a call unless the device refuses it or is gone.
    pub(super) fn make<T>(&mut self, name: &'static str, call: impl FnOnce() -> Result<T, NvmlError>) -> Outcome<T> {
        if self.lost || self.session.is_some() || self.refused.contains(name) {
            return Outcome::Failed;
        }
        let error = match call() {
            Ok(value) => {
                self.answered = true;
                return Outcome::Value(value);
            }
            Err(error) => error,
        };
        let meaning = meaning(&error);
        if meaning == Meaning::Nothing {
            self.answered = true;
            return Outcome::Nothing;
        }
        *self.failures.entry((name, cause(&error))).or_default() += 1;
        match meaning {
            Meaning::Unsupported => {
                tracing::info!(call = name, error = %error, "the device does not answer this call: not asked again");
                self.refused.insert(name);
            }
            Meaning::Lost => self.lost = true,
            Meaning::Session => self.session = Some(error),
            Meaning::Nothing | Meaning::Transient => {}
        }
        Outcome::Failed
    }

    /// Makes a call of which only the value matters.
    pub(super) fn ask<T>(&mut self, name: &'static str, call: impl FnOnce() -> Result<T, NvmlError>) -> Option<T> {
        self.make(name, call).value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_counted_once_and_a_lost_device_is_left_alone() {
        let (mut failures, mut refused) = (Failures::new(), Refused::new());
        for _ in 0..3 {
            let mut calls = Calls::new(&mut failures, &mut refused);
            assert_eq!(calls.ask("power", || Err::<u32, _>(NvmlError::NotSupported)), None);
            assert_eq!(calls.ask("idle", || Err::<u32, _>(NvmlError::NotFound)), None);
            assert_eq!(calls.ask("memory", || Err::<u32, _>(NvmlError::GpuLost)), None);
            assert_eq!(calls.ask("clock", || Ok(1)), None);
            assert!(calls.lost && calls.answered);
        }
        assert_eq!(failures, Failures::from([(("memory", "gpu_is_lost"), 3), (("power", "not_supported"), 1)]));
    }
}
