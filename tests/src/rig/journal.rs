//! What happened and when: every call between autoscaler and provider, byte for byte, and every act of the stage.
//! Assertions read it; on disk it is one JSON object a line, in the format of `tests/recordings`.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::Message;
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::codegen::Bytes;
use windlass_proto::{
    expander::{BestOptionsRequest, BestOptionsResponse},
    externalgrpc::{NodeGroupDecreaseTargetSizeRequest, NodeGroupDeleteNodesRequest, NodeGroupIncreaseSizeRequest},
};

/// One call as it crossed the relay.
#[derive(Clone, Debug)]
pub struct Rpc {
    /// Since the journal began, at the end of the call.
    pub at: Duration,
    /// `NodeGroups`, `BestOptions`, …
    pub method: String,
    /// The request message.
    pub request: Bytes,
    /// The response message; empty where the call failed.
    pub response: Bytes,
    /// gRPC status code, 0 for success.
    pub code: i32,
}

impl Rpc {
    /// The request, decoded.
    fn asked<M: Message + Default>(&self) -> M {
        M::decode(self.request.as_ref()).unwrap_or_default()
    }
}

/// A purchase that CA asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Increase {
    /// When it was answered.
    pub at: Duration,
    /// Which group.
    pub group: String,
    /// By how many.
    pub delta: i32,
    /// gRPC status code, 0 for success.
    pub code: i32,
}

/// Everything that happened in one scenario.
#[derive(Debug)]
pub struct Journal {
    start: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    rpcs: Vec<Rpc>,
    acts: Vec<(Duration, String, Value)>,
    file: File,
}

