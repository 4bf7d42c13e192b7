//! Values: each is described where it stands and known to the schema, a wrong one is refused by its name, and settings are those of the programs.

use std::{collections::BTreeSet, path::Path};

use clap::CommandFactory as _;
use serde_json::{Value, json};
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

/// What the program says of a configuration in which `value` stands at this place; `[]` is the only one of a list.
fn complaint(place: &[&str], value: Value) -> String {
    let wrap = |value: Value, name: &&str| match *name {
        "[]" => json!([value]),
        name => json!({ name: value }),
    };
    let text = place.iter().rev().fold(value, wrap).to_string();
    let problems = windlass_provider::config::Config::parse(&text, Path::new("x.yaml")).unwrap_err();
    problems[0].what.clone()
}

/// The schema has each object of the provider's configuration with exactly its keys, and nothing else is one.
fn check_keys<'a>(schema: &'a Value, rule: &'a Value, place: &mut Vec<&'a str>, objects: &mut u32) {
    let rule = described(schema, rule);
    if let Some(properties) = rule["properties"].as_object() {
        *objects += 1;
        assert_eq!(rule["additionalProperties"], false, "{place:?} takes what it does not know");
        // The list of priorities has numbers for keys.
        if rule["patternProperties"].is_null() {
            let said = complaint(place, json!({"no such key": 1}));
            let (_, keys) = said.split_once("expected ").unwrap_or_else(|| panic!("{place:?}: {said}"));
            let keys = keys.trim_start_matches("one of ").replace(" or ", ", ");
            let known = properties.keys().map(String::as_str);
            assert_eq!(known.collect::<BTreeSet<_>>(), keys.split(", ").collect(), "{place:?}");
        }
        for (name, rule) in properties {
            place.push(name);
            check_keys(schema, rule, place, objects);
            place.pop();
        }
        return;
    }
    for (name, inner) in [("[]", &rule["items"]), ("any", &rule["additionalProperties"])] {
        if inner.is_object() {
            place.push(name);
            check_keys(schema, inner, place, objects);
            place.pop();
            return;
        }
    }
    let said = complaint(place, json!({"no such key": 1}));
    assert!(!said.contains("unknown field"), "{place:?} has keys that the schema does not know: {said}");
}

#[test]
fn the_providers_keys_are_those_of_its_configuration() {
    let (schema, mut objects) = (schema(), 0);
    let config = &schema["properties"]["provider"]["properties"]["config"];
    check_keys(&schema, config, &mut Vec::new(), &mut objects);
    assert!(objects > 15, "only {objects} objects: the test looks at the wrong place");
}

/// What README shows as a configuration, whole and on AWS, is one for the chart, and what it renders is one for the program.
#[test]
fn what_readme_shows_is_a_configuration_for_the_chart() {
    let readme = std::fs::read_to_string(chart().join("../../README.md")).unwrap();
    let blocks: Vec<&str> = readme.split("```").filter(|block| block.contains("\ncloud:\n")).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let config: Value = serde_saphyr::from_str(block.split_once('\n').unwrap().1).unwrap();
        let values = json!({"provider": {"enabled": true, "config": config}}).to_string();
        template(&values, &[]).unwrap();
    }
}

/// One list of priorities, not the chart's file as well.
#[test]
fn a_list_of_priorities_stands_instead_of_the_charts_file() {
    for (written, expected) in [
        (json!({}), json!({"file": "/etc/windlass-priorities/priorities"})),
        (json!({"priorities": {"50": [".*spot.*"]}}), json!({"50": [".*spot.*"]})),
        (json!({"priorities": {"file": "/etc/windlass/mine"}}), json!({"file": "/etc/windlass/mine"})),
    ] {
        let set = format!("--set-json=provider.config.expander={written}");
        let objects = objects(&template(&example("sim", ""), &[&set]).unwrap()).unwrap();
        let settings = objects.iter().find(|object| object["metadata"]["name"] == "windlass-provider").unwrap();
        let config: Value = serde_saphyr::from_str(settings["data"]["provider.yaml"].as_str().unwrap()).unwrap();
        assert_eq!(config["expander"]["priorities"], expected);
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
        ("provider: {config: {cloud: {groups: [{name: a, maximum: 3}]}}}", "maximum"),
        ("provider: {config: {expander: {filter: [waste]}}}", "filter"),
        ("provider: {config: {expander: {filters: [cheapest]}}}", "'gpu_fit', 'offering'"),
        ("provider: {config: {expander: {priorities: {high: [a]}}}}", "high"),
        ("provider: {config: {purchaseMemory: {hold: soon}}}", "hold"),
        ("provider: {config: {refresh: -1s}}", "refresh"),
        ("provider: {config: {usage: {agents: {adress: 'a:1'}}}}", "adress"),
        ("provider: {config: {groups: {spot: {option: {}}}}}", "option"),
        (
            "provider: {config: {groups: {spot: {options: {scaleDownUtilizationThreshold: 50}}}}}",
            "scaleDownUtilizationThreshold",
        ),
        ("agent: {config: }", "config"),
        ("provider: {podDisruptionBudget: {maxUnavailable: 2}}", "maxUnavailable"),
        ("podMonitor: {interval: 15}", "interval"),
    ];
    for (values, named) in cases {
        let refusal = template(values, &[]).expect_err(values).to_string();
        assert!(refusal.contains(named), "{values}: expected {named:?} in\n{refusal}");
    }
}
