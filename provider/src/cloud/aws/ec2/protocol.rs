//! The Query protocol: a call as a form, an answer as text, a refusal by its code.

use std::{collections::BTreeMap, fmt};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        orchestrator::{HttpRequest, HttpResponse, OrchestratorError},
        result::ConnectorError,
    },
};
use aws_smithy_types::{
    body::SdkBody,
    error::{ErrorMetadata, metadata::ProvideErrorMetadata},
};
use serde::Deserialize;

/// The API's version; each has been in force since its date.
const VERSION: &str = "2016-11-15";

/// The parameters of a call, by name; lists are numbered from 1.
#[derive(Clone, Debug, Default)]
pub(in crate::cloud::aws) struct Params(BTreeMap<String, String>);

impl Params {
    /// With one parameter more.
    pub(in crate::cloud::aws) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// With a list: `name.1`, `name.2` …
    pub(in crate::cloud::aws) fn list<T: Into<String>>(
        mut self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        for (at, value) in (1..).zip(values) {
            self.set(&format!("{name}.{at}"), value);
        }
        self
    }

    /// With one filter more, as the Describe calls take them.
    pub(in crate::cloud::aws) fn filter<T: Into<String>>(
        self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        let at = self.0.keys().filter(|key| key.starts_with("Filter.") && key.ends_with(".Name")).count() + 1;
        self.with(&format!("Filter.{at}.Name"), name).list(&format!("Filter.{at}.Value"), values)
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// The whole call as a form.
    pub(super) fn form(&self, action: &str) -> Form {
        let fixed = [("Action", action), ("Version", VERSION)].into_iter();
        let given = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let pair = |(name, value): (&str, &str)| format!("{}={}", escaped(name), escaped(value));
        Form(fixed.chain(given).map(pair).collect::<Vec<_>>().join("&"))
    }
}

/// A call, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Form(pub(super) String);

fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

pub(super) fn request(form: Form) -> Result<HttpRequest, BoxError> {
    let mut request = HttpRequest::new(SdkBody::from(form.0));
    request.set_method("POST")?;
    request.set_uri("/")?;
    request.headers_mut().insert("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    Ok(request)
}

/// EC2's no: its code and sentence, both absent when something else answered in its place.
#[derive(Debug)]
pub(super) struct Failure(ErrorMetadata);

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl std::error::Error for Failure {}

impl ProvideErrorMetadata for Failure {
    fn meta(&self) -> &ErrorMetadata {
        &self.0
    }
}

#[derive(Deserialize)]
struct Response {
    #[serde(rename = "Errors")]
    errors: Errors,
    #[serde(rename = "RequestID", default)]
    request_id: String,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(rename = "Error")]
    error: Error,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Error {
    code: String,
    #[serde(default)]
    message: String,
}

pub(super) fn response(answer: &HttpResponse) -> Result<String, OrchestratorError<Failure>> {
    let bytes = answer.body().bytes().unwrap_or_default();
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(OrchestratorError::connector(ConnectorError::other("the answer is no text".into(), None)));
    };
    if answer.status().is_success() { Ok(text.to_owned()) } else { Err(OrchestratorError::operation(refused(text))) }
}

fn refused(text: &str) -> Failure {
    let mut meta = ErrorMetadata::builder();
    if let Ok(Response { errors: Errors { error }, request_id }) = quick_xml::de::from_str(text) {
        meta = meta.code(error.code).message(error.message).custom("request_id", request_id);
    }
    Failure(meta.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_numbered_and_filters_kept_apart() {
        let params = Params::default()
            .list("InstanceType", ["g5.xlarge", "g6.xlarge"])
            .filter("location", ["a b"])
            .filter("arch", ["arm64", "x86_64"]);
        assert_eq!(
            params.form("DescribeThings").0,
            "Action=DescribeThings&Version=2016-11-15&Filter.1.Name=location&Filter.1.Value.1=a%20b\
             &Filter.2.Name=arch&Filter.2.Value.1=arm64&Filter.2.Value.2=x86_64\
             &InstanceType.1=g5.xlarge&InstanceType.2=g6.xlarge"
        );
    }

    #[test]
    fn a_refusal_is_known_by_its_code_and_anything_else_has_none() {
        let text = "<?xml version=\"1.0\"?><Response><Errors><Error><Code>UnauthorizedOperation</Code>\
                    <Message>You are not</Message></Error></Errors><RequestID>r-1</RequestID></Response>";
        let failure = refused(text);
        assert_eq!((failure.code(), failure.message()), (Some("UnauthorizedOperation"), Some("You are not")));
        for text in ["", "<html><body>502", "<Response/>", "\u{1}"] {
            assert_eq!(refused(text).code(), None, "{text}");
        }
    }
}
