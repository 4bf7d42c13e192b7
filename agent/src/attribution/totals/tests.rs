//! Counters as a table: seconds and joules in, totals out; gaps, restarts, pods that come and go.

use super::*;
use crate::attribution::attribute;
use crate::gpu::{Gpu, Identity, Process, ProcessUtilization, Reading};
use crate::pods::identity::{Pod, Shown};
use crate::pods::{Assignment, Holders, Whose};

fn owner(pod: &str) -> Arc<Owner> {
    Arc::new(Owner { namespace: "ml".into(), pod: pod.into(), container: "main".into() })
}

fn holders(given: &[(&str, &str)]) -> Holders {
    let give = |(pod, id): &(&str, &str)| Assignment { owner: owner(pod), device_id: (*id).into(), claimed: false };
    Holders::new(given.iter().map(give).collect())
}

/// A GPU with 1000 J on its counter: its busy percentage, and (pid, SM percent) of its processes; pid 1 is pod a's, pid 2 pod b's.
fn gpu(busy: f64, processes: &[(u32, f64)]) -> Gpu {
    Gpu {
        identity: Arc::new(Identity { uuid: "GPU-1".into(), minor: Some(0), ..Identity::default() }),
        up: true,
        utilization: Some(busy),
        energy_joules: Some(1000.0),
        processes: Some(processes.iter().map(|&(pid, _)| Process { pid, ..Process::default() }).collect()),
        process_utilization: Some(processes.iter().map(|&(pid, sm)| ProcessUtilization { pid, sm }).collect()),
        ..Gpu::default()
    }
}

