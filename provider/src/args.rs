//! The command line: flags with their `WINDLASS_*` twins, and the two things the program can do.

use std::{io::IsTerminal as _, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::{cloud::sim::read_scenario, config::Config};

/// The externalgrpc cloud provider and gRPC expander for GPU node groups, beside a stock cluster-autoscaler.
#[derive(Debug, Parser)]
#[command(name = "windlass-provider", version, max_term_width = 100)]
pub struct Args {
    /// The configuration, YAML.
    #[arg(long, value_name = "FILE", env = "WINDLASS_CONFIG", default_value = "windlass.yaml", global = true)]
    config: PathBuf,
    /// What is logged: error, warn, info, debug, or per module as in `info,windlass_provider::keeper=debug`.
    #[arg(long, value_name = "FILTER", env = "WINDLASS_LOG", default_value = "info", global = true)]
    log: String,
    /// How it is written.
    #[arg(long, env = "WINDLASS_LOG_FORMAT", default_value = "text", global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say what is wrong with the configuration, and do nothing else.
    Check,
}

/// Does what the command line says; the process's exit code.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(problems) => {
            problems.iter().for_each(|problem| say(&problem.to_string()));
            return ExitCode::from(2);
        }
    };
    if let Some(What::Check) = args.what {
        if let Some(Err(wrong)) = config.cloud.scenario.as_deref().map(read_scenario) {
            say(&format!("{wrong:#}"));
            return ExitCode::from(2);
        }
        say(&format!("{}: nothing is wrong", args.config.display()));
        return ExitCode::SUCCESS;
    }
    log(args);
    match tokio::runtime::Builder::new_multi_thread().enable_all().build().map(|runtime| runtime.block_on(work(config)))
    {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error.into()),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    tracing::error!("{error:#}");
    ExitCode::FAILURE
}

/// Runs until a signal; the first drains, the second aborts.
async fn work(config: Config) -> anyhow::Result<()> {
    let running = crate::start(config).await?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut told = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    let stop = running.stopper();
    let finished = running.finished();
    tokio::pin!(finished);
    tokio::select! {
        end = &mut finished => return end,
        signal = told() => tracing::info!(signal, "draining; a second signal ends at once"),
    }
    stop.cancel();
    tokio::select! {
        end = &mut finished => end,
        signal = told() => Err(anyhow::anyhow!("ended at once by a second {signal}")),
    }
}

fn log(args: &Args) {
    let filter = tracing_subscriber::EnvFilter::new(&args.log);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let log = log.with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// To whoever ran the command; a closed pipe is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
