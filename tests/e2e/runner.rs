//! Runs the chosen scenarios, several stages at a time, and says who drove which: the summary ends in the line that
//! `cargo test` prints, so that whoever counts tests counts these.

mod summary;

use std::{
    collections::VecDeque,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::{Parser, ValueEnum};
use tokio::time::Instant;
use windlass_tests::rig::{
    autoscaler::{Binary, Driver},
    binaries::Binaries,
    plane::Plane,
    provider,
    scene::{Programs, Scene, Setup},
    world::{Buying, On},
};

/// The longest that one scenario may take, chaos left out.
const LIMIT: Duration = Duration::from_secs(300);

/// `cargo e2e -- [OPTIONS] [NAME]...`
#[derive(Debug, Parser)]
#[command(name = "cargo e2e --", about = "Windlass on a real control plane")]
pub(crate) struct Arguments {
    /// Run only scenarios whose name contains one of these (default: all).
    names: Vec<String>,
    /// Print the names and run nothing.
    #[arg(long)]
    list: bool,
    /// How many control planes run at a time; each takes about 0.7 GB and, once it is up, a tenth of a core.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
    /// Who drives.
    #[arg(long, value_enum, default_value_t = Drivers::All)]
    driver: Drivers,
    /// Test this windlass-provider instead of building one.
    #[arg(long, value_name = "PATH")]
    provider: Option<PathBuf>,
    /// Tell each scenario so many times, and print how long took what they measure: p50, p90, p99 and the longest.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeat: u16,
    /// Tell the scenarios of chaos, too, and keep their storms up for so long.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) chaos: Option<u32>,
    /// What follows in them, which is random, follows from this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the logs of scenarios that pass, too.
    #[arg(long)]
    keep: bool,
}

/// Which drivers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Drivers {
    /// The model, and the real one where there is one.
    All,
    /// The model alone.
    Model,
    /// The real one alone.
    Real,
}

/// One scenario.
#[derive(Clone, Copy)]
pub(crate) struct Story {
    /// Its name.
    pub(crate) name: &'static str,
    /// Who drives it.
    pub(crate) by: By,
    /// Where it happens.
    pub(crate) on: Clouds,
    /// The scenario itself.
    pub(crate) tell: fn(Stage) -> Telling,
}

/// Which autoscalers a scenario is told with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Once with each.
    Each,
    /// Once with each, with a real one from 1.35 on: older ones do not forget or miscount what the scenario is about.
    Since35,
    /// With a real one only: it is about its own client.
    Real,
    /// No autoscaler takes part.
    None,
}

/// The clouds that a scenario is told on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clouds {
    /// The embedded one: it is not about the cloud.
    Sim,
    /// The embedded one, and AWS by `LaunchInstances`.
    SimAndAws,
    /// The embedded one, and AWS by `SetDesiredCapacity`.
    SimAndAwsDesired,
    /// All three ways.
    Every,
    /// AWS in both ways.
    Aws,
}

impl Clouds {
    /// Each with what a scenario's name says of it.
    fn each(self) -> &'static [(&'static str, On)] {
        const SIM: (&str, On) = ("", On::Sim);
        const LAUNCH: (&str, On) = ("::aws", On::Aws(Buying::LaunchInstances));
        const DESIRED: (&str, On) = ("::aws-desired", On::Aws(Buying::DesiredCapacity));
        match self {
            Self::Sim => &[SIM],
            Self::SimAndAws => &[SIM, LAUNCH],
            Self::SimAndAwsDesired => &[SIM, DESIRED],
            Self::Every => &[SIM, LAUNCH, DESIRED],
            Self::Aws => &[LAUNCH, DESIRED],
        }
    }
}

/// A scenario under way.
pub(crate) type Telling = Pin<Box<dyn Future<Output = Result<()>>>>;

/// Makes a [`Story`] of an `async fn(Stage) -> Result<()>`, named as the function is.
macro_rules! story {
    ($tell:ident) => {
        story!($tell, by Each, on Sim)
    };
    ($tell:ident, on $on:ident) => {
        story!($tell, by Each, on $on)
    };
    ($tell:ident, by $by:ident) => {
        story!($tell, by $by, on Sim)
    };
    ($tell:ident, by $by:ident, on $on:ident) => {
        crate::runner::Story {
            name: stringify!($tell),
            by: crate::runner::By::$by,
            on: crate::runner::Clouds::$on,
            tell: |stage| Box::pin($tell(stage)),
        }
    };
}
pub(crate) use story;

