//! Handshakes in memory: which client gets through under which policy, and what of Go's names is understood.

use std::ops::Range;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConnection};

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, PEM.
fn signed(by: &Authority, name: &str) -> (String, String) {
    dated(by, name, 1975..4096)
}

/// The same, good for some years.
fn dated(by: &Authority, name: &str, years: Range<i32>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(years.start, 1, 1), date_time_ymd(years.end, 1, 1));
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

/// The client that trusts `authority`, with a certificate or without.
fn client(trusted: &Authority, shown: Option<&(String, String)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificates(trusted.pem().as_bytes()).unwrap().remove(0)).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match shown {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(certificates(cert.as_bytes()).unwrap(), key).unwrap()
        }
    }
}

/// Both sides until one refuses or both are done; the version that they speak.
fn shake(server: Arc<ServerConfig>, client: ClientConfig) -> Result<String, rustls::Error> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = Connection::from(ClientConnection::new(Arc::new(client), name).unwrap());
    let mut server = Connection::from(ServerConnection::new(server).unwrap());
    for _ in 0..10 {
        for (from, to) in [(0, 1), (1, 0)] {
            let sides = [&mut client, &mut server];
            let mut bytes = Vec::new();
            while sides[from].wants_write() {
                sides[from].write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                sides[to].read_tls(&mut rest).unwrap();
                sides[to].process_new_packets()?;
            }
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(format!("{:?}", server.protocol_version().unwrap()))
}

struct World {
    ours: Authority,
    others: Authority,
    pems: Pems,
}

fn world() -> World {
    let (ours, others) = (authority(), authority());
    let (cert, key) = signed(&ours, "localhost");
    let pems = Pems { cert: cert.into(), key: key.into(), client_ca: Some(ours.pem().into()) };
    World { ours, others, pems }
}

#[test]
fn feature_48_clients_are_asked_for_what_the_policy_says() {
    use ClientAuth::{
        NoClientCert, RequestClientCert, RequireAndVerifyClientCert, RequireAnyClientCert, VerifyClientCertIfGiven,
    };
    let World { ours, others, pems } = world();
    let (friend, stranger) = (signed(&ours, "prometheus.ml"), signed(&others, "prometheus.ml"));
    for (policy, nobody, anybody, known) in [
        (NoClientCert, true, true, true),
        (RequestClientCert, true, true, true),
        (RequireAnyClientCert, false, true, true),
        (VerifyClientCertIfGiven, true, false, true),
        (RequireAndVerifyClientCert, false, false, true),
    ] {
        let tls = TlsServerConfig { client_auth_type: policy, ..TlsServerConfig::default() };
        let (server, warnings) = server_config(&tls, &pems, true).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        for (shown, expect) in [(None, nobody), (Some(&stranger), anybody), (Some(&friend), known)] {
            let through = shake(Arc::clone(&server), client(&ours, shown));
            assert_eq!(through.is_ok(), expect, "{policy:?}: {through:?}");
        }
    }
}

#[test]
fn a_client_whose_certificate_is_of_another_time_stays_out() {
    let World { ours, pems, .. } = world();
    let tls = TlsServerConfig { client_auth_type: ClientAuth::RequireAndVerifyClientCert, ..Default::default() };
    let (server, _) = server_config(&tls, &pems, true).unwrap();
    for (years, expect) in [(2000..2010, false), (3000..3010, false), (2000..3000, true)] {
        let through = shake(Arc::clone(&server), client(&ours, Some(&dated(&ours, "prometheus.ml", years.clone()))));
        assert_eq!(through.is_ok(), expect, "{years:?}: {through:?}");
    }
}

#[test]
fn only_named_clients_get_through() {
    let World { ours, pems, .. } = world();
    for (name, allowed, expect) in [
        ("prometheus.ml", "prometheus.ml", true),
        ("prometheus.ml", "grafana.ml", false),
        ("10.1.2.3", "10.1.2.3", true),
        ("10.1.2.3", "10.1.2.4", false),
        ("*.ml", "prometheus.ml", false),
    ] {
        let tls = TlsServerConfig {
            client_auth_type: ClientAuth::RequireAndVerifyClientCert,
            client_allowed_sans: vec![allowed.to_owned()],
            ..TlsServerConfig::default()
        };
        let (server, _) = server_config(&tls, &pems, true).unwrap();
        let through = shake(server, client(&ours, Some(&signed(&ours, name))));
        assert_eq!(through.is_ok(), expect, "{name} where {allowed} is allowed: {through:?}");
    }
}

#[test]
fn versions_suites_and_groups_go_by_gos_names() {
    let World { ours, pems, .. } = world();
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let check =
        |tls: TlsServerConfig, expect: Result<(&str, usize), &str>| match (server_config(&tls, &pems, false), expect) {
            (Ok((server, warnings)), Ok((version, warned))) => {
                assert_eq!(shake(server, client(&ours, None)).as_deref(), Ok(version), "{tls:?}");
                assert_eq!(warnings.len(), warned, "{warnings:?}");
            }
            (Err(error), Err(expect)) => assert!(error.contains(expect), "{error}"),
            (found, expect) => panic!("{tls:?}: {expect:?}, but {:?}", found.map(|(_, warnings)| warnings)),
        };
    let none = TlsServerConfig::default;
    check(none(), Ok(("TLSv1_3", 0)));
    check(TlsServerConfig { max_version: Some(Version::Tls12), ..none() }, Ok(("TLSv1_2", 0)));
    check(TlsServerConfig { min_version: Some(Version::Tls10), ..none() }, Ok(("TLSv1_3", 1)));
    let suites = |names: &[&str], max| TlsServerConfig { cipher_suites: list(names), max_version: max, ..none() };
    let tls12 = Some(Version::Tls12);
    check(suites(&["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"], tls12), Ok(("TLSv1_2", 0)));
    check(
        suites(&["TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"], tls12),
        Ok(("TLSv1_2", 1)),
    );
    check(suites(&["TLS_AES_128_GCM_SHA256"], None), Ok(("TLSv1_3", 0)));
    check(suites(&["TLS_RSA_WITH_AES_128_CBC_SHA"], tls12), Err("nothing to speak"));
    check(suites(&["AES"], None), Err("is no suite"));
    let groups = |names: &[&str]| TlsServerConfig { curve_preferences: list(names), ..none() };
    check(groups(&["CurveP256", "CurveP521"]), Ok(("TLSv1_3", 1)));
    check(groups(&["CurveP521"]), Err("none of them"));
    check(groups(&["Brainpool"]), Err("none of CurveP256"));
}

#[test]
fn files_that_do_not_hold_what_they_should_are_named() {
    let World { ours, pems, .. } = world();
    let check = |pems: &Pems, expect: &str| {
        let tls = TlsServerConfig { client_auth_type: ClientAuth::RequireAndVerifyClientCert, ..Default::default() };
        let error = server_config(&tls, pems, true).unwrap_err();
        assert!(error.contains(expect), "{error}");
    };
    let with = |cert: &[u8], key: &[u8], authority: &[u8]| Pems {
        cert: cert.to_vec(),
        key: key.to_vec(),
        client_ca: Some(authority.to_vec()),
    };
    let ca = ours.pem();
    check(&with(b"", &pems.key, ca.as_bytes()), "cert_file");
    check(&with(&pems.cert, b"-----BEGIN NONSENSE-----", ca.as_bytes()), "key_file");
    check(&with(&pems.cert, &pems.key, b""), "client_ca_file");
    check(&with(&pems.cert, signed(&ours, "other").1.as_bytes(), ca.as_bytes()), "fit together");
}
