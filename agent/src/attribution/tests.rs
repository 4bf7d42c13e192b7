//! Attribution as a table: GPUs, holders and processes in, one line per share out.

use super::*;
use crate::gpu::{Identity, Memory, Process, ProcessUtilization};
use crate::pods::Assignment;

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

/// Pids 1.. belong to pods a, b, c; 80 is an MPS server and 81 one in pod d's name, 90 the node's; everything else is unknown.
fn processes() -> Processes {
    let container = |pid, pod| (pid, Whose::Container(owner(pod)));
    Processes::from([
        container(1, "a"),
        container(2, "b"),
        container(3, "c"),
        (80, Whose::MpsServer(None)),
        (81, Whose::MpsServer(Some(owner("d")))),
        (90, Whose::Host),
        (99, Whose::Unknown),
    ])
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
fn a_pod_on_several_slots_and_devices_has_one_share_of_each() {
    let named =
        |uuid: &str, gpu: Gpu| Gpu { identity: Arc::new(Identity { uuid: uuid.into(), ..Identity::default() }), ..gpu };
    let instance = crate::gpu::MigInstance {
        uuid: "MIG-7".into(),
        gpu_instance: Some(7),
        gpm: Some(crate::gpu::Gpm { sm_active: Some(30.0), ..Default::default() }),
        ..Default::default()
    };
    let split = Gpu { utilization: None, memory: None, mig: Some(vec![instance]), ..gpu(0.0, &[]) };
    let gpus = vec![gpu(80.0, &[(1, 50.0, 2), (2, 25.0, 3)]), named("GPU-2", gpu(90.0, &[])), named("GPU-3", split)];
    let given = [("a", "GPU-1::0"), ("a", "GPU-1::3"), ("b", "GPU-1::1"), ("a", "GPU-2"), ("a", "MIG-7")];
    let snapshot = attribute(Reading { driver_version: None, gpus }, &holders(&given), &processes());
    assert_eq!(
        lines(&snapshot),
        [
            "a 50.0 2G 0.6",
            "b 25.0 3G 0.3",
            "a 90.0 0G 1.0",
            "a 30.0 - 1.0",
            "nobody 5.0 0G",
            "nobody 0.0 0G",
            "nobody - -"
        ]
    );
    let mut totals = totals::Totals::default();
    for second in [0, 2] {
        totals.advance(&snapshot, std::time::Duration::from_secs(second), std::time::Duration::from_secs(3));
    }
    let allocated = (0..snapshot.shares.len()).map(|share| totals.of(share).allocated_seconds);
    assert!(allocated.eq([Some(2.0); 4]), "a device is held once, by however many slots");
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
    check(gpu(40.0, &[(1, 30.0, 2)]), &[("a", "slot-17")], &["a* 30.0 2G 0.8", "nobody 10.0 0G"]);
    check(gpu(40.0, &[]), &[], &["nobody 40.0 0G"]);
}

#[test]
fn energy_is_split_only_by_what_is_measured() {
    let unmeasured = Gpu { utilization: None, ..gpu(0.0, &[(1, 30.0, 2), (2, 10.0, 1)]) };
    check(unmeasured, &[("a", "GPU-1::0"), ("b", "GPU-1::1")], &["a 30.0 2G -", "b 10.0 1G -", "nobody - 0G"]);
}

#[test]
fn a_lost_gpu_has_holders_but_no_figures() {
    let lost = Gpu { identity: gpu(0.0, &[]).identity, ..Gpu::default() };
    check(lost, &[("a", "GPU-1")], &["a - - 1.0", "nobody - -"]);
}

/// An MPS server, pid 80, and its clients: (pid, SM percent as the driver tells it).
fn served(busy: f64, server: f64, clients: &[(u32, f64)]) -> Gpu {
    let all: Vec<(u32, f64, u64)> = clients.iter().map(|&(pid, sm)| (pid, sm, 2)).chain([(80, server, 0)]).collect();
    let mut gpu = gpu(busy, &all);
    for process in gpu.processes.iter_mut().flatten().filter(|process| process.pid != 80) {
        process.mps = true;
    }
    gpu
}

#[test]
fn what_the_mps_server_did_is_its_clients() {
    let given = [("a", "GPU-1::0"), ("b", "GPU-1::1"), ("c", "GPU-1::2")];
    // A driver that tells of clients: the server's own time is that of its clients once more.
    check(
        served(60.0, 60.0, &[(1, 40.0), (2, 20.0)]),
        &given,
        &["a 40.0 2G 0.7", "b 20.0 2G 0.3", "c 0.0 0G 0.0", "nobody 0.0 0G"],
    );
    // A driver that tells of the server only.
    check(
        served(60.0, 60.0, &[(1, 0.0), (2, 0.0)]),
        &given,
        &["a 30.0 2G 0.5", "b 30.0 2G 0.5", "c 0.0 0G 0.0", "nobody 0.0 0G"],
    );
    // A client that nobody can name has its part too, and makes zeros uncertain.
    check(
        served(60.0, 60.0, &[(1, 0.0), (99, 0.0)]),
        &given,
        &["a 30.0 2G 0.5", "b - - -", "c - - -", "nobody 30.0 2G"],
    );
    // No client left: the node's own.
    check(served(10.0, 10.0, &[]), &given[..1], &["a 0.0 0G 0.0", "nobody 10.0 0G"]);
    // A container's process that only calls itself the server serves nobody, and hides nothing.
    check(
        gpu(60.0, &[(1, 20.0, 2), (81, 40.0, 3)]),
        &[("a", "GPU-1::0"), ("d", "GPU-1::1")],
        &["a 20.0 2G 0.3", "d 40.0 3G 0.7", "nobody 0.0 0G"],
    );
    check(gpu(60.0, &[(81, 60.0, 3)]), &[("d", "GPU-1")], &["d 60.0 3G 1.0", "nobody 0.0 0G"]);
}

#[test]
fn an_idle_gpu_makes_every_zero_certain() {
    let given = [("a", "GPU-1::0"), ("b", "GPU-1::1")];
    check(gpu(0.0, &[(99, 0.0, 3)]), &given, &["a 0.0 - 0.0", "b 0.0 - 0.0", "nobody 0.0 3G"]);
}

#[test]
fn an_init_container_has_what_it_used_of_its_pods_gpu() {
    let init = Arc::new(Owner { container: "init".into(), ..(*owner("a")).clone() });
    let processes: Processes = [(1, Whose::Container(init))].into();
    let reading = Reading { driver_version: None, gpus: vec![gpu(60.0, &[(1, 60.0, 4)])] };
    let snapshot = attribute(reading, &holders(&[("a", "GPU-1")]), &processes);
    let shares: Vec<_> =
        snapshot.shares.iter().map(|s| (&*s.owner.container, s.held, s.utilization, s.memory_used)).collect();
    assert_eq!(
        shares,
        [("init", false, Some(60.0), Some(4 * GIB)), ("main", true, Some(0.0), Some(0))],
        "the kubelet names the container that holds it next"
    );
}

#[test]
fn without_process_times_the_only_container_inside_has_it_all() {
    let given = [("a", "GPU-1::0"), ("b", "GPU-1::1")];
    let timeless = |processes: &[(u32, f64, u64)]| Gpu { process_utilization: None, ..gpu(70.0, processes) };
    check(timeless(&[(1, 0.0, 2)]), &given, &["a 70.0 2G 1.0", "b 0.0 0G 0.0", "nobody 0.0 0G"]);
    check(timeless(&[(1, 0.0, 2), (2, 0.0, 3)]), &given, &["a - 2G -", "b - 3G -", "nobody 70.0 0G"]);
    check(timeless(&[(1, 0.0, 2), (90, 0.0, 1)]), &given, &["a - 2G -", "b - 0G -", "nobody 70.0 1G"]);
    check(timeless(&[(3, 0.0, 2)]), &given[..1], &["a 0.0 0G 0.0", "c* 70.0 2G 1.0", "nobody 0.0 0G"]);
}

/// Pid, time, memory in GiB (`None`: the driver does not say), whether an MPS client.
type Drawn = (u32, f64, Option<u64>, bool);

fn drawn(busy: f64, used: u64, processes: &[Drawn], timeless: bool) -> Gpu {
    let mut gpu = gpu(busy, &processes.iter().map(|&(pid, sm, _, _)| (pid, sm, 0)).collect::<Vec<_>>());
    gpu.memory = Some(Memory { total: 10 * GIB, used: used * GIB, free: (10 - used) * GIB, reserved: 0 });
    for (process, (_, _, memory, mps)) in gpu.processes.iter_mut().flatten().zip(processes) {
        (process.memory, process.mps) = (memory.map(|gib| gib * GIB), *mps);
    }
    gpu.process_utilization = gpu.process_utilization.filter(|_| !timeless);
    gpu
}

proptest::proptest! {
    /// Shares and the rest add up to the GPU, in time and in memory; no share leaves 0 to 100, and no energy is made.
    #[test]
    fn shares_and_the_rest_add_up_to_the_gpu(
        busy in proptest::prop_oneof![proptest::strategy::Just(0.0), 0.0..=100.0_f64],
        held in 0..=10_u64,
        used in proptest::collection::vec((
            proptest::sample::select(vec![1_u32, 2, 3, 80, 90, 99]),
            0.0..=100.0_f64,
            proptest::option::of(0..6_u64),
            proptest::bool::ANY,
        ), 0..6),
        timeless in proptest::bool::ANY,
        given in proptest::collection::vec(
            (proptest::sample::select(vec!["a", "b", "c"]), proptest::sample::select(vec!["GPU-1", "GPU-1::0", "GPU-1::1", "slot"])), 0..4),
    ) {
        let snapshot = snapshot(drawn(busy, held, &used, timeless), &holders(&given));
        let sum: f64 = snapshot.shares.iter().filter_map(|share| share.utilization).sum();
        let rest = snapshot.gpus[0].unattributed_utilization.unwrap();
        proptest::prop_assert!((sum + rest - busy).abs() < 1e-3, "{sum} + {rest} is not {busy}");
        let memory: u64 = snapshot.shares.iter().filter_map(|share| share.memory_used).sum();
        proptest::prop_assert_eq!(memory + snapshot.gpus[0].unattributed_memory.unwrap(), held * GIB);
        let energy: f64 = snapshot.shares.iter().filter_map(|share| share.energy).sum();
        proptest::prop_assert!(energy <= 1.0 + 1e-9);
        for share in &snapshot.shares {
            proptest::prop_assert!(share.utilization.is_none_or(|percent| (0.0..=100.0).contains(&percent)));
        }
        let mut pieces: Vec<_> = snapshot.shares.iter().map(|share| &share.owner).collect();
        pieces.dedup();
        proptest::prop_assert_eq!(pieces.len(), snapshot.shares.len(), "a container has one share of a device");
    }
}
