//! Which operation a request is for, read from what is sent: the signature names the service, the body, a header or the
//! path the operation.

use aws_smithy_runtime_api::client::orchestrator::HttpRequest;

use super::super::calls::{Call, find};

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What the SDK's chain asks for credentials, and of the instance metadata: not an operation of ours. Not signed, but
    /// for a role that a profile names.
    Credentials,
    /// An operation of the list.
    Listed(&'static Call),
    /// Signed, and not in the list.
    Unlisted(String),
}

pub(super) fn asked(request: &HttpRequest) -> Asked {
    let headers = request.headers();
    let Some(service) = headers.get("authorization").and_then(service) else { return Asked::Credentials };
    let target = headers.get("x-amz-target").and_then(|target| target.rsplit('.').next());
    let action = target.or_else(|| form_action(request.body().bytes()?)).or_else(|| eks_action(request));
    let action = action.unwrap_or_default();
    if (service, action) == ("sts", "AssumeRole") {
        return Asked::Credentials;
    }
    find(service, action).map_or_else(|| Asked::Unlisted(format!("{service}:{action}")), Asked::Listed)
}

/// `AWS4-HMAC-SHA256 Credential=AKID/20261122/us-east-1/autoscaling/aws4_request, SignedHeaders=…`
fn service(authorization: &str) -> Option<&str> {
    let scope = authorization.split_once("Credential=")?.1.split(',').next()?;
    scope.rsplit('/').nth(1)
}

/// The `Action` of a Query form.
fn form_action(body: &[u8]) -> Option<&str> {
    let form = std::str::from_utf8(body).ok()?;
    form.split('&').find_map(|pair| pair.strip_prefix("Action="))
}

/// EKS has an operation for each method and path.
fn eks_action(request: &HttpRequest) -> Option<&'static str> {
    let uri = request.uri();
    let path = uri.split_once("://").map_or(uri, |(_, rest)| rest.split_once('/').map_or("", |it| it.1));
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    match (request.method(), parts.as_slice()) {
        ("GET", ["clusters", _, "node-groups", _]) => Some("DescribeNodegroup"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn request(service: &str, method: &str, path: &str, body: &'static str) -> HttpRequest {
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method(method).unwrap();
        request.set_uri(format!("https://example.com{path}")).unwrap();
        if !service.is_empty() {
            let signature =
                format!("AWS4-HMAC-SHA256 Credential=AKID/20261122/us-east-1/{service}/aws4_request, Signature=x");
            request.headers_mut().insert("authorization", signature);
        }
        request
    }

    fn said(request: &HttpRequest) -> String {
        match asked(request) {
            Asked::Credentials => "credentials".to_owned(),
            Asked::Listed(call) => call.permission(),
            Asked::Unlisted(what) => format!("not {what}"),
        }
    }

    #[test]
    fn the_operation_is_read_from_what_is_sent() {
        for (service, method, path, body, expected) in [
            ("autoscaling", "POST", "/", "Action=LaunchInstances&Version=2011-01-01", "autoscaling:LaunchInstances"),
            ("ec2", "POST", "/", "Action=DescribeImages&Version=1", "ec2:DescribeImages"),
            ("ec2", "POST", "/", "Version=1&Action=RunInstances", "not ec2:RunInstances"),
            ("eks", "GET", "/clusters/c1/node-groups/gpu", "", "eks:DescribeNodegroup"),
            ("eks", "DELETE", "/clusters/c1/node-groups/gpu", "", "not eks:"),
            ("eks", "GET", "/clusters/c1", "", "not eks:"),
            ("", "GET", "/latest/meta-data/", "", "credentials"),
            ("", "POST", "/", "Action=AssumeRoleWithWebIdentity", "credentials"),
            ("sts", "POST", "/", "Action=AssumeRole&Version=2011-06-15", "credentials"),
            ("sts", "POST", "/", "Action=GetFederationToken&Version=2011-06-15", "not sts:GetFederationToken"),
        ] {
            assert_eq!(said(&request(service, method, path, body)), expected, "{path} {body}");
        }
        let mut queue = request("sqs", "POST", "/", "{}");
        queue.headers_mut().insert("x-amz-target", "AmazonSQS.ReceiveMessage");
        assert_eq!(said(&queue), "sqs:ReceiveMessage");
    }
}
