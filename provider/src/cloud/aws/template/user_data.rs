//! User data of EKS nodes, read for what it tells of the node: bootstrap arguments of AL2, nodeadm's NodeConfig, Bottlerocket's
//! settings. Whatever cannot be read is left out; no text can make this fail.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{cloud::aws::allocatable::Family, fleet::group::Taint};

/// User data is limited to 16 KiB by EC2; what is longer is not read.
const LONGEST: usize = 64 << 10;

/// What user data tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::cloud::aws) struct UserData {
    pub(in crate::cloud::aws) family: Option<Family>,
    pub(in crate::cloud::aws) max_pods: Option<u32>,
    pub(in crate::cloud::aws) labels: BTreeMap<String, String>,
    pub(in crate::cloud::aws) taints: Vec<Taint>,
    pub(in crate::cloud::aws) on_local_disks: bool,
}

/// Reads user data as EC2 and Auto Scaling give it, in base64.
pub(super) fn read(encoded: &str) -> UserData {
    let packed: String = encoded.chars().filter(|it| !it.is_ascii_whitespace()).take(LONGEST).collect();
    let text = aws_smithy_types::base64::decode(packed).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.map(|text| told(&text)).unwrap_or_default()
}

fn told(text: &str) -> UserData {
    if text.lines().any(|line| line.trim_start().starts_with("[settings.")) { bottlerocket(text) } else { linux(text) }
}

/// Shell arguments and kubelet flags stand in the text as they are; what NodeConfig has beyond them is read as YAML.
fn linux(text: &str) -> UserData {
    let mut told = UserData {
        max_pods: values(text, "--max-pods").last().and_then(|text| text.parse().ok()),
        on_local_disks: values(text, "--local-disks").any(|kind| kind == "raid0"),
        ..UserData::default()
    };
    for pair in values(text, "--node-labels").flat_map(|list| list.split(',')) {
        if let Some((key, value)) = pair.split_once('=') {
            told.labels.insert(key.to_owned(), value.to_owned());
        }
    }
    let taints = values(text, "--register-with-taints").flat_map(|list| list.split(','));
    told.taints.extend(taints.filter_map(taint));
    for config in documents(text).filter_map(|text| serde_saphyr::from_str::<NodeConfig>(text).ok()) {
        let Spec { kubelet: Kubelet { config }, instance } = config.spec;
        told.max_pods = config.max_pods.or(told.max_pods);
        told.taints.extend(config.register_with_taints.into_iter().map(|it| Taint {
            key: it.key,
            value: it.value,
            effect: it.effect,
        }));
        told.on_local_disks |= instance.local_storage.strategy == "RAID0";
    }
    told
}

/// Every value of a flag, written `--flag=value` or `--flag value`, with or without quotes around it.
fn values<'a>(text: &'a str, flag: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(flag).skip(1).filter_map(|rest| {
        let rest = rest.strip_prefix(['=', ' '])?.trim_start_matches(['"', '\'', ' ']);
        let end = rest.find(|it: char| it.is_whitespace() || matches!(it, '"' | '\'' | '\\')).unwrap_or(rest.len());
        rest.get(..end).filter(|value| !value.is_empty())
    })
}

