//! Who gets what over which door: TLS with and without a client's certificate, users, files that change underneath, formats, limits.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use windlass_tests::certificates::{Mutual, Pair};
use windlass_tests::kubelet::identity;
use windlass_tests::metadata::{Cloud, Metadata};
use windlass_tests::nvml::{ModelName, Profile};
use windlass_tests::scrape::Page;

use crate::agent::node::{Node, holder, main_of, until};

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_mins(2);

/// A node that serves under a web configuration.
fn node(web: &Path) -> Node {
    Node::on_any(&Profile::idle(ModelName::T4, 1), |config| config.web_config_file = Some(web.to_owned()))
}

fn whole_page(page: &Page) -> bool {
    let gpus = page.select("gpu_device_up", &[]);
    !gpus.is_empty() && gpus.iter().all(|gpu| gpu.value > 0.5)
}

fn shows(page: &Page, name: &str) -> bool {
    !page.select(name, &[]).is_empty()
}

/// Somebody with a client, which trusts one authority and may show a certificate.
fn client(authority: &Path, shown: Option<&Pair>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    Arc::new(match shown {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = vec![CertificateDer::from_pem_file(&pair.certificate).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&pair.key).unwrap()).unwrap()
        }
    })
}

/// One request over one TLS connection: the answer as it comes, or why there is none.
fn ask(
    address: SocketAddr,
    client: &Arc<ClientConfig>,
    path: &str,
    authorization: Option<&str>,
) -> std::io::Result<String> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::clone(client), name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// `alice` with the password `sesame`.
const BASIC: &str = "Basic YWxpY2U6c2VzYW1l";

fn users() -> String {
    let hash = bcrypt::hash_with_salt("sesame", 4, [7; 16]).unwrap();
    format!("basic_auth_users:\n  alice: {hash}\n")
}

fn tls(pair: &Pair) -> String {
    format!(
        "tls_server_config:\n  cert_file: {}\n  key_file: {}\n",
        pair.certificate.file_name().unwrap().to_string_lossy(),
        pair.key.file_name().unwrap().to_string_lossy()
    )
}

#[test]
fn feature_47_tls_and_users_as_exporter_toolkit_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let made = Mutual::new(folder.path()).unwrap();
    let web = folder.path().join("web.yaml");
    let headers = "http_server_config:\n  headers:\n    X-Content-Type-Options: nosniff\n";
    std::fs::write(&web, format!("{}{}{headers}", tls(&made.server), users())).unwrap();
    let node = node(&web);
    let (address, client) = (node.address(), client(&made.authority, None));
    let ask = |path, authorization| ask(address, &client, path, authorization).unwrap();
    until("a page for alice", || status(&ask("/metrics", Some(BASIC))) == "200");
    let page = ask("/metrics", Some(BASIC));
    assert!(page.contains("gpu_device_up") && page.contains("x-content-type-options: nosniff"), "{page}");
    for path in ["/metrics", "/usage", "/", "/nothing"] {
        let refused = ask(path, None);
        assert_eq!(status(&refused), "401", "{path}: {refused}");
        assert!(refused.contains("www-authenticate: Basic") && !refused.contains("gpu"), "{path}: {refused}");
    }
    assert_eq!(status(&ask("/metrics", Some("Basic YWxpY2U6d3Jvbmc="))), "401", "a wrong password");
    for probe in ["/healthz", "/readyz"] {
        let answer = ask(probe, None);
        assert!(
            status(&answer) == "200" && answer.ends_with("\r\n\r\nok\n"),
            "a kubelet's probe has no password: {answer}"
        );
    }
    assert!(windlass_tests::scrape::Scraper::connect(address).unwrap().get("/metrics", &[]).is_err(), "no plain HTTP");
}

#[test]
fn feature_48_mtls_hears_only_clients_of_its_authority() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (made, others) = (Mutual::new(folder.path()).unwrap(), Mutual::new(elsewhere.path()).unwrap());
    let web = folder.path().join("web.yaml");
    let mutual =
        "  client_ca_file: authority.crt\n  client_auth_type: RequireAndVerifyClientCert\n  min_version: TLS13\n";
    std::fs::write(&web, tls(&made.server) + mutual).unwrap();
    let node = node(&web);
    let address = node.address();
    let known = client(&made.authority, Some(&made.client));
    until("a page for our client", || ask(address, &known, "/metrics", None).is_ok_and(|page| status(&page) == "200"));
    for (who, shown) in [("nobody", None), ("a stranger", Some(&others.client))] {
        let answer = ask(address, &client(&made.authority, shown), "/metrics", None);
        assert!(answer.is_err(), "{who}: {answer:?}");
    }
}

