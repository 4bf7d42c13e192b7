//! From host process ids to containers: reads `/proc/PID/cgroup` and the names that the kubelet gives its log files.
//! What was found is kept while the process lives; a reused pid is noticed by its start time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::cgroup::{Place, place};
use super::identity::Identities;
use super::{Holders, Owner, Whose};

/// How often the start time of a pid that stays on the GPU is read again. Only one that comes back between two readings is missed until then.
const RECHECK: Duration = Duration::from_secs(30);
/// How long a pid is remembered after it left the GPU: its last samples arrive after it has ended.
const KEPT: Duration = Duration::from_secs(10);
/// How often the log directory is listed at most, however many unknown containers appear.
const RELIST: Duration = Duration::from_secs(2);
/// Pids remembered: a hundred for each of 40 GPUs.
const PIDS_MAX: usize = 4096;
/// What the kernel keeps of `nvidia-cuda-mps-server`, which computes for its clients.
const MPS_SERVER: &str = "nvidia-cuda-mps";
/// Largest file taken from `/proc`, and largest directory listing.
const CGROUP_MAX: u64 = 64 << 10;
const ENTRIES_MAX: usize = 16_384;
/// Room that nearly every file taken from `/proc` fits into: one read gets it, and one more finds its end.
const USUAL: usize = 1024;

/// A pod by namespace and name.
pub type PodName = (Arc<str>, Arc<str>);

/// What is remembered about processes and containers.
#[derive(Debug)]
pub struct Processes {
    proc: PathBuf,
    logs: PathBuf,
    known: BTreeMap<u32, Known>,
    whose: BTreeMap<u32, Whose>,
    containers: BTreeMap<Box<str>, Arc<Owner>>,
    pods: BTreeMap<Box<str>, PodName>,
    relist_due: Duration,
    /// When pids were last resolved.
    last: Duration,
}

/// What is known on the node about containers, apart from its files.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// Who holds what.
    pub holders: &'a Holders,
    /// Pods by uid and containers by id.
    pub identities: &'a Identities,
}

#[derive(Debug, Clone)]
struct Known {
    /// Whether it has its name for good.
    settled: bool,
    start_time: Option<u64>,
    /// When it is looked at again: one without a name, or with one that its pod gave it, soon, since the kubelet names a container's log a moment
    /// after the start.
    due: Duration,
    seen: Duration,
}

/// To whom a process belongs.
struct Found {
    whose: Whose,
    /// Known of the container, rather than inferred from its pod.
    exact: bool,
    /// The pod was made again under its name: what is known of it is the old one's identity.
    made_again: bool,
}

/// What one pass over the pids found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// To whom each pid belongs that is or was on a GPU a moment ago.
    pub whose: &'a BTreeMap<u32, Whose>,
    /// A process appeared whose container holds nothing that we know of, or whose pod is not the one that we know: the kubelet should be asked at once.
    pub stranger: bool,
}

impl Processes {
    /// `proc` is the host's `/proc`, `logs` the host's `/var/log`.
    #[must_use]
    pub fn new(proc: PathBuf, logs: PathBuf) -> Self {
        let (known, whose) = (BTreeMap::new(), BTreeMap::new());
        let (containers, pods) = (BTreeMap::new(), BTreeMap::new());
        Self { proc, logs, known, whose, containers, pods, relist_due: Duration::ZERO, last: Duration::ZERO }
    }

