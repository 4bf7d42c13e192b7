//! Every row of the table of metrics can be filled: some machine shows it, also under its name of DCGM 4.6. A row that no page of any machine ever had
//! would be a promise without a program.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use windlass_agent::config::DcgmNames;
use windlass_agent::families::{self, Family};
use windlass_tests::kubelet::{identity, pod};
use windlass_tests::metadata::{Cloud, Metadata};
use windlass_tests::nvml::{AnswerName, EccErrors, Fault, Health, Mig, ModelName, Process, Profile, mig_uuid};

use crate::agent::node::{Node, holder, main_of, runs, sharer, unix};

/// A GPU of each kind: one that works and is worn, an old one, one in MIG instances, a virtual one.
fn profile() -> Profile {
    let mut profile = Profile::idle(ModelName::H100, 4);
    profile.confidential = Some((true, false));
    profile.gpu(0).processes = vec![Process::new(100, 60.0, 8_000)];
    profile.gpu(0).clocks_event_reasons = 0x4;
    profile.gpu(0).ecc_errors = EccErrors { corrected: 1, uncorrected: 1 };
    profile.gpu(0).health = Health { remapped_rows: (1, 1), fabric_state: Some(3), ..Health::default() };
    profile.gpu(1).model = Some(ModelName::T4);
    profile.gpu(1).health = Health { retired_pages: (1, 1), ..Health::default() };
    profile.gpu(2).mig = Some(vec![Mig::new("1g.10gb", 7)]);
    profile.gpu(2).processes = vec![Process { gpu_instance: Some(7), ..Process::new(300, 50.0, 1_000) }];
    (profile.gpu(3).virtualization, profile.gpu(3).vgpu_license) = (2, Some(true));
    // The driver tells of errors from when it is listened to: one comes every second for as long as the test may take.
    let now = unix();
    profile.gpu(0).xids = (1..240).map(|second| (now + f64::from(second), 31)).collect();
    profile
}

/// What EC2's service says of a machine that is about to go.
fn doomed() -> Metadata {
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    metadata.set("instance-life-cycle", Some("spot"));
    metadata.set("autoscaling/target-lifecycle-state", Some("InService"));
    metadata.set("spot/instance-action", Some(r#"{"action":"terminate","time":"2030-09-18T08:22:00Z"}"#));
    metadata
}

/// Every family of DCGM's.
fn dcgm() -> impl Iterator<Item = &'static Family> {
    families::table().filter(|family| family.name.starts_with("DCGM_")).chain(families::further())
}

fn node(profile: &Profile, folder: &Path, metadata: &Metadata, names: DcgmNames) -> Node {
    let row = |family: &Family| format!("{}, {}, x\n", family.name_as(names), family.kind.word());
    std::fs::write(folder.join("counters.csv"), dcgm().map(row).collect::<String>()).unwrap();
    std::fs::write(folder.join("0"), "4711\n").unwrap();
    let sliced = pod("ml", "sliced", "main", &[("nvidia.com/mig-1g.10gb", &[mig_uuid(2, 7, 0).as_str()])]);
    let mut node = Node::configured(
        profile,
        vec![holder("a", 0), sharer("b", 1, 0), sliced],
        |host| {
            runs(host, 100, &main_of("a"));
            runs(host, 300, &main_of("sliced"));
        },
        |config, _| {
            config.metadata = Some(metadata.endpoint().parse().unwrap());
            config.collectors = Some(folder.join("counters.csv"));
            config.hpc_job_mapping_dir = Some(folder.to_owned());
        },
    );
    node.serve_pods_api(vec![identity(&main_of("a"), &[])]);
    node
}

/// Every family shows under its name of this age: on a whole machine, else on one that has lost a GPU, else on one that has lost its driver.
fn check(names: DcgmNames) {
    let own = families::native().map(|family| family.name);
    let missing: BTreeSet<&str> = own.chain(dcgm().map(|family| family.name_as(names))).collect();
    let missing = RefCell::new(missing);
    let (folder, metadata, mut profile) = (tempfile::tempdir().unwrap(), doomed(), profile());
    let mut node = node(&profile, folder.path(), &metadata, names);
    let lost = ["gpu_device_down_info", "windlass_agent_nvml_absence_info"];
    for left in [&lost[..], &lost[1..], &[]] {
        node.until("every row is filled", |page| {
            let mut missing = missing.borrow_mut();
            let before = missing.len();
            missing.retain(|name| page.series.iter().all(|series| series.name != *name));
            if missing.len() < before {
                eprintln!("{names:?}: not yet seen: {missing:?}");
            }
            missing.iter().all(|name| left.contains(name))
        });
        profile.faults = match profile.faults.len() {
            0 => vec![Fault::of_gpu(3, AnswerName::GpuIsLost)],
            _ => vec![Fault { gpu: None, ..Fault::of_gpu(0, AnswerName::LibRmVersionMismatch) }],
        };
        node.gpus.set(&profile).unwrap();
    }
}

#[test]
fn every_metric_of_the_table_is_on_a_page_of_some_machine() {
    // Side by side they wait once.
    std::thread::scope(|scope| {
        for names in [DcgmNames::Compat, DcgmNames::V46] {
            scope.spawn(move || check(names));
        }
    });
}
