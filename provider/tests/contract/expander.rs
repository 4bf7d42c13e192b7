//! The expander as CA meets it: over TLS, with the certificate that the provider made.

use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use windlass_proto::expander::{BestOptionsRequest, Option as Choice, expander_client::ExpanderClient};

use crate::stage::Stage;

async fn connect(stage: &Stage) -> ExpanderClient<Channel> {
    let root = std::fs::read(stage.folder.path().join("ca.crt")).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root));
    let address = stage.running.as_ref().unwrap().expander;
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", address.port())).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    ExpanderClient::new(channel).max_encoding_message_size(256 << 20)
}

/// A pod of that uid that asks for one GPU.
fn pod(uid: &str) -> prost::bytes::Bytes {
    use prost::Message as _;
    use windlass_proto::core::{Container, ObjectMeta, Pod, PodSpec, Quantity, ResourceRequirements};
    let requests = [("nvidia.com/gpu".to_owned(), Quantity { string: Some("1".to_owned()) })].into();
    let resources = Some(ResourceRequirements { requests, ..Default::default() });
    let container = Container { resources, ..Default::default() };
    let spec = Some(PodSpec { containers: vec![container], ..Default::default() });
    let metadata = Some(ObjectMeta { uid: Some(uid.to_owned()), name: Some(uid.to_owned()), ..Default::default() });
    Pod { metadata, spec }.encode_to_vec().into()
}

fn choice(group: &str, pods: &[&str]) -> Choice {
    let pod_bytes = pods.iter().map(|uid| pod(uid)).collect();
    Choice { node_group_id: group.to_owned(), node_count: 1, pod_bytes, ..Choice::default() }
}

async fn best(client: &mut ExpanderClient<Channel>, options: Vec<Choice>) -> Result<Vec<String>, Code> {
    let request = BestOptionsRequest { options, ..BestOptionsRequest::default() };
    let answer = client.best_options(request).await.map_err(|status| status.code())?;
    Ok(answer.into_inner().options.into_iter().map(|option| option.node_group_id).collect())
}

#[tokio::test]
async fn spot_is_chosen_first_and_a_stranger_or_an_old_era_does_not_fail_the_call() {
    let stage = Stage::start("").await;
    let mut client = connect(&stage).await;
    for _ in 0..3 {
        let row = vec![choice("od", &["a"]), choice("nowhere", &["a"]), choice("spot", &["a"])];
        assert_eq!(best(&mut client, row).await, Ok(vec!["spot".to_owned()]));
    }
    let old = |group: &str| Choice { pod: vec![pod("a")], pod_bytes: vec![], ..choice(group, &[]) };
    assert_eq!(best(&mut client, vec![old("od"), old("spot")]).await, Ok(vec!["spot".to_owned()]));
}

#[tokio::test]
async fn a_question_that_cannot_be_read_is_an_error_and_never_an_empty_answer() {
    let stage = Stage::start("").await;
    let mut client = connect(&stage).await;
    let broken = Choice { pod_bytes: vec![vec![255_u8, 255].into()], ..choice("spot", &[]) };
    let answer = best(&mut client, vec![broken]).await;
    assert!(!matches!(&answer, Ok(groups) if groups.is_empty()), "{answer:?}");
}

#[tokio::test]
async fn a_request_of_many_megabytes_is_read() {
    let stage = Stage::start("").await;
    let mut client = connect(&stage).await;
    let big = Choice { debug: "x".repeat(140 << 20), ..choice("spot", &["a"]) };
    assert_eq!(best(&mut client, vec![big]).await, Ok(vec!["spot".to_owned()]));
}

/// What CA buys twice after a restart of its own, it buys once from us.
#[tokio::test]
async fn the_same_pods_are_bought_for_once() {
    let stage = Stage::start("").await;
    let mut client = connect(&stage).await;
    let row = || vec![choice("od", &["a"]), choice("spot", &["a"])];
    assert_eq!(best(&mut client, row()).await, Ok(vec!["spot".to_owned()]));
    stage.increase("spot", 1).await.unwrap();
    assert_eq!(stage.target("spot").await, 3);
    assert_eq!(best(&mut client, row()).await, Ok(vec![]), "a deliberate veto");
    let mut two = choice("spot", &["a", "b"]);
    two.node_count = 2;
    assert_eq!(best(&mut client, vec![two]).await, Ok(vec!["spot".to_owned()]));
    stage.increase("spot", 2).await.unwrap();
    assert_eq!(stage.target("spot").await, 4, "of two asked for one is on its way");
}
