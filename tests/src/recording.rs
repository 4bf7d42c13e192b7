//! Recorded conversations of real cluster-autoscalers (`tests/recordings/<version>/<story>.jsonl.gz`), line by line.

use std::{fs::File, io::Read as _, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use prost::Message;
use serde::Deserialize;
use windlass_provider::{
    replay::autoscaler::{Call, Era, Failure, Reply},
    timestamp::Timestamp,
};

/// Where a recording's clock starts, so that times before it exist.
const START: u64 = 1_000_000;

/// The releases that were recorded, oldest first.
pub const VERSIONS: [(&str, Era); 5] = [
    ("1.27.6", Era::V1_27),
    ("1.29.5", Era::V1_29),
    ("1.33.6", Era::V1_33),
    ("1.34.5", Era::V1_34),
    ("1.36.1", Era::V1_36),
];

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// What a line holds.
#[derive(Clone, Debug)]
pub enum What {
    /// A call of the autoscaler's.
    Rpc(Box<Rpc>),
    /// An act of the stage.
    Stage(Stage),
}

/// A call, its bytes and its answer's.
#[derive(Clone, Debug)]
pub struct Rpc {
    /// The method's name: of `CloudProvider`, or `BestOptions`.
    pub method: String,
    /// The request's message as it was on the wire.
    pub request: Vec<u8>,
    /// The response's; empty where the call failed.
    pub response: Vec<u8>,
    /// The gRPC code's name.
    pub code: String,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// What happened on the stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// An autoscaler process began.
    Started,
    /// It was killed.
    Killed,
    /// Pods were created.
    PodsCreated {
        /// How many.
        count: usize,
        /// GPUs that each asks for.
        gpus: u64,
    },
    /// Pods whose names begin so were deleted.
    PodsDeleted(String),
    /// The Node of this instance appeared.
    NodeRegistered(String),
    /// Its GPUs became allocatable.
    GpuReady(String),
    /// The Node of this instance went away.
    NodeGone(String),
    /// A pod runs on a node.
    PodRunning {
        /// The pod's name.
        pod: String,
        /// The node's.
        node: String,
    },
    /// A remark.
    Other(String),
}

#[derive(Deserialize)]
struct Raw {
    t: f64,
    act: Option<String>,
    rpc: Option<String>,
    req: Option<String>,
    resp: Option<String>,
    code: Option<String>,
    ms: Option<f64>,
    count: Option<usize>,
    gpus: Option<u64>,
    id: Option<String>,
    pod: Option<String>,
    node: Option<String>,
    name: Option<String>,
}

/// Where the recordings lie.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recordings")
}

