//! The client of the kubelet's PodResources API: one connection that is kept, a deadline and a size limit on every answer.
//! Out come plain assignments.

pub mod pods;

mod answer;

use std::path::Path;
use std::time::Duration;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use windlass_proto::podresources::ListPodResourcesRequest;

use self::answer::Answer;
use super::{Assignment, Holders, Owner};

/// A List that takes longer is given up: the last good map stands meanwhile.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer taken. The kubelet's own client uses 16 MiB.
const MESSAGE_MAX: usize = 16 << 20;
/// Who holds what, in the version of the API that every kubelet has had since 1.20.
const LIST: &str = "/v1.PodResourcesLister/List";

/// The connection. It is made at the first call and again after a loss, by itself.
#[derive(Debug, Clone)]
pub struct Kubelet {
    channel: Channel,
    /// Whether the last answer named more devices than are kept: said in the log when it begins, not at every answer.
    cut: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For a person: what the kubelet or the socket answered, and what to try.
    pub reason: String,
    /// The kubelet's own limit of calls was reached, by whomever: asking more often makes it worse.
    pub rate_limited: bool,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl Kubelet {
    /// Names the socket; nothing is opened yet.
    pub fn new(socket: &Path) -> Result<Self, tonic::transport::Error> {
        Ok(Self { channel: channel(socket)?, cut: false })
    }

    /// Asks who holds what.
    pub async fn holders(&mut self) -> Result<Holders, Refusal> {
        let listed = call(&self.channel, LIST, ListPodResourcesRequest {});
        let answer = answered(tokio::time::timeout(DEADLINE, listed).await)?;
        Ok(Holders::new(self.within_limit(answer)))
    }

    fn within_limit(&mut self, Answer { found, named }: Answer) -> Vec<Assignment> {
        let cut = named > found.len();
        if cut && !self.cut {
            let kept = found.len();
            tracing::warn!(named, kept, "the kubelet names more devices than are kept: some pods will miss");
        }
        self.cut = cut;
        found
    }
}

/// A kept connection to one of the kubelet's sockets.
fn channel(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    Ok(Endpoint::try_from(format!("unix://{}", socket.display()))?
        .connect_timeout(DEADLINE)
        .timeout(DEADLINE)
        // A List is small and rare: the smallest windows that HTTP/2 allows keep the connection's buffers small.
        .initial_connection_window_size(65_535)
        .initial_stream_window_size(65_535)
        .connect_lazy())
}

/// One question; the answer is read as its type reads it.
async fn call<Q, A>(channel: &Channel, path: &'static str, question: Q) -> Result<A, tonic::Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX);
    grpc.ready().await.map_err(|error| tonic::Status::from_error(error.into()))?;
    let codec = ProstCodec::<Q, A>::default();
    Ok(grpc.unary(tonic::Request::new(question), PathAndQuery::from_static(path), codec).await?.into_inner())
}

type Answered<T> = Result<Result<T, tonic::Status>, tokio::time::error::Elapsed>;

fn answered<T>(answer: Answered<T>) -> Result<T, Refusal> {
    let rate_limited = matches!(&answer, Ok(Err(status)) if status.code() == tonic::Code::ResourceExhausted);
    let reason = match answer {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {
            format!("{}; is the socket mounted, and does the agent run as root?", innermost(&status))
        }
        Ok(Err(status)) => format!("{} ({:?}); the kubelet's log says more", innermost(&status), status.code()),
        Err(_elapsed) => format!("no answer within {DEADLINE:?}; the kubelet may be overloaded"),
    };
    Err(Refusal { reason, rate_limited })
}

/// The innermost cause, where the transport has one ("No such file or directory" rather than "transport error").
fn innermost(status: &tonic::Status) -> String {
    let mut reason = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        reason = error.to_string();
        source = error.source();
    }
    reason
}

/// Reads an answer's bytes: the door for those who have no kubelet.
///
/// # Errors
/// When the bytes are no message.
pub fn decode(answer: &[u8]) -> Result<Vec<Assignment>, prost::DecodeError> {
    Ok(<Answer as prost::Message>::decode(answer)?.found)
}

#[cfg(test)]
mod tests;
