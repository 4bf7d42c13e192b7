//! What is remembered of orders between calls to AWS: what was asked of each group, what became of it, which machines are
//! being ended. One state behind one lock, which is never held while AWS is asked.

pub(super) mod watch;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_sdk_autoscaling::types::Activity;
use tokio::{
    sync::RwLock,
    time::{self, Instant},
};

use super::{
    activities::Watermark,
    desired::{self, Growth, Raised},
    lately::Lately,
    roster,
};
use crate::{
    cloud::{Look, Standing},
    fleet::group::{GroupId, InstanceId},
    timestamp::Timestamp,
};
use watch::Watch;

/// After this long a call that was not to be had is tried again: a permission may have been given meanwhile.
const ASK_AGAIN: Duration = Duration::from_mins(30);

/// The memory, shared by all who buy and return.
pub(super) struct Orders {
    /// When this process began; an order of the last one may be too fresh to be read yet.
    since: Instant,
    state: Mutex<State>,
}

struct State {
    groups: HashMap<GroupId, Group>,
    /// Machines that AWS agreed to end, of deletions that are not through.
    ended: HashSet<InstanceId>,
    /// When activities were read last.
    followed_at: Timestamp,
    /// Why `LaunchInstances` was not to be had.
    without_instances: Lately<String>,
}

/// What is remembered of one group.
#[derive(Default)]
struct Group {
    /// The order that AWS carries out.
    watch: Option<Watch>,
    raised: Raised,
    /// A raise of the desired capacity stands alone; machines are ended side by side.
    turn: Arc<RwLock<()>>,
}

impl Orders {
    pub(super) fn new() -> Self {
        let state = State {
            groups: HashMap::new(),
            ended: HashSet::new(),
            followed_at: Timestamp::default(),
            without_instances: Lately::new(ASK_AGAIN),
        };
        Self { since: Instant::now(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group's turn: shared by those who end machines, taken whole by who raises the desired capacity.
    pub(super) fn turn(&self, group: &GroupId) -> Arc<RwLock<()>> {
        self.state().group(group).turn.clone()
    }

    /// AWS agreed to end a machine, and lowered the group's desired capacity or not.
    pub(super) fn ended(&self, group: &GroupId, machine: &InstanceId, lowered: bool) {
        let mut state = self.state();
        state.ended.insert(machine.clone());
        state.group(group).raised.lowered(u32::from(lowered));
    }

    /// Those of a deletion that AWS has not agreed to end yet.
    pub(super) fn not_ended(&self, machines: &[InstanceId]) -> Vec<InstanceId> {
        let state = self.state();
        machines.iter().filter(|machine| !state.ended.contains(*machine)).cloned().collect()
    }

    /// A deletion is answered whole: whoever names its machines again means it.
    pub(super) fn all_ended(&self, machines: &[InstanceId]) {
        let mut state = self.state();
        machines.iter().for_each(|machine| _ = state.ended.remove(machine));
    }

    /// Waits until no reading can be older than the last order of the last process.
    pub(super) async fn settled(&self) {
        time::sleep_until(self.since + desired::LAG).await;
    }

    /// What we made of the group's desired capacity.
    pub(super) fn raised(&self, group: &GroupId) -> Raised {
        self.state().group(group).raised
    }

    pub(super) fn note_raised(&self, group: &GroupId, raised: Raised) {
        self.state().group(group).raised = raised;
    }

    /// Why `LaunchInstances` was not to be had for this group lately.
    pub(super) fn without_instances(&self, group: &GroupId, now: Timestamp) -> Option<String> {
        self.state().without_instances.word(group, now)
    }

    pub(super) fn note_without_instances(&self, group: &GroupId, why: String, now: Timestamp) {
        self.state().without_instances.note(group, why, now);
    }

    /// From now on this is the group's order.
    pub(super) fn watch(&self, group: &GroupId, order: Watch) {
        self.state().group(group).watch = Some(order);
    }

    /// Whether the group's order is the one of this token.
    pub(super) fn is_watched(&self, group: &GroupId, token: &str) -> bool {
        self.state().group(group).watch.as_ref().is_some_and(|watch| watch.token == token)
    }

    /// What the activities say of the order that was given at `since`; true when that is news.
    fn hear(&self, group: &GroupId, since: &Watermark, activities: &[Activity], now: Timestamp) -> bool {
        let mut state = self.state();
        let watch = state.group(group).watch.as_mut().filter(|watch| watch.since == *since);
        watch.is_some_and(|watch| watch.hear(activities, now))
    }

    /// Groups with an order that may still come.
    pub(super) fn followed(&self) -> BTreeSet<String> {
        self.undecided().into_iter().map(|(group, _)| group.to_string()).collect()
    }

    /// Whether activities are to be read now: a loop of CA waits for what they say, or none has asked for a while.
    fn due(&self, look: Look, refresh: Duration) -> bool {
        let mut state = self.state();
        let due = look.awaited || look.now.since(state.followed_at) >= roster::BUSY.min(refresh);
        if due {
            state.followed_at = look.now;
        }
        due
    }

    /// Orders that may still come, and from where on their activities count.
    fn undecided(&self) -> Vec<(GroupId, Watermark)> {
        let state = self.state();
        let watched = state.groups.iter().filter_map(|(id, group)| Some((id, group.watch.as_ref()?)));
        let undecided = watched.filter(|(_, watch)| watch.refusal.is_none());
        undecided.map(|(group, watch)| (group.clone(), watch.since.clone())).collect()
    }

    /// What AWS still tries to bring; for groups that were given an order, with what came of it so far.
    pub(super) fn standing(&self, group: &GroupId, growth: &Growth) -> Standing {
        let open = growth.open();
        let mut state = self.state();
        let Some(watch) = state.groups.get_mut(group).and_then(|group| group.watch.as_mut()) else {
            return Standing { open, ..Standing::default() };
        };
        let refusal = watch.refusal.clone().filter(|_| open > 0);
        Standing { open, refusal, zones: std::mem::take(&mut watch.untold) }
    }
}

impl State {
    fn group(&mut self, group: &GroupId) -> &mut Group {
        self.groups.entry(group.clone()).or_default()
    }
}