/// The stories recorded of a version, by name.
///
/// # Errors
/// When the folder cannot be read.
pub fn stories(version: &str) -> Result<Vec<String>> {
    let folder = folder().join(version);
    let entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if let Some(story) = name.to_str().and_then(|name| name.strip_suffix(".jsonl.gz")) {
            names.push(story.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// A recording's lines, in order of time.
///
/// # Errors
/// When the file is not there or a line is not what it should be.
pub fn read(version: &str, story: &str) -> Result<Vec<Line>> {
    let path = folder().join(version).join(format!("{story}.jsonl.gz"));
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).with_context(|| path.display().to_string())?;
    text.lines()
        .enumerate()
        .map(|(number, line)| parse(line).with_context(|| format!("{} line {}", path.display(), number + 1)))
        .collect()
}

fn parse(line: &str) -> Result<Line> {
    let raw: Raw = serde_json::from_str(line)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds since a recording began")]
    let at = Timestamp(START + (raw.t * 1000.0) as u64);
    let what = match (&raw.act, &raw.rpc) {
        (Some(act), None) => What::Stage(stage(act, &raw)?),
        (None, Some(method)) => What::Rpc(Box::new(Rpc {
            method: method.clone(),
            request: bytes(raw.req.as_deref())?,
            response: bytes(raw.resp.as_deref())?,
            code: raw.code.clone().unwrap_or_default(),
            ms: raw.ms.unwrap_or_default(),
        })),
        _ => bail!("neither an act nor a call"),
    };
    Ok(Line { at, what })
}

fn bytes(text: Option<&str>) -> Result<Vec<u8>> {
    Ok(base64::engine::general_purpose::STANDARD.decode(text.unwrap_or_default())?)
}

fn stage(act: &str, raw: &Raw) -> Result<Stage> {
    let text = |value: &Option<String>| value.clone().context("a field is missing");
    Ok(match act {
        "autoscaler-started" => Stage::Started,
        "autoscaler-killed" => Stage::Killed,
        "pods-created" => Stage::PodsCreated {
            count: raw.count.context("count is missing")?,
            gpus: raw.gpus.context("gpus is missing")?,
        },
        "pods-deleted" => Stage::PodsDeleted(text(&raw.name)?),
        "node-registered" => Stage::NodeRegistered(text(&raw.id)?),
        "gpu-ready" => Stage::GpuReady(text(&raw.id)?),
        "node-gone" => Stage::NodeGone(text(&raw.id)?),
        "pod-running" => Stage::PodRunning { pod: text(&raw.pod)?, node: text(&raw.node)? },
        other => Stage::Other(other.to_owned()),
    })
}

impl Rpc {
    /// The request, decoded with our contracts.
    ///
    /// # Errors
    /// When the method is unknown or the bytes are no such message.
    pub fn call(&self) -> Result<Call> {
        let bytes = self.request.as_slice();
        Ok(match self.method.as_str() {
            "NodeGroups" => Call::NodeGroups,
            "NodeGroupForNode" => Call::NodeGroupForNode(decode(bytes)?),
            "PricingNodePrice" => Call::PricingNodePrice(decode(bytes)?),
            "PricingPodPrice" => Call::PricingPodPrice(decode(bytes)?),
            "GPULabel" => Call::GpuLabel,
            "GetAvailableGPUTypes" => Call::GetAvailableGpuTypes,
            "Cleanup" => Call::Cleanup,
            "Refresh" => Call::Refresh,
            "NodeGroupTargetSize" => Call::TargetSize(decode(bytes)?),
            "NodeGroupIncreaseSize" => Call::IncreaseSize(decode(bytes)?),
            "NodeGroupDeleteNodes" => Call::DeleteNodes(decode(bytes)?),
            "NodeGroupDecreaseTargetSize" => Call::DecreaseTargetSize(decode(bytes)?),
            "NodeGroupNodes" => Call::Nodes(decode(bytes)?),
            "NodeGroupTemplateNodeInfo" => Call::TemplateNodeInfo(decode(bytes)?),
            "NodeGroupGetOptions" => Call::GetOptions(decode(bytes)?),
            "BestOptions" => Call::BestOptions(decode(bytes)?),
            other => bail!("no such method: {other}"),
        })
    }

    /// The answer as the autoscaler took it: after 5 s it no longer listened.
    ///
    /// # Errors
    /// The recorded failure.
    pub fn reply(&self) -> Result<Reply, Failure> {
        if self.ms > 5000.0 {
            return Err(Failure { code: 4, message: "deadline exceeded".into() });
        }
        let code = match self.code.as_str() {
            "OK" => 0,
            "FAILED_PRECONDITION" => 9,
            "UNIMPLEMENTED" => 12,
            "INTERNAL" => 13,
            "UNAVAILABLE" => 14,
            _ => 2,
        };
        if code != 0 {
            return Err(Failure { code, message: self.code.clone() });
        }
        self.response().map_err(|error| Failure { code: 2, message: format!("{error:#}") })
    }

    fn response(&self) -> Result<Reply> {
        let bytes = self.response.as_slice();
        Ok(match self.method.as_str() {
            "NodeGroups" => Reply::NodeGroups(decode(bytes)?),
            "NodeGroupForNode" => Reply::NodeGroupForNode(decode(bytes)?),
            "PricingNodePrice" => Reply::PricingNodePrice(decode(bytes)?),
            "PricingPodPrice" => Reply::PricingPodPrice(decode(bytes)?),
            "GPULabel" => Reply::GpuLabel(decode(bytes)?),
            "GetAvailableGPUTypes" => Reply::GetAvailableGpuTypes(decode(bytes)?),
            "Cleanup" => Reply::Cleanup,
            "Refresh" => Reply::Refresh,
            "NodeGroupTargetSize" => Reply::TargetSize(decode(bytes)?),
            "NodeGroupIncreaseSize" => Reply::IncreaseSize,
            "NodeGroupDeleteNodes" => Reply::DeleteNodes,
            "NodeGroupDecreaseTargetSize" => Reply::DecreaseTargetSize,
            "NodeGroupNodes" => Reply::Nodes(decode(bytes)?),
            "NodeGroupTemplateNodeInfo" => Reply::TemplateNodeInfo(decode(bytes)?),
            "NodeGroupGetOptions" => Reply::GetOptions(decode(bytes)?),
            "BestOptions" => Reply::BestOptions(decode(bytes)?),
            other => bail!("no such method: {other}"),
        })
    }
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    Ok(M::decode(bytes)?)
}
