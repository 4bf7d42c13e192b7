//! What is to be done, out of the command line, the environment and a settings file, in this order of weight: a flag counts more than its twin in the
//! environment, and that more than the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use serde_json::Value;

use super::Args;

/// Largest settings file.
pub(crate) const FILE_MAX: u64 = 64 << 10;
/// Flags that mean one start of the program and not its settings.
const NOT_SETTINGS: [&str; 5] = ["config", "once", "json", "help", "version"];

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Serve until told to stop.
    Serve,
    /// Read once and print.
    Once,
    /// Say what is missing.
    Doctor,
}

/// The command line's grammar: all flags, before or after a command.
fn grammar() -> clap::Command {
    let doctor = clap::Command::new("doctor")
        .about("Look at what the agent needs on this node, and say what is missing and what to do; exit status 1 when something is");
    Args::command().mut_args(|flag| flag.global(true)).subcommand(doctor)
}

/// Reads a command line, its first word being the program, with what its settings file adds. An error prints itself, help included.
pub fn parse(line: &[OsString]) -> Result<(Task, Args), clap::Error> {
    let matches = grammar().try_get_matches_from(line).map_err(|error| of_twin(line).unwrap_or(error))?;
    let file = innermost(&matches).get_one::<std::path::PathBuf>("config").filter(|file| !file.as_os_str().is_empty());
    let Some(file) = file else { return read(&matches) };
    let named = match innermost(&matches).value_source("config") {
        Some(ValueSource::EnvVariable) => "WINDLASS_CONFIG",
        _ => "--config",
    };
    let wrong =
        |what: String| grammar().error(ErrorKind::ValueValidation, format!("{named} {}: {what}", file.display()));
    let added = settings(file, &matches).map_err(wrong)?;
    let (program, rest) = line.split_at(1.min(line.len()));
    let whole = program.iter().cloned().chain(added.into_iter().map(OsString::from)).chain(rest.iter().cloned());
    let matches = grammar().try_get_matches_from(whole).map_err(|error| wrong(said(&error).replace("'--", "'")))?;
    read(&matches)
}

/// What is wrong with a variable of the environment, under its own name. Nothing where the line itself is wrong: then that is what to mend.
fn of_twin(line: &[OsString]) -> Option<clap::Error> {
    let with = |twin: Option<&clap::Id>| {
        let apart = |flag: clap::Arg| if Some(flag.get_id()) == twin { flag } else { flag.env(Resettable::Reset) };
        grammar().mut_args(apart)
    };
    with(None).try_get_matches_from(line).ok()?;
    let flags = Args::command();
    flags.get_arguments().find_map(|flag| {
        let error = with(Some(flag.get_id())).try_get_matches_from(line).err()?;
        let what = format!("{}: {}; mend it or unset it", flag.get_env()?.display(), said(&error));
        Some(grammar().error(ErrorKind::ValueValidation, what))
    })
}

/// Variables that look like settings and are none. Those that Kubernetes makes of a Service called windlass-… are left out.
pub fn strangers(names: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let flags = Args::command();
    let known = |name: &str| flags.get_arguments().any(|flag| flag.get_env().is_some_and(|env| env == name));
    let of_service = |name: &str| name.contains("_SERVICE_") || name.contains("_PORT");
    let strange = |name: &String| name.starts_with("WINDLASS_") && !known(name) && !of_service(name);
    names.into_iter().filter_map(|name| name.into_string().ok()).filter(strange).collect()
}

/// What clap complains of and what it proposes, in one line.
fn said(error: &clap::Error) -> String {
    let text = error.to_string();
    let of_use = |line: &&str| !line.is_empty() && !line.starts_with("For more information");
    let lines: Vec<_> = text.trim_start_matches("error: ").lines().map(str::trim).filter(of_use).collect();
    lines.join(" ")
}

fn read(matches: &ArgMatches) -> Result<(Task, Args), clap::Error> {
    let args = Args::from_arg_matches(innermost(matches))?;
    let task = match matches.subcommand_name() {
        Some(_) => Task::Doctor,
        None if args.once => Task::Once,
        None => Task::Serve,
    };
    if args.json && task == Task::Serve {
        return Err(
            grammar().error(ErrorKind::MissingRequiredArgument, "--json goes with --once or with the command doctor")
        );
    }
    Ok((task, args))
}

/// Flags may stand before a command or after it: those of the command know both.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| inner)
}

/// What the file adds: `--flag=value` for each of its keys that neither the command line nor the environment sets.
fn settings(file: &Path, matches: &ArgMatches) -> Result<Vec<String>, String> {
    let text = String::from_utf8(super::file::read(file, FILE_MAX)?).map_err(|_| "not a text in UTF-8".to_owned())?;
    let set = |id: &str| {
        let source = innermost(matches).value_source(id);
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    flags(&text)?.into_iter().filter(|(id, _)| !set(id)).map(|(_, flag)| Ok(flag)).collect()
}

/// The flags of a settings file, each with its id. A key is a flag's name without the dashes.
///
/// # Errors
/// Says which key is wrong and why, in one line.
pub fn flags(text: &str) -> Result<Vec<(String, String)>, String> {
    if super::file::blank(text) {
        return Ok(Vec::new());
    }
    // `off` is one of our words, and no boolean.
    let options = serde_saphyr::options! { strict_booleans: true };
    let written: BTreeMap<String, Value> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| super::file::said(&error))?;
    let command = Args::command();
    let flag = |(key, value): (String, Value)| {
        let known = command.get_arguments().find(|known| known.get_long() == Some(&*key));
        let Some(known) = known.filter(|_| !NOT_SETTINGS.contains(&&*key)) else {
            return Err(format!("{key:?} is no setting; keys are flags without their dashes, such as sample-interval"));
        };
        let id = known.get_id().to_string();
        match value {
            Value::Bool(on) if !known.get_action().takes_values() => Ok(on.then(|| (id, format!("--{key}")))),
            value => {
                let text = scalar(&value).ok_or_else(|| format!("{key}: write one value, or a list of them"))?;
                Ok(Some((id, format!("--{key}={text}"))))
            }
        }
    };
    written.into_iter().map(flag).filter_map(Result::transpose).collect()
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Array(values) => {
            let each: Option<Vec<_>> = values.iter().map(|value| scalar(value).filter(|_| !value.is_array())).collect();
            Some(each?.join(","))
        }
        Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests;
