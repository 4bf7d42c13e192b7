//! How soon a new pod's series are there, and a deleted pod's are gone.

use std::time::Duration;

use windlass_agent::config::limits;
use windlass_tests::kubelet::pod;
use windlass_tests::nvml::{Process, gpu_uuid};
use windlass_tests::proc::{Cgroup, Container};
use windlass_tests::scrape::Page;

use crate::until;
use crate::world::World;

const IDLE: &str = "a new pod that idles appears";
const WORKING: &str = "a new pod at work appears";
const GONE: &str = "a deleted pod's series vanish";
/// The pid of the pod at work: free in the bench's world.
const PID: u32 = 5_000;
/// The time-sliced GPU: one more replica of it.
const GPU: u32 = 1;

/// One pods interval, one tick.
pub(crate) fn limit() -> Duration {
    limits::PODS_INTERVAL + Duration::from_secs(1)
}

/// Seconds of every round, by what was waited for.
pub(crate) fn measure(world: &mut World, rounds: u32) -> anyhow::Result<Vec<(&'static str, Vec<f64>)>> {
    let (mut idle, mut working, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        // Not at the same moment of the agent's interval each time.
        std::thread::sleep(Duration::from_millis(1_700 * u64::from(round + 1)));
        idle.push(appears(world, &format!("idle-{round}"), false)?);
        gone.push(vanishes(world, &format!("idle-{round}"))?);
        working.push(appears(world, &format!("busy-{round}"), true)?);
        world.host.exit(PID)?;
        gone.push(vanishes(world, &format!("busy-{round}"))?);
    }
    Ok(vec![(IDLE, idle), (WORKING, working), (GONE, gone)])
}

fn appears(world: &mut World, name: &str, works: bool) -> anyhow::Result<f64> {
    let mut pods = world.pods.clone();
    pods.push(pod("ml", name, "main", &[("nvidia.com/gpu", &[&format!("{}::9", gpu_uuid(GPU))])]));
    world.kubelet.set_pods(pods);
    if works {
        let container = Container::new("ml", name, "main");
        world.host.container(&container)?;
        world.host.process(PID, &container, Cgroup::Systemd)?;
        let mut profile = world.profile.clone();
        profile.gpu(GPU).processes.push(Process::new(PID, 3.0, 500));
        world.gpus.set(&profile)?;
    }
    // It is the kubelet's word that is waited for: a process alone would make a series without it.
    let held = |page: &Page| !page.select("container_gpu_allocated_seconds_total", &[("pod", name)]).is_empty();
    Ok(until(world, |_, page| held(page))?.as_secs_f64())
}

fn vanishes(world: &mut World, name: &str) -> anyhow::Result<f64> {
    world.kubelet.set_pods(world.pods.clone());
    world.gpus.set(&world.profile)?;
    let gone = |page: &Page| page.series.iter().all(|series| series.labels.get("pod").is_none_or(|pod| pod != name));
    Ok(until(world, |_, page| gone(page))?.as_secs_f64())
}
