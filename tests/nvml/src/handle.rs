//! Device handles: numbers dressed as pointers, so that a stale or made-up one is recognised instead of followed.
//! A MIG handle names its instances; when they are gone the handle is dead, as with a driver.

use nvml_wrapper_sys::bindings::nvmlDevice_t;

use crate::answer::{Code, INVALID_ARGUMENT, NOT_SUPPORTED};
use crate::machine::{Device, MigDevice};
use crate::session::Session;

const MARK: usize = 0x4e56_0000_0000;
const MIG: usize = 0x8000;

/// What a handle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    /// NVML index.
    pub(crate) gpu: u32,
    /// GPU instance and compute instance.
    pub(crate) mig: Option<(u32, u32)>,
}

impl Handle {
    pub(crate) fn encode(self) -> nvmlDevice_t {
        let mig = self.mig.map_or(0, |(gi, ci)| MIG | (gi as usize & 0x7f) << 8 | (ci as usize & 0xff));
        std::ptr::without_provenance_mut(MARK | (self.gpu as usize & 0xffff) << 16 | mig)
    }

    pub(crate) fn decode(handle: nvmlDevice_t) -> Option<Self> {
        let number = handle.addr();
        if number & !0xffff_ffff != MARK {
            return None;
        }
        let part = |shift: usize, mask: usize| u32::try_from(number >> shift & mask).ok();
        let mig = if number & MIG == 0 { None } else { Some((part(8, 0x7f)?, part(0, 0xff)?)) };
        Some(Self { gpu: part(16, 0xffff)?, mig })
    }
}

/// A handle that has been looked up.
pub(crate) struct Target<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) machine: std::sync::Arc<crate::machine::Machine>,
    pub(crate) handle: Handle,
}

impl<'a> Target<'a> {
    pub(crate) fn find(session: &'a mut Session, handle: nvmlDevice_t) -> Result<Self, Code> {
        let handle = Handle::decode(handle).ok_or(INVALID_ARGUMENT)?;
        let machine = session.machine.clone();
        let device = machine.devices.get(handle.gpu as usize).ok_or(INVALID_ARGUMENT)?;
        if handle.mig.is_some_and(|(gi, ci)| device.mig_device(gi, ci).is_none()) {
            return Err(INVALID_ARGUMENT);
        }
        Ok(Self { session, machine, handle })
    }

    /// The GPU, or the parent of the MIG device.
    pub(crate) fn device(&self) -> &Device {
        &self.machine.devices[self.handle.gpu as usize]
    }

    pub(crate) fn mig(&self) -> Option<&MigDevice> {
        self.handle.mig.and_then(|(gi, ci)| self.device().mig_device(gi, ci))
    }

    /// Many questions are not answered for MIG devices.
    pub(crate) fn whole(&self) -> Result<&Device, Code> {
        if self.handle.mig.is_some() { Err(NOT_SUPPORTED) } else { Ok(self.device()) }
    }

    /// Utilization is not answered for MIG devices, nor for a GPU in MIG mode.
    pub(crate) fn undivided(&self) -> Result<u32, Code> {
        if self.device().mig.is_some() { Err(NOT_SUPPORTED) } else { Ok(self.handle.gpu) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_survive_the_border_and_strangers_are_recognised() {
        for handle in
            [Handle { gpu: 0, mig: None }, Handle { gpu: 63, mig: Some((14, 1)) }, Handle { gpu: 7, mig: Some((0, 0)) }]
        {
            assert_eq!(Handle::decode(handle.encode()), Some(handle));
        }
        assert_eq!(Handle::decode(std::ptr::null_mut()), None);
        assert_eq!(Handle::decode(std::ptr::without_provenance_mut(0x1234)), None);
    }
}
