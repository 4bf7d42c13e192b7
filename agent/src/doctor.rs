//! `windlass-agent doctor`: looks at everything the agent needs, changes nothing, and says of each thing whether it is well, and if not what to do.
//! It is run where the agent runs: on the node, or with `kubectl exec` in its pod.

mod node;
mod report;

pub use self::report::{Finding, Grade, Report};

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::attribution::Snapshot;
use crate::config::{Config, command_line};
use crate::families::choice::{Choice, Complaints};
use crate::gpu::{CallLog, NO_DEVICES};
use crate::http::web::Web;
use crate::live;
use crate::look::{Look, look};
use crate::notices::metadata::{Failure, Metadata};
use crate::notices::{self, Cloud, ec2};

/// How long another program on our port may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(1);

/// Looks at everything. Fails only when no thread can be started.
pub async fn examine(config: &Config) -> std::io::Result<Report> {
    let mut findings = vec![node::agent(config)];
    findings.extend(settings(config));
    let look = look(config).await?;
    findings.extend(gpus(config, &look));
    findings.extend(node::examine(config, &look));
    findings.push(cloud(config).await);
    findings.push(port(config.listen));
    Ok(Report { findings })
}

/// The files that the flags name, and variables that are no flags.
fn settings(config: &Config) -> Vec<Finding> {
    let refused = |about: &str, file: &Path, error: String| {
        Finding::mend(about, format!("{}: {error}", file.display()), "the agent does not start with it")
    };
    let web = config.web_config_file.as_deref().map(|file| match Web::read(Some(file)) {
        Ok(_) => Finding::ok("web config", file.display().to_string()),
        Err(error) => refused("web config", file, error),
    });
    let counters =
        config.collectors.as_deref().map(|file| match live::counters(file).and_then(|bytes| Choice::read(&bytes)) {
            Ok(read) => counters(&read, file),
            Err(error) => refused("counters", file, error),
        });
    let strangers = command_line::strangers(std::env::vars_os().map(|(name, _)| name));
    let strange = |name| {
        Finding::note(
            "environment",
            format!("{name}: no setting goes by that name"),
            "see --help for those that there are",
        )
    };
    web.into_iter().chain(counters).chain(strangers.into_iter().map(strange)).collect()
}

fn counters((choice, complaints): &(Choice, Complaints), file: &Path) -> Finding {
    let what = format!("{}: {} families", file.display(), choice.shown.len());
    let unknown = complaints.unknown.iter().map(|field| format!("{field} is not read by the agent"));
    let wrong: Vec<_> = complaints.rows.iter().cloned().chain(unknown).collect();
    if wrong.is_empty() {
        return Finding::ok("counters", what);
    }
    Finding::note("counters", format!("{what}\n{}", wrong.join("\n")), "these rows are left out")
}

fn gpus(config: &Config, look: &Look) -> Vec<Finding> {
    match &look.gpus {
        Err(absence) => {
            let tried = config.nvml_library.as_ref().map_or("all the usual places were searched".to_owned(), |file| {
                format!("only {} was tried, as --nvml-library says", file.display())
            });
            vec![Finding::mend("NVML", format!("{}\n{tried}", absence.message), absence.remedy())]
        }
        Ok(snapshot) => {
            let library = look.library.as_ref().map(|file| format!(", {}", file.display())).unwrap_or_default();
            let driver = snapshot.driver_version.as_deref().unwrap_or("of an unknown version");
            let mut findings = vec![Finding::ok("NVML", format!("driver {driver}{library}"))];
            findings.extend(devices(snapshot));
            findings.extend(refusals(&look.calls));
            findings
        }
    }
}

fn devices(snapshot: &Snapshot) -> Vec<Finding> {
    if snapshot.gpus.is_empty() {
        return vec![Finding::mend(
            "GPUs",
            "the driver lists none",
            "is a GPU in the machine (`lspci | grep -i nvidia`), and is it visible to the container (NVIDIA_VISIBLE_DEVICES=all)?",
        )];
    }
    if snapshot.gpus.iter().all(|gpu| gpu.gpu.down() == Some("silent")) {
        let what = format!("the driver lists {}, and none of them answers", snapshot.gpus.len());
        return vec![Finding::mend("GPUs", what, NO_DEVICES)];
    }
    let one = |position: usize, gpu: &crate::attribution::GpuUse| {
        let identity = &gpu.gpu.identity;
        let about = format!("GPU {}", identity.index);
        let model = identity.model.as_deref().unwrap_or("unknown model");
        let name = if identity.uuid.is_empty() { model.to_owned() } else { format!("{model}, {}", identity.uuid) };
        if let Some(state) = gpu.gpu.down() {
            let remedy = "reset it (`nvidia-smi --gpu-reset`) or reboot the node; the other GPUs are shown meanwhile";
            let what = match state {
                "hangs" => "a call to it does not come back",
                "lost" => "lost",
                _ => "gives no answer",
            };
            return Finding::mend(&about, format!("{name}: {what}"), remedy);
        }
        let mig = gpu.gpu.mig.as_ref().map(|instances| format!(", MIG with {} instances", instances.len()));
        let held = snapshot.shares.iter().filter(|share| share.gpu == position && share.held).count();
        let held = if held > 0 { format!(", held by {held}") } else { String::new() };
        Finding::ok(&about, format!("{name}{}{held}", mig.unwrap_or_default()))
    };
    snapshot.gpus.iter().enumerate().map(|(position, gpu)| one(position, gpu)).collect()
}

