//! Processes against a small tree that looks like a node's `/proc` and `/var/log`.

use super::super::Assignment;
use super::super::identity::{Pod, Shown};
use super::*;

const UID: &str = "1b1cbdb3-3a6f-4f0c-9f0e-6d1f9e3f6a11";

/// A node's files, removed when dropped.
struct Node(tempfile::TempDir);

impl Node {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn processes(&self) -> Processes {
        Processes::new(self.0.path().join("proc"), self.0.path().join("log"))
    }

    fn process(&self, pid: u32, start_time: u64, cgroup: &str) {
        let directory = self.0.path().join(format!("proc/{pid}"));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("cgroup"), cgroup).unwrap();
        let zeros = "0 ".repeat(18);
        std::fs::write(directory.join("stat"), format!("{pid} (a) b) S {zeros}{start_time} 1 2 3\n")).unwrap();
    }

    fn container_log(&self, name: &str) {
        let directory = self.0.path().join("log/containers");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name), "").unwrap();
    }

    fn pod_log(&self, name: &str) {
        std::fs::create_dir_all(self.0.path().join("log/pods").join(name)).unwrap();
    }
}

fn id(digit: char) -> String {
    String::from(digit).repeat(64)
}

fn owner(pod: &str, container: &str) -> Arc<Owner> {
    Arc::new(Owner { namespace: "ml".into(), pod: pod.into(), container: container.into() })
}

fn holders(owners: &[(&str, &str)]) -> Holders {
    let give = |(at, (pod, container)): (usize, &(&str, &str))| Assignment {
        owner: owner(pod, container),
        device_id: format!("GPU-1::{at}").into(),
        claimed: false,
    };
    Holders::new(owners.iter().enumerate().map(give).collect())
}

fn whose(processes: &mut Processes, pid: u32, holders: &Holders, now: u64) -> (Option<Whose>, bool) {
    let sources = Sources { holders, identities: &Identities::default() };
    let resolved = processes.resolve(&[pid], sources, Duration::from_secs(now));
    (resolved.whose.get(&pid).cloned(), resolved.stranger)
}

#[test]
fn the_container_log_names_the_container() {
    let node = Node::new();
    node.process(41, 7, &format!("0::/kubepods/pod{UID}/{}", id('a')));
    node.process(42, 7, "0::/system.slice/xorg.service");
    node.container_log(&format!("train-0_ml_main-{}.log", id('a')));
    node.container_log("not-a-log");
    let mut processes = node.processes();
    let known = holders(&[("train-0", "main")]);
    assert_eq!(whose(&mut processes, 41, &known, 0), (Some(Whose::Container(owner("train-0", "main"))), false));
    assert_eq!(whose(&mut processes, 42, &known, 0), (Some(Whose::Host), false));
    assert_eq!(whose(&mut processes, 43, &known, 0), (Some(Whose::Unknown), true), "no such process");
    // Not in the kubelet's answer yet: it is asked at once.
    assert_eq!(
        whose(&mut node.processes(), 41, &holders(&[]), 0),
        (Some(Whose::Container(owner("train-0", "main"))), true)
    );
}

#[test]
fn a_pod_made_again_under_its_name_is_asked_about_at_once() {
    let node = Node::new();
    node.process(41, 7, &format!("0::/kubepods/pod{UID}/{}", id('a')));
    node.container_log(&format!("train-0_ml_main-{}.log", id('a')));
    let known = holders(&[("train-0", "main")]);
    for (uid, expect) in [(UID, false), ("5e1c0000-3a6f-4f0c-9f0e-6d1f9e3f6a11", true)] {
        let pod = Pod { namespace: "ml".into(), name: "train-0".into(), uid: uid.into(), ..Pod::default() };
        let sources = Sources { holders: &known, identities: &Identities::new([pod], &Shown::default()) };
        let mut processes = node.processes();
        let mut stranger = |now| processes.resolve(&[41], sources, Duration::from_secs(now)).stranger;
        assert_eq!([stranger(0), stranger(1), stranger(2)], [expect, false, false], "{uid}: once");
    }
}

