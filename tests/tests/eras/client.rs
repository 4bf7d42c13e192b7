//! The client of each era, as its generated code decodes: messages declared as that release declared them, not as we do.

use std::collections::HashMap;

use prost::Message;
use windlass_proto::core::Node;
use windlass_provider::replay::autoscaler::Era;
use windlass_tests::recording::Rpc;

/// metav1.Duration: nanoseconds.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetaDuration {
    #[prost(int64, tag = "1")]
    pub(crate) duration: i64,
}

/// `NodeGroupTemplateNodeInfoResponse` until 1.34.1.
#[derive(Clone, PartialEq, Message)]
struct OldTemplate {
    #[prost(message, optional, tag = "1")]
    node_info: Option<Node>,
}

/// The same from 1.35.
#[derive(Clone, PartialEq, Message)]
struct NewTemplate {
    #[prost(bytes = "vec", tag = "2")]
    node_bytes: Vec<u8>,
}

/// `NodeGroupAutoscalingOptions` until 1.32 (1.27 and 1.28 without field 5) and, with 6 and 7, until 1.34.1.
#[derive(Clone, PartialEq, Message)]
struct OldOptions {
    #[prost(double, tag = "1")]
    utilization: f64,
    #[prost(double, tag = "2")]
    gpu_utilization: f64,
    #[prost(message, optional, tag = "3")]
    unneeded: Option<MetaDuration>,
    #[prost(message, optional, tag = "4")]
    unready: Option<MetaDuration>,
    #[prost(message, optional, tag = "5")]
    provision: Option<MetaDuration>,
}

/// The same from 1.35.
#[derive(Clone, PartialEq, Message)]
struct NewOptions {
    #[prost(double, tag = "1")]
    utilization: f64,
    #[prost(double, tag = "2")]
    gpu_utilization: f64,
    #[prost(message, optional, tag = "8")]
    unneeded: Option<prost_types::Duration>,
    #[prost(message, optional, tag = "9")]
    unready: Option<prost_types::Duration>,
    #[prost(message, optional, tag = "10")]
    provision: Option<prost_types::Duration>,
}

#[derive(Clone, PartialEq, Message)]
struct OldOptionsResponse {
    #[prost(message, optional, tag = "1")]
    options: Option<OldOptions>,
}

#[derive(Clone, PartialEq, Message)]
struct NewOptionsResponse {
    #[prost(message, optional, tag = "1")]
    options: Option<NewOptions>,
}

/// What a release makes of an options answer, in seconds. A missing duration is None: the old clients die of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) utilization: f64,
    pub(crate) gpu_utilization: f64,
    pub(crate) unneeded: Option<i64>,
    pub(crate) unready: Option<i64>,
    pub(crate) provision: Option<i64>,
}

fn old(span: Option<MetaDuration>) -> Option<i64> {
    span.map(|span| span.duration / 1_000_000_000)
}

fn new(span: Option<prost_types::Duration>) -> Option<i64> {
    span.map(|span| span.seconds)
}

/// The options in an answer, as this era reads them; None: the command line's.
pub(crate) fn options(era: Era, bytes: &[u8]) -> Option<Options> {
    let by_old = OldOptionsResponse::decode(bytes).unwrap().options.map(|options| Options {
        utilization: options.utilization,
        gpu_utilization: options.gpu_utilization,
        unneeded: old(options.unneeded),
        unready: old(options.unready),
        provision: old(options.provision),
    });
    let by_new = NewOptionsResponse::decode(bytes).unwrap().options.map(|options| Options {
        utilization: options.utilization,
        gpu_utilization: options.gpu_utilization,
        unneeded: new(options.unneeded),
        unready: new(options.unready),
        provision: new(options.provision),
    });
    match era {
        Era::V1_27 | Era::V1_29 | Era::V1_33 => by_old,
        // Prefers the new fields and takes the old ones where those are missing.
        Era::V1_34 => by_new.filter(|options| options.unneeded.is_some()).or(by_old),
        Era::V1_36 => by_new,
    }
}

/// The template in an answer, as this era reads it; None where its client would die.
pub(crate) fn template(era: Era, bytes: &[u8]) -> Option<Node> {
    let by_old = || OldTemplate::decode(bytes).unwrap().node_info;
    let by_new = || {
        let bytes = NewTemplate::decode(bytes).unwrap().node_bytes;
        (!bytes.is_empty()).then(|| Node::decode(bytes.as_slice()).unwrap())
    };
    match era {
        Era::V1_27 | Era::V1_29 | Era::V1_33 => by_old(),
        Era::V1_34 => by_new().or_else(by_old),
        Era::V1_36 => by_new(),
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ChosenOption {
    #[prost(string, tag = "1")]
    pub(crate) group: String,
}

/// `BestOptionsResponse`: every release reads the group's id alone.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Chosen {
    #[prost(message, repeated, tag = "1")]
    pub(crate) options: Vec<ChosenOption>,
}

#[derive(Clone, PartialEq, Message)]
struct Map {
    #[prost(map = "string, bytes", tag = "2")]
    old: HashMap<String, Vec<u8>>,
    #[prost(map = "string, bytes", tag = "3")]
    new: HashMap<String, Vec<u8>>,
}

/// How many nodes a recorded `BestOptions` request shows in the old form and in the new one.
pub(crate) fn nodes_shown(request: &Rpc) -> (usize, usize) {
    let map = Map::decode(request.request.as_slice()).unwrap();
    (map.old.len(), map.new.len())
}
