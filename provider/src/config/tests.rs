//! Configurations that are right, and what is said of those that are not.

use std::path::Path;

use super::*;

const LEAST: &str = "cloud: {kind: sim, scenario: ../tests/scenarios/demo.yaml}\n";

fn parse(text: &str) -> Result<Config, Vec<String>> {
    let said = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect();
    Config::parse(text, &Path::new(env!("CARGO_MANIFEST_DIR")).join("windlass.yaml")).map_err(said)
}

#[test]
fn little_needs_to_be_said() {
    let config = parse(LEAST).unwrap();
    assert_eq!(config.provider.listen.to_string(), "unix:///run/windlass/provider.sock");
    assert_eq!((config.http.listen.port(), config.expander.listen.port()), (8085, 8087));
    assert_eq!(
        (config.refresh(), config.unregistered.reap_after),
        (Duration::from_secs(10), Duration::from_secs(1200))
    );
    assert!(config.purchase_memory.enabled);
    assert!(config.cloud.scenario.unwrap().is_absolute(), "relative to the file");
}

#[test]
fn everything_can_be_said() {
    let text = r#"
cloud: {kind: sim, scenario: ../tests/scenarios/demo.yaml, state: sim.json}
provider: {listen: "127.0.0.1:0", insecure: true}
expander:
  listen: "127.0.0.1:0"
  selfSigned: {caFile: ca.crt, names: [localhost]}
  filters: [gpu_fit, offering, priority, waste]
  priorities: {100: [".*spot.*"], 1: [".*"]}
http: {listen: "127.0.0.1:0"}
gpuLabel: cloud.google.com/gke-accelerator
refresh: 1s
state: state.json
purchaseMemory: {enabled: false, hold: 10m, settle: 1m}
offerings: {initialBackoff: 5s, maxBackoff: 1m}
unregistered: {reapAfter: 90s}
usage:
  agents:
    address: windlass-agent.windlass.svc:9400
    urls: ["http://10.0.0.7:9400"]
    interval: 5s
    tls: {ca: Cargo.toml, cert: Cargo.toml, key: Cargo.toml, serverName: windlass-agent}
    basicAuth: {username: windlass, passwordFile: Cargo.toml}
groups: {spot: {options: {scaleDownUnneededTime: 90s, scaleDownGpuUtilizationThreshold: 0.3}}}
"#;
    let config = parse(text).unwrap();
    assert_eq!(config.groups["spot"].options.scale_down_unneeded_time, Some(Duration::from_secs(90)));
    assert!(matches!(config.expander.priorities, Some(Priorities::List(list)) if list.len() == 2));
    assert!(!config.purchase_memory.enabled);
}

/// The configuration beyond the cloud, and what must stand in the message: line, key, remedy.
#[test]
fn what_is_wrong_is_said_with_line_key_and_remedy() {
    for (text, said) in [
        ("gpulabel: x\n", ":2: gpulabel: ", "unknown field"),
        ("provider:\n  lissten: x\n", ":3: provider.lissten: ", "check the spelling"),
        ("provider:\n  listen: \"8086\"\n", ":3: provider.listen: ", "unix:///run/x.sock or 0.0.0.0:8086"),
        ("provider:\n  listen: \"unix://run/x\"\n", ":3: provider.listen: ", "absolute path"),
        ("provider:\n  listen: \"0.0.0.0:8086\"\n", ":3: provider.listen: ", "insecure: true"),
        ("refresh: soon\n", ":2: refresh: ", "for example 500ms, 90s"),
        ("refresh: 1ms\n", ":2: refresh: ", "out of range"),
        ("purchaseMemory:\n  hold: 100h\n", ":3: purchaseMemory.hold: ", "to 24h"),
        ("offerings:\n  initialBackoff: 1h\n", ":2: offerings.maxBackoff: ", "out of range"),
        ("expander:\n  tls: {cert: no.pem, key: no.pem}\n", ":3: expander.tls.cert: ", "cannot be read"),
        ("expander:\n  filters: [speed]\n", ":3: expander.filters: ", "unknown variant"),
        ("expander:\n  priorities: {file: no.yaml}\n", ":3: expander.priorities.file: ", "cannot be read"),
        ("expander:\n  priorities: {high: [x]}\n", ":3: expander.priorities: ", "neither a whole number"),
        ("expander:\n  priorities: {10: [\"(\"]}\n", ":3: expander.priorities: ", "("),
        (
            "groups:\n  g:\n    options:\n      scaleDownUtilizationThreshold: 2\n",
            ":5: groups.g.options.",
            "from 0 to 1",
        ),
        ("groups:\n  g:\n    optoins: {}\n", ":4: groups.g.optoins: ", "unknown field"),
        ("http: {listen: nowhere}\n", ":2: http: ", "not an IP address with a port"),
        ("http: [", ":2: http", ""),
        ("gpuLabel: \"\"\n", ":2: gpuLabel: ", "leave the key out"),
        ("usage:\n  agents: {}\n", ":3: usage.agents: ", "windlass-agent.windlass.svc:9400"),
        ("usage:\n  agents: {address: agents}\n", ":3: usage.agents", "no host and port"),
        ("usage:\n  agents:\n    urls: [10.0.0.7]\n", ":4: usage.agents.urls: ", "http://10.0.0.7:9400"),
        ("usage:\n  agents:\n    urls: [\"https://a:1\"]\n", ":4: usage.agents.urls: ", "usage.agents.tls.ca"),
        ("usage:\n  agents:\n    adress: a:1\n", ":4: usage.agents.adress: ", "unknown field"),
        ("usage:\n  agents:\n    address: a:1\n    interval: 2d\n", ":5: usage.agents.interval: ", "for example"),
        ("usage:\n  agents:\n    address: a:1\n    tls: {ca: no.pem}\n", ":5: usage.agents.tls.ca: ", "cannot be read"),
        (
            "usage:\n  agents:\n    address: a:1\n    basicAuth: {username: u, passwordFile: no}\n",
            ":5: usage.agents.basicAuth.passwordFile: ",
            "cannot be read",
        ),
        ("http: {listen: \"0.0.0.0:8087\"}\n", ":2: http.listen: ", "has the port of expander.listen"),
        ("expander:\n  filters: [waste, name, waste]\n", ":3: expander.filters: waste stands there twice", "once"),
    ]
    .map(|(text, place, words)| (text, [place, words]))
    {
        let problems = parse(&format!("{LEAST}{text}")).expect_err(text);
        for words in said {
            assert!(problems.iter().any(|it| it.contains(words)), "{text}: {problems:?} lack {words:?}");
        }
    }
    for (text, words) in [
        ("", "nothing is written here; "),
        ("cloud: 3", "a value stands where keys with values are expected; "),
        ("cloud: {kind: aws}\ncloud: {kind: sim}", "duplicate mapping key: cloud; "),
        ("refresh: 1s\n", "missing field"),
        ("cloud: {kind: sim}\n", "cloud.scenario"),
        ("cloud: {kind: sim, scenario: nowhere.yaml}\n", "cannot be read"),
        ("cloud: {kind: azure}\n", "unknown variant"),
    ] {
        let problems = parse(text).expect_err(text);
        assert!(problems.iter().any(|it| it.contains(words)), "{text}: {problems:?} lack {words:?}");
    }
}

