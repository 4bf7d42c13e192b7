//! Thousands of stories, each told from its seed: cluster-autoscaler asks and takes back, the group acts when it likes,
//! readings lag, answers are lost, the provider is killed. The ledger and the arithmetic are the shipped ones; the group
//! is a model. What must hold: nothing ends that was not named or was never used, every machine is known in the end, and
//! nothing goes on being tried for that nobody wants.
//!
//! Two things are taken for granted. A reading is a whole record of some moment, no older than the ledger reckons with.
//! And where somebody else raises the desired capacity, the reading that a raise of ours rests on shows it: AWS has no
//! way to change it on a condition.

mod asg;
mod autoscaler;
mod draw;

use std::collections::{BTreeMap, BTreeSet};

use self::{
    asg::{Asg, ZONES},
    draw::Draw,
};
use super::{
    buying,
    desired::{Growth, LAG, Raised},
    launch::Progress,
};
use crate::{
    cloud::{Launch, Launched, Listed},
    fleet::{
        Fleet,
        group::{Group, Instance, InstanceId, InstanceState},
        intents::IntentId,
        ledger::Event,
        listing::Reading,
        template::Dialect,
        tests::{group, refusal},
    },
    timestamp::Timestamp,
};

const MAX: u32 = 12;

/// A call of the provider on its way.
enum Call {
    /// Not begun.
    Launch(Launch),
    /// An order that has read the group, and holds its turn until it is made.
    Reckoned(Launch, Growth),
    /// Carried out; the answer is on its way.
    Launched(Launch, Launched),
    Terminate(Vec<InstanceId>),
}

