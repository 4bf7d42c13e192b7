//! Asking for machines: zone by zone with `LaunchInstances`, or by raising the desired capacity and watching what AWS
//! makes of it.
//!
//! The desired capacity is only ever raised. Lowering it hands AWS the choice of which machine goes, and no reading can
//! tell in time that none has to: a launch that begins between the reading and the call, or that the reading does not
//! show yet, makes one machine too many, and a healthy one may pay for it (kubernetes/autoscaler#10147). Suspending the
//! process `Terminate` meanwhile does not help, since AWS keeps that for machines in service and ends pending ones all
//! the same. So what is no longer wanted stays with the group as an order. A later request takes it over; a machine that
//! comes of it with nobody waiting is ended by its name, which lowers the desired capacity by exactly that machine.

use aws_sdk_autoscaling::types::{AutoScalingGroup, RetryStrategy};

use super::{
    AutoScaling,
    activities::Watermark,
    desired::{self, Growth, Raised},
    errors, launch,
    orders::watch::Watch,
};
use crate::{
    cloud::{CloudError, Launch, Launched},
    config::LaunchMode,
    fleet::group::{GroupId, RefusalClass},
    keeper::clock,
};

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
                self.orders.note_without_instances(&launch.group, refusal.message, clock());
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
        let why = self.orders.without_instances(group, clock())?;
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
        let before = self.orders.raised(&launch.group);
        let growth = before.corrected(Growth::of(&self.describe(&launch.group).await?), clock());
        if let Some(refusal) = growth.obstacle() {
            return Err(CloudError::Refused(refusal));
        }
        if !self.orders.is_watched(&launch.group, &launch.token) {
            // Where AWS tries for something already, its failures up to now are told from those to come by name.
            let since = match growth.open() {
                0 => Watermark::at(self.manners.now()),
                _ => Watermark::of(&self.activities(&launch.group, None).await?),
            };
            self.orders.watch(&launch.group, Watch::new(&launch.token, since, growth.zones.clone()));
        }
        if let Some(to) = before.next(&growth, &launch.wanted, clock()) {
            tracing::info!(group = %launch.group, from = growth.desired, to, "raising the desired capacity");
            self.raise(&launch.group, to, before).await?;
        }
        Ok(ordered(launch, &growth))
    }

    /// Raises the desired capacity; `before` is what we knew of it, and know again when AWS refuses.
    async fn raise(&self, group: &GroupId, to: u32, before: Raised) -> Result<(), CloudError> {
        let note = |raised| self.orders.note_raised(group, raised);
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
