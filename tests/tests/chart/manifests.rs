//! There is one truth: the manifests for `kubectl apply` are written from the chart, and so are not edited by hand.

use std::path::Path;

use windlass_tests::helm::{chart, documents, template};

/// A manifest: where it lies, what its reader should know first, and what it is rendered from.
struct Manifest {
    path: &'static str,
    head: &'static str,
    values: String,
    /// The templates that make it; all, if none is named.
    templates: &'static [&'static str],
}

#[test]
fn the_manifests_are_the_chart_rendered() {
    for manifest in manifests() {
        let chosen: Vec<_> =
            manifest.templates.iter().map(|name| format!("--show-only=templates/{name}.yaml")).collect();
        let chosen: Vec<_> = chosen.iter().map(String::as_str).collect();
        let rendered = documents(&template(&manifest.values, &chosen).unwrap()).join("---\n");
        let head: String = manifest.head.lines().map(|line| format!("# {line}").trim_end().to_owned() + "\n").collect();
        let wanted = format!("# Written from deploy/chart: change it there.\n#\n{head}{rendered}");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(manifest.path);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, wanted).unwrap();
            continue;
        }
        let written = std::fs::read_to_string(&file).unwrap();
        let stale = written.lines().zip(wanted.lines()).find(|(is, should)| is != should);
        assert!(
            written == wanted,
            "{} is not what the chart renders: UPDATE_EXPECT=1 cargo test -p windlass-tests --test chart writes it anew\n{stale:#?}",
            manifest.path
        );
    }
}

/// A file of values that is handed out with the chart, with more values after it.
pub(crate) fn example(name: &str, more: &str) -> String {
    std::fs::read_to_string(chart().join(format!("examples/{name}.yaml"))).unwrap() + more
}

fn manifests() -> Vec<Manifest> {
    let monitored = "podMonitor: {enabled: true}\nprometheusRule: {enabled: true}\n";
    vec![
        Manifest {
            path: "deploy/kubernetes/agent.yaml",
            head: "Before applying: put the image where your nodes can pull it.\n\
                Where pods cannot reach the instance metadata (EC2 with a hop limit of 1, GKE with Workload Identity) add `hostNetwork: true`;\n\
                where the NVIDIA runtime is not the node's default one, `runtimeClassName: nvidia`.",
            values: "agent: {createNamespace: true}".to_owned(),
            templates: &[],
        },
        Manifest {
            path: "deploy/kubernetes/agent-rights.yaml",
            head: "Rights for what the agent may do at the Kubernetes API, if you want it; without this file it needs none. For a build with `--features kube`.\n\
                After applying, in agent.yaml: set automountServiceAccountToken to true, and ask for it in the environment:\n\
                \n  - {name: WINDLASS_TAINT_ON, value: \"spot_interruption,preemption,scale_in,rebalance_recommendation\"}\n\
                \nor, for pod uids and labels where the kubelet has no Pods API, with WINDLASS_POD_LABELS or WINDLASS_POD_UID:\n\
                \n  - {name: WINDLASS_POD_INFORMER, value: \"true\"}",
            values: "agent: {config: {pod-informer: true, taint-on: [spot_interruption]}}".to_owned(),
            templates: &["agent/rights"],
        },
        Manifest {
            path: "deploy/kubernetes/autoscaler.yaml",
            head: "Before applying: put the two images where your nodes can pull them (take the autoscaler's release for your Kubernetes\n\
                version, 1.27 or newer), and set the cloud in the ConfigMap windlass-provider. This one is the embedded cloud: it keeps\n\
                accounts of machines that are not there, and no node appears.",
            values: example("sim", "agent: {enabled: false}\n"),
            templates: &[],
        },
        Manifest {
            path: "deploy/kubernetes/prometheus-operator/podmonitors.yaml",
            head: "For clusters with the Prometheus operator, whose CRDs must exist.",
            values: example("sim", monitored),
            templates: &["monitors"],
        },
        Manifest {
            path: "deploy/kubernetes/prometheus-operator/rules.yaml",
            head: "Alerts, for the Prometheus operator. Without it: deploy/chart/rules has the same as rule files.",
            values: example("sim", monitored),
            templates: &["rules"],
        },
        Manifest {
            path: "deploy/aws/eks.yaml",
            head: "The objects of ../kubernetes/autoscaler.yaml that differ on EKS: whose AWS role the pod has, and which groups it scales.\n\
                \n  kubectl apply -f deploy/kubernetes/autoscaler.yaml\n  kubectl apply -f deploy/aws/eks.yaml\n\
                \x20 kubectl -n kube-system rollout restart deployment/windlass-autoscaler\n\
                \nBefore: a role with the policy beside this file (iam-policy.json, or what `windlass-provider iam-policy` prints). README.md\n\
                here says how, and what to change when you come from the in-tree provider.",
            values: example("eks", ""),
            templates: &["provider/serviceaccount", "provider/config"],
        },
    ]
}
