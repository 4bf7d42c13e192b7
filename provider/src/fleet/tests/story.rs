//! One property over random interleavings of what CA asks and what a cloud that answers launches does.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// One step of a random story. Numbers pick among what is there.
#[derive(Clone, Debug)]
enum Step {
    Increase(u8),
    Decrease(u8),
    Delete(u8, bool),
    DeletePlaceholder(u8),
    Answer { refused: u8 },
    Vanish(u8),
    List,
    Expire,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..5_u8).prop_map(Step::Increase),
        (1..5_u8).prop_map(Step::Decrease),
        (any::<u8>(), any::<bool>()).prop_map(|(pick, fake)| Step::Delete(pick, fake)),
        any::<u8>().prop_map(Step::DeletePlaceholder),
        (0..4_u8).prop_map(|refused| Step::Answer { refused }),
        any::<u8>().prop_map(Step::Vanish),
        Just(Step::List),
        Just(Step::Expire),
        Just(Step::Restart),
    ]
}

/// The fleet beside a toy cloud that does what it is told, and a plain count of what the target has to be.
struct Story {
    fleet: Fleet,
    cloud: BTreeMap<InstanceId, Instance>,
    launches: Vec<Launch>,
    tokens: bool,
    clock: u64,
    made: u64,
}

impl Story {
    fn list(&mut self) {
        self.clock += 40_000;
        let instances = self.cloud.values().cloned().collect();
        list(&mut self.fleet, group("g", 1, 12), instances, self.clock);
    }

    fn take(&mut self, step: &Step) {
        self.clock += 1;
        let (now, before) = (Timestamp(self.clock), target(&self.fleet));
        let pick = |pick: u8, of: usize| usize::from(pick) % of.max(1);
        match step {
            Step::Increase(delta) => {
                let Ok(count) = self.fleet.may_increase("g", i32::from(*delta)) else { return };
                self.made += 1;
                let id = IntentId::new(self.made, Timestamp(7));
                self.fleet.increase("g", count, id.clone(), now);
                assert_eq!(target(&self.fleet), before + count);
                self.launches.extend(self.fleet.next_launch("g", &id, count, Vec::new()));
            }
            Step::Decrease(delta) => {
                let done = self.fleet.decrease("g", -i32::from(*delta)).is_ok();
                assert_eq!(target(&self.fleet), before - if done { u32::from(*delta) } else { 0 });
            }
            Step::Delete(at, fake) => {
                let Some(id) = self.cloud.keys().nth(pick(*at, self.cloud.len())).cloned() else { return };
                let node = Named { id: id.to_string(), fake: *fake };
                // A machine whose launch has no answer yet may not be known: then nothing may happen.
                let Ok(deletion) = self.fleet.delete("g", &[node]) else {
                    return assert_eq!(target(&self.fleet), before);
                };
                assert_eq!(target(&self.fleet), before - u32::try_from(deletion.terminate.len()).unwrap());
                assert!(deletion.terminate.iter().all(|it| *it == id), "only what was named");
                for id in deletion.terminate {
                    self.cloud.remove(&id);
                }
            }
            Step::DeletePlaceholder(at) => {
                let places = placeholders(&self.fleet);
                let Some((id, _)) = places.get(pick(*at, places.len())) else { return };
                assert!(self.fleet.delete("g", &[fake(id)]).unwrap().terminate.is_empty());
                assert_eq!(target(&self.fleet), before - 1);
            }
            Step::Answer { refused } => self.answer(u32::from(*refused)),
            Step::Vanish(at) => {
                let Some(id) = self.cloud.keys().nth(pick(*at, self.cloud.len())).cloned() else { return };
                self.cloud.remove(&id);
            }
            Step::List => self.list(),
            Step::Expire => _ = self.fleet.expire(now),
            Step::Restart => {
                self.fleet = Fleet::restore(self.fleet.saved());
                self.list();
                self.launches = self.fleet.unanswered();
            }
        }
    }

    /// The cloud carries a launch out; sometimes a listing sees it before its answer arrives.
    fn answer(&mut self, refused: u32) {
        let Some(launch) = self.launches.pop() else { return };
        let refused = refused.min(launch.count);
        let made: Vec<Instance> = (refused..launch.count)
            .map(|n| running(&format!("{}-{n}", launch.token), self.tokens.then_some(launch.token.as_str())))
            .collect();
        self.cloud.extend(made.iter().map(|it| (it.id.clone(), it.clone())));
        if refused % 2 == 1 && self.tokens {
            self.list();
        }
        let answer = Launched { instances: made, refused: vec![(refused, refusal())], ..Launched::default() };
        self.fleet.launched(&launch, &answer, Timestamp(self.clock));
    }

    fn check(&self) {
        let view = self.fleet.group("g").unwrap();
        let shown = u32::try_from(view.placeholders().count()).unwrap();
        assert_eq!(view.target, view.live() + shown, "target = live + what is shown as not there");
        assert!(view.instances.windows(2).all(|pair| pair[0].id < pair[1].id), "sorted, no duplicates");
        for instance in &view.instances {
            assert_eq!(self.fleet.group_of(instance.id.as_str()).unwrap().group.id.as_str(), "g");
        }
    }
}

proptest! {
    #[test]
    fn the_target_stays_exact(steps in proptest::collection::vec(step(), 1..60), tokens: bool) {
        let (fleet, cloud, launches) = (fleet(1, 12, &[]), BTreeMap::new(), Vec::new());
        let mut story = Story { fleet, cloud, launches, tokens, clock: 0, made: 0 };
        for step in &steps {
            story.take(step);
            story.check();
        }
        // When everything is said and listed, the target is what lives.
        while !story.launches.is_empty() {
            story.answer(0);
        }
        story.clock += 200_000;
        story.fleet.expire(Timestamp(story.clock));
        story.list();
        story.check();
        prop_assert_eq!(target(&story.fleet) as usize, story.cloud.len());
    }
}
