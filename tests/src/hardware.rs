//! What a real GPU says, in one run: the agent under a known load beside `nvidia-ml-py` and `nvidia-smi`, the cost of its calls beside that of bare ones, what
//! happens when a process stops, the questions that only hardware answers, and all of it as a model and a profile of the fake NVML.
//! With `--fake` the same story is told on a fake H200.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use windlass_agent::config::Config;

pub use self::cost::Cost;
use self::load::{Load, Pod};
use self::readings::Facts;
use crate::kubelet::{Kubelet, pod};
use crate::opinion::{Opinion, Reader, Row};
use crate::proc::Host;
use crate::python;
use crate::scrape::{Page, Scraper};

/// The agent's time inside NVML beside bare calls.
mod cost;
/// What keeps the GPU busy.
mod load;
/// Who is named under MPS.
mod mps;
/// What becomes of the readings: tables, a model, a profile.
mod readings;

/// How long anything may take to show.
const PATIENCE: Duration = Duration::from_secs(60);
/// Readings of the agent so far.
const TICKS: &str = "windlass_agent_ticks_total";
/// What the two processes are told to use, percent of the GPU's time.
const SHARES: [f64; 2] = [60.0, 30.0];

/// Settings.
#[derive(Debug, clap::Parser)]
#[command(about = "Holds the agent against a real GPU and writes down what it said")]
pub struct Args {
    /// NVML; the loader finds it by default
    #[arg(long, default_value = "libnvidia-ml.so.1", value_name = "PATH")]
    pub nvml_library: PathBuf,
    /// On a fake H200, for trying this out
    #[arg(long)]
    pub fake: bool,
    /// How long each part is looked at, in seconds
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// How many readings the cost of calls is taken from, one a second
    #[arg(long, default_value_t = 30)]
    pub readings: u64,
    /// A Python with nvidia-ml-py, and PyTorch for the load; by default python3 if it has them, else one from PyPI without PyTorch
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// nvidia-smi
    #[arg(long, default_value = "nvidia-smi", value_name = "PATH")]
    pub nvidia_smi: PathBuf,
    /// Where the model and the profile are written
    #[arg(long, default_value = "hardware", value_name = "FOLDER")]
    pub out: PathBuf,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Series that were compared.
    pub compared: usize,
    /// Those in which somebody says otherwise.
    pub differ: usize,
    /// The agent's time inside NVML beside that of the same calls made bare.
    pub cost: Cost,
    /// Parts of the story that came to nothing, with the reason.
    pub failed: Vec<String>,
    /// What was written.
    pub written: Vec<PathBuf>,
}

/// The node: what the agent finds on it besides the GPUs.
struct Stage {
    runtime: tokio::runtime::Runtime,
    kubelet: Kubelet,
    host: Host,
    library: PathBuf,
    python: PathBuf,
    seconds: Duration,
}

/// The agent while something is watched.
struct Watched<'a> {
    agent: Option<windlass_agent::Running>,
    scraper: Scraper,
    stage: &'a Stage,
}

/// Tells the whole story on standard output. A part that fails is told, and the others are told all the same.
///
/// # Errors
/// When there is no GPU, or no Python with `nvidia-ml-py`.
#[expect(clippy::print_stdout, reason = "a program that prints its findings")]
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    let mut story = Story::begin(args)?;
    for works in 0..=story.load.most() {
        story.part("shares", |story| story.shares(works));
    }
    story.part("the cost of calls", Story::cost);
    if story.load.most() > 0 {
        story.part("a process that stops", Story::stops);
    }
    println!("\n{}", readings::questions(&story.idle));
    story.part("a profile", Story::write);
    // Last, since not every machine lets MPS run, and what hangs there takes nothing along.
    story.part("MPS", Story::mps);
    let Outcome { compared, differ, failed, written, .. } = &story.outcome;
    println!("\n{} of {compared} readings agree", compared - differ);
    written.iter().for_each(|path| println!("written: {}", path.display()));
    failed.iter().for_each(|part| println!("failed: {part}"));
    Ok(story.outcome)
}

/// What is told, part by part.
struct Story<'a> {
    args: &'a Args,
    stage: Stage,
    load: Load,
    idle: Facts,
    /// The GPU under the most load.
    busy: Option<Facts>,
    /// Each process then: pid, percent, bytes.
    measured: Vec<(u32, f64, f64)>,
    outcome: Outcome,
}

#[expect(clippy::print_stdout, reason = "a program that prints its findings")]
impl<'a> Story<'a> {
    fn begin(args: &'a Args) -> anyhow::Result<Self> {
        let python = args.python.clone().or_else(load::own_python).map_or_else(python::interpreter, Ok)?;
        let load = Load::new(args.fake, &python)?;
        let host = Host::new()?;
        let kubelet = Kubelet::start(host.root())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let library = load.library().unwrap_or_else(|| args.nvml_library.clone());
        let stage = Stage { runtime, kubelet, host, library, python, seconds: Duration::from_secs(args.seconds) };
        let idle = Facts::read(&stage.python, &stage.library)?;
        println!("{}, driver {}: {}", idle.name, idle.driver, load.describe());
        Ok(Self { args, stage, load, idle, busy: None, measured: Vec::new(), outcome: Outcome::default() })
    }

    fn part(&mut self, what: &str, tell: impl FnOnce(&mut Self) -> anyhow::Result<()>) {
        if let Err(error) = tell(self) {
            println!("  {what}: {error:#}");
            self.outcome.failed.push(format!("{what}: {error:#}"));
        }
    }

