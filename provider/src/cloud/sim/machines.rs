//! The cloud itself: every machine with the moments of its life, and what launching, ending and interruption do to
//! them. Values in, values out; the time is an argument.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    cloud::Listed,
    fleet::group::{GroupId, Instance, InstanceId, InstanceState, Refusal},
    timestamp::Timestamp,
};

use super::{
    draw::{draw, draw_up_to},
    refusals,
    scenario::{Happening, Scenario, SimGroup},
};

/// One machine and the moments of its life, past and to come. Whoever plays its kubelet goes by these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Machine {
    /// `sim:///<zone>/i-<number>`.
    pub id: InstanceId,
    /// The group it belongs to.
    pub group: GroupId,
    /// The zone it is in.
    pub zone: String,
    /// The client token of its launch; None when it was there from the start.
    pub token: Option<String>,
    /// When the launch was answered.
    pub launched_at: Timestamp,
    /// When the cloud calls it running.
    pub running_at: Timestamp,
    /// When its kubelet registers the Node; None when it never does.
    pub registers_at: Option<Timestamp>,
    /// When its device plugin makes the GPUs allocatable; None without GPUs and when it never registers.
    pub gpus_at: Option<Timestamp>,
    /// When the cloud said that it will take the machine back.
    pub notice_at: Option<Timestamp>,
    /// When it stops: its Node goes now.
    pub ends_at: Option<Timestamp>,
    /// When the cloud lists it no more.
    pub gone_at: Option<Timestamp>,
}

impl Machine {
    /// How far it has come; None once the cloud lists it no more.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> Option<InstanceState> {
        let reached = |moment: Option<Timestamp>| moment.is_some_and(|moment| moment <= now);
        Some(if reached(self.gone_at) {
            return None;
        } else if reached(self.ends_at) {
            InstanceState::Deleting
        } else if self.running_at <= now {
            InstanceState::Running
        } else {
            InstanceState::Creating
        })
    }

    /// Whether its kubelet has registered and the machine has not ended.
    #[must_use]
    pub fn registered(&self, now: Timestamp) -> bool {
        self.lives(now) && self.registers_at.is_some_and(|at| at <= now)
    }

    /// Whether its GPUs can be allocated: never on a machine without any.
    #[must_use]
    pub fn gpus_allocatable(&self, now: Timestamp) -> bool {
        self.lives(now) && self.gpus_at.is_some_and(|at| at <= now)
    }

    /// Whether it exists and is not on its way out.
    pub(super) fn lives(&self, now: Timestamp) -> bool {
        matches!(self.state(now), Some(InstanceState::Creating | InstanceState::Running))
    }

    pub(super) fn instance(&self, now: Timestamp) -> Instance {
        let state = self.state(now).unwrap_or(InstanceState::Deleting);
        Instance { id: self.id.clone(), state, zone: self.zone.clone(), token: self.token.clone() }
    }

    fn end(&mut self, at: Timestamp, shutdown: Duration) {
        self.ends_at = Some(at);
        self.gone_at = Some(at + shutdown);
    }
}

/// How a machine comes into the world.
pub(super) struct Birth<'a> {
    pub(super) zone: &'a str,
    /// Whether its kubelet will ever register.
    pub(super) registers: bool,
    pub(super) token: &'a str,
    pub(super) now: Timestamp,
}

/// What one launch was answered, kept so that repeating its token answers the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Answered {
    pub(super) at: Timestamp,
    pub(super) group: GroupId,
    pub(super) machines: Vec<Machine>,
    pub(super) refused: Vec<(u32, Refusal)>,
}

/// The whole cloud as a value: what the state file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Machines {
    /// When the story began: events count from here.
    pub(super) started: Timestamp,
    /// Up to when interruptions have been dealt out; None before the first.
    pub(super) advanced_to: Option<Timestamp>,
    /// The number of the next machine.
    pub(super) next: u64,
    pub(super) machines: BTreeMap<InstanceId, Machine>,
    pub(super) answered: BTreeMap<String, Answered>,
}

impl Machines {
    /// A cloud that begins now, with every group's first machines registered and ready.
    #[must_use]
    pub fn start(scenario: &Scenario, now: Timestamp) -> Self {
        let mut cloud =
            Self { started: now, advanced_to: None, next: 1, machines: BTreeMap::new(), answered: BTreeMap::new() };
        for group in scenario.groups.values() {
            let zones = group.group.zones.iter().cycle();
            for (_, zone) in (0..group.initial).zip(zones) {
                let id = cloud.name(zone);
                let mut machine = blank(id.clone(), group, zone, now);
                machine.registers_at = Some(now);
                machine.gpus_at = group.group.shape.gpus.as_ref().map(|_| now);
                cloud.machines.insert(id, machine);
            }
        }
        cloud
    }

    /// When the story began.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// One machine, for whoever plays its kubelet; None when there is none by that name any more.
    #[must_use]
    pub fn machine(&self, id: &str) -> Option<&Machine> {
        self.machines.get(id)
    }

    /// Every machine that is not gone, in order of id.
    pub fn all(&self, now: Timestamp) -> impl Iterator<Item = &Machine> {
        self.machines.values().filter(move |machine| machine.state(now).is_some())
    }