#[test]
fn a_renewed_certificate_and_a_new_password_need_no_restart_and_a_mistake_changes_nothing() {
    let (folder, later) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (made, renewed) = (Mutual::new(folder.path()).unwrap(), Mutual::new(later.path()).unwrap());
    let web = folder.path().join("web.yaml");
    std::fs::write(&web, tls(&made.server)).unwrap();
    let node = node(&web);
    let address = node.address();
    let (old, new) = (client(&made.authority, None), client(&renewed.authority, None));
    let works = |client, authorization| {
        ask(address, client, "/metrics", authorization).is_ok_and(|page| status(&page) == "200")
    };
    until("a page under the old certificate", || works(&old, None));
    assert!(!works(&new, None));
    std::fs::copy(&renewed.server.certificate, &made.server.certificate).unwrap();
    std::fs::copy(&renewed.server.key, &made.server.key).unwrap();
    until("a page under the new certificate", || works(&new, None));
    std::fs::write(&web, tls(&made.server) + &users()).unwrap();
    until("a door", || !works(&new, None) && works(&new, Some(BASIC)));
    std::fs::write(&web, "tls_server_config: {}\n").unwrap();
    until("the mistake shows, and the door stays shut", || {
        let page = ask(address, &new, "/metrics", Some(BASIC)).unwrap();
        assert!(!works(&new, None));
        page.contains("windlass_agent_config_last_reload_successful{file=\"web-config-file\"} 0")
    });
}

#[test]
fn a_request_that_is_too_long_is_refused() {
    let mut node = Node::on_any(&Profile::idle(ModelName::T4, 1), |_| ());
    node.until("a page", whole_page);
    assert_eq!(node.get_with("/metrics", &[&format!("X-Long: {}", "x".repeat(20_000))]).status, 431);
    assert_eq!(node.get("/metrics").status, 200);
}

#[test]
fn feature_53_the_page_comes_as_openmetrics_to_who_asks() {
    let mut node = Node::on_any(&Profile::idle(ModelName::T4, 1), |_| ());
    node.until("a page", whole_page);
    let open = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for encoding in ["Accept-Encoding: identity", "Accept-Encoding: gzip"] {
        let answer = node.get_with("/metrics", &[open, encoding]);
        assert_eq!(answer.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert_eq!(answer.headers["vary"], "accept, accept-encoding");
        assert_eq!(answer.headers.contains_key("content-encoding"), encoding.ends_with("gzip"));
        let text = answer.text().unwrap();
        assert!(text.ends_with("\n# EOF\n") && text.contains("# TYPE windlass_agent_ticks counter\n"), "{text}");
        assert!(text.contains("# TYPE DCGM_FI_DEV_PCIE_REPLAY_COUNTER unknown\n"), "{text}");
    }
    let lines =
        ["Accept: text/html", "Accept: application/openmetrics-text", "Accept-Encoding: br", "Accept-Encoding: gzip"];
    let answer = node.get_with("/metrics", &lines);
    assert!(
        answer.headers["content-type"].starts_with("application/openmetrics-text"),
        "a list may come as several lines"
    );
    assert_eq!(answer.headers["content-encoding"], "gzip");
    let plain = node.get("/metrics");
    assert_eq!(plain.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(!plain.text().unwrap().contains("# EOF"));
}

#[test]
fn feature_50_another_choice_of_families_is_taken_over_and_no_scrape_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counters.csv");
    let free = "DCGM_FI_DEV_FB_FREE, gauge, Free memory (in MiB).\n";
    std::fs::write(&file, format!("# mine\n\n{free}")).unwrap();
    let mut node = Node::on_any(&Profile::idle(ModelName::T4, 1), |config| config.collectors = Some(file.clone()));
    node.until("the first choice", |page| shows(page, "DCGM_FI_DEV_FB_FREE"));
    let put = |text: &str| {
        std::fs::write(folder.path().join("next"), text).unwrap();
        std::fs::rename(folder.path().join("next"), &file).unwrap();
    };
    let mut whole = |what: &str, is_so: &dyn Fn(&Page) -> bool| {
        until(what, || {
            let answer = node.get("/metrics");
            assert_eq!(answer.status, 200);
            let page = Page::parse(&answer.text().unwrap()).unwrap();
            assert!(whole_page(&page), "every page is whole");
            let dcgm = page.series.iter().filter(|series| series.name.starts_with("DCGM_")).count();
            assert!(dcgm > 0, "and has a choice in force");
            is_so(&page)
        });
    };
    let ok = [("file", "collectors")];
    put("DCGM_FI_DEV_FB_TOTAL, gauge, All of it.\nDCGM_FI_DEV_FB_USD, gauge, A slip.\n");
    whole("the second choice", &|page| shows(page, "DCGM_FI_DEV_FB_TOTAL") && !shows(page, "DCGM_FI_DEV_FB_FREE"));
    put("nonsense\n");
    whole("a mistake that shows", &|page| {
        page.value("windlass_agent_config_last_reload_successful", &ok) == Some(0.0)
            && shows(page, "DCGM_FI_DEV_FB_TOTAL")
    });
    put("");
    whole("a file without a row", &|page| {
        page.value("windlass_agent_config_last_reload_successful", &ok) == Some(0.0)
            && shows(page, "DCGM_FI_DEV_FB_TOTAL")
    });
    put(free);
    whole("the first choice again", &|page| {
        page.value("windlass_agent_config_last_reload_successful", &ok) == Some(1.0)
            && shows(page, "DCGM_FI_DEV_FB_FREE")
    });
}

#[test]
fn feature_50_a_settings_file_is_taken_over_while_every_page_stays_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.yaml");
    std::fs::write(&file, "node-name: first\nsample-interval: 200ms\n").unwrap();
    let mut node = Node::configured(
        &Profile::idle(ModelName::T4, 1),
        vec![holder("a", 0)],
        |_| (),
        |config, _| {
            config.node_name = "first".to_owned();
            config.line = ["windlass-agent".into(), "--config".into(), file.clone().into()].into();
            config.file = Some(file.clone());
        },
    );
    node.until("the first name", |page| page.select("gpu_device_up", &[("node", "first")]).len() == 1);
    node.serve_pods_api(vec![identity(&main_of("a"), &[("team", "vision")])]);
    let metadata = Metadata::start(Cloud::Ec2).unwrap();
    let endpoint = metadata.endpoint();
    let text = format!(
        "node-name: second\nsample-interval: 100ms\ndcgm-names: off\nlisten: 127.0.0.1:1\npod-labels: team\nmetadata-endpoint: {endpoint}\n"
    );
    std::fs::write(&file, text).unwrap();
    node.until("each setting is in force", |page| {
        assert!(page.value("gpu_device_up", &[]).is_some(), "every page is whole");
        page.select("gpu_device_up", &[("node", "second")]).len() == 1
            && page.series.iter().all(|series| !series.name.starts_with("DCGM_"))
            && !page.select("gpu_utilization", &[("pod", "a"), ("label_team", "vision")]).is_empty()
            && page.value("windlass_agent_metadata_up", &[]) == Some(1.0)
    });
    std::fs::write(&file, "node-name: third\nsample-interval: 1 fortnight\n").unwrap();
    let ok = [("file", "config")];
    let page = node.until("a mistake that shows", |page| {
        page.value("windlass_agent_config_last_reload_successful", &ok) == Some(0.0)
    });
    assert_eq!(page.select("gpu_device_up", &[("node", "second")]).len(), 1, "what was read before stands");
    std::fs::write(&file, "node-name: fourth\nmetadata-endpoint:\n").unwrap();
    node.until("a good file again", |page| {
        page.select("gpu_device_up", &[("node", "fourth")]).len() == 1
            && page.value("windlass_agent_config_last_reload_successful", &ok) == Some(1.0)
    });
    node.until("no metadata service is asked any more, and no label shown", |page| {
        let gone = |name: &str| !name.starts_with("windlass_agent_metadata");
        page.series.iter().all(|series| gone(&series.name) && !series.labels.contains_key("label_team"))
    });
    let collectors = [("file", "collectors")];
    std::fs::write(&file, "metadata-endpoint:\ncollectors: /nowhere/counters.csv\n").unwrap();
    node.until("a counters file that is not there shows", |page| {
        page.value("windlass_agent_config_last_reload_successful", &collectors) == Some(0.0)
    });
    std::fs::write(&file, "metadata-endpoint:\nmax-series: 60\n").unwrap();
    node.until("few series, and no word of a file that is not named any more", |page| {
        page.series.len() == 60 && page.select("windlass_agent_config_last_reload_successful", &collectors).is_empty()
    });
}

