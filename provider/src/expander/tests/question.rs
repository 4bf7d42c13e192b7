//! A question to the expander, written as text.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::fleet::group::{Gpus, Market, Overrides, Shape};

/// A question in words, one line each:
/// `group NAME MARKET cpu N mem GIB [gpu COUNT MODEL GIB] [cents N]`, `pod NAME cpu N mem GIB [gpu N] [want KEY=VALUE] [over MIB]`,
/// `option GROUP NODES PODS…`, `shunned GROUP WHY…`, `bought GROUP NODES PODS…`, `list NUMBER PATTERN`, `filters NAMES…`.
#[derive(Default)]
pub(super) struct Question {
    pub(super) groups: BTreeMap<String, Group>,
    pods: BTreeMap<String, Arc<PodAsk>>,
    pub(super) options: Vec<(String, u32, Pods)>,
    shunned: BTreeMap<String, String>,
    pub(super) bought: Bought,
    list: BTreeMap<i64, Vec<String>>,
    policy: Policy,
}

fn number(words: &[&str], key: &str) -> Option<u64> {
    let at = words.iter().position(|word| *word == key)?;
    Some(words[at + 1].parse().unwrap())
}

impl Question {
    pub(super) fn read(text: &str) -> Self {
        let mut question = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            question.line(words[0], &words[1..]);
        }
        if !question.list.is_empty() {
            question.policy.priorities = Some(Arc::new(priority::Priorities::compile(&question.list, "list").unwrap()));
        }
        question
    }

    fn line(&mut self, kind: &str, words: &[&str]) {
        let name = words[0].to_owned();
        match kind {
            "group" => drop(self.groups.insert(name, group(words))),
            "pod" => drop(self.pods.insert(name, Arc::new(pod(words)))),
            "option" => {
                let pods = self.named(&words[2..]);
                self.options.push((name, words[1].parse().unwrap(), pods));
            }
            "shunned" => drop(self.shunned.insert(name, words[1..].join(" "))),
            "list" => self.list.entry(name.parse().unwrap()).or_default().push(words[1].to_owned()),
            "filters" => {
                let names = words.iter().map(|name| serde_json::from_value((*name).into()).unwrap());
                self.policy.filters = names.collect();
            }
            "bought" => {
                let (nodes, pods) = (words[1].parse().unwrap(), self.named(&words[2..]));
                let group = GroupId::from(name);
                self.bought.offered(vec![Offer { group: group.clone(), node_count: nodes, pods, room: None }], NOW);
                self.bought.purchase(&group, &format!("w-{group}"), nodes, NOW);
            }
            _ => panic!("what is a {kind}?"),
        }
    }

    fn named(&self, names: &[&str]) -> Pods {
        names.iter().map(|name| self.pods[*name].clone()).collect()
    }

    pub(super) fn decide(&self) -> Decision {
        let choice = |(id, node_count, pods): &(String, u32, Pods)| Choice {
            id: id.as_str().into(),
            group: self.groups.get(id),
            shunned: self.shunned.get(id).map(|why| Shunned { why: why.clone(), until: NOW }),
            refusing: Vec::new(),
            node_count: *node_count,
            pods: pods.clone(),
        };
        let choices: Vec<_> = self.options.iter().map(choice).collect();
        choose(&choices, &self.bought, &self.policy, NOW + Duration::from_secs(1))
    }
}

fn group(words: &[&str]) -> Group {
    let gpus = words.iter().position(|word| *word == "gpu").map(|at| Gpus {
        model: words[at + 2].to_owned(),
        count: words[at + 1].parse().unwrap(),
        memory_mib: words[at + 3].parse::<u64>().unwrap() * 1024,
        resource: "nvidia.com/gpu".to_owned(),
    });
    Group {
        id: words[0].into(),
        min: 0,
        max: 10,
        market: if words[1] == "spot" { Market::Spot } else { Market::OnDemand },
        region: "region".to_owned(),
        zones: vec!["zone-a".to_owned()],
        shape: Shape {
            instance_type: words[0].to_owned(),
            arch: "amd64".to_owned(),
            cpu_milli: number(words, "cpu").unwrap() * 1000,
            memory: number(words, "mem").unwrap() << 30,
            ephemeral_storage: 100 << 30,
            pods: 110,
            reserved_cpu_milli: 0,
            reserved_memory: 0,
            reserved_ephemeral_storage: 0,
            extended: BTreeMap::new(),
            gpus,
        },
        labels: BTreeMap::new(),
        taints: Vec::new(),
        price_micros: number(words, "cents").map(|cents| cents * 10_000),
        price_origin: None,
        overrides: Overrides::default(),
        warnings: Vec::new(),
    }
}

fn pod(words: &[&str]) -> PodAsk {
    let selector = words.iter().filter_map(|word| word.split_once('='));
    let needs = Needs {
        cpu_milli: number(words, "cpu").unwrap() * 1000,
        memory: number(words, "mem").unwrap_or(1) << 30,
        extended: number(words, "gpu").map(|count| ("nvidia.com/gpu".to_owned(), count)).into_iter().collect(),
        selector: selector.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        gpu_memory_over: number(words, "over"),
    };
    PodAsk { uid: words[0].into(), name: words[0].into(), needs: Arc::new(needs) }
}
