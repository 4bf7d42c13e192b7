//! Asking for machines: zone by zone with `LaunchInstances`, or by raising the desired capacity and watching what AWS
//! makes of it.
//!
//! The desired capacity is only ever raised. Lowering it hands AWS the choice of which machine goes, and no reading can
//! tell in time that none has to: a launch that begins between the reading and the call, or that the reading does not
//! show yet, makes one machine too many, and a healthy one may pay for it (kubernetes/autoscaler#10147). Suspending the
//! process `Terminate` meanwhile does not help, since AWS keeps that for machines in service and ends pending ones all
//! the same. So what is no longer wanted stays with the group as an order. A later request takes it over; a machine that
//! comes of it with nobody waiting is ended by its name, which lowers the desired capacity by exactly that machine.

mod watch;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_sdk_autoscaling::types::{AutoScalingGroup, RetryStrategy};
use tokio::{
    sync::RwLock,
    time::{self, Instant},
};

use super::{
    AutoScaling,
    activities::Watermark,
    desired::{self, Growth, Raised},
    errors,
    lately::Lately,
    launch, roster,
};
use crate::{
    cloud::{CloudError, Launch, Launched, Look, Standing},
    config::LaunchMode,
    fleet::group::{GroupId, InstanceId, RefusalClass},
    keeper::clock,
    timestamp::Timestamp,
};
use watch::Watch;

/// After this long a call that was not to be had is tried again: a permission may have been given meanwhile.
const ASK_AGAIN: Duration = Duration::from_mins(30);

/// What is remembered between calls.
pub(super) struct Orders {
    /// Orders that AWS carries out, by group.
    watched: Mutex<HashMap<GroupId, Watch>>,
    /// A raise of the desired capacity stands alone; machines are ended side by side.
    turns: Mutex<HashMap<GroupId, Arc<RwLock<()>>>>,
    raised: Mutex<HashMap<GroupId, Raised>>,
    /// Machines that AWS agreed to end, of deletions that are not through.
    ended: Mutex<HashSet<InstanceId>>,
    /// When this process began; an order of the last one may be too fresh to be read yet.
    since: Instant,
    /// When activities were read last.
    followed_at: Mutex<Timestamp>,
    /// Why `LaunchInstances` was not to be had.
    without_instances: Mutex<Lately<String>>,
}

impl Orders {
    pub(super) fn new() -> Self {
        Self {
            watched: Mutex::default(),
            turns: Mutex::default(),
            raised: Mutex::default(),
            ended: Mutex::default(),
            since: Instant::now(),
            followed_at: Mutex::default(),
            without_instances: Mutex::new(Lately::new(ASK_AGAIN)),
        }
    }

    /// The group's turn: shared by those who end machines, taken whole by who raises the desired capacity.
    pub(super) fn turn(&self, group: &GroupId) -> Arc<RwLock<()>> {
        lock(&self.turns).entry(group.clone()).or_default().clone()
    }

    /// AWS agreed to end a machine, and lowered the group's desired capacity or not.
    pub(super) fn ended(&self, group: &GroupId, machine: &InstanceId, lowered: bool) {
        lock(&self.ended).insert(machine.clone());
        if let Some(raised) = lock(&self.raised).get_mut(group).filter(|_| lowered) {
            raised.lowered(1);
        }
    }

