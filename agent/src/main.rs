//! The bell: parse, log, run, exit code.
//! One thread serves everything; a second one owns the driver.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use windlass_agent::config::{Args, Config};

fn main() -> ExitCode {
    let args = Args::parse();
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_max_level(args.log)
        .with_target(false)
        .with_ansi(ansi)
        .with_writer(std::io::stderr)
        .init();
    let once = args.once;
    let config = Config::from(args);
    let outcome =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Into::into).and_then(|runtime| {
            runtime.block_on(async {
                if once {
                    windlass_agent::once::once(&config, &mut std::io::stdout()).await
                } else {
                    windlass_agent::run(config).await
                }
            })
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
