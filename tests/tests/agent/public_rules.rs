//! Rules for the Prometheus Adapter and queries of KEDA scalers as public repositories have them (sampled in November 2026, each with its source), asked
//! unchanged of a real Prometheus that scrapes the real agent: once with the agent's labels kept, once with those of the scrape in front of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_agent::pods::identity::{LabelNames, Shown};
use windlass_tests::kubelet::{identity, pod};
use windlass_tests::nvml::{Mig, ModelName, Process, Profile, gpu_uuid, mig_uuid};
use windlass_tests::proc::Container;
use windlass_tests::prometheus::{Prometheus, job};
use windlass_tests::scrape::Series;

use crate::agent::node::{Node, runs};

/// Namespace, pod, and percent of the device that it uses, the device's memory too.
const PODS: [(&str, &str, f64); 4] = [
    ("inference", "vllm-7d9f", 75.0),
    ("inference", "vllm-8c2a", 30.0),
    ("ai-workloads", "llm-inference-1", 0.0),
    ("ai-workloads", "sliced", 60.0),
];

/// GPU 0 has one holder; GPU 1 two, of which one idles; GPU 2 is in MIG instances, of which one is held.
fn node() -> Node {
    let mut profile = Profile::idle(ModelName::H100, 3);
    profile.gpu(0).processes = vec![Process::new(100, 75.0, 40_000)];
    profile.gpu(1).processes = vec![Process::new(101, 30.0, 8_000)];
    profile.gpu(2).mig = Some(vec![Mig::new("1g.10gb", 7), Mig::new("1g.10gb", 8)]);
    profile.gpu(2).processes = vec![Process { gpu_instance: Some(7), ..Process::new(103, 60.0, 2_000) }];
    let devices = [gpu_uuid(0), gpu_uuid(1) + "::0", gpu_uuid(1) + "::1", mig_uuid(2, 7, 0)];
    let given = |((namespace, name, _), id): (&(&str, &str, f64), &String)| {
        pod(namespace, name, "main", &[("nvidia.com/gpu", &[id.as_str()])])
    };
    let pods = PODS.iter().zip(&devices).map(given).collect();
    let container = |at: usize| Container::new(PODS[at].0, PODS[at].1, "main");
    let world = |host: &windlass_tests::proc::Host| {
        for (pid, at) in [(100, 0), (101, 1), (103, 3)] {
            runs(host, pid, &container(at));
        }
    };
    let mut node = Node::configured(&profile, pods, world, |config, _| {
        config.shown = Shown { uid: false, labels: Some(LabelNames::parse("deployment").unwrap()) };
    });
    let deployed = [("deployment", "my-gpu-workload")];
    node.serve_pods_api(vec![identity(&container(0), &deployed), identity(&container(1), &deployed)]);
    node.until("all is measured and named", |page| {
        let is =
            |(_, pod, percent): &(&str, &str, f64)| page.value("gpu_utilization", &[("pod", pod)]) == Some(*percent);
        PODS.iter().all(is) && !page.select("DCGM_FI_DEV_GPU_UTIL", &[("deployment", "my-gpu-workload")]).is_empty()
    });
    node
}

/// What a monitor without `honorLabels` makes of the page: the scraped pod's own labels in front, the agent's as `exported_…`.
fn renamed() -> Value {
    let label = |name: &str, value: &str| json!({"target_label": name, "replacement": value});
    let labels = [label("namespace", "monitoring"), label("pod", "exporter-x"), label("container", "exporter")];
    json!({"honor_labels": false, "relabel_configs": labels})
}

/// Asks until the values are those expected, as a set.
fn check(prometheus: &Prometheus, source: &str, query: &str, expect: &[f64]) {
    let fits = |series: &[Series]| {
        let mut found: Vec<f64> = series.iter().map(|series| series.value).collect();
        let mut expect = expect.to_vec();
        found.sort_by(f64::total_cmp);
        expect.sort_by(f64::total_cmp);
        found.len() == expect.len() && found.iter().zip(&expect).all(|(found, expect)| (found - expect).abs() < 0.01)
    };
    if let Err(error) = prometheus.until(query, fits) {
        panic!("{source}\n{query}: expected {expect:?}\n{error:#}");
    }
}

