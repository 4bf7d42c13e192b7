//! What holds for every row of launches and endings, at every time, under every seed.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{START, Story, at};
use crate::{cloud::Launch, cloud::sim::Machines};

#[derive(Clone, Debug)]
enum Step {
    Launch {
        group: bool,
        count: u32,
        token: u8,
    },
    /// Ends the machine at this place in the list, if there is one.
    End(usize),
    Look,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        (any::<bool>(), 0..5_u32, any::<u8>()).prop_map(|(group, count, token)| Step::Launch { group, count, token }),
        (0..8_usize).prop_map(Step::End),
        Just(Step::Look),
    ];
    prop::collection::vec((0..6_u64, step), 1..30)
}

const SCRIPT: &str = "{at: 8s, group: spot, capacity: {a: 1, b: 2}}, {at: 20s, for: 9s, group: cpu, quota: 4}, \
    {at: 30s, group: spot, interrupt: {instances: 2, notice: 4s}}, {at: 40s, quota: 9}, {at: 45s, for: 5s, stockOut: true}";

/// Plays the steps and calls `each` after every one.
fn play(seed: u64, steps: &[(u64, Step)], mut each: impl FnMut(&Story, u64)) -> Story {
    let mut story = Story::new(SCRIPT);
    story.scenario.seed = seed;
    story.cloud = Machines::start(&story.scenario, START);
    let mut now = 0;
    for (wait, step) in steps {
        now += wait;
        match step {
            Step::Launch { group, count, token } => {
                let group = if *group { "spot" } else { "cpu" };
                story.launch(group, *count, &format!("w-{token}"), now);
            }
            Step::End(place) => {
                story.cloud.advance(&story.scenario, at(now));
                let found = story.cloud.all(at(now)).nth(*place).map(|m| (m.group.to_string(), m.id.to_string()));
                if let Some((group, id)) = found {
                    story.terminate(&group, &[&id], now).unwrap();
                }
            }
            Step::Look => {
                story.listed(now);
            }
        }
        each(&story, now);
    }
    story
}

proptest! {
    #[test]
    fn no_group_outgrows_its_maximum_and_no_zone_its_capacity(seed: u64, steps in steps()) {
        play(seed, &steps, |story, now| {
            let mut in_group: BTreeMap<&str, u32> = BTreeMap::new();
            let mut in_zone: BTreeMap<(&str, &str), u32> = BTreeMap::new();
            for machine in story.cloud.all(at(now)).filter(|machine| machine.lives(at(now))) {
                *in_group.entry(machine.group.as_str()).or_default() += 1;
                *in_zone.entry((machine.group.as_str(), machine.zone.as_str())).or_default() += 1;
            }
            assert!(in_group.get("spot").is_none_or(|n| *n <= 6) && in_group.get("cpu").is_none_or(|n| *n <= 10));
            assert!(in_zone.get(&("spot", "a")).is_none_or(|n| *n <= 3));
        });
    }

    #[test]
    fn the_same_seed_tells_the_same_story(seed: u64, steps in steps()) {
        let once = play(seed, &steps, |_, _| {});
        // Looking more often changes nothing.
        let looked: Vec<_> = steps.iter().flat_map(|step| [(step.0, Step::Look), (0, step.1.clone())]).collect();
        let again = play(seed, &looked, |_, _| {});
        prop_assert_eq!(once.cloud, again.cloud);
    }

    #[test]
    fn a_launch_accounts_for_every_machine_and_its_token_launches_once(seed: u64, steps in steps(), count in 1..6_u32) {
        let mut story = play(seed, &steps, |_, _| {});
        let now = at(1000);
        story.cloud.advance(&story.scenario, now);
        let launch = Launch::new("spot".into(), count, "fresh".into());
        let before = story.cloud.all(now).count();
        if let Ok(launched) = story.cloud.launch(&story.scenario, &launch, now) {
            let refused: u32 = launched.refused.iter().map(|(count, _)| count).sum();
            prop_assert_eq!(u32::try_from(launched.instances.len()).unwrap() + refused, count);
            prop_assert_eq!(story.cloud.all(now).count(), before + launched.instances.len());
            prop_assert_eq!(story.cloud.launch(&story.scenario, &launch, now), Ok(launched.clone()));
            prop_assert_eq!(story.cloud.all(now).count(), before + launched.instances.len());
        }
    }

    #[test]
    fn a_state_file_gives_back_the_same_cloud(seed: u64, steps in steps()) {
        let cloud = play(seed, &steps, |_, _| {}).cloud;
        let text = serde_json::to_string(&cloud).unwrap();
        prop_assert_eq!(serde_json::from_str::<Machines>(&text).unwrap(), cloud);
    }

    #[test]
    fn no_text_breaks_the_reader(text in ".{0,200}") {
        let _ = super::Scenario::parse(&text, std::path::Path::new("any"));
    }
}
