//! What each switch brings and takes away, and what none of them can: rights of the containers, and selectors, which an upgrade could not change.

use serde_json::{Value, json};
use windlass_tests::helm::{chart, objects, template};
use windlass_tests::prometheus::check_rules;

use crate::chart::manifests::example;

/// Everything that can be on, on.
const EVERYTHING: &str = include_str!("everything.yaml");

fn rendered(values: &str) -> Vec<Value> {
    objects(&template(values, &[]).unwrap()).unwrap()
}

fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<_> = objects.iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

fn kinds(objects: &[Value]) -> Vec<String> {
    let mut kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect();
    kinds.sort();
    kinds
}

/// Values -> a place in the one object of a kind, and what is to be there.
#[test]
fn a_value_goes_where_it_belongs() {
    let pod = "/spec/template/spec";
    let everything = || EVERYTHING.to_owned();
    let (sim, eks) = (|| example("sim", ""), || example("eks", ""));
    let cases: Vec<(String, &str, String, Value)> = vec![
        (
            everything(),
            "DaemonSet",
            format!("{pod}/containers/0/image"),
            json!(
                "registry.example/windlass-agent@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
            ),
        ),
        (everything(), "DaemonSet", format!("{pod}/containers/0/ports/0/containerPort"), json!(9401)),
        (everything(), "DaemonSet", format!("{pod}/containers/0/livenessProbe/httpGet/scheme"), json!("HTTPS")),
        (everything(), "DaemonSet", format!("{pod}/automountServiceAccountToken"), json!(true)),
        (
            everything(),
            "DaemonSet",
            format!("{pod}/volumes/0/hostPath/path"),
            json!("/var/lib/other/kubelet/pod-resources"),
        ),
        (everything(), "DaemonSet", format!("{pod}/runtimeClassName"), json!("nvidia")),
        (everything(), "DaemonSet", "/spec/template/metadata/labels/team".to_owned(), json!("gpu")),
        (
            everything(),
            "DaemonSet",
            "/spec/template/metadata/annotations/prometheus.io~1port".to_owned(),
            json!("9401"),
        ),
        (everything(), "Deployment", format!("{pod}/initContainers/0/ports/0/containerPort"), json!(9088)),
        (everything(), "Deployment", format!("{pod}/containers/0/args/4"), json!("--grpc-expander-url=localhost:9087")),
        (
            everything(),
            "Deployment",
            format!("{pod}/volumes/1/persistentVolumeClaim/claimName"),
            json!("windlass-state"),
        ),
        (everything(), "PodDisruptionBudget", "/spec/maxUnavailable".to_owned(), json!(0)),
        (
            "agent: {webConfig: {existingSecret: web, probe: TCP}}".to_owned(),
            "DaemonSet",
            format!("{pod}/containers/0/livenessProbe/tcpSocket/port"),
            json!("metrics"),
        ),
        (
            "agent: {tolerations: [{operator: Exists}]}".to_owned(),
            "DaemonSet",
            format!("{pod}/tolerations"),
            json!([{"operator": "Exists"}]),
        ),
        (String::new(), "DaemonSet", format!("{pod}/automountServiceAccountToken"), json!(false)),
        (String::new(), "DaemonSet", format!("{pod}/hostPID"), json!(true)),
        (sim(), "Deployment", format!("{pod}/containers/0/args/4"), json!("--grpc-expander-url=localhost:8087")),
        (sim(), "Deployment", "/metadata/namespace".to_owned(), json!("kube-system")),
        (
            eks() + "agent: {enabled: false}",
            "ServiceAccount",
            "/metadata/annotations/eks.amazonaws.com~1role-arn".to_owned(),
            json!("arn:aws:iam::ACCOUNT_ID:role/windlass-autoscaler"),
        ),
    ];
    for (values, kind, place, expect) in cases {
        assert_eq!(one(&rendered(&values), kind).pointer(&place), Some(&expect), "{kind} {place} of\n{values}");
    }
}

#[test]
fn a_part_that_is_off_leaves_nothing() {
    assert_eq!(kinds(&rendered("")), ["DaemonSet", "Service", "ServiceAccount"]);
    assert!(kinds(&rendered("agent: {enabled: false}")).is_empty());
    assert!(!kinds(&rendered(&example("sim", "agent: {enabled: false}"))).contains(&"DaemonSet".to_owned()));
    let bare = "agent: {serviceAccount: {create: false}, service: {enabled: false}, config: {taint-on: [scale_in]}, rbac: {create: false}}";
    assert_eq!(kinds(&rendered(bare)), ["ConfigMap", "DaemonSet"]);
}

#[test]
fn names_and_namespaces_follow_the_release() {
    let of = |arguments: &[&str], values: &str| {
        let objects = objects(&template(values, arguments).unwrap()).unwrap();
        let set = one(&objects, "DaemonSet");
        (set["metadata"]["name"].clone(), set["metadata"]["namespace"].clone())
    };
    assert_eq!(of(&[], ""), (json!("windlass-agent"), json!("windlass")));
    assert_eq!(of(&["--name-template=gpus"], ""), (json!("gpus-windlass-agent"), json!("windlass")));
    assert_eq!(
        of(&[], "{fullnameOverride: gpus, agent: {namespace: gpu-system}}"),
        (json!("gpus-agent"), json!("gpu-system"))
    );
}