/// What a scenario gets to build its scene from.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    programs: Programs,
    driver: Option<Driver>,
    /// Where it happens.
    pub(crate) on: On,
    /// How long chaos lasts, and what it follows from.
    pub(crate) chaos: (Duration, u64),
    dir: PathBuf,
    measured: Measured,
}

/// What scenarios measured: what it is, and how long it took.
type Measured = Arc<Mutex<Vec<(String, Duration)>>>;

impl Stage {
    /// Notes how long something took that the scenario is about.
    pub(crate) fn measure(&self, what: &str, took: Duration) {
        lock(&self.measured).push((what.to_owned(), took));
    }

    /// A whole scene with an autoscaler.
    pub(crate) async fn scene(&self, mut setup: Setup) -> Result<Scene> {
        let driver = self.driver.as_ref().context("this scenario has no driver")?;
        setup.world.on = self.on;
        Scene::start(&self.programs, driver, setup, &self.dir).await
    }

    /// A control plane and nothing else.
    pub(crate) async fn plane(&self) -> Result<Plane> {
        Plane::start(&self.programs.binaries, &self.dir).await
    }
}

/// One scenario with its driver, and what became of it.
struct Told {
    name: String,
    outcome: Result<()>,
    took: Duration,
    measured: Vec<(String, Duration)>,
}

/// Runs what was asked for.
pub(crate) fn run(arguments: &Arguments, stories: Vec<Story>) -> ExitCode {
    match try_run(arguments, stories) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error:#}");
            println!("test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
            ExitCode::FAILURE
        }
    }
}

fn try_run(arguments: &Arguments, stories: Vec<Story>) -> Result<bool> {
    let real = if arguments.driver == Drivers::Model { None } else { Binary::find()? };
    ensure!(
        real.is_some() || arguments.driver != Drivers::Real,
        "--driver real, but no real autoscaler given (CLUSTER_AUTOSCALER=/path/to/cluster-autoscaler)"
    );
    let mut drivers = Vec::new();
    if arguments.driver != Drivers::Real {
        drivers.push(Driver::Model);
    }
    drivers.extend(real.clone().map(Driver::Real));
    let all: Vec<_> = stories.iter().flat_map(|story| showings(story, &drivers)).collect();
    let total = all.len();
    let chosen = |it: &Showing| {
        arguments.names.is_empty() || arguments.names.iter().any(|wanted| it.name.contains(wanted.as_str()))
    };
    let chosen: Vec<Showing> = all.into_iter().filter(chosen).collect();
    let filtered = total - chosen.len();
    let queue = repeated(&chosen, arguments.repeat);
    if arguments.list {
        queue.iter().for_each(|it| println!("{}: test", it.name));
        return Ok(true);
    }
    let begun = Instant::now();
    let binaries = Binaries::ready(|line| println!("{line}"))?;
    let provider = arguments.provider.clone().map_or_else(provider::build, Ok)?;
    let mut who = who_drives(arguments.driver, real.as_ref());
    for story in stories.iter().filter(|story| story.by == By::Real && real.is_none()) {
        who.push_str(&format!("\nnot told without a real one: {}", story.name));
    }
    println!("\n{who}\nrunning {} tests", queue.len());
    let root = tempfile::Builder::new().prefix("windlass-e2e-").tempdir().context("a folder for logs")?;
    // A build that goes on beside must not change what is under test.
    let copied = root.path().join("windlass-provider");
    fs::copy(&provider, &copied).with_context(|| format!("copying {}", provider.display()))?;
    let programs = Programs { binaries, provider: copied };
    let told = tell_all(arguments, queue, &programs, root.path());
    let failed = told.iter().filter(|told| told.outcome.is_err()).count();
    if failed > 0 || arguments.keep {
        println!("\nlogs: {}", root.keep().display());
    }
    summary::print(&told, &who);
    let passed = told.len() - failed;
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out; finished in {:.2}s",
        begun.elapsed().as_secs_f64()
    );
    Ok(failed == 0)
}

/// A scenario on one cloud, with one driver.
#[derive(Clone)]
struct Showing {
    /// Scenario, cloud and driver.
    name: String,
    story: Story,
    on: On,
    driver: Option<Driver>,
    /// How often it was told before.
    again: u16,
}

