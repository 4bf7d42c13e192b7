//! Which price a group gets, by what is known.

use super::*;
use crate::cloud::sim::Scenario;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn spot_group() -> Group {
    let text = "groups: [{id: g, max: 4, instanceType: p4d.24xlarge, market: spot, region: us-east-1, \
                zones: [us-east-1a, us-east-1b], cpu: 96, memory: 1Ti}]";
    Scenario::parse(text, std::path::Path::new("scenario.yaml")).unwrap().groups["g"].group.clone()
}

fn known(spot: &[(&str, u64)]) -> Known {
    let spot = spot.iter().map(|(zone, micros)| (("p4d.24xlarge".to_owned(), (*zone).to_owned()), (*micros, NOW)));
    Known { spot: spot.collect(), ..Known::default() }
}

#[test]
fn a_spot_group_costs_the_mean_of_its_zones_and_each_zone_its_own() {
    let known = known(&[("us-east-1a", 6_000_000), ("us-east-1b", 14_000_000), ("us-east-1c", 1)]);
    let (micros, origin) = known.price(&spot_group(), "us-east-1").unwrap();
    assert_eq!((micros, origin.source, origin.at), (10_000_000, PriceSource::SpotHistory, Some(NOW)));
    assert_eq!(origin.zones.values().copied().collect::<Vec<_>>(), [6_000_000, 14_000_000]);
}

#[test]
fn without_a_history_the_table_stands_with_its_date() {
    let (_, origin) = known(&[]).price(&spot_group(), "us-east-1").unwrap();
    assert_eq!(origin.source, PriceSource::Table);
    assert!(origin.at.is_some_and(|at| at < NOW));
    assert_eq!(known(&[]).price(&spot_group(), "mars-north-1"), None, "no guess for a region that the table lacks");
}

#[test]
fn the_operators_file_goes_over_both() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prices.csv");
    std::fs::write(&file, "p4d.24xlarge,spot,us-east-1,5").unwrap();
    let mut known = known(&[("us-east-1a", 6_000_000)]);
    known.overrides = overrides::read(&file).unwrap();
    let (micros, origin) = known.price(&spot_group(), "us-east-1").unwrap();
    assert_eq!((micros, origin.source, origin.zones.len()), (5_000_000, PriceSource::Override, 0));
}

#[test]
fn an_answer_of_ec2_is_read() {
    let text = "<DescribeSpotPriceHistoryResponse><spotPriceHistorySet>\
        <item><instanceType>p4d.24xlarge</instanceType><productDescription>Linux/UNIX</productDescription>\
        <spotPrice>6.290000</spotPrice><timestamp>2026-11-22T10:00:00.000Z</timestamp><availabilityZone>us-east-1a</availabilityZone></item>\
        <item><instanceType>p4d.24xlarge</instanceType><productDescription>Linux/UNIX</productDescription>\
        <spotPrice>7.0</spotPrice><timestamp>2026-11-22T09:00:00.000Z</timestamp><availabilityZone>us-east-1a</availabilityZone></item>\
        </spotPriceHistorySet><nextToken/></DescribeSpotPriceHistoryResponse>";
    let (items, _) = quick_xml::de::from_str::<History>(text).unwrap().split();
    let sdk = aws_config::SdkConfig::builder().endpoint_url("http://127.0.0.1:1").build();
    let prices = Prices::new(Ec2::new(&sdk, "us-east-1"), "us-east-1", None);
    prices.learn(Ok(items), BTreeSet::new(), NOW);
    let (micros, _) = prices.known().price(&spot_group(), "us-east-1").unwrap();
    assert_eq!(micros, 6_290_000, "the newest of a zone counts");
    prices.learn(Err(CloudError::Unknown("gone".to_owned())), BTreeSet::new(), NOW);
    let known = prices.known();
    assert_eq!(known.price(&spot_group(), "us-east-1").unwrap().0, 6_290_000, "what was known stands");
    assert!(known.warnings(&spot_group()).unwrap().contains("gone"));
}