/// A rule of the adapter: what it discovers series by, what it then asks, and by which labels it knows a namespace and a pod.
struct Rule {
    source: &'static str,
    series: &'static str,
    metrics: &'static str,
    labels: [&'static str; 2],
    /// The factor between a percent and what the rule gives.
    factor: f64,
}

/// Finds each pod by the series query, as the adapter does, then asks for the value of each as a HorizontalPodAutoscaler has it asked.
fn serve(prometheus: &Prometheus, rule: &Rule) {
    let Rule { source, series, metrics, labels: [namespace, pod], factor } = rule;
    let known = |found: &Series| Some((found.labels.get(*namespace)?.clone(), found.labels.get(*pod)?.clone()));
    let expect: BTreeMap<_, _> = PODS.iter().map(|(space, pod, percent)| ((*space, *pod), percent * factor)).collect();
    let all = |series: &[Series]| {
        let found: Vec<_> = series.iter().filter_map(known).collect();
        expect.keys().all(|(space, pod)| found.contains(&((*space).to_owned(), (*pod).to_owned())))
    };
    prometheus.until(series, all).unwrap_or_else(|error| panic!("{source}\n{series}\n{error:#}"));
    let name = series.split('{').next().unwrap();
    for ((space, holder), value) in &expect {
        let query = metrics
            .replace("<<.Series>>", name)
            .replace("<<.LabelMatchers>>", &format!(r#"{namespace}="{space}",{pod}="{holder}""#))
            .replace("<<.GroupBy>>", pod);
        check(prometheus, source, &query, &[*value]);
    }
}

#[test]
fn feature_29_public_rules_and_queries_are_answered_with_our_labels_kept() {
    let node = node();
    let prometheus = Prometheus::start(&[job("gpus", node.address(), &json!({}))], None).unwrap();
    let rule = |source, metrics| Rule {
        source,
        series: r#"DCGM_FI_DEV_GPU_UTIL{namespace!="",pod!=""}"#,
        metrics,
        labels: ["namespace", "pod"],
        factor: 1.0,
    };
    for rule in [
        rule("giantswarm/docs", "avg(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)"),
        rule("loft-sh/vcluster-docs", "avg(DCGM_FI_DEV_GPU_UTIL{<<.LabelMatchers>>}) by (<<.GroupBy>>)"),
    ] {
        serve(&prometheus, &rule);
    }
    for (source, query, expect) in [
        ("giantswarm/docs", r#"count(DCGM_FI_DEV_MEM_COPY_UTIL{namespace!="",pod!=""})"#, &[1.0][..]),
        ("pmady/keda-gpu-scaler", r#"avg(DCGM_FI_DEV_GPU_UTIL{pod=~"vllm-.*"})"#, &[52.5]),
        ("pmady/kubeai-autoscaler", r#"avg(DCGM_FI_DEV_GPU_UTIL{namespace="ai-workloads"})"#, &[30.0]),
        ("pmady/kubeai-autoscaler", r#"avg(DCGM_FI_DEV_GPU_UTIL{pod=~"llm-inference.*"})"#, &[0.0]),
        // By a label of the pod, which `--pod-labels` allows.
        ("MicrosoftDocs/azure-aks-docs", r#"avg(DCGM_FI_DEV_GPU_UTIL{deployment="my-gpu-workload"})"#, &[52.5]),
        // Over everything: nothing is counted twice.
        ("openshift/openshift-docs", r#"SUM(DCGM_FI_DEV_GPU_UTIL{instance=~".+", gpu=~".+"})"#, &[165.0]),
    ] {
        check(&prometheus, source, query, expect);
    }
}

#[test]
fn feature_29_public_rules_and_queries_are_answered_with_our_labels_exported() {
    let node = node();
    // kubernetes/examples (AI/vllm-deployment/hpa) records the metric anew, under a pod's usual labels. The console plugin joins a series of
    // kube-state-metrics, which stands here as a record of its own.
    let relabelled = r#"label_replace(label_replace(DCGM_FI_DEV_GPU_UTIL,"pod","$1","exported_pod","(.+)"),"namespace","$1","exported_namespace","(.+)")"#;
    let rules = json!({"groups": [{"name": "public", "rules": [
        {"record": "dcgm_fi_dev_gpu_util_relabelled", "expr": relabelled},
        {"record": "kube_pod_status_phase", "expr": r#"label_replace(vector(1), "pod", "vllm-7d9f", "", "")"#},
    ]}]});
    let prometheus = Prometheus::start(&[job("gpus", node.address(), &renamed())], Some(&rules.to_string())).unwrap();
    let exported = ["exported_namespace", "exported_pod"];
    let series = r#"DCGM_FI_DEV_GPU_UTIL{exported_namespace!="",exported_pod!=""}"#;
    for rule in [
        Rule {
            source: "amirhosssein0/ai-platform-lab",
            series,
            metrics: "avg(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
            labels: exported,
            factor: 1.0,
        },
        Rule {
            source: "DevSecOpsSamples/eks-gpu-autoscaling",
            series: "DCGM_FI_DEV_GPU_UTIL",
            metrics: "ceil(avg_over_time(<<.Series>>{<<.LabelMatchers>>}[60s]))",
            labels: exported,
            factor: 1.0,
        },
        Rule {
            source: "kubernetes/examples",
            series: "dcgm_fi_dev_gpu_util_relabelled",
            metrics: "sum(dcgm_fi_dev_gpu_util_relabelled{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
            labels: ["namespace", "pod"],
            factor: 1.0,
        },
    ] {
        serve(&prometheus, &rule);
    }
    let instance = node.address();
    let count = "count by (UUID,GPU_I_ID)";
    let engine = "DCGM_FI_PROF_GR_ENGINE_ACTIVE";
    let free = format!(
        r#"count({count}({engine}{{instance="{instance}"}}) or vector(0)) - count({count}({engine}{{instance="{instance}",exported_pod=~".+"}}) or vector(0))"#
    );
    let used = |metric: &str| {
        format!(
            r#"count((kube_pod_status_phase > 0) * on(pod) group_left(gpu,device,instance,modelName) label_replace({metric}{{exported_pod=~".+", exported_namespace="inference"}}, "pod", "$1", "exported_pod", "(.*)"))"#
        )
    };
    for (source, query, expect) in [
        (
            "DevSecOpsSamples/eks-gpu-autoscaling",
            r#"avg by (exported_namespace, exported_container) (round(avg_over_time(DCGM_FI_DEV_GPU_UTIL{exported_namespace!="",exported_container!="",exported_pod!=""}[1m])))"#,
            &[52.5, 30.0][..],
        ),
        (
            "DevSecOpsSamples/eks-gpu-autoscaling",
            r#"max by (exported_namespace, exported_container) (round(max_over_time(DCGM_FI_DEV_GPU_UTIL{exported_namespace!="",exported_container!="",exported_pod!=""}[1m])))"#,
            &[75.0, 60.0],
        ),
        ("rh-ecosystem-edge/console-plugin-nvidia-gpu", &used("DCGM_FI_DEV_GPU_UTIL"), &[1.0]),
        ("rh-ecosystem-edge/console-plugin-nvidia-gpu", &used(engine), &[1.0]),
        // Free ones: the other instance; and the shared GPU, which none of its holders has for itself.
        ("opendatahub-io/odh-dashboard", &free, &[2.0]),
    ] {
        check(&prometheus, source, query, expect);
    }
}
