//! MIG as a table: instances, holders, claims and processes in, one line per share out.

use super::*;
use crate::attribution::{Snapshot, attribute};
use crate::gpu::{Gpm, Identity, Memory, Process, Reading};
use crate::pods::{Assignment, Whose};

const GIB: u64 = 1 << 30;

fn owner(pod: &str) -> Arc<Owner> {
    Arc::new(Owner { namespace: "ml".into(), pod: pod.into(), container: "main".into() })
}

/// Ids that begin with `gpu-` come by a claim.
fn holders(given: &[(&str, &str)]) -> Holders {
    let give = |(pod, id): &(&str, &str)| Assignment {
        owner: owner(pod),
        device_id: (*id).into(),
        claimed: id.starts_with("gpu-"),
    };
    Holders::new(given.iter().map(give).collect())
}

/// `MIG-<gi>`, with its SMs' time in percent of the instance.
fn instance(gi: u32, profile: &str, busy: Option<f64>, used: u64) -> MigInstance {
    MigInstance {
        uuid: format!("MIG-{gi}").into(),
        gpu_instance: Some(gi),
        compute_instance: Some(0),
        profile: profile.into(),
        memory: Some(Memory { total: 10 * GIB, used: used * GIB, free: (10 - used) * GIB, reserved: 0 }),
        // The engine's time is counted against the whole GPU and must not be taken for the instance's.
        gpm: busy.map(|busy| Gpm { sm_active: Some(busy), graphics: Some(busy / 2.0), ..Gpm::default() }),
        ..MigInstance::default()
    }
}

fn process(pid: u32, gi: u32, gib: u64) -> Process {
    Process { pid, memory: Some(gib * GIB), gpu_instance: Some(gi), compute_instance: Some(0), mps: false }
}

fn snapshot(mig: Vec<MigInstance>, processes: Vec<Process>, given: &[(&str, &str)]) -> Snapshot {
    let gpu = Gpu {
        identity: Arc::new(Identity { uuid: "GPU-1".into(), minor: Some(0), ..Identity::default() }),
        up: true,
        mig: Some(mig),
        processes: Some(processes),
        ..Gpu::default()
    };
    // Pids 1.. belong to pods a, b, c; 90 is the node's; everything else is unknown.
    let container = |pid, pod| (pid, Whose::Container(owner(pod)));
    let whose = [container(1, "a"), container(2, "b"), container(3, "c"), (90, Whose::Host)].into();
    attribute(Reading { driver_version: None, gpus: vec![gpu] }, &holders(given), &whose)
}

/// Per share: pod (`*`: not given by the kubelet), instance, percent, GiB, part of the energy; then the rest of each instance.
fn check(snapshot: &Snapshot, expect: &[&str]) {
    let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
    let gib = |value: Option<u64>| value.map_or("-".into(), |value| format!("{}G", value / GIB));
    let gpu = &snapshot.gpus[0];
    let uuid = |at: usize| &*gpu.gpu.mig.as_ref().unwrap()[at].uuid;
    let share = |share: &Share| {
        let mark = if share.held { "" } else { "*" };
        let (used, memory, energy) = (number(share.utilization), gib(share.memory_used), number(share.energy));
        format!("{}{mark} {} {used} {memory} {energy}", share.owner.pod, uuid(share.instance.unwrap()))
    };
    let mut lines: Vec<String> = snapshot.shares.iter().map(share).collect();
    lines.extend(gpu.instances.iter().enumerate().map(|(at, rest)| {
        format!("nobody {} {} {}", uuid(at), number(rest.unattributed_utilization), gib(rest.unattributed_memory))
    }));
    assert_eq!(lines, expect);
}

#[test]
fn an_instance_is_its_holders_in_percent_of_the_instance() {
    let mig = vec![instance(2, "3g.40gb", Some(90.0), 4), instance(7, "1g.10gb", Some(30.0), 2)];
    check(
        &snapshot(mig, vec![process(1, 2, 4)], &[("a", "MIG-2"), ("b", "MIG-7")]),
        // 3 x 90 of 300, and 1 x 30.
        &["a MIG-2 90.0 4G 0.9", "b MIG-7 30.0 2G 0.1", "nobody MIG-2 0.0 0G", "nobody MIG-7 0.0 0G"],
    );
}

#[test]
fn energy_is_nobodys_while_what_an_instance_did_is_not_known() {
    let mig = vec![instance(2, "3g.40gb", None, 4), instance(7, "1g.10gb", Some(30.0), 2)];
    check(
        &snapshot(mig, Vec::new(), &[("a", "MIG-2"), ("b", "MIG-7")]),
        &["a MIG-2 - 4G -", "b MIG-7 30.0 2G -", "nobody MIG-2 - 0G", "nobody MIG-7 0.0 0G"],
    );
}

#[test]
fn without_gpm_there_is_memory_and_no_guess() {
    let mig = vec![instance(7, "1g.10gb", None, 2), instance(8, "1g.10gb", None, 3), instance(9, "1g.10gb", None, 1)];
    check(
        &snapshot(
            mig,
            vec![process(1, 8, 1), process(2, 8, 2), process(90, 9, 1)],
            &[("c", "MIG-7"), ("a", "MIG-8::0"), ("b", "MIG-8::1")],
        ),
        &[
            "c MIG-7 - 2G -",
            "a MIG-8 - 1G -",
            "b MIG-8 - 2G -",
            "nobody MIG-7 - 0G",
            "nobody MIG-8 - 0G",
            "nobody MIG-9 - 1G",
        ],
    );
}

