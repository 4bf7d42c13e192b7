//! Who a pod is beyond its name: uid, labels that were asked for, ids of its containers. Pure values with limits.
//! The kubelet's Pods API fills them (`pods/kubelet/pods.rs`); where there is none, an informer on the API server may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use regex_lite::Regex;

use super::Owner;

/// Pods kept: the kubelet's own limit is 110, large nodes go to some hundreds.
const PODS_MAX: usize = 2048;
/// Containers of one pod that are kept.
const CONTAINERS_MAX: usize = 64;
/// Labels shown of one pod: each is paid for in every series of the pod.
const LABELS_MAX: usize = 16;
/// Longest label value shown. Kubernetes allows 63 bytes: what is longer is no label.
const VALUE_MAX: usize = 63;
/// Longest label name taken. Kubernetes allows 253 for the prefix and 63 for the name.
const NAME_MAX: usize = 317;

/// One pod of this node, as a source tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, as cgroups spell it: with dashes, or 32 bare digits for a static pod.
    pub uid: String,
    /// All of its labels.
    pub labels: BTreeMap<String, String>,
    /// Name and id of each container that has started; ids with or without the runtime (`containerd://…`).
    pub containers: Vec<(String, String)>,
}

/// What of a pod's identity becomes labels of its series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// The uid, as `pod_uid`.
    pub uid: bool,
    /// Pod labels by name, as `label_<name>`.
    pub labels: Option<LabelNames>,
}

/// A regular expression that the whole name of a pod label has to match.
#[derive(Debug, Clone)]
pub struct LabelNames(Regex);

impl LabelNames {
    /// Reads an expression.
    ///
    /// # Errors
    /// Says what is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        Regex::new(&format!("^(?:{text})$")).map(Self).map_err(|error| {
            format!("{error}; write a regular expression for whole names, such as app|team|app\\.kubernetes\\.io/.*")
        })
    }
}

impl PartialEq for LabelNames {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for LabelNames {}

/// What is known of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its uid.
    pub uid: Arc<str>,
    /// Labels for its series, names as Prometheus wants them; no name twice.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
}

/// Every pod of the node that a source named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities {
    pods: BTreeMap<(Arc<str>, Arc<str>), Arc<Identity>>,
    names: BTreeMap<Box<str>, (Arc<str>, Arc<str>)>,
    containers: BTreeMap<Box<str>, Arc<Owner>>,
}

impl Identities {
    /// Takes what fits the limits. Of two pods with one name the later counts: it is the one that was made again.
    #[must_use]
    pub fn new(pods: impl IntoIterator<Item = Pod>, shown: &Shown) -> Self {
        let mut all = Self::default();
        for pod in pods.into_iter().filter(|pod| !pod.name.is_empty() && !pod.uid.is_empty()).take(PODS_MAX) {
            let name: (Arc<str>, Arc<str>) = (pod.namespace.as_str().into(), pod.name.as_str().into());
            for (container, id) in pod.containers.iter().take(CONTAINERS_MAX) {
                let id = id.rsplit_once("://").map_or(id.as_str(), |(_runtime, id)| id);
                let owner =
                    Owner { namespace: name.0.clone(), pod: name.1.clone(), container: container.as_str().into() };
                all.containers.insert(id.into(), Arc::new(owner));
            }
            all.names.insert(pod.uid.as_str().into(), name.clone());
            all.pods.insert(name, Arc::new(identity(&pod, shown)));
        }
        all
    }

    /// The pod of a container.
    #[must_use]
    pub fn of(&self, owner: &Owner) -> Option<&Arc<Identity>> {
        if self.is_empty() {
            return None; // as a rule: asked for every container at every tick
        }
        self.pods.get(&(Arc::clone(&owner.namespace), Arc::clone(&owner.pod)))
    }

    /// The container with this id.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<&Arc<Owner>> {
        self.containers.get(id)
    }

    /// Namespace and name of the pod with this uid.
    #[must_use]
    pub fn name(&self, uid: &str) -> Option<&(Arc<str>, Arc<str>)> {
        self.names.get(uid)
    }

    /// How many pods are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }
}

fn identity(pod: &Pod, shown: &Shown) -> Identity {
    let mut labels: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    if shown.uid {
        labels.push(("pod_uid".into(), pod.uid.as_str().into()));
    }
    let mut taken = BTreeSet::new();
    let wanted = |name: &str| shown.labels.as_ref().is_some_and(|names| names.0.is_match(name));
    let fits = |(name, value): &(&String, &String)| name.len() <= NAME_MAX && value.len() <= VALUE_MAX;
    for (name, value) in pod.labels.iter().filter(fits).filter(|(name, _)| wanted(name)) {
        let clean = format!("label_{}", sanitized(name));
        // Two names may become one, and a series with one label twice would spoil the page: the first in order stays.
        if taken.len() < LABELS_MAX && taken.insert(clean.clone()) {
            labels.push((clean.into(), value.as_str().into()));
        }
    }
    Identity { uid: pod.uid.as_str().into(), labels }
}

