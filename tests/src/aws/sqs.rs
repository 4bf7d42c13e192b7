//! The SQS API, and what EventBridge puts into a queue: messages that come back until they are deleted.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    ACCOUNT, Account, REGION,
    answer::{Outcome, Refused},
    machine::millis,
    moment::{Moment, written},
    request::{Parameters, Request},
};

/// For how long a received message is hidden, unless the caller or the queue says otherwise.
const HIDDEN: Duration = Duration::from_secs(30);

/// One message.
#[derive(Clone, Debug)]
struct Message {
    number: u64,
    body: String,
    /// Seen again from then on.
    visible_at: Moment,
    received: u32,
}

/// One queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue(Vec<Message>);

impl Account {
    /// Makes a queue, and answers its URL at this endpoint.
    pub(super) fn queue(&mut self, name: &str, endpoint: &str) -> String {
        self.queues.insert(name.to_owned(), Queue::default());
        format!("{endpoint}/{ACCOUNT}/{name}")
    }

    /// Puts a message into every queue.
    pub(super) fn publish(&mut self, body: &str, now: Moment) {
        let number = self.number();
        for queue in self.queues.values_mut() {
            queue.0.push(Message { number, body: body.to_owned(), visible_at: now, received: 0 });
        }
    }

    /// Messages that nobody has deleted yet.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.queues.values().map(|queue| queue.0.len()).sum()
    }

    /// EventBridge's warning that AWS will take an instance back.
    pub(super) fn warn_of_interruption(&mut self, id: &str, now: Moment) {
        let zone =
            self.groups.values().find_map(|group| group.machines.get(id)).map(|it| it.zone.clone()).unwrap_or_default();
        let warning = json!({
            "version": "0", "id": format!("event-{id}"), "detail-type": "EC2 Spot Instance Interruption Warning",
            "source": "aws.ec2", "account": ACCOUNT, "time": written(now), "region": REGION,
            "resources": [format!("arn:aws:ec2:{zone}:instance/{id}")],
            "detail": {"instance-id": id, "instance-action": "terminate"},
        });
        self.publish(&warning.to_string(), now);
    }

    pub(super) fn queue_answer(&mut self, request: &Request, now: Moment) -> Outcome {
        let asked = &request.parameters;
        let name = asked.get("QueueUrl").and_then(|url| url.rsplit('/').next()).unwrap_or_default();
        let missing =
            || Refused::new(400, "com.amazonaws.sqs#QueueDoesNotExist", "The specified queue does not exist.");
        let queue = self.queues.get_mut(name).ok_or_else(missing)?;
        match request.action.as_str() {
            "ReceiveMessage" => Ok(queue.receive(asked, now)),
            "DeleteMessage" => {
                queue.delete(asked.get("ReceiptHandle").unwrap_or_default());
                Ok(json!({}))
            }
            "DeleteMessageBatch" => Ok(queue.delete_batch(asked)),
            "GetQueueAttributes" => Ok(json!({"Attributes": {
                "QueueArn": format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"), "ApproximateNumberOfMessages": queue.0.len().to_string(),
            }})),
            other => Err(Refused::new(400, "InvalidAction", format!("{other} is not faked"))),
        }
    }

    /// Whether a `ReceiveMessage` would bring something now.
    pub(super) fn has_message(&self, asked: &Parameters, now: Moment) -> bool {
        let name = asked.get("QueueUrl").and_then(|url| url.rsplit('/').next()).unwrap_or_default();
        self.queues.get(name).is_none_or(|queue| queue.0.iter().any(|message| message.visible_at <= now))
    }
}

impl Queue {
    fn receive(&mut self, asked: &Parameters, now: Moment) -> Value {
        let most =
            asked.number("MaxNumberOfMessages").and_then(|most| usize::try_from(most).ok()).unwrap_or(1).clamp(1, 10);
        let hidden = asked.number("VisibilityTimeout").and_then(|seconds| u64::try_from(seconds).ok());
        let hidden = hidden.map_or(HIDDEN, Duration::from_secs);
        let visible = self.0.iter_mut().filter(|message| message.visible_at <= now).take(most);
        let messages: Vec<Value> = visible
            .map(|message| {
                message.visible_at = now + millis(hidden);
                message.received += 1;
                json!({"MessageId": format!("m-{}", message.number), "ReceiptHandle": message.handle(), "Body": message.body})
            })
            .collect();
        if messages.is_empty() { json!({}) } else { json!({"Messages": messages}) }
    }

    /// Deletes by the newest receipt only, as SQS does.
    fn delete(&mut self, handle: &str) {
        self.0.retain(|message| message.handle() != handle);
    }

    fn delete_batch(&mut self, asked: &Parameters) -> Value {
        let entries: Vec<Value> = asked.list("Entries").iter().filter_map(|it| serde_json::from_str(it).ok()).collect();
        for entry in &entries {
            self.delete(entry["ReceiptHandle"].as_str().unwrap_or_default());
        }
        let done: Vec<Value> = entries.iter().map(|entry| json!({"Id": entry["Id"]})).collect();
        json!({"Successful": done, "Failed": []})
    }
}

impl Message {
    fn handle(&self) -> String {
        format!("receipt-{}-{}", self.number, self.received)
    }
}
