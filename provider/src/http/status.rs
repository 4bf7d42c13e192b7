//! The page at `/`: which groups there are, what is on its way to them, and why the last choices were made. One HTML
//! text without scripts or anything from elsewhere, readable on a phone, by day and by night.

mod decided;
pub(crate) mod words;

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use crate::{
    cloud::Missing,
    expander::{Decision, Policy, plural},
    fleet::{
        GroupView, InstanceView,
        group::{InstanceState, Market},
    },
    groups_table,
    snapshot::Snapshot,
    timestamp::Timestamp,
    unlabelled,
};
use words::{Safe, date, span};

/// Most decisions shown; `/decisions` has the others.
pub const MOST_SHOWN: usize = 25;
/// A listing older than this is called stale: twice the slowest usual pace, and a slow cloud call on top.
const STALE: Duration = Duration::from_secs(180);
const STYLE: &str = include_str!("status/page.css");

/// What the page is rendered from.
pub struct View<'a> {
    /// The fleet and its memories.
    pub snapshot: &'a Snapshot,
    /// The operator's part in decisions.
    pub policy: &'a Policy,
    /// The newest first.
    pub decisions: &'a [Arc<Decision>],
    /// What the program still waits for.
    pub pending: &'a [String],
    /// GPU nodes without their label, by group.
    pub unlabelled: &'a unlabelled::Counts,
    /// For ages.
    pub now: Timestamp,
}

/// The whole page.
#[must_use]
pub fn render(view: &View<'_>) -> String {
    let mut page = String::with_capacity(16 << 10);
    // Writing to a String cannot fail.
    let _ = write_page(&mut page, view);
    page
}

fn write_page(out: &mut String, view: &View<'_>) -> fmt::Result {
    write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta name=color-scheme content=\"light dark\"><title>Windlass</title><style>{STYLE}</style>\
         <header><h1>Windlass</h1><nav><a href=/decisions>decisions</a> <a href=/metrics>metrics</a> <a href=/readyz>ready</a></nav></header><main>"
    )?;
    banners(out, view)?;
    totals(out, view)?;
    groups(out, view)?;
    decided::write(out, view)?;
    write!(
        out,
        "</main><footer>windlass-provider {} · {} UTC</footer></html>",
        env!("CARGO_PKG_VERSION"),
        date(view.now)
    )
}

/// What a person should know before anything else.
fn banners(out: &mut String, view: &View<'_>) -> fmt::Result {
    match view.snapshot.synced_at {
        None => writeln!(
            out,
            "<p class=\"banner bad\"><b>The cloud has not been listed yet.</b> Until it has, the autoscaler is told to wait and nothing is bought or returned.</p>"
        )?,
        Some(at) if view.now.since(at) > STALE => writeln!(
            out,
            "<p class=\"banner bad\"><b>Stale.</b> The last good listing of the cloud is from {} UTC, {} ago. What you see, and what the autoscaler is told, is from then; the log says why.</p>",
            date(at),
            span(view.now.since(at))
        )?,
        Some(_) => {}
    }
    if let Some(failing) = &view.snapshot.troubles.failing {
        writeln!(
            out,
            "<p class=\"banner bad\"><b>The cloud cannot be listed since {} UTC.</b> {}</p>",
            date(failing.since),
            Safe(&failing.why)
        )?;
    }
    for pending in view.pending {
        writeln!(out, "<p class=\"banner warn\">Still waiting for: {}</p>", Safe(pending))?;
    }
    let groups = || view.snapshot.fleet.groups().map(|it| &it.group);
    let upside_down = view.policy.priorities.as_ref().and_then(|list| list.upside_down(groups()));
    for warning in view.policy.warnings.iter().chain(&upside_down) {
        writeln!(out, "<p class=\"banner warn\"><b>Priority list.</b> {}</p>", Safe(warning))?;
    }
    Ok(())
}

fn totals(out: &mut String, view: &View<'_>) -> fmt::Result {
    let sum = |count: fn(&GroupView) -> u32| view.snapshot.fleet.groups().map(|it| count(it)).sum::<u32>();
    let listed = match view.snapshot.synced_at {
        Some(at) if view.now.since(at) < Duration::from_secs(1) => "just now".to_owned(),
        Some(at) => format!("{} ago", span(view.now.since(at))),
        None => "never".to_owned(),
    };
    let covered = view.snapshot.bought.covered_pods(view.now);
    write!(out, "<dl class=totals>")?;
    for (term, value) in [
        ("groups", view.snapshot.fleet.groups().len().to_string()),
        ("live", sum(|it| it.live() - live_creating(it)).to_string()),
        ("on their way", sum(|it| it.waiting() + live_creating(it)).to_string()),
        ("refused", sum(GroupView::refused).to_string()),
        ("pods covered", covered.to_string()),
        ("cloud listed", listed),
    ] {
        write!(out, "<div><dt>{term}</dt><dd>{value}</dd></div>")?;
    }
    writeln!(out, "</dl>")
}

