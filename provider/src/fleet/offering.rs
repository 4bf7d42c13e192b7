//! What was refused lately, by (instance type, zone, market) and by group, and until when it is better left alone.
//! A stock-out met by one group holds for every group that buys the same thing in the same place.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    fleet::group::{Group, Market, Refusal, RefusalClass},
    timestamp::Timestamp,
};

/// How long a refusal is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Backoff {
    /// After the first refusal.
    #[serde(with = "crate::fleet::group::seconds::required")]
    pub initial_backoff: Duration,
    /// It doubles with each further one, up to this.
    #[serde(with = "crate::fleet::group::seconds::required")]
    pub max_backoff: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial_backoff: Duration::from_secs(60), max_backoff: Duration::from_secs(30 * 60) }
    }
}

/// What a refusal is remembered under; text, because the memory is kept as JSON. Built by [`offering`] (what is bought
/// where), [`group`] (how it is asked for) and [`machines`] (what comes of it).
type Key = String;

/// One thing that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    why: String,
    /// How often in a row.
    times: u32,
    until: Timestamp,
}

/// Why a group is better left alone, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shunned {
    /// A sentence for people.
    pub why: String,
    /// From then on one machine may be asked for, as a probe.
    pub until: Timestamp,
}

/// What a probe has to prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probation {
    /// That the cloud gives a machine.
    Launches,
    /// That the machine becomes a Node.
    Registers,
}

/// The memory of refusals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offerings {
    /// How long things are remembered.
    #[serde(skip)]
    pub backoff: Backoff,
    refused: BTreeMap<Key, Memory>,
}

impl Offerings {
    /// An empty memory.
    #[must_use]
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, refused: BTreeMap::new() }
    }

    /// A cloud said no to a machine of this group; `zone` where it named one, else all of the group's zones are meant.
    /// A throttled call says nothing about capacity and is not remembered.
    pub fn note_refusal(&mut self, of: &Group, zone: Option<&str>, refusal: &Refusal, now: Timestamp) {
        let why = format!("{}: {}", refusal.code, refusal.message);
        match refusal.class {
            RefusalClass::NoCapacity | RefusalClass::Quota => {
                for place in of.zones.iter().filter(|place| zone.is_none_or(|zone| zone == *place)) {
                    self.note(offering(&of.shape.instance_type, place, of.market), why.clone(), now);
                }
            }
            RefusalClass::Configuration | RefusalClass::Permission => self.note(group(of), why, now),
            RefusalClass::Throttled => {}
        }
    }

    /// A machine of this group ran and never became a Node.
    pub fn note_never_registered(&mut self, of: &Group, now: Timestamp) {
        self.note(machines(of), "its machines start but never register as nodes".to_owned(), now);
    }

    /// The cloud gave what was asked in this zone: nothing refuses there any more. Says nothing of whether the machine
    /// registers.
    pub fn note_launched(&mut self, of: &Group, zone: &str) {
        self.refused.remove(&offering(&of.shape.instance_type, zone, of.market));
        self.refused.remove(&group(of));
    }

    /// A machine of this group became a Node: its machines do register. Says nothing of whether there are more to be
    /// had: it was launched a while ago.
    pub fn note_success(&mut self, of: &Group) {
        self.refused.remove(&machines(of));
    }

    /// Whether the group is better left alone now: something is wrong with the group itself, or every one of its zones
    /// refused lately.
    #[must_use]
    pub fn shunned(&self, of: &Group, now: Timestamp) -> Option<Shunned> {
        let active = |memory: &&Memory| memory.until > now;
        let shunned = |memory: &Memory| Shunned { why: memory.why.clone(), until: memory.until };
        let own = [group(of), machines(of)].map(|key| self.refused.get(&key).filter(active));
        if let Some(memory) = own.into_iter().flatten().max_by_key(|memory| memory.until) {
            return Some(shunned(memory));
        }
        let zones: Option<Vec<&Memory>> = self.zones(of).map(|memory| memory.filter(active)).collect();
        zones?.into_iter().min_by_key(|memory| memory.until).map(shunned)
    }

    /// The group's zones that refused lately, each with why and until when.
    pub fn refusing<'a>(&'a self, of: &'a Group, now: Timestamp) -> impl Iterator<Item = (&'a str, Shunned)> {
        let memories = of.zones.iter().zip(self.zones(of));
        let active = memories.filter_map(move |(zone, memory)| Some((zone, memory.filter(|it| it.until > now)?)));
        active.map(|(zone, memory)| (zone.as_str(), Shunned { why: memory.why.clone(), until: memory.until }))
    }

    /// What the next machine of this group has to prove, alone, before others are asked for. None when nothing was
    /// refused since the last good news.
    #[must_use]
    pub fn probation(&self, of: &Group) -> Option<Probation> {
        if self.refused.contains_key(&machines(of)) {
            return Some(Probation::Registers);
        }
        let refused = self.refused.contains_key(&group(of)) || self.zones(of).all(|memory| memory.is_some());
        refused.then_some(Probation::Launches)
    }

    /// The group's zones in the order in which they are best asked: those that refused lately last, the one whose
    /// refusal ends first before the others; among equals the one that holds fewest machines of the group.
    #[must_use]
    pub fn in_order(&self, of: &Group, held: impl Fn(&str) -> u32) -> Vec<String> {
        let memory = |zone: &str| self.refused.get(&offering(&of.shape.instance_type, zone, of.market));
        let until = |zone: &str| memory(zone).map_or(Timestamp(0), |memory| memory.until);
        let mut zones = of.zones.clone();
        zones.sort_by_cached_key(|zone| (until(zone), held(zone), zone.clone()));
        zones
    }

    /// Forgets what nobody has refused again for long: a probe then says nothing new.
    pub fn expire(&mut self, now: Timestamp) {
        let keep = self.backoff.max_backoff;
        self.refused.retain(|_, memory| memory.until + keep > now);
    }

    fn zones<'a>(&'a self, of: &'a Group) -> impl Iterator<Item = Option<&'a Memory>> {
        of.zones.iter().map(|zone| self.refused.get(&offering(&of.shape.instance_type, zone, of.market)))
    }

    /// Refusals that arrive while the thing is left alone anyway are the tail of the same event and count once.
    fn note(&mut self, key: Key, why: String, now: Timestamp) {
        let Backoff { initial_backoff, max_backoff } = self.backoff;
        let memory = self.refused.entry(key).or_insert(Memory { why: String::new(), times: 0, until: now });
        if memory.times == 0 || memory.until <= now {
            let factor = 2_u32.saturating_pow(memory.times);
            memory.times = memory.times.saturating_add(1);
            memory.until = now + initial_backoff.saturating_mul(factor).min(max_backoff);
        }
        memory.why = why;
    }
}

fn offering(instance_type: &str, zone: &str, market: Market) -> Key {
    let market = match market {
        Market::Spot => "spot",
        Market::OnDemand => "on-demand",
    };
    format!("offering {instance_type} {zone} {market}")
}

fn group(of: &Group) -> Key {
    format!("group {}", of.id)
}

fn machines(of: &Group) -> Key {
    format!("machines {}", of.id)
}

#[cfg(test)]
mod tests;
