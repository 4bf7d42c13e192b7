//! One launch over the zones of a group: what to ask next, and what it all came to. Values only.

use std::collections::VecDeque;

use aws_sdk_autoscaling::operation::launch_instances::LaunchInstancesOutput;

use super::errors;
use crate::{
    cloud::{Launch, Launched},
    fleet::group::{Instance, InstanceState, Refusal, RefusalClass},
};

/// Most machines of one call; the API's own limit.
const CALL: u32 = 100;

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) zone: String,
    pub(super) count: u32,
    /// Tied to launch, zone and place in it: repeating the launch repeats exactly these calls.
    pub(super) token: String,
}

#[cfg(test)]
impl Ask {
    pub(super) fn answer(&self, instances: Vec<Instance>, refusal: Option<Refusal>) -> Answer {
        Answer { zone: self.zone.clone(), asked: self.count, instances, refusal }
    }
}

/// What came of one call.
#[derive(Debug)]
pub(super) struct Answer {
    zone: String,
    asked: u32,
    instances: Vec<Instance>,
    refusal: Option<Refusal>,
}

/// How far a launch has come.
#[derive(Debug)]
pub(super) struct Progress {
    token: String,
    missing: u32,
    calls: u32,
    zones: VecDeque<String>,
    instances: Vec<Instance>,
    refusals: Vec<(String, Refusal)>,
}

impl Progress {
    /// The zones are asked in the launch's own order, and in `zones`' where it has none. It stays the same when the
    /// launch is repeated, whatever was learned of the zones meanwhile: another order would be another request.
    pub(super) fn new(launch: &Launch, zones: &[String]) -> Self {
        let zones = if launch.zones.is_empty() { zones } else { &launch.zones };
        Self {
            token: launch.token.clone(),
            missing: launch.count,
            calls: 0,
            zones: zones.iter().cloned().collect(),
            instances: Vec::new(),
            refusals: Vec::new(),
        }
    }

    /// The next call; None when all has come or every zone has refused.
    pub(super) fn next(&mut self) -> Option<Ask> {
        let zone = self.zones.front().filter(|_| self.missing > 0)?.clone();
        self.calls += 1;
        let token = format!("{}-{zone}-{}", self.token, self.calls);
        Some(Ask { count: self.missing.min(CALL), zone, token })
    }

    /// A call that brought less than it was asked for ends its zone; one that no other zone can mend ends them all.
    pub(super) fn take(&mut self, answer: Answer) {
        let came = u32::try_from(answer.instances.len()).unwrap_or(u32::MAX);
        self.missing = self.missing.saturating_sub(came);
        self.instances.extend(answer.instances);
        if came < answer.asked {
            self.zones.pop_front();
            if answer.refusal.as_ref().is_some_and(|refusal| refusal.class == RefusalClass::Permission) {
                self.zones.clear();
            }
            self.refusals.extend(answer.refusal.map(|refusal| (answer.zone, refusal)));
        }
    }

    /// What it all came to. Zones that refused while others gave are no refusal of the launch.
    pub(super) fn launched(self) -> Launched {
        let refused = match self.missing {
            0 => Vec::new(),
            missing => vec![(missing, errors::sum(self.refusals.iter().cloned()))],
        };
        Launched { instances: self.instances, refused, zones: self.refusals, ..Launched::default() }
    }
}