#[test]
fn clients_that_never_read_their_answers_do_not_keep_a_probe_out() {
    let node = Node::start(&Profile::idle(ModelName::H100, 8), vec![holder("a", 0)], |_| ());
    let address = node.address();
    let alive = || probe(address).is_ok_and(|answer| status(&answer) == "200");
    until("it is alive", alive);
    let greedy = || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "{}", "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(400)).unwrap();
        stream
    };
    let _unread: Vec<TcpStream> = (0..40).map(|_| greedy()).collect();
    until("it is alive again", alive);
}

/// The answer to a kubelet's probe on a connection of its own, if one comes soon.
fn probe(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn clients_that_keep_asking_and_never_go_do_not_keep_a_probe_out() {
    let node = Node::on_any(&Profile::idle(ModelName::T4, 1), |_| ());
    let address = node.address();
    until("it is alive", || probe(address).is_ok_and(|answer| status(&answer) == "200"));
    let mut crowd: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    until("it is alive again", || {
        for client in &mut crowd {
            // Those that had to go cannot ask any more.
            let _gone = write!(client, "HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        probe(address).is_ok_and(|answer| status(&answer) == "200")
    });
}

#[test]
fn a_probe_is_answered_whatever_the_rate_limit() {
    let folder = tempfile::tempdir().unwrap();
    let web = folder.path().join("web.yaml");
    std::fs::write(&web, "rate_limit: {interval: 1h, burst: 1}\n").unwrap();
    let mut node = node(&web);
    node.answer_until("/healthz", "it is alive", |answer| answer.status == 200);
    node.answer_until("/usage", "the limit is reached", |answer| answer.status == 429);
    for path in ["/healthz", "/readyz"] {
        assert_ne!(node.get(path).status, 429, "{path}");
    }
    assert_eq!(node.get_with("/healthz", &["Authorization: Basic YTph"]).status, 429, "who costs a hash is counted");
}
