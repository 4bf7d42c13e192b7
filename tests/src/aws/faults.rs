//! What goes wrong between an API and its caller: scripted by action, for a number of calls or until it is lifted.

use std::{collections::VecDeque, time::Duration};

use super::answer::{Answer, Refused};
use super::request::{Protocol, Request};

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Too many requests, in the words of the API in question; the call has no effect.
    Throttled,
    /// An error of this status and code; the call has no effect.
    Error(u16, String, String),
    /// The service is down: 503 with a page that no parser expects; the call has no effect.
    Down,
    /// No answer ever; the call has no effect.
    Hang,
    /// No answer ever, although the call has its effect.
    Lost,
    /// The answer after this long; the call has its effect at once.
    Slow(Duration),
    /// The answer's bytes end in the middle of an element, with a length that says so.
    BrokenBody,
    /// The connection is cut in the middle of the answer.
    HalfAnswer,
    /// An answer that is well formed and means nothing: an empty element.
    Nonsense,
}

/// Faults that are in force, the first that fits wins.
#[derive(Clone, Debug, Default)]
pub struct Faults(VecDeque<(String, Fault, Option<u32>)>);

impl Faults {
    /// From now on, for every call of the action (`*` for all); a second one for the same action replaces the first.
    pub fn set(&mut self, action: &str, fault: Fault) {
        self.clear(action);
        self.0.push_back((action.to_owned(), fault, None));
    }

    /// For the next calls of the action; several such queue up.
    pub fn next(&mut self, action: &str, fault: Fault, calls: u32) {
        self.0.push_back((action.to_owned(), fault, Some(calls)));
    }

    /// Calls of the action are answered again; what was set for `*` stays.
    pub fn clear(&mut self, action: &str) {
        self.0.retain(|(name, ..)| name != action);
    }

    /// Every call is answered again.
    pub fn clear_all(&mut self) {
        self.0.clear();
    }

    /// The fault that meets this call.
    pub(super) fn meet(&mut self, action: &str) -> Option<Fault> {
        let at = self.0.iter().position(|(name, ..)| name == action || name == "*")?;
        let (_, fault, calls) = self.0.get_mut(at)?;
        let fault = fault.clone();
        match calls {
            None => {}
            Some(1) => _ = self.0.remove(at),
            Some(calls) => *calls -= 1,
        }
        Some(fault)
    }
}

impl Fault {
    /// The answer instead of the call's own; None when the call is carried out.
    pub(super) fn instead(&self, request: &Request) -> Option<Answer> {
        let refused = match self {
            Self::Throttled => throttled(request),
            Self::Error(status, code, message) => Refused::new(*status, code, message.as_str()),
            Self::Down => {
                let body = "<html><body><b>Http/1.1 Service Unavailable</b></body> </html>".to_owned();
                return Some(Answer { status: 503, content_type: "text/html", body });
            }
            Self::Nonsense => {
                let json = matches!(request.protocol, Protocol::Json | Protocol::Rest);
                let body = if json { "{}" } else { "<Nothing/>" }.to_owned();
                return Some(Answer { status: 200, content_type: "text/xml", body });
            }
            Self::Hang | Self::Lost | Self::Slow(_) | Self::BrokenBody | Self::HalfAnswer => return None,
        };
        Some(Answer::new(request.protocol, request.service, &request.action, Err(refused)))
    }
}

fn throttled(request: &Request) -> Refused {
    match request.service {
        "ec2" => Refused::new(503, "RequestLimitExceeded", "Request limit exceeded."),
        "eks" => Refused::new(429, "ThrottlingException", "Rate exceeded"),
        "sqs" => Refused::new(403, "ThrottlingException", "Rate exceeded"),
        _ => Refused::new(400, "Throttling", "Rate exceeded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_a_number_of_calls_queue_up_before_those_that_stay() {
        let mut faults = Faults::default();
        faults.next("A", Fault::Throttled, 2);
        faults.next("A", Fault::Down, 1);
        faults.set("*", Fault::Hang);
        let met: Vec<_> = (0..4).map(|_| faults.meet("A").unwrap()).collect();
        assert_eq!(met, [Fault::Throttled, Fault::Throttled, Fault::Down, Fault::Hang]);
        faults.clear_all();
        assert_eq!(faults.meet("A"), None);
    }
}