#[test]
fn the_provider_asks_the_agents_where_they_are() {
    let asked = |values: &str| {
        let objects = rendered(&example("eks", values));
        let settings = objects.iter().find(|object| object["metadata"]["name"] == "windlass-provider").unwrap();
        let config: Value = serde_saphyr::from_str(settings["data"]["provider.yaml"].as_str().unwrap()).unwrap();
        config["usage"]["agents"]["address"].as_str().map(str::to_owned)
    };
    assert_eq!(asked("").as_deref(), Some("windlass-agent.windlass.svc:9400"));
    let moved = "agent: {namespace: gpus, config: {listen: '[::]:9401'}}";
    assert_eq!(asked(moved).as_deref(), Some("windlass-agent.gpus.svc:9401"));
    assert_eq!(asked("agent: {enabled: false}"), None);
    assert_eq!(asked("agent: {webConfig: {existingSecret: web}}"), None);
}

#[test]
fn an_older_kubernetes_gets_nothing_that_it_cannot_keep() {
    let values = "agent: {config: {taint-on: [scale_in]}}";
    let policy = |version: &str| {
        let objects = objects(&template(values, &[&format!("--kube-version={version}")]).unwrap()).unwrap();
        kinds(&objects).contains(&"ValidatingAdmissionPolicy".to_owned())
    };
    let sidecar =
        template(&example("sim", ""), &["--kube-version=1.28.9"]).expect_err("1.28 has no sidecars").to_string();
    assert!(sidecar.contains("since 1.29; this one is 1.28"), "{sidecar}");
    assert!(!policy("1.31.9") && policy("1.32.0") && policy("1.33.2-eks-a1b2c3"));
}

#[test]
fn what_only_a_start_can_change_replaces_the_pods_and_nothing_else_does() {
    let stamp = |kind: &str, values: &str| {
        one(&rendered(values), kind)["spec"]["template"]["metadata"]["annotations"]["windlass/settings"].clone()
    };
    let agent = |setting: &str| stamp("DaemonSet", &format!("agent: {{config: {{log: info, {setting}}}}}"));
    assert_eq!(agent("sample-interval: 1s"), agent("sample-interval: 2s"));
    assert_ne!(agent("pod-informer: true"), agent("pod-informer: false"));
    let provider = |key: &str| {
        let values = format!("provider: {{enabled: true, config: {{cloud: {{kind: sim, scenario: s.yaml}}, {key}}}}}");
        stamp("Deployment", &values)
    };
    assert_eq!(provider("refresh: 10s"), provider("refresh: 20s"));
    assert_eq!(provider("expander: {filters: [price]}"), provider("expander: {filters: [waste]}"));
    assert_ne!(provider("gpuLabel: a"), provider("gpuLabel: b"));
}

#[test]
fn feature_49_no_value_gives_a_container_more_rights() {
    for values in [String::new(), EVERYTHING.to_owned(), example("sim", ""), example("eks", "")] {
        let mut seen = 0;
        for object in rendered(&values) {
            let pod = &object["spec"]["template"]["spec"];
            for container in ["initContainers", "containers"].iter().flat_map(|kind| pod[kind].as_array()).flatten() {
                let security = &container["securityContext"];
                assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{}", container["name"]);
                assert_eq!(security["readOnlyRootFilesystem"], true, "{}", container["name"]);
                assert_eq!(security["allowPrivilegeEscalation"], false, "{}", container["name"]);
                assert!(security["privileged"].is_null(), "{}", container["name"]);
                seen += 1;
            }
            for volume in pod["volumes"].as_array().into_iter().flatten().filter(|volume| !volume["hostPath"].is_null())
            {
                let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
                let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).unwrap();
                assert_eq!(mount["readOnly"], true, "{mount}");
            }
        }
        assert!(seen > 0);
    }
}

#[test]
fn feature_62_alerts_and_dashboards_of_the_chart_are_its_files() {
    let objects = rendered(EVERYTHING);
    for part in ["agent", "provider"] {
        let named = |kind: &str, end: &str| {
            let ends =
                |object: &&Value| object["kind"] == kind && object["metadata"]["name"].as_str().unwrap().ends_with(end);
            objects.iter().find(ends).unwrap_or_else(|| panic!("{kind} {end}")).clone()
        };
        let dashboard = named("ConfigMap", &format!("-{part}-dashboard"));
        let file = format!("windlass-{part}.json");
        let written = std::fs::read_to_string(chart().join("dashboards").join(&file)).unwrap();
        let shown: Value = serde_json::from_str(dashboard["data"][&file].as_str().unwrap()).unwrap();
        assert_eq!(shown, serde_json::from_str::<Value>(&written).unwrap());
        assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
        let rules = named("PrometheusRule", &format!("-{part}"));
        check_rules(&rules["spec"].to_string()).unwrap();
        let file = std::fs::read_to_string(chart().join(format!("rules/windlass-{part}.yaml"))).unwrap();
        assert_eq!(rules["spec"], serde_saphyr::from_str::<Value>(&file).unwrap());
    }
    for monitor in objects.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("Monitor")) {
        assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    }
    let monitor = objects.iter().find(|object| object["kind"] == "ServiceMonitor").unwrap();
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!((&endpoint["honorLabels"], &endpoint["scheme"]), (&json!(true), &json!("https")));
}