/// Reads the answer to one call; None when it has fewer machines than were asked for and no error: it broke off, since
/// the SDK takes what is there for the whole, and only its token tells what came.
pub(super) fn answered(ask: &Ask, output: LaunchInstancesOutput) -> Option<Answer> {
    let instances = output.instances.unwrap_or_default().into_iter().flat_map(|collection| {
        let zone = collection.availability_zone.unwrap_or_else(|| ask.zone.clone());
        let ids = collection.instance_ids.unwrap_or_default().into_iter();
        ids.map(move |id| Instance {
            id: format!("aws:///{zone}/{id}").into(),
            state: InstanceState::Creating,
            zone: zone.clone(),
            token: None,
        })
    });
    let errors = output.errors.unwrap_or_default().into_iter();
    let refusals = errors.map(|it| {
        let place = [it.instance_type, it.market_type].into_iter().flatten().collect::<Vec<_>>().join(" ");
        (place, errors::refusal(it.error_code.as_deref(), it.error_message.as_deref()))
    });
    let refusals: Vec<_> = refusals.collect();
    let refusal = (!refusals.is_empty()).then(|| errors::sum(refusals));
    let instances: Vec<_> = instances.collect();
    let whole = refusal.is_some() || u32::try_from(instances.len()).is_ok_and(|came| came >= ask.count);
    whole.then(|| Answer { zone: ask.zone.clone(), asked: ask.count, instances, refusal })
}

/// A call that was refused as a whole.
pub(super) fn refused(ask: &Ask, refusal: Refusal) -> Answer {
    Answer { zone: ask.zone.clone(), asked: ask.count, instances: Vec::new(), refusal: Some(refusal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(count: u32, zones: &[&str]) -> Progress {
        let zones = zones.iter().map(ToString::to_string).collect();
        Progress::new(&Launch { zones, ..Launch::new("g".into(), count, "w-1-a".to_owned()) }, &[])
    }

    fn came(ask: &Ask, count: u32, code: &str) -> Answer {
        let machine = |n| Instance {
            id: format!("aws:///{}/i-{n}", ask.zone).into(),
            state: InstanceState::Creating,
            zone: ask.zone.clone(),
            token: None,
        };
        let refusal = (!code.is_empty()).then(|| errors::refusal(Some(code), None));
        Answer { zone: ask.zone.clone(), asked: ask.count, instances: (0..count).map(machine).collect(), refusal }
    }

    #[test]
    fn a_zone_that_refuses_sends_the_rest_to_the_next() {
        let mut progress = progress(3, &["a", "b"]);
        let first = progress.next().unwrap();
        progress.take(came(&first, 1, "InsufficientInstanceCapacity"));
        let second = progress.next().unwrap();
        assert_eq!((first.zone.as_str(), second.zone.as_str(), second.count), ("a", "b", 2));
        progress.take(came(&second, 2, ""));
        assert_eq!(progress.next(), None);
        let launched = progress.launched();
        assert_eq!((launched.instances.len(), launched.refused.len()), (3, 0));
        assert_eq!(launched.zones[0].0, "a", "the zone is remembered all the same");
    }

    #[test]
    fn what_no_other_zone_can_mend_is_not_asked_there() {
        let mut progress = progress(3, &["a", "b"]);
        let first = progress.next().unwrap();
        progress.take(came(&first, 0, "AccessDenied"));
        assert_eq!(progress.next(), None);
        assert_eq!(progress.launched().refused[0].1.class, RefusalClass::Permission);
    }

    #[test]
    fn when_every_zone_refuses_the_sum_is_told() {
        let mut progress = progress(2, &["a", "b"]);
        for code in ["InsufficientInstanceCapacity", "VcpuLimitExceeded"] {
            let ask = progress.next().unwrap();
            progress.take(came(&ask, 0, code));
        }
        assert_eq!(progress.next(), None);
        let refused = progress.launched().refused;
        assert_eq!(
            (refused[0].0, refused[0].1.class, refused[0].1.code.as_str()),
            (2, RefusalClass::Quota, "VcpuLimitExceeded")
        );
        assert!(refused[0].1.message.contains("a: ") && refused[0].1.message.contains("b: "));
    }

    #[test]
    fn a_repeated_launch_makes_the_same_calls() {
        let walk = || {
            let mut progress = progress(250, &["a", "b", "c"]);
            let mut asks = Vec::new();
            while let Some(ask) = progress.next() {
                progress.take(came(&ask, ask.count.min(60), "InsufficientInstanceCapacity"));
                asks.push(ask);
            }
            asks
        };
        assert_eq!(walk(), walk());
        assert!(walk().iter().all(|ask| ask.count <= CALL && ask.token.len() <= 64));
    }
}
