//! Orders that AWS carries out by itself: what is remembered of each, and what its activities say became of it.

use std::{collections::BTreeMap, mem};

use aws_sdk_autoscaling::types::{Activity, Filter};

use super::super::{
    activities::{FAILED, Outlook, Watermark},
    errors, pages,
};
use crate::{
    cloud::{CloudError, Look, aws::AutoScaling},
    config::limits,
    fleet::group::{GroupId, Refusal},
    timestamp::Timestamp,
};

/// Activities in one page; the API's own limit. More failures than that since an order say nothing new.
const PAGE: i32 = 100;
const CALL: &str = "DescribeScalingActivities";

/// One order.
pub(in crate::cloud::aws) struct Watch {
    pub(super) token: String,
    pub(super) since: Watermark,
    zones: Vec<String>,
    /// What the activities said when they were read last, by id.
    stages: BTreeMap<String, String>,
    /// Zones that refused and no listing has told of yet.
    pub(super) untold: Vec<(String, Refusal)>,
    /// Why what is open will not come soon. Once that is known, nothing more is asked about this order.
    pub(super) refusal: Option<Refusal>,
}

impl Watch {
    pub(in crate::cloud::aws) fn new(token: &str, since: Watermark, zones: Vec<String>) -> Self {
        Self { token: token.to_owned(), since, zones, stages: BTreeMap::new(), untold: Vec::new(), refusal: None }
    }

    /// Takes in what the activities say at this time of AWS's clock; true when there is something to read of the group:
    /// an attempt began or ended, or AWS has given up.
    pub(super) fn hear(&mut self, activities: &[Activity], now: Timestamp) -> bool {
        let stage = |it: &Activity| Some((it.activity_id.clone()?, it.status_code.as_ref()?.as_str().to_owned()));
        let stages: BTreeMap<_, _> = activities.iter().filter_map(stage).collect();
        let moved = self.stages != stages;
        let before = mem::replace(&mut self.stages, stages);
        let outlook = Outlook::of(&self.since, activities);
        let known = |id: &String| before.get(id).is_some_and(|stage| stage == FAILED);
        for failure in outlook.failures.iter().filter(|it| !known(&it.id)) {
            self.untold.extend(failure.zone.clone().map(|zone| (zone, failure.refusal.clone())));
        }
        self.refusal = outlook.refusal(&self.zones, now);
        moved || self.refusal.is_some()
    }
}

impl AutoScaling {
    /// Reads what became of open orders. Answers the groups of which the activities say something new: they are to be read
    /// before anything is told, so that no machine that came meanwhile counts as refused.
    pub(in crate::cloud::aws) async fn follow_orders(&self, look: Look) -> Vec<String> {
        let is_open = |group: &GroupId| self.roster.growth(group).is_some_and(|growth| growth.open() > 0);
        let mut open = self.orders.undecided();
        open.retain(|(group, _)| is_open(group));
        if open.is_empty() || !self.orders.due(look, self.refresh) {
            return Vec::new();
        }
        let together = match self.activities_together(&open).await {
            Ok(together) => together,
            Err(error) => {
                tracing::warn!("what became of orders could not be read: {error}");
                return Vec::new();
            }
        };
        let mut told = Vec::new();
        for (group, since) in &open {
            let own = |all: &Vec<Activity>| {
                all.iter().filter(|it| it.auto_scaling_group_name() == Some(group.as_str())).cloned().collect()
            };
            let read = match &together {
                Some(all) => Ok(own(all)),
                None => self.activities(group, Watermark::lower_bound([since])).await,
            };
            match read {
                Ok(activities) => {
                    let now = self.manners.now();
                    if self.orders.hear(group, since, &activities, now) {
                        told.push(group.to_string());
                    }
                }
                Err(error) => tracing::warn!(%group, "what became of its order could not be read: {error}"),
            }
        }
        told
    }

    /// The activities of all groups since these orders, in one question where there are several; None where each group is
    /// to be asked for alone.
    async fn activities_together(&self, orders: &[(GroupId, Watermark)]) -> Result<Option<Vec<Activity>>, CloudError> {
        let since = Watermark::lower_bound(orders.iter().map(|(_, since)| since)).filter(|_| orders.len() > 1);
        let Some(since) = since else { return Ok(None) };
        let request = self.client.describe_scaling_activities().max_records(PAGE).filters(since_filter(since));
        let all = pages::up_to(limits::ACTIVITY_PAGES, async |token| {
            let page = request.clone().set_next_token(token).send().await;
            let page = page.map_err(|error| errors::failed(CALL, &error))?;
            Ok((page.activities.unwrap_or_default(), page.next_token))
        });
        all.await
    }

    /// The newest activities of one group.
    pub(in crate::cloud::aws) async fn activities(
        &self,
        group: &GroupId,
        since: Option<String>,
    ) -> Result<Vec<Activity>, CloudError> {
        let request = self.client.describe_scaling_activities().auto_scaling_group_name(group.as_str());
        let since = since.map(|since| vec![since_filter(since)]);
        let answer = request.max_records(PAGE).set_filters(since).send().await;
        let answer = answer.map_err(|error| errors::failed(CALL, &error))?;
        Ok(answer.activities.unwrap_or_default())
    }
}

fn since_filter(since: String) -> Filter {
    Filter::builder().name("StartTimeLowerBound").values(since).build()
}
