//! From host process ids to containers: reads `/proc/PID/cgroup` and the names that the kubelet gives its log files.
//! What was found is kept while the process lives; a reused pid is noticed by its start time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::cgroup::place;
use super::{Holders, Owner, Whose};

/// How often a known pid's start time is read again, and how long a pid is remembered after it left the GPU: its last
/// samples arrive after it has ended.
const RECHECK: Duration = Duration::from_secs(10);
/// How often the log directory is listed at most, however many unknown containers appear.
const RELIST: Duration = Duration::from_secs(2);
/// Pids remembered: a hundred for each of 40 GPUs.
const PIDS_MAX: usize = 4096;
/// Largest file taken from `/proc`, and largest directory listing.
const CGROUP_MAX: u64 = 64 << 10;
const ENTRIES_MAX: usize = 16_384;

/// A pod by namespace and name.
type PodName = (Arc<str>, Arc<str>);

/// What is remembered about processes and containers.
#[derive(Debug)]
pub struct Processes {
    proc: PathBuf,
    logs: PathBuf,
    known: BTreeMap<u32, Known>,
    containers: BTreeMap<Box<str>, Arc<Owner>>,
    pods: BTreeMap<Box<str>, PodName>,
    relist_due: Duration,
}

#[derive(Debug, Clone)]
struct Known {
    whose: Whose,
    start_time: Option<u64>,
    checked: Duration,
    seen: Duration,
}

impl Known {
    /// A process without a name is looked at again soon: the kubelet writes its log directory a moment after the start.
    fn pace(&self) -> Duration {
        if self.whose == Whose::Unknown { RELIST } else { RECHECK }
    }
}

/// What one pass over the pids found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// To whom each pid belongs.
    pub whose: BTreeMap<u32, Whose>,
    /// A process appeared whose container holds nothing that we know of: the kubelet should be asked at once.
    pub stranger: bool,
}

impl Processes {
    /// `proc` is the host's `/proc`, `logs` the host's `/var/log`.
    #[must_use]
    pub fn new(proc: PathBuf, logs: PathBuf) -> Self {
        let (known, containers, pods) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { proc, logs, known, containers, pods, relist_due: Duration::ZERO }
    }

    /// Finds out to whom the pids belong. `now` is monotonic. Reads files: a few microseconds for each new pid.
    pub fn resolve(&mut self, pids: &BTreeSet<u32>, holders: &Holders, now: Duration) -> Resolved {
        self.known.retain(|_, known| now.saturating_sub(known.seen) < RECHECK);
        let mut resolved = Resolved::default();
        for &pid in pids {
            let recheck = self.known.get(&pid).is_none_or(|known| now.saturating_sub(known.checked) >= known.pace());
            if recheck && !self.check(pid, holders, now, &mut resolved) {
                continue;
            }
            if let Some(known) = self.known.get_mut(&pid) {
                known.seen = now;
                resolved.whose.insert(pid, known.whose.clone());
            }
        }
        resolved
    }

    /// Looks at a pid that is new or due. False when there is no room to remember it.
    fn check(&mut self, pid: u32, holders: &Holders, now: Duration, resolved: &mut Resolved) -> bool {
        let start_time = start_time(&self.proc, pid);
        let new = !self.known.contains_key(&pid);
        if let Some(known) = self.known.get_mut(&pid) {
            let same = start_time.is_none() || known.start_time == start_time;
            if same && known.whose != Whose::Unknown {
                known.checked = now;
                return true;
            }
        } else if self.known.len() >= PIDS_MAX {
            return false;
        }
        let whose = self.whose(pid, holders, now);
        resolved.stranger |= match &whose {
            Whose::Container(owner) => !holders.assignments.iter().any(|assignment| assignment.owner == *owner),
            Whose::Unknown => new,
            Whose::Host => false,
        };
        self.known.insert(pid, Known { whose, start_time, checked: now, seen: now });
        true
    }

    fn whose(&mut self, pid: u32, holders: &Holders, now: Duration) -> Whose {
        let Some(text) = read(&self.proc.join(pid.to_string()).join("cgroup")) else { return Whose::Unknown };
        let Some(place) = place(&text) else { return Whose::Host };
        let listed = |this: &Self| {
            place.container_id.is_some_and(|id| this.containers.contains_key(id))
                || this.pods.contains_key(&*place.pod_uid)
        };
        if !listed(self) && now >= self.relist_due {
            self.relist_due = now + RELIST;
            self.list();
        }
        let by_id = place.container_id.and_then(|id| self.containers.get(id)).cloned();
        let by_pod = || self.only_holder(&place.pod_uid, holders);
        let by_checkpoint =
            || only(holders.names.iter().filter(|((uid, _), _)| *uid == place.pod_uid).map(|(_, owner)| owner));
        by_id.or_else(by_pod).or_else(by_checkpoint).map_or(Whose::Unknown, Whose::Container)
    }

    /// The one container of a pod that holds a GPU; several would be a guess.
    fn only_holder(&self, uid: &str, holders: &Holders) -> Option<Arc<Owner>> {
        let (namespace, pod) = self.pods.get(uid)?;
        let of_pod = holders.assignments.iter().map(|assignment| &assignment.owner);
        only(of_pod.filter(|owner| owner.namespace == *namespace && owner.pod == *pod))
    }

    /// Lists the kubelet's log directories: their names alone are read.
    fn list(&mut self) {
        self.containers = entries(&self.logs.join("containers")).filter_map(|name| container_log(&name)).collect();
        self.pods = entries(&self.logs.join("pods")).filter_map(|name| pod_log(&name)).collect();
    }
}

fn only<'a>(mut owners: impl Iterator<Item = &'a Arc<Owner>>) -> Option<Arc<Owner>> {
    let first = owners.next()?;
    owners.all(|other| other == first).then(|| Arc::clone(first))
}

/// `<pod>_<namespace>_<container>-<id>.log`: none of the names can hold an underscore, and the id is 64 hex digits.
fn container_log(name: &str) -> Option<(Box<str>, Arc<Owner>)> {
    let (names, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = names.split('_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let fits = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && parts.next().is_none();
    fits.then(|| {
        (id.into(), Arc::new(Owner { namespace: namespace.into(), pod: pod.into(), container: container.into() }))
    })
}

/// `<namespace>_<pod>_<uid>`.
fn pod_log(name: &str) -> Option<(Box<str>, PodName)> {
    let mut parts = name.split('_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then(|| (uid.into(), (namespace.into(), pod.into())))
}

fn entries(directory: &Path) -> impl Iterator<Item = String> {
    let listing = std::fs::read_dir(directory).into_iter().flatten().flatten();
    listing.take(ENTRIES_MAX).filter_map(|entry| entry.file_name().into_string().ok())
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(CGROUP_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Field 22 of `/proc/PID/stat`, in clock ticks since boot. The name in field 2 may hold spaces and parentheses: the last one ends it.
fn start_time(proc: &Path, pid: u32) -> Option<u64> {
    parse_start_time(&read(&proc.join(pid.to_string()).join("stat"))?)
}

fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests;
