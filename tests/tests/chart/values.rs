//! Values: each is described where it stands and known to the schema, a wrong one is refused by its name, and settings are those of the programs.

use std::{collections::BTreeSet, path::Path};

use clap::CommandFactory as _;
use serde_json::Value;
use windlass_tests::helm::{chart, lint, objects, template};

use crate::chart::manifests::example;

/// Kubernetes' and Helm's own words, which need no explanation of ours.
const KNOWN: &[&str] = &[
    "enabled",
    "create",
    "annotations",
    "labels",
    "pullPolicy",
    "repository",
    "image",
    "service",
    "serviceAccount",
    "podAnnotations",
    "podLabels",
    "resources",
    "requests",
    "limits",
    "nodeSelector",
    "affinity",
    "tolerations",
    "priorityClassName",
    "updateStrategy",
    "extraArgs",
    "extraEnv",
    "extraVolumes",
    "extraVolumeMounts",
    "networkPolicy",
    "podDisruptionBudget",
    "rbac",
    "scrapeAnnotations",
    "interval",
    "maxUnavailable",
    "honorLabels",
    "namespace",
];

fn read(name: &str) -> String {
    std::fs::read_to_string(chart().join(name)).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&read("values.schema.json")).unwrap()
}

/// What the schema says of one value.
fn described<'a>(schema: &'a Value, value: &'a Value) -> &'a Value {
    let name = value["$ref"].as_str().and_then(|name| name.strip_prefix("#/definitions/"));
    name.map_or(value, |name| &schema["definitions"][name])
}

#[test]
fn helm_finds_nothing_to_say() {
    for values in ["", "agent: {enabled: false}", &example("sim", ""), &example("eks", "")] {
        lint(values).unwrap();
    }
}

