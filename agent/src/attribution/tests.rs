//! Attribution as a table: GPUs, holders and processes in, one line per share out.

use super::totals::Totals;
use super::*;
use crate::gpu::{Identity, MigInstance, Process, ProcessUtilization};
use crate::pods::Assignment;
use std::time::Duration;

const GIB: u64 = 1 << 30;

fn owner(pod: &str) -> Arc<Owner> {
    Arc::new(Owner { namespace: "ml".into(), pod: pod.into(), container: "main".into() })
}

fn holders(given: &[(&str, &str)]) -> Holders {
    Holders::new(
        given
            .iter()
            .map(|(pod, id)| Assignment { owner: owner(pod), device_id: (*id).into(), claimed: false })
            .collect(),
    )
}

/// A GPU with 10 GiB: its busy percentage, and (pid, SM percent, GiB) of its processes.
fn gpu(busy: f64, processes: &[(u32, f64, u64)]) -> Gpu {
    let used = processes.iter().map(|process| process.2).sum::<u64>() * GIB;
    Gpu {
        identity: Arc::new(Identity { uuid: "GPU-1".into(), minor: Some(0), ..Identity::default() }),
        up: true,
        utilization: Some(busy),
        memory: Some(Memory { total: 10 * GIB, used, free: 10 * GIB - used, reserved: 0 }),
        energy_joules: Some(1000.0),
        processes: Some(
            processes
                .iter()
                .map(|&(pid, _, gib)| Process { pid, memory: Some(gib * GIB), ..Process::default() })
                .collect(),
        ),
        process_utilization: Some(
            processes
                .iter()
                .filter(|process| process.1 > 0.0)
                .map(|&(pid, sm, _)| ProcessUtilization { pid, sm })
                .collect(),
        ),
        ..Gpu::default()
    }
}

/// Pids 1.. belong to pods a, b, c; 90 is the node's; everything else is unknown.
fn processes() -> Processes {
    let container = |pid, pod| (pid, Whose::Container(owner(pod)));
    Processes::from([container(1, "a"), container(2, "b"), container(3, "c"), (90, Whose::Host), (99, Whose::Unknown)])
}

fn snapshot(gpu: Gpu, holders: &Holders) -> Snapshot {
    attribute(Reading { driver_version: None, gpus: vec![gpu] }, holders, &processes())
}

fn lines(snapshot: &Snapshot) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
    let gib = |value: Option<u64>| value.map_or("-".into(), |value| format!("{}G", value / GIB));
    let share = |share: &Share| {
        let mark = if share.held { "" } else { "*" };
        format!(
            "{}{mark} {} {} {}",
            share.owner.pod,
            number(share.utilization),
            gib(share.memory_used),
            number(share.energy)
        )
    };
    let mut lines: Vec<String> = snapshot.shares.iter().map(share).collect();
    lines.extend(
        snapshot
            .gpus
            .iter()
            .map(|gpu| format!("nobody {} {}", number(gpu.unattributed_utilization), gib(gpu.unattributed_memory))),
    );
    lines
}

fn check(gpu: Gpu, given: &[(&str, &str)], expect: &[&str]) {
    assert_eq!(lines(&snapshot(gpu, &holders(given))), expect);
}

#[test]
fn an_exclusive_gpu_is_its_holders() {
    check(gpu(70.0, &[(1, 68.0, 4)]), &[("a", "GPU-1")], &["a 70.0 4G 1.0", "nobody 0.0 0G"]);
    check(gpu(0.0, &[]), &[("a", "GPU-1")], &["a 0.0 0G 1.0", "nobody 0.0 0G"]);
    // An unknown process is taken for the holder's: nobody else was given the device.
    check(gpu(70.0, &[(99, 68.0, 4)]), &[("a", "GPU-1")], &["a 70.0 4G 1.0", "nobody 0.0 0G"]);
}

#[test]
fn what_is_certainly_foreign_is_not_the_holders() {
    check(gpu(70.0, &[(1, 50.0, 4), (90, 14.0, 1)]), &[("a", "GPU-1")], &["a 56.0 4G 0.8", "nobody 14.0 1G"]);
    check(
        gpu(70.0, &[(1, 50.0, 4), (2, 14.0, 1)]),
        &[("a", "GPU-1")],
        &["a 56.0 4G 0.8", "b* 14.0 1G 0.2", "nobody 0.0 0G"],
    );
}

#[test]
fn a_shared_gpu_is_split_by_measured_time() {
    let given = [("a", "GPU-1::0"), ("b", "GPU-1::1"), ("c", "GPU-1::2"), ("c", "GPU-1::3")];
    check(
        gpu(80.0, &[(1, 50.0, 2), (2, 25.0, 3), (90, 5.0, 1)]),
        &given,
        &["a 50.0 2G 0.6", "b 25.0 3G 0.3", "c 0.0 0G 0.0", "nobody 5.0 1G"],
    );
    // MPS: the sum may exceed the busy time; each has its part of it.
    check(gpu(60.0, &[(1, 80.0, 2), (2, 40.0, 3)]), &given[..2], &["a 40.0 2G 0.7", "b 20.0 3G 0.3", "nobody 0.0 0G"]);
    check(gpu(0.0, &[(1, 0.0, 2)]), &given[..2], &["a 0.0 2G 0.0", "b 0.0 0G 0.0", "nobody 0.0 0G"]);
}

