//! What came of a request, for counters and for the pace. Only the body of a failure is read here; it is handed on.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::{
    body::SdkBody,
    byte_stream::ByteStream,
    date_time::{DateTime, Format},
};

use super::super::errors;

pub(super) const THROTTLED: &str = "throttled";
/// Longest failure that is read; AWS's have some hundred bytes.
const LONGEST: usize = 64 << 10;

/// `ok`, `throttled`, `refused`, `failed` (their fault, or no code at all), with the answer still whole.
pub(super) async fn outcome(response: HttpResponse) -> (HttpResponse, &'static str) {
    let status = response.status();
    if status.is_success() {
        return (response, "ok");
    }
    let (response, text) = read(response).await;
    let code = response.headers().get("x-amzn-errortype").or_else(|| code(&text)).unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
    let outcome = match status.as_u16() {
        _ if errors::is_too_fast(code) => THROTTLED,
        429 => THROTTLED,
        400..500 => "refused",
        _ => "failed",
    };
    (response, outcome)
}

/// AWS's clock at the time of the answer, in seconds since 1970.
pub(super) fn date(response: &HttpResponse) -> Option<i64> {
    let text = response.headers().get("date")?;
    DateTime::from_str(text, Format::HttpDate).ok().map(|date| date.secs())
}

/// The body as text, with the answer as it was; what cannot be read whole is cut, which the SDK then takes for a failure
/// without a code.
async fn read(mut response: HttpResponse) -> (HttpResponse, String) {
    let mut stream = ByteStream::new(response.take_body());
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = stream.next().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LONGEST {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    *response.body_mut() = SdkBody::from(bytes);
    (response, text)
}

/// The code in the XML of the Query APIs, or in the JSON of the others.
fn code(text: &str) -> Option<&str> {
    let between = |open: &str, close: &str| text.split_once(open)?.1.split_once(close).map(|(code, _)| code);
    between("<Code>", "</Code>").or_else(|| between("\"__type\":\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(status: u16, body: &'static str, expected: &str) {
        let response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
        let (response, outcome) = outcome(response).await;
        assert_eq!(outcome, expected, "{status} {body}");
        assert_eq!(response.body().bytes(), Some(body.as_bytes()), "the answer is handed on whole");
    }

    #[tokio::test]
    async fn answers_are_told_apart() {
        check(200, "<ok/>", "ok").await;
        check(400, "<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>", THROTTLED).await;
        check(503, "<Response><Errors><Error><Code>RequestLimitExceeded</Code>", THROTTLED).await;
        check(400, "{\"__type\":\"com.amazon.coral.availability#ThrottlingException\"}", THROTTLED).await;
        check(403, "<Error><Code>AccessDenied</Code></Error>", "refused").await;
        check(500, "", "failed").await;
        check(429, "", THROTTLED).await;
    }

    #[test]
    fn the_date_is_read() {
        let mut response = HttpResponse::new(200.try_into().unwrap(), SdkBody::empty());
        assert_eq!(date(&response), None);
        response.headers_mut().insert("date", "Thu, 01 Jan 1970 00:01:00 GMT");
        assert_eq!(date(&response), Some(60));
    }
}