#[test]
fn a_pod_with_one_holder_needs_no_container_id() {
    let node = Node::new();
    node.process(41, 7, &format!("0::/kubepods/pod{UID}/{}", id('a')));
    node.pod_log(&format!("ml_train-0_{UID}"));
    let one = holders(&[("train-0", "main"), ("other", "main")]);
    assert_eq!(whose(&mut node.processes(), 41, &one, 0).0, Some(Whose::Container(owner("train-0", "main"))));
    let two = holders(&[("train-0", "main"), ("train-0", "second")]);
    assert_eq!(whose(&mut node.processes(), 41, &two, 0).0, Some(Whose::Unknown), "two would be a guess");
}

#[test]
fn a_container_that_starts_in_a_pod_that_is_known_is_found_by_its_own_log() {
    let node = Node::new();
    node.pod_log(&format!("ml_train-0_{UID}"));
    node.container_log(&format!("train-0_ml_main-{}.log", id('a')));
    node.process(41, 7, &format!("0::/kubepods/pod{UID}/{}", id('a')));
    let both = holders(&[("train-0", "main"), ("train-0", "second")]);
    let mut processes = node.processes();
    assert_eq!(whose(&mut processes, 41, &both, 0).0, Some(Whose::Container(owner("train-0", "main"))));
    // It restarts under another id, beside a second holder.
    node.container_log(&format!("train-0_ml_main-{}.log", id('b')));
    node.process(42, 8, &format!("0::/kubepods/pod{UID}/{}", id('b')));
    assert_eq!(whose(&mut processes, 42, &both, 5).0, Some(Whose::Container(owner("train-0", "main"))));
}

#[test]
fn a_name_that_the_pod_gave_is_put_right_by_the_containers_log() {
    let node = Node::new();
    node.pod_log(&format!("ml_train-0_{UID}"));
    node.process(41, 7, &format!("0::/kubepods/pod{UID}/{}", id('a')));
    let one = holders(&[("train-0", "main")]);
    let mut processes = node.processes();
    assert_eq!(whose(&mut processes, 41, &one, 0).0, Some(Whose::Container(owner("train-0", "main"))));
    // An init container: its log has its name a moment after it started.
    node.container_log(&format!("train-0_ml_init-{}.log", id('a')));
    assert_eq!(whose(&mut processes, 41, &one, 2).0, Some(Whose::Container(owner("train-0", "init"))));
}

#[test]
fn the_checkpoint_names_what_the_logs_do_not() {
    let node = Node::new();
    node.process(41, 7, &format!("0::/kubepods/pod{UID}/{}", id('a')));
    let names = [((UID.to_owned(), "main".to_owned()), owner("train-0", "main"))].into();
    let holders = Holders { names, ..holders(&[]) };
    let sources = Sources { holders: &holders, identities: &Identities::default() };
    let mut processes = node.processes();
    let found = processes.resolve(&[41], sources, Duration::ZERO);
    assert_eq!(found.whose[&41], Whose::Container(owner("train-0", "main")));
}

#[test]
fn a_reused_pid_is_another_process() {
    let node = Node::new();
    node.container_log(&format!("a_ml_main-{}.log", id('a')));
    node.container_log(&format!("b_ml_main-{}.log", id('b')));
    node.process(41, 7, &format!("0::/kubepods/pod{UID}/{}", id('a')));
    let known = holders(&[("a", "main"), ("b", "main")]);
    let mut processes = node.processes();
    let (a, b) = (Some(Whose::Container(owner("a", "main"))), Some(Whose::Container(owner("b", "main"))));
    assert_eq!(whose(&mut processes, 41, &known, 0).0, a);
    node.process(41, 900, &format!("0::/kubepods/pod{UID}/{}", id('b')));
    for now in [8, 16, 24] {
        assert_eq!(whose(&mut processes, 41, &known, now).0, a, "not looked at again yet");
    }
    assert_eq!(whose(&mut processes, 41, &known, 32).0, b);
}

