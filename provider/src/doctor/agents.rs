//! Whether anyone tells of machines that the cloud takes back: as a running provider's metrics show its agents, and what
//! to do where nobody is asked.

use super::Finding;
use crate::{
    config::{CloudKind, Config},
    expander::plural,
    fleet::group::Market,
    snapshot::Snapshot,
};

const ABOUT: &str = "agents";

pub(super) fn examine(running: Result<&str, &str>, config: &Config, snapshot: &Snapshot) -> Vec<Finding> {
    if config.usage.agents.is_none() {
        let spot = snapshot.fleet.groups().any(|view| view.group.market == Market::Spot);
        let told = config.cloud.kind == CloudKind::Sim || config.cloud.interruption_queue.is_some();
        let what = "nobody is asked: that a spot machine is taken back is seen only when it is gone";
        let remedy = "set usage.agents.address, or cloud.interruptionQueue";
        return if spot && !told { vec![Finding::note(ABOUT, what, remedy)] } else { Vec::new() };
    }
    vec![match running {
        Ok(text) => told(text),
        Err(why) => Finding::note(ABOUT, why, "ask the running provider's own pod"),
    }]
}

/// What a running provider's metrics tell.
fn told(text: &str) -> Finding {
    let count = |state: &str| {
        let series = format!("windlass_provider_agents{{state=\"{state}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u32>().ok())
    };
    let Some(heard) = count("heard") else {
        return Finding::note(ABOUT, "none has been asked yet", "look again when the provider has listed the cloud");
    };
    let others: Vec<_> = ["silent", "stranger", "machine-taken", "machine-changed"]
        .into_iter()
        .filter_map(|state| count(state).filter(|count| *count > 0).map(|count| (state, count)))
        .collect();
    let of_others = others.iter().map(|(state, count)| format!(", {count} {state}")).collect::<String>();
    let what = format!("{} heard{of_others}", plural(heard, "agent"));
    match others.iter().any(|(state, _)| *state != "stranger") {
        false if heard > 0 => Finding::ok(ABOUT, what),
        false => Finding::note(ABOUT, what, "no GPU node, or usage.agents.address names no Service of agents"),
        true => Finding::note(ABOUT, what, "the provider's log says which, and why"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn a_running_providers_metrics_tell_who_is_heard() {
        let page = |counts: &[(&str, u32)]| {
            let line =
                |(state, count): &(&str, u32)| format!("windlass_provider_agents{{state=\"{state}\"}} {count}\n");
            counts.iter().map(line).collect::<String>()
        };
        for (text, grade, said) in [
            (page(&[]), Grade::Note, "none has been asked yet"),
            (page(&[("heard", 3), ("silent", 0), ("stranger", 1)]), Grade::Ok, "3 agents heard, 1 stranger"),
            (page(&[("heard", 0), ("silent", 0)]), Grade::Note, "0 agents heard"),
            (page(&[("heard", 1), ("silent", 2)]), Grade::Note, "1 agent heard, 2 silent"),
            (page(&[("heard", 1), ("machine-taken", 1)]), Grade::Note, "1 machine-taken"),
        ] {
            let found = told(&text);
            assert!(found.grade == grade && found.what.contains(said), "{text} {found:?}");
        }
    }
}
