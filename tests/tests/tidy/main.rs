//! The house rules that a compiler cannot hold: one home for each foreign name, a core without a world, files of a readable size,
//! and a README that says what the programs do. Every failure names the file, the line and the rule.

mod examples;
mod features;
mod readme;
mod source;

use source::{Source, every_rust_file, every_text_file};

/// Longest file, in lines.
const FILE_LINES: usize = 400;

/// A foreign name, where it may be spoken inside the two programs, and nowhere else.
const HOMES: &[(&str, &[&str])] = &[
    ("nvml_wrapper", &["agent/src/gpu/"]),
    ("windlass_proto::podresources", &["agent/src/pods/kubelet.rs", "agent/src/pods/kubelet/"]),
    ("windlass_proto::pods", &["agent/src/pods/kubelet/"]),
    (
        "tonic::",
        &["agent/src/pods/kubelet.rs", "agent/src/pods/kubelet/", "provider/src/grpc.rs", "provider/src/grpc/"],
    ),
    ("windlass_proto::externalgrpc", &["provider/src/grpc.rs", "provider/src/grpc/", "provider/src/replay"]),
    ("windlass_proto::expander", &["provider/src/grpc.rs", "provider/src/grpc/", "provider/src/replay"]),
    (
        "serde_saphyr",
        &[
            "provider/src/config",
            "provider/src/cloud/sim/scenario",
            "provider/src/cloud/aws/template/user_data",
            "provider/src/expander/priority",
            "agent/src/config",
        ],
    ),
    ("kube::", &["provider/src/kube", "agent/src/kube_api"]),
    ("k8s_openapi", &["provider/src/kube", "agent/src/kube_api"]),
    ("aws_sdk_", &["provider/src/cloud/aws"]),
    ("google_cloud_", &["provider/src/cloud/gcp"]),
    ("rcgen", &["provider/src/grpc/"]),
    ("rustls", &["provider/src/grpc/", "provider/src/usage/agents/", "agent/src/http/"]),
    ("bcrypt", &["agent/src/http/users", "agent/src/config/web"]),
    ("axum", &["provider/src/http"]),
    ("hyper", &["agent/src/http", "agent/src/notices/metadata.rs", "provider/src/http", "provider/src/usage/agents/"]),
    ("flate2", &["agent/src/http", "agent/src/exposition"]),
];

/// Values in, values out: no task, clock, lock, log or I/O.
const CORE: &[&str] = &[
    "agent/src/attribution",
    "agent/src/families",
    "agent/src/exposition",
    "proto/src/quantity",
    "provider/src/expander",
    "provider/src/fleet",
    "provider/src/replay",
    "provider/src/scale_down",
    "provider/src/snapshot",
];

/// What the core never says.
const WORLD: &[&str] = &[
    "async fn",
    "async move",
    ".await",
    "tokio",
    "tracing::",
    "println!",
    "SystemTime",
    "Instant",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "Mutex",
    "RwLock",
    "rand::",
];

#[test]
fn a_foreign_name_has_one_home() {
    check_code(programs(), |source, line| {
        let stray = HOMES.iter().filter(|(name, homes)| speaks(line, name) && !source.is_under(homes));
        stray.map(|(name, homes)| format!("`{name}` lives in {} only", homes.join(", "))).collect()
    });
}

#[test]
fn the_core_is_values_in_values_out() {
    let core = every_rust_file().into_iter().filter(|source| source.is_under(CORE) && !source.is_test());
    check_code(core, |_, line| {
        let said = WORLD.iter().filter(|word| speaks(line, word));
        said.map(|word| format!("the core knows no `{word}`: hand it the value instead")).collect()
    });
}

#[test]
fn the_agent_and_the_provider_do_not_know_each_other() {
    let arrows = [("agent/", "provider"), ("provider/", "agent"), ("proto/", "agent"), ("proto/", "provider")];
    let files = every_text_file().into_iter().filter(|file| file.is_rust() || file.path.ends_with("Cargo.toml"));
    check_code(files, |source, line| {
        let wrong = arrows.iter().filter(|(from, to)| {
            source.path.starts_with(from)
                && (line.contains(&format!("windlass_{to}::")) || line.starts_with(&format!("windlass-{to}")))
        });
        wrong
            .map(|(from, to)| format!("{from} must not know the {to}: tests -> {{agent, provider}} -> proto"))
            .collect()
    });
}

