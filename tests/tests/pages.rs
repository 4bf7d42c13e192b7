//! The provider's HTTP side over a real socket, while a client asks and buys as cluster-autoscaler does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use prost::Message as _;
use serde_json::{Value, json};
use windlass_proto::{
    core,
    expander::{BestOptionsRequest, Option as WireOption},
    externalgrpc::NodeGroupIncreaseSizeRequest,
};
use windlass_provider::{
    config::Config,
    replay::autoscaler::{Call, Provider as _, Reply},
};
use windlass_tests::{
    caller::Caller,
    prometheus::{Prometheus, check_rules, job},
};

const SCENARIO: &str = "
seed: 1
machines: {bootTime: 1h}
groups:
  - {id: spot-a10g, max: 8, instanceType: g5.xlarge, market: spot, region: r, zones: [zone-a], capacity: {zone-a: 2}, price: 0.4, cpu: 4, memory: 16Gi, gpu: {model: nvidia-a10g, count: 1, memory: 24Gi}}
  - {id: od-a10g, max: 4, instanceType: g5.xlarge, region: r, zones: [zone-a], capacity: {zone-a: 0}, price: 1.0, cpu: 4, memory: 16Gi, gpu: {model: nvidia-a10g, count: 1, memory: 24Gi}}
  - {id: cpu, max: 4, instanceType: m7i.large, region: r, zones: [zone-a], cpu: 2, memory: 8Gi}
";

/// Status and body of a GET.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn ok(address: SocketAddr, path: &str) -> String {
    let (status, body) = get(address, path);
    assert_eq!(status, 200, "{path}: {body}");
    body
}

fn config(folder: &Path) -> Config {
    std::fs::write(folder.join("scenario.yaml"), SCENARIO).unwrap();
    let text = format!(
        "cloud: {{kind: sim, scenario: scenario.yaml}}\n\
         provider: {{listen: \"unix://{0}/provider.sock\"}}\n\
         expander: {{listen: \"127.0.0.1:0\", selfSigned: {{caFile: ca.crt}}}}\n\
         http: {{listen: \"127.0.0.1:0\"}}\n",
        folder.display()
    );
    std::fs::write(folder.join("config.yaml"), text).unwrap();
    Config::load(&folder.join("config.yaml")).unwrap()
}

/// Two pods of one GPU each that every group with GPUs would help.
fn question() -> BestOptionsRequest {
    let pod = |name: &str| {
        let quantity = |text: &str| core::Quantity { string: Some(text.to_owned()) };
        let requests = [("cpu".to_owned(), quantity("2")), ("nvidia.com/gpu".to_owned(), quantity("1"))].into();
        let resources = core::ResourceRequirements { requests, ..Default::default() };
        let containers = vec![core::Container { resources: Some(resources), ..Default::default() }];
        let metadata =
            core::ObjectMeta { name: Some(name.to_owned()), uid: Some(format!("uid-{name}")), ..Default::default() };
        let spec = core::PodSpec { containers, ..Default::default() };
        core::Pod { metadata: Some(metadata), spec: Some(spec) }.encode_to_vec().into()
    };
    let option = |group: &str| WireOption {
        node_group_id: group.to_owned(),
        node_count: 2,
        pod_bytes: vec![pod("a"), pod("b")],
        ..WireOption::default()
    };
    BestOptionsRequest { options: vec![option("od-a10g"), option("spot-a10g")], ..Default::default() }
}

/// Asks, buys what was answered, and asks the same again.
fn ask_buy_ask(caller: &mut Caller) -> (Vec<String>, Vec<String>) {
    let mut ask = || match caller.call(&Call::BestOptions(question())).unwrap() {
        Reply::BestOptions(answer) => answer.options.into_iter().map(|option| option.node_group_id).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let first = ask();
    let increase = NodeGroupIncreaseSizeRequest { delta: 2, id: first[0].clone() };
    caller.call(&Call::IncreaseSize(increase)).unwrap();
    let mut ask = || match caller.call(&Call::BestOptions(question())).unwrap() {
        Reply::BestOptions(answer) => answer.options.into_iter().map(|option| option.node_group_id).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    (first, ask())
}

/// Asks for more machines of a group; whether they come is the cloud's affair.
fn buy(caller: &mut Caller, group: &str, delta: i32) {
    let increase = NodeGroupIncreaseSizeRequest { delta, id: group.to_owned() };
    let _refused_at_once = caller.call(&Call::IncreaseSize(increase));
}

/// A provider on free ports, ready, with a client at its doors; `look` gets the address of its pages.
fn with_provider(look: impl FnOnce(SocketAddr, &mut Caller)) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let running = runtime.block_on(windlass_provider::start(config(folder.path()))).unwrap();
    let roots = std::fs::read(folder.path().join("ca.crt")).unwrap();
    let mut caller = Caller::over_unix(&folder.path().join("provider.sock"), running.expander, &roots).unwrap();
    let ready = (0..6000).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        running.shared.ready.pending().is_empty()
    });
    assert!(ready, "still waiting for {:?}", running.shared.ready.pending());
    look(running.http, &mut caller);
    // A client that stays keeps a gentle end waiting.
    drop(caller);
    running.stop();
    runtime.block_on(running.finished()).unwrap();
}

