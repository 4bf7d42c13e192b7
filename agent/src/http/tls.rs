//! From the web configuration's words to rustls: versions, suites, groups, and what a client has to show.
//! Names are Go's, since the format is; what rustls leaves out for good reason is said, and never replaced by something weaker.

mod clients;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{NamedGroup, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion};

use self::clients::{Anyone, Named};
use crate::config::web::{ClientAuth, TlsServerConfig, Version};

/// Spoken whenever TLS 1.3 is.
const TLS13_SUITES: [&str; 3] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// The PEM texts that the configuration names, read.
pub(super) struct Pems {
    pub(super) cert: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) client_ca: Option<Vec<u8>>,
}

/// Builds what connections are accepted with, and warnings about what is left out of it.
pub(super) fn server_config(
    tls: &TlsServerConfig,
    pems: &Pems,
    http2: bool,
) -> Result<(Arc<ServerConfig>, Vec<String>), String> {
    let mut warnings = Vec::new();
    let provider = Arc::new(provider(tls, &mut warnings)?);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(tls, &mut warnings))
        .map_err(|error| format!("tls_server_config: versions and cipher_suites leave nothing to speak: {error}"))?;
    let builder = match verifier(tls, pems, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let chain = certificates(&pems.cert).map_err(|error| format!("tls_server_config.cert_file: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&pems.key)
        .map_err(|_| "tls_server_config.key_file: no private key in PEM in it".to_owned())?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("tls_server_config: certificate and key do not fit together: {error}"))?;
    config.ignore_client_order = tls.prefer_server_cipher_suites.unwrap_or(true);
    config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { Vec::new() };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok((Arc::new(config), warnings))
}

fn versions(tls: &TlsServerConfig, warnings: &mut Vec<String>) -> Vec<&'static SupportedProtocolVersion> {
    if tls.min_version.is_some_and(|oldest| oldest < Version::Tls12) {
        warnings.push("tls_server_config.min_version: TLS 1.0 and 1.1 are not spoken; 1.2 is the oldest".into());
    }
    let (oldest, newest) = (tls.min_version.unwrap_or(Version::Tls12), tls.max_version.unwrap_or(Version::Tls13));
    let spoken = [(Version::Tls13, &TLS13), (Version::Tls12, &TLS12)];
    spoken.into_iter().filter(|(version, _)| (oldest..=newest).contains(version)).map(|(_, known)| known).collect()
}

/// Go's name of a suite or group -> whether rustls has it; suites of TLS 1.3 are always kept, as in Go.
fn provider(tls: &TlsServerConfig, warnings: &mut Vec<String>) -> Result<CryptoProvider, String> {
    let mut provider = aws_lc_rs::default_provider();
    if !tls.cipher_suites.is_empty() {
        let all = std::mem::take(&mut provider.cipher_suites);
        let (fixed, offered): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|suite| suite.version().version == ProtocolVersion::TLSv1_3);
        provider.cipher_suites = fixed;
        for name in &tls.cipher_suites {
            // Go has an older name for its ChaCha suites, and none that differs for those of TLS 1.3.
            let full = if name.ends_with("_POLY1305") { format!("{name}_SHA256") } else { name.clone() };
            if TLS13_SUITES.contains(&full.as_str()) {
                continue;
            }
            let suite = offered.iter().find(|suite| format!("{:?}", suite.suite()) == full);
            match suite {
                Some(suite) => provider.cipher_suites.push(*suite),
                None if name.starts_with("TLS_") => warnings.push(format!(
                    "tls_server_config.cipher_suites: {name} is left out: it is not among the suites of TLS 1.2 with forward secrecy that are offered"
                )),
                None => return Err(format!("tls_server_config.cipher_suites: {name:?} is no suite; write it as Go does, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")),
            }
        }
    }
    if !tls.curve_preferences.is_empty() {
        let all = std::mem::take(&mut provider.kx_groups);
        for name in &tls.curve_preferences {
            let group = match name.as_str() {
                "CurveP256" => NamedGroup::secp256r1,
                "CurveP384" => NamedGroup::secp384r1,
                "CurveP521" => NamedGroup::secp521r1,
                "X25519" => NamedGroup::X25519,
                "X25519MLKEM768" => NamedGroup::X25519MLKEM768,
                _ => {
                    return Err(format!(
                        "tls_server_config.curve_preferences: {name:?} is none of CurveP256, CurveP384, X25519, X25519MLKEM768"
                    ));
                }
            };
            match all.iter().find(|known| known.name() == group) {
                Some(known) => provider.kx_groups.push(*known),
                None => {
                    warnings.push(format!("tls_server_config.curve_preferences: {name} is not offered and left out"))
                }
            }
        }
        if provider.kx_groups.is_empty() {
            return Err("tls_server_config.curve_preferences: none of them is offered; add X25519".into());
        }
    }
    Ok(provider)
}

fn verifier(
    tls: &TlsServerConfig,
    pems: &Pems,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let algorithms = provider.signature_verification_algorithms;
    let anyone = |mandatory| -> Arc<dyn ClientCertVerifier> { Arc::new(Anyone { mandatory, algorithms }) };
    let inner: Arc<dyn ClientCertVerifier> = match tls.client_auth_type {
        ClientAuth::NoClientCert => return Ok(None),
        ClientAuth::RequestClientCert => anyone(false),
        ClientAuth::RequireAnyClientCert => anyone(true),
        ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert => {
            let wrong = |error: String| format!("tls_server_config.client_ca_file: {error}");
            let mut roots = RootCertStore::empty();
            for root in certificates(pems.client_ca.as_deref().unwrap_or_default()).map_err(wrong)? {
                roots.add(root).map_err(|error| wrong(error.to_string()))?;
            }
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let optional = tls.client_auth_type == ClientAuth::VerifyClientCertIfGiven;
            let builder = if optional { builder.allow_unauthenticated() } else { builder };
            builder.build().map_err(|error| wrong(error.to_string()))?
        }
    };
    if tls.client_allowed_sans.is_empty() {
        return Ok(Some(inner));
    }
    let allowed = tls.client_allowed_sans.iter().cloned().collect();
    Ok(Some(Arc::new(Named { inner, allowed })))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| "no certificate in PEM in it".to_owned())
}

#[cfg(test)]
mod tests;
