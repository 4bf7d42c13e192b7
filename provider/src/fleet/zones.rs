//! The zone that a group's template shows. CA plans with one node for the whole group, so it is to be in the zone in
//! which the next machine is asked for first: else pods bound to another zone would buy machines they cannot use.

use std::sync::Arc;

use prost::Message as _;

use crate::fleet::{Fleet, GroupView, offering::Offerings, template::ZONE_LABEL};

impl Fleet {
    /// Brings every template's zone up to date with what was refused lately. Whether any changed.
    pub fn show_zones(&mut self, offerings: &Offerings) -> bool {
        let mut changed = false;
        for view in self.groups.values_mut() {
            if let Some(zone) = other_zone(view, offerings) {
                show(Arc::make_mut(view), zone);
                changed = true;
            }
        }
        changed
    }
}

/// The zone to show in place of the one that is shown; None when that is right, or the group's own labels tell one.
fn other_zone(view: &GroupView, offerings: &Offerings) -> Option<String> {
    let group = &view.group;
    if group.zones.len() < 2 || group.labels.contains_key(ZONE_LABEL) {
        return None;
    }
    let first = offerings.in_order(group, |_| 0).into_iter().next()?;
    let shown = view.template.metadata.as_ref()?.labels.get(ZONE_LABEL);
    (shown != Some(&first)).then_some(first)
}

fn show(view: &mut GroupView, zone: String) {
    let template = Arc::make_mut(&mut view.template);
    template.metadata.get_or_insert_default().labels.insert(ZONE_LABEL.to_owned(), zone);
    view.template_bytes = view.template.encode_to_vec().into();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        fleet::group::{Refusal, RefusalClass},
        snapshot::scenario::{TWINS, fleet},
        timestamp::Timestamp,
    };

    const NOW: Timestamp = Timestamp(1_000_000);

    // in-tree: the template is in the group's first zone, whatever happened there.
    #[test]
    fn the_template_is_in_the_zone_that_is_asked_first() {
        let (mut fleet, mut offerings) = (fleet(TWINS, NOW), Offerings::default());
        let shown = |fleet: &Fleet| {
            let view = fleet.group("spot-a10g").unwrap();
            assert_eq!(*view.template_bytes, *view.template.encode_to_vec());
            view.template.metadata.as_ref().unwrap().labels[ZONE_LABEL].clone()
        };
        assert!(!fleet.show_zones(&offerings) && shown(&fleet) == "zone-a");
        let refusal = |class| Refusal { class, code: "code".to_owned(), message: String::new() };
        let group = fleet.group("spot-a10g").unwrap().group.clone();
        offerings.note_refusal(&group, Some("zone-a"), &refusal(RefusalClass::NoCapacity), NOW);
        assert!(fleet.show_zones(&offerings) && shown(&fleet) == "zone-b");
        assert!(!fleet.show_zones(&offerings), "it is told once");
        offerings.note_launched(&group, "zone-a");
        assert!(fleet.show_zones(&offerings) && shown(&fleet) == "zone-a");
        // Where all refuse, the one whose refusal ends first.
        for (zone, after) in [("zone-a", 60), ("zone-b", 0)] {
            let at = NOW + Duration::from_secs(after);
            offerings.note_refusal(&group, Some(zone), &refusal(RefusalClass::Quota), at);
        }
        assert!(fleet.show_zones(&offerings) && shown(&fleet) == "zone-b");
    }
}
