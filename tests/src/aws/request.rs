//! One request as the wire carried it: the service it is for, the action, its parameters, and who signed it.

use std::collections::BTreeMap;

use serde_json::Value;

/// How an API speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Forms in, XML with `member` lists out.
    Query,
    /// Forms in, XML with `item` lists out.
    Ec2,
    /// JSON with the action in a header.
    Json,
    /// JSON with the action in method and path.
    Rest,
}

/// Who signed a request, from its `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) key: String,
    pub(super) region: String,
    pub(super) service: String,
}

/// A request, read.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) protocol: Protocol,
    /// `autoscaling`, `ec2`, `eks`, `sts`, `sqs`.
    pub(super) service: &'static str,
    pub(super) action: String,
    pub(super) parameters: Parameters,
    pub(super) signature: Option<Signature>,
}

/// Names and values, whatever the protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters(pub(super) BTreeMap<String, String>);

/// What a request is made of.
pub(super) struct Wire<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) target: Option<&'a str>,
    pub(super) authorization: Option<&'a str>,
    pub(super) body: &'a [u8],
}

impl Request {
    /// Reads a request; None when it is for no API that is faked here.
    pub(super) fn read(wire: &Wire<'_>) -> Option<Self> {
        let signature = wire.authorization.and_then(signature);
        if let Some((_, action)) = wire.target.and_then(|target| target.split_once('.')) {
            let parameters = Parameters::of_json(&serde_json::from_slice(wire.body).ok()?);
            let action = action.to_owned();
            return Some(Self { protocol: Protocol::Json, service: "sqs", action, parameters, signature });
        }
        if wire.path.starts_with("/clusters") {
            let (action, parameters) = eks(wire)?;
            return Some(Self { protocol: Protocol::Rest, service: "eks", action, parameters, signature });
        }
        let mut parameters = Parameters::of_form(std::str::from_utf8(wire.body).ok()?);
        parameters.0.extend(Parameters::of_form(wire.query).0);
        let action = parameters.0.remove("Action")?;
        let (protocol, service) = match parameters.0.remove("Version")?.as_str() {
            "2011-01-01" => (Protocol::Query, "autoscaling"),
            "2011-06-15" => (Protocol::Query, "sts"),
            "2016-11-15" => (Protocol::Ec2, "ec2"),
            _ => return None,
        };
        Some(Self { protocol, service, action, parameters, signature })
    }
}

/// EKS's three reads.
fn eks(wire: &Wire<'_>) -> Option<(String, Parameters)> {
    let mut parts = wire.path.split('/').skip(2).map(unescaped);
    let mut parameters = Parameters::of_form(wire.query);
    let mut take = |name: &str| parts.next().map(|part| (name.to_owned(), part));
    parameters.0.extend(take("clusterName"));
    let below = take("");
    let group = take("nodegroupName");
    let action = match (wire.method, below.as_ref().map(|it| it.1.as_str()), &group) {
        ("GET", None, None) if parameters.0.contains_key("clusterName") => "DescribeCluster",
        ("GET", Some("node-groups"), None) => "ListNodegroups",
        ("GET", Some("node-groups"), Some(_)) => "DescribeNodegroup",
        _ => return None,
    };
    parameters.0.extend(group);
    Some((action.to_owned(), parameters))
}

/// `AWS4-HMAC-SHA256 Credential=<key>/<day>/<region>/<service>/aws4_request, SignedHeaders=…, Signature=<64 hex digits>`.
fn signature(header: &str) -> Option<Signature> {
    let fields = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let field = |name: &str| fields.split(',').find_map(|field| field.trim().strip_prefix(name));
    let hex = field("Signature=")?;
    let signed_headers = field("SignedHeaders=")?;
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) || !signed_headers.contains("host") {
        return None;
    }
    let mut scope = field("Credential=")?.split('/');
    let (key, _day) = (scope.next()?.to_owned(), scope.next()?);
    Some(Signature { key, region: scope.next()?.to_owned(), service: scope.next()?.to_owned() })
}

impl Parameters {
    pub(super) fn of_form(form: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescaped(name), unescaped(value))
        };
        Self(form.split('&').filter(|pair| !pair.is_empty()).map(pair).collect())
    }

    /// The top level of a JSON object, its lists numbered as a form numbers them.
    fn of_json(json: &Value) -> Self {
        let mut parameters = Self::default();
        for (name, value) in json.as_object().into_iter().flatten() {
            match value {
                Value::String(text) => _ = parameters.0.insert(name.clone(), text.clone()),
                Value::Array(items) => {
                    for (number, item) in items.iter().enumerate() {
                        parameters.0.insert(format!("{name}.{}", number + 1), item.to_string());
                    }
                }
                other => _ = parameters.0.insert(name.clone(), other.to_string()),
            }
        }
        parameters
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// `<prefix>.1`, `<prefix>.2`, …
    pub(super) fn list(&self, prefix: &str) -> Vec<String> {
        (1..).map_while(|number| self.0.get(&format!("{prefix}.{number}")).cloned()).collect()
    }

    /// `<prefix>.1.Name` with `<prefix>.1.<values>.1`, …
    pub(super) fn filters(&self, prefix: &str, values: &str) -> Vec<(String, Vec<String>)> {
        let filter = |number: u32| {
            let name = self.get(&format!("{prefix}.{number}.Name"))?;
            Some((name.to_owned(), self.list(&format!("{prefix}.{number}.{values}"))))
        };
        (1..).map_while(filter).collect()
    }
}

/// A form's or a path's percent signs and pluses, undone.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let coded = (*first == b'%').then(|| after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok())).flatten();
        match coded.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, body: &str, authorization: Option<&str>) -> Option<Request> {
        let body = body.as_bytes();
        Request::read(&Wire { method: "GET", path, query: "", target: None, authorization, body })
    }

    #[test]
    fn a_form_is_read_with_its_lists_and_filters() {
        let form = "Action=X&Version=2011-01-01&A.member.1=a%2Fb&A.member.2=c+d&Filters.member.1.Name=tag-key&Filters.member.1.Values.member.1=k";
        let request = read("/", form, None).unwrap();
        assert_eq!((request.service, request.action.as_str()), ("autoscaling", "X"));
        assert_eq!(request.parameters.list("A.member"), ["a/b", "c d"]);
        let filters = request.parameters.filters("Filters.member", "Values.member");
        assert_eq!(filters, [("tag-key".to_owned(), vec!["k".to_owned()])]);
    }

    #[test]
    fn a_path_of_eks_names_the_action() {
        let request = read("/clusters/c%201/node-groups/g", "", None).unwrap();
        assert_eq!(
            (request.action.as_str(), request.parameters.get("clusterName")),
            ("DescribeNodegroup", Some("c 1"))
        );
        assert!(read("/clusters/c/addons", "", None).is_none());
    }

    #[test]
    fn a_signature_names_its_key_region_and_service() {
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host;x-amz-date, Signature={}",
            "0".repeat(64)
        );
        let signature = read("/", "Action=X&Version=2016-11-15", Some(&signed)).unwrap().signature.unwrap();
        assert_eq!((signature.key.as_str(), signature.service.as_str()), ("AKID", "ec2"));
        assert!(read("/", "Action=X&Version=2016-11-15", Some("Basic eA==")).unwrap().signature.is_none());
    }
}
