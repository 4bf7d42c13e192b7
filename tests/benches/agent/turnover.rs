//! How soon a pod that the kubelet no longer names is gone from the page, and how soon a new one is on it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use windlass_proto::podresources::PodResources;
use windlass_tests::scrape::{Page, Scraper};

use crate::programs::end;
use crate::world::World;
use crate::{WARM_UP, now};

const ROUNDS: usize = 3;
/// Far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds, round by round.
pub(crate) struct Turnover {
    gone: Vec<f64>,
    back: Vec<f64>,
}

impl Turnover {
    /// The longest of all.
    pub(crate) fn longest(&self) -> f64 {
        longest(&self.gone).max(longest(&self.back))
    }
}

fn longest(times: &[f64]) -> f64 {
    times.iter().copied().fold(0.0, f64::max)
}

impl std::fmt::Display for Turnover {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = |times: &[f64]| {
            let mean = times.iter().sum::<f64>() / times.len() as f64;
            format!("{mean:.1} s in the mean, {:.1} s at most", longest(times))
        };
        write!(to, "a deleted pod is gone after {}; a new one is there after {}", line(&self.gone), line(&self.back))
    }
}

/// Deletes a pod and brings it back, some times.
pub(crate) fn measure(world: &World) -> anyhow::Result<Turnover> {
    let mut program = world.agent()?;
    let mut child = program.command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start the agent")?;
    let times = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rounds(world, program.port.address())));
    end(&mut child);
    world.kubelet.set_pods(world.pods.clone());
    times.map_err(|_| anyhow::anyhow!("the rounds broke"))?
}

fn rounds(world: &World, address: std::net::SocketAddr) -> anyhow::Result<Turnover> {
    std::thread::sleep(WARM_UP);
    let mut scraper = Scraper::connect(address)?;
    // A pod without a process: one that still ran on the GPU would be shown for that.
    let with: Vec<PodResources> = world.pods.iter().cloned().chain([world.visitor()]).collect();
    world.kubelet.set_pods(with.clone());
    let (mut gone, mut back) = (Vec::new(), Vec::new());
    until(&mut scraper, "visitor", true)?;
    for round in 0..ROUNDS {
        // Not in step with the agent's own interval.
        std::thread::sleep(Duration::from_millis(1_700 * (round as u64 + 1)));
        world.kubelet.set_pods(world.pods.clone());
        gone.push(until(&mut scraper, "visitor", false)?);
        std::thread::sleep(Duration::from_millis(1_300 * (round as u64 + 1)));
        world.kubelet.set_pods(with.clone());
        back.push(until(&mut scraper, "visitor", true)?);
    }
    Ok(Turnover { gone, back })
}

/// Seconds until the page says that the pod holds a device, or no longer does.
fn until(scraper: &mut Scraper, pod: &str, there: bool) -> anyhow::Result<f64> {
    let begin = now();
    loop {
        let page = Page::parse(&scraper.get("/metrics", &[])?.text()?)?;
        if page.select("container_gpu_allocated_seconds_total", &[("pod", pod)]).is_empty() != there {
            return Ok(begin.elapsed().as_secs_f64());
        }
        ensure!(begin.elapsed() < PATIENCE, "never: pod {pod} is {}", if there { "there" } else { "gone" });
        std::thread::sleep(Duration::from_millis(50));
    }
}
