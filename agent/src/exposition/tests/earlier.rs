//! An earlier page saves work and changes nothing: a page made after others is the page made anew.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::attribution::{GpuUse, InstanceUse, Share};
use crate::jobs::{self, Jobs};

/// One tick of a node on which everything may change.
#[derive(Debug, Clone)]
struct Tick {
    driver: Option<u8>,
    node: u8,
    /// Model, last byte of the uuid, and what MIG instances there are.
    gpus: Vec<(u8, u8, Option<Vec<u8>>)>,
    /// Pod, GPU, instance, and whether it was given; the GPU and the instance need not be there.
    shares: Vec<(u8, usize, Option<usize>, bool)>,
    uid: Option<u8>,
    job: Option<(u8, u8)>,
    names: DcgmNames,
    /// One number of all that is measured, and how many Xid errors there are.
    value: Option<f64>,
    xids: u8,
    series_max: usize,
}

fn tick() -> impl Strategy<Value = Tick> {
    let gpu = (0..2_u8, 0..2_u8, option::of(vec(0..3_u8, 0..3)));
    let share = (0..3_u8, 0..4_usize, option::of(0..3_usize), any::<bool>());
    let names =
        prop_oneof![Just(DcgmNames::Compat), Just(DcgmNames::Compat), Just(DcgmNames::V46), Just(DcgmNames::Off)];
    let node = (option::of(0..2_u8), 0..2_u8, vec(gpu, 0..3), vec(share, 0..4));
    let values = [Some(0.0), Some(-0.0), Some(1.5), Some(70_000.0), Some(f64::NAN), Some(f64::INFINITY), None];
    let rest = (option::of(0..2_u8), option::of((0..2_u8, 0..2_u8)), names, select(values.to_vec()), 0..3_u8);
    let series_max = prop_oneof![Just(10_000_usize), Just(10_000), 0..300_usize];
    (node, rest, series_max).prop_map(|((driver, node, gpus, shares), (uid, job, names, value, xids), series_max)| {
        Tick { driver, node, gpus, shares, uid, job, names, value, xids, series_max }
    })
}

impl Tick {
    /// What comes after `self`: of all that `next` says, one thing.
    fn then(&self, what: u8, next: Self) -> Self {
        let after = self.clone();
        match what {
            0 => Self { driver: next.driver, ..after },
            1 => Self { node: next.node, ..after },
            2 => Self { gpus: next.gpus, ..after },
            3 => Self { shares: next.shares, ..after },
            4 => Self { uid: next.uid, ..after },
            5 => Self { job: next.job, ..after },
            6 => Self { names: next.names, ..after },
            7 => Self { series_max: next.series_max, ..after },
            8 => next,
            9 => Self { xids: next.xids, ..after },
            _ => Self { value: next.value, ..after },
        }
    }

    fn snapshot(&self) -> Snapshot {
        let share = |&(pod, gpu, instance, held): &(u8, usize, Option<usize>, bool)| Share {
            owner: owner(&format!("pod-{pod}"), "main"),
            gpu,
            instance,
            held,
            utilization: self.value,
            memory_used: Some(u64::from(pod)),
            memory_total: Some(GIB),
            energy: None,
        };
        Snapshot {
            driver_version: self.driver.map(|version| format!("580.{version}").into()),
            gpus: (0..).zip(&self.gpus).map(|(index, of)| self.gpu(index, of)).collect(),
            shares: self.shares.iter().map(share).collect(),
        }
    }

    fn gpu(&self, index: u32, (model, uuid, mig): &(u8, u8, Option<Vec<u8>>)) -> GpuUse {
        let instance = |id: &u8| MigInstance {
            uuid: format!("MIG-{id}").into(),
            gpu_instance: id.checked_sub(1).map(u32::from),
            profile: format!("{id}g.10gb").into(),
            memory: Some(Memory { total: self.xids.into(), ..Memory::default() }),
            ..MigInstance::default()
        };
        let identity = Identity {
            index,
            uuid: format!("GPU-{index}{uuid}").into(),
            model: Some("x".repeat(usize::from(*model) * 513).into()),
            ..Identity::default()
        };
        let mig: Option<Vec<_>> = mig.as_ref().map(|ids| ids.iter().map(instance).collect());
        let instances = vec![InstanceUse { unattributed_memory: Some(1), ..InstanceUse::default() }; 2];
        let gpu = Gpu { identity: Arc::new(identity), mig, utilization: self.value, ..gpu(index) };
        GpuUse { gpu, instances, ..GpuUse::default() }
    }

    fn identities(&self) -> Identities {
        let shown = Shown { uid: true, labels: None };
        let uid = |uid: u8| Pod {
            namespace: "ml".into(),
            name: "pod-0".into(),
            uid: format!("u-{uid}"),
            labels: [].into(),
            containers: Vec::new(),
        };
        Identities::new(self.uid.map(uid), &shown)
    }

    fn jobs(&self) -> Jobs {
        self.job.map(|(gpu, job)| jobs::parse(&gpu.to_string(), format!("job-{job}").as_bytes())).unwrap_or_default()
    }

    fn render(&self, earlier: Page) -> Page {
        let (snapshot, jobs, totals) = (self.snapshot(), self.jobs(), Totals::default());
        let own = Own { version: "1.2.3", jobs: Some(&jobs), ..Own::default() };
        let sources = Sources {
            snapshot: &snapshot,
            identities: &Arc::new(self.identities()),
            totals: &totals,
            time: 1.5,
            node: &format!("node-{}", self.node),
            choice: &Arc::new(Choice::of(self.names)),
            own: &own,
            series_max: self.series_max,
        };
        render(&sources, earlier)
    }
}

proptest! {
    #[test]
    fn a_page_made_after_others_is_the_page_made_anew(first in tick(), steps in vec((0..20_u8, tick()), 2..8)) {
        let (mut tick, mut earlier) = (first, Page::default());
        for (what, next) in steps {
            let page = tick.render(earlier);
            let anew = tick.render(Page::default());
            prop_assert_eq!(String::from_utf8_lossy(&page.text), String::from_utf8_lossy(&anew.text));
            prop_assert_eq!((page.series, page.dropped), (anew.series, anew.dropped));
            (earlier, tick) = (page, tick.then(what, next));
        }
    }
}