    /// Finds out to whom the pids belong. `now` is monotonic. Reads files: a few microseconds for each new pid.
    pub fn resolve(&mut self, pids: &[u32], sources: Sources<'_>, now: Duration) -> Resolved<'_> {
        let whose = &mut self.whose;
        self.known.retain(|pid, known| {
            let kept = now.saturating_sub(known.seen) < KEPT;
            if !kept {
                whose.remove(pid);
            }
            kept
        });
        let last = std::mem::replace(&mut self.last, now);
        let mut stranger = false;
        for &pid in pids {
            match self.known.get_mut(&pid) {
                // A pid that was away for a while may be another process by now: its start time tells.
                Some(known) if known.seen >= last && now < known.due => known.seen = now,
                _ => stranger |= self.check(pid, sources, now),
            }
        }
        Resolved { whose: &self.whose, stranger }
    }

    /// Looks at a pid that is new or due. True for a stranger.
    fn check(&mut self, pid: u32, sources: Sources<'_>, now: Duration) -> bool {
        let start_time = start_time(&self.proc, pid);
        let known = self.known.get_mut(&pid);
        let new = known.is_none();
        if let Some(known) = known {
            known.seen = now;
            let same = start_time.is_none() || known.start_time == start_time;
            if same && known.settled {
                known.due = now + RECHECK;
                return false;
            }
        } else if self.known.len() >= PIDS_MAX {
            return false;
        }
        let Found { mut whose, exact, made_again } = self.whose(pid, sources, now);
        let stranger = match &mut whose {
            Whose::Container(owner) => {
                let mut holders = sources.holders.assignments.iter().map(|assignment| &assignment.owner);
                let holder = holders.find(|holder| *holder == owner);
                // From here on the two are compared without reading them.
                holder.inspect(|holder| *owner = Arc::clone(holder)).is_none()
            }
            Whose::Unknown => new,
            Whose::Host | Whose::MpsServer(_) => false,
        };
        let settled = whose != Whose::Unknown && (exact || !new);
        let due = now + if settled { RECHECK } else { RELIST };
        self.known.insert(pid, Known { settled, start_time, due, seen: now });
        self.whose.insert(pid, whose);
        stranger || made_again
    }

    fn whose(&mut self, pid: u32, sources: Sources<'_>, now: Duration) -> Found {
        let folder = self.proc.join(pid.to_string());
        let Some(text) = read(&folder.join("cgroup")) else {
            return Found { whose: Whose::Unknown, exact: false, made_again: false };
        };
        let place = place(&text);
        let (whose, exact) = place.as_ref().map_or((Whose::Host, true), |place| self.container(place, sources, now));
        let made_again = place.is_some_and(|place| made_again(&place, &whose, sources.identities));
        if read(&folder.join("comm")).is_none_or(|name| name.trim_end() != MPS_SERVER) {
            return Found { whose, exact, made_again };
        }
        match whose {
            Whose::Container(owner) => Found { whose: Whose::MpsServer(Some(owner)), exact, made_again },
            _ => Found { whose: Whose::MpsServer(None), exact: true, made_again },
        }
    }

    fn container(
        &mut self,
        place: &Place<'_>,
        Sources { holders, identities }: Sources<'_>,
        now: Duration,
    ) -> (Whose, bool) {
        let uid = place.pod_uid.as_deref().unwrap_or_default();
        if let Some(owner) = place.container_id.and_then(|id| identities.container(id)) {
            return (Whose::Container(Arc::clone(owner)), true);
        }
        // A pod that is listed may have a container that started since.
        let listed = |this: &Self| match place.container_id {
            Some(id) => this.containers.contains_key(id),
            None => this.pods.contains_key(uid),
        };
        if !listed(self) && now >= self.relist_due {
            self.relist_due = now + RELIST;
            self.list();
        }
        let by_id = place.container_id.and_then(|id| self.containers.get(id)).cloned();
        let by_pod = || only_holder(self.pods.get(uid).or_else(|| identities.name(uid))?, holders);
        let by_checkpoint = || only(holders.names.iter().filter(|((of, _), _)| of == uid).map(|(_, owner)| owner));
        let exact = by_id.is_some();
        (by_id.or_else(by_pod).or_else(by_checkpoint).map_or(Whose::Unknown, Whose::Container), exact)
    }

    /// Lists the kubelet's log directories: their names alone are read.
    fn list(&mut self) {
        self.containers = entries(&self.logs.join("containers")).filter_map(|name| container_log(&name)).collect();
        self.pods = entries(&self.logs.join("pods")).filter_map(|name| pod_log(&name)).collect();
    }
}

/// Whether the pod of this name that was identified has another uid: the process is of one that came after it.
fn made_again(place: &Place<'_>, whose: &Whose, identities: &Identities) -> bool {
    let Whose::Container(owner) = whose else { return false };
    let identity = place.pod_uid.as_deref().zip(identities.of(owner));
    identity.is_some_and(|(uid, identity)| *identity.uid != *uid)
}

/// The one container of a pod that holds a GPU; several would be a guess.
fn only_holder((namespace, pod): &PodName, holders: &Holders) -> Option<Arc<Owner>> {
    let of_pod = holders.assignments.iter().map(|assignment| &assignment.owner);
    only(of_pod.filter(|owner| owner.namespace == *namespace && owner.pod == *pod))
}

fn only<'a>(mut owners: impl Iterator<Item = &'a Arc<Owner>>) -> Option<Arc<Owner>> {
    let first = owners.next()?;
    owners.all(|other| other == first).then(|| Arc::clone(first))
}

/// `<pod>_<namespace>_<container>-<id>.log`: none of the names can hold an underscore, and the id is 64 hex digits.
#[must_use]
pub fn container_log(name: &str) -> Option<(Box<str>, Arc<Owner>)> {
    let (names, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = names.split('_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let fits = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && parts.next().is_none();
    fits.then(|| {
        (id.into(), Arc::new(Owner { namespace: namespace.into(), pod: pod.into(), container: container.into() }))
    })
}

/// `<namespace>_<pod>_<uid>`.
#[must_use]
pub fn pod_log(name: &str) -> Option<(Box<str>, PodName)> {
    let mut parts = name.split('_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then(|| (uid.into(), (namespace.into(), pod.into())))
}

fn entries(directory: &Path) -> impl Iterator<Item = String> {
    let listing = std::fs::read_dir(directory).into_iter().flatten().flatten();
    listing.take(ENTRIES_MAX).filter_map(|entry| entry.file_name().into_string().ok())
}

/// A file's text, whatever its bytes are: a process may choose its name freely.
fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut bytes = Vec::with_capacity(USUAL);
    std::fs::File::open(path).ok()?.take(CGROUP_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Field 22 of `/proc/PID/stat`, in clock ticks since boot. The name in field 2 may hold spaces and parentheses: the last one ends it.
fn start_time(proc: &Path, pid: u32) -> Option<u64> {
    parse_start_time(&read(&proc.join(pid.to_string()).join("stat"))?)
}

/// The start time out of a `stat` line.
#[must_use]
pub fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests;