/// Causes that only say what a GPU or a driver does not have.
const LACKING: [&str; 4] = ["not_supported", "not_found", "function_not_found", "argument_version_mismatch"];

/// Calls that some GPU does not answer: its series are missing, and this says why.
fn refusals(calls: &CallLog) -> Option<Finding> {
    let mut by_cause: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (call, cause) in calls.failed.keys() {
        by_cause.entry(cause).or_default().push(call);
    }
    let words: Vec<_> = by_cause.iter().map(|(cause, calls)| format!("{cause}: {}", calls.join(", "))).collect();
    let any = |which: fn(&str) -> bool| calls.failed.keys().any(|(_, cause)| which(cause));
    let remedy = if any(|cause| cause == "no_permission") {
        "for those without permission: with MIG, give the pod NVIDIA_MIG_MONITOR_DEVICES=all and the mig-monitor capability, or run it privileged"
    } else if any(|cause| !LACKING.contains(&cause)) {
        "what is not supported or not found has no series, and needs nothing; for the rest look at `dmesg` on the node"
    } else {
        "what a GPU does not support has no series; nothing to do"
    };
    (!words.is_empty()).then(|| Finding::note("NVML calls", words.join("\n"), remedy))
}

/// What a pod on EC2 needs to be heard.
const HOP: &str = "allow IMDSv2 a hop more (`--http-put-response-hop-limit 2`), or give the pod hostNetwork";

async fn cloud(config: &Config) -> Finding {
    let Some(authority) = &config.metadata else {
        return Finding::ok("cloud", "not asked: --metadata-endpoint is empty");
    };
    let found = notices::cloud(authority).await;
    // EC2's service greets anyone; what it says is for those to whom it gives a token.
    if found == Some(Cloud::Ec2)
        && let Err(failure) = ec2::token(&mut Metadata::new(authority.clone())).await
    {
        let what = match failure {
            Failure::HopLimit => "the metadata service gives no token to this pod".to_owned(),
            failure => failure.to_string(),
        };
        return Finding::mend("cloud", format!("ec2: {what}"), HOP);
    }
    match found {
        Some(cloud) => {
            Finding::ok("cloud", format!("{}: notices of interruption and maintenance are read", cloud.word()))
        }
        None => Finding::note(
            "cloud",
            "no metadata service answers: off-cloud, or out of reach",
            &format!("on EC2, {HOP}; elsewhere nothing to do"),
        ),
    }
}

/// Whether the agent can listen, or does so already.
fn port(address: SocketAddr) -> Finding {
    let what = |rest: &str| format!("{address}: {rest}");
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", what("free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => match who_answers(address) {
            Some(true) => Finding::ok("port", what("an agent answers there")),
            Some(false) => Finding::mend(
                "port",
                what("another program answers there"),
                "dcgm-exporter has the same port: remove it from the node, or give the agent another with --listen",
            ),
            None => Finding::note(
                "port",
                what("in use, and does not speak plain HTTP"),
                "well if it is an agent with TLS; else give another --listen",
            ),
        },
        Err(error) => Finding::mend("port", what(&error.to_string()), "give another address with --listen"),
    }
}

/// Whether it is an agent; `None` when it does not answer.
fn who_answers(address: SocketAddr) -> Option<bool> {
    let mut address = address;
    if address.ip().is_unspecified() {
        let ip = if address.is_ipv4() { "127.0.0.1".parse() } else { "::1".parse() };
        address.set_ip(ip.ok()?);
    }
    let mut stream = TcpStream::connect_timeout(&address, INTRODUCTION).ok()?;
    stream.set_read_timeout(Some(INTRODUCTION)).ok()?;
    stream.set_write_timeout(Some(INTRODUCTION)).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    // What came before the time was up is enough.
    let _cut = stream.take(4096).read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    answer.starts_with("HTTP/").then(|| answer.contains("windlass-agent"))
}

#[cfg(test)]
mod tests;
