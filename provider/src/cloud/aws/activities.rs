//! What a group's scaling activities say of an order that AWS carries out by itself: which zones refused since it was
//! given, in AWS's own words, and whether anything is still being tried. Values only.

use std::{collections::BTreeSet, time::Duration};

use aws_sdk_autoscaling::{
    primitives::{DateTime, DateTimeFormat},
    types::Activity,
};

use super::errors;
use crate::{
    fleet::group::{Refusal, RefusalClass},
    timestamp::Timestamp,
};

/// When one zone has refused, AWS tries the next by itself; so long after the refusal, by AWS's clock, the others are given
/// to start. A machine that comes later still is adopted or given back like any other late one.
const NEXT_ZONE: Duration = Duration::from_secs(5);
/// When nothing was being tried before an order, what began this long before it is still taken for its own: AWS's clock
/// is known to the second.
const CLOCK: Duration = Duration::from_secs(2);

/// The status of an attempt that came to nothing.
pub(super) const FAILED: &str = "Failed";

/// From where on activities count. AWS's own clock and ids, so that neither a skew between the clocks nor a restart
/// makes old failures new.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Watermark {
    /// When the newest activity of then began.
    newest: Option<DateTime>,
    /// The activities that were there then.
    seen: BTreeSet<String>,
}

impl Watermark {
    /// `activities`: the newest ones, as of the moment before the order.
    pub(super) fn of(activities: &[Activity]) -> Self {
        Self {
            newest: activities.iter().filter_map(|it| it.start_time).max_by(|a, b| key(a).cmp(&key(b))),
            seen: activities.iter().filter_map(|it| it.activity_id.clone()).collect(),
        }
    }

    /// For a group that tried for nothing when the order was given, at this time of AWS's clock.
    pub(super) fn at(order: Timestamp) -> Self {
        let from = order.0.saturating_sub(u64::try_from(CLOCK.as_millis()).unwrap_or_default());
        Self { newest: i64::try_from(from).ok().map(DateTime::from_millis), seen: BTreeSet::new() }
    }

    /// The filter `StartTimeLowerBound` that lets through what any of these does; None when one of them lets all through.
    pub(super) fn lower_bound<'a>(of: impl IntoIterator<Item = &'a Self>) -> Option<String> {
        let all: Option<Vec<&DateTime>> = of.into_iter().map(|it| it.newest.as_ref()).collect();
        all?.into_iter().min_by_key(|at| key(at))?.fmt(DateTimeFormat::DateTime).ok()
    }

    fn is_new(&self, activity: &Activity) -> bool {
        let known = activity.activity_id.as_ref().is_some_and(|id| self.seen.contains(id));
        let older = match (&activity.start_time, &self.newest) {
            (Some(at), Some(newest)) => key(at) < key(newest),
            _ => false,
        };
        !known && !older
    }
}

fn key(at: &DateTime) -> (i64, u32) {
    (at.secs(), at.subsec_nanos())
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) id: String,
    pub(super) zone: Option<String>,
    pub(super) refusal: Refusal,
    /// When it was over, by AWS's clock.
    pub(super) at: Option<DateTime>,
}

/// What came of an order so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outlook {
    /// A machine is being asked for right now.
    pub(super) trying: bool,
    /// What failed, oldest first.
    pub(super) failures: Vec<Failure>,
}

impl Outlook {
    /// Reads the activities that a watermark lets through, newest first as AWS lists them.
    pub(super) fn of(watermark: &Watermark, activities: &[Activity]) -> Self {
        let launches = |it: &&Activity| it.description().is_some_and(|text| text.starts_with("Launching"));
        let mut outlook = Self::default();
        for activity in activities.iter().rev().filter(|it| watermark.is_new(it)).filter(launches) {
            match activity.status_code.as_ref().map_or("", |code| code.as_str()) {
                FAILED => outlook.failures.extend(failure(activity)),
                "Successful" | "Cancelled" => {}
                // Once there is a machine, the activity names it; it is then listed, and tells nothing of the others.
                _ => outlook.trying |= !activity.description().is_some_and(|text| text.contains("i-")),
            }
        }
        outlook
    }

