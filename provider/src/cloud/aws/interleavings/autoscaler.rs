//! What cluster-autoscaler asks of the provider in a story, and that each wish changes the target by exactly itself.

use super::Story;
use crate::{
    fleet::{group::InstanceId, intents::IntentId, ledger::Named},
    timestamp::Timestamp,
};

impl Story {
    /// Cluster-autoscaler does something.
    pub(super) fn ask(&mut self) {
        let before = self.target();
        let delta = u32::try_from(1 + self.draw.below(3)).unwrap();
        match self.draw.below(5) {
            0 | 1 => {
                let Ok(count) = self.fleet.may_increase("g", i32::try_from(delta).unwrap()) else { return };
                self.intents += 1;
                let id = IntentId::new(self.intents, Timestamp(7));
                self.fleet.increase("g", count, id, self.now());
                assert_eq!(self.target(), before + count, "seed {}", self.seed);
            }
            2 => {
                let done = self.fleet.decrease("g", -i32::try_from(delta).unwrap()).is_ok();
                assert_eq!(self.target(), before - if done { delta } else { 0 }, "seed {}", self.seed);
            }
            3 => self.delete_machine(before),
            _ => self.delete_placeholder(before),
        }
        self.advance();
    }

    fn delete_machine(&mut self, before: u32) {
        let view = self.fleet.group("g").unwrap();
        let live: Vec<&InstanceId> = view.instances.iter().filter(|it| it.is_live()).map(|it| &it.id).collect();
        let Some(id) = live.get(self.draw.below(live.len())).map(|id| (*id).clone()) else { return };
        let deletion = self.fleet.delete("g", &[Named { id: id.to_string(), fake: self.draw.below(2) == 0 }]).unwrap();
        assert_eq!((deletion.terminate.as_slice(), self.target()), ([id.clone()].as_slice(), before - 1));
        self.named.insert(id);
        self.end(deletion.terminate);
    }

    fn delete_placeholder(&mut self, before: u32) {
        let view = self.fleet.group("g").unwrap();
        let places: Vec<String> = view.placeholders().map(|it| it.id.to_string()).collect();
        let Some(id) = places.get(self.draw.below(places.len())).cloned() else { return };
        let deletion = self.fleet.delete("g", &[Named { id, fake: true }]).unwrap();
        assert_eq!((deletion.terminate.len(), self.target()), (0, before - 1), "seed {}", self.seed);
    }
}
