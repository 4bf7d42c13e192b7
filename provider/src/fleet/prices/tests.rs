//! Prices of nodes and pods.

use prost::Message as _;

use super::*;
use crate::fleet::group::Market;
use crate::fleet::{Counts, template, tests::group};

fn view(id: &str, change: impl FnOnce(&mut Group)) -> Arc<GroupView> {
    let mut group = group(id, 0, 9);
    change(&mut group);
    let template = Arc::new(template::node(&group, &Dialect::sim()));
    let template_bytes = template.encode_to_vec().into();
    Arc::new(GroupView {
        group,
        instances: vec![],
        intents: vec![],
        target: 0,
        counts: Counts::default(),
        template,
        template_bytes,
    })
}

fn three() -> Vec<Arc<GroupView>> {
    vec![
        view("cpu", |group| {
            group.shape.gpus = None;
            group.shape.instance_type = "m7.xlarge".to_owned();
            group.price_micros = Some(200_000);
        }),
        view("od", |group| {
            group.market = Market::OnDemand;
            group.price_micros = Some(1_000_000);
        }),
        view("spot", |_| ()),
    ]
}

#[test]
fn a_node_is_priced_by_its_labels() {
    let (groups, dialect) = (three(), Dialect::sim());
    for view in &groups {
        let labels = dialect.labels(&view.group);
        assert_eq!(node_price(&labels, groups.iter()), view.group.price_micros);
    }
    let unknown = BTreeMap::from([("node.kubernetes.io/instance-type".to_owned(), "p9.huge".to_owned())]);
    for labels in [unknown, BTreeMap::new()] {
        assert_eq!(node_price(&labels, groups.iter()), None);
    }
}

#[test]
fn a_node_costs_what_its_own_zone_costs() {
    let zones = BTreeMap::from([("zone-a".to_owned(), 1), ("zone-b".to_owned(), 5)]);
    let group = view("spot", |group| {
        group.zones = zones.keys().cloned().collect();
        group.price_origin = Some(PriceOrigin { source: PriceSource::SpotHistory, at: None, zones: zones.clone() });
    });
    let dialect = Dialect::aws();
    let mut labels = dialect.labels(&group.group);
    labels.insert("topology.kubernetes.io/zone".to_owned(), "zone-b".to_owned());
    assert_eq!(node_price(&labels, std::iter::once(&group)), Some(5));
    labels.remove("topology.kubernetes.io/zone");
    assert_eq!(node_price(&labels, std::iter::once(&group)), Some(400_000));
}

#[test]
fn a_pod_is_priced_at_the_cheapest_rates() {
    let groups = three();
    let rates = rates(groups.iter()).unwrap();
    // 200,000 over 4 CPU and 16 GiB worth 2.144 CPU.
    assert_eq!(rates, Rates { cpu: 32_552, memory: 4_361, gpu: 400_000 - 199_999 });
    assert_eq!(pod_price(rates, 500, GIB, 1), 16_276 + 4_361 + 200_001);
    assert_eq!(pod_price(rates, 0, 0, 0), 0);
    assert_eq!(super::rates([].iter()), None);
}
