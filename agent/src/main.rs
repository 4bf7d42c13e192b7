//! The bell: parse, log, run, exit code.
//! One thread serves everything; a second one owns the driver.

use std::io::Write as _;
use std::process::ExitCode;

use windlass_agent::config::Config;
use windlass_agent::config::command_line::{Task, parse, strangers};
use windlass_agent::{doctor, log, once};

fn main() -> ExitCode {
    let line: Vec<_> = std::env::args_os().collect();
    let (task, args) = parse(&line).unwrap_or_else(|error| error.exit());
    // Who waits for an answer is not told how it came about.
    let level = if task != Task::Serve && args.log == tracing::Level::INFO { tracing::Level::ERROR } else { args.log };
    log::start(level);
    for name in strangers(std::env::vars_os().map(|(name, _)| name)) {
        tracing::warn!("{name} is set in the environment, and no setting goes by that name; see --help");
    }
    let json = args.json;
    let mut config = Config::from(args);
    config.line = line;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let outcome = runtime.block_on(perform(task, config, json));
    // A file that does not answer, on a network say, holds its reader for ever, and would hold up the end with it.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| if task == Task::Serve { fail(&error) } else { tell(&error) })
}

async fn perform(task: Task, config: Config, json: bool) -> anyhow::Result<ExitCode> {
    match task {
        Task::Serve => windlass_agent::run(config).await.map(|()| ExitCode::SUCCESS),
        Task::Once => once::once(&config, json, &mut std::io::stdout()).await.map(|()| ExitCode::SUCCESS),
        Task::Doctor => diagnose(&config, json).await,
    }
}

async fn diagnose(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let report = doctor::examine(config).await?;
    let text = if json { serde_json::to_string_pretty(&report)? + "\n" } else { report.to_string() };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if report.is_ill() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// To a person at a terminal.
fn tell(error: &anyhow::Error) -> ExitCode {
    // `| head` has seen enough.
    if error.downcast_ref::<std::io::Error>().is_some_and(|it| it.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    // A closed stderr is no reason to fail otherwise.
    let _closed = writeln!(std::io::stderr(), "windlass-agent: {error:#}");
    ExitCode::FAILURE
}

fn fail(error: &anyhow::Error) -> ExitCode {
    tracing::error!("{error:#}");
    ExitCode::FAILURE
}
