//! The command line: flags with their `WINDLASS_*` twins, and the things the program can do.

use std::{io::IsTerminal as _, io::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cloud::sim::read_scenario,
    config::Config,
    doctor, groups_table,
    keeper::look::look,
    metrics::Metrics,
    running::{dialect, glance},
};

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
    /// List the cloud once and show what was discovered: groups with market, type, zones, GPUs, price, sizes and warnings.
    Groups {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Look at what an installation needs (credentials, permissions, tags, groups, GPU labels, clock), changing nothing,
    /// and say what to do. Exits with 1 when something does not work.
    Doctor {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Print the smallest IAM policy that lets this configuration work.
    #[cfg(feature = "aws")]
    IamPolicy,
}

/// Does what the command line says; the process's exit code.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(problems) => {
            let say = if matches!(args.what, Some(What::Check)) { say } else { complain };
            problems.iter().for_each(|problem| say(&problem.to_string()));
            return ExitCode::from(2);
        }
    };
    match args.what {
        Some(What::Check) => check(args, &config),
        Some(What::Groups { json }) => {
            log(args, "error");
            finish(groups(&config, json), tell)
        }
        Some(What::Doctor { json }) => {
            log(args, "error");
            finish(diagnose(&config, json), tell)
        }
        #[cfg(feature = "aws")]
        Some(What::IamPolicy) => {
            let holder = crate::cloud::aws::doctor::holder(&config);
            say(crate::cloud::aws::permissions::policy(&holder).trim_end());
            ExitCode::SUCCESS
        }
        None => {
            log(args, "info");
            finish(async { work(config).await.map(|()| ExitCode::SUCCESS) }, fail)
        }
    }
}

fn check(args: &Args, config: &Config) -> ExitCode {
    if let Some(Err(wrong)) = config.cloud.scenario.as_deref().map(read_scenario) {
        say(&format!("{wrong:#}"));
        return ExitCode::from(2);
    }
    say(&format!("{}: nothing is wrong", args.config.display()));
    ExitCode::SUCCESS
}

fn finish(work: impl Future<Output = anyhow::Result<ExitCode>>, fail: impl Fn(&anyhow::Error) -> ExitCode) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(work)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error.into()),
    }
}

async fn groups(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let (cloud, gpu_label) = glance(config, &Arc::new(Metrics::new()?)).await?;
    let snapshot = look(config, cloud.as_ref(), &dialect(config, gpu_label)).await?;
    let text = if json { groups_table::json(&snapshot) } else { groups_table::text(&snapshot) };
    say(text.trim_end());
    Ok(ExitCode::SUCCESS)
}

async fn diagnose(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let found = glance(config, &Arc::new(Metrics::new()?)).await;
    let (cloud, gpu_label) = found.map_or_else(|error| (Err(error), None), |(cloud, label)| (Ok(cloud), label));
    let cloud = cloud.as_deref().map_err(|error| anyhow::anyhow!("{error:#}"));
    let report = doctor::examine(config, cloud, &dialect(config, gpu_label)).await;
    let text = if json { serde_json::to_string_pretty(&report)? } else { report.to_string() };
    say(text.trim_end());
    Ok(if report.is_ill() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// To a person at a terminal.
fn tell(error: &anyhow::Error) -> ExitCode {
    complain(&format!("windlass-provider: {error:#}; `windlass-provider doctor` says what to do"));
    ExitCode::FAILURE
}

fn fail(error: &anyhow::Error) -> ExitCode {
    tracing::error!("{error:#}");
    ExitCode::FAILURE
}

/// Runs until a signal; the first drains, the second aborts.
async fn work(config: Config) -> anyhow::Result<()> {
    // Before it listens: whoever reads that it does may end it.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let running = crate::start(config).await?;
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

/// Commands that answer a person log less by themselves than the program that runs for months.
fn log(args: &Args, usual: &str) {
    let filter = if args.log == "info" { usual } else { &args.log };
    let filter = tracing_subscriber::EnvFilter::new(filter);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let log = log.with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// To whoever watches; a closed stderr is no reason to fail otherwise.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// To whoever ran the command; a closed pipe is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
