//! What can be wrong with a configuration, said with file, line, key and remedy.

use std::{fmt, io, net::SocketAddr, path::Path, path::PathBuf, time::Duration};

use super::{CloudKind, Config, Listen, Priorities, place};
use crate::{cloud::sim, expander::priority};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In which file.
    pub file: PathBuf,
    /// On which line, counted from 1; 0 where it is the whole file.
    pub line: usize,
    /// Under which key, `provider.tls.cert`.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, key, what, remedy } = self;
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        let line = if *line == 0 { String::new() } else { format!(":{line}") };
        write!(out, "{}{line}: {key}{what}; {remedy}", file.display())
    }
}

/// A file that cannot be read.
pub(super) fn away(error: &io::Error, file: &Path) -> Problem {
    Problem {
        file: file.to_owned(),
        line: 0,
        key: String::new(),
        what: format!("cannot be read: {error}"),
        remedy: "give the path of a readable YAML file with --config".to_owned(),
    }
}

/// What the YAML reader complains of, without its place, the text around it, or advice to programmers.
pub(crate) fn said(error: &serde_saphyr::Error) -> String {
    let said = error.without_snippet().to_string();
    let what = said.split(" at line ").next().unwrap_or(&said);
    match what {
        "unexpected end of input" => "nothing is written here".to_owned(),
        "expected mapping start" => "a value stands where keys with values are expected".to_owned(),
        "invalid socket address syntax" => "not an IP address with a port, such as 0.0.0.0:8085".to_owned(),
        _ if what.starts_with("budget breached") => "there is far more in it than anybody writes by hand".to_owned(),
        _ => what.split(", set DuplicateKeyPolicy").next().unwrap_or(what).to_owned(),
    }
}

/// Text that is no configuration at all.
pub(super) fn unreadable(error: &serde_saphyr::Error, text: &str, file: &Path) -> Problem {
    let line = error.location().map_or(1, |at| usize::try_from(at.line()).unwrap_or(1));
    let what = said(error);
    let remedy = if what.contains("unknown field") || what.contains("unknown variant") {
        "check the spelling; the README lists every key"
    } else {
        "the README shows a whole configuration"
    };
    Problem { file: file.to_owned(), line, key: place::path_at(text, line), what, remedy: remedy.to_owned() }
}

/// Everything that is wrong with a configuration that could be read.
pub(super) fn problems(config: &Config, text: &str) -> Vec<Problem> {
    let mut problems = Problems { config, text, found: Vec::new() };
    problems.cloud();
    problems.listeners();
    problems.twice();
    problems.spans();
    problems.groups();
    problems.priorities();
    problems.agents();
    problems.found
}

struct Problems<'a> {
    config: &'a Config,
    text: &'a str,
    found: Vec<Problem>,
}

