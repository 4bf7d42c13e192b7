//! `windlass-provider doctor`: looks at what an installation needs, changes nothing, and says of each thing whether it is
//! well, and if not what to do. What cannot be looked at from here is said, not guessed.

mod agents;
mod node_labels;

use std::{fmt, net::SocketAddr};

use serde::Serialize;

use crate::{
    cloud::Cloud,
    config::{Address, CloudKind, Config},
    expander::plural,
    fleet::template::Dialect,
    keeper::look::{Unfit, look, state_file},
    snapshot::Snapshot,
    usage::agents::question::{Dial, Endpoint, Failure},
};

/// Most of `/metrics` that is read: a thousand groups have some 2 MB.
const LONGEST: usize = 32 << 20;

/// How things stand with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// Nothing to do.
    Ok,
    /// Worth knowing; things work without.
    Note,
    /// Something does not work.
    Mend,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it stands.
    pub grade: Grade,
    /// What was looked at, in a word or two.
    pub about: String,
    /// What was found.
    pub what: String,
    /// What to do; empty when there is nothing.
    pub remedy: String,
}

impl Finding {
    /// Nothing to do.
    #[must_use]
    pub fn ok(about: &str, what: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, about: about.to_owned(), what: what.into(), remedy: String::new() }
    }

    /// Worth knowing.
    #[must_use]
    pub fn note(about: &str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { grade: Grade::Note, about: about.to_owned(), what: what.into(), remedy: remedy.into() }
    }

    /// Something does not work.
    #[must_use]
    pub fn mend(about: &str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { grade: Grade::Mend, about: about.to_owned(), what: what.into(), remedy: remedy.into() }
    }
}

/// Everything that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Report {
    /// In the order in which it was looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether something does not work.
    #[must_use]
    pub fn is_ill(&self) -> bool {
        self.count(Grade::Mend) > 0
    }

    fn count(&self, grade: Grade) -> u32 {
        u32::try_from(self.findings.iter().filter(|finding| finding.grade == grade).count()).unwrap_or(u32::MAX)
    }
}

/// For people: a line for each, and under it what to do.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.about.chars().count()).max().unwrap_or(0);
        for Finding { grade, about, what, remedy } in &self.findings {
            let mark = match grade {
                Grade::Ok => "ok  ",
                Grade::Note => "note",
                Grade::Mend => "MEND",
            };
            let mut lines = what.lines();
            writeln!(out, "{mark}  {about:<width$}  {}", lines.next().unwrap_or_default().trim_end())?;
            for line in lines {
                writeln!(out, "      {:<width$}  {line}", "")?;
            }
            if !remedy.is_empty() {
                writeln!(out, "      {:<width$}  -> {remedy}", "")?;
            }
        }
        let (mend, notes) = (self.count(Grade::Mend), self.count(Grade::Note));
        match mend {
            0 => writeln!(out, "\nnothing to mend, {}", plural(notes, "note")),
            _ => writeln!(out, "\n{} to mend, {}", plural(mend, "thing"), plural(notes, "note")),
        }
    }
}

/// Looks at everything. `cloud` is the configured one, or why it could not be had.
pub async fn examine(config: &Config, cloud: anyhow::Result<&dyn Cloud>, dialect: &Dialect) -> Report {
    let mut findings =
        vec![Finding::ok("configuration", format!("{}: every key is understood", config.file.display()))];
    let (state, is_readable) = state(config);
    findings.push(state);
    findings.extend(of_the_cloud(config).await);
    // What is already said of credentials and region need not be waited for and said twice.
    let barred = |it: &Finding| it.grade == Grade::Mend && matches!(it.about.as_str(), "credentials" | "region");
    if !is_readable || findings.iter().any(barred) {
        findings.push(Finding::mend("groups", "not listed, for what is said above", ""));
        return Report { findings };
    }
    let listed = match cloud {
        Ok(cloud) => look(config, cloud, dialect).await,
        Err(error) => Err(error),
    };
    match listed {
        Ok(snapshot) => {
            findings.extend(groups(&snapshot));
            let running = running(config.http.listen).await;
            let running = running.as_deref().map_err(String::as_str);
            findings.extend(node_labels::examine(running, &snapshot, &dialect.gpu_label));
            findings.extend(agents::examine(running, config, &snapshot));
        }
        Err(error) => findings.push(Finding::mend(
            "groups",
            format!("the cloud could not be listed: {error:#}"),
            "nothing is bought or returned until this works",
        )),
    }
    Report { findings }
}

/// What a running provider tells at `/metrics`, which knows what nobody else has seen; or why none does.
async fn running(listen: SocketAddr) -> Result<String, String> {
    let address = if listen.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], listen.port())) } else { listen };
    let name = Address { host: address.ip().to_string(), port: address.port() };
    let answer = Dial::default().get(&Endpoint::at(&name, address, false), "/metrics", LONGEST).await;
    match answer.map(|page| String::from_utf8_lossy(&page).into_owned()) {
        Ok(page) if page.contains("windlass_provider_build_info") => Ok(page),
        Err(Failure::Connection(_) | Failure::Silence) => {
            Err(format!("not looked at: no provider answers at {listen}"))
        }
        Ok(_) | Err(_) => Err(format!("not looked at: what answers at {listen} is no windlass-provider")),
    }
}

