//! A page whose every name is foreign: pods, labels, devices, models, drivers, jobs. Whatever they are, a strict reader must be able to read it.

use std::sync::Arc;
use std::time::Duration;

use windlass_agent::attribution::attribute;
use windlass_agent::attribution::totals::Totals;
use windlass_agent::exposition::{self, Sources, render};
use windlass_agent::families::Own;
use windlass_agent::families::choice::Choice;
use windlass_agent::gpu::{Gpu, Identity, MigInstance, Reading, Xid};
use windlass_agent::jobs;
use windlass_agent::pods::identity::{Identities, LabelNames, Pod, Shown};
use windlass_agent::pods::{Assignment, Holders, Owner};
use windlass_tests::scrape::Page;

/// What stands between two names; a file of counters comes last.
const BETWEEN: char = '\u{1f}';
pub(crate) const NAMES: &[&str] = &[
    "ml\u{1f}train\u{1f}main\u{1f}uid-1\u{1f}team\u{1f}vision\u{1f}app/name\u{1f}llm\u{1f}GPU-1\u{1f}NVIDIA H100\u{1f}MIG-1\u{1f}1g.10gb\u{1f}0000:1b:00.0\u{1f}580.95.05\u{1f}node-a\u{1f}4711\u{1f}DCGM_FI_DEV_GPU_UTIL, gauge, Use (in %).\nDCGM_FI_DEV_XID_ERRORS, gauge, Last.\nDCGM_FI_DRIVER_VERSION, label, Driver.\n",
    "n\u{1f}p\u{1f}c\u{1f}u\u{1f}pod\u{1f}x\u{1f}gpu\u{1f}y\u{1f}GPU-2\u{1f}T4\u{1f}MIG-2\u{1f}2g.20gb\u{1f}1:2\u{1f}1\u{1f}h\u{1f}j\u{1f}DCGM_FI_DEV_FB_USED, gauge, \"a \\ b\"\nDCGM_FI_DEV_BRAND, label, Brand\n",
];

/// Whether the page can be read; it ends the run when it cannot.
pub(crate) fn holds(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut names = text.split(BETWEEN);
    let mut next = || names.next().unwrap_or_default();
    let owner = Arc::new(Owner { namespace: next().into(), pod: next().into(), container: next().into() });
    let uid = next().to_owned();
    let labels = [(next().to_owned(), next().to_owned()), (next().to_owned(), next().to_owned())].into();
    let (uuid, model, instance, profile, bus) = (next(), next(), next(), next(), next());
    let (driver, node, job, counters) = (next(), next(), next(), next());
    let pod = Pod { namespace: (*owner.namespace).into(), name: (*owner.pod).into(), uid, labels, containers: vec![] };
    let identities = Identities::new([pod], &Shown { uid: true, labels: LabelNames::parse("(?s).*").ok() });
    let give = |id: &str| Assignment { owner: Arc::clone(&owner), device_id: id.into(), claimed: false };
    let holders = Holders::new(vec![give(uuid), give("GPU-of-mig"), give(instance)]);
    let reading = Reading {
        driver_version: Some(driver.into()),
        gpus: vec![
            gpu(0, uuid, model, bus),
            Gpu { mig: Some(vec![mig(instance, profile)]), ..gpu(1, "GPU-of-mig", model, bus) },
        ],
    };
    let snapshot = attribute(reading, &holders, &[].into());
    let mut totals = Totals::default();
    totals.advance(&snapshot, Duration::from_secs(10), Duration::from_secs(3));
    totals.advance(&snapshot, Duration::from_secs(11), Duration::from_secs(3));
    let (choice, _complaints) = Choice::parse(counters);
    let jobs = jobs::parse("0", job.as_bytes());
    let own = Own { node, version: "1", driver_version: Some(driver), jobs: Some(&jobs), ..Own::default() };
    let sources = Sources {
        snapshot: &snapshot,
        identities: &Arc::new(identities),
        totals: &totals,
        time: 1.0,
        node,
        choice: &Arc::new(choice),
        own: &own,
        series_max: 10_000,
    };
    // The one before it: what is copied from there is the same bytes.
    let earlier = render(&sources, exposition::Page::default());
    let anew = earlier.text.clone();
    let page = render(&sources, earlier);
    assert_eq!(page.text, anew);
    let text = String::from_utf8_lossy(&page.text);
    let read = Page::parse(&text);
    assert!(read.is_ok(), "{read:?}\n{text}");
    read.is_ok_and(|read| read.series.iter().any(|series| series.labels.contains_key("pod")))
}

fn gpu(index: u32, uuid: &str, model: &str, bus: &str) -> Gpu {
    let identity = Identity {
        index,
        uuid: uuid.into(),
        model: Some(model.into()),
        minor: Some(index),
        pci_bus_id: Some(bus.into()),
    };
    Gpu {
        identity: Arc::new(identity),
        up: true,
        utilization: Some(80.0),
        energy_joules: Some(5.0),
        processes: Some(vec![]),
        process_utilization: Some(vec![]),
        xids: vec![Xid { code: 31, count: 1, last: 1.0, recent: 1 }],
        ..Gpu::default()
    }
}

fn mig(uuid: &str, profile: &str) -> MigInstance {
    MigInstance {
        uuid: uuid.into(),
        gpu_instance: Some(7),
        compute_instance: Some(0),
        profile: profile.into(),
        ..MigInstance::default()
    }
}
