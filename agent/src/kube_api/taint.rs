//! A taint on the own Node while the cloud gives notice, and an Event when it comes and goes. What was tainted before a restart is looked after, too.
//!
//! The key begins with cluster-autoscaler's prefix for taints that say something about one node: it does not become part of what the autoscaler
//! expects of a new machine of the same group (`utils/taints`, `StatusTaintPrefix`), as any other taint of a living node would.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DynamicObject, NotUsed, Object, Patch, PatchParams, PostParams};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{World, pause, resource, within};
use crate::config::kubernetes::Kubernetes;
use crate::config::limits;
use crate::notices::{Kind, Notice, Seen};

/// The taint's key. Its value is the kind of the notice, its effect `NoSchedule`: what runs is left in peace.
pub(super) const KEY: &str = "status-taint.cluster-autoscaler.kubernetes.io/windlass-notice";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Taint {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    effect: String,
    /// What we do not know goes back as it came.
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Spec {
    #[serde(default)]
    taints: Vec<Taint>,
}

type Node = Object<Spec, NotUsed>;

/// Keeps the node's taint in step with the notices, for as long as the agent runs.
pub(super) async fn keep(world: World, client: Client) {
    let (mut done, mut failures): (Option<Done>, u32) = (None, 0);
    loop {
        let (seen, settings) = (world.board.load(), world.live.config());
        let unix = world.clock.unix();
        let wanted = wanted(&seen, &settings.kubernetes, unix);
        let state = Done { kind: wanted.map(|notice| notice.kind), at: world.clock.now() };
        // What is announced counts at once. That nothing is, is certain only while the cloud answers: until then a taint from before a restart
        // stands; off-cloud there is none.
        if (wanted.is_some() || seen.up == Some(true)) && due(done.as_ref(), &state) {
            match within(limits::API_ANSWER, apply(&client, &world.config.node_name, wanted, unix)).await {
                Ok(()) => (done, failures) = (Some(state), 0),
                Err(error) => {
                    // It may have been changed all the same.
                    (done, failures) = (None, failures.saturating_add(1));
                    tracing::warn!("the node could not be tainted or freed: {error:#}; tried again");
                }
            }
        }
        // A spot machine has two minutes: the pauses do not grow beyond a few seconds.
        tokio::time::sleep(pause(failures.min(3))).await;
    }
}

/// What the node was last brought to, and when, monotonic.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Done {
    kind: Option<Kind>,
    at: Duration,
}

/// Whether the node has to be looked at: for a change, and now and then while it should be tainted. It may have been made anew, or freed by another.
fn due(done: Option<&Done>, state: &Done) -> bool {
    done.is_none_or(|done| {
        let old = state.at.saturating_sub(done.at) >= limits::API_LOOK;
        done.kind != state.kind || (state.kind.is_some() && old)
    })
}

/// The most urgent notice that is worth a taint now: of a kind that was asked for, not far away, and not a hint that came to nothing.
fn wanted<'a>(seen: &'a Seen, settings: &Kubernetes, now: f64) -> Option<&'a Notice> {
    let near =
        |notice: &Notice| notice.deadline.is_none_or(|deadline| deadline - now <= limits::TAINT_AHEAD.as_secs_f64());
    let alive = |notice: &Notice| {
        notice.kind != Kind::RebalanceRecommendation || now - notice.at < settings.rebalance_hold.as_secs_f64()
    };
    seen.notices.iter().find(|notice| settings.taint_on.contains(&notice.kind) && near(notice) && alive(notice))
}

/// The taints that the node should have; `None` when it has them.
fn changed(taints: &[Taint], wanted: Option<Kind>) -> Option<Vec<Taint>> {
    let ours = |taint: &&Taint| taint.key == KEY;
    let value = wanted.map(|kind| kind.word().to_owned());
    if taints.iter().filter(ours).map(|taint| taint.value.clone()).eq(value.clone().map(Some)) {
        return None;
    }
    let others = taints.iter().filter(|taint| !ours(taint)).cloned();
    let ours =
        value.map(|value| Taint { key: KEY.into(), value: Some(value), effect: "NoSchedule".into(), more: Map::new() });
    Some(others.chain(ours).collect())
}

/// Reads the node, changes our taint and nothing else, and says so in an Event. Two writers at once: the later one reads again.
async fn apply(client: &Client, name: &str, wanted: Option<&Notice>, now: f64) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all_with(client.clone(), &resource("Node"));
    for _ in 0..limits::API_CONFLICTS {
        let node = nodes.get(name).await.with_context(|| format!("reading node {name}"))?;
        let Some(taints) = changed(&node.spec.taints, wanted.map(|notice| notice.kind)) else { return Ok(()) };
        // With the version in it the server refuses the change if anybody changed the node meanwhile.
        let patch =
            json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
        match nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {
                tracing::info!(taint = wanted.map(|notice| notice.kind.word()), "the node's taint is changed");
                if let Err(error) = event(client, &node, wanted, now).await {
                    tracing::warn!("the node's Event could not be written: {error:#}");
                }
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).with_context(|| format!("tainting node {name}")),
        }
    }
    anyhow::bail!("node {name} was changed by somebody else {} times in a row", limits::API_CONFLICTS)
}

