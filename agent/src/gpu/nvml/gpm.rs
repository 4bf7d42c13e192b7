//! GPM: counters of the chip's units, as what happened between two samples of a GPU or of one GPU instance. Hopper and newer.
//! Two samples for each are kept and filled in turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::calls::Calls;
use super::mig::Slice;
use super::raw::{GpmSample, Handle};
use super::samples::percent;
use crate::gpu::Gpm;

/// NVML wants samples more than 100 ms apart.
const CLOSEST: Duration = Duration::from_millis(110);
/// `NVML_GPM_METRIC_*`, in the order of [`gpm`].
const METRICS: [u32; 12] = [1, 2, 3, 5, 10, 11, 12, 13, 20, 21, 61, 60];
const MEBIBYTE: f64 = 1_048_576.0;

/// The meters of one GPU: one for the whole, or one for each GPU instance under the uuid of a MIG device of it, since ids are given again.
#[derive(Default)]
pub(super) struct Gpms {
    supported: Option<bool>,
    meters: BTreeMap<Option<Arc<str>>, Meter>,
}

/// Two samples of one GPU or instance.
#[derive(Default)]
struct Meter {
    before: Option<GpmSample>,
    spare: Option<GpmSample>,
    /// When `before` had been filled.
    at: Duration,
    last: Option<Gpm>,
}

impl Gpms {
    /// What the whole GPU did since the pass before.
    pub(super) fn whole(&mut self, gpu: &Handle, calls: &mut Calls<'_>) -> Option<Gpm> {
        if !self.is_supported(gpu, calls) {
            return None;
        }
        self.meters.retain(|instance, _| instance.is_none());
        self.meters.entry(None).or_default().read(gpu, None, calls)
    }

    /// What each GPU instance did. Compute instances of one GPU instance share its figures.
    pub(super) fn instances(
        &mut self,
        gpu: &Handle,
        slices: &[Slice],
        calls: &mut Calls<'_>,
    ) -> BTreeMap<u32, Option<Gpm>> {
        let mut found = BTreeMap::new();
        if !self.is_supported(gpu, calls) {
            return found;
        }
        for slice in slices {
            let Some(id) = slice.identity.gpu_instance else { continue };
            let meter = Some(Arc::clone(&slice.identity.uuid));
            let read = || self.meters.entry(meter).or_default().read(gpu, Some(id), calls);
            found.entry(id).or_insert_with(read);
        }
        let here = |uuid: &Arc<str>| slices.iter().any(|slice| slice.identity.uuid == *uuid);
        self.meters.retain(|instance, _| instance.as_ref().is_some_and(here));
        found
    }

    fn is_supported(&mut self, gpu: &Handle, calls: &mut Calls<'_>) -> bool {
        if self.supported.is_none() {
            self.supported = calls.ask("gpm_support", || gpu.device().gpm_support());
        }
        self.supported == Some(true)
    }
}

impl Meter {
    fn read(&mut self, gpu: &Handle, instance: Option<u32>, calls: &mut Calls<'_>) -> Option<Gpm> {
        // By the moment itself: a pass that was held up takes its samples long after it began.
        if self.before.is_some() && calls.moment().saturating_sub(self.at) < CLOSEST {
            return self.last;
        }
        self.last = None;
        let mut fresh = match self.spare.take() {
            Some(spare) => spare,
            None => calls.ask("gpm_sample_alloc", || GpmSample::new(gpu.nvml()))?,
        };
        let name = if instance.is_some() { "gpm_mig_sample" } else { "gpm_sample" };
        if calls.ask(name, || fresh.fill(gpu, instance)).is_none() {
            self.before = None;
            self.spare = Some(fresh);
            return None;
        }
        let at = calls.moment();
        if let Some(before) = &self.before {
            self.last = calls.ask("gpm_metrics", || fresh.since(before, &METRICS)).map(|values| gpm(&values));
        }
        self.spare = self.before.replace(fresh);
        self.at = at;
        self.last
    }
}

/// Values in the order of [`METRICS`]: percentages a little over 100 are 100, rates come in MiB a second.
fn gpm(values: &[Option<f64>]) -> Gpm {
    let value = |at: usize| values.get(at).copied().flatten();
    let percent = |at| value(at).and_then(percent);
    let rate = |at| value(at).filter(|rate| rate.is_finite() && *rate >= 0.0).map(|rate| rate * MEBIBYTE + 0.0);
    Gpm {
        graphics: percent(0),
        sm_active: percent(1),
        sm_occupancy: percent(2),
        tensor: percent(3),
        dram: percent(4),
        fp64: percent(5),
        fp32: percent(6),
        fp16: percent(7),
        pcie_sent: rate(8),
        pcie_received: rate(9),
        nvlink_sent: rate(10),
        nvlink_received: rate(11),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpm_values_are_percent_of_the_instance_and_bytes_a_second() {
        let mut values = vec![Some(50.0), Some(130.0), Some(f64::NAN), None];
        values.resize(10, Some(0.0));
        values.extend([Some(2.0), Some(-1.0)]);
        let found = gpm(&values);
        assert_eq!(
            (found.graphics, found.sm_active, found.sm_occupancy, found.tensor),
            (Some(50.0), Some(100.0), None, None)
        );
        assert_eq!((found.pcie_sent, found.nvlink_sent, found.nvlink_received), (Some(0.0), Some(2_097_152.0), None));
        assert_eq!(gpm(&[]), Gpm::default());
    }
}