#[test]
fn an_unknown_process_is_never_spread_and_makes_zeros_uncertain() {
    let given = [("a", "GPU-1::0"), ("b", "GPU-1::1")];
    check(gpu(80.0, &[(1, 50.0, 2), (99, 30.0, 3)]), &given, &["a 50.0 2G 0.6", "b - - -", "nobody 30.0 3G"]);
}

#[test]
fn without_process_figures_a_shared_gpu_is_nobodys() {
    let given = [("a", "GPU-1::0"), ("b", "GPU-1::1")];
    let blind = Gpu { processes: None, process_utilization: None, ..gpu(80.0, &[(1, 50.0, 2)]) };
    check(blind.clone(), &given, &["a - - -", "b - - -", "nobody 80.0 2G"]);
    check(blind, &given[..1], &["a 80.0 2G 1.0", "nobody 0.0 0G"]);
}

#[test]
fn a_container_with_unknown_ids_has_what_is_measured() {
    check(gpu(40.0, &[(1, 30.0, 2)]), &[("a", "slot-17")], &["a* 30.0 2G 1.0", "nobody 10.0 0G"]);
    check(gpu(40.0, &[]), &[], &["nobody 40.0 0G"]);
}

#[test]
fn a_lost_gpu_has_holders_but_no_figures() {
    let lost = Gpu { identity: gpu(0.0, &[]).identity, ..Gpu::default() };
    check(lost, &[("a", "GPU-1")], &["a - - 1.0", "nobody - -"]);
}

#[test]
fn a_mig_instance_is_its_holders() {
    let instance = |uuid: &str, gi, used: u64| MigInstance {
        uuid: uuid.into(),
        gpu_instance: Some(gi),
        compute_instance: Some(0),
        profile: "1g.5gb".into(),
        memory: Some(Memory { total: 5 * GIB, used: used * GIB, free: (5 - used) * GIB, reserved: 0 }),
        ..MigInstance::default()
    };
    let process =
        |pid, gi, gib: u64| Process { pid, memory: Some(gib * GIB), gpu_instance: Some(gi), compute_instance: Some(0) };
    let partitioned = Gpu {
        utilization: None,
        memory: None,
        mig: Some(vec![instance("MIG-1", 7, 2), instance("MIG-2", 8, 3), instance("MIG-3", 9, 1)]),
        processes: Some(vec![process(1, 8, 1), process(2, 8, 2), process(90, 9, 1)]),
        process_utilization: None,
        ..gpu(0.0, &[])
    };
    check(
        partitioned,
        &[("c", "MIG-1"), ("a", "MIG-2::0"), ("b", "MIG-2::1")],
        &["c - 2G -", "a - 1G -", "b - 2G -", "nobody - 1G"],
    );
}

#[test]
fn totals_grow_by_what_was_measured() {
    let holders = holders(&[("a", "GPU-1::0"), ("b", "GPU-1::1")]);
    let at = |joules: f64| {
        let gpu = Gpu { energy_joules: Some(joules), ..gpu(80.0, &[(1, 60.0, 2), (2, 20.0, 1)]) };
        snapshot(gpu, &holders)
    };
    let mut totals = Totals::default();
    let gap = Duration::from_secs(3);
    let mut seen = Vec::new();
    for (second, joules) in [(10, 500.0), (11, 600.0), (13, 800.0), (60, 9000.0), (61, 9100.0), (62, 10.0), (63, 110.0)]
    {
        let snapshot = at(joules);
        totals.advance(&snapshot, Duration::from_secs(second), gap);
        let total = totals.of(&snapshot, &snapshot.shares[0]);
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
    let seconds = Duration::from_secs;
    totals.advance(&snapshot(busy(), &held), seconds(0), gap);
    totals.advance(&snapshot(busy(), &held), seconds(2), gap);
    totals.advance(&snapshot(busy(), &free), seconds(4), gap);
    let back = snapshot(busy(), &held);
    totals.advance(&back, seconds(6), gap);
    assert_eq!(totals.of(&back, &back.shares[0]).usage_seconds, Some(2.0));
    assert_eq!(totals.of_nobody("GPU-1").usage_seconds, Some(1.0));
    totals.advance(&snapshot(busy(), &free), seconds(400), gap);
    totals.advance(&back, seconds(402), gap);
    assert_eq!(totals.of(&back, &back.shares[0]).usage_seconds, Some(1.0), "forgotten after five minutes");
}

proptest::proptest! {
    /// Shares and the rest add up to the GPU, and no share leaves 0 to 100.
    #[test]
    fn nothing_is_counted_twice(
        busy in 0.0..100.0_f64,
        used in proptest::collection::vec((proptest::sample::select(vec![1_u32, 2, 3, 90, 99]), 0.0..100.0_f64, 0..3_u64), 0..5),
        given in proptest::collection::vec(
            (proptest::sample::select(vec!["a", "b", "c"]), proptest::sample::select(vec!["GPU-1", "GPU-1::0", "GPU-1::1"])), 0..4),
    ) {
        let snapshot = snapshot(gpu(busy, &used), &holders(&given));
        let sum: f64 = snapshot.shares.iter().filter_map(|share| share.utilization).sum();
        let rest = snapshot.gpus[0].unattributed_utilization.unwrap();
        proptest::prop_assert!((sum + rest - busy).abs() < 1e-3, "{sum} + {rest} is not {busy}");
        let energy: f64 = snapshot.shares.iter().filter_map(|share| share.energy).sum();
        proptest::prop_assert!(energy <= 1.0 + 1e-9);
        for share in &snapshot.shares {
            proptest::prop_assert!(share.utilization.is_none_or(|percent| (0.0..=100.0).contains(&percent)));
        }
    }
}
