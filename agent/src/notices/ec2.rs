//! EC2's instance metadata service, version 2: a session token, then a few paths that answer 404 until there is something to say.
//! The parsers are pure: bytes and the time in, values out.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::metadata::{Answer, Failure, Metadata};
use super::{Kind, Notice, Watch, dates, patience, word};
use crate::config::limits;

const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN_LIFE: (&str, &str) = ("x-aws-ec2-metadata-token-ttl-seconds", "21600");
const TOKEN: &str = "x-aws-ec2-metadata-token";
const DATA: &str = "/latest/meta-data/";

/// A session, asked for again a little before it ends.
#[derive(Debug)]
pub struct Token {
    value: String,
    life: Duration,
}

impl Token {
    /// Whether it came with its life: a service that answers anything to anybody gives none.
    #[must_use]
    pub fn is_dated(&self) -> bool {
        !self.life.is_zero()
    }
}

/// Asks for a session. Silence behind a greeting is what a hop limit of 1 looks like from inside a pod.
pub async fn token(metadata: &mut Metadata) -> Result<Token, Failure> {
    let answer = metadata.put(TOKEN_PATH, &[TOKEN_LIFE], limits::METADATA_PROBE).await;
    let answer = answer.map_err(|failure| match failure {
        Failure::Silent(..) => Failure::HopLimit,
        other => other,
    })?;
    if answer.status != 200 {
        return Err(Failure::Refused(TOKEN_PATH.into(), answer.status));
    }
    let sent_as_is = |text: &&str| !text.is_empty() && text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic());
    let value = answer.text().map(str::trim).filter(sent_as_is);
    let value = value.ok_or_else(|| Failure::Unreadable(TOKEN_PATH.into()))?.to_owned();
    let life = answer.header(TOKEN_LIFE.0).and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(Token { value, life: Duration::from_secs(life) })
}

/// What is asked, with the session.
struct Session<'a> {
    watch: &'a Watch,
    metadata: Metadata,
    token: Option<(Token, Duration)>,
    /// When the slow questions are due.
    slow: Duration,
    /// The machine, once it has said who it is.
    machine: Option<Arc<str>>,
    /// Whether asking more rarely costs nothing. A spot machine that can be told of its end is asked at the usual pace, whatever else fails.
    deaf: bool,
}

/// Polls for as long as the agent runs.
pub async fn watch(watch: &Watch) {
    let metadata = Metadata::new(watch.authority.clone());
    let mut session = Session { watch, metadata, token: None, slow: Duration::ZERO, machine: None, deaf: true };
    let mut failures = 0_u32;
    loop {
        match session.poll().await {
            Ok(()) => {
                failures = 0;
                watch.board.good(watch.clock.unix());
            }
            Err(failure) => {
                failures = if session.deaf { failures.saturating_add(1) } else { 0 };
                watch.board.bad(&failure);
            }
        }
        tokio::time::sleep(patience(limits::METADATA_INTERVAL, failures)).await;
    }
}

