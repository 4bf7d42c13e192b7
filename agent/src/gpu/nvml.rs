//! The session with NVML: finds and opens the library, keeps handles, reads every GPU in a pass.
//! This file and its folder are the only users of `nvml_wrapper`.

mod calls;
mod device;
mod errors;
mod mig;
mod raw;
mod samples;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use self::device::Card;
use super::{Absence, Failures, Gpu, Gpus, Identity, Reading};

/// Where the library lies: the loader's own path first, then distributions, the GPU operator's driver container, GKE.
const LIBRARIES: [&str; 9] = [
    "libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
    "/usr/local/nvidia/lib64/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
    "/run/nvidia/driver/usr/lib64/libnvidia-ml.so.1",
    concat!("/home", "/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.1"),
];
/// Handles are looked up again this often while a GPU is down, or when the number of GPUs changes.
const ENUMERATE_INTERVAL: Duration = Duration::from_secs(10);
/// After this many passes in which no GPU answered anything, the session is opened anew.
const SILENT_PASSES: u32 = 5;
/// More GPUs than any machine has: the bound on a count that the driver gives.
const GPUS_MAX: u32 = 256;

/// Opens NVML: the library named, or the first of the usual places that both loads and initialises.
pub fn open(library: Option<&Path>) -> Result<Nvml, Absence> {
    let named = library.map(|path| vec![path]);
    let candidates = named.unwrap_or_else(|| LIBRARIES.iter().map(Path::new).collect());
    let mut reason: Option<(&Path, NvmlError)> = None;
    for path in candidates {
        match Nvml::builder().lib_path(path.as_os_str()).init() {
            Ok(nvml) => {
                tracing::info!(library = %path.display(), driver = nvml.sys_driver_version().ok(), "NVML opened");
                return Ok(nvml);
            }
            // A library that loads and refuses says more than one that is not there.
            Err(error) => {
                let loads = !matches!(error, NvmlError::LibloadingError(_));
                if loads || reason.is_none() {
                    reason = Some((path, error));
                }
                if loads {
                    break;
                }
            }
        }
    }
    let (path, error) = reason.unwrap_or((Path::new("libnvidia-ml.so.1"), NvmlError::LibraryNotFound));
    let message = format!("NVML did not open ({}): {error}; {}", path.display(), errors::remedy(&error));
    Err(Absence { cause: errors::cause(&error), message })
}

/// One session: the cards in the driver's order.
pub struct Session<'nvml> {
    nvml: &'nvml Nvml,
    driver_version: Option<String>,
    cards: Vec<Card<'nvml>>,
    failures: Failures,
    enumerate_due: Duration,
    silent: u32,
}

impl<'nvml> Session<'nvml> {
    /// Takes over the counts of the sessions before.
    #[must_use]
    pub fn new(nvml: &'nvml Nvml, failures: Failures) -> Self {
        let driver_version = nvml.sys_driver_version().ok();
        Self { nvml, driver_version, cards: Vec::new(), failures, enumerate_due: Duration::ZERO, silent: 0 }
    }

    /// The counts, for the session after.
    #[must_use]
    pub fn into_failures(self) -> Failures {
        self.failures
    }

    /// Looks up handles for GPUs that have none. A GPU keeps its memory of refusals and samples while its uuid stays.
    fn enumerate(&mut self) -> Result<(), NvmlError> {
        let count = self.nvml.device_count()?.min(GPUS_MAX);
        let mut known: BTreeMap<u32, Card<'nvml>> =
            std::mem::take(&mut self.cards).into_iter().map(|c| (c.identity.index, c)).collect();
        for index in 0..count {
            let old = known.remove(&index);
            let card = match self.nvml.device_by_index(index) {
                Ok(device) => adopt(old, identity(index, &device), device),
                Err(error) => {
                    *self.failures.entry(("device_by_index", errors::cause(&error))).or_default() += 1;
                    let nameless = || Card::new(Arc::new(Identity { index, ..Identity::default() }), None);
                    let mut card = old.unwrap_or_else(nameless);
                    card.device = None;
                    card
                }
            };
            self.cards.push(card);
        }
        Ok(())
    }

    fn absence(&self, error: &NvmlError) -> Absence {
        let message = format!("NVML stopped answering: {error}; {}", errors::remedy(error));
        Absence { cause: errors::cause(error), message }
    }
}

impl Gpus for Session<'_> {
    fn read(&mut self, now: Duration) -> Result<Reading, Absence> {
        let down = self.cards.iter().any(|card| card.device.is_none()) || self.silent > 0;
        let changed = self.nvml.device_count().is_ok_and(|count| count as usize != self.cards.len());
        if self.cards.is_empty() || changed || (down && now >= self.enumerate_due) {
            self.enumerate().map_err(|error| self.absence(&error))?;
            self.enumerate_due = now + ENUMERATE_INTERVAL;
        }
        let mut gpus: Vec<Gpu> = Vec::with_capacity(self.cards.len());
        for card in &mut self.cards {
            let (gpu, broken) = card.read(now, &mut self.failures);
            if let Some(error) = broken {
                return Err(self.absence(&error));
            }
            card.tell(gpu.up);
            if !gpu.up && now >= self.enumerate_due {
                card.device = None; // a handle from before a reset stays dead: ask for a new one
            }
            gpus.push(gpu);
        }
        let silent = !gpus.is_empty() && gpus.iter().all(|gpu| !gpu.up && !gpu.lost);
        self.silent = if silent { self.silent + 1 } else { 0 };
        if self.silent >= SILENT_PASSES {
            return Err(self.absence(&NvmlError::Unknown));
        }
        Ok(Reading { driver_version: self.driver_version.clone(), gpus })
    }

    fn failures(&self) -> &Failures {
        &self.failures
    }
}

fn adopt<'nvml>(old: Option<Card<'nvml>>, identity: Identity, device: Device<'nvml>) -> Card<'nvml> {
    match old {
        Some(mut card) if card.identity.uuid == identity.uuid => {
            card.device = Some(device);
            card
        }
        _ => Card::new(Arc::new(identity), Some(device)),
    }
}

fn identity(index: u32, device: &Device<'_>) -> Identity {
    Identity {
        index,
        uuid: device.uuid().unwrap_or_default().into(),
        model: device.name().ok().map(Into::into),
        minor: device.minor_number().ok(),
        pci_bus_id: device.pci_info().ok().map(|pci| pci.bus_id.into()),
    }
}