    /// So many processes at work: each series beside what others say of it, and whose it is.
    fn shares(&mut self, works: usize) -> anyhow::Result<()> {
        self.load.set(works, &self.stage.host)?;
        self.stage.library = self.load.library().unwrap_or_else(|| self.args.nvml_library.clone());
        println!("\n{works} of {} processes at work", self.load.most());
        let (page, opinion) = self.stage.phase(self.load.pods())?;
        let rows = opinion.compare(&page);
        let smi = readings::nvidia_smi(&self.args.nvidia_smi, &page);
        println!("{}", readings::differences(&rows, smi.as_deref()));
        if works == self.load.most() {
            println!("{}", readings::alone(&rows, &page));
        }
        let all = rows.iter().filter(|row| row.ours.is_some() || row.theirs.is_some()).chain(smi.iter().flatten());
        let (right, wrong): (Vec<&Row>, Vec<&Row>) = all.partition(|row| row.agrees);
        self.outcome.compared += right.len() + wrong.len();
        self.outcome.differ += wrong.len();
        println!("{}", readings::shares(&page, self.load.pods(), &opinion));
        self.busy = Some(Facts::read(&self.stage.python, &self.stage.library)?);
        self.measured = readings::measured(&page, self.load.pods());
        Ok(())
    }

    fn cost(&mut self) -> anyhow::Result<()> {
        self.outcome.cost = cost::measure(&self.stage, self.load.pods(), self.args.readings)?;
        println!("\n{}", self.outcome.cost.table());
        Ok(())
    }

    fn stops(&mut self) -> anyhow::Result<()> {
        println!("\n{}", stopped(&self.stage, &mut self.load)?);
        Ok(())
    }

    fn mps(&mut self) -> anyhow::Result<()> {
        println!("\n{}", self.load.mps(&self.stage.python)?);
        Ok(())
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let busy = self.busy.as_ref().unwrap_or(&self.idle);
        let costs = self.outcome.cost.costs();
        self.outcome.written = readings::write(&self.args.out, (&self.idle, busy), &self.measured, costs)?;
        Ok(())
    }
}

/// What is seen of a process that stops, and how soon it is not.
fn stopped(stage: &Stage, load: &mut Load) -> anyhow::Result<String> {
    let mut watched = stage.watch(load.pods())?;
    let last = load.pods().last().context("nobody works")?.name.clone();
    let of = |page: &Page| page.value("gpu_utilization", &[("pod", &last)]);
    watched.until("the last one works", |page| of(page) > Some(1.0))?;
    load.set(SHARES.len() - 1, &stage.host)?;
    let begin = now();
    watched.until("it is seen no more", |page| of(page).is_none_or(|percent| percent < 0.5))?;
    Ok(format!(
        "after a process stopped its use shows as 0 within {:.1} s, at a reading a second",
        begin.elapsed().as_secs_f64()
    ))
}

impl Stage {
    /// The agent, with pods that hold the first GPU.
    fn watch(&self, pods: &[Pod]) -> anyhow::Result<Watched<'_>> {
        let config = Config {
            nvml_library: (self.library.components().count() > 1).then(|| self.library.clone()),
            kubelet_socket: Some(self.kubelet.socket().to_owned()),
            host_proc: self.host.proc(),
            host_logs: self.host.logs(),
            node_name: "hardware".to_owned(),
            listen: "127.0.0.1:0".parse()?,
            ..Config::default()
        };
        let agent = self.runtime.block_on(windlass_agent::start(config))?;
        let scraper = Scraper::connect(agent.address)?;
        let mut watched = Watched { agent: Some(agent), scraper, stage: self };
        let page = watched.until("a GPU", |page| !page.select("gpu_device_up", &[]).is_empty())?;
        let uuid =
            page.select("gpu_device_up", &[("gpu", "0")]).first().and_then(|gpu| gpu.labels.get("uuid").cloned());
        let uuid = uuid.context("no GPU 0")?;
        let replica = |(index, of): (usize, &Pod)| {
            pod("hardware", &of.name, "main", &[("nvidia.com/gpu", &[format!("{uuid}::{index}").as_str()])])
        };
        self.kubelet.set_pods(pods.iter().enumerate().map(replica).collect());
        Ok(watched)
    }

    /// One part of the story: the agent and `nvidia-ml-py` look at the same time.
    fn phase(&self, pods: &[Pod]) -> anyhow::Result<(Page, Opinion)> {
        let reader = Reader::with(&self.python, &self.library)?;
        let mut watched = self.watch(pods)?;
        std::thread::sleep(self.seconds);
        let seen = |page: &Page| {
            let told = |of: &Pod| page.value("gpu_utilization", &[("pod", &of.name)]).is_some();
            page.value(TICKS, &[]) >= Some(3.0) && pods.iter().all(told)
        };
        let page = watched.until("every pod is told", seen)?;
        Ok((page, reader.finish()?))
    }
}

impl Watched<'_> {
    fn page(&mut self) -> anyhow::Result<Page> {
        let answer = self.scraper.get("/metrics", &[])?;
        let text = answer.text()?;
        ensure!(answer.status == 200, "the agent has nothing: {text}");
        Page::parse(&text)
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Page) -> bool) -> anyhow::Result<Page> {
        let start = now();
        loop {
            let page = self.page();
            match page {
                Ok(page) if is_so(&page) => return Ok(page),
                page if start.elapsed() > PATIENCE => {
                    return page.with_context(|| format!("never: {what}")).and_then(|_| anyhow::bail!("never: {what}"));
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            self.stage.runtime.block_on(agent.stop());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a measuring program")]
fn now() -> Instant {
    Instant::now()
}

/// A script of ours, run by a Python.
fn script(python: &Path, library: Option<&Path>, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(python);
    command.arg("-c").arg(include_str!("../python/hardware.py")).args(arguments);
    let folder = library.and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        command.env("LD_LIBRARY_PATH", folder);
    }
    command
}