    /// Deals out what the script brought since last time, and forgets what is long gone. True when something changed.
    /// Calling it late or often gives the same story: interruptions strike who lived at their own moment.
    pub fn advance(&mut self, scenario: &Scenario, now: Timestamp) -> bool {
        let since = self.advanced_to;
        let mut changed = false;
        for (number, event) in scenario.events.iter().enumerate() {
            let at = self.started + event.at;
            let due = at <= now && since.is_none_or(|since| since < at);
            let Happening::Interrupt { instances, notice } = event.happening else { continue };
            if due && let Some(group) = event.group.as_ref().and_then(|id| scenario.groups.get(id)) {
                let subject = u64::try_from(number).unwrap_or(u64::MAX);
                self.interrupt(group, instances, (at, at + notice), |n| draw(scenario.seed ^ subject, n, "interrupt"));
                changed = true;
            }
        }
        self.advanced_to = Some(self.advanced_to.map_or(now, |before| before.max(now)));
        let machines = self.machines.len();
        self.machines.retain(|_, machine| machine.state(now).is_some());
        changed || machines != self.machines.len()
    }

    /// Every group with every machine in it that is not gone.
    #[must_use]
    pub fn list(&self, scenario: &Scenario, now: Timestamp) -> Vec<Listed> {
        let mut by_group: BTreeMap<&GroupId, Vec<Instance>> = BTreeMap::new();
        for machine in self.all(now) {
            by_group.entry(&machine.group).or_default().push(machine.instance(now));
        }
        let listed = |(id, group): (&GroupId, &SimGroup)| {
            Listed::new(group.group.clone(), by_group.remove(id).unwrap_or_default())
        };
        scenario.groups.iter().map(listed).collect()
    }

    /// Ends exactly these machines; those that are ending or gone count as done.
    ///
    /// # Errors
    /// A group that does not exist, or a machine of another group: then none is ended.
    pub fn terminate(
        &mut self,
        scenario: &Scenario,
        group: &GroupId,
        ids: &[InstanceId],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Some(found) = scenario.groups.get(group) else { return Err(refusals::no_such_group(group, scenario)) };
        let foreign = |id: &&InstanceId| self.machines.get(*id).is_some_and(|machine| machine.group != *group);
        if let Some(id) = ids.iter().find(foreign) {
            return Err(refusals::configuration(format!("machine {id} is not in group {group}; nothing was ended")));
        }
        for id in ids {
            match self.machines.get_mut(id) {
                Some(machine) if machine.lives(now) => machine.end(now, found.spans.shutdown),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes a new machine into the books.
    pub(super) fn add(&mut self, scenario: &Scenario, group: &SimGroup, birth: &Birth<'_>) -> Machine {
        let number = self.next;
        let id = self.name(birth.zone);
        let jitter = |purpose: &str| {
            let most = u64::try_from(group.spans.jitter.as_millis()).unwrap_or(u64::MAX);
            Duration::from_millis(draw_up_to(most, scenario.seed, number, purpose))
        };
        let mut machine = blank(id.clone(), group, birth.zone, birth.now);
        machine.token = Some(birth.token.to_owned());
        machine.running_at = birth.now + group.spans.pending;
        if birth.registers {
            let registers_at = machine.running_at + group.spans.boot + jitter("boot");
            machine.registers_at = Some(registers_at);
            let has_gpus = group.group.shape.gpus.is_some();
            machine.gpus_at = has_gpus.then(|| registers_at + group.spans.device + jitter("device"));
        }
        self.machines.insert(id, machine.clone());
        machine
    }

    /// The next machine's name.
    fn name(&mut self, zone: &str) -> InstanceId {
        let number = self.next;
        self.next += 1;
        format!("sim:///{zone}/i-{number:06}").into()
    }

    /// Gives notice to some of those that live at `span.0`; they end at `span.1`.
    fn interrupt(&mut self, group: &SimGroup, count: u32, span: (Timestamp, Timestamp), order: impl Fn(u64) -> u64) {
        let (at, ends_at) = span;
        let struck = |machine: &&mut Machine| {
            machine.group == group.group.id
                && machine.launched_at <= at
                && machine.notice_at.is_none()
                && machine.lives(at)
        };
        let mut living: Vec<&mut Machine> = self.machines.values_mut().filter(struck).collect();
        living.sort_by_cached_key(|machine| (order(number_of(&machine.id)), machine.id.clone()));
        for machine in living.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            machine.notice_at = Some(at);
            // Whoever ended it in the meantime was first.
            if machine.ends_at.is_none_or(|ends| ends > ends_at) {
                machine.end(ends_at, group.spans.shutdown);
            }
        }
    }
}

/// A machine that runs from now on, and of which nothing else is known.
fn blank(id: InstanceId, group: &SimGroup, zone: &str, now: Timestamp) -> Machine {
    Machine {
        id,
        group: group.group.id.clone(),
        zone: zone.to_owned(),
        token: None,
        launched_at: now,
        running_at: now,
        registers_at: None,
        gpus_at: None,
        notice_at: None,
        ends_at: None,
        gone_at: None,
    }
}

fn number_of(id: &InstanceId) -> u64 {
    id.as_str().rsplit("i-").next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
