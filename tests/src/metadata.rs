//! The instance metadata services of EC2 (version 2: sessions) and GCE (flavor header, long polls) on loopback, with the real paths.
//! A path that nobody set answers 404, as on a machine that has nothing to say.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Notify;

type Answer = Response<Full<Bytes>>;

const EC2_DATA: &str = "/latest/meta-data/";
const GCE_INSTANCE: &str = "/computeMetadata/v1/instance/";
const GCE_DATA: &str = "/computeMetadata/v1/";

/// Whose service it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// `PUT /latest/api/token`, then `/latest/meta-data/…`.
    Ec2,
    /// `/computeMetadata/v1/instance/…`.
    Gce,
}

/// What the service does to a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Answers.
    #[default]
    None,
    /// EC2 only: tokens are never delivered, as behind one network hop more than the instance allows.
    HopLimit,
    /// Answers this status to everything.
    Status(u16),
    /// Answers 200 with text that is no value.
    Nonsense,
    /// GCE only: answers without the header that says whose answer it is.
    Unsigned,
}

#[derive(Debug, Default)]
struct State {
    values: BTreeMap<String, String>,
    made: BTreeMap<String, fn(u64) -> String>,
    sessions: BTreeSet<String>,
    given: u64,
    trouble: Trouble,
    calls: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Service {
    cloud: Cloud,
    state: Mutex<State>,
    changed: Notify,
}

/// A running service, until dropped.
#[derive(Debug)]
pub struct Metadata {
    address: SocketAddr,
    service: Arc<Service>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Metadata {
    /// Listens on a port of the kernel's choice and has nothing to say.
    pub fn start(cloud: Cloud) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let service = Arc::new(Service { cloud, state: Mutex::default(), changed: Notify::new() });
        runtime.spawn(accept(listener, Arc::clone(&service)));
        Ok(Self { address, service, runtime: Some(runtime) })
    }

    /// For `--metadata-endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A value from now on, or none: `spot/instance-action`, `preempted`. GCE's long polls on it are answered.
    pub fn set(&self, path: &str, value: Option<&str>) {
        let mut state = self.service.state();
        match value {
            Some(value) => state.values.insert(path.to_owned(), value.to_owned()),
            None => state.values.remove(path),
        };
        drop(state);
        self.service.changed.notify_waiters();
    }

    /// EC2 only: a value that is made anew for each question, of which this is the first, the second, …
    pub fn make(&self, path: &str, value: fn(u64) -> String) {
        self.service.state().made.insert(path.to_owned(), value);
    }

    /// This happens to every question from now on.
    pub fn trouble(&self, trouble: Trouble) {
        self.service.state().trouble = trouble;
    }

    /// Every session ends at once.
    pub fn end_sessions(&self) {
        self.service.state().sessions.clear();
    }