/// An Event on the node, where `kubectl describe node` shows it.
async fn event(client: &Client, node: &Node, wanted: Option<&Notice>, now: f64) -> anyhow::Result<()> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let (reason, kind) = if wanted.is_some() { ("CloudNotice", "Warning") } else { ("CloudNoticeOver", "Normal") };
    let time = Time(Timestamp::from_second(now as i64).unwrap_or_default());
    let events: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource("Event"));
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": format!("{name}."), "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.metadata.uid},
        "type": kind,
        "reason": reason,
        "message": message(wanted, now),
        "source": {"component": "windlass-agent", "host": name},
        "reportingComponent": "windlass-agent",
        "reportingInstance": name,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    });
    events.create(&PostParams::default(), &serde_json::from_value(event)?).await?;
    Ok(())
}

fn message(wanted: Option<&Notice>, now: f64) -> String {
    let Some(notice) = wanted else {
        return "The cloud's notice is over or came to nothing: the taint is removed".into();
    };
    let when = notice.deadline.map(|deadline| format!(" in {:.0} s", (deadline - now).max(0.0)));
    format!("The cloud gives notice: {} ({}){}", notice.kind.word(), notice.action, when.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(notices: &[(Kind, f64, Option<f64>)]) -> Seen {
        let notice = |&(kind, at, deadline)| Notice { kind, action: "a".into(), at, deadline };
        Seen { notices: notices.iter().map(notice).collect(), ..Seen::default() }
    }

    #[test]
    fn what_was_asked_for_is_near_and_alive_taints() {
        use Kind::{Maintenance, RebalanceRecommendation as Rebalance, SpotInterruption as Spot};
        let all = Kubernetes { taint_on: vec![Spot, Maintenance, Rebalance], ..Kubernetes::default() };
        let one = Kubernetes { taint_on: vec![Spot], ..Kubernetes::default() };
        for (notices, settings, expect) in [
            (&[][..], &all, None),
            (&[(Spot, 1000.0, Some(1120.0))][..], &all, Some(Spot)),
            (&[(Spot, 1000.0, None), (Rebalance, 1000.0, None)][..], &all, Some(Spot)),
            (&[(Rebalance, 1000.0, None)][..], &all, Some(Rebalance)),
            (&[(Rebalance, 1000.0, None)][..], &one, None),
            // Older than the hold of 900 s: it came to nothing.
            (&[(Rebalance, 99.0, None)][..], &all, None),
            // Days ahead.
            (&[(Maintenance, 1000.0, Some(90_000.0))][..], &all, None),
            (&[(Maintenance, 1000.0, Some(4_500.0))][..], &all, Some(Maintenance)),
        ] {
            let found = seen(notices);
            assert_eq!(wanted(&found, settings, 1000.0).map(|notice| notice.kind), expect, "{notices:?}");
        }
    }

    #[test]
    fn a_node_that_should_be_tainted_is_looked_at_again_and_a_free_one_left_alone() {
        let state = |kind, at| Done { kind, at: Duration::from_secs(at) };
        let (spot, free) = (Some(Kind::SpotInterruption), None);
        for (done, now, expect) in [
            (None, state(free, 0), true),
            (Some(state(free, 0)), state(free, 900), false),
            (Some(state(free, 0)), state(spot, 1), true),
            (Some(state(spot, 1)), state(spot, 10), false),
            (Some(state(spot, 1)), state(spot, 61), true),
            (Some(state(spot, 1)), state(Some(Kind::ScaleIn), 2), true),
            (Some(state(spot, 1)), state(free, 2), true),
        ] {
            assert_eq!(due(done.as_ref(), &now), expect, "{done:?} {now:?}");
        }
    }

    #[test]
    fn only_our_taint_is_touched() {
        let foreign: Taint = serde_json::from_value(json!({
            "key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"
        }))
        .unwrap();
        let tainted = changed(std::slice::from_ref(&foreign), Some(Kind::Preemption)).unwrap();
        assert_eq!(tainted[0], foreign, "unknown fields go back as they came");
        assert_eq!((tainted[1].key.as_str(), tainted[1].value.as_deref()), (KEY, Some("preemption")));
        assert_eq!(changed(&tainted, Some(Kind::Preemption)), None, "nothing to do");
        assert_eq!(changed(&tainted, Some(Kind::ScaleIn)).unwrap()[1].value.as_deref(), Some("scale_in"));
        assert_eq!(changed(&tainted, None), Some(vec![foreign.clone()]));
        assert_eq!(changed(&[foreign], None), None);
    }
}
