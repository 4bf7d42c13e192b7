//! What we hand out can be used as it is: the configurations and scenarios in README and in the manifests pass the provider's own checks,
//! and the manifests name ports, paths and flags that the programs have.

use std::{fs, path::Path};

use clap::CommandFactory as _;
use windlass_provider::{cloud::sim::Scenario, config::Config};

use crate::source::file;

/// A list in cluster-autoscaler's format.
const PRIORITIES: &str = "50: [\".*spot.*\"]\n10: [\".*\"]\n";

#[test]
fn readme_shows_a_whole_configuration_and_a_whole_scenario() {
    let readme = file("README.md").text;
    let blocks: Vec<_> =
        readme.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("yaml\n")).collect();
    let [config, scenario] = blocks.as_slice() else { panic!("README.md has {} YAML blocks, not two", blocks.len()) };
    check(config, scenario);
}

#[test]
fn the_manifests_configuration_is_sound() {
    let manifest = file("deploy/kubernetes/autoscaler.yaml").text;
    let config = literal(&manifest, "provider.yaml").replace("/etc/windlass-priorities/", "");
    check(&config, &literal(&manifest, "scenario.yaml"));
}

#[test]
fn the_agents_manifest_knows_its_flags() {
    let manifest = file("deploy/kubernetes/agent.yaml").text;
    let command = windlass_agent::config::Args::command();
    let known: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    let used =
        manifest.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).filter(|word| word.starts_with("WINDLASS_"));
    let unknown: Vec<_> = used.filter(|word| !known.contains(word)).collect();
    assert!(unknown.is_empty(), "agent.yaml sets what the agent does not read: {unknown:?}");
}

/// Both as the provider takes them, in a folder of their own.
fn check(config: &str, scenario: &str) {
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("a folder for the example: {error}"));
    for (name, text) in [("scenario.yaml", scenario), ("priorities", PRIORITIES)] {
        fs::write(dir.path().join(name), text).unwrap_or_else(|error| panic!("writing {name}: {error}"));
    }
    if let Err(problems) = Config::parse(config, &dir.path().join("provider.yaml")) {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
    if let Err(error) = Scenario::parse(scenario, Path::new("scenario.yaml")) {
        panic!("{error}");
    }
}

/// The text of a block scalar, `name: |`, without its indentation.
fn literal(manifest: &str, name: &str) -> String {
    let mut lines = manifest.lines().skip_while(|line| line.trim() != format!("{name}: |"));
    let indent = |line: &str| line.len() - line.trim_start().len();
    let outer = lines.next().map(indent).unwrap_or_else(|| panic!("no `{name}: |` in the manifest"));
    let inside = lines.take_while(|line| line.trim().is_empty() || indent(line) > outer);
    inside.map(|line| format!("{}\n", line.get(outer + 2..).unwrap_or_default())).collect()
}
