//! The part of the configuration that says who tells what happens on the nodes: the agents, by a name that has all their
//! addresses or one by one, and what they are asked with.

use std::{fmt, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::fleet::group::seconds::required;

/// Who tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Usage {
    /// The agents; nobody is asked without.
    pub agents: Option<Agents>,
}

/// The agents, and how they are asked for `/usage`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Agents {
    /// A name, as a rule of a headless Service: each of its addresses is an agent.
    #[serde(default)]
    pub address: Option<Address>,
    /// Agents one by one.
    #[serde(default)]
    pub urls: Vec<Url>,
    /// How often each is asked.
    #[serde(default = "interval", with = "required")]
    pub interval: Duration,
    /// For agents that are served with TLS.
    #[serde(default)]
    pub tls: Option<ClientTls>,
    /// For agents that are served to known users.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
}

const fn interval() -> Duration {
    Duration::from_secs(10)
}

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Address {
    /// A name or an address, IPv6 without its brackets.
    pub host: String,
    /// TCP.
    pub port: u16,
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        address(&text).ok_or_else(|| format!("\"{text}\" is no host and port; write windlass-agent.windlass.svc:9400"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(out, "[{host}]:{port}") } else { write!(out, "{host}:{port}") }
    }
}

fn address(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let (bare, bracketed) = match host.strip_prefix('[') {
        Some(rest) => (rest.strip_suffix(']')?, true),
        None => (host, false),
    };
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) || (bracketed && b":%".contains(&byte));
    let is_host = !bare.is_empty() && bare.len() <= 253 && bare.bytes().all(plain);
    is_host.then(|| Some(Address { host: bare.to_owned(), port: port.parse().ok().filter(|port| *port > 0)? }))?
}

/// Where one agent is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Url {
    /// `https`.
    pub tls: bool,
    /// Where.
    pub address: Address,
}

impl TryFrom<String> for Url {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no agent's address; write http://10.0.0.7:9400, or https");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let tls = ["http", "https"].iter().position(|known| *known == scheme).ok_or_else(wrong)? == 1;
        let address = address(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(wrong)?;
        Ok(Self { tls, address })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

/// How agents with TLS are known, and what they are shown. The files are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClientTls {
    /// PEM: an agent must show a certificate of one of these.
    pub ca: PathBuf,
    /// PEM, for agents that ask for a certificate.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The name in the agents' certificate; by default the host that is asked.
    #[serde(default)]
    pub server_name: Option<String>,
}

/// A user and the file that holds the password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BasicAuth {
    /// As in the agents' web configuration.
    pub username: String,
    /// Its text without the last line break is the password; read again when it changes.
    pub password_file: PathBuf,
}

impl Usage {
    /// Every file that is named.
    pub(super) fn files(&mut self) -> Vec<&mut PathBuf> {
        let Some(Agents { tls, basic_auth, .. }) = &mut self.agents else { return Vec::new() };
        let of_tls = tls.iter_mut().flat_map(|tls| [Some(&mut tls.ca), tls.cert.as_mut(), tls.key.as_mut()]);
        of_tls.flatten().chain(basic_auth.iter_mut().map(|auth| &mut auth.password_file)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for (text, expect) in [
            ("windlass-agent.windlass.svc:9400", Some("windlass-agent.windlass.svc:9400")),
            ("10.0.0.7:9400", Some("10.0.0.7:9400")),
            ("[fd00::7]:9400", Some("[fd00::7]:9400")),
            ("fd00::7:9400", None),
            ("agent", None),
            ("agent:", None),
            ("agent:0", None),
            (":9400", None),
            ("a b:9400", None),
            ("http://agent:9400", None),
            ("agent:99999", None),
        ] {
            assert_eq!(Address::try_from(text.to_owned()).ok().map(|it| it.to_string()).as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn a_url_has_a_scheme_and_no_path() {
        for (text, expect) in [
            ("http://10.0.0.7:9400", Some("http://10.0.0.7:9400")),
            ("https://gpu-1:9400/", Some("https://gpu-1:9400")),
            ("http://10.0.0.7", None),
            ("http://10.0.0.7:9400/usage", None),
            ("ftp://10.0.0.7:9400", None),
            ("10.0.0.7:9400", None),
            ("http://u:p@host:1", None),
        ] {
            assert_eq!(Url::try_from(text.to_owned()).ok().map(|it| it.to_string()).as_deref(), expect, "{text}");
        }
    }
}
