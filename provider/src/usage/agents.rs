//! Asks the agents, each at its own pace and all within limits, and tells the keeper what it has to hear. A dead agent
//! costs its own row: it shows in a metric, and in the log when that changes.

pub(crate) mod question;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::{net::lookup_host, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use self::question::{Dial, Endpoint, Failure};
use super::{
    read,
    table::{Outcome, State, Table},
};
use crate::{
    Shared,
    config::{self, limits},
    keeper::{Command, clock},
};

/// Asks until told to stop.
///
/// # Errors
/// None; the type is that of a task.
pub(crate) async fn follow(
    settings: config::Agents,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut round = time::interval(settings.interval);
    round.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut agents = Agents {
        settings,
        shared,
        table: Table::default(),
        found: BTreeMap::new(),
        dial: Dial::default(),
        known: true,
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = round.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = agents.ask_all() => {}
        }
    }
}

struct Agents {
    settings: config::Agents,
    shared: Arc<Shared>,
    table: Table,
    /// Where they are, by the name in table, log and nowhere else.
    found: BTreeMap<Arc<str>, Endpoint>,
    dial: Dial,
    /// Whether the last look at the name showed any address.
    known: bool,
}

impl Agents {
    /// One round. Before the first listing there is nobody to speak for.
    async fn ask_all(&mut self) {
        if self.shared.keeper.snapshot().synced_at.is_none() {
            return;
        }
        self.dial.renew(&self.settings).await;
        self.look_up().await;
        let mut due = self.table.due(clock()).into_iter();
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < limits::AGENT_QUESTIONS
                && let Some(agent) = due.next()
            {
                let Some(endpoint) = self.found.get(&agent).cloned() else { continue };
                let dial = self.dial.clone();
                asked.spawn(async move { (agent, dial.usage(&endpoint).await) });
            }
            match asked.join_next().await {
                None => break,
                Some(Ok((agent, answer))) => self.take(&agent, answer).await,
                Some(Err(error)) => tracing::error!("a question to an agent ended: {error}"),
            }
        }
        let fleet = self.shared.keeper.snapshot().fleet.clone();
        self.table.forget(&fleet, clock());
        self.shared.names.iter().for_each(|names| names.forget_gone(&fleet));
        self.shared.metrics.agents(self.table.counts().into_iter().map(|(state, count)| (state.word(), count)));
    }

    /// Where the agents are now. A name that cannot be looked up leaves those that were known, until they are lost.
    async fn look_up(&mut self) {
        let mut found: BTreeMap<_, _> =
            self.settings.urls.iter().map(|url| (url.to_string().into(), Endpoint::of(url))).collect();
        if let Some(name) = &self.settings.address {
            let looked = time::timeout(limits::AGENT_LOOKUP, lookup_host((&*name.host, name.port))).await;
            let addresses =
                looked.map_err(|_| "no answer in time".to_owned()).and_then(|it| it.map_err(|error| error.to_string()));
            let now = clock();
            if addresses.is_ok() != self.known {
                self.known = addresses.is_ok();
                match &addresses {
                    Ok(_) => tracing::info!(%name, "agents are found"),
                    Err(why) => tracing::info!(%name, "no agent is found, as where there is no GPU node: {why}"),
                }
            }
            match addresses {
                Ok(addresses) => {
                    let tls = self.settings.tls.is_some();
                    let addresses: BTreeSet<_> = addresses.collect();
                    found.extend(addresses.into_iter().map(|at| (at.to_string().into(), Endpoint::at(name, at, tls))));
                }
                Err(_) => {
                    let known = std::mem::take(&mut self.found).into_iter();
                    found.extend(known.filter(|(agent, _)| !self.table.is_lost(agent, now)));
                }
            }
        }
        let over = found.len().saturating_sub(limits::AGENTS);
        if over > 0 && self.found.len() < limits::AGENTS {
            tracing::warn!(over, "more agents than can be asked; those are left out");
        }
        self.found = found.into_iter().take(limits::AGENTS).collect();
        self.table.list(self.found.keys());
    }

    /// Takes an answer in, or its lack.
    async fn take(&mut self, agent: &Arc<str>, answer: Result<Vec<u8>, Failure>) {
        let now = clock();
        let said = answer.and_then(|bytes| read(&bytes).map_err(Failure::Unreadable));
        let outcome = match said {
            Err(why) => {
                self.shared.metrics.agent_failed(why.word());
                let outcome = self.table.silent(agent, self.settings.interval, now);
                if outcome.changed.is_some() {
                    tracing::info!(%agent, "an agent cannot be heard: {why}");
                }
                outcome
            }
            Ok(said) => {
                let fleet = &self.shared.keeper.snapshot().fleet;
                let of_node = self.shared.names.as_ref().and_then(|names| names.machine(&said.node));
                let machine = said.machine(fleet, of_node);
                let outcome = self.table.heard(agent, &said, machine, now);
                let name = said.machine.as_deref().unwrap_or(&said.node);
                log(agent, name, &outcome);
                outcome
            }
        };
        for kind in &outcome.ignored {
            self.shared.metrics.agent_notice(*kind, "ignored");
        }
        self.tell(outcome).await;
    }

    /// What the keeper is too busy for now is told in the next round.
    async fn tell(&mut self, outcome: Outcome) {
        for notice in outcome.tell {
            if self.shared.keeper.note(Command::Noticed(notice.clone())).await.is_ok() {
                self.shared.metrics.agent_notice(notice.kind, "told");
                self.table.told(&notice);
            }
        }
    }
}

/// What changed with an agent that answers; nothing, as a rule.
fn log(agent: &str, machine: &str, outcome: &Outcome) {
    match outcome.changed {
        Some((State::Silent, State::Heard)) => tracing::info!(agent, machine, "an agent is heard again"),
        Some((_, State::Heard)) => tracing::debug!(agent, machine, "an agent is heard"),
        Some((_, State::Stranger)) => {
            tracing::info!(agent, machine, "an agent speaks for a machine of no group of ours")
        }
        Some((_, State::Taken)) => {
            tracing::warn!(agent, machine, "not heard: another agent speaks for the same machine");
        }
        Some((_, State::Changed)) => {
            tracing::warn!(agent, machine, "not heard: this address spoke for another machine a moment ago");
        }
        Some((_, State::New | State::Silent)) | None => {}
    }
    if !outcome.ignored.is_empty() {
        tracing::info!(agent, machine, kinds = ?outcome.ignored, "notices that concern nobody here");
    }
}
