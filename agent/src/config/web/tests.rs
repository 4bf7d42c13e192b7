//! Web configurations as people write them, good and bad, and any text at all.

use super::*;

/// The hash of `secret`, at the lowest cost there is.
const HASH: &str = "$2b$04$LNjn3w3aCcpMUW3TSNFGVOWZyOhP.h1HKtFgPdqnnvpqEzcTC3eMO";

fn read(text: &str) -> Result<WebConfig, String> {
    parse(text, Path::new("/etc/agent"))
}

#[test]
fn a_whole_file_is_read_and_paths_start_at_its_folder() {
    let config = read(&format!(
        "tls_server_config:\n  cert: ''\n  cert_file: tls.crt\n  key_file: /run/tls.key\n  client_ca_file: ca.crt\n  \
         client_auth_type: RequireAndVerifyClientCert\n  min_version: TLS13\n  client_allowed_sans: [prometheus.ml]\n\
         http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n    X-XSS-Protection: ''\n\
         rate_limit:\n  interval: 1m30s\n  burst: 20\n\
         basic_auth_users:\n  alice: {HASH}\n"
    ))
    .unwrap();
    let tls = config.tls_server_config.unwrap();
    assert_eq!(tls.cert_file.as_deref(), Some(Path::new("/etc/agent/tls.crt")));
    assert_eq!(tls.key_file.as_deref(), Some(Path::new("/run/tls.key")));
    assert_eq!((tls.client_auth_type, tls.min_version), (ClientAuth::RequireAndVerifyClientCert, Some(Version::Tls13)));
    assert!(!config.http_server_config.http2);
    assert_eq!(config.http_server_config.headers.len(), 1, "a blank header is not sent");
    assert_eq!(config.rate_limit, RateLimit { interval: Duration::from_secs(90), burst: 20 });
    assert_eq!(config.basic_auth_users.len(), 1);
    assert!(!format!("{:?}", config.basic_auth_users).contains("$2b$"), "no log shows a hash");
}

#[test]
fn an_empty_file_switches_nothing_on() {
    for text in [
        "",
        "\n# nothing yet\n",
        "---\n",
        "{}",
        "tls_server_config:\nhttp_server_config:\nrate_limit:\nbasic_auth_users:\n  # alice: none yet\n",
        "tls_server_config: {}\nhttp_server_config:\n  headers:\n",
        "tls_server_config:\n  cert_file: ''\n  key: ''\n  client_auth_type: ''\n  client_allowed_sans:\n  cipher_suites:\n",
    ] {
        assert_eq!(read(text), Ok(WebConfig::default()), "{text:?}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_a_remedy() {
    let tls = "tls_server_config: {cert_file: a, key_file: b";
    for (text, expect) in [
        ("tls_server_confg: {}".to_owned(), "tls_server_confg"),
        ("tls_server_config: {cert_file: a}".to_owned(), "key_file is missing"),
        (format!("{tls}, cert: x}}"), "both given"),
        (format!("{tls}, client_auth_type: Sometimes}}"), "Sometimes"),
        (format!("{tls}, client_auth_type: RequireAndVerifyClientCert}}"), "without client_ca_file"),
        (format!("{tls}, client_ca_file: c}}"), "RequireAndVerifyClientCert"),
        (format!("{tls}, client_allowed_sans: [a]}}"), "client_allowed_sans needs"),
        (
            format!(
                "{tls}, client_ca_file: c, client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [a@b]}}"
            ),
            "mail",
        ),
        (format!("{tls}, min_version: SSL30}}"), "SSL30"),
        (format!("{tls}, max_version: TLS11}}"), "not spoken"),
        (format!("{tls}, min_version: TLS13, max_version: TLS12}}"), "above"),
        ("http_server_config: {headers: {Server: x}}".to_owned(), "cannot be set"),
        ("http_server_config: {headers: {X-Frame-Options: allow}}".to_owned(), "deny, sameorigin"),
        ("http_server_config: {headers: {X-XSS-Protection: \"a\\nb\"}}".to_owned(), "printable"),
        ("rate_limit: {interval: 1 fortnight, burst: 1}".to_owned(), "write 500ms"),
        ("rate_limit: {interval: 1s}".to_owned(), "burst"),
        ("basic_auth_users: {alice: plain}".to_owned(), "htpasswd"),
        (format!("basic_auth_users: {{'a:b': '{HASH}'}}"), "colon"),
        (format!("basic_auth_users: {{a: '{}'}}", HASH.replace("$04$", "$31$")), "cost 31"),
        ("basic_auth_users: [a".to_owned(), "line"),
    ] {
        let error = read(&text).expect_err(&text);
        assert!(error.contains(expect), "{text}: {error}");
        assert!(!error.contains("plain") && !error.contains(HASH), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC*", lines in "([a-z_]{0,20}: ?[\\PC]{0,20}\n){0,5}") {
        let _any = (read(&text), read(&lines));
    }

    #[test]
    fn any_duration_is_read_without_a_panic(text in "[0-9.a-zµ -]{0,12}") {
        let _any = go_duration(&text);
    }
}
