//! Notices from an SQS queue that EventBridge feeds: spot interruptions, rebalance recommendations, machines that go
//! down. Each message is deleted once the keeper has it, and read again if that fails.

use std::time::Duration;

use aws_sdk_sqs::{Client, types::Message};
use serde::Deserialize;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{Settings, access::Access, errors};
use crate::{
    cloud::CloudError,
    config::limits,
    fleet::notices::{Notice, NoticeKind},
    keeper::{Command, Handle},
    metrics::Metrics,
};

/// How long one question waits for a message; the API's own limit.
const LONG_POLL: i32 = 20;
/// Messages in one answer; the API's own limit.
const MESSAGES: i32 = 10;
/// Longest message read; an event of EC2 has less than 1 kB.
const LONGEST: usize = 64 << 10;

/// The queue.
pub struct Interruptions {
    client: Client,
    url: String,
}

impl Interruptions {
    /// The queue at this URL, reached as everything else at AWS is.
    ///
    /// # Errors
    /// No region is set anywhere.
    pub async fn connect(
        settings: &Settings,
        url: String,
        metrics: std::sync::Arc<Metrics>,
    ) -> Result<Self, CloudError> {
        let access = Access::load(settings, metrics).await?;
        Ok(Self { client: Client::new(&access.sdk), url })
    }

    /// Tells the keeper what comes, until told to stop. A queue that does not answer is asked again, ever more rarely.
    ///
    /// # Errors
    /// None; the type is that of a task.
    pub async fn follow(self, keeper: Handle, stop: CancellationToken) -> anyhow::Result<()> {
        let mut wait = limits::RETRY;
        while !stop.is_cancelled() {
            let polled = tokio::select! {
                () = stop.cancelled() => break,
                polled = self.poll(&keeper) => polled,
            };
            match polled {
                Ok(()) => wait = limits::RETRY,
                Err(why) => {
                    tracing::warn!(queue = self.url, "the interruption queue could not be read, asking again: {why:#}");
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = time::sleep(wait) => {}
                    }
                    wait = (wait * 2).min(limits::RETRY_MAX);
                }
            }
        }
        Ok(())
    }

    /// One question, and what follows from its answer.
    async fn poll(&self, keeper: &Handle) -> anyhow::Result<()> {
        let request = self.client.receive_message().queue_url(&self.url).max_number_of_messages(MESSAGES);
        let asked = request.wait_time_seconds(LONG_POLL).send();
        let answer = time::timeout(limits::CLOUD_CALL, asked).await?;
        let answer = answer.map_err(|error| errors::failed("ReceiveMessage", &error))?;
        // A machine has two minutes: every notice is told before the first message is deleted, however long that takes.
        let mut used = Vec::new();
        let mut told = Ok(());
        for message in answer.messages.unwrap_or_default() {
            match self.tell(&message, keeper).await {
                Ok(()) => used.extend(message.receipt_handle),
                // It stays in the queue and comes again.
                Err(busy) => told = Err(busy),
            }
        }
        for receipt in used {
            self.delete(receipt).await?;
        }
        told
    }

    async fn tell(&self, message: &Message, keeper: &Handle) -> anyhow::Result<()> {
        match message.body.as_deref().map(read) {
            Some(Ok(Some(notice))) => keeper.note(Command::Noticed(notice)).await?,
            Some(Ok(None)) | None => {}
            Some(Err(why)) => tracing::warn!(queue = self.url, "a message that is no event of EC2, dropped: {why}"),
        }
        Ok(())
    }

    async fn delete(&self, receipt: String) -> anyhow::Result<()> {
        let delete = self.client.delete_message().queue_url(&self.url).receipt_handle(receipt).send();
        let deleted = time::timeout(Duration::from_secs(10), delete).await?;
        deleted.map_err(|error| errors::failed("DeleteMessage", &error))?;
        Ok(())
    }
}

/// An event as EventBridge writes it; what is not needed is left out.
#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "detail-type")]
    kind: String,
    detail: Detail,
}

#[derive(Debug, Deserialize)]
struct Detail {
    #[serde(rename = "instance-id", default)]
    instance: String,
    #[serde(default)]
    state: String,
}

/// Reads a message's body; None for an event that says nothing of a machine's end.
fn read(body: &str) -> Result<Option<Notice>, String> {
    if body.len() > LONGEST {
        return Err(format!("{} bytes are too many", body.len()));
    }
    let event: Event = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let kind = match (event.kind.as_str(), event.detail.state.as_str()) {
        ("EC2 Spot Instance Interruption Warning", _) => NoticeKind::Interruption,
        ("EC2 Instance Rebalance Recommendation", _) => NoticeKind::Rebalance,
        ("EC2 Instance State-change Notification", "shutting-down" | "terminated" | "stopping" | "stopped") => {
            NoticeKind::Ending
        }
        _ => return Ok(None),
    };
    if event.detail.instance.is_empty() {
        return Err("it names no instance".to_owned());
    }
    Ok(Some(Notice { machine: event.detail.instance, kind, ends_at: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, detail: &str) -> String {
        format!("{{\"version\": \"0\", \"source\": \"aws.ec2\", \"detail-type\": \"{kind}\", \"detail\": {detail}}}")
    }

    #[test]
    fn events_of_ec2_are_notices() {
        let state = "EC2 Instance State-change Notification";
        for (kind, detail, expected) in [
            (
                "EC2 Spot Instance Interruption Warning",
                "{\"instance-id\": \"i-1\", \"instance-action\": \"terminate\"}",
                Some(NoticeKind::Interruption),
            ),
            ("EC2 Instance Rebalance Recommendation", "{\"instance-id\": \"i-1\"}", Some(NoticeKind::Rebalance)),
            (state, "{\"instance-id\": \"i-1\", \"state\": \"terminated\"}", Some(NoticeKind::Ending)),
            (state, "{\"instance-id\": \"i-1\", \"state\": \"running\"}", None),
            ("AWS Health Event", "{}", None),
        ] {
            let read = read(&event(kind, detail)).unwrap();
            assert_eq!(read.as_ref().map(|it| it.kind), expected, "{kind} {detail}");
            assert!(read.is_none_or(|it| it.machine == "i-1"));
        }
    }

    #[tokio::test]
    async fn a_notice_that_nobody_takes_is_not_used_and_what_says_nothing_is() {
        let config = aws_sdk_sqs::Config::builder().behavior_version(aws_config::BehaviorVersion::latest());
        let queue = Interruptions { client: Client::from_conf(config.build()), url: String::new() };
        let warning = event("EC2 Spot Instance Interruption Warning", "{\"instance-id\": \"i-1\"}");
        for (body, used) in [(warning.as_str(), false), (&event("AWS Health Event", "{}"), true), ("no event", true)] {
            let message = Message::builder().body(body).build();
            assert_eq!(queue.tell(&message, &Handle::gone()).await.is_ok(), used, "{body}");
        }
    }

    #[test]
    fn what_is_no_event_is_refused_and_not_a_crash() {
        let long = "x".repeat(LONGEST + 1);
        for body in [
            "",
            "{}",
            "null",
            "[]",
            "{\"detail-type\": 1}",
            &event("EC2 Instance Rebalance Recommendation", "{}"),
            &long,
        ] {
            assert!(read(body).is_err(), "{body:.80}");
        }
    }
}