fn state(config: &Config) -> (Finding, bool) {
    const ABOUT: &str = "state file";
    let Some(file) = &config.state else {
        let what = "none: what is on its way and what was refused is forgotten at a restart";
        return (Finding::note(ABOUT, what, "set `state` to a file on a volume"), true);
    };
    match state_file(file) {
        Ok(()) => (Finding::ok(ABOUT, file.display().to_string()), true),
        Err(Unfit::Unreadable(error)) => (Finding::mend(ABOUT, format!("{error:#}"), ""), false),
        Err(Unfit::Unwritable(error)) => {
            let what = format!("{}: its folder cannot be written: {error}", file.display());
            (Finding::mend(ABOUT, what, "make the folder, or mount a volume there that this user may write"), true)
        }
    }
}

#[cfg(feature = "aws")]
async fn of_the_cloud(config: &Config) -> Vec<Finding> {
    match config.cloud.kind {
        CloudKind::Aws => crate::cloud::aws::doctor::examine(config).await,
        CloudKind::Sim => embedded(),
    }
}

#[cfg(not(feature = "aws"))]
async fn of_the_cloud(config: &Config) -> Vec<Finding> {
    match config.cloud.kind {
        CloudKind::Aws => Vec::new(),
        CloudKind::Sim => embedded(),
    }
}

fn embedded() -> Vec<Finding> {
    let what = "the embedded one: its machines are accounts only, no node appears";
    vec![Finding::note("cloud", what, "set cloud.kind: aws for a real one")]
}

fn groups(snapshot: &Snapshot) -> Vec<Finding> {
    let count = u32::try_from(snapshot.fleet.groups().len()).unwrap_or(u32::MAX);
    if count == 0 {
        let remedy = "tag the groups that are to be scaled, or name other tags in cloud.discovery";
        return vec![Finding::mend("groups", "none belongs to this provider", remedy)];
    }
    let mut findings =
        vec![Finding::ok("groups", format!("{}; `windlass-provider groups` shows them", plural(count, "group")))];
    for view in snapshot.fleet.groups() {
        let about = format!("group {}", view.group.id);
        let warning = |what: &String| Finding::note(&about, what.clone(), "");
        findings.extend(view.group.warnings.iter().map(warning));
        if let Some(shunned) = snapshot.offerings.shunned(&view.group, snapshot.at) {
            let left = shunned.until.since(snapshot.at).as_secs();
            findings.push(Finding::note(&about, format!("left alone for {left} s: {}", shunned.why), ""));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_state_file_that_cannot_be_kept_is_to_be_mended() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(
            at("scenario.yaml"),
            "groups: [{id: g, max: 9, instanceType: t, zones: [z], cpu: 4, memory: 16Gi}]",
        )
        .unwrap();
        std::fs::write(at("damaged.json"), "{").unwrap();
        for (state, grade, said, listed) in [
            ("state.json", Grade::Ok, "state.json", true),
            // Nobody writes there, root neither.
            ("/proc/state.json", Grade::Mend, "its folder cannot be written", true),
            ("away/state.json", Grade::Mend, "its folder cannot be written", true),
            ("scenario.yaml/state.json", Grade::Mend, "cannot read the state file", false),
            ("damaged.json", Grade::Mend, "is damaged", false),
        ] {
            let text = format!("cloud: {{kind: sim, scenario: scenario.yaml}}\nstate: {state}\n");
            let config = Config::parse(&text, &at("windlass.yaml")).unwrap();
            let cloud = crate::cloud::sim::SimCloud::open(&at("scenario.yaml"), None).unwrap();
            let report = examine(&config, Ok(&cloud), &Dialect::sim()).await;
            let finding = |about| report.findings.iter().find(|it| it.about == about).unwrap();
            let found = finding("state file");
            assert!(found.grade == grade && found.what.contains(said), "{state}: {found:?}");
            assert_eq!(finding("groups").grade == Grade::Ok, listed, "{state}: {report}");
        }
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "what was tried leaves nothing");
    }

    #[tokio::test]
    async fn a_running_provider_is_known_by_its_metrics() {
        use tokio::net::TcpListener;
        for (page, known) in [("windlass_provider_build_info{version=\"0\"} 1\n", true), ("<html>hello</html>", false)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let router = axum::Router::new().route("/metrics", axum::routing::get(move || async move { page }));
            let mut server = tokio::task::JoinSet::new();
            server.spawn(async move { axum::serve(listener, router).await });
            let found = running(at).await;
            assert!(found.as_ref().map_or_else(|why| why.contains("is no windlass-provider"), |text| text == page));
            assert_eq!(found.is_ok(), known, "{found:?}");
        }
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = held.local_addr().unwrap();
        let found = running(silent).await.unwrap_err();
        assert!(found.contains("no provider answers"), "{found}");
    }

    #[test]
    fn a_report_tells_what_to_do_and_counts() {
        let findings = vec![
            Finding::ok("clock", "exact"),
            Finding::note("state file", "none", "set `state`"),
            Finding::mend("permission", "denied", "allow it"),
        ];
        let report = Report { findings };
        assert!(report.is_ill());
        assert_eq!(
            report.to_string(),
            "ok    clock       exact\nnote  state file  none\n                  -> set `state`\n\
             MEND  permission  denied\n                  -> allow it\n\n1 thing to mend, 1 note\n"
        );
        assert!(!Report::default().is_ill());
    }
}