impl Journal {
    /// An empty one, written through to `path`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        let inner = Inner { rpcs: Vec::new(), acts: Vec::new(), file };
        Ok(Self { start: Instant::now(), inner: Mutex::new(inner) })
    }

    /// Time since it began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Notes an act of the stage, with whatever explains it.
    pub fn act(&self, act: &str, details: Value) {
        let at = self.now();
        let mut line = json!({"t": at.as_secs_f64(), "act": act});
        if let (Value::Object(line), Value::Object(details)) = (&mut line, &details) {
            line.extend(details.clone());
        }
        let mut inner = self.lock();
        // The file is for people; a full disk must not change what a scenario says.
        let _ = writeln!(inner.file, "{line}");
        inner.acts.push((at, act.to_owned(), details));
    }

    /// Notes a call that took `took`.
    pub fn rpc(&self, method: &str, request: Bytes, answer: Result<Bytes, tonic::Code>, took: Duration) {
        let at = self.now();
        let (response, code) = match answer {
            Ok(response) => (response, tonic::Code::Ok),
            Err(code) => (Bytes::new(), code),
        };
        let line = json!({
            "t": at.as_secs_f64(), "ms": took.as_secs_f64() * 1e3, "rpc": method, "req": STANDARD.encode(&request),
            "resp": STANDARD.encode(&response), "code": name(code),
        });
        let mut inner = self.lock();
        let _ = writeln!(inner.file, "{line}");
        inner.rpcs.push(Rpc { at, method: method.to_owned(), request, response, code: code as i32 });
    }

    /// Every call of one method, in order.
    #[must_use]
    pub fn calls(&self, method: &str) -> Vec<Rpc> {
        self.lock().rpcs.iter().filter(|rpc| rpc.method == method).cloned().collect()
    }

    /// Every IncreaseSize, in order.
    #[must_use]
    pub fn increases(&self) -> Vec<Increase> {
        let increase = |rpc: &Rpc| {
            let NodeGroupIncreaseSizeRequest { delta, id } = rpc.asked();
            Increase { at: rpc.at, group: id, delta, code: rpc.code }
        };
        self.calls("NodeGroupIncreaseSize").iter().map(increase).collect()
    }

    /// How many loops of the autoscaler began after one moment and not after another.
    #[must_use]
    pub fn loops(&self, after: Duration, until: Duration) -> usize {
        self.calls("Refresh").iter().filter(|rpc| after < rpc.at && rpc.at <= until).count()
    }

    /// The instance ids of every DeleteNodes that was answered with success, one list a call.
    #[must_use]
    pub fn deletions(&self) -> Vec<Vec<String>> {
        let ids = |rpc: &Rpc| {
            let request: NodeGroupDeleteNodesRequest = rpc.asked();
            request.nodes.into_iter().map(|node| node.provider_id).collect()
        };
        self.calls("NodeGroupDeleteNodes").iter().filter(|rpc| rpc.code == 0).map(ids).collect()
    }

    /// The instance ids of every DeleteNodes, whatever came of it.
    #[must_use]
    pub fn named_for_deletion(&self) -> Vec<String> {
        let ids = |rpc: &Rpc| {
            let request: NodeGroupDeleteNodesRequest = rpc.asked();
            request.nodes.into_iter().map(|node| node.provider_id)
        };
        self.calls("NodeGroupDeleteNodes").iter().flat_map(ids).collect()
    }

    /// Every DecreaseTargetSize as `(group, delta, code)`.
    #[must_use]
    pub fn decreases(&self) -> Vec<(String, i32, i32)> {
        let decrease = |rpc: &Rpc| {
            let NodeGroupDecreaseTargetSizeRequest { delta, id } = rpc.asked();
            (id, delta, rpc.code)
        };
        self.calls("NodeGroupDecreaseTargetSize").iter().map(decrease).collect()
    }

    /// Every question to the expander with its answer; None where it failed.
    #[must_use]
    pub fn questions(&self) -> Vec<(BestOptionsRequest, Option<BestOptionsResponse>)> {
        let question = |rpc: &Rpc| {
            let answer = (rpc.code == 0).then(|| BestOptionsResponse::decode(rpc.response.as_ref()).ok()).flatten();
            (rpc.asked(), answer)
        };
        self.calls("BestOptions").iter().map(question).collect()
    }

    /// When each act of this name happened, with its details.
    #[must_use]
    pub fn acts(&self, act: &str) -> Vec<(Duration, Value)> {
        let inner = self.lock();
        inner.acts.iter().filter(|(_, name, _)| name == act).map(|(at, _, details)| (*at, details.clone())).collect()
    }

    /// What happened that changes something, for a message about a scenario that failed.
    #[must_use]
    pub fn story(&self) -> String {
        let mut lines: Vec<(Duration, String)> = Vec::new();
        {
            let inner = self.lock();
            lines.extend(inner.acts.iter().map(|(at, act, details)| (*at, format!("{act} {details}"))));
        }
        let bought = |i: &Increase| (i.at, format!("IncreaseSize {} {:+} (code {})", i.group, i.delta, i.code));
        lines.extend(self.increases().iter().map(bought));
        for rpc in self.calls("NodeGroupDeleteNodes") {
            let request: NodeGroupDeleteNodesRequest = rpc.asked();
            let ids: Vec<_> = request.nodes.iter().map(|node| node.provider_id.as_str()).collect();
            lines.push((rpc.at, format!("DeleteNodes {} {ids:?} (code {})", request.id, rpc.code)));
        }
        for rpc in self.calls("NodeGroupDecreaseTargetSize") {
            let request: NodeGroupDecreaseTargetSizeRequest = rpc.asked();
            lines.push((rpc.at, format!("DecreaseTargetSize {} {} (code {})", request.id, request.delta, rpc.code)));
        }
        for (rpc, (request, answer)) in self.calls("BestOptions").iter().zip(self.questions()) {
            let options: Vec<_> =
                request.options.iter().map(|o| format!("{}x{}", o.node_count, o.node_group_id)).collect();
            let best = answer.map(|a| a.options.iter().map(|o| o.node_group_id.clone()).collect::<Vec<_>>());
            lines.push((rpc.at, format!("BestOptions {options:?} -> {best:?} (code {})", rpc.code)));
        }
        lines.sort_by_key(|(at, _)| *at);
        lines.iter().map(|(at, line)| format!("{:>8.3} {line}\n", at.as_secs_f64())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The code as gRPC spells it: `OK`, `UNAVAILABLE`, …
fn name(code: tonic::Code) -> String {
    let mut text = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}
