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

/// A line of text with the mean and the longest of some rounds.
pub(crate) fn measure(world: &World) -> anyhow::Result<String> {
    let mut program = world.agent()?;
    let mut child = program.command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start the agent")?;
    let times = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rounds(world, &program.address)));
    end(&mut child);
    world.kubelet.set_pods(world.pods.clone());
    let (gone, back) = times.map_err(|_| anyhow::anyhow!("the rounds broke"))??;
    let line = |times: &[f64]| {
        let longest = times.iter().copied().fold(0.0, f64::max);
        format!("{:.1} s in the mean, {longest:.1} s at most", times.iter().sum::<f64>() / times.len() as f64)
    };
    Ok(format!("a deleted pod is gone after {}; a new one is there after {}", line(&gone), line(&back)))
}

fn rounds(world: &World, address: &std::net::SocketAddr) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    std::thread::sleep(WARM_UP);
    let mut scraper = Scraper::connect(*address)?;
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
    Ok((gone, back))
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