/// Each so many times, in turn; with its number in its name where there are several.
fn repeated(showings: &[Showing], times: u16) -> VecDeque<Showing> {
    let again = |number: u16| {
        let numbered = move |it: &Showing| match times {
            1 => it.clone(),
            _ => Showing { name: format!("{}::{number}", it.name), again: number - 1, ..it.clone() },
        };
        showings.iter().map(numbered).collect::<Vec<_>>()
    };
    (1..=times).flat_map(again).collect()
}

/// A scenario once on each cloud for each driver, with both in its name.
fn showings(story: &Story, drivers: &[Driver]) -> Vec<Showing> {
    let fits = |driver: &&Driver| match (story.by, driver) {
        (By::Since35, Driver::Real(binary)) => binary.minor().is_none_or(|minor| minor >= 35),
        (by, driver) => by != By::Real || matches!(driver, Driver::Real(_)),
    };
    let drivers: Vec<Option<Driver>> = match story.by {
        By::None => vec![None],
        By::Each | By::Since35 | By::Real => drivers.iter().filter(fits).cloned().map(Some).collect(),
    };
    let on_each = |driver: &Option<Driver>| {
        let by = driver.as_ref().map(|driver| format!("::{}", driver.name())).unwrap_or_default();
        let showing = |(cloud, on): &(&str, On)| Showing {
            name: format!("{}{cloud}{by}", story.name),
            story: *story,
            on: *on,
            driver: driver.clone(),
            again: 0,
        };
        story.on.each().iter().map(showing).collect::<Vec<_>>()
    };
    drivers.iter().flat_map(on_each).collect()
}

/// Said at the start and again at the end: what was not there is not passed over.
fn who_drives(wanted: Drivers, real: Option<&Binary>) -> String {
    match (wanted, real) {
        (Drivers::Model, _) => "driver: the model of cluster-autoscaler's loop (asked for alone)".to_owned(),
        (_, Some(real)) => format!("drivers: the model of cluster-autoscaler's loop, and the real cluster-autoscaler {} ({})", real.version, real.path.display()),
        (_, None) => "driver: the model of cluster-autoscaler's loop; no real autoscaler given (CLUSTER_AUTOSCALER=/path/to/cluster-autoscaler)".to_owned(),
    }
}

/// Tells the scenarios on as many stages as there are jobs.
fn tell_all(arguments: &Arguments, queue: VecDeque<Showing>, programs: &Programs, root: &Path) -> Vec<Told> {
    let queue = Mutex::new(queue);
    let told = Mutex::new(Vec::new());
    let take = || lock(&queue).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            // A thread for each stage: the kernel ends the processes of a thread that ends.
            scope.spawn(|| {
                while let Some(Showing { name, story, on, driver, again }) = take() {
                    let dir = root.join(name.replace("::", "-"));
                    let measured = Measured::default();
                    let stage = Stage {
                        programs: programs.clone(),
                        driver,
                        on,
                        chaos: (
                            Duration::from_secs(arguments.chaos.unwrap_or_default().into()),
                            arguments.seed + u64::from(again),
                        ),
                        dir: dir.clone(),
                        measured: measured.clone(),
                    };
                    let begun = Instant::now();
                    let outcome = tell(story, stage);
                    let took = begun.elapsed();
                    match &outcome {
                        Ok(()) => println!("test {name} ... ok ({:.0}s)", took.as_secs_f64()),
                        Err(error) => println!("test {name} ... FAILED ({:.0}s)\n{error:#}\n", took.as_secs_f64()),
                    }
                    if outcome.is_ok() && !arguments.keep {
                        // Logs of what went well; the whole folder goes at the end anyway.
                        let _ = fs::remove_dir_all(&dir);
                    }
                    let measured = std::mem::take(&mut *lock(&measured));
                    lock(&told).push(Told { name, outcome, took, measured });
                }
            });
        }
    });
    told.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// One scenario, from an empty folder to its outcome.
fn tell(story: Story, stage: Stage) -> Result<()> {
    fs::create_dir_all(&stage.dir).context("making the scenario's folder")?;
    let dir = stage.dir.clone();
    let limit = LIMIT + stage.chaos.0;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let telling =
        AssertUnwindSafe(|| runtime.block_on(async { tokio::time::timeout(limit, (story.tell)(stage)).await }));
    let outcome = match catch_unwind(telling) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(anyhow!("not over within {limit:?}")),
        Err(panic) => Err(anyhow!("panicked: {panic:?}")),
    };
    outcome.map_err(|error| {
        let story = fs::read_to_string(dir.join("story.txt")).unwrap_or_default();
        anyhow!("{error:#}\n{story}")
    })
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
