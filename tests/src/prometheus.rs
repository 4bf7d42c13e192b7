//! A real Prometheus and its promtool: those on PATH (Debian's package has both), else built once by Go from the module in `tests/prometheus`.
//! It scrapes what it is told to, answers queries, and goes with the test.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::golang;
use crate::scrape::{Scraper, Series};

/// Far longer than a start takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
const SUM: &str = include_str!("../prometheus/go.sum");

/// The two programs.
#[derive(Debug, Clone)]
struct Binaries {
    prometheus: PathBuf,
    promtool: PathBuf,
}

/// Found or built once per test program.
fn binaries() -> anyhow::Result<&'static Binaries> {
    static FOUND: OnceLock<Result<Binaries, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| on_path().map_or_else(built, Ok).map_err(|error| format!("{error:#}")));
    found.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn on_path() -> Option<Binaries> {
    Some(Binaries { prometheus: golang::on_path("prometheus")?, promtool: golang::on_path("promtool")? })
}

fn built() -> anyhow::Result<Binaries> {
    let tags = "netgo,remove_all_sd";
    let package = |name: &str| format!("github.com/prometheus/prometheus/cmd/{name}");
    let programs = ["prometheus", "promtool"].map(|name| (name, package(name)));
    let folder = golang::built("prometheus", SUM, tags, &programs)
        .context("there is no prometheus with promtool on PATH, and they could not be built: install either")?;
    Ok(Binaries { prometheus: folder.join("prometheus"), promtool: folder.join("promtool") })
}

/// What `promtool check metrics` has to say about a page; empty when it finds nothing.
pub fn lint(page: &str) -> anyhow::Result<String> {
    let mut command = Command::new(&binaries()?.promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start promtool")?;
    child.stdin.take().context("promtool's input")?.write_all(page.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // 3: there are lints. Anything else but 0 is no answer.
    ensure!(matches!(output.status.code(), Some(0 | 3)), "promtool: {}\n{said}", output.status);
    Ok(said)
}

/// Whether promtool takes rules, with what it says about them.
pub fn check_rules(rules: &str) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, rules)?;
    let output = Command::new(&binaries()?.promtool).args(["check", "rules"]).arg(&file).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "promtool: {said}");
    Ok(said)
}

/// The scrape configuration of one job: every second, labels of the target's own kept. Further settings go over it.
#[must_use]
pub fn job(name: &str, target: SocketAddr, settings: &Value) -> Value {
    let mut job = json!({
        "job_name": name,
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "honor_labels": true,
        "static_configs": [{"targets": [target.to_string()]}],
    });
    if let (Some(job), Some(settings)) = (job.as_object_mut(), settings.as_object()) {
        job.extend(settings.clone());
    }
    job
}

/// A running Prometheus, on loopback.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    log: Receiver<String>,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one with these jobs and, if there are any, rules (the text of a rule file).
    pub fn start(jobs: &[Value], rules: Option<&str>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("a folder for Prometheus")?;
        let mut config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": jobs,
        });
        if let Some(rules) = rules {
            std::fs::write(folder.path().join("rules.yaml"), rules)?;
            config["rule_files"] = json!(["rules.yaml"]);
        }
        // JSON is YAML.
        std::fs::write(folder.path().join("prometheus.yaml"), serde_json::to_string_pretty(&config)?)?;
        let mut child = Command::new(&binaries()?.prometheus)
            .args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start Prometheus")?;
        let stderr = child.stderr.take().context("Prometheus' log")?;
        let (tell, log) = channel();
        std::thread::spawn(move || {
            // Ends with the process; nobody may be listening any more.
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        let mut prometheus = Self { child, address: ([127, 0, 0, 1], 0).into(), log, _folder: folder };
        prometheus.address = prometheus.listening()?;
        prometheus.wait_until_ready()?;
        Ok(prometheus)
    }

    /// Where it listens, out of its log.
    fn listening(&self) -> anyhow::Result<SocketAddr> {
        let mut said = String::new();
        loop {
            let Ok(line) = self.log.recv_timeout(PATIENCE) else { bail!("Prometheus does not listen:\n{said}") };
            let address = line.split(' ').find_map(|word| word.strip_prefix("address="));
            if let Some(address) = address.filter(|_| line.contains("Listening on")) {
                return address.parse().with_context(|| line.clone());
            }
            said.push_str(&line);
            said.push('\n');
        }
    }

    fn wait_until_ready(&self) -> anyhow::Result<()> {
        for _ in 0..1_200 {
            if Scraper::connect(self.address)?.get("/-/ready", &[]).is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("Prometheus never was ready:\n{}", self.said())
    }

    /// What it logged since the last look.
    #[must_use]
    pub fn said(&self) -> String {
        self.log.try_iter().map(|line| line + "\n").collect()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks its API; `path` with its query, already encoded.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = Scraper::connect(self.address)?.get(path, &[])?;
        let json: Value = serde_json::from_str(&answer.text()?)?;
        ensure!(json["status"] == "success", "{path}: {json}");
        Ok(json["data"].clone())
    }

    /// The instant vector of a PromQL expression, now.
    pub fn query(&self, expression: &str) -> anyhow::Result<Vec<Series>> {
        let data = self.get(&format!("/api/v1/query?query={}", encoded(expression)))?;
        let series = |sample: &Value| {
            let labels = sample["metric"].as_object().context("no labels")?;
            let mut labels: BTreeMap<String, String> = labels
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
                .collect();
            let value = sample["value"][1].as_str().context("no value")?.parse()?;
            Ok(Series { name: labels.remove("__name__").unwrap_or_default(), labels, value })
        };
        data["result"].as_array().context("no vector")?.iter().map(series).collect()
    }

    /// The first answer to an expression that is so.
    pub fn until(&self, expression: &str, is_so: impl Fn(&[Series]) -> bool) -> anyhow::Result<Vec<Series>> {
        let mut last = Vec::new();
        for _ in 0..1_200 {
            last = self.query(expression)?;
            if is_so(&last) {
                return Ok(last);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("{expression}: never; last {last:#?}\ntargets {:#}\n{}", self.get("/api/v1/targets")?, self.said())
    }
}

impl Prometheus {
    /// Asks every query of a Grafana dashboard, with all of its variables' values, until each has an answer; says how many there were.
    ///
    /// # Errors
    /// Names the panel that shows nothing.
    pub fn answers(&self, dashboard: &str) -> anyhow::Result<usize> {
        let dashboard: Value = serde_json::from_str(dashboard)?;
        let panels = dashboard["panels"].as_array().context("no panels")?;
        let mut asked = 0;
        for panel in panels {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().context("no expression")?;
                let variables = dashboard["templating"]["list"].as_array().into_iter().flatten();
                let filled = variables.filter_map(|variable| variable["name"].as_str());
                let filled = filled.fold(expression.to_owned(), |text, name| text.replace(&format!("${name}"), ".*"));
                self.until(&filled.replace("$__rate_interval", "10s"), |series| !series.is_empty())
                    .with_context(|| format!("panel {}", panel["title"]))?;
                asked += 1;
            }
        }
        Ok(asked)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Percent-encoded, as a part of a URL.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
