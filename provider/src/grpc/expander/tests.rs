//! `BestOptions` as each era of CA writes it.

use prost::{Message as _, bytes::Bytes};
use windlass_proto::core;

use super::*;
use crate::snapshot::scenario::{TWINS, snapshot};

const NOW: Timestamp = Timestamp(1_000_000);

fn pod(name: &str) -> Bytes {
    let quantity = |text: &str| core::Quantity { string: Some(text.to_owned()) };
    let requests = [("cpu".to_owned(), quantity("1")), ("nvidia.com/gpu".to_owned(), quantity("1"))].into();
    let metadata = core::ObjectMeta { name: Some(name.to_owned()), uid: Some(name.to_owned()), ..Default::default() };
    let resources = core::ResourceRequirements { requests, ..Default::default() };
    let containers = vec![core::Container { resources: Some(resources), ..Default::default() }];
    let spec = core::PodSpec { containers, ..Default::default() };
    core::Pod { metadata: Some(metadata), spec: Some(spec) }.encode_to_vec().into()
}

fn option(group: &str, pod: Vec<Bytes>, pod_bytes: Vec<Bytes>) -> WireOption {
    WireOption { node_group_id: group.to_owned(), node_count: 2, pod, pod_bytes, ..WireOption::default() }
}

fn ask(options: Vec<WireOption>) -> Result<(Decision, Vec<Offer>), Status> {
    let request = BestOptionsRequest { options, ..BestOptionsRequest::default() };
    // Over the wire and back, as the server has it.
    let request = BestOptionsRequest::decode(Bytes::from(request.encode_to_vec())).unwrap();
    let answer = decide(request, &snapshot(TWINS, NOW), &Policy::default(), NOW);
    answer.map(|(decision, offers, _)| (decision, offers))
}

#[test]
fn every_era_is_read_alike() {
    let pods = || vec![pod("a"), pod("b")];
    let eras = [("<= 1.34.1", pods(), vec![]), ("1.34.2 to 1.34.5", pods(), pods()), (">= 1.35", vec![], pods())];
    for (era, old, new) in eras {
        let (decision, offers) =
            ask(vec![option("od-<a10g>", old.clone(), new.clone()), option("spot-a10g", old.clone(), new.clone())])
                .unwrap();
        assert_eq!(encode(&decision).options.len(), 1, "{era}");
        assert_eq!(encode(&decision).options[0].node_group_id, "spot-a10g", "{era}");
        assert_eq!(decision.pods, 2, "{era}");
        let sizes: Vec<_> = offers.iter().map(|offer| (offer.node_count, offer.pods.len())).collect();
        assert_eq!(sizes, [(2, 2), (2, 2)], "{era}: every candidate is offered, the dropped one too");
        assert!(Arc::ptr_eq(&offers[0].pods[0], &offers[1].pods[0]), "{era}: a pod is read once");
    }
}

#[test]
fn groups_that_are_not_known_do_not_fail_the_call() {
    let (decision, _) = ask(vec![option("new", vec![], vec![pod("a")])]).unwrap();
    assert_eq!(decision.best, ["new".into()]);
}

#[test]
fn an_estimate_below_zero_is_none() {
    let (decision, _) =
        ask(vec![WireOption { node_count: -1, ..option("spot-a10g", vec![], vec![pod("a")]) }]).unwrap();
    assert_eq!(decision.candidates[0].node_count, 0);
}

#[test]
fn bytes_that_are_no_pod_fail_the_call_and_say_where() {
    let status = ask(vec![option("spot-a10g", vec![], vec![pod("a"), Bytes::from_static(b"\xff")])]).unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(status.message(), "pod 1 of option spot-a10g: the bytes are no protobuf message");
}

#[test]
fn before_the_first_listing_every_option_passes() {
    let request =
        BestOptionsRequest { options: vec![option("spot-a10g", vec![], vec![pod("a")])], ..Default::default() };
    let status = decide(request, &Snapshot::default(), &Policy::default(), NOW).unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
}
