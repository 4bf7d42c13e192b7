//! What an action answers, and how each protocol writes it: values in AWS's own words become XML or JSON here.

use serde_json::{Value, json};

use super::request::Protocol;

/// An action's answer in AWS's own words, or its refusal.
pub(super) type Outcome = Result<Value, Refused>;

/// AWS says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }

    /// The Auto Scaling API's word for almost everything.
    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationError", message)
    }
}

/// An answer as HTTP carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn new(protocol: Protocol, service: &str, action: &str, outcome: Outcome) -> Self {
        match (protocol, outcome) {
            (Protocol::Query | Protocol::Ec2, outcome) => xml(protocol, service, action, outcome),
            (Protocol::Json | Protocol::Rest, Ok(value)) => {
                Self { status: 200, content_type: json_type(protocol), body: value.to_string() }
            }
            (Protocol::Json | Protocol::Rest, Err(refused)) => {
                let body = json!({"__type": refused.code, "message": refused.message});
                Self { status: refused.status, content_type: json_type(protocol), body: body.to_string() }
            }
        }
    }
}

fn json_type(protocol: Protocol) -> &'static str {
    if protocol == Protocol::Json { "application/x-amz-json-1.0" } else { "application/json" }
}

fn xml(protocol: Protocol, service: &str, action: &str, outcome: Outcome) -> Answer {
    let ec2 = protocol == Protocol::Ec2;
    let (status, body) = match outcome {
        Ok(value) if ec2 => {
            let inner = rendered(&value, "item");
            (
                200,
                format!(
                    "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>{inner}</{action}Response>"
                ),
            )
        }
        Ok(value) => {
            let inner = rendered(&value, "member");
            let version = if service == "sts" { "2011-06-15" } else { "2011-01-01" };
            (
                200,
                format!(
                    "<{action}Response xmlns=\"https://{service}.amazonaws.com/doc/{version}/\"><{action}Result>{inner}</{action}Result>\
                     <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{action}Response>"
                ),
            )
        }
        Err(Refused { status, code, message }) => {
            let inner = rendered(&json!({"Code": code, "Message": message}), "");
            let body = if ec2 {
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error>{inner}</Error></Errors><RequestID>r</RequestID></Response>"
                )
            } else {
                format!(
                    "<ErrorResponse><Error><Type>Sender</Type>{inner}</Error><RequestId>r</RequestId></ErrorResponse>"
                )
            };
            (status, body)
        }
    };
    Answer { status, content_type: "text/xml", body }
}

/// An object's members as elements; a list as elements of the protocol's own name; null as nothing.
fn rendered(value: &Value, item: &str) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(is) => is.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => escaped(text),
        Value::Array(items) => {
            items.iter().map(|value| format!("<{item}>{}</{item}>", rendered(value, item))).collect()
        }
        Value::Object(members) => {
            let members = members.iter().filter(|(_, value)| !value.is_null());
            members.map(|(name, value)| format!("<{name}>{}</{name}>", rendered(value, item))).collect()
        }
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

/// One page of `all`, and the token of the next: pages are counted in tokens as AWS's are not, but nobody may look.
pub(super) fn page<T>(all: Vec<T>, token: Option<&str>, size: usize) -> Result<(Vec<T>, Option<String>), Refused> {
    let start = match token {
        None => 0,
        Some(token) => token
            .strip_prefix("page-")
            .and_then(|start| start.parse::<usize>().ok())
            .ok_or_else(|| Refused::new(400, "InvalidNextToken", "The token is not valid."))?,
    };
    let next = (start + size < all.len()).then(|| format!("page-{}", start + size));
    Ok((all.into_iter().skip(start).take(size).collect(), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_elements_and_lists_take_the_protocols_name() {
        let value = json!({"A": {"B": [1, "x<&>"]}, "C": null, "D": true});
        assert_eq!(rendered(&value, "item"), "<A><B><item>1</item><item>x&lt;&amp;&gt;</item></B></A><D>true</D>");
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        assert_eq!(page(vec![1, 2, 3], None, 2).unwrap(), (vec![1, 2], Some("page-2".to_owned())));
        assert_eq!(page(vec![1, 2, 3], Some("page-2"), 2).unwrap(), (vec![3], None));
        assert!(page(vec![1], Some("x"), 2).is_err());
    }
}
