//! One GET over plain HTTP on loopback: how the demo reads its own programs' pages.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest page read.
const LONGEST: u64 = 16 << 20;

/// The body of a page.
///
/// # Errors
/// When nobody answers in time, or with something else than 200.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<String> {
    let place = || format!("GET http://{address}{path}");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(place)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(place)?;
    // HTTP/1.0: the answer comes whole, and its end is the connection's.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").with_context(place)?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).with_context(place)?;
    let answer = String::from_utf8_lossy(&answer);
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split_whitespace().nth(1) == Some("200") => Ok(body.to_owned()),
        Some((head, _)) => bail!("{}: {}", place(), head.lines().next().unwrap_or_default()),
        None => bail!("{}: no answer", place()),
    }
}