/// The text of a block scalar, `name: |`, or of the fenced block that begins so, without its indentation.
#[cfg(feature = "aws")]
fn literal(text: &str, begins: &str, ends: impl Fn(&str) -> bool) -> String {
    let mut lines = text.lines().skip_while(|line| line.trim() != begins).skip(1).take_while(|line| !ends(line));
    let first = lines.next().unwrap_or_default();
    let indent = first.len() - first.trim_start().len();
    let rest = lines.map(|line| line.get(indent..).unwrap_or_default());
    std::iter::once(first.trim_start()).chain(rest).map(|line| format!("{line}\n")).collect()
}

#[cfg(feature = "aws")]
#[test]
fn what_is_wrong_with_aws_is_said_with_line_key_and_remedy() {
    for (text, words) in [
        ("region: x\n", ":1: cloud: does not say which groups are ours"),
        ("discovery: [\"asg:tag=\"]\n", ":3: cloud.discovery: \"asg:tag=\" is no discovery spec"),
        ("groups: [{name: a}, {name: a}]\n", ":3: cloud.groups: a is named twice; name each group once"),
        ("groups: [{name: a, min: 2, max: 1}]\n", ":3: cloud.groups: the minimum of a, 2, is above its maximum, 1"),
        ("clusterName: c\n  endpoint: localhost\n", ":4: cloud.endpoint: \"localhost\" is no URL; write the address"),
        ("clusterName: c\n  endpoint: http://\n", ":4: cloud.endpoint: \"http://\" is no URL"),
        ("clusterName: c\n  interruptionQueue: q\n", ":4: cloud.interruptionQueue: \"q\" is no URL"),
    ] {
        let problems = parse(&format!("cloud:\n  kind: aws\n  {text}")).expect_err(text);
        assert!(problems.iter().any(|it| it.contains(words)), "{text}: {problems:?} lack {words:?}");
    }
}

#[cfg(feature = "aws")]
#[test]
fn what_is_handed_out_for_aws_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("windlass.yaml");
    std::fs::write(folder.path().join("priorities"), "10: [\".*\"]\n").unwrap();
    std::fs::write(folder.path().join("prices.csv"), "g5.xlarge,spot,*,0.41\n").unwrap();
    let read = |path: &str| std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let manifest = literal(&read("deploy/aws/eks.yaml"), "provider.yaml: |", |line| line.starts_with("---"));
    let config = Config::parse(&manifest.replace("/etc/windlass-priorities/", ""), &file).unwrap();
    assert_eq!(config.cloud.cluster_name.as_deref(), Some("my-cluster"));
    let readme = read("README.md");
    let (_, section) = readme.split_once("### AWS: Auto Scaling groups").unwrap();
    let shown = literal(section, "```", |line| line == "```");
    // An endpoint of one's own and AWS's own kinds of endpoints exclude each other; README shows both keys.
    let shown: String =
        shown.lines().filter(|line| !line.contains("endpoint:")).map(|line| format!("{line}\n")).collect();
    assert_eq!(Config::parse(&shown, &file).unwrap().cloud.kind, CloudKind::Aws);
}
