//! The counters that no driver keeps: seconds of use, seconds of allocation and joules, per container and device. Pure; time is an argument.
//! They grow only by what was measured: a gap in sampling adds nothing, and a restarted device counter adds nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Share, Snapshot};
use crate::pods::Owner;
use crate::pods::identity::Identities;

/// Totals of containers that have gone are kept this long, so that a kubelet's hiccup does not reset a counter.
const KEPT: Duration = Duration::from_secs(300);
/// Containers times devices that are remembered at most. When they are more, those that have gone longest make room.
const ENTRIES_MAX: usize = 4096;
/// More than any GPU draws: a driver's counter that grew faster has restarted, or was misread.
const WATTS_MAX: f64 = 10_000.0;

/// What one container used of one device since the agent first saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Total {
    /// GPU-seconds: one second at 50 % is half a GPU-second. Absent where use is not measured.
    pub usage_seconds: Option<f64>,
    /// Seconds for which the kubelet had given the device to the container. Absent where it did not.
    pub allocated_seconds: Option<f64>,
    /// Joules. Absent where energy or use is not measured.
    pub energy_joules: Option<f64>,
}

/// What one GPU did since the agent first saw it, and what of that belongs to nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GpuTotal {
    /// GPU-seconds in which a kernel ran: its containers' and nobody's together.
    pub busy_seconds: Option<f64>,
    /// GPU-seconds of nobody.
    pub unattributed_seconds: Option<f64>,
    /// Joules of nobody.
    pub unattributed_joules: Option<f64>,
}

/// All counters.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// In order of name.
    containers: Vec<Entry>,
    /// Where among them each share of the snapshot is that was added last.
    places: Vec<Option<usize>>,
    gpus: BTreeMap<Arc<str>, Device>,
    last: Option<Duration>,
}

/// What and who: the uuid of the GPU or MIG instance, which tells most names apart, and the container.
type Name<'a> = (&'a Arc<str>, &'a Arc<Owner>);

#[derive(Debug, Clone)]
struct Entry {
    uuid: Arc<str>,
    owner: Arc<Owner>,
    total: Total,
    seen: Duration,
    uid: Option<Arc<str>>,
}

impl Entry {
    fn new((uuid, owner): Name<'_>, seen: Duration) -> Self {
        Self { uuid: Arc::clone(uuid), owner: Arc::clone(owner), total: Total::default(), seen, uid: None }
    }

    fn name(&self) -> Name<'_> {
        (&self.uuid, &self.owner)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Device {
    /// The driver's counter, and when it was read.
    energy: Option<(f64, Duration)>,
    total: GpuTotal,
}

impl Totals {
    /// Adds one snapshot taken at `now`. Time since the last one counts if it is at most `gap`: a longer silence was not measured.
    pub fn advance(&mut self, snapshot: &Snapshot, now: Duration, gap: Duration) {
        let elapsed = self.last.map(|last| now.saturating_sub(last)).filter(|elapsed| *elapsed <= gap);
        self.last = Some(now);
        let seconds = elapsed.unwrap_or_default().as_secs_f64();
        let joules: Vec<Option<f64>> =
            snapshot.gpus.iter().map(|gpu| self.device_joules(&gpu.gpu, seconds, (now, gap))).collect();
        self.containers.retain(|entry| now.saturating_sub(entry.seen) <= KEPT);
        self.locate(snapshot, now);
        for (share, place) in snapshot.shares.iter().zip(&self.places) {
            let Some(Entry { total, .. }) = place.and_then(|place| self.containers.get_mut(place)) else { continue };
            grow(&mut total.usage_seconds, share.utilization.map(|percent| percent / 100.0 * seconds));
            grow(&mut total.allocated_seconds, share.held.then_some(seconds));
            let joules = joules.get(share.gpu).copied().flatten();
            grow(&mut total.energy_joules, share.energy.zip(joules).map(|(part, joules)| part * joules));
        }
        self.advance_gpus(snapshot, seconds, &joules);
    }

    /// A pod that was made again under its name is another pod: its counters begin anew. Where uids are not known, they go on.
    pub fn begin_anew(&mut self, identities: &Identities) {
        self.containers.retain_mut(|entry| {
            let Some(identity) = identities.of(&entry.owner) else { return true };
            let same = entry.uid.as_ref().is_none_or(|uid| *uid == identity.uid);
            entry.uid = Some(Arc::clone(&identity.uid));
            same
        });
    }

