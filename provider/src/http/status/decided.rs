//! The last decisions on the page: what was asked, what was answered, and each filter's word on each candidate.

use std::fmt::{self, Write as _};

use super::{
    View,
    words::{Safe, date, span},
};
use crate::expander::{Decision, Verdict, plural};

/// Most candidates of one decision; `/decisions` has the others.
const MOST_CANDIDATES: usize = 40;

pub(super) fn write(out: &mut String, view: &View<'_>) -> fmt::Result {
    let filters: Vec<_> = view.policy.filters.iter().map(|filter| filter.name()).collect();
    writeln!(
        out,
        "<h2>Decisions</h2><p class=hint>Each question of the autoscaler passes <b>bought → {}</b>; open one to see what each filter said.</p>",
        filters.join(" → ")
    )?;
    if view.decisions.is_empty() {
        return writeln!(
            out,
            "<p class=empty>None yet. One appears here each time the autoscaler asks which group to grow; it needs <code>--expander=grpc</code>, and pods that fit no node.</p>"
        );
    }
    view.decisions.iter().try_for_each(|decision| one(out, decision, view))
}

fn one(out: &mut String, decision: &Decision, view: &View<'_>) -> fmt::Result {
    let age = view.now.since(decision.at);
    write!(out, "<details><summary><time title=\"{} UTC\">{}</time> ", date(decision.at), ago(age))?;
    let pods = plural(decision.pods, "pod");
    match (&decision.veto, decision.best.as_slice()) {
        (Some(_), _) => write!(out, "<span class=\"tag hold\">nothing to buy</span> {pods} covered")?,
        (None, []) => write!(out, "<span class=\"tag hold\">no candidate</span>")?,
        (None, best) => {
            let names: Vec<_> = best.iter().map(|group| Safe(group.as_str()).to_string()).collect();
            let launch = decision.candidates.iter().find(|verdict| verdict.group == best[0]).map_or(0, |it| it.launch);
            let by = decision.decided_by().unwrap_or_default();
            write!(out, "<b>{}</b> +{launch} for {pods} <small>by {by}</small>", names.join(", "))?;
        }
    }
    write!(out, "</summary>")?;
    if let Some(veto) = &decision.veto {
        write!(out, "<p>{}, until {} UTC at the latest.</p>", Safe(&capitalized(&veto.reason)), date(veto.until))?;
    }
    write!(out, "<ol class=candidates>")?;
    // Survivors first, then those that went furthest.
    let mut candidates: Vec<&Verdict> = decision.candidates.iter().collect();
    candidates.sort_by_key(|verdict| {
        (verdict.dropped_by.is_some(), std::cmp::Reverse(verdict.reasons.len()), &verdict.group)
    });
    for verdict in candidates.iter().take(MOST_CANDIDATES) {
        candidate(out, verdict)?;
    }
    write!(out, "</ol>")?;
    match candidates.len().saturating_sub(MOST_CANDIDATES) {
        0 => {}
        more => write!(out, "<p class=hint>and {more} more in <a href=/decisions>/decisions</a></p>")?,
    }
    writeln!(out, "</details>")
}

fn candidate(out: &mut String, verdict: &Verdict) -> fmt::Result {
    let class = if verdict.dropped_by.is_some() { "out" } else { "in" };
    let nodes = match verdict.node_count - verdict.launch.min(verdict.node_count) {
        0 => plural(verdict.node_count, "node"),
        fewer => format!("{} ({fewer} on the way)", plural(verdict.launch, "node")),
    };
    write!(
        out,
        "<li class={class}><b>{}</b> <small>{nodes}, {}</small>",
        Safe(verdict.group.as_str()),
        plural(verdict.pods, "pod")
    )?;
    if !verdict.reasons.is_empty() {
        write!(out, "<ul>")?;
        for reason in &verdict.reasons {
            let class = if reason.kept { "kept" } else { "dropped" };
            write!(out, "<li class={class}><code>{}</code> {}", reason.filter, Safe(&reason.why))?;
        }
        write!(out, "</ul>")?;
    }
    Ok(())
}

fn ago(age: std::time::Duration) -> String {
    match span(age) {
        now if now == "now" => now,
        span => format!("{span} ago"),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + letters.as_str())
}
