//! The door, with a connector of its own behind it.

use std::sync::atomic::AtomicU32;

use aws_smithy_types::body::SdkBody;

use super::*;

/// Says the same to everyone, and counts them.
#[derive(Clone, Debug)]
struct World(u16, &'static str, Arc<AtomicU32>);

impl HttpConnector for World {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        self.2.fetch_add(1, Ordering::Relaxed);
        let mut response = HttpResponse::new(self.0.try_into().unwrap(), SdkBody::from(self.1));
        response.headers_mut().insert("date", "Thu, 01 Jan 1970 00:00:00 GMT");
        HttpConnectorFuture::ready(Ok(response))
    }
}

fn request(action: &str) -> HttpRequest {
    let mut request = HttpRequest::new(SdkBody::from(format!("Action={action}&Version=1")));
    request.headers_mut().insert("authorization", "AWS4-HMAC-SHA256 Credential=A/1/r/ec2/aws4_request, Signature=x");
    request
}

async fn ask(manners: &Manners, world: &World, action: &str) -> Result<HttpResponse, ConnectorError> {
    manners.clone().send(request(action), SharedHttpConnector::new(world.clone())).await
}

fn manners() -> Manners {
    Manners::patient(Arc::new(Metrics::new().unwrap()), Duration::from_millis(20))
}

#[tokio::test]
async fn what_is_not_in_the_list_is_not_sent() {
    let world = World(200, "", Arc::default());
    let error = ask(&manners(), &world, "RunInstances").await.unwrap_err();
    assert!(error.is_user() && sentence(&error).contains("ec2:RunInstances is not in the list"), "{error:?}");
    assert_eq!(world.2.load(Ordering::Relaxed), 0);
}

fn sentence(error: &ConnectorError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

#[tokio::test]
async fn a_throttled_operation_is_asked_for_more_slowly_and_the_others_are_not() {
    let (manners, world) = (manners(), World(503, "<Code>RequestLimitExceeded</Code>", Arc::default()));
    let pace = |action: &str| {
        let call = super::super::calls::find("ec2", action).unwrap();
        manners.with_bucket(call, |bucket, _| bucket.pace())
    };
    let before = (pace("DescribeImages"), pace("DescribeInstanceTypes"));
    ask(&manners, &world, "DescribeImages").await.unwrap();
    assert_eq!((pace("DescribeImages"), pace("DescribeInstanceTypes")), (before.0 / 2, before.1));
    let error = ask(&manners, &world, "DescribeImages").await.unwrap_err();
    assert!(error.is_timeout(), "the next turn comes later than anyone waits here: {error:?}");
    assert_eq!(world.2.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn no_more_than_the_burst_leaves_at_once() {
    let (manners, world) = (manners(), World(200, "", Arc::default()));
    let call = super::super::calls::find("ec2", "DescribeSpotPriceHistory").unwrap();
    let mut refused = 0;
    for _ in 0..2 * call.rate.burst {
        refused += u32::from(ask(&manners, &world, call.action).await.is_err());
    }
    assert!(refused > 0 && world.2.load(Ordering::Relaxed) >= call.rate.burst);
}

#[tokio::test]
async fn calls_are_counted_and_awss_clock_is_noticed() {
    let (manners, world) = (manners(), World(400, "<Code>AccessDenied</Code>", Arc::default()));
    ask(&manners, &world, "DescribeImages").await.unwrap();
    let mut text = String::new();
    let gathered = manners.shared.metrics.registry.gather();
    prometheus::TextEncoder::new().encode_utf8(&gathered, &mut text).unwrap();
    let row = "windlass_provider_aws_calls_total{action=\"DescribeImages\",outcome=\"refused\",service=\"ec2\"} 1";
    assert!(text.contains(row), "{text}");
    assert!(manners.clock_ahead().unwrap() < -50 * 365 * 86_400_000, "that world is in 1970");
}