struct Story {
    seed: u64,
    draw: Draw,
    /// Machines are bought by raising the desired capacity.
    by_desired: bool,
    /// Somebody else raises it too; see the file's head.
    others: bool,
    asg: Asg,
    fleet: Fleet,
    calls: Vec<Call>,
    /// What the adapter remembers of its own raises, and since when.
    raised: Raised,
    started_at: u64,
    clock: u64,
    intents: u64,
    /// Machines that cluster-autoscaler named, or whose end a broken start asked for.
    named: BTreeSet<InstanceId>,
    /// Machines that were shown as nodes.
    nodes: BTreeSet<InstanceId>,
    /// Machines that were given back without being named.
    returned: BTreeSet<InstanceId>,
    ended: BTreeMap<InstanceId, u64>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut draw = Draw(seed);
        let mut asg = Asg { max: MAX, ..Asg::default() };
        asg.set_desired(u32::try_from(draw.below(5)).unwrap());
        while asg.counted() < asg.now.desired {
            asg.act(Timestamp(0));
        }
        asg.settle();
        asg.remember(Timestamp(0));
        let (by_desired, others) = (draw.below(3) > 0, draw.below(3) == 0);
        let mut story = Self {
            seed,
            draw,
            by_desired,
            others,
            asg,
            fleet: Fleet::default(),
            calls: Vec::new(),
            raised: Raised::default(),
            started_at: 0,
            clock: 100_000,
            intents: 0,
            named: BTreeSet::new(),
            nodes: BTreeSet::new(),
            returned: BTreeSet::new(),
            ended: BTreeMap::new(),
        };
        story.list(0);
        story
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.clock)
    }

    fn group() -> Group {
        Group { zones: ZONES.map(str::to_owned).to_vec(), ..group("g", 0, MAX) }
    }

    fn target(&self) -> u32 {
        self.fleet.group("g").map_or(0, |view| view.target)
    }

    /// What the keeper does with a listing.
    fn list(&mut self, behind: usize) {
        let (instances, standing) = self.asg.read(behind, self.now()).listed();
        let listed = Listed { group: Self::group(), instances, standing: Some(standing) };
        let dialect = Dialect::aws();
        let overrides = BTreeMap::new();
        let reading = Reading { begun: self.now(), now: self.now(), dialect: &dialect, overrides: &overrides };
        let events = self.fleet.listed(vec![listed], reading);
        self.follow(events);
        for (_, machines) in self.fleet.doomed() {
            let late = machines.into_iter().filter(|it| self.ended.get(it).is_some_and(|at| at + 60_000 <= self.clock));
            let late: Vec<InstanceId> = late.collect();
            self.ended.extend(late.iter().map(|it| (it.clone(), self.clock)));
            self.end(late);
        }
        self.advance();
    }

    fn follow(&mut self, events: Vec<Event>) {
        for event in events {
            if let Event::Late { machine, .. } = event {
                assert!(!self.nodes.contains(&machine), "seed {}: {machine} is a node, and was given back", self.seed);
                self.returned.insert(machine.clone());
                self.end(vec![machine]);
            }
        }
    }

    fn end(&mut self, machines: Vec<InstanceId>) {
        if !machines.is_empty() {
            self.calls.push(Call::Terminate(machines));
        }
    }

    fn advance(&mut self) {
        let intents: Vec<IntentId> = self.fleet.group("g").unwrap().intents.iter().map(|it| it.id.clone()).collect();
        for intent in intents {
            let zones = ZONES.map(str::to_owned).to_vec();
            if let Some(launch) = self.fleet.next_launch("g", &intent, u32::MAX, zones) {
                self.calls.push(Call::Launch(launch));
            }
        }
    }

    /// One call goes one step on; its answer may be lost.
    fn carry(&mut self) {
        if self.calls.is_empty() {
            return;
        }
        let at = self.draw.below(self.calls.len());
        let turn = self.calls.iter().position(|call| matches!(call, Call::Reckoned(..)));
        match self.calls.swap_remove(turn.filter(|_| self.by_desired).unwrap_or(at)) {
            Call::Launch(launch) if self.by_desired => {
                if self.now() < Timestamp(self.started_at) + LAG {
                    return self.calls.push(Call::Launch(launch));
                }
                let behind = if self.others { 0 } else { self.draw.below(4) };
                let read = self.asg.read(behind, self.now()).growth(MAX);
                let growth = self.raised.corrected(read, self.now());
                if self.others {
                    return self.order(launch, &growth);
                }
                self.calls.push(Call::Reckoned(launch, growth));
            }
            Call::Launch(launch) => self.launch(launch),
            Call::Reckoned(launch, growth) => self.order(launch, &growth),
            Call::Launched(launch, launched) => {
                let events = self.fleet.launched(&launch, &launched, self.now());
                self.follow(events);
                self.advance();
            }
            Call::Terminate(machines) => {
                let lost = self.draw.below(6) == 0;
                let ended = machines.iter().filter(|machine| self.asg.terminate(machine)).count();
                self.raised.lowered(u32::try_from(ended).unwrap());
                if lost {
                    return self.end(machines);
                }
                self.ended.extend(machines.into_iter().map(|it| (it, self.clock)));
            }
        }
    }

    fn order(&mut self, launch: Launch, growth: &Growth) {
        if let Some(to) = self.raised.next(growth, &launch.wanted, self.now()) {
            match self.draw.below(8) {
                // Refused for the moment.
                0 => return self.calls.push(Call::Launch(self.fleet.repeat(&launch))),
                // AWS never hears of it, or its answer is lost.
                unheard @ (1 | 2) => {
                    self.raised = Raised::asked(to, self.now());
                    if unheard == 2 {
                        self.asg.set_desired(to);
                    }
                    return self.calls.push(Call::Launch(self.fleet.repeat(&launch)));
                }
                _ => {
                    self.raised = Raised::heard(to, self.now());
                    self.asg.set_desired(to);
                }
            }
        }
        let answer = buying::ordered(&launch, growth);
        self.answer(launch, answer);
    }

    fn answer(&mut self, launch: Launch, launched: Launched) {
        let call = match self.draw.below(6) {
            0 => Call::Launch(self.fleet.repeat(&launch)),
            _ => Call::Launched(launch, launched),
        };
        self.calls.push(call);
    }

    fn launch(&mut self, launch: Launch) {
        let mut progress = Progress::new(&launch, &[]);
        while let Some(ask) = progress.next() {
            let room = u32::try_from(self.draw.below(4)).unwrap();
            let (came, refused) = self.asg.launch(&ask, room, Timestamp(self.clock));
            let instances = came.into_iter().map(|id| Instance {
                id,
                state: InstanceState::Creating,
                zone: ask.zone.clone(),
                token: None,
            });
            progress.take(ask.answer(instances.collect(), refused.then(refusal)));
        }
        self.answer(launch, progress.launched());
    }

    /// The cloud does something of its own accord.
    fn happen(&mut self) {
        let at = Timestamp(self.clock);
        match self.draw.below(12) {
            0..6 => self.asg.act(at),
            6 | 7 => self.asg.settle(),
            8 => {
                let zone = self.draw.below(ZONES.len());
                if !self.asg.dry.remove(&zone) {
                    self.asg.dry.insert(zone);
                }
            }
            9 => self.asg.interrupt(),
            10 => self.asg.rebalance(at),
            _ if self.others && self.by_desired => {
                let to = (self.asg.now.desired + 1).min(MAX);
                self.asg.set_desired(to);
            }
            _ => {}
        }
    }

    /// The provider is killed and starts again.
    fn crash(&mut self) {
        let saved = serde_json::to_string(&self.fleet.saved()).unwrap();
        self.fleet = Fleet::restore(serde_json::from_str(&saved).unwrap());
        self.calls.clear();
        self.ended.clear();
        self.clock += 1_000;
        (self.raised, self.started_at) = (Raised::default(), self.clock);
        let behind = self.draw.below(3);
        self.list(behind);
        self.calls.extend(self.fleet.unanswered().into_iter().map(Call::Launch));
        for (_, machines) in self.fleet.doomed() {
            self.end(machines);
        }
    }

    fn step(&mut self) {
        self.clock += 200 + 100 * self.draw.below(20) as u64;
        match self.draw.below(20) {
            0..4 => self.ask(),
            4..9 => self.carry(),
            9..14 => self.happen(),
            14..18 => {
                let behind = self.draw.below(5);
                self.list(behind);
            }
            18 => self.show_nodes(),
            _ if self.draw.below(3) == 0 => self.crash(),
            _ => _ = self.fleet.expire(self.now()),
        }
        self.asg.remember(self.now());
        self.check();
    }

    /// Machines that have been up for a while are nodes by now; that they are up, every reading shows before that.
    fn show_nodes(&mut self) {
        let up =
            self.asg.read(usize::MAX, self.now()).machines.iter().filter(|(_, it)| it.state == InstanceState::Running);
        let old = up.filter(|(_, it)| it.made_at.0 + 20_000 <= self.clock).map(|(id, _)| id.clone());
        for id in old.collect::<Vec<_>>() {
            self.fleet.seen(id.as_str(), self.now());
            self.nodes.insert(id);
        }
    }

    fn check(&self) {
        let seed = self.seed;
        assert_eq!(self.asg.scaled_in, [], "seed {seed}: AWS was made to choose a machine to end");
        let view = self.fleet.group("g").unwrap();
        let shown = u32::try_from(view.placeholders().count()).unwrap();
        assert_eq!(view.target, view.live() + shown, "seed {seed}");
        for (id, it) in &self.asg.now.machines {
            let ended = it.state == InstanceState::Deleting;
            let allowed = self.named.contains(id) || self.returned.contains(id) || self.asg.taken.contains(id);
            assert!(!ended || allowed, "seed {seed}: {id} was ended, and nobody asked for that");
        }
    }

    /// Carries out what is under way, as far as it goes.
    fn calls(&mut self) {
        for _ in 0..64 {
            if self.calls.is_empty() {
                return;
            }
            self.carry();
            self.asg.remember(self.now());
        }
    }

    /// Everything under way comes to its end: then the ledger, the group and its desired capacity agree.
    fn finish(mut self) {
        let seed = self.seed;
        self.asg.dry.clear();
        for _ in 0..20 {
            self.clock += 15_000;
            for _ in 0..MAX {
                self.asg.act(Timestamp(self.clock));
            }
            self.asg.remember(self.now());
            self.list(0);
            self.calls();
            self.check();
            self.asg.settle();
            self.asg.remember(self.now());
            self.fleet.expire(self.now());
        }
        self.list(0);
        self.check();
        let view = self.fleet.group("g").unwrap();
        let known: Vec<&InstanceId> = view.instances.iter().filter(|it| it.is_live()).map(|it| &it.id).collect();
        let there: Vec<&InstanceId> = self.asg.now.machines.keys().collect();
        assert_eq!(known, there, "seed {seed}: every machine is known, and none that is not there");
        let sizes = (view.target, view.owed(), view.waiting(), self.calls.len());
        assert_eq!(sizes, (self.asg.now.desired, 0, 0, 0), "seed {seed}: nothing is tried for that nobody wants");
    }
}

// in-tree: the same race (kubernetes/autoscaler#10147, #9182, #5829).
#[test]
fn no_interleaving_of_wishes_machines_and_late_answers_ends_a_machine_that_was_not_named() {
    for seed in 0..3_000 {
        let mut story = Story::new(seed);
        for _ in 0..60 {
            story.step();
        }
        story.finish();
    }
}
