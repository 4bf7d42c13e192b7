//! The storm: what happens next is drawn from a seed, so that it can be told again as far as a cluster lets it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tonic::Code;
use windlass_tests::{
    aws::{AwsCloud, Fault, Scarcity},
    rig::{kubelets::Behaviour, relay, scene::Scene},
};

/// Most pods at a time that want a GPU, and that want none.
const PODS: (u64, u64) = (6, 3);
/// From one thing to the next, on average.
const PAUSE: Duration = Duration::from_millis(1500);
/// Things in a row after which everything works for a while.
const FAIR_AFTER: u32 = 16;
/// AWS's notice, shortened.
const NOTICE: Duration = Duration::from_secs(20);
/// The spot groups and all groups.
const SPOT: [&str; 2] = ["spot-a10g", "spot-big-a10g"];
const GROUPS: [&str; 4] = ["cpu", "spot-a10g", "od-a10g", "spot-big-a10g"];
const ZONES: [&str; 2] = ["us-east-1a", "us-east-1b"];
/// The calls that go wrong.
const ACTIONS: [&str; 9] = [
    "*",
    "DescribeAutoScalingGroups",
    "DescribeScalingActivities",
    "DescribeInstanceTypes",
    "LaunchInstances",
    "LaunchInstances",
    "SetDesiredCapacity",
    "TerminateInstanceInAutoScalingGroup",
    "ReceiveMessage",
];
/// The calls of cluster-autoscaler that go wrong between it and the provider.
const CALLS: [&str; 6] =
    ["Refresh", "NodeGroups", "NodeGroupNodes", "NodeGroupTargetSize", "NodeGroupIncreaseSize", "NodeGroupDeleteNodes"];

/// What goes on, and what comes next.
pub(super) struct Storm {
    cloud: Arc<AwsCloud>,
    draw: Draw,
    /// Whether pods come and go and machines are lost, too.
    wild: bool,
    next: Duration,
    /// Things since everything worked.
    since_fair: u32,
    /// How many pods there are to be that want a GPU, and that want none.
    wanted: (u64, u64),
    pods: u64,
    provider_back: Option<Duration>,
    autoscaler_back: Option<Duration>,
    /// Until when calls between the two go wrong.
    broken_until: Option<Duration>,
    struck: BTreeSet<String>,
    counts: BTreeMap<&'static str, u32>,
}

impl Storm {
    /// A wild one, or one in which only calls, programs and launches fail: as many pods are wanted as somebody says.
    pub(super) fn new(scene: &Scene, seed: u64, wild: bool) -> Result<Self> {
        Ok(Self {
            cloud: scene.aws.clone().context("this scenario is told on AWS")?,
            draw: Draw(seed),
            wild,
            next: Duration::ZERO,
            since_fair: 0,
            wanted: (0, 0),
            pods: 0,
            provider_back: None,
            autoscaler_back: None,
            broken_until: None,
            struck: BTreeSet::new(),
            counts: BTreeMap::new(),
        })
    }

    /// Machines that ended by no wish of anybody's.
    pub(super) fn struck(&self) -> &BTreeSet<String> {
        &self.struck
    }

