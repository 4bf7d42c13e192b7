//! The agent's cost on a node of 8 GPUs and 30 pods: memory, CPU, scrape time, NVML calls; beside it `nvitop-exporter` on the same library.
//! `cargo bench -p windlass-tests --bench agent`; a minute for each program (`-- --seconds N` for another time).

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use windlass_proto::podresources::PodResources;
use windlass_tests::kubelet::{Kubelet, pod};
use windlass_tests::nvml::{Curve, Gpus, ModelName, Process, Profile, Shape, gpu_uuid};
use windlass_tests::proc::{Cgroup, Container, Host};
use windlass_tests::python;
use windlass_tests::scrape::Scraper;

const GPUS: u32 = 8;
const PODS: u32 = 30;
/// Scrapes in a row, after the quiet part, for the percentiles.
const SCRAPES: usize = 1_000;
const WARM_UP: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let seconds = seconds()?;
    let world = World::new()?;
    println!(
        "{GPUS} GPUs, {PODS} pods, sampling every second, scraped every second for {seconds} s, then {SCRAPES} scrapes in a row"
    );
    println!(
        "{:<20}{:>9}{:>9}{:>9}{:>8}{:>10}{:>10}{:>9}{:>10}{:>14}",
        "", "RSS MB", "peak MB", "NVML MB", "CPU %", "p50 ms", "p99 ms", "series", "bytes", "NVML calls/s"
    );
    for program in [world.agent()?, world.nvitop()?] {
        println!("{}", measure(program, &world, seconds)?);
    }
    println!("repeat with: cargo bench -p windlass-tests --bench agent -- --seconds {seconds}");
    Ok(())
}

fn seconds() -> anyhow::Result<u64> {
    let arguments: Vec<String> = std::env::args().collect();
    let given = arguments.iter().position(|argument| argument == "--seconds").and_then(|at| arguments.get(at + 1));
    given.map_or(Ok(60), |text| text.parse().context("--seconds N"))
}

/// The node that both programs run on.
struct World {
    gpus: Gpus,
    kubelet: Kubelet,
    host: Host,
    work: Vec<Child>,
}

/// A program under measurement.
struct Program {
    name: &'static str,
    command: Command,
    address: SocketAddr,
}

impl World {
    /// Every process of the profile is a real one, so that a program which looks at the host's processes finds them.
    fn new() -> anyhow::Result<Self> {
        let host = Host::new()?;
        let mut profile = Profile::idle(ModelName::H100, GPUS);
        let (mut pods, mut work) = (Vec::new(), Vec::new());
        for place in 0..PODS {
            let child = Command::new("sleep").arg("3600").spawn().context("sleep")?;
            let container = Container::new("ml", &format!("worker-{place}"), "main");
            host.container(&container)?;
            host.process(child.id(), &container, Cgroup::Systemd)?;
            let sm = Shape::Square { low: 5.0, high: 25.0, period_s: f64::from(place + 3), duty: 0.6 };
            let process = Process { sm: Curve::Shape(sm), ..Process::new(child.id(), 0.0, 4_000) };
            profile.gpu(place % GPUS).processes.push(process);
            pods.push(worker(&container, place));
            work.push(child);
        }
        let kubelet = Kubelet::start(host.root())?;
        kubelet.set_pods(pods);
        Ok(Self { gpus: Gpus::new(&profile)?, kubelet, host, work })
    }

    fn agent(&self) -> anyhow::Result<Program> {
        let address = free_address()?;
        let mut command = Command::new(agent_binary()?);
        command.args(["--listen", &address.to_string(), "--sample-interval", "1s", "--node-name", "bench"]);
        command.arg("--nvml-library").arg(self.gpus.library());
        command.arg("--kubelet-socket").arg(self.kubelet.socket());
        command.arg("--host-proc").arg(self.host.proc()).arg("--host-logs").arg(self.host.logs());
        Ok(Program { name: "windlass-agent", command, address })
    }

    fn nvitop(&self) -> anyhow::Result<Program> {
        let address = free_address()?;
        let mut command = Command::new(python::program(&python::interpreter()?, "nvitop-exporter"));
        command.args([
            "--bind-address",
            &address.ip().to_string(),
            "--port",
            &address.port().to_string(),
            "--interval",
            "1",
        ]);
        command.env("LD_LIBRARY_PATH", self.gpus.folder());
        Ok(Program { name: "nvitop-exporter", command, address })
    }