#[test]
fn a_shared_instance_is_told_apart_only_when_one_is_inside() {
    let given = [("a", "MIG-7::0"), ("b", "MIG-7::1")];
    let mig = || vec![instance(7, "1g.10gb", Some(60.0), 3)];
    check(
        &snapshot(mig(), vec![process(1, 7, 3)], &given),
        &["a MIG-7 60.0 3G 1.0", "b MIG-7 0.0 0G 0.0", "nobody MIG-7 0.0 0G"],
    );
    check(
        &snapshot(mig(), vec![process(1, 7, 1), process(2, 7, 2)], &given),
        &["a MIG-7 - 1G -", "b MIG-7 - 2G -", "nobody MIG-7 60.0 0G"],
    );
    // A plugin with ids of its own: by cgroup alone.
    check(
        &snapshot(mig(), vec![process(3, 7, 3)], &[("c", "slot-3")]),
        &["c* MIG-7 60.0 3G 1.0", "nobody MIG-7 0.0 0G"],
    );
}

#[test]
fn compute_instances_of_one_gpu_instance_are_not_counted_twice() {
    let second =
        MigInstance { uuid: "MIG-2b".into(), compute_instance: Some(1), ..instance(2, "1c.2g.20gb", Some(80.0), 6) };
    let mig = vec![instance(2, "1c.2g.20gb", Some(80.0), 6), second];
    let inside = vec![process(1, 2, 2), Process { compute_instance: Some(1), ..process(2, 2, 4) }];
    let snapshot = snapshot(mig, inside, &[("a", "MIG-2"), ("b", "MIG-2b")]);
    check(&snapshot, &["a MIG-2 - 2G -", "b MIG-2b - 4G -", "nobody MIG-2 80.0 0G", "nobody MIG-2b 80.0 0G"]);
    assert_eq!(snapshot.gpus[0].unattributed_memory, Some(0));
}

#[test]
fn a_claimed_instance_is_found_by_place_by_being_the_only_one_or_by_its_processes() {
    let place = |gi, placement| MigInstance { placement: Some(placement), ..instance(gi, "1g.10gb", Some(10.0), 1) };
    let claims = [("a", "gpu-0-mig-1g10gb-19-2"), ("b", "gpu-0-mig-1g10gb-19-0")];
    check(
        &snapshot(vec![place(7, 0), place(8, 2)], Vec::new(), &claims),
        &["b MIG-7 10.0 1G 0.5", "a MIG-8 10.0 1G 0.5", "nobody MIG-7 0.0 0G", "nobody MIG-8 0.0 0G"],
    );
    // The driver keeps the place to itself, but one claim's process is inside, and one claim is left for the other.
    let mig = vec![instance(7, "1g.10gb", Some(10.0), 1), instance(8, "1g.10gb", Some(20.0), 1)];
    check(
        &snapshot(mig.clone(), vec![process(1, 8, 1)], &claims),
        &["b MIG-7 10.0 1G 0.3", "a MIG-8 20.0 1G 0.7", "nobody MIG-7 0.0 0G", "nobody MIG-8 0.0 0G"],
    );
    // Nothing tells them apart: nobody is named, and nothing is spread.
    check(&snapshot(mig, Vec::new(), &claims), &["nobody MIG-7 10.0 1G", "nobody MIG-8 20.0 1G"]);
    // Another GPU's, another profile's.
    let others = [("a", "gpu-1-mig-1g10gb-19-0"), ("b", "gpu-0-mig-2g20gb-14-0"), ("c", "gpu-0")];
    check(&snapshot(vec![place(7, 0)], Vec::new(), &others), &["nobody MIG-7 10.0 1G"]);
}

proptest::proptest! {
    /// Shares and the rest add up to each GPU instance, in time and in memory, and no energy is made.
    #[test]
    fn shares_and_the_rest_add_up_to_every_instance(
        used in proptest::collection::vec((proptest::option::of(0.0..=140.0_f64), 0..=10_u64), 1..4),
        inside in proptest::collection::vec((proptest::sample::select(vec![1_u32, 2, 3, 90, 99]), 0..4_u32, 0..6_u64), 0..6),
        given in proptest::collection::vec((
            proptest::sample::select(vec!["a", "b", "c"]),
            proptest::sample::select(vec!["MIG-0", "MIG-1::0", "MIG-1::1", "gpu-0-mig-1g10gb-19-0", "slot"]),
        ), 0..4),
    ) {
        let mig: Vec<_> = used.iter().zip(0..).map(|(&(busy, held), gi)| instance(gi, "1g.10gb", busy, held)).collect();
        let snapshot = snapshot(mig.clone(), inside.iter().map(|&(pid, gi, gib)| process(pid, gi, gib)).collect(), &given);
        for (at, (rest, instance)) in snapshot.gpus[0].instances.iter().zip(&mig).enumerate() {
            let shares = || snapshot.shares.iter().filter(|share| share.instance == Some(at));
            let memory: u64 = shares().filter_map(|share| share.memory_used).sum();
            proptest::prop_assert_eq!(memory + rest.unattributed_memory.unwrap(), instance.memory.unwrap().used);
            let sum: f64 = shares().filter_map(|share| share.utilization).sum();
            if let Some(busy) = utilization(instance) {
                let rest = rest.unattributed_utilization.unwrap();
                proptest::prop_assert!((sum + rest - busy).abs() < 1e-3, "{sum} + {rest} is not {busy}");
            }
        }
        let energy: f64 = snapshot.shares.iter().filter_map(|share| share.energy).sum();
        proptest::prop_assert!(energy <= 1.0 + 1e-9);
    }
}