#[test]
fn a_pid_that_was_away_is_looked_at_again_at_once() {
    let node = Node::new();
    node.container_log(&format!("a_ml_main-{}.log", id('a')));
    node.container_log(&format!("b_ml_main-{}.log", id('b')));
    node.process(41, 7, &format!("0::/kubepods/pod{UID}/{}", id('a')));
    node.process(42, 7, &format!("0::/kubepods/pod{UID}/{}", id('a')));
    let known = holders(&[("a", "main"), ("b", "main")]);
    let mut processes = node.processes();
    let (a, b) = (Some(Whose::Container(owner("a", "main"))), Some(Whose::Container(owner("b", "main"))));
    assert_eq!(whose(&mut processes, 41, &known, 1).0, a);
    assert_eq!(whose(&mut processes, 42, &known, 2).0, a);
    node.process(41, 900, &format!("0::/kubepods/pod{UID}/{}", id('b')));
    assert_eq!(whose(&mut processes, 41, &known, 3).0, b);
}

#[test]
fn an_identity_names_the_container_without_any_log() {
    let node = Node::new();
    node.process(41, 7, &format!("0::/kubepods/pod{UID}/{}", id('a')));
    node.process(42, 7, &format!("0::/../cri-containerd-{}.scope", id('a')));
    node.process(43, 7, &format!("0::/kubepods/pod{UID}/{}", id('c')));
    let pod = crate::pods::identity::Pod {
        namespace: "ml".into(),
        name: "train-0".into(),
        uid: UID.into(),
        containers: vec![("main".into(), format!("containerd://{}", id('a')))],
        ..Default::default()
    };
    let identities = Identities::new([pod], &Default::default());
    let holders = holders(&[("train-0", "second")]);
    let sources = Sources { holders: &holders, identities: &identities };
    let mut processes = node.processes();
    let found = processes.resolve(&[41, 42, 43], sources, Duration::ZERO);
    let main = Whose::Container(owner("train-0", "main"));
    assert_eq!((&found.whose[&41], &found.whose[&42]), (&main, &main));
    assert_eq!(found.whose[&43], Whose::Container(owner("train-0", "second")), "by the pod's uid and its one holder");
}

#[test]
fn the_mps_server_is_known_by_its_name_wherever_it_runs() {
    let node = Node::new();
    node.process(41, 7, &format!("0::/kubepods/pod{UID}/{}", id('a')));
    std::fs::write(node.0.path().join("proc/41/comm"), "nvidia-cuda-mps\n").unwrap();
    let mut processes = node.processes();
    assert_eq!(whose(&mut processes, 41, &holders(&[]), 0).0, Some(Whose::MpsServer(None)));
    node.container_log(&format!("mps-control_gpu-operator_main-{}.log", id('a')));
    let found = whose(&mut node.processes(), 41, &holders(&[]), 0).0;
    let Some(Whose::MpsServer(Some(owner))) = found else { panic!("{found:?}") };
    assert_eq!((&*owner.namespace, &*owner.pod, &*owner.container), ("gpu-operator", "mps-control", "main"));
}

#[test]
fn an_ended_process_keeps_its_name_for_its_last_samples() {
    let node = Node::new();
    node.container_log(&format!("a_ml_main-{}.log", id('a')));
    node.process(41, 7, &format!("0::/kubepods/pod{UID}/{}", id('a')));
    let mut processes = node.processes();
    let known = holders(&[("a", "main")]);
    let a = Some(Whose::Container(owner("a", "main")));
    assert_eq!(whose(&mut processes, 41, &known, 0).0, a);
    std::fs::remove_dir_all(node.0.path().join("proc/41")).unwrap();
    assert_eq!(whose(&mut processes, 41, &known, 5).0, a);
}

#[test]
fn stat_lines_are_read_from_the_last_parenthesis() {
    for (stat, expect) in [
        ("1 (init) S 0 1 1 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4711 22 3", Some(4711)),
        ("1 (a) b (c) S 0 1 1 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4712 22 3", Some(4712)),
        ("1 (short) S 0", None),
        ("", None),
    ] {
        assert_eq!(parse_start_time(stat), expect, "{stat}");
    }
}
