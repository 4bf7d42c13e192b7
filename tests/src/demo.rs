//! `cargo demo`: agent, provider and a cluster in one process, and what happens between them as a story. Everything of
//! ours runs as in production (NVML library, unix socket, TLS, HTTP); the cloud, the GPUs, the cluster and the
//! autoscaler's loop are played.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use windlass_provider::timestamp::Timestamp;

mod gpu_node;
mod kubelets;
mod narrator;
mod stage;
mod story;
mod watched;
mod web;

use narrator::Narrator;
use stage::Stage;

/// How often everyone on the stage gets a turn.
const TURN: Duration = Duration::from_millis(100);

/// Runs the whole of Windlass on simulated GPUs and an embedded cloud, and tells what happens
#[derive(Debug, clap::Parser)]
#[command(name = "demo", version)]
pub struct Args {
    /// End by itself after this long, such as 30s or 2m; the exit code says whether the story came to its end
    #[arg(long = "for", value_name = "DURATION", value_parser = windlass_provider::fleet::group::seconds::parse)]
    pub lasts: Option<Duration>,
}

/// Plays the demo: 0 when the story came to its end or a person ended it, 1 when its time was too short, 2 when
/// something failed.
#[must_use]
pub fn main(args: Args) -> ExitCode {
    let narrator = Narrator::new();
    match play(&args, narrator) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("demo: {why:#}\n"));
            ExitCode::from(2)
        }
    }
}

fn play(args: &Args, mut narrator: Narrator) -> anyhow::Result<bool> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().context("a runtime")?;
    let stop = stop_signal(&runtime);
    let begun = clock();
    let mut stage = Stage::build(&runtime, &narrator)?;
    let mut told_the_end = false;
    while !stop.load(Ordering::Relaxed) {
        let now = clock();
        narrator.set_time(now.since(begun));
        if args.lasts.is_some_and(|lasts| now.since(begun) >= lasts) {
            break;
        }
        stage.turn(&narrator, now)?;
        if stage.finished() && !told_the_end {
            told_the_end = true;
            stage.epilogue(&narrator, args.lasts.is_none());
        }
        std::thread::sleep(TURN);
    }
    narrator.plain("");
    narrator.plain(stage.summary());
    let finished = stage.finished();
    stage.close();
    Ok(finished || args.lasts.is_none())
}

/// Set by Ctrl-C and by SIGTERM.
fn stop_signal(runtime: &Runtime) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    runtime.spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let terminated = async {
            match signal(SignalKind::terminate()) {
                Ok(mut signal) => signal.recv().await.unwrap_or_default(),
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = terminated => {}
        }
        set.store(true, Ordering::Relaxed);
    });
    stop
}

/// The one place where the demo reads the clock.
#[expect(clippy::disallowed_methods, reason = "the demo is a shell: everyone on the stage is told the time")]
fn clock() -> Timestamp {
    Timestamp::default() + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