impl Session<'_> {
    /// One round: three small questions on a spot machine, one on another, and rarely a few more. Each stands for itself: one that fails keeps no
    /// other's answer from being heard.
    async fn poll(&mut self) -> Result<(), Failure> {
        let unix = self.watch.clock.unix();
        let market = self.market().await;
        let interruption = self.interruption(unix).await;
        self.deaf = interruption.is_err() || !self.may_be_spot();
        let heard =
            [market, interruption, self.rebalance(unix).await, self.lifecycle(unix).await, self.slow(unix).await];
        heard.into_iter().collect::<Result<(), _>>()?;
        self.watch.board.change(|seen| seen.provider_id = self.machine.clone());
        Ok(())
    }

    async fn market(&mut self) -> Result<(), Failure> {
        if self.watch.board.load().market.is_none() {
            let market = self.word("instance-life-cycle").await?;
            self.watch.board.change(|seen| seen.market = market);
        }
        Ok(())
    }

    /// Only a spot machine is interrupted; one of an unknown market is taken for one.
    fn may_be_spot(&self) -> bool {
        self.watch.board.load().market.as_deref().is_none_or(|market| market == "spot")
    }

    async fn interruption(&mut self, unix: f64) -> Result<(), Failure> {
        self.spot(Kind::SpotInterruption, "spot/instance-action", instance_action, unix).await
    }

    async fn rebalance(&mut self, unix: f64) -> Result<(), Failure> {
        self.spot(Kind::RebalanceRecommendation, "events/recommendations/rebalance", rebalance, unix).await
    }

    /// A notice that only spot machines get.
    async fn spot(
        &mut self,
        kind: Kind,
        path: &str,
        read: impl Fn(&[u8], f64) -> Option<Notice>,
        unix: f64,
    ) -> Result<(), Failure> {
        if !self.may_be_spot() {
            return Ok(());
        }
        let answer = self.get(path).await?;
        let notice = answer.map(|answer| read(&answer.body, unix).ok_or_else(|| unreadable(path))).transpose()?;
        self.replace(&[kind], notice.into_iter().collect(), unix);
        Ok(())
    }

    async fn lifecycle(&mut self, unix: f64) -> Result<(), Failure> {
        let lifecycle = self.word("autoscaling/target-lifecycle-state").await?;
        self.replace(&[Kind::ScaleIn], scale_in(lifecycle.as_deref(), unix), unix);
        self.watch.board.change(|seen| seen.lifecycle = lifecycle);
        Ok(())
    }

    /// What is told days ahead, or never changes.
    async fn slow(&mut self, unix: f64) -> Result<(), Failure> {
        let now = self.watch.clock.now();
        if now < self.slow {
            return Ok(());
        }
        let path = "events/maintenance/scheduled";
        let read = |answer: Answer| maintenance(&answer.body, unix).ok_or_else(|| unreadable(path));
        let maintenance = self.get(path).await?.map(read).transpose()?;
        self.replace(&[Kind::Maintenance], maintenance.unwrap_or_default(), unix);
        if self.machine.is_none() {
            self.machine = self.identity().await?;
        }
        self.slow = now + limits::METADATA_INTERVAL_SLOW;
        Ok(())
    }

    fn replace(&self, kinds: &[Kind], notices: Vec<Notice>, unix: f64) {
        self.watch.board.change(|seen| seen.replace(kinds, notices, unix));
    }

    /// The node's `spec.providerID`, as the cloud's own controller writes it.
    async fn identity(&mut self) -> Result<Option<Arc<str>>, Failure> {
        let zone = self.word("placement/availability-zone").await?;
        let id = self.word("instance-id").await?;
        Ok(zone.zip(id).map(|(zone, id)| format!("aws:///{zone}/{id}").into()))
    }

    async fn word(&mut self, path: &str) -> Result<Option<Arc<str>>, Failure> {
        Ok(self.get(path).await?.and_then(|answer| word(answer.text()?)))
    }

    /// `None` is 404: nothing to say.
    async fn get(&mut self, path: &str) -> Result<Option<Answer>, Failure> {
        let mut answer = self.ask(path).await?;
        if answer.status == 401 {
            // The session ended before its time: the service or its clock was reset. Once more with a new one.
            self.token = None;
            answer = self.ask(path).await?;
        }
        match answer.status {
            200 => Ok(Some(answer)),
            404 => Ok(None),
            status => {
                self.token = None;
                Err(Failure::Refused(path.to_owned(), status))
            }
        }
    }

    async fn ask(&mut self, path: &str) -> Result<Answer, Failure> {
        let now = self.watch.clock.now();
        let token = match self.token.take().filter(|(_, until)| now < *until) {
            Some(token) => token,
            None => {
                let token = token(&mut self.metadata).await?;
                // Renewed after nine tenths of its life, but never at every question.
                let life = (token.life * 9 / 10).max(limits::METADATA_INTERVAL);
                (token, now + life)
            }
        };
        let headers = [(TOKEN, &*token.0.value)];
        let answer = self.metadata.get(&format!("{DATA}{path}"), &headers, limits::METADATA_WAIT).await;
        self.token = Some(token);
        answer
    }
}

fn unreadable(path: &str) -> Failure {
    Failure::Unreadable(path.to_owned())
}

/// `{"action": "terminate", "time": "2017-09-18T08:22:00Z"}`. Without a readable time the notice still stands; without an action there is none.
#[must_use]
pub fn instance_action(body: &[u8], unix: f64) -> Option<Notice> {
    #[derive(Deserialize)]
    struct Written {
        action: String,
        time: Option<String>,
    }
    let written: Written = serde_json::from_slice(body).ok()?;
    let deadline = written.time.as_deref().and_then(dates::rfc3339);
    Some(Notice { kind: Kind::SpotInterruption, action: word(&written.action)?, at: unix, deadline })
}

