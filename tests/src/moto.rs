//! moto, which plays AWS for others and knows nothing of us: an independent reading of the same protocols. Started on a
//! port of the kernel's choosing, and ended with its owner.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::python;

/// How long one call may take; moto is slow where it is large.
const CALL: Duration = Duration::from_mins(2);

/// A running moto, until dropped.
#[derive(Debug)]
pub struct Moto {
    child: Child,
    address: String,
    /// Reads what moto logs, so that it never waits for a reader; ends with moto.
    _log: JoinHandle<()>,
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    /// Makes its environment on first use, and starts it.
    ///
    /// # Errors
    /// When it cannot be installed or does not say where it listens.
    pub fn start() -> Result<Self> {
        let server = python::program(&python::moto()?, "moto_server");
        let mut child = Command::new(server)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting moto_server")?;
        let mut lines = BufReader::new(child.stderr.take().context("moto's log")?).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("Running on http://")?;
            Some(address.trim().to_owned())
        });
        let log = std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let Some(address) = address else {
            let _ = child.kill();
            bail!("moto_server ended without a port: {}", child.wait()?)
        };
        Ok(Self { child, address, _log: log })
    }

    /// `http://127.0.0.1:<port>`, for `cloud.endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One call of a Query API, as `("ec2", "Action=…&Version=…")`; what it answered.
    ///
    /// # Errors
    /// When it does not answer with success.
    pub fn query(&self, service: &str, form: &str) -> Result<String> {
        self.ask("POST / HTTP/1.1", service, "application/x-www-form-urlencoded", form)
    }

    /// One call of EKS, as `("/clusters", {…})`; what it answered.
    ///
    /// # Errors
    /// When it does not answer with success.
    pub fn eks(&self, path: &str, body: &Value) -> Result<String> {
        self.ask(&format!("POST {path} HTTP/1.1"), "eks", "application/json", &body.to_string())
    }

    fn ask(&self, line: &str, service: &str, kind: &str, body: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.address).context("reaching moto")?;
        stream.set_read_timeout(Some(CALL))?;
        // moto goes by the scope of a signature and does not check the rest.
        let request = format!(
            "{line}\r\nHost: {}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/{service}/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n{body}",
            self.address,
            body.len(),
        );
        stream.write_all(request.as_bytes()).context("asking moto")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("moto's answer to {body}"))?;
        let status = answer.split_whitespace().nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "moto to {body}: {answer}");
        Ok(answer)
    }
}