    /// How often each thing happened.
    pub(super) fn counts(&self) -> &BTreeMap<&'static str, u32> {
        &self.counts
    }

    /// Brings back what is due, keeps the pods, and lets the next thing happen when it is time.
    pub(super) async fn step(&mut self, scene: &mut Scene) -> Result<()> {
        let now = scene.journal.now();
        self.bring_back(scene, now)?;
        self.keep_pods(scene).await?;
        if now < self.next {
            return Ok(());
        }
        self.next = now + PAUSE.mul_f64(self.draw.below(200) as f64 / 100.0);
        self.since_fair += 1;
        let first = if self.wild { 0 } else { 7 };
        let what = match first + self.draw.below(20 - first) {
            0..=4 => self.other_pods(),
            5 => self.take_back(),
            6 => self.a_host_dies(),
            _ if self.since_fair > FAIR_AFTER => self.fair(scene),
            7..=10 => self.calls_fail(),
            11..=13 => self.nothing_left(),
            14 => self.lag(),
            15 => self.slow_machines(scene),
            16 => self.kill_provider(scene, now),
            17 => self.kill_autoscaler(scene, now),
            18 => self.break_line(scene, now),
            _ => self.fair(scene),
        };
        scene.journal.act("storm", json!({"what": what}));
        *self.counts.entry(what).or_default() += 1;
        Ok(())
    }

    /// From now on so many pods are wanted that want a GPU.
    pub(super) fn want(&mut self, gpus: usize) {
        self.wanted = (gpus as u64, 0);
    }

    /// A number of pods that want a GPU, one at least.
    pub(super) fn some_pods(&mut self) -> usize {
        1 + self.draw.index(4)
    }

    /// Everything works again from now on.
    pub(super) fn calm(&mut self, scene: &mut Scene) -> Result<()> {
        self.fair(scene);
        self.bring_back(scene, Duration::MAX)?;
        scene.journal.act("calm", json!({}));
        Ok(())
    }

    /// As many pods as are wanted, as a controller keeps them: what is missing is made, what is too much is deleted.
    pub(super) async fn keep_pods(&mut self, scene: &mut Scene) -> Result<()> {
        let pods = scene.pods().await?;
        for (kind, gpus, wanted) in [("gpu", 1, self.wanted.0), ("plain", 0, self.wanted.1)] {
            let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
            let mut of_kind: Vec<String> = pods.iter().map(name).filter(|name| name.starts_with(kind)).collect();
            for _ in of_kind.len() as u64..wanted {
                self.pods += 1;
                scene.create_pods(&format!("{kind}{}", self.pods), 1, gpus).await?;
            }
            for _ in wanted..of_kind.len() as u64 {
                let at = self.draw.index(of_kind.len());
                scene.delete_pod(&of_kind.swap_remove(at)).await?;
            }
        }
        Ok(())
    }

    fn bring_back(&mut self, scene: &mut Scene, now: Duration) -> Result<()> {
        if self.provider_back.take_if(|at| *at <= now).is_some() {
            scene.launch_provider()?;
        }
        if self.autoscaler_back.take_if(|at| *at <= now).is_some() {
            scene.start_autoscaler()?;
        }
        if self.broken_until.take_if(|at| *at <= now).is_some() {
            scene.provider_faults.clear();
            scene.expander_faults.clear();
        }
        Ok(())
    }

    fn other_pods(&mut self) -> &'static str {
        self.wanted = (self.draw.below(PODS.0 + 1), self.draw.below(PODS.1 + 1));
        "pods"
    }

    fn calls_fail(&mut self) -> &'static str {
        let (name, fault) = match self.draw.below(9) {
            0 => ("throttled", Fault::Throttled),
            1 => ("500", Fault::Error(500, "InternalFailure".to_owned(), "An internal error has occurred.".to_owned())),
            2 => ("503", Fault::Down),
            3 => ("slow", Fault::Slow(Duration::from_millis(500 + self.draw.below(3000)))),
            4 => ("broken body", Fault::BrokenBody),
            5 => ("half answer", Fault::HalfAnswer),
            6 => ("nonsense", Fault::Nonsense),
            7 => ("lost", Fault::Lost),
            _ => ("hang", Fault::Hang),
        };
        let silent = matches!(fault, Fault::Lost | Fault::Hang);
        let calls = if silent { 1 } else { 1 + u32::try_from(self.draw.below(6)).unwrap_or(1) };
        let action = ACTIONS[self.draw.index(ACTIONS.len())];
        self.cloud.with(|account, _| account.faults.next(action, fault, calls));
        name
    }

    fn nothing_left(&mut self) -> &'static str {
        let code = ["InsufficientInstanceCapacity", "UnfulfillableCapacity", "VcpuLimitExceeded"][self.draw.index(3)];
        let group = GROUPS[self.draw.index(GROUPS.len())];
        match self.draw.below(5) {
            0 => self.cloud.spot_drought(),
            1 => self.cloud.group(group).refuse(code),
            2 => self.cloud.scarce(Scarcity::new(code).zone(ZONES[self.draw.index(ZONES.len())])),
            3 => self.cloud.plenty(),
            _ => {
                let left = u32::try_from(self.draw.below(3)).unwrap_or(0);
                self.cloud.group(group).zone(ZONES[self.draw.index(ZONES.len())]).gives(left, code);
            }
        }
        "scarcity"
    }

    fn lag(&mut self) -> &'static str {
        self.cloud.lag(Duration::from_secs(self.draw.below(8)));
        "lag"
    }

    fn take_back(&mut self) -> &'static str {
        let group = self.cloud.group(SPOT[self.draw.index(SPOT.len())]);
        let machines = group.in_state("InService");
        if let Some(machine) = machines.get(self.draw.index(machines.len())) {
            self.struck.extend(group.interrupt(std::slice::from_ref(machine), NOTICE));
        }
        "taken back"
    }

    fn a_host_dies(&mut self) -> &'static str {
        let group = self.cloud.group(GROUPS[self.draw.index(GROUPS.len())]);
        let machines = group.in_state("InService");
        if let Some(id) = machines.get(self.draw.index(machines.len())) {
            group.with(|group, now| group.machines.get_mut(id).map(|machine| machine.host_ends_at = Some(now)));
            self.struck.insert(id.clone());
        }
        "host died"
    }

    fn slow_machines(&mut self, scene: &Scene) -> &'static str {
        let mut conduct = scene.conduct.lock();
        conduct.registers_after = Duration::from_secs(1 + self.draw.below(8));
        conduct.devices_after = Duration::from_secs(1 + self.draw.below(8));
        conduct.never_register.clear();
        if self.wild && self.draw.below(3) == 0 {
            conduct.never_register.insert(GROUPS[self.draw.index(GROUPS.len())].to_owned());
        }
        "slow machines"
    }

    fn kill_provider(&mut self, scene: &mut Scene, now: Duration) -> &'static str {
        scene.kill_provider();
        self.provider_back = Some(now + Duration::from_millis(self.draw.below(6000)));
        "provider killed"
    }

    fn kill_autoscaler(&mut self, scene: &mut Scene, now: Duration) -> &'static str {
        scene.kill_autoscaler();
        self.autoscaler_back = Some(now + Duration::from_millis(self.draw.below(6000)));
        "autoscaler killed"
    }

    /// Calls between the autoscaler and the provider are refused, or answered too late.
    fn break_line(&mut self, scene: &Scene, now: Duration) -> &'static str {
        let fault = || relay::Fault::Fail(Code::Unavailable);
        let slow = || relay::Fault::Slow(Duration::from_secs(6));
        match self.draw.below(4) {
            0 => scene.expander_faults.set("BestOptions", fault()),
            1 => scene.expander_faults.set("BestOptions", slow()),
            2 => scene.provider_faults.set(CALLS[self.draw.index(CALLS.len())], fault()),
            _ => scene.provider_faults.set(CALLS[self.draw.index(CALLS.len())], slow()),
        }
        self.broken_until = Some(now + Duration::from_secs(1 + self.draw.below(9)));
        "line broken"
    }

    /// The cloud, the line and the machines are as they should be.
    fn fair(&mut self, scene: &Scene) -> &'static str {
        self.cloud.no_faults();
        self.cloud.plenty();
        self.cloud.lag(Duration::ZERO);
        *scene.conduct.lock() = Behaviour::default();
        scene.provider_faults.clear();
        scene.expander_faults.clear();
        self.since_fair = 0;
        "fair"
    }
}

/// Numbers from a seed: Steele, Lea and Flood's SplitMix64.
struct Draw(u64);

impl Draw {
    /// A number below the limit; 0 when there is none.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }

    /// The same for a place in a list.
    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or_default()
    }
}