impl Problems<'_> {
    fn say(&mut self, key: &str, what: impl Into<String>, remedy: &str) {
        let (file, line) = (self.config.file.clone(), place::line_of(self.text, key));
        self.found.push(Problem { file, line, key: key.to_owned(), what: what.into(), remedy: remedy.to_owned() });
    }

    fn readable(&mut self, key: &str, file: &Path) {
        if let Err(error) = std::fs::File::open(file) {
            self.say(key, format!("{} cannot be read: {error}", file.display()), "give the path of a readable file");
        }
    }

    fn cloud(&mut self) {
        let config = self.config;
        match (config.cloud.kind, &config.cloud.scenario) {
            (CloudKind::Sim, None) => self.say(
                "cloud.scenario",
                "is missing",
                "the embedded cloud needs a scenario: `scenario: scenario.yaml`",
            ),
            (CloudKind::Sim, Some(file)) => match std::fs::read_to_string(file) {
                Ok(text) => {
                    if let Err(wrong) = sim::Scenario::parse(&text, file) {
                        self.say("cloud.scenario", wrong.to_string(), "mend the scenario");
                    }
                }
                Err(_) => self.readable("cloud.scenario", file),
            },
            (CloudKind::Aws, _) => self.aws(),
        }
        if config.gpu_label.as_ref().is_some_and(String::is_empty) {
            self.say("gpuLabel", "is empty", "name the node label that holds the GPU model, or leave the key out");
        }
    }

    #[cfg(feature = "aws")]
    fn aws(&mut self) {
        let specs = self.config.cloud.specs();
        if specs.is_empty() && self.config.cloud.groups.is_empty() {
            self.say("cloud", "does not say which groups are ours", "name the cluster: `clusterName: my-cluster`");
        }
        for problem in specs.iter().filter_map(|spec| spec.parse::<crate::cloud::aws::Discovery>().err()) {
            self.say("cloud.discovery", problem.to_string(), "list specs in cluster-autoscaler's own syntax");
        }
        self.named_groups();
        self.addresses();
        let prices = self.config.cloud.price_overrides.as_deref().map(crate::cloud::aws::prices::overrides::read);
        let cloud = &self.config.cloud;
        if cloud.endpoint.is_some() && (cloud.fips || cloud.dual_stack) {
            let what = "says where the APIs are, so that fips and dualStack choose nothing";
            self.say("cloud.endpoint", what, "remove it, or remove those");
        }
        if let Some(Err(wrong)) = prices {
            self.say("cloud.priceOverrides", wrong, "mend the file, or leave the key out");
        }
    }

    #[cfg(feature = "aws")]
    fn named_groups(&mut self) {
        let groups = &self.config.cloud.groups;
        for (at, group) in groups.iter().enumerate() {
            if groups.iter().take(at).any(|before| before.name == group.name) {
                self.say("cloud.groups", format!("{} is named twice", group.name), "name each group once");
            }
            if let (Some(min), Some(max)) = (group.min, group.max)
                && min > max
            {
                let what = format!("the minimum of {}, {min}, is above its maximum, {max}", group.name);
                self.say("cloud.groups", what, "change one of the two");
            }
        }
    }

    #[cfg(feature = "aws")]
    fn addresses(&mut self) {
        let cloud = &self.config.cloud;
        let is_url = |text: &str| {
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
            host.is_some_and(|host| !host.is_empty() && !host.starts_with('/') && !host.contains(char::is_whitespace))
        };
        if let Some(wrong) = cloud.endpoint.as_deref().filter(|it| !is_url(it)) {
            let what = format!("\"{wrong}\" is no URL");
            self.say(
                "cloud.endpoint",
                what,
                "write the address of every API as http://127.0.0.1:4566, or leave the key out",
            );
        }
        if let Some(wrong) = cloud.interruption_queue.as_deref().filter(|it| !is_url(it)) {
            let what = format!("\"{wrong}\" is no URL");
            self.say(
                "cloud.interruptionQueue",
                what,
                "write the queue's URL, https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
            );
        }
    }

    #[cfg(not(feature = "aws"))]
    fn aws(&mut self) {
        self.say("cloud.kind", "this build does not know aws", "take a build with the cargo feature `aws`");
    }

    fn listeners(&mut self) {
        let config = self.config;
        match (&config.provider.listen, &config.provider.tls, config.provider.insecure) {
            (Listen::Tcp(_), None, false) => self.say(
                "provider.listen",
                "a TCP port without TLS would let anyone delete nodes",
                "give provider.tls (cert, key, clientCa), or use a unix socket, or say `insecure: true` on a test machine",
            ),
            (Listen::Tcp(_), Some(_), true) => {
                self.say("provider.insecure", "says plaintext while TLS is configured", "remove one of the two");
            }
            (Listen::Unix(_), Some(_), _) => self.say(
                "provider.tls",
                "CA speaks no TLS over a unix socket",
                "remove provider.tls, or listen on a TCP address",
            ),
            _ => {}
        }
        if let Some(tls) = &config.provider.tls {
            self.readable("provider.tls.cert", &tls.cert);
            self.readable("provider.tls.key", &tls.key);
            self.readable("provider.tls.clientCa", &tls.client_ca);
        }
        if let Some(tls) = &config.expander.tls {
            self.readable("expander.tls.cert", &tls.cert);
            self.readable("expander.tls.key", &tls.key);
        } else if config.expander.self_signed.names.is_empty() {
            self.say(
                "expander.selfSigned.names",
                "is empty",
                "name the host that CA uses in --grpc-expander-url, as a rule localhost",
            );
        }
    }

    /// What is said twice, or for two things at once.
    fn twice(&mut self) {
        let config = self.config;
        let provider = match config.provider.listen {
            Listen::Tcp(address) => Some(address),
            Listen::Unix(_) => None,
        };
        let taken =
            [("provider", provider), ("expander", Some(config.expander.listen)), ("http", Some(config.http.listen))];
        for (at, (key, address)) in taken.iter().enumerate() {
            let same = |other: &&(&str, Option<SocketAddr>)| other.1.zip(*address).is_some_and(|(a, b)| clash(a, b));
            if let Some((other, _)) = taken.iter().take(at).find(same) {
                self.say(&format!("{key}.listen"), format!("has the port of {other}.listen"), "give each its own");
            }
        }
        let filters = &config.expander.filters;
        if let Some(twice) =
            filters.iter().enumerate().find(|(at, it)| filters.iter().take(*at).any(|before| before == *it))
        {
            self.say("expander.filters", format!("{} stands there twice", twice.1.name()), "name each filter once");
        }
    }

    fn spans(&mut self) {
        let config = self.config;
        let long = Duration::from_secs(24 * 3600);
        let spans = [
            ("refresh", config.refresh(), Duration::from_millis(100)),
            ("purchaseMemory.hold", config.purchase_memory.hold, Duration::ZERO),
            ("purchaseMemory.settle", config.purchase_memory.settle, Duration::ZERO),
            ("offerings.initialBackoff", config.offerings.initial_backoff, Duration::from_millis(1)),
            ("offerings.maxBackoff", config.offerings.max_backoff, config.offerings.initial_backoff),
            ("unregistered.reapAfter", config.unregistered.reap_after, Duration::from_secs(1)),
        ];
        let agents =
            config.usage.agents.iter().map(|it| ("usage.agents.interval", it.interval, Duration::from_millis(100)));
        for (key, span, least) in spans.into_iter().chain(agents) {
            if span < least || span > long {
                self.say(key, format!("{span:?} is out of range"), &format!("write a duration from {least:?} to 24h"));
            }
        }
    }

    fn groups(&mut self) {
        for (id, group) in &self.config.groups {
            let options = &group.options;
            let thresholds = [
                ("scaleDownUtilizationThreshold", options.scale_down_utilization_threshold),
                ("scaleDownGpuUtilizationThreshold", options.scale_down_gpu_utilization_threshold),
            ];
            for (key, threshold) in thresholds {
                if threshold.is_some_and(|threshold| !(0.0..=1.0).contains(&threshold)) {
                    self.say(&format!("groups.{id}.options.{key}"), "is out of range", "write a share from 0 to 1");
                }
            }
        }
    }

    fn agents(&mut self) {
        let Some(agents) = &self.config.usage.agents else { return };
        if agents.address.is_none() && agents.urls.is_empty() {
            let remedy = "give `address: windlass-agent.windlass.svc:9400`, or `urls`";
            self.say("usage.agents", "does not say where the agents are", remedy);
        }
        if agents.tls.is_none() && agents.urls.iter().any(|url| url.tls) {
            self.say("usage.agents.urls", "say https", "give usage.agents.tls.ca, by which the agents are known");
        }
        if let Some(tls) = &agents.tls {
            self.readable("usage.agents.tls.ca", &tls.ca);
            match (&tls.cert, &tls.key) {
                (Some(cert), Some(key)) => {
                    self.readable("usage.agents.tls.cert", cert);
                    self.readable("usage.agents.tls.key", key);
                }
                (None, None) => {}
                _ => self.say("usage.agents.tls", "has one of cert and key", "give both, or neither"),
            }
        }
        if let Some(auth) = &agents.basic_auth {
            self.readable("usage.agents.basicAuth.passwordFile", &auth.password_file);
        }
    }

    fn priorities(&mut self) {
        let file = self.config.file.display().to_string();
        let wrong = match &self.config.expander.priorities {
            None => return,
            Some(Priorities::File(file)) => match super::read_text(file) {
                Ok(text) => priority::Priorities::parse(&text, &file.display().to_string()).err(),
                Err(_) => return self.readable("expander.priorities.file", file),
            },
            Some(Priorities::List(list)) => priority::Priorities::compile(list, &file).err(),
        };
        if let Some(wrong) = wrong {
            self.say("expander.priorities", format!("{}: {}", wrong.place, wrong.what), &wrong.remedy);
        }
    }
}

/// Whether both cannot be listened on.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (everywhere || a.ip() == b.ip())
}
