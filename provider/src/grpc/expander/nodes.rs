//! The nodes CA plans with, one for each group: its copy of a real node where the group has a ready one, and of our own
//! description where it has none. The first kind teaches us what the second should be.

use std::collections::HashMap;

use prost::Message as _;
use windlass_proto::core::Node;

use crate::{
    fleet::{Fleet, group::GroupId, learned::Learned},
    timestamp::Timestamp,
};

/// What is new in these nodes. A node that cannot be read, or is no machine of its group, teaches nothing.
pub(super) fn learned<B: AsRef<[u8]>>(
    nodes: &HashMap<String, B>,
    fleet: &Fleet,
    now: Timestamp,
) -> Vec<(GroupId, Learned)> {
    let one = |(id, bytes): (&String, &B)| {
        let group = &fleet.group(id)?.group;
        let node = Node::decode(bytes.as_ref()).ok()?;
        let machine = node.spec.as_ref()?.provider_id();
        if fleet.group_of(machine)?.group.id != group.id {
            return None;
        }
        let learned = Learned::of(&node, group, now)?;
        let known = fleet.learned(id).is_some_and(|known| known.is_like(&learned));
        (!known).then(|| (group.id.clone(), learned))
    };
    nodes.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use windlass_proto::core::{NodeSpec, Quantity};

    use super::*;
    use crate::{
        cloud::Listed,
        fleet::{
            group::{Instance, InstanceState},
            listing::Reading,
            template::{self, Dialect},
            tests::group,
        },
    };

    const NOW: Timestamp = Timestamp(1);
    const MACHINE: &str = "aws:///eu-west-1a/i-1";

    fn list(fleet: &mut Fleet) {
        let (id, zone) = (MACHINE.into(), "eu-west-1a".to_owned());
        let instances = vec![Instance { id, state: InstanceState::Running, zone, token: None }];
        let listing = vec![Listed::new(group("g", 0, 3), instances)];
        fleet.listed(listing, Reading { begun: NOW, now: NOW, dialect: &Dialect::sim(), overrides: &BTreeMap::new() });
    }

    fn node(machine: &str, gpus: &str) -> HashMap<String, Vec<u8>> {
        let mut node = template::node(&group("g", 0, 3), &Dialect::sim());
        node.spec = Some(NodeSpec { provider_id: Some(machine.to_owned()), ..NodeSpec::default() });
        let gpus = Quantity { string: Some(gpus.to_owned()) };
        node.status.as_mut().unwrap().allocatable.insert("nvidia.com/gpu".to_owned(), gpus);
        HashMap::from([("g".to_owned(), node.encode_to_vec())])
    }

    #[test]
    fn a_node_that_is_no_machine_of_its_group_teaches_nothing() {
        let mut fleet = Fleet::default();
        list(&mut fleet);
        let taught = |machine: &str| learned(&node(machine, "1"), &fleet, NOW).len();
        assert_eq!((taught(MACHINE), taught("aws:///eu-west-1a/i-other"), taught("")), (1, 0, 0));
        let broken = HashMap::from([("g".to_owned(), vec![0xff_u8; 9])]);
        assert_eq!(learned(&broken, &fleet, NOW), []);
    }

    #[test]
    fn what_a_node_taught_describes_the_group_over_a_restart() {
        let mut fleet = Fleet::default();
        list(&mut fleet);
        for (id, node) in learned(&node(MACHINE, "4"), &fleet, NOW) {
            fleet.learn(id, node);
        }
        list(&mut fleet);
        let kept = serde_json::to_string(&fleet.saved()).unwrap();
        let mut next = Fleet::restore(serde_json::from_str(&kept).unwrap());
        list(&mut next);
        for fleet in [&fleet, &next] {
            let view = fleet.group("g").unwrap();
            assert_eq!(view.group.shape.gpus.as_ref().unwrap().count, 4);
            let allocatable = &view.template.status.as_ref().unwrap().allocatable;
            assert_eq!(allocatable["nvidia.com/gpu"].string(), "4");
            assert_eq!(view.group.warnings.len(), 1, "{:?}", view.group.warnings);
        }
        assert_eq!(learned(&node(MACHINE, "4"), &next, NOW), []);
        next.listed(
            Vec::new(),
            Reading { begun: NOW, now: NOW, dialect: &Dialect::sim(), overrides: &BTreeMap::new() },
        );
        assert!(next.learned("g").is_none());
    }
}