fn groups(out: &mut String, view: &View<'_>) -> fmt::Result {
    writeln!(out, "<h2>Groups</h2>")?;
    let missing = &view.snapshot.troubles.missing;
    if view.snapshot.fleet.groups().len() == 0 && missing.is_empty() {
        let why = match view.snapshot.synced_at {
            None => "They appear with the first listing of the cloud.",
            Some(_) => "The cloud has none for this provider: check the tags that make a group belong to it.",
        };
        return writeln!(out, "<p class=empty>No groups. {why}</p>");
    }
    write!(
        out,
        "<table class=groups><thead><tr><th>group<th>machine<th>per hour<th>size<th class=n>live<th class=n>creating<th class=n>refused<th>notes</thead><tbody>"
    )?;
    for it in view.snapshot.fleet.groups() {
        group(out, it, view)?;
    }
    for Missing { group, why } in missing.iter() {
        let name = Safe(group.as_str());
        writeln!(
            out,
            "<tr><td><b>{name}</b><td colspan=6><small>not there</small><td class=notes data-label=notes><p class=bad>{}</p>",
            Safe(why)
        )?;
    }
    writeln!(out, "</tbody></table>")
}

fn group(out: &mut String, it: &GroupView, view: &View<'_>) -> fmt::Result {
    let (group, shape) = (&it.group, &it.group.shape);
    let (class, market) = match group.market {
        Market::Spot => ("spot", "spot"),
        Market::OnDemand => ("od", "on-demand"),
    };
    write!(
        out,
        "<tr><td><b>{}</b><br><span class=\"tag {class}\">{market}</span> <small>{}</small>",
        Safe(group.id.as_str()),
        Safe(&groups_table::zones(&group.zones))
    )?;
    let gpus = match &shape.gpus {
        Some(gpus) => format!("{} × {}, {} GiB", gpus.count, gpus.model, gpus.memory_mib / 1024),
        None => "no GPU".to_owned(),
    };
    write!(out, "<td data-label=machine>{} <br><small>{}</small>", Safe(&shape.instance_type), Safe(&gpus))?;
    write!(
        out,
        "<td class=size data-label=\"per hour\">{}",
        group.price_micros.map_or("<small>unknown</small>".to_owned(), |_| {
            let (sum, says) = words::price(group, view.now);
            format!("{sum} <br><small>{says}</small>")
        })
    )?;
    size(out, it)?;
    let creating = live_creating(it);
    for (label, count) in
        [("live", it.live() - creating), ("creating", it.waiting() + creating), ("refused", it.refused())]
    {
        let class = if count == 0 { "n zero" } else { "n" };
        write!(out, "<td class=\"{class}\" data-label={label}>{count}")?;
    }
    notes(out, it, view)
}

/// Minimum, target and maximum as a bar and as numbers.
fn size(out: &mut String, it: &GroupView) -> fmt::Result {
    let (min, max) = (it.group.min, it.group.max);
    let share = it.target.saturating_mul(100).checked_div(max).unwrap_or(0).min(100);
    write!(
        out,
        "<td class=size data-label=size><span class=bar title=\"target {} of {min} to {max}\"><i style=\"width:{share}%\"></i></span> {} <small>of {min}–{max}</small>",
        it.target, it.target
    )
}

fn notes(out: &mut String, it: &GroupView, view: &View<'_>) -> fmt::Result {
    let mut notes = String::new();
    if let Some(shunned) = view.snapshot.offerings.shunned(&it.group, view.now) {
        let left = span(shunned.until.since(view.now));
        write!(notes, "<p class=bad>left alone for {left}: {}</p>", Safe(&shunned.why))?;
    } else if let Some(refusal) = it.placeholders().find_map(|place| place.refusal) {
        write!(notes, "<p class=bad>refused ({}): {}</p>", Safe(&refusal.code), Safe(&refusal.message))?;
    }
    if view.snapshot.offerings.shunned(&it.group, view.now).is_none() {
        for (zone, refusal) in view.snapshot.offerings.refusing(&it.group, view.now) {
            let left = span(refusal.until.since(view.now));
            write!(notes, "<p>{} is asked last for {left}: {}</p>", Safe(zone), Safe(&refusal.why))?;
        }
    }
    if it.deleting() > 0 {
        write!(notes, "<p>{} ending</p>", plural(it.deleting(), "machine"))?;
    }
    if let Some(count) = view.unlabelled.get(&it.group.id) {
        let label = Safe(&view.policy.gpu_label);
        write!(
            notes,
            "<p class=bad>{} registered without the label {label}: the autoscaler may buy a second machine for the same pods</p>",
            plural(*count, "GPU node")
        )?;
    }
    for warning in &it.group.warnings {
        write!(notes, "<p class=warn>{}</p>", Safe(warning))?;
    }
    let class = if notes.is_empty() { "notes none" } else { "notes" };
    writeln!(out, "<td class=\"{class}\" data-label=notes>{notes}")
}

/// Machines that the cloud is making and nobody has given up.
fn live_creating(it: &GroupView) -> u32 {
    let creating = |instance: &&InstanceView| instance.is_live() && instance.state == InstanceState::Creating;
    u32::try_from(it.instances.iter().filter(creating).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
