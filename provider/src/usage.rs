//! What the agents on the nodes tell: today what the cloud announced about their machines. Read from foreign bytes into
//! plain values here; who may speak for which machine is decided in [`table`], and asked is in [`agents`].

pub mod agents;
pub mod names;
pub mod table;

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

use crate::{
    config::limits,
    fleet::{Fleet, group::InstanceId, notices::NoticeKind},
    timestamp::Timestamp,
};

/// Longest `spec.providerID`, and longest name of a node.
const WORD: usize = 512;
/// From GCE's notice to the end, which the notice does not say.
const PREEMPTION: Duration = Duration::from_secs(30);

/// What an agent says of its node, as far as the provider goes by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The node's name, as the agent was told it.
    pub node: String,
    /// The node's `spec.providerID`, as the cloud told the agent. With it what is not announced does not stand; without, the
    /// agent may not have looked yet.
    pub machine: Option<String>,
    /// What stands, and when the machine goes, where that is said.
    pub notices: BTreeMap<NoticeKind, Option<Timestamp>>,
}

impl Said {
    /// The machine of ours that this is about: what the agent calls it, or else the one of that node.
    #[must_use]
    pub fn machine(&self, fleet: &Fleet, of_node: Option<String>) -> Option<InstanceId> {
        let id = self.machine.clone().or(of_node)?;
        fleet.group_of(&id)?.instance(&id).map(|instance| instance.id.clone())
    }
}

/// Reads the answer of `/usage`. What is not needed is passed over, whatever it is.
///
/// # Errors
/// Bytes that are no such answer, with the place.
pub fn read(bytes: &[u8]) -> Result<Said, String> {
    let written: Written = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let sane =
        |text: &String| !text.is_empty() && text.len() <= WORD && text.bytes().all(|byte| byte.is_ascii_graphic());
    let machine = written.provider_id.filter(sane);
    let node = Some(written.node).filter(sane).ok_or("its node has no name")?;
    let mut notices = BTreeMap::new();
    for WrittenNotice { kind, at, deadline } in written.notices.0 {
        let deadline = deadline.and_then(moment);
        let (kind, ends_at) = match kind.as_str() {
            "spot_interruption" => (NoticeKind::Interruption, deadline),
            "preemption" => (NoticeKind::Interruption, deadline.or(at.and_then(moment).map(|at| at + PREEMPTION))),
            "scale_in" => (NoticeKind::Ending, deadline),
            "rebalance_recommendation" => (NoticeKind::Rebalance, None),
            // Maintenance is told days ahead, and a later agent may know more.
            _ => continue,
        };
        notices.entry(kind).or_insert(ends_at);
    }
    Ok(Said { node, machine, notices })
}

#[derive(Deserialize)]
struct Written {
    node: String,
    #[serde(default)]
    provider_id: Option<String>,
    #[serde(default)]
    notices: Few,
}

#[derive(Deserialize)]
struct WrittenNotice {
    kind: String,
    #[serde(default)]
    at: Option<f64>,
    #[serde(default)]
    deadline: Option<f64>,
}

/// The first of a list.
#[derive(Default)]
struct Few(Vec<WrittenNotice>);

impl<'de> Deserialize<'de> for Few {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Few;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of notices")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Few, A::Error> {
                let mut few = Vec::new();
                while few.len() < limits::AGENT_NOTICES
                    && let Some(notice) = list.next_element()?
                {
                    few.push(notice);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Few(few))
            }
        }
        input.deserialize_seq(List)
    }
}

/// Seconds since 1970, if they are a time.
fn moment(seconds: f64) -> Option<Timestamp> {
    Duration::try_from_secs_f64(seconds).ok().map(|since| Timestamp::default() + since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(notices: &str, expect: &[(NoticeKind, Option<u64>)]) {
        let text = format!(r#"{{"node": "gpu-1", "time": 1.5, "gpus": [{{"index": 0}}], "notices": {notices}}}"#);
        let said = read(text.as_bytes()).unwrap();
        let found: Vec<_> = said.notices.iter().map(|(kind, at)| (*kind, at.map(|at| at.0))).collect();
        assert_eq!(found, expect, "{notices}");
    }

    #[test]
    fn notices_are_what_ends_a_machine_or_may() {
        use NoticeKind::{Ending, Interruption, Rebalance};
        let of = |kind: &str, deadline: &str| {
            format!(r#"[{{"kind":"{kind}","action":"x","at":10.0,"deadline":{deadline}}}]"#)
        };
        check(&of("spot_interruption", "130.5"), &[(Interruption, Some(130_500))]);
        check(&of("spot_interruption", "null"), &[(Interruption, None)]);
        check(&of("spot_interruption", "-1e300"), &[(Interruption, None)]);
        check(&of("spot_interruption", "1e300"), &[(Interruption, None)]);
        check(&of("preemption", "null"), &[(Interruption, Some(40_000))]);
        check(&of("scale_in", "null"), &[(Ending, None)]);
        check(&of("rebalance_recommendation", "null"), &[(Rebalance, None)]);
        check(&of("maintenance", "130"), &[]);
        check(&of("what-comes-later", "130"), &[]);
        check(
            r#"[{"kind":"scale_in"},{"kind":"rebalance_recommendation","more":[1]}]"#,
            &[(Ending, None), (Rebalance, None)],
        );
        check(&format!("[{}]", vec![r#"{"kind":"scale_in"}"#; 5_000].join(",")), &[(Ending, None)]);
    }

    #[test]
    fn a_machine_is_what_the_cloud_calls_it_or_nothing() {
        for (id, expect) in [
            ("null", None),
            (r#""""#, None),
            (r#""aws:///us-east-1a/i-1""#, Some("aws:///us-east-1a/i-1")),
            (r#""two words""#, None),
            (&format!("\"{}\"", "x".repeat(513)), None),
        ] {
            let said = read(format!(r#"{{"node":"n","provider_id":{id}}}"#).as_bytes()).unwrap();
            assert_eq!(said.machine.as_deref(), expect, "{id:.60}");
        }
    }

    #[test]
    fn what_is_no_answer_of_an_agent_is_refused() {
        let deep = "[".repeat(10_000);
        for text in
            ["", "{}", "null", "<html>", r#"{"node":1}"#, r#"{"node":""}"#, r#"{"node":"n","notices":{}}"#, &deep]
        {
            assert!(read(text.as_bytes()).is_err(), "{text:.60}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _said = read(&bytes);
        }

        #[test]
        fn what_is_nearly_right_is_read_without_a_panic(kind in "spot_interruption|preemption|scale_in|.{0,8}", at in "-?[0-9]{1,40}(\\.[0-9]{1,9})?(e-?[0-9]{1,3})?|null|\"\"") {
            let _said = read(format!(r#"{{"node":"n","notices":[{{"kind":"{kind}","at":{at},"deadline":{at}}}]}}"#).as_bytes());
        }
    }
}