/// `key=value:Effect`, where the value may be missing.
fn taint(text: &str) -> Option<Taint> {
    let (key, effect) = text.rsplit_once(':')?;
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    Some(Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
}

/// The YAML documents of nodeadm among the parts of a multipart text.
fn documents(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.match_indices("apiVersion: node.eks.aws/").map(|(at, _)| at);
    starts.filter_map(|at| {
        let rest = text.get(at..)?;
        let end = rest.find("\n--").unwrap_or(rest.len());
        rest.get(..end)
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeConfig {
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    kubelet: Kubelet,
    instance: Instance,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Kubelet {
    config: KubeletConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KubeletConfig {
    max_pods: Option<u32>,
    register_with_taints: Vec<NodeTaint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeTaint {
    key: String,
    value: String,
    effect: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Instance {
    local_storage: LocalStorage,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LocalStorage {
    strategy: String,
}

/// The few lines of TOML that matter: tables and `key = value`.
fn bottlerocket(text: &str) -> UserData {
    let mut told = UserData { family: Some(Family::Bottlerocket), ..UserData::default() };
    let mut table = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            table = name;
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let quoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
        let (key, value) = (quoted(key), value.trim());
        match table {
            "settings.kubernetes" if key == "max-pods" => told.max_pods = quoted(value).parse().ok(),
            "settings.kubernetes.node-labels" => _ = told.labels.insert(key, quoted(value)),
            "settings.kubernetes.node-taints" => {
                let effects = value.trim_matches(['[', ']']).split(',').map(quoted).filter(|it| !it.is_empty());
                told.taints.extend(effects.filter_map(|it| taint(&format!("{key}={it}"))));
            }
            _ => {}
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(told: &UserData) -> Vec<String> {
        told.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    fn taints(told: &UserData) -> Vec<String> {
        told.taints.iter().map(|it| format!("{}={}:{}", it.key, it.value, it.effect)).collect()
    }

    #[test]
    fn bootstrap_arguments_of_al2_are_read() {
        let told = told(
            "#!/bin/bash\n/etc/eks/bootstrap.sh c1 --use-max-pods false --local-disks raid0 --kubelet-extra-args \
             '--node-labels=k8s.amazonaws.com/accelerator=nvidia-a10g,team=vision --register-with-taints=nvidia.com/gpu=true:NoSchedule,x=:NoExecute --max-pods=110'\n",
        );
        assert_eq!((told.max_pods, told.on_local_disks), (Some(110), true));
        assert_eq!(pairs(&told), ["k8s.amazonaws.com/accelerator=nvidia-a10g", "team=vision"]);
        assert_eq!(taints(&told), ["nvidia.com/gpu=true:NoSchedule", "x=:NoExecute"]);
    }

    #[test]
    fn node_config_of_al2023_is_read() {
        let told = told(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n--//\nContent-Type: application/node.eks.aws\n\n\
             ---\napiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    name: c1\n  instance:\n    localStorage:\n      strategy: RAID0\n  kubelet:\n    config:\n      \
             maxPods: 17\n      registerWithTaints:\n      - key: gpu\n        effect: NoSchedule\n    flags:\n    - \"--node-labels=eks.amazonaws.com/capacityType=SPOT,a=b\"\n--//--\n",
        );
        assert_eq!((told.max_pods, told.on_local_disks), (Some(17), true));
        assert_eq!(pairs(&told), ["a=b", "eks.amazonaws.com/capacityType=SPOT"]);
        assert_eq!(taints(&told), ["gpu=:NoSchedule"]);
    }

    #[test]
    fn settings_of_bottlerocket_are_read() {
        let told = told(
            "[settings.kubernetes]\ncluster-name = \"c1\"\nmax-pods = 58\n[settings.kubernetes.node-labels]\n\"team\" = \"vision\"\n\
             [settings.kubernetes.node-taints]\n\"gpu\" = [\"true:NoSchedule\", \"true:NoExecute\"]\nold = \":NoSchedule\"\n",
        );
        assert_eq!((told.family, told.max_pods), (Some(Family::Bottlerocket), Some(58)));
        assert_eq!(pairs(&told), ["team=vision"]);
        assert_eq!(taints(&told), ["gpu=true:NoSchedule", "gpu=true:NoExecute", "old=:NoSchedule"]);
    }

    #[test]
    fn what_is_no_user_data_tells_nothing() {
        for text in ["", "@@@", "AAAA", "H4sIAAAAAAAA"] {
            assert_eq!(read(text), UserData::default(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\[settings.kubernetes\\]|--max-pods|--node-labels=|apiVersion: node.eks.aws/|[a-z=:, \"'\\n-]){0,40}") {
            let _ = told(&text);
            let _ = read(&text);
        }
    }
}
