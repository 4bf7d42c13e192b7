//! The shell: one loopback port that speaks to every AWS SDK, a clock, and the faults that only a connection can have.
//! It has a runtime of its own, so that a test may block while it answers.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::{
    Response,
    body::{Frame, Incoming},
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinSet};

use super::{
    Account, Asg, Fault, Recorded,
    answer::Answer,
    request::{Request, Wire},
    script::GroupScript,
};

/// Longest request body.
const REQUEST: usize = 1 << 20;
/// How often a long poll looks.
const POLL: Duration = Duration::from_millis(50);

type Body = BoxBody<Bytes, std::io::Error>;

/// AWS, running until dropped.
#[derive(Debug)]
pub struct AwsCloud {
    account: Arc<Mutex<Account>>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Drop for AwsCloud {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl AwsCloud {
    /// Listens on a free loopback port; the account is empty but for the launch template `lt-default`.
    ///
    /// # Errors
    /// When no port or thread is to be had.
    pub fn start() -> anyhow::Result<Self> {
        let account = Arc::new(Mutex::new(Account::default()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("a runtime for AWS")?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port for AWS")?;
        listener.set_nonblocking(true).context("a port for AWS")?;
        let address = listener.local_addr().context("a port for AWS")?;
        runtime.spawn(accept(listener, account.clone()));
        Ok(Self { account, address, runtime: Some(runtime) })
    }

    /// `http://127.0.0.1:<port>`, for `cloud.endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a group; the machines of its desired capacity are in service already.
    pub fn add(&self, name: &str, group: Asg) {
        self.with(|account, now| account.add(name, group, now));
    }

    /// One group, to be told and asked.
    #[must_use]
    pub fn group<'a>(&'a self, name: &'a str) -> GroupScript<'a> {
        GroupScript { cloud: self, name }
    }

    /// Changes or asks whatever else there is, at the present moment in milliseconds since 1970.
    pub fn with<T>(&self, act: impl FnOnce(&mut Account, u64) -> T) -> T {
        let (mut account, now) = (lock(&self.account), now());
        account.advance(now);
        act(&mut account, now)
    }

    /// This goes wrong with every call of the action (`*` for all) from now on.
    pub fn fault(&self, action: &str, fault: Fault) {
        self.with(|account, _| account.faults.set(action, fault));
    }

    /// Nothing goes wrong with calls any more.
    pub fn no_faults(&self) {
        self.with(|account, _| account.faults.clear_all());
    }

    /// Every call of the action so far, in order.
    #[must_use]
    pub fn calls(&self, action: &str) -> Vec<Recorded> {
        self.with(|account, _| account.calls.iter().filter(|call| call.action == action).cloned().collect())
    }

    /// How often each `service:Action` was called so far.
    #[must_use]
    pub fn actions(&self) -> BTreeMap<String, usize> {
        self.with(|account, _| {
            let mut actions = BTreeMap::new();
            for call in &account.calls {
                *actions.entry(format!("{}:{}", call.service, call.action)).or_default() += 1;
            }
            actions
        })
    }

    /// Lets go of everything but the account: a region that cannot be reached any more.
    pub fn unplug(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "the shell reads the clock: the account is told the time")]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn accept(listener: std::net::TcpListener, account: Arc<Mutex<Account>>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let account = account.clone();
        let service = service_fn(move |request| answer(account.clone(), request));
        let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move {
            // A connection that ends early is the client's business, or was scripted.
            let _ = connection.await;
        });
    }
}

async fn answer(account: Arc<Mutex<Account>>, request: hyper::Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, REQUEST).collect().await else { return Ok(plain(413, "too much")) };
    let body = body.to_bytes();
    let wire = Wire {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        target: header(&head.headers, "x-amz-target"),
        authorization: header(&head.headers, "authorization"),
        body: &body,
    };
    let Some(request) = Request::read(&wire) else { return Ok(plain(404, "no API that is faked")) };
    long_poll(&account, &request).await;
    let fault = lock(&account).faults.meet(&request.action);
    if let Some(instead) = fault.as_ref().and_then(|fault| fault.instead(&request)) {
        lock(&account).record_failure(&request, now());
        return Ok(whole(instead));
    }
    if fault == Some(Fault::Hang) {
        lock(&account).record_failure(&request, now());
        return std::future::pending().await;
    }
    let answer = lock(&account).answer(&request, now());
    Ok(match fault {
        Some(Fault::Lost) => std::future::pending().await,
        Some(Fault::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            whole(answer)
        }
        Some(Fault::BrokenBody) => whole(Answer { body: half(&answer.body).to_owned(), ..answer }),
        Some(Fault::HalfAnswer) => cut(&answer),
        _ => whole(answer),
    })
}

/// A receive waits for a message as long as its caller wants.
async fn long_poll(account: &Mutex<Account>, request: &Request) {
    if request.action != "ReceiveMessage" {
        return;
    }
    let seconds = request.parameters.number("WaitTimeSeconds").and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
    let end = now() + seconds.min(20) * 1000;
    while now() < end && !lock(account).has_message(&request.parameters, now()) {
        tokio::time::sleep(POLL).await;
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn whole(answer: Answer) -> Response<Body> {
    let body = Full::new(Bytes::from(answer.body)).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(answer.content_type));
    response
}

fn plain(status: u16, text: &str) -> Response<Body> {
    whole(Answer { status, content_type: "text/plain", body: text.to_owned() })
}

fn half(text: &str) -> &str {
    let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..middle).unwrap_or_default()
}

/// The first half of an answer whose length is that of the whole, and then the end of the connection.
fn cut(answer: &Answer) -> Response<Body> {
    let first = Bytes::from(half(&answer.body).to_owned());
    let frames = [Ok(Frame::data(first)), Err(std::io::Error::other("cut, as scripted"))];
    let mut response = Response::new(StreamBody::new(stream::iter(frames)).boxed());
    response.headers_mut().insert(CONTENT_LENGTH, answer.body.len().into());
    response
}