    /// Questions so far, by path without its query.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.service.state().calls.clone()
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        // Not waited for: whoever drops this may be a runtime's own task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, service: Arc<Service>) {
    while let Ok((stream, _peer)) = listener.accept().await {
        let service = Arc::clone(&service);
        // Lives as long as the runtime of the service.
        tokio::runtime::Handle::current().spawn(async move {
            let answer = service_fn(move |request| {
                let service = Arc::clone(&service);
                async move { Ok::<_, Infallible>(service.answer(request).await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            // A client that leaves is no failure.
            let _ended = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let trouble = {
            let mut state = self.state();
            *state.calls.entry(request.uri().path().to_owned()).or_default() += 1;
            state.trouble
        };
        if trouble == Trouble::HopLimit && request.method() == Method::PUT {
            std::future::pending::<()>().await;
        }
        let mut answer = match (trouble, self.cloud) {
            (Trouble::Status(status), _) => plain(StatusCode::from_u16(status).unwrap_or_default(), ""),
            (Trouble::Nonsense, _) => plain(StatusCode::OK, "<!DOCTYPE html>\n<p>Nobody can read this."),
            (_, Cloud::Ec2) => self.ec2(&request),
            (_, Cloud::Gce) => self.gce(&request).await,
        };
        let headers = answer.headers_mut();
        match self.cloud {
            Cloud::Ec2 => headers.insert("server", HeaderValue::from_static("EC2ws")),
            Cloud::Gce => {
                if self.state().trouble != Trouble::Unsigned {
                    headers.insert("metadata-flavor", HeaderValue::from_static("Google"));
                }
                headers.insert("server", HeaderValue::from_static("Metadata Server for VM"))
            }
        };
        answer
    }

    fn ec2(&self, request: &Request<Incoming>) -> Answer {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let mut state = self.state();
        if request.uri().path() == "/latest/api/token" {
            let life = header("x-aws-ec2-metadata-token-ttl-seconds").and_then(|text| text.parse::<u32>().ok());
            return match life {
                _ if request.method() != Method::PUT => plain(StatusCode::METHOD_NOT_ALLOWED, ""),
                _ if header("x-forwarded-for").is_some() => plain(StatusCode::FORBIDDEN, ""),
                Some(life @ 1..=21_600) => {
                    state.given += 1;
                    let token = format!("AQAEAsession{}==", state.given);
                    state.sessions.insert(token.clone());
                    let mut answer = plain(StatusCode::OK, &token);
                    answer.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", life.into());
                    answer
                }
                _ => plain(StatusCode::BAD_REQUEST, ""),
            };
        }
        if !header("x-aws-ec2-metadata-token").is_some_and(|token| state.sessions.contains(token)) {
            return plain(StatusCode::UNAUTHORIZED, "");
        }
        let asked = state.calls.get(request.uri().path()).copied().unwrap_or(0);
        let value = request.uri().path().strip_prefix(EC2_DATA).and_then(|path| {
            let made = state.made.get(path).map(|make| make(asked));
            made.or_else(|| state.values.get(path).cloned())
        });
        value.map_or_else(|| plain(StatusCode::NOT_FOUND, ""), |value| plain(StatusCode::OK, &value))
    }

    async fn gce(&self, request: &Request<Incoming>) -> Answer {
        if request.headers().get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
            return plain(StatusCode::FORBIDDEN, "");
        }
        if request.uri().path() == "/" {
            return plain(StatusCode::OK, "0.1/\ncomputeMetadata/\n");
        }
        // Paths of the instance are set without it, others in full.
        let path = request.uri().path();
        let Some(path) = path.strip_prefix(GCE_INSTANCE).or_else(|| path.strip_prefix(GCE_DATA)) else {
            return plain(StatusCode::NOT_FOUND, "");
        };
        let asked: BTreeMap<_, _> =
            request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
        let wait =
            asked.get("timeout_sec").and_then(|text| text.parse().ok()).map_or(Duration::MAX, Duration::from_secs);
        if asked.get("wait_for_change") == Some(&"true") {
            let known =
                asked.get("last_etag").copied().map(str::to_owned).or_else(|| self.value(path).map(|(_, tag)| tag));
            let changed = async {
                loop {
                    // In this order: a change between the look and the wait is not missed.
                    let rung = self.changed.notified();
                    if self.value(path).map(|(_, tag)| tag) != known {
                        return;
                    }
                    rung.await;
                }
            };
            // Both a change and the end of the wait are answered with the value as it is.
            let _either = tokio::time::timeout(wait.min(Duration::from_secs(3600)), changed).await;
        }
        let Some((value, tag)) = self.value(path) else { return plain(StatusCode::NOT_FOUND, "") };
        let mut answer = plain(StatusCode::OK, &value);
        if let Ok(tag) = tag.parse() {
            answer.headers_mut().insert("etag", tag);
        }
        answer
    }

    /// The value and its ETag, which is another one for another value.
    fn value(&self, path: &str) -> Option<(String, String)> {
        let value = self.state().values.get(path)?.clone();
        let sum = value
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Some((value, format!("{sum:016x}")))
    }
}

fn plain(status: StatusCode, body: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *answer.status_mut() = status;
    answer
}