#[test]
fn files_open_with_their_role_and_stay_small() {
    check(every_rust_file(), |source| {
        let count = source.text.lines().count();
        let long = (count > FILE_LINES)
            .then(|| (count, format!("longer than {FILE_LINES} lines: split it by what it is about")));
        let mute = (!source.text.starts_with("//!"))
            .then(|| (1, "must open with `//!`: its role in two sentences".to_owned()));
        long.into_iter().chain(mute).collect()
    });
}

#[test]
fn nothing_is_left_for_later() {
    // Written apart, so that this file does not find itself.
    let words = [["#[ign", "ore"], ["tod", "o!("], ["unimple", "mented!("], ["FIX", "ME"], ["TO", "DO"]]
        .map(|parts| parts.concat());
    check_lines(every_rust_file(), |line| {
        let said = words.iter().filter(|word| line.contains(word.as_str()));
        said.map(|word| format!("`{word}`: finish it, or take it out")).collect()
    });
}

#[test]
fn the_tree_speaks_of_itself_alone() {
    let folders = [["/wor", "k/"], ["/tmp/", "wt"], ["/ro", "ot/"]].map(|parts| parts.concat());
    let hosts = ["registry.k8s", "gcr", "docker", "quay", "ghcr"].map(|host| format!("{host}.io/"));
    check_lines(every_text_file(), |line| {
        let folder = folders
            .iter()
            .filter(|path| line.contains(path.as_str()))
            .map(|path| format!("`{path}` is one machine's path"));
        let host = hosts
            .iter()
            .filter(|host| line.contains(host.as_str()))
            .map(|host| format!("`{host}` is one registry's name"));
        folder.chain(host).collect()
    });
}

fn programs() -> impl Iterator<Item = Source> {
    every_rust_file().into_iter().filter(|file| file.is_under(&["agent/", "provider/"]) && !file.is_test())
}

/// Whether a line of code says a name, and not merely a longer one that contains it.
fn speaks(line: &str, name: &str) -> bool {
    let part_of_a_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + name.len()..).and_then(|text| text.chars().next());
        let ends_open = name.ends_with(|c: char| !part_of_a_word(c) || c == '_');
        !before.is_some_and(part_of_a_word) && (ends_open || !after.is_some_and(part_of_a_word))
    })
}

/// Holds a rule against every line of code: no comments, no inline tests.
fn check_code(sources: impl IntoIterator<Item = Source>, rule: impl Fn(&Source, &str) -> Vec<String>) {
    check(sources, |source| {
        let lines = source.lines_of_code();
        lines.flat_map(|(number, line)| rule(source, line).into_iter().map(move |finding| (number, finding))).collect()
    });
}

/// Holds a rule against every line.
fn check_lines(sources: impl IntoIterator<Item = Source>, rule: impl Fn(&str) -> Vec<String>) {
    check(sources, |source| {
        let lines = (1..).zip(source.text.lines());
        lines.flat_map(|(number, line)| rule(line).into_iter().map(move |finding| (number, finding))).collect()
    });
}

/// Fails with every finding at once, each as `path:line: what is wrong`.
fn check(sources: impl IntoIterator<Item = Source>, rule: impl Fn(&Source) -> Vec<(usize, String)>) {
    let mut findings = Vec::new();
    let mut looked_at = 0;
    for source in sources {
        looked_at += 1;
        findings.extend(rule(&source).into_iter().map(|(line, finding)| format!("{}:{line}: {finding}", source.path)));
    }
    assert!(looked_at > 0, "no file was looked at: the rule guards nothing");
    assert!(findings.is_empty(), "{} findings\n{}\n", findings.len(), findings.join("\n"));
}
