//! A model of one Auto Scaling group: what it was told, what it has, and what it does of its own accord, at whatever
//! moment the story lets it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::super::{
    desired::{Growth, LAG},
    launch::Ask,
};
use crate::{
    cloud::Standing,
    fleet::{
        group::{Instance, InstanceId, InstanceState},
        tests::refusal,
    },
    timestamp::Timestamp,
};

/// Most readings that may still be given.
const REMEMBERED: usize = 24;

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) zone: usize,
    pub(super) state: InstanceState,
    pub(super) made_at: Timestamp,
}

/// What a reading shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) desired: u32,
    pub(super) machines: BTreeMap<InstanceId, Machine>,
    /// The last attempt to launch failed, and none has been made since.
    pub(super) failed: bool,
}

/// The group.
#[derive(Default)]
pub(super) struct Asg {
    pub(super) now: Record,
    pub(super) past: VecDeque<(Timestamp, Record)>,
    pub(super) max: u32,
    /// Zones that refuse.
    pub(super) dry: BTreeSet<usize>,
    pub(super) made: u32,
    pub(super) answered: HashMap<String, (Vec<InstanceId>, bool)>,
    /// Machines that AWS ended because there were more than it was told: it chose them.
    pub(super) scaled_in: Vec<InstanceId>,
    /// Machines that AWS took or moved for reasons of its own.
    pub(super) taken: BTreeSet<InstanceId>,
}

pub(super) const ZONES: [&str; 2] = ["eu-west-1a", "eu-west-1b"];

impl Asg {
    /// What is now becomes one of the readings that may be given.
    pub(super) fn remember(&mut self, at: Timestamp) {
        self.past.push_front((at, self.now.clone()));
        self.past.truncate(REMEMBERED);
    }

    /// A reading `behind` the present, but no older than readings are taken to be.
    pub(super) fn read(&self, behind: usize, now: Timestamp) -> &Record {
        // A moment lasts until the next: what was true when the time allowed began may still be read.
        let fresh = self.past.iter().take_while(|(at, _)| now < *at + LAG).count();
        self.past.get(behind.min(fresh)).map_or(&self.now, |(_, record)| record)
    }

    pub(super) fn counted(&self) -> u32 {
        self.now.counted()
    }

    fn make(&mut self, zone: usize, at: Timestamp) -> InstanceId {
        self.made += 1;
        let id: InstanceId = format!("aws:///{}/i-{:04}", ZONES[zone], self.made).into();
        self.now.machines.insert(id.clone(), Machine { zone, state: InstanceState::Creating, made_at: at });
        id
    }

    fn end(&mut self, id: &InstanceId) {
        if let Some(machine) = self.now.machines.get_mut(id) {
            machine.state = InstanceState::Deleting;
        }
    }

    fn oldest(&self, zone: Option<usize>) -> Option<InstanceId> {
        let alive = self.now.machines.iter().filter(|(_, it)| it.state != InstanceState::Deleting);
        let alive = alive.filter(|(_, it)| zone.is_none_or(|zone| zone == it.zone));
        alive.min_by_key(|(id, it)| (it.made_at, (*id).clone())).map(|(id, _)| id.clone())
    }

    /// One thing towards the desired capacity: a machine launched where there is one, or ended by AWS's own choice.
    pub(super) fn act(&mut self, at: Timestamp) {
        let counted = self.counted();
        if counted > self.now.desired {
            if let Some(id) = self.oldest(None) {
                self.end(&id);
                self.scaled_in.push(id);
            }
        } else if counted < self.now.desired {
            let zone = (0..ZONES.len()).find(|zone| !self.dry.contains(zone));
            self.now.failed = zone.is_none();
            if let Some(zone) = zone {
                self.make(zone, at);
            }
        }
    }

    /// Machines come up and go away.
    pub(super) fn settle(&mut self) {
        self.now.machines.retain(|_, it| it.state != InstanceState::Deleting);
        self.now.machines.values_mut().for_each(|it| it.state = InstanceState::Running);
    }

    /// AWS takes a machine back and will replace it.
    pub(super) fn interrupt(&mut self) {
        if let Some(id) = self.oldest(None) {
            self.end(&id);
            self.taken.insert(id);
        }
    }

    /// `AZRebalance`: one more in the zone with fewest, one less in the zone with most.
    pub(super) fn rebalance(&mut self, at: Timestamp) {
        if let Some(id) = self.oldest(Some(0)).filter(|_| !self.dry.contains(&1)) {
            self.make(1, at);
            self.end(&id);
            self.taken.insert(id);
        }
    }

    pub(super) fn set_desired(&mut self, to: u32) {
        assert!(to <= self.max, "AWS refuses {to} above {}", self.max);
        self.now.desired = to;
    }

    /// `TerminateInstanceInAutoScalingGroup`, with the desired capacity lowered by it. False when it is ending or gone.
    pub(super) fn terminate(&mut self, id: &InstanceId) -> bool {
        let lives = self.now.machines.get(id).is_some_and(|it| it.state != InstanceState::Deleting);
        if lives {
            self.end(id);
            self.now.desired -= 1;
        }
        lives
    }

    /// `LaunchInstances`: the machines that came, and whether the zone refused; the same again for the same token.
    pub(super) fn launch(&mut self, ask: &Ask, room: u32, at: Timestamp) -> (Vec<InstanceId>, bool) {
        if let Some(before) = self.answered.get(&ask.token) {
            return before.clone();
        }
        let zone = ZONES.iter().position(|zone| *zone == ask.zone).unwrap();
        let room = room.min(self.max.saturating_sub(self.now.desired));
        let count = if self.dry.contains(&zone) { 0 } else { ask.count.min(room) };
        let came: Vec<InstanceId> = (0..count).map(|_| self.make(zone, at)).collect();
        self.now.desired += count;
        let answer = (came, count < ask.count);
        self.answered.insert(ask.token.clone(), answer.clone());
        answer
    }
}

impl Record {
    fn counted(&self) -> u32 {
        u32::try_from(self.machines.values().filter(|it| it.state != InstanceState::Deleting).count()).unwrap()
    }

    /// As `DescribeAutoScalingGroups` shows it to whoever raises the desired capacity.
    pub(super) fn growth(&self, max: u32) -> Growth {
        let counted = self.machines.iter().filter(|(_, it)| it.state != InstanceState::Deleting);
        Growth {
            desired: self.desired,
            max,
            listed: self.machines.keys().cloned().collect(),
            counted: counted.map(|(id, _)| id.clone()).collect(),
            ..Growth::default()
        }
    }

    /// As a listing shows it.
    pub(super) fn listed(&self) -> (Vec<Instance>, Standing) {
        let of = |(id, it): (&InstanceId, &Machine)| Instance {
            id: id.clone(),
            state: it.state,
            zone: ZONES[it.zone].to_owned(),
            token: None,
        };
        let open = self.desired.saturating_sub(self.counted());
        let refusal = (self.failed && open > 0).then(refusal);
        (self.machines.iter().map(of).collect(), Standing { open, refusal, zones: Vec::new() })
    }
}