fn snapshot(gpu: Gpu, holders: &Holders) -> Snapshot {
    let processes = [(1, Whose::Container(owner("a"))), (2, Whose::Container(owner("b")))].into();
    attribute(Reading { driver_version: None, gpus: vec![gpu] }, holders, &processes)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn totals_grow_by_what_was_measured() {
    let holders = holders(&[("a", "GPU-1::0"), ("b", "GPU-1::1")]);
    let at = |joules: f64| {
        let gpu = Gpu { energy_joules: Some(joules), ..gpu(80.0, &[(1, 60.0), (2, 20.0)]) };
        snapshot(gpu, &holders)
    };
    let mut totals = Totals::default();
    let gap = Duration::from_secs(3);
    let mut seen = Vec::new();
    for (second, joules) in [(10, 500.0), (11, 600.0), (13, 800.0), (60, 9000.0), (61, 9100.0), (62, 10.0), (63, 110.0)]
    {
        let snapshot = at(joules);
        totals.advance(&snapshot, Duration::from_secs(second), gap);
        let total = totals.of(0);
        let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
        seen.push(format!(
            "{second}: {:.1} {:.0} {:.0}",
            number(total.usage_seconds),
            number(total.allocated_seconds),
            number(total.energy_joules)
        ));
    }
    // The 47 s of silence and the counter's restart add nothing.
    assert_eq!(
        seen,
        [
            "10: 0.0 0 0",
            "11: 0.6 1 75",
            "13: 1.8 3 225",
            "60: 1.8 3 225",
            "61: 2.4 4 300",
            "62: 3.0 5 300",
            "63: 3.6 6 375"
        ]
    );
}

#[test]
fn a_container_that_is_back_within_minutes_goes_on_counting() {
    let (held, free) = (holders(&[("a", "GPU-1")]), holders(&[]));
    let busy = || gpu(50.0, &[]);
    let mut totals = Totals::default();
    let gap = Duration::from_secs(5);
    totals.advance(&snapshot(busy(), &held), seconds(0), gap);
    totals.advance(&snapshot(busy(), &held), seconds(2), gap);
    totals.advance(&snapshot(busy(), &free), seconds(4), gap);
    let back = snapshot(busy(), &held);
    totals.advance(&back, seconds(6), gap);
    assert_eq!(totals.of(0).usage_seconds, Some(2.0));
    assert_eq!(totals.of_gpu("GPU-1").unattributed_seconds, Some(1.0));
    totals.advance(&snapshot(busy(), &free), seconds(400), gap);
    totals.advance(&back, seconds(402), gap);
    assert_eq!(totals.of(0).usage_seconds, Some(1.0), "forgotten after five minutes");
}

#[test]
fn a_gpu_that_was_away_adds_no_energy_of_its_absence() {
    let held = holders(&[("a", "GPU-1")]);
    let at = |joules: Option<f64>| {
        snapshot(Gpu { energy_joules: joules, utilization: joules.map(|_| 50.0), ..gpu(50.0, &[]) }, &held)
    };
    let mut totals = Totals::default();
    let mut seen = Vec::new();
    // Ticks go on every second; the GPU itself says nothing from 2 to 61.
    for second in 0..64 {
        let away = (2..62).contains(&second);
        let snapshot = at((!away).then_some(100.0 * second as f64));
        totals.advance(&snapshot, seconds(second), seconds(3));
        seen.push(totals.of(0));
    }
    assert_eq!(seen[1].energy_joules, Some(100.0));
    assert_eq!(seen[62].energy_joules, Some(100.0), "6,100 J of a minute in which nobody was watched are nobody's");
    assert_eq!(seen[63].energy_joules, Some(200.0));
    assert_eq!(seen[63].usage_seconds, Some(1.5));
    assert_eq!(seen[63].allocated_seconds, Some(63.0), "the kubelet had given it all the time");
}

#[test]
fn energy_is_counted_once_whatever_the_driver_tells_of_its_counter() {
    let held = holders(&[("a", "GPU-1")]);
    let mut totals = Totals::default();
    let mut read = |second, joules: Option<f64>| {
        let gpu = Gpu { energy_joules: joules, power_watts: Some(100.0), ..gpu(50.0, &[]) };
        let snapshot = snapshot(gpu, &held);
        totals.advance(&snapshot, seconds(second), seconds(3));
        totals.of(0).energy_joules
    };
    for (second, joules, expect, what) in [
        (0, Some(26e6), 0.0, "since when is not known"),
        (1, Some(26e6 + 100.0), 100.0, "the counter's growth"),
        (2, None, 100.0, "not read: the counter goes on counting"),
        (3, Some(26e6 + 300.0), 300.0, "both seconds, once"),
        (4, Some(0.0), 300.0, "it went back"),
        (5, Some(26e6 + 500.0), 300.0, "no GPU draws that much: it was misread"),
        (6, Some(26e6 + 600.0), 400.0, "and goes on"),
        (7, None, 400.0, "not read"),
        (9, None, 400.0, "not read"),
        (10, None, 500.0, "no longer read: power times time"),
        (11, Some(26e6 + 1_100.0), 500.0, "and read again: since when is not known"),
    ] {
        assert_eq!(read(second, joules), Some(expect), "second {second}: {what}");
    }
}

#[test]
fn an_allocated_gpu_that_idles_counts_as_allocated_and_not_as_used() {
    let idle = snapshot(gpu(0.0, &[]), &holders(&[("a", "GPU-1")]));
    let mut totals = Totals::default();
    for second in 0..=60 {
        totals.advance(&idle, seconds(second), seconds(3));
    }
    let total = totals.of(0);
    assert_eq!((total.usage_seconds, total.allocated_seconds), (Some(0.0), Some(60.0)));
}

#[test]
fn a_pod_made_again_under_its_name_begins_anew() {
    let pod = |uid: &str| {
        let pod = Pod { namespace: "ml".into(), name: "a".into(), uid: uid.into(), ..Pod::default() };
        Identities::new([pod], &Shown::default())
    };
    let busy = snapshot(gpu(100.0, &[]), &holders(&[("a", "GPU-1")]));
    let mut totals = Totals::default();
    let mut used = |identities: &Identities, second| {
        totals.begin_anew(identities);
        totals.advance(&busy, seconds(second), seconds(3));
        totals.of(0).usage_seconds
    };
    assert_eq!(used(&Identities::default(), 0), Some(0.0));
    assert_eq!(used(&pod("one"), 1), Some(1.0), "an identity that comes late changes nothing");
    assert_eq!(used(&Identities::default(), 2), Some(2.0), "nor one that is not told for a while");
    assert_eq!(used(&pod("one"), 3), Some(3.0));
    assert_eq!(used(&pod("two"), 4), Some(1.0));
}

#[test]
fn pods_that_come_and_go_take_a_bounded_memory() {
    let mut totals = Totals::default();
    let stays = |second: u64| {
        let given: Vec<_> = (0..20).map(|place| (format!("p{second}-{place}"), format!("GPU-1::{place}"))).collect();
        let mut given: Vec<_> = given.iter().map(|(pod, id)| (pod.as_str(), id.as_str())).collect();
        given.push(("stays", "GPU-1::20"));
        snapshot(gpu(0.0, &[]), &holders(&given))
    };
    for second in 0..600 {
        totals.advance(&stays(second), seconds(second), seconds(3));
        assert!(totals.containers.len() <= ENTRIES_MAX);
    }
    let last = stays(599);
    let share = last.shares.iter().position(|share| &*share.owner.pod == "stays").unwrap();
    assert_eq!(totals.of(share).allocated_seconds, Some(599.0), "who is there keeps counting");
}

proptest::proptest! {
    /// Over any history, containers and the rest together have used what the GPU did, and no more than the clock and the driver's counter allow.
    #[test]
    fn no_second_and_no_joule_is_invented(
        ticks in proptest::collection::vec((1..8_u64, 0.0..=100.0_f64, 0.0..500.0_f64, 0..4_usize), 1..40),
    ) {
        let held = [&[][..], &[("a", "GPU-1")], &[("a", "GPU-1::0"), ("b", "GPU-1::1")], &[("b", "GPU-1")]].map(holders);
        let mut totals = Totals::default();
        let (mut now, mut joules, mut counted, mut watched) = (0, 0.0, 0.0, 0.0);
        for (place, (pause, busy, more, who)) in ticks.into_iter().enumerate() {
            (now, joules) = (now + pause, joules + more);
            if place > 0 && pause <= 3 {
                (counted, watched) = (counted + pause as f64, watched + more);
            }
            let gpu = Gpu { energy_joules: Some(joules), ..gpu(busy, &[(1, busy / 3.0), (2, busy / 2.0)]) };
            totals.advance(&snapshot(gpu, &held[who]), seconds(now), seconds(3));
        }
        let all = || totals.containers.iter().map(|entry| entry.total);
        let gpu = totals.of_gpu("GPU-1");
        let used = all().filter_map(|total| total.usage_seconds).sum::<f64>() + gpu.unattributed_seconds.unwrap();
        let energy = all().filter_map(|total| total.energy_joules).sum::<f64>() + gpu.unattributed_joules.unwrap();
        let busy = gpu.busy_seconds.unwrap();
        proptest::prop_assert!((used - busy).abs() <= 1e-6, "{used} GPU-seconds are not the {busy} of the GPU");
        proptest::prop_assert!(busy <= counted + 1e-6, "{busy} GPU-seconds in {counted}");
        proptest::prop_assert!((energy - watched).abs() <= 1e-6 * (1.0 + watched), "{energy} J of {watched}");
        for total in all() {
            proptest::prop_assert!(total.allocated_seconds.unwrap_or(0.0) <= counted + 1e-6);
        }
    }
}