    /// Finds the place of each share's counters, and makes one for those that are new.
    fn locate(&mut self, snapshot: &Snapshot, now: Duration) {
        let mut places = std::mem::take(&mut self.places);
        places.resize(snapshot.shares.len(), None);
        let mut new = Vec::new();
        for (share, place) in snapshot.shares.iter().zip(&mut places) {
            let Some(name) = name(snapshot, share) else {
                *place = None;
                continue;
            };
            *place = self.find(name, *place).ok();
            match place.and_then(|place| self.containers.get_mut(place)) {
                Some(entry) => entry.seen = now,
                None => new.push(name),
            }
        }
        for &name in &new {
            if self.containers.len() >= ENTRIES_MAX && !self.make_room(now) {
                break;
            }
            if let Err(place) = self.find(name, None) {
                self.containers.insert(place, Entry::new(name, now));
            }
        }
        if !new.is_empty() {
            // Others have moved.
            let found = |share| name(snapshot, share).and_then(|name| self.find(name, None).ok());
            places = snapshot.shares.iter().map(found).collect();
        }
        self.places = places;
    }

    /// The place of a name, most likely where it was a tick ago; or where it would have to be.
    fn find(&self, name: Name<'_>, before: Option<usize>) -> Result<usize, usize> {
        let stayed = |place: &usize| self.containers.get(*place).is_some_and(|entry| entry.name() == name);
        match before.filter(stayed) {
            Some(place) => Ok(place),
            None => self.containers.binary_search_by(|entry| entry.name().cmp(&name)),
        }
    }

    /// Makes a place for one more: the container that has gone longest gives its own up, if one has gone.
    fn make_room(&mut self, now: Duration) -> bool {
        let gone = self.containers.iter().enumerate().filter(|(_, entry)| entry.seen < now);
        let Some((longest, _)) = gone.min_by_key(|(_, entry)| entry.seen) else { return false };
        self.containers.remove(longest);
        true
    }

    /// The total of a share, by its position in the snapshot that was added last.
    #[must_use]
    pub fn of(&self, share: usize) -> Total {
        let place = self.places.get(share).copied().flatten();
        place.and_then(|place| self.containers.get(place)).map_or_else(Total::default, |entry| entry.total)
    }

    /// The total of one GPU.
    #[must_use]
    pub fn of_gpu(&self, uuid: &str) -> GpuTotal {
        self.gpus.get(uuid).map_or_else(GpuTotal::default, |device| device.total)
    }

    /// Joules since the last snapshot: the driver's counter where there is one, else power times time.
    /// Zero at the first look, after a gap of this GPU and when the counter restarted; absent when neither is read.
    fn device_joules(&mut self, gpu: &crate::gpu::Gpu, seconds: f64, (now, gap): (Duration, Duration)) -> Option<f64> {
        let device = self.gpus.entry(Arc::clone(&gpu.identity.uuid)).or_default();
        let before = device.energy.filter(|(_, at)| now.saturating_sub(*at) <= gap);
        let Some(joules) = gpu.energy_joules else {
            // A counter that is not read this time will have counted the time by the next.
            return before.map(|_| 0.0).or_else(|| gpu.power_watts.map(|watts| watts * seconds));
        };
        device.energy = Some((joules, now));
        let grown = |(before, at): (f64, Duration)| {
            let most = now.saturating_sub(at).as_secs_f64() * WATTS_MAX;
            Some(joules - before).filter(|grown| (0.0..=most).contains(grown))
        };
        Some(before.and_then(grown).unwrap_or(0.0))
    }

    fn advance_gpus(&mut self, snapshot: &Snapshot, seconds: f64, joules: &[Option<f64>]) {
        for (position, (gpu, joules)) in snapshot.gpus.iter().zip(joules).enumerate() {
            let Some(device) = self.gpus.get_mut(&gpu.gpu.identity.uuid) else { continue };
            let attributed: f64 =
                snapshot.shares.iter().filter(|share| share.gpu == position).filter_map(|share| share.energy).sum();
            let total = &mut device.total;
            let time = |percent: Option<f64>| percent.map(|percent| percent / 100.0 * seconds);
            grow(&mut total.busy_seconds, time(gpu.gpu.utilization));
            grow(&mut total.unattributed_seconds, time(gpu.unattributed_utilization));
            grow(&mut total.unattributed_joules, joules.map(|joules| (1.0 - attributed).max(0.0) * joules));
        }
    }
}

fn name<'a>(snapshot: &'a Snapshot, share: &'a Share) -> Option<Name<'a>> {
    let gpu = &snapshot.gpus.get(share.gpu)?.gpu;
    let uuid = match share.instance {
        Some(instance) => &gpu.mig.as_ref()?.get(instance)?.uuid,
        None => &gpu.identity.uuid,
    };
    Some((uuid, &share.owner))
}

/// A counter begins with the first measurement and then only grows.
fn grow(counter: &mut Option<f64>, by: Option<f64>) {
    if let Some(by) = by {
        *counter.get_or_insert(0.0) += by.max(0.0);
    }
}

#[cfg(test)]
mod tests;
