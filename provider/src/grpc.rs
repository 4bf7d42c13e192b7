//! The doors CA knocks at: the cloud provider and the expander. The only home of wire types and gRPC codes: a handler
//! decodes, asks and encodes.

mod cloud_provider;
pub mod expander;
pub(crate) mod listen;
mod observed;
mod options;
pub(crate) mod tls;
mod wire;

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    transport::{Server, server::Connected},
};
use windlass_proto::externalgrpc::cloud_provider_server::CloudProviderServer;

use crate::{Shared, config::limits, fleet::ledger::Denied, keeper::Unheard};

/// Serves the cloud provider on what comes in, until told to stop; what is under way is finished first.
///
/// # Errors
/// Those of the listener.
pub(crate) async fn serve_provider<C>(
    incoming: impl Stream<Item = std::io::Result<C>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> anyhow::Result<()>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let service = CloudProviderServer::new(cloud_provider::CloudProvider::new(shared.clone()))
        .max_decoding_message_size(limits::MESSAGE)
        .max_encoding_message_size(limits::MESSAGE);
    let router = server().layer(observed::Observe(shared.metrics.clone())).add_service(service);
    Ok(router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?)
}

/// The same for the expander, which counts for itself.
///
/// # Errors
/// Those of the listener.
pub(crate) async fn serve_expander<C>(
    incoming: impl Stream<Item = std::io::Result<C>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> anyhow::Result<()>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let expander = expander::Expander {
        keeper: shared.keeper.clone(),
        policy: shared.policies.current(),
        decisions: shared.decisions.clone(),
        metrics: shared.metrics.clone(),
    };
    let router = server().add_service(expander.server());
    Ok(router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?)
}

/// A server within our limits.
fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(limits::STREAMS)
        .max_connection_age(limits::CONNECTION_AGE)
        .max_connection_age_grace(limits::DRAIN)
        // A request may have tens of MiB: the default window of 64 KiB would take it in small sips.
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .tcp_nodelay(true)
}

/// What a change was denied for, in CA's terms. Only the text reaches anyone; the code is for whoever watches.
fn status(unheard: &Unheard) -> Status {
    let code = match unheard {
        Unheard::Busy => Code::Unavailable,
        Unheard::Denied(denied) => match denied {
            Denied::UnknownGroup(_) => Code::NotFound,
            Denied::BadDelta { .. } | Denied::NoProviderId(_) | Denied::Foreign { .. } => Code::InvalidArgument,
            Denied::AboveMax { .. } => Code::OutOfRange,
            Denied::BelowExisting { .. } | Denied::BelowMin { .. } | Denied::TooMany { .. } => Code::FailedPrecondition,
        },
    };
    Status::new(code, unheard.to_string())
}
