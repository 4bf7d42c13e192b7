//! Certificates for loopback: one that signs itself, and an authority with a server and a client.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Certified {
    /// PEM; of one that signs itself also the trust root.
    pub certificate: String,
    /// PEM.
    pub key: String,
}

impl Certified {
    /// One for `localhost` that signs itself.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).context("making a certificate")?;
        Ok(Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() })
    }
}

/// What both sides of mutual TLS need, as files.
#[derive(Clone, Debug)]
pub struct Mutual {
    /// Trusted by both.
    pub authority: PathBuf,
    /// The server's, for `localhost`.
    pub server: Pair,
    /// The client's.
    pub client: Pair,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Mutual {
    /// Makes an authority, a server and a client, and writes them into `dir`.
    ///
    /// # Errors
    /// When a key cannot be made or a file cannot be written.
    pub fn new(dir: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("making an authority")?;
        let pair = |name: &str| -> Result<Pair> {
            let key = KeyPair::generate()?;
            let made = CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, &issuer)?;
            Ok(Pair {
                certificate: write(dir, &format!("{name}.crt"), &made.pem())?,
                key: write(dir, &format!("{name}.key"), &key.serialize_pem())?,
            })
        };
        Ok(Self {
            authority: write(dir, "authority.crt", &issuer.pem())?,
            server: pair("server").context("making the server's certificate")?,
            client: pair("client").context("making the client's certificate")?,
        })
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
