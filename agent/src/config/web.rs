//! The web configuration, in the format of Prometheus' exporter-toolkit: TLS, client certificates, users, headers, a rate.
//! Text in, checked values out; the files that it names are read by `http/web.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// Costliest bcrypt hash taken: 2^16 rounds are a few seconds of a core, and whoever may knock may ask for them.
const BCRYPT_COST_MAX: u32 = 16;
/// Most users: each is a line that a person wrote.
const USERS_MAX: usize = 100;
/// The response headers that the format knows, with the values they may have; any, where none is listed.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-XSS-Protection", &[]),
    ("Strict-Transport-Security", &[]),
];

/// The whole file. A key that the format does not know is refused, with its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebConfig {
    /// TLS; without it the agent speaks plain HTTP.
    pub tls_server_config: Option<TlsServerConfig>,
    /// HTTP/2 and further headers.
    #[serde(deserialize_with = "blank")]
    pub http_server_config: HttpServerConfig,
    /// A limit on requests over all clients.
    #[serde(deserialize_with = "blank")]
    pub rate_limit: RateLimit,
    /// User -> bcrypt hash; empty lets everybody in.
    #[serde(deserialize_with = "blank")]
    pub basic_auth_users: BTreeMap<String, Secret>,
}

/// What a client has to know and we to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsServerConfig {
    /// The certificate chain itself, PEM.
    pub cert: Option<String>,
    /// The key itself, PEM.
    pub key: Option<Secret>,
    /// The authority that signs clients, PEM.
    pub client_ca: Option<String>,
    /// The certificate chain's file.
    pub cert_file: Option<PathBuf>,
    /// The key's file.
    pub key_file: Option<PathBuf>,
    /// The file of the authority that signs clients.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub client_auth_type: ClientAuth,
    /// A client's certificate has to name one of these.
    #[serde(deserialize_with = "blank")]
    pub client_allowed_sans: Vec<String>,
    /// Oldest version spoken.
    pub min_version: Option<Version>,
    /// Newest version spoken.
    pub max_version: Option<Version>,
    /// Suites of TLS 1.2, under Go's names; those of TLS 1.3 are not chosen, as in Go.
    #[serde(deserialize_with = "blank")]
    pub cipher_suites: Vec<String>,
    /// Whose order of suites counts.
    pub prefer_server_cipher_suites: Option<bool>,
    /// Key exchange groups, in order, under Go's names.
    #[serde(deserialize_with = "blank")]
    pub curve_preferences: Vec<String>,
}

impl TlsServerConfig {
    /// A blank value is none; paths start at `folder`.
    fn resolve(&mut self, folder: &Path) {
        for path in [&mut self.cert_file, &mut self.key_file, &mut self.client_ca_file] {
            *path = path.take().filter(|path| !path.as_os_str().is_empty()).map(|path| folder.join(path));
        }
        for text in [&mut self.cert, &mut self.client_ca] {
            text.take_if(|text| text.is_empty());
        }
        self.key.take_if(|key| key.0.is_empty());
    }

    /// Whether anything in it asks for TLS: a section whose values are all blank does not.
    fn is_enabled(&self) -> bool {
        let files = [&self.cert_file, &self.key_file, &self.client_ca_file].iter().any(|file| file.is_some());
        let texts = self.cert.is_some() || self.key.is_some() || self.client_ca.is_some();
        files || texts || self.client_auth_type != ClientAuth::NoClientCert
    }
}

/// Go's `tls.ClientAuthType`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum ClientAuth {
    /// None is asked for.
    #[default]
    #[serde(alias = "")]
    NoClientCert,
    /// One is asked for and believed.
    RequestClientCert,
    /// One must be shown and is believed.
    #[serde(alias = "RequireClientCert")]
    RequireAnyClientCert,
    /// One that is shown must be signed by the authority.
    VerifyClientCertIfGiven,
    /// mTLS: one must be shown and be signed by the authority.
    RequireAndVerifyClientCert,
}

/// A version of TLS. 1.0 and 1.1 are known so that old files can be read; they are not spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Version {
    /// Not spoken.
    Tls10,
    /// Not spoken.
    Tls11,
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

/// HTTP itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpServerConfig {
    /// HTTP/2, over TLS only.
    pub http2: bool,
    /// Sent with every answer; a blank one is not.
    #[serde(deserialize_with = "blank")]
    pub headers: BTreeMap<String, String>,
}

impl Default for HttpServerConfig {
    fn default() -> Self {
        Self { http2: true, headers: BTreeMap::new() }
    }
}

/// A token bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// Time between two requests, as `1s`; without one there is no limit.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Requests that may come at once.
    pub burst: u32,
}

/// What no log may show.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("<secret>")
    }
}