    fn counts(&self) -> PathBuf {
        self.gpus.folder().join("calls.txt")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.work {
            end(child);
        }
    }
}

fn worker(container: &Container, place: u32) -> PodResources {
    let id = format!("{}::{}", gpu_uuid(place % GPUS), place / GPUS);
    pod(&container.namespace, &container.pod, &container.name, &[("nvidia.com/gpu", &[id.as_str()])])
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Builds the agent as it is released and says where it is.
fn agent_binary() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").context("CARGO is not set: run this with `cargo bench`")?;
    let built = Command::new(cargo).args(["build", "--quiet", "--release", "-p", "windlass-agent"]).status()?;
    ensure!(built.success(), "the agent does not build");
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(2).context("cargo's target folder")?;
    Ok(folder.join("windlass-agent"))
}

fn measure(mut program: Program, world: &World, seconds: u64) -> anyhow::Result<String> {
    let _ = std::fs::remove_file(world.counts());
    program.command.env("FAKE_NVML_CALLS", world.counts()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = program.command.spawn().with_context(|| format!("start {}", program.name))?;
    let row = observe(&program, child.id(), world, seconds);
    end(&mut child);
    row
}

fn observe(program: &Program, pid: u32, world: &World, seconds: u64) -> anyhow::Result<String> {
    std::thread::sleep(WARM_UP);
    let mut scraper = Scraper::connect(program.address)?;
    let (ticks, calls) = (cpu_ticks(pid)?, calls(&world.counts()));
    for _ in 0..seconds {
        scraper.get("/metrics", &[])?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let cpu = 100.0 * (cpu_ticks(pid)? - ticks) as f64 / TICKS_PER_SECOND / seconds as f64;
    let calls = (self::calls(&world.counts()) - calls) / seconds as f64;
    let mut times: Vec<Duration> = Vec::with_capacity(SCRAPES);
    for _ in 0..SCRAPES {
        let start = now();
        scraper.get("/metrics", &[])?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let body = scraper.get("/metrics", &[])?.text()?;
    let series = body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    let percentile =
        |percent: usize| times.get(SCRAPES * percent / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    let memory = status(pid)?;
    let megabytes = |key: &str| memory.get(key).copied().unwrap_or_default() / 1024.0;
    Ok(format!(
        "{:<20}{:>9.1}{:>9.1}{:>9.1}{:>8.2}{:>10.3}{:>10.3}{:>9}{:>10}{:>12.0}",
        program.name,
        megabytes("VmRSS"),
        megabytes("VmHWM"),
        library_megabytes(pid)?,
        cpu,
        percentile(50),
        percentile(99),
        series,
        body.len(),
        calls
    ))
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

/// `_SC_CLK_TCK` is 100 on every Linux that runs this.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of a process.
fn cpu_ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the program ended early")?;
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).context("/proc/<pid>/stat");
    Ok(field(11)? + field(12)?)
}

/// Kilobytes by name.
fn status(pid: u32) -> anyhow::Result<BTreeMap<String, f64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the program ended early")?;
    let sizes = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().strip_suffix(" kB")?.parse().ok()?))
    });
    Ok(sizes.collect())
}

/// What the fake library's own code and data take of the resident memory: a real one takes more or less.
fn library_megabytes(pid: u32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).context("the program ended early")?;
    let (mut inside, mut kilobytes) = (false, 0.0);
    for line in text.lines() {
        match line.strip_prefix("Rss:") {
            Some(size) if inside => kilobytes += size.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0),
            Some(_) => {}
            // The first line of a mapping begins with its addresses and ends with its file.
            None if line.split(' ').next().is_some_and(|word| word.contains('-')) => {
                inside = line.ends_with("libnvidia-ml.so.1");
            }
            None => {}
        }
    }
    Ok(kilobytes / 1024.0)
}

/// NVML calls so far, as the fake counted them.
fn calls(counts: &Path) -> f64 {
    let text = std::fs::read_to_string(counts).unwrap_or_default();
    text.lines().filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn end(child: &mut Child) {
    // It may have ended by itself; either way it is gone after this.
    let _ = child.kill();
    let _ = child.wait();
}