    /// Those of a deletion that AWS has not agreed to end yet.
    pub(super) fn not_ended<'a>(&self, machines: &'a [InstanceId]) -> impl Iterator<Item = &'a InstanceId> {
        let ended = lock(&self.ended).clone();
        machines.iter().filter(move |machine| !ended.contains(*machine))
    }

    /// A deletion is answered whole: whoever names its machines again means it.
    pub(super) fn all_ended(&self, machines: &[InstanceId]) {
        let mut ended = lock(&self.ended);
        machines.iter().for_each(|machine| _ = ended.remove(machine));
    }

    /// Waits until no reading can be older than the last order of the last process.
    async fn settled(&self) {
        time::sleep_until(self.since + desired::LAG).await;
    }

    /// Groups with an order that may still come.
    pub(super) fn followed(&self) -> BTreeSet<String> {
        self.undecided().into_iter().map(|(group, _)| group.to_string()).collect()
    }

    /// Whether activities are to be read now: a loop of CA waits for what they say, or none has asked for a while.
    fn due(&self, look: Look, refresh: Duration) -> bool {
        let mut at = lock(&self.followed_at);
        let due = look.awaited || look.now.since(*at) >= roster::BUSY.min(refresh);
        if due {
            *at = look.now;
        }
        due
    }

    /// Orders that may still come, and from where on their activities count.
    fn undecided(&self) -> Vec<(GroupId, Watermark)> {
        let watched = lock(&self.watched);
        let undecided = watched.iter().filter(|(_, watch)| watch.refusal.is_none());
        undecided.map(|(group, watch)| (group.clone(), watch.since.clone())).collect()
    }

    /// What AWS still tries to bring; for groups that were given an order, with what came of it so far.
    pub(super) fn standing(&self, group: &GroupId, growth: &Growth) -> Standing {
        let open = growth.open();
        let mut watched = lock(&self.watched);
        let Some(watch) = watched.get_mut(group) else { return Standing { open, ..Standing::default() } };
        let refusal = watch.refusal.clone().filter(|_| open > 0);
        Standing { open, refusal, zones: std::mem::take(&mut watch.untold) }
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AutoScaling {
    /// Asks for machines by the call that the group allows.
    pub(super) async fn buy(&self, launch: &Launch) -> Result<Launched, CloudError> {
        // By the last reading: an order reads the group once more by itself.
        if self.roster.growth(&launch.group).is_some_and(|growth| !self.by_instances(&launch.group, &growth)) {
            return self.order(launch).await;
        }
        let growth = Growth::of(&self.describe(&launch.group).await?);
        if let Some(refusal) = growth.obstacle() {
            return Err(CloudError::Refused(refusal));
        }
        if !self.by_instances(&launch.group, &growth) {
            return self.order(launch).await;
        }
        match self.launch_instances(launch, &growth.zones).await {
            Err(CloudError::Refused(refusal)) if self.mode == LaunchMode::Auto => {
                tracing::warn!(
                    code = refusal.code,
                    group = %launch.group,
                    "LaunchInstances cannot be used here ({}): raising the desired capacity instead",
                    refusal.message
                );
                lock(&self.orders.without_instances).note(&launch.group, refusal.message, clock());
                self.order(launch).await
            }
            answer => answer,
        }
    }

    fn by_instances(&self, group: &GroupId, growth: &Growth) -> bool {
        match self.mode {
            LaunchMode::LaunchInstances => true,
            LaunchMode::DesiredCapacity => false,
            LaunchMode::Auto => growth.not_instances.is_none() && self.without_instances(group).is_none(),
        }
    }

    /// Why `LaunchInstances` was not to be had for this group lately: a missing permission, an older endpoint.
    pub(super) fn without_instances(&self, group: &GroupId) -> Option<String> {
        let why = lock(&self.orders.without_instances).word(group, clock())?;
        Some(format!("LaunchInstances cannot be used with it ({why}): its desired capacity is raised instead"))
    }

    /// The group as it is now.
    pub(super) async fn describe(&self, group: &GroupId) -> Result<AutoScalingGroup, CloudError> {
        let request = self.client.describe_auto_scaling_groups().auto_scaling_group_names(group.as_str());
        let answer = request.send().await.map_err(|error| errors::failed("DescribeAutoScalingGroups", &error))?;
        let found = answer.auto_scaling_groups.unwrap_or_default().into_iter().next();
        found.ok_or_else(|| CloudError::Refused(errors::sum([])))
    }

    /// Zone after zone, until all have come or all have refused. An error means that nothing was asked for at all, or
    /// that an answer is missing.
    async fn launch_instances(&self, launch: &Launch, zones: &[String]) -> Result<Launched, CloudError> {
        let mut progress = launch::Progress::new(launch, zones);
        let mut first = true;
        while let Some(ask) = progress.next() {
            match self.launch_in(&ask, &launch.group).await {
                Ok(answer) => progress.take(answer),
                Err(CloudError::Refused(refusal)) if first && is_missing(&refusal.code, refusal.class) => {
                    return Err(CloudError::Refused(refusal));
                }
                // Too many calls is no word on the zone: the launch is repeated whole, under the same tokens.
                Err(CloudError::Refused(refusal)) if refusal.class != RefusalClass::Throttled => {
                    progress.take(launch::refused(&ask, refusal));
                }
                Err(error) => return Err(error),
            }
            first = false;
        }
        Ok(progress.launched())
    }

    async fn launch_in(&self, ask: &launch::Ask, group: &GroupId) -> Result<launch::Answer, CloudError> {
        let request = self.client.launch_instances().auto_scaling_group_name(group.as_str());
        let request = request.requested_capacity(i32::try_from(ask.count).unwrap_or(i32::MAX));
        let request =
            request.client_token(&ask.token).availability_zones(&ask.zone).retry_strategy(RetryStrategy::None);
        let answer = request.send().await.map_err(|error| errors::failed("LaunchInstances", &error))?;
        let cut = || CloudError::Unknown("LaunchInstances: fewer machines than asked for, and no reason".to_owned());
        launch::answered(ask, answer).ok_or_else(cut)
    }

    /// Raises the desired capacity to what the whole group is to come to, if it is not there yet.
    async fn order(&self, launch: &Launch) -> Result<Launched, CloudError> {
        self.orders.settled().await;
        let turn = self.orders.turn(&launch.group);
        let _alone = turn.write().await;
        let before = lock(&self.orders.raised).get(&launch.group).copied().unwrap_or_default();
        let growth = before.corrected(Growth::of(&self.describe(&launch.group).await?), clock());
        if let Some(refusal) = growth.obstacle() {
            return Err(CloudError::Refused(refusal));
        }
        if lock(&self.orders.watched).get(&launch.group).is_none_or(|it| it.token != launch.token) {
            // Where AWS tries for something already, its failures up to now are told from those to come by name.
            let since = match growth.open() {
                0 => Watermark::at(self.manners.now()),
                _ => Watermark::of(&self.activities(&launch.group, None).await?),
            };
            let watch = Watch::new(&launch.token, since, growth.zones.clone());
            lock(&self.orders.watched).insert(launch.group.clone(), watch);
        }
        if let Some(to) = before.next(&growth, &launch.wanted, clock()) {
            tracing::info!(group = %launch.group, from = growth.desired, to, "raising the desired capacity");
            self.raise(&launch.group, to, before).await?;
        }
        Ok(ordered(launch, &growth))
    }

    /// Raises the desired capacity; `before` is what we knew of it, and know again when AWS refuses.
    async fn raise(&self, group: &GroupId, to: u32, before: Raised) -> Result<(), CloudError> {
        let note = |raised| _ = lock(&self.orders.raised).insert(group.clone(), raised);
        // Before the call: whoever waits for it may give up in its midst.
        note(Raised::asked(to, clock()));
        let request = self.client.set_desired_capacity().auto_scaling_group_name(group.as_str());
        let request = request.desired_capacity(i32::try_from(to).unwrap_or(i32::MAX)).honor_cooldown(false);
        let answer = request.send().await.map_err(|error| errors::failed("SetDesiredCapacity", &error));
        match &answer {
            Ok(_) => note(Raised::heard(to, clock())),
            Err(CloudError::Refused(_)) => note(before),
            Err(CloudError::Unknown(_)) => {}
        }
        answer.map(drop)
    }
}

/// The answer to an order, once the group tries for what [`Growth::raise`] says.
pub(super) fn ordered(launch: &Launch, growth: &Growth) -> Launched {
    let (to, over) = growth.raise(&launch.wanted);
    let over = over.min(launch.count);
    let ordered = launch.count - over;
    let raised = to.map_or(0, |to| to - growth.desired);
    let refused = (over > 0).then(|| (over, desired::above_max(growth.max)));
    // Asked once more, what stands may be our own first try.
    let reused = if launch.again { 0 } else { ordered.saturating_sub(raised) };
    Launched { ordered, reused, refused: refused.into_iter().collect(), ..Launched::default() }
}

/// The call itself is not to be had: an older endpoint, or credentials that were made for cluster-autoscaler's own
/// provider, which does without it.
fn is_missing(code: &str, class: RefusalClass) -> bool {
    matches!(code, "InvalidAction" | "UnsupportedOperation")
        || (class == RefusalClass::Permission && !errors::is_about_credentials(code))
}