/// A name in Prometheus' alphabet: anything else becomes an underscore, as kube-state-metrics does it.
fn sanitized(name: &str) -> String {
    name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '_' }).collect()
}

/// Who told. The kubelet is nearer than the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The kubelet's Pods API on this node.
    Kubelet,
    /// An informer on the API server, limited to this node.
    ApiServer,
}

/// What both sources last told: written by their tasks, read by the sampler, which never waits.
#[derive(Debug, Default)]
pub struct Known {
    kubelet: ArcSwapOption<Identities>,
    api_server: ArcSwapOption<Identities>,
}

impl Known {
    /// Replaces what a source told. `None` when it turned out not to be there.
    pub fn publish(&self, source: Source, identities: Option<Identities>) {
        let place = match source {
            Source::Kubelet => &self.kubelet,
            Source::ApiServer => &self.api_server,
        };
        place.store(identities.map(Arc::new));
    }

    /// What counts now: the kubelet's word where it gives one.
    #[must_use]
    pub fn current(&self) -> Arc<Identities> {
        self.kubelet.load_full().or_else(|| self.api_server.load_full()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, labels: &[(&str, &str)]) -> Pod {
        Pod {
            namespace: "ml".into(),
            name: name.into(),
            uid: format!("uid-of-{name}"),
            labels: labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            containers: vec![("main".into(), format!("containerd://id-of-{name}"))],
        }
    }

    fn owner(pod: &str) -> Owner {
        Owner { namespace: "ml".into(), pod: pod.into(), container: "main".into() }
    }

    fn check(labels: &[(&str, &str)], allowed: &str, expect: &[(&str, &str)]) {
        let shown = Shown { uid: true, labels: Some(LabelNames::parse(allowed).unwrap()) };
        let identities = Identities::new([pod("a", labels)], &shown);
        let found: Vec<_> = identities.of(&owner("a")).unwrap().labels.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(found[0], ("pod_uid", "uid-of-a"));
        assert_eq!(&found[1..], expect, "{allowed}");
    }

    #[test]
    fn only_allowed_labels_are_shown_under_clean_names() {
        let labels = [("app.kubernetes.io/name", "llm"), ("team", "vision"), ("pod-template-hash", "5d9c")];
        check(&labels, "team", &[("label_team", "vision")]);
        check(&labels, "tea", &[]);
        check(
            &labels,
            r"team|app\.kubernetes\.io/.*",
            &[("label_app_kubernetes_io_name", "llm"), ("label_team", "vision")],
        );
        check(&[("a.b", "first"), ("a-b", "other"), ("a/b", "third")], ".*", &[("label_a_b", "other")]);
        check(&[("long", &"x".repeat(64))], ".*", &[]);
        let many: Vec<_> = (0..40).map(|number| (format!("l{number:02}"), "v".to_owned())).collect();
        let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let shown = Shown { uid: false, labels: Some(LabelNames::parse(".*").unwrap()) };
        assert_eq!(Identities::new([pod("a", &many)], &shown).of(&owner("a")).unwrap().labels.len(), LABELS_MAX);
    }

    #[test]
    fn a_wrong_expression_says_what_to_write() {
        let error = LabelNames::parse("(team").unwrap_err();
        assert!(error.contains("regular expression") && error.contains("app"), "{error}");
    }

    #[test]
    fn a_pod_made_again_under_its_name_has_its_new_uid() {
        let mut again = pod("a", &[]);
        again.uid = "new".into();
        let identities = Identities::new([pod("a", &[]), again], &Shown::default());
        assert_eq!(&*identities.of(&owner("a")).unwrap().uid, "new");
        assert_eq!(identities.container("id-of-a").map(|owner| &*owner.pod), Some("a"));
        assert!(identities.name("new").is_some() && identities.of(&owner("b")).is_none());
    }

    #[test]
    fn the_kubelets_word_counts_before_the_api_servers() {
        let known = Known::default();
        assert!(known.current().is_empty());
        known.publish(Source::ApiServer, Some(Identities::new([pod("a", &[]), pod("b", &[])], &Shown::default())));
        assert_eq!(known.current().len(), 2);
        known.publish(Source::Kubelet, Some(Identities::new([pod("a", &[])], &Shown::default())));
        assert_eq!(known.current().len(), 1);
        known.publish(Source::Kubelet, None);
        assert_eq!(known.current().len(), 2);
    }
}