/// Reads a web configuration. `folder` is where relative paths in it start. An error is one line: where, what, what to try.
pub fn parse(text: &str, folder: &Path) -> Result<WebConfig, String> {
    let mut config = if super::file::blank(text) {
        WebConfig::default()
    } else {
        serde_saphyr::from_str::<WebConfig>(text).map_err(|error| super::file::said(&error))?
    };
    if let Some(tls) = &mut config.tls_server_config {
        tls.resolve(folder);
    }
    config.tls_server_config.take_if(|tls| !tls.is_enabled());
    config.tls_server_config.as_ref().map_or(Ok(()), check_tls)?;
    config.http_server_config.headers.retain(|_, value| !value.is_empty());
    config.http_server_config.headers.iter().try_for_each(|(name, value)| check_header(name, value))?;
    if config.rate_limit.interval > Duration::ZERO && config.rate_limit.burst == 0 {
        return Err("rate_limit.burst: 0 lets nobody in; try 20".into());
    }
    if config.basic_auth_users.len() > USERS_MAX {
        return Err(format!("basic_auth_users: more than {USERS_MAX}; use client certificates for so many"));
    }
    config.basic_auth_users.iter().try_for_each(|(user, hash)| check_user(user, &hash.0))?;
    Ok(config)
}

fn check_tls(tls: &TlsServerConfig) -> Result<(), String> {
    let one = |inline: bool, file: bool, what: &str| match (inline, file) {
        (true, true) => Err(format!("tls_server_config: {what} and {what}_file are both given; keep one")),
        (false, false) => Err(format!("tls_server_config: {what}_file is missing; give a PEM file, or {what} itself")),
        _ => Ok(()),
    };
    one(tls.cert.is_some(), tls.cert_file.is_some(), "cert")?;
    one(tls.key.is_some(), tls.key_file.is_some(), "key")?;
    let authority = tls.client_ca.is_some() || tls.client_ca_file.is_some();
    if authority {
        one(tls.client_ca.is_some(), tls.client_ca_file.is_some(), "client_ca")?;
    }
    let verifies =
        matches!(tls.client_auth_type, ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert);
    if verifies && !authority {
        return Err("tls_server_config.client_auth_type: clients cannot be verified without client_ca_file".into());
    }
    if authority && tls.client_auth_type == ClientAuth::NoClientCert {
        return Err("tls_server_config.client_ca_file has no effect without client_auth_type; for mTLS say RequireAndVerifyClientCert".into());
    }
    let required =
        matches!(tls.client_auth_type, ClientAuth::RequireAnyClientCert | ClientAuth::RequireAndVerifyClientCert);
    if !tls.client_allowed_sans.is_empty() && !required {
        return Err("tls_server_config.client_allowed_sans needs client_auth_type RequireAndVerifyClientCert: a client may else show no certificate at all".into());
    }
    if let Some(mail) = tls.client_allowed_sans.iter().find(|san| san.contains('@')) {
        return Err(format!(
            "tls_server_config.client_allowed_sans: {mail:?} is a mail address; only DNS names, IP addresses and URIs are compared"
        ));
    }
    if tls.max_version.is_some_and(|newest| newest < Version::Tls12) {
        return Err("tls_server_config.max_version: TLS 1.0 and 1.1 are not spoken; say TLS12 or TLS13".into());
    }
    if tls.min_version.zip(tls.max_version).is_some_and(|(oldest, newest)| oldest > newest) {
        return Err("tls_server_config.min_version is above max_version".into());
    }
    Ok(())
}

fn check_header(name: &str, value: &str) -> Result<(), String> {
    let Some((_, values)) = HEADERS.iter().find(|(known, _)| *known == name) else {
        let known = HEADERS.map(|(name, _)| name).join(", ");
        return Err(format!("http_server_config.headers: {name:?} cannot be set; these can: {known}"));
    };
    if !values.is_empty() && !values.iter().any(|known| known.eq_ignore_ascii_case(value)) {
        return Err(format!("http_server_config.headers.{name}: {value:?} is none of {}", values.join(", ")));
    }
    if !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(format!("http_server_config.headers.{name}: only printable ASCII can be sent"));
    }
    Ok(())
}

fn check_user(user: &str, hash: &str) -> Result<(), String> {
    if user.is_empty() || user.contains(':') {
        return Err(format!("basic_auth_users: {user:?} cannot be a user's name: it is empty or has a colon"));
    }
    let remedy = "make one with `htpasswd -nBC 10 \"\"`";
    let parts: Result<bcrypt::HashParts, _> = hash.parse();
    let cost = parts.map_err(|_| format!("basic_auth_users.{user}: this is no bcrypt hash; {remedy}"))?.get_cost();
    if cost > BCRYPT_COST_MAX {
        return Err(format!("basic_auth_users.{user}: cost {cost} takes minutes at each first knock; {remedy}"));
    }
    Ok(())
}

/// What a key without a value says: as if the key were not there. People comment out what is below it.
fn blank<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// `1s`, `500ms`, `1m30s`, as Go writes them; a bare 0 is none.
fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    go_duration(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no duration; write 500ms, 1s or 1m")))
}

fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(length);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = after;
    }
    (!text.trim().is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[cfg(test)]
mod tests;