#[test]
fn every_value_is_in_the_schema_and_what_is_in_the_schema_is_a_value() {
    let (schema, values) = (schema(), serde_saphyr::from_str::<Value>(&read("values.yaml")).unwrap());
    // Settings of the programs, which have defaults of their own; and what Helm hands to every chart.
    let own = ["agent.config", "provider.config", "global", "claims"];
    let mut left = vec![(String::new(), &schema, &values)];
    let mut seen = 0;
    while let Some((path, rule, value)) = left.pop() {
        let Some(properties) = rule["properties"].as_object().filter(|_| !own.contains(&path.as_str())) else {
            continue;
        };
        assert_eq!(rule["additionalProperties"], false, "{path} takes what it does not know");
        for (name, rule) in properties.iter().filter(|(name, _)| !own.contains(&name.as_str())) {
            let path = format!("{path}.{name}").trim_start_matches('.').to_owned();
            assert!(!value[name].is_null(), "{path} is in the schema and not in values.yaml");
            left.push((path, described(&schema, rule), &value[name]));
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} values: the test looks at the wrong place");
}

#[test]
fn every_value_is_described_where_it_stands() {
    let (schema, text) = (schema(), read("values.yaml"));
    let mut path: Vec<&str> = Vec::new();
    let mut before = "";
    for line in text.lines() {
        let depth = (line.len() - line.trim_start().len()) / 2;
        if let Some((name, _)) = line.trim_start().split_once(':').filter(|(name, _)| !name.contains([' ', '#', '-'])) {
            path.truncate(depth);
            path.push(name);
            let step = |rule: &Value, name: &&str| described(&schema, &rule["properties"][*name]).clone();
            let rule = path.iter().fold(schema.clone(), |rule, name| step(&rule, name));
            let commented = before.trim_start().starts_with('#');
            assert!(
                rule.is_null() || commented || KNOWN.contains(&name),
                "values.yaml: {} is not described",
                path.join(".")
            );
        }
        before = line;
    }
}

#[test]
fn the_agents_settings_are_its_flags() {
    let command = windlass_agent::config::Args::command();
    let flags: BTreeSet<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let flags: BTreeSet<_> =
        flags.into_iter().filter(|name| !["config", "once", "json", "help", "version"].contains(name)).collect();
    let schema = schema();
    let known = schema["properties"]["agent"]["properties"]["config"]["properties"].as_object().unwrap();
    assert_eq!(known.keys().map(String::as_str).collect::<BTreeSet<_>>(), flags);
}

#[test]
fn the_providers_keys_are_those_of_its_configuration() {
    let schema = schema();
    let config = &schema["properties"]["provider"]["properties"]["config"];
    for (rule, text) in [(config, "x: 1"), (&config["properties"]["cloud"], "cloud: {x: 1}")] {
        let problems = windlass_provider::config::Config::parse(text, Path::new("x.yaml")).unwrap_err();
        let (_, keys) = problems[0].what.split_once("expected one of ").expect("the keys that there are");
        let known = rule["properties"].as_object().unwrap().keys().map(String::as_str);
        assert_eq!(known.collect::<BTreeSet<_>>(), keys.split(", ").collect());
    }
}

#[test]
fn the_agent_takes_its_settings_as_the_chart_writes_them() {
    let values = "agent:\n  collectors: 'DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature.'\n  config:\n    sample-interval: 2s\n    dcgm-names: '4.6'\n    \
        pod-labels: app|team\n    max-series: 30000\n    taint-on: [spot_interruption, preemption]\n    pod-uid: true\n";
    let objects = objects(&template(values, &[]).unwrap()).unwrap();
    let settings = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = settings["data"]["agent.yaml"].as_str().unwrap();
    let file = folder.path().join("agent.yaml");
    std::fs::write(&file, text).unwrap();
    let line = ["windlass-agent".into(), "--config".into(), file.into_os_string()];
    let (_, args) = windlass_agent::config::command_line::parse(&line).unwrap();
    assert_eq!(args.max_series, 30_000);
    assert_eq!(settings["data"]["collectors.csv"], "DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature.\n");
    assert!(text.contains("collectors: /etc/windlass/collectors.csv"), "{text}");
}

#[test]
fn pods_are_kept_for_the_settings_that_are_taken_over_while_they_run() {
    let names =
        |text: &str, mark: char| text.split(mark).skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let readme = std::fs::read_to_string(chart().join("../../README.md")).unwrap();
    let row = readme.lines().find(|line| line.ends_with("| are taken over while the agent runs |")).unwrap();
    let template = read("templates/agent/daemonset.yaml");
    let kept = template.lines().find_map(|line| line.split_once("omit $config")).unwrap().1;
    assert_eq!(names(kept, '"'), names(row, '`'));
}

/// A wrong value -> what the refusal must name.
#[test]
fn a_wrong_value_is_refused_by_its_name() {
    let cases = [
        ("agnet: {}", "agnet"),
        ("agent: {enabled: maybe}", "enabled"),
        ("agent: {image: {pullpolicy: Always}}", "pullpolicy"),
        ("agent: {image: {pullPolicy: Sometimes}}", "'Always', 'IfNotPresent', 'Never'"),
        ("agent: {image: {registry: registry.example/}}", "registry"),
        ("agent: {config: {sample_interval: 1s}}", "sample_interval"),
        ("agent: {config: {sample-interval: 1}}", "sample-interval"),
        // YAML of old takes the word for a boolean.
        ("agent: {config: {dcgm-names: off}}", "dcgm-names"),
        ("agent: {config: {taint-on: [spot]}}", "taint-on"),
        ("agent: {gpuAccess: privileged}", "'environment', 'mount'"),
        ("agent: {webConfig: {probe: https}}", "'HTTPS', 'HTTP', 'TCP'"),
        ("agent: {podAnnotations: {a: 1}}", "podAnnotations"),
        ("agent: {tolerations: {operator: Exists}}", "tolerations"),
        ("clusterAutoscaler: {extraArgs: [v=4]}", "extraArgs"),
        ("provider: {enabled: true}", "provider.config.cloud: say which cloud has the machines"),
        ("provider: {enabled: true, config: {cloud: {kind: gke}}}", "'aws', 'sim'"),
        ("provider: {config: {refesh: 10s}}", "refesh"),
        ("provider: {config: {cloud: {clustername: a}}}", "clustername"),
        ("agent: {config: }", "config"),
        ("provider: {podDisruptionBudget: {maxUnavailable: 2}}", "maxUnavailable"),
        ("podMonitor: {interval: 15}", "interval"),
    ];
    for (values, named) in cases {
        let refusal = template(values, &[]).expect_err(values).to_string();
        assert!(refusal.contains(named), "{values}: expected {named:?} in\n{refusal}");
    }
}