#[test]
fn what_was_decided_can_be_read_by_programs_and_by_people() {
    with_provider(|http, caller| {
        assert_eq!(ok(http, "/healthz"), "ok\n");
        assert_eq!(ok(http, "/readyz"), "ready\n");
        assert_eq!(ask_buy_ask(caller), (vec!["spot-a10g".to_owned()], vec![]), "bought once, then vetoed");

        let json: Value = serde_json::from_str(&ok(http, "/decisions")).unwrap();
        let decisions = json["decisions"].as_array().unwrap();
        assert_eq!(decisions.len(), 2);
        assert_eq!(
            decisions[0]["veto"]["reason"].as_str().unwrap().split(':').next().unwrap(),
            "each of the 2 pods has a machine on its way"
        );
        assert_eq!(decisions[1]["best"], serde_json::json!(["spot-a10g"]));
        let dropped = &decisions[1]["candidates"][0];
        assert_eq!((dropped["group"].as_str(), dropped["dropped_by"].as_str()), (Some("od-a10g"), Some("priority")));
        let filters: Vec<_> = dropped["reasons"].as_array().unwrap().iter().map(|reason| &reason["filter"]).collect();
        assert_eq!(filters, ["gpu_fit", "offering", "priority"]);
        let one: Value = serde_json::from_str(&ok(http, "/decisions?limit=1")).unwrap();
        assert_eq!(one["decisions"].as_array().unwrap().len(), 1);

        let page = ok(http, "/");
        for text in ["<b>spot-a10g</b> +2 for 2 pods", "nothing to buy", "<b>cpu</b>", "no GPU", "$0.40"] {
            assert!(page.contains(text), "{text} is not on the page:\n{page}");
        }
        assert!(!page.contains("http://") && !page.contains("https://"), "nothing is loaded from elsewhere");
    });
}

#[test]
fn the_metrics_speak_of_the_snapshot_and_of_the_decisions() {
    with_provider(|http, caller| {
        ask_buy_ask(caller);
        let text = ok(http, "/metrics");
        for line in [
            "windlass_provider_group_target_machines{group=\"spot-a10g\"} 2",
            "windlass_provider_group_target_machines{group=\"od-a10g\"} 0",
            "windlass_provider_group_info{group=\"cpu\",market=\"on-demand\",instance_type=\"m7i.large\",region=\"r\",gpu_model=\"\"} 1",
            "windlass_provider_group_price_dollars_per_hour{group=\"od-a10g\",source=\"scenario\"} 1",
            "windlass_provider_decisions_total{decided_by=\"priority\"} 1",
            "windlass_provider_vetoes_total 1",
            "windlass_provider_covered_pods 2",
            "windlass_provider_rpcs_total{code=\"Ok\",method=\"BestOptions\"} 2",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("price_dollars_per_hour{group=\"cpu\""), "a price that nobody said is absent");
        let known: Vec<_> = windlass_provider::metrics::table().into_iter().map(|row| row.name).collect();
        for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
            assert!(known.contains(&name), "{name} is missing from the table");
        }
    });
}

#[test]
fn feature_62_every_panel_of_the_providers_dashboard_shows_something() {
    with_provider(|http, caller| {
        buy(caller, "od-a10g", 1);
        ask_buy_ask(caller);
        let prometheus = Prometheus::start(&[job("provider", http, &json!({}))], None).unwrap();
        let asked = prometheus.answers(include_str!("../../deploy/chart/dashboards/windlass-provider.json")).unwrap();
        assert!(asked >= 15, "only {asked} queries: the dashboard is not what it was");
    });
}

#[test]
fn feature_62_the_providers_alerts_are_sound_and_fire_when_every_gpu_group_is_refused() {
    let rules = include_str!("../../deploy/chart/rules/windlass-provider.yaml");
    let mut rules: Value = serde_saphyr::from_str(rules).unwrap();
    check_rules(&rules.to_string()).unwrap();
    // The test has no ten minutes.
    for rule in rules["groups"][0]["rules"].as_array_mut().unwrap() {
        rule["for"] = json!("0s");
    }
    with_provider(|http, caller| {
        let prometheus = Prometheus::start(&[job("provider", http, &json!({}))], Some(&rules.to_string())).unwrap();
        prometheus.until("windlass_provider_group_gpus", |series| series.len() == 2).unwrap();
        assert!(prometheus.query(r#"ALERTS{alertstate="firing"}"#).unwrap().is_empty(), "all is well yet");
        // More of both than the cloud has.
        buy(caller, "spot-a10g", 3);
        buy(caller, "od-a10g", 1);
        let firing = r#"ALERTS{alertname="NoCapacityAnywhere",alertstate="firing"}"#;
        prometheus.until(firing, |series| series.len() == 1).unwrap();
    });
}

#[test]
fn a_path_that_is_none_says_which_there_are() {
    with_provider(|http, _| {
        let (status, body) = get(http, "/metrcis");
        assert_eq!((status, body.as_str()), (404, "there is / /metrics /healthz /readyz /decisions\n"));
    });
}
