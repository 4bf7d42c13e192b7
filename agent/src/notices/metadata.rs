//! The client of an instance metadata service: plain HTTP on a link-local address, one kept connection, a deadline and a size limit on every answer.
//! Knows no cloud.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{HOST, HeaderMap};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::config::limits;

/// Host and port of the service, out of `http://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    host: String,
    port: u16,
}

impl Authority {
    /// Where both clouds have it.
    #[must_use]
    pub fn usual() -> Self {
        Self { host: "169.254.169.254".into(), port: 80 }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(out, "http://[{host}]:{port}") } else { write!(out, "http://{host}:{port}") }
    }
}

impl FromStr for Authority {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let wrong = || "write it as http://169.254.169.254 or http://[fd00:ec2::254]:80".to_owned();
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let authority: hyper::http::uri::Authority = rest.parse().map_err(|_| wrong())?;
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str() == authority.host() => 80,
            None => return Err(wrong()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || rest.contains('@') {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The connection was not made, or broke.
    #[error("the instance metadata service at {0} cannot be reached: {1}")]
    Unreachable(Authority, String),
    /// Nothing came in time.
    #[error("the instance metadata service at {0} did not answer {1} within {2:?}")]
    Silent(Authority, String, Duration),
    /// EC2's service greets but gives no token.
    #[error(
        "the instance metadata service gives no token to a pod: set the instance's metadata hop limit to 2, or run the agent with hostNetwork"
    )]
    HopLimit,
    /// An answer that is not for us.
    #[error("the instance metadata service answered {1} to {0}; is it switched off, or hidden by a proxy?")]
    Refused(String, u16),
    /// An answer that nobody can read.
    #[error("the instance metadata service answered {0} with what cannot be read")]
    Unreadable(String),
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    headers: HeaderMap,
    /// At most [`limits::METADATA_BODY`] bytes.
    pub body: Bytes,
}

impl Answer {
    /// A header's value, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }
}

/// A header of a request.
pub type Header<'a> = (&'static str, &'a str);

/// The connection. It is made at the first question and again after a loss.
#[derive(Debug)]
pub struct Metadata {
    authority: Authority,
    connection: Option<SendRequest<Empty<Bytes>>>,
    /// Drives the connection; ends with this value.
    driver: JoinSet<()>,
}

impl Metadata {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(authority: Authority) -> Self {
        Self { authority, connection: None, driver: JoinSet::new() }
    }

    /// Asks for a path.
    pub async fn get(&mut self, path: &str, headers: &[Header<'_>], wait: Duration) -> Result<Answer, Failure> {
        self.ask(Method::GET, path, headers, wait).await
    }

    /// `PUT` without a body: how EC2 gives tokens.
    pub async fn put(&mut self, path: &str, headers: &[Header<'_>], wait: Duration) -> Result<Answer, Failure> {
        self.ask(Method::PUT, path, headers, wait).await
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[Header<'_>],
        wait: Duration,
    ) -> Result<Answer, Failure> {
        let request = || {
            let request = Request::builder().method(method.clone()).uri(path).header(HOST, &*self.authority.host);
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            request.body(Empty::new()).map_err(|error| self.broken(error))
        };
        let (first, again) = (request()?, request()?);
        let asked = async {
            // A kept connection may have been closed by the other side: that is no failure, a new one is made.
            if self.connection.is_some()
                && let Ok(answer) = self.send(first).await
            {
                return Ok(answer);
            }
            self.connect().await?;
            self.send(again).await
        };
        let answer = tokio::time::timeout(wait, asked).await;
        let answer = answer.unwrap_or_else(|_| Err(Failure::Silent(self.authority.clone(), path.to_owned(), wait)));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        self.connection = None;
        self.driver.abort_all();
        while self.driver.join_next().await.is_some() {}
        let stream = TcpStream::connect((&*self.authority.host, self.authority.port)).await;
        let stream = stream.map_err(|error| self.broken(error))?;
        let handshake = Builder::new().max_buf_size(limits::METADATA_HEADERS).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| self.broken(error))?;
        self.driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the instance metadata service ended");
            }
        });
        self.connection = Some(sender);
        Ok(())
    }

    async fn send(&mut self, request: Request<Empty<Bytes>>) -> Result<Answer, Failure> {
        let path = request.uri().path().to_owned();
        let Some(connection) = &mut self.connection else { return Err(self.broken("not connected")) };
        let answer = async {
            connection.ready().await?;
            connection.send_request(request).await
        };
        let (head, body) = answer.await.map_err(|error| self.broken(error))?.into_parts();
        let body = Limited::new(body, limits::METADATA_BODY).collect().await;
        let body = body.map_err(|_too_long_or_cut| Failure::Unreadable(path))?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    fn broken(&self, error: impl fmt::Display) -> Failure {
        Failure::Unreachable(self.authority.clone(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_http_url_without_a_path() {
        for (url, expect) in [
            ("http://169.254.169.254", Some("http://169.254.169.254:80")),
            ("http://169.254.169.254/", Some("http://169.254.169.254:80")),
            ("http://[fd00:ec2::254]", Some("http://[fd00:ec2::254]:80")),
            ("http://metadata.google.internal:8080", Some("http://metadata.google.internal:8080")),
            ("https://169.254.169.254", None),
            ("169.254.169.254", None),
            ("http://169.254.169.254/latest", None),
            ("http://", None),
            ("http://:80", None),
            ("http://user@host", None),
            ("http://host:99999", None),
        ] {
            assert_eq!(url.parse::<Authority>().ok().map(|found| found.to_string()).as_deref(), expect, "{url}");
        }
    }
}