/// `{"noticeTime": "2020-10-27T08:22:00Z"}`.
#[must_use]
pub fn rebalance(body: &[u8], unix: f64) -> Option<Notice> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Written {
        notice_time: Option<String>,
    }
    let written: Written = serde_json::from_slice(body).ok()?;
    let at = written.notice_time.as_deref().and_then(dates::rfc3339).unwrap_or(unix);
    Some(Notice { kind: Kind::RebalanceRecommendation, action: "rebalance".into(), at, deadline: None })
}

/// `[{"NotBefore": "21 Jan 2019 09:00:43 GMT", "Code": "system-reboot", "State": "active", …}]`: the events that stand, soonest first.
/// What is completed or canceled is no notice. `None` when it is no such list.
#[must_use]
pub fn maintenance(body: &[u8], unix: f64) -> Option<Vec<Notice>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Written {
        code: Option<String>,
        state: Option<String>,
        not_before: Option<String>,
    }
    let written: Vec<Written> = serde_json::from_slice(body).ok()?;
    let notice = |event: Written| {
        event.state.is_none_or(|state| state == "active").then_some(())?;
        let deadline = event.not_before.as_deref().and_then(|time| dates::spelled(time).or(dates::rfc3339(time)));
        Some(Notice { kind: Kind::Maintenance, action: word(&event.code?)?, at: unix, deadline })
    };
    let mut notices: Vec<Notice> = written.into_iter().filter_map(notice).collect();
    notices.sort_by(|a, b| a.deadline.partial_cmp(&b.deadline).unwrap_or(std::cmp::Ordering::Equal));
    notices.truncate(limits::NOTICES);
    Some(notices)
}

/// An Auto Scaling group that wants the machine `Terminated` is about to end it.
fn scale_in(lifecycle: Option<&str>, unix: f64) -> Vec<Notice> {
    let ends = lifecycle.is_some_and(|state| state.starts_with("Terminat"));
    let action: Arc<str> = "terminate".into();
    ends.then_some(Notice { kind: Kind::ScaleIn, action, at: unix, deadline: None }).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spot_notice_says_what_and_when() {
        for (body, expect) in [
            (r#"{"action":"terminate","time":"2017-09-18T08:22:00Z"}"#, Some(("terminate", Some(1_505_722_920.0)))),
            (r#"{"action":"stop","time":"later","more":[1]}"#, Some(("stop", None))),
            (r#"{"action":"hibernate"}"#, Some(("hibernate", None))),
            (r#"{"action":"rm -rf"}"#, None),
            (r#"{"time":"2017-09-18T08:22:00Z"}"#, None),
            ("<html>", None),
            ("", None),
        ] {
            let found = instance_action(body.as_bytes(), 5.0);
            assert_eq!(found.as_ref().map(|notice| (&*notice.action, notice.deadline)), expect, "{body}");
        }
        let hint = rebalance(br#"{"noticeTime":"2020-10-27T08:22:00Z"}"#, 5.0).unwrap();
        assert_eq!((hint.at, hint.deadline), (1_603_786_920.0, None));
        assert!((rebalance(b"{}", 5.0).unwrap().at - 5.0).abs() < 1e-9, "without a time it is now");
    }

    #[test]
    fn only_maintenance_that_stands_is_a_notice() {
        let body = br#"[
            {"NotBefore":"21 Jan 2019 09:00:43 GMT","Code":"system-reboot","Description":"scheduled reboot","EventId":"instance-event-1","NotAfter":"21 Jan 2019 09:17:23 GMT","State":"active"},
            {"NotBefore":"20 Jan 2019 09:00:43 GMT","Code":"instance-retirement","State":"active"},
            {"NotBefore":"20 Jan 2019 09:00:43 GMT","Code":"instance-stop","State":"completed"},
            {"Code":"two words","State":"active"}]"#;
        let found = maintenance(body, 5.0).unwrap();
        let found: Vec<_> = found.iter().map(|notice| (&*notice.action, notice.deadline)).collect();
        assert_eq!(found, [("instance-retirement", Some(1_547_974_843.0)), ("system-reboot", Some(1_548_061_243.0))]);
        assert_eq!(maintenance(b"[]", 5.0), Some(Vec::new()));
        assert_eq!(maintenance(b"{}", 5.0), None);
    }

    #[test]
    fn a_group_that_ends_the_machine_is_a_notice() {
        for (state, expect) in [
            (None, 0),
            (Some("InService"), 0),
            (Some("Warmed:Terminated"), 0),
            (Some("Terminated"), 1),
            (Some("Standby"), 0),
        ] {
            assert_eq!(scale_in(state, 5.0).len(), expect, "{state:?}");
        }
    }
}
