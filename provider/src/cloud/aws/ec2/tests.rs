//! The client against an HTTP server that says what EC2 says.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use axum::{
    Form, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::*;
use crate::fleet::group::RefusalClass;

type Script = Arc<Mutex<VecDeque<(u16, String)>>>;
type Heard = Arc<Mutex<Vec<HashMap<String, String>>>>;

struct World {
    ec2: Ec2,
    heard: Heard,
    _server: JoinSet<()>,
}

async fn answer(
    State((script, heard)): State<(Script, Heard)>,
    headers: HeaderMap,
    Form(mut form): Form<HashMap<String, String>>,
) -> (StatusCode, String) {
    form.insert("authorization".to_owned(), headers["authorization"].to_str().unwrap().to_owned());
    heard.lock().unwrap().push(form);
    let (status, text) = script.lock().unwrap().pop_front().unwrap_or((500, String::new()));
    (StatusCode::from_u16(status).unwrap(), text)
}

async fn world(script: Vec<(u16, &str)>) -> World {
    let script: Script = Arc::new(Mutex::new(script.into_iter().map(|(code, it)| (code, it.to_owned())).collect()));
    let heard = Heard::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", post(answer)).with_state((script, heard.clone()));
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let provider = aws_sdk_sts::config::Credentials::new("AKIDEXAMPLE", "not-a-secret", None, None, "test");
    let sdk = aws_config::SdkConfig::builder()
        .endpoint_url(format!("http://{address}"))
        .credentials_provider(aws_sdk_sts::config::SharedCredentialsProvider::new(provider))
        .retry_config(RetryConfig::standard().with_initial_backoff(std::time::Duration::from_millis(1)))
        .build();
    World { ec2: Ec2::new(&sdk, "eu-west-1"), heard, _server: server }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    instance_type_set: Items,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Items {
    #[serde(default)]
    item: Vec<Item>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    instance_type: String,
}

impl Page for Names {
    type Item = String;

    fn split(self) -> (Vec<String>, Option<String>) {
        (self.instance_type_set.item.into_iter().map(|it| it.instance_type).collect(), self.next_token)
    }
}

const FIRST: &str = "<DescribeInstanceTypesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
    <requestId>r</requestId><instanceTypeSet><item><instanceType>g5.xlarge</instanceType><vCpu/></item></instanceTypeSet>\
    <nextToken>more</nextToken></DescribeInstanceTypesResponse>";
const LAST: &str = "<DescribeInstanceTypesResponse><instanceTypeSet><item><instanceType>p5.48xlarge</instanceType></item>\
    </instanceTypeSet><nextToken/></DescribeInstanceTypesResponse>";
const THROTTLED: &str =
    "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>slow</Message></Error></Errors></Response>";
const DENIED: &str = "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized\
    </Message></Error></Errors></Response>";

#[tokio::test]
async fn all_pages_are_read_signed_and_what_was_throttled_is_asked_again() {
    let world = world(vec![(503, THROTTLED), (200, FIRST), (200, LAST)]).await;
    let found = world.ec2.pages::<Names>("DescribeInstanceTypes", &Params::default()).await.unwrap();
    assert_eq!(found, ["g5.xlarge", "p5.48xlarge"]);
    let heard = world.heard.lock().unwrap();
    assert_eq!(heard.len(), 3);
    assert_eq!(heard[2]["NextToken"], "more");
    assert_eq!((heard[0]["Action"].as_str(), heard[0]["Version"].as_str()), ("DescribeInstanceTypes", "2016-11-15"));
    let signed = &heard[0]["authorization"];
    assert!(signed.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{signed}");
    assert!(signed.contains("/eu-west-1/ec2/aws4_request"), "{signed}");
}

#[tokio::test]
async fn a_refusal_is_not_repeated_and_has_its_class() {
    let world = world(vec![(403, DENIED)]).await;
    let failed = world.ec2.call::<Names>("DescribeInstanceTypes", &Params::default()).await.unwrap_err();
    let CloudError::Refused(refusal) = failed else { panic!("{failed}") };
    assert_eq!((refusal.class, refusal.code.as_str()), (RefusalClass::Permission, "UnauthorizedOperation"));
    assert_eq!(world.heard.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_no_xml_is_unknown_and_says_of_which_call() {
    let world = world(vec![(200, "<html><p>proxy")]).await;
    let failed = world.ec2.call::<Names>("DescribeInstanceTypes", &Params::default()).await.unwrap_err();
    assert!(matches!(&failed, CloudError::Unknown(text) if text.starts_with("DescribeInstanceTypes: ")), "{failed}");
}

#[tokio::test]
async fn an_outage_is_tried_again_and_then_unknown() {
    let world = world(vec![]).await;
    let failed = world.ec2.call::<Names>("DescribeInstanceTypes", &Params::default()).await.unwrap_err();
    assert!(matches!(failed, CloudError::Unknown(_)), "{failed}");
    assert_eq!(world.heard.lock().unwrap().len(), 3);
}