    /// Why what is open will not come soon: something failed and nothing is being tried, neither now nor in a zone
    /// whose turn is next. `now` is AWS's clock.
    pub(super) fn refusal(&self, zones: &[String], now: Timestamp) -> Option<Refusal> {
        if self.trying || self.failures.is_empty() {
            return None;
        }
        let failed = |zone: &String| self.failures.iter().any(|it| it.zone.as_ref() == Some(zone));
        let elsewhere = self.failures.iter().all(|it| it.refusal.class == RefusalClass::NoCapacity)
            && zones.iter().any(|zone| !failed(zone));
        let last = self.failures.iter().filter_map(|it| it.at?.to_millis().ok()).max().unwrap_or(0);
        let quiet = now.since(Timestamp(u64::try_from(last).unwrap_or(0)));
        if elsewhere && quiet < NEXT_ZONE {
            return None;
        }
        let told = self.failures.iter().map(|it| (it.zone.clone().unwrap_or_default(), it.refusal.clone()));
        Some(errors::sum(told))
    }
}

fn failure(activity: &Activity) -> Option<Failure> {
    let message = activity.status_message().unwrap_or("AWS gave no reason").trim().to_owned();
    let code = code(&message);
    let refusal = Refusal { class: errors::class(&code), code, message };
    let at = activity.end_time.or(activity.start_time);
    Some(Failure { id: activity.activity_id.clone()?, zone: zone(activity), refusal, at })
}

/// The zone, from the activity's details, which are JSON.
fn zone(activity: &Activity) -> Option<String> {
    let details: serde_json::Value = serde_json::from_str(activity.details()?).ok()?;
    details.get("Availability Zone")?.as_str().map(str::to_owned)
}

/// Sentences that stand for a code which AWS leaves out of them; in the words of EC2.
const SENTENCES: &[(&str, &str)] = &[
    ("do not have sufficient", "InsufficientInstanceCapacity"),
    ("no Spot capacity available", "InsufficientInstanceCapacity"),
    ("Insufficient capacity", "InsufficientInstanceCapacity"),
    ("Unable to fulfill capacity", "UnfulfillableCapacity"),
    ("Max spot instance count exceeded", "MaxSpotInstanceCountExceeded"),
    ("more vCPU capacity than your current vCPU limit", "VcpuLimitExceeded"),
    ("Your quota allows for", "InstanceLimitExceeded"),
    ("not enough free addresses", "InsufficientFreeAddressesInSubnet"),
    ("maximum Fleet Requests", "MaxFleetCountExceeded"),
    ("is not supported in your requested Availability Zone", "Unsupported"),
    ("requested configuration is currently not supported", "Unsupported"),
    ("price is lower than the minimum", "SpotMaxPriceTooLow"),
    ("not authorized to", "UnauthorizedOperation"),
    ("Access denied", "AccessDenied"),
    ("Request limit exceeded", "RequestLimitExceeded"),
];

/// AWS's code in a status message: written before a dash ("Could not launch Spot Instances. UnfulfillableCapacity -
/// Unable to …"), or known by its sentence.
fn code(message: &str) -> String {
    let written = message.split(" - ").next().filter(|before| before.len() < message.len());
    let written = written.and_then(|before| before.split_whitespace().next_back()).filter(|word| is_code(word));
    let known = || SENTENCES.iter().find(|(sentence, _)| message.contains(sentence)).map(|(_, code)| *code);
    written.or_else(known).unwrap_or("LaunchFailed").to_owned()
}

/// Camel case with an inner hump, as every code of EC2 is: `VcpuLimitExceeded`, `InvalidParameterValue`.
fn is_code(word: &str) -> bool {
    let camel = word.chars().skip(1).any(char::is_uppercase) && word.chars().skip(1).any(char::is_lowercase);
    camel && word.starts_with(char::is_uppercase) && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
}

#[cfg(test)]
mod tests;
