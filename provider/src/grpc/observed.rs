//! Counts and times every request by method and code, from outside the handlers.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;
use tonic::{
    Code,
    codegen::http::{Request, Response},
};
use tower::{Layer, Service};

use crate::metrics::Metrics;

/// Wraps a service so that its requests are counted.
#[derive(Clone)]
pub(super) struct Observe(pub(super) Arc<Metrics>);

/// The wrapped service.
#[derive(Clone)]
pub(super) struct Observed<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, metrics: self.0.clone() }
    }
}

impl<S, In, Out> Service<Request<In>> for Observed<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    S::Future: Send + 'static,
{
    type Response = Response<Out>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Out>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let (begun, metrics) = (Instant::now(), self.metrics.clone());
        let method = known(request.uri().path());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            // An error comes as headers alone; a success has its code in the trailers, and it is 0.
            let code = answer.as_ref().ok().and_then(|answer| answer.headers().get("grpc-status"));
            let code = code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
            metrics.rpc(method, &format!("{code:?}"), begun.elapsed());
            answer
        })
    }
}

/// The method's name if it is one of ours: a stranger's path must not become a label.
fn known(path: &str) -> &'static str {
    const METHODS: [&str; 16] = [
        "NodeGroups",
        "NodeGroupForNode",
        "PricingNodePrice",
        "PricingPodPrice",
        "GPULabel",
        "GetAvailableGPUTypes",
        "Cleanup",
        "Refresh",
        "NodeGroupTargetSize",
        "NodeGroupIncreaseSize",
        "NodeGroupDeleteNodes",
        "NodeGroupDecreaseTargetSize",
        "NodeGroupNodes",
        "NodeGroupTemplateNodeInfo",
        "NodeGroupGetOptions",
        "BestOptions",
    ];
    let name = path.rsplit('/').next().unwrap_or_default();
    METHODS.into_iter().find(|method| *method == name).unwrap_or("unknown")
}
