//! The purchase memory: which pods already have a machine on its way. CA forgets what it bought when it restarts and
//! miscounts what is arriving in several known cases; here the same demand is bought once, for a bounded time.
//!
//! ```text
//! BestOptions ─ offered ─► question ─ IncreaseSize: purchase ─► purchases: intent ─► seats ─► pods
//!                                                                   │
//!           refused · cancelled: the last seats are free at once ◄──┤
//!           registered: the hold ends `settle` later             ◄──┤
//!           `hold` after the purchase, whatever happened         ◄──┘
//! ```
//!
//! A pod is known by its uid. A seat is one machine of an intent. Where a part of the machines will not come, the seats
//! are given out anew with each question: a pod that CA does not ask about has its place, whichever seat it was bought on.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{PodAsk, packing};
use crate::{
    fleet::group::{GroupId, seconds::required},
    timestamp::Timestamp,
};

/// A question is forgotten this long after it was asked: an increase that comes later was not caused by it.
pub const OFFER_LIFE: Duration = Duration::from_secs(60);
/// After its first increase a question lives on this long, for the similar groups that CA balances over.
pub const CLAIM_LIFE: Duration = Duration::from_secs(10);
/// Most pods remembered; beyond it the oldest purchases are forgotten. CA's own scalability goal is 30,000 pending pods.
pub const MOST_PODS: usize = 200_000;

/// How long, and whether at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Limits {
    /// Off: every increase is carried out in full and nothing is vetoed.
    pub enabled: bool,
    /// No pod is held longer than this after its machine was bought.
    #[serde(with = "required")]
    pub hold: Duration,
    /// A pod that is still pending this long after its machine became a Node may buy again.
    #[serde(with = "required")]
    pub settle: Duration,
}

impl Default for Limits {
    /// `hold` is CA's default for `--max-node-provision-time`; `settle` is ample for a device plugin and a scheduler.
    fn default() -> Self {
        Self { enabled: true, hold: Duration::from_mins(15), settle: Duration::from_mins(3) }
    }
}

/// What one candidate of a question would be bought for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The group that would grow.
    pub group: GroupId,
    /// By how many machines, by CA's estimate.
    pub node_count: u32,
    /// Every pod it would help, covered or not, in the order of the request.
    pub pods: Arc<[Arc<PodAsk>]>,
    /// What one machine leaves for pods; None when the group is not known here.
    pub room: Option<packing::Room>,
}

/// The machine that is on its way for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cover {
    /// Where it was bought.
    pub group: GroupId,
    /// The intent it belongs to.
    pub intent: Arc<str>,
    /// When the pod may buy again at the latest.
    pub until: Timestamp,
}

/// What an increase comes to, once what is already on its way is taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Machines to launch.
    pub launch: u32,
    /// Pods of the offer that are covered already.
    pub covered: u32,
    /// The pods these machines are for, each with its seat.
    pub seats: Vec<(Arc<str>, u32)>,
}

/// One intent and the pods it was bought for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Purchase {
    group: GroupId,
    at: Timestamp,
    /// Machines launched and neither refused, cancelled nor gone.
    alive: u32,
    /// Machines of it that became a Node.
    registered: u32,
    registered_at: Option<Timestamp>,
    pods: Arc<[(Arc<str>, u32)]>,
}

impl Purchase {
    fn until(&self, limits: &Limits) -> Timestamp {
        let hold = self.at + limits.hold;
        match self.registered_at {
            Some(at) if self.registered >= self.alive => hold.min(at + limits.settle),
            _ => hold,
        }
    }
}

/// The last question, kept until an increase claims it.
#[derive(Clone, Debug, Default)]
struct Question {
    at: Timestamp,
    claimed_at: Option<Timestamp>,
    offers: BTreeMap<GroupId, Arc<Offer>>,
}

impl Question {
    fn alive(&self, now: Timestamp) -> bool {
        now.since(self.at) < OFFER_LIFE && self.claimed_at.is_none_or(|at| now.since(at) < CLAIM_LIFE)
    }
}

/// The memory. Cloning it is cheap next to a loop of CA: pods are shared, only the index is copied.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Saved", into = "Saved")]
pub struct Bought {
    limits: Limits,
    question: Question,
    purchases: BTreeMap<Arc<str>, Purchase>,
    /// Pod uid to (intent, seat); may name purchases that are gone.
    pods: HashMap<Arc<str>, (Arc<str>, u32)>,
}

/// What survives a restart. The open question does not: its increase fails with the connection.
#[derive(Serialize, Deserialize)]
struct Saved {
    purchases: BTreeMap<Arc<str>, Purchase>,
}

impl From<Bought> for Saved {
    fn from(bought: Bought) -> Self {
        Self { purchases: bought.purchases }
    }
}

impl From<Saved> for Bought {
    fn from(saved: Saved) -> Self {
        let mut bought = Self { purchases: saved.purchases, ..Self::default() };
        let mut oldest_first: Vec<_> = bought.purchases.iter().collect();
        oldest_first.sort_by_key(|(_, purchase)| purchase.at);
        for (intent, purchase) in oldest_first {
            bought.pods.extend(purchase.pods.iter().map(|(uid, seat)| (uid.clone(), (intent.clone(), *seat))));
        }
        bought
    }
}

impl Bought {
    /// An empty memory.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// New limits (a reloaded configuration, or a restored memory); they hold for what was bought before, too.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Remembers what each candidate of a question was for, until [`Self::purchase`] claims it. Called after every
    /// decision, a veto included, and with every candidate, dropped ones included: CA <= 1.31 takes an empty answer for
    /// "all pass", and every CA may balance an increase over similar groups that the answer did not name.
    pub fn offered(&mut self, offers: Vec<Offer>, now: Timestamp) {
        self.expire(now);
        if self.limits.enabled {
            self.reseat(&offers);
            let offers = offers.into_iter().map(|offer| (offer.group.clone(), Arc::new(offer))).collect();
            self.question = Question { at: now, claimed_at: None, offers };
        }
    }

    /// Of a purchase that lost machines, the pods that are not asked about take the seats that are left: CA or the scheduler
    /// found them a place, and the pods that are asked about go without.
    fn reseat(&mut self, offers: &[Offer]) {
        let holds = |uid: &str, intent: &Arc<str>| self.pods.get(uid).is_some_and(|(of, _)| of == intent);
        let short = |(intent, purchase): &(&Arc<str>, &Purchase)| {
            purchase.pods.iter().any(|(uid, seat)| *seat >= purchase.alive && holds(uid, intent))
        };
        let mut short = self.purchases.iter().filter(short).peekable();
        if short.peek().is_none() {
            return;
        }
        let pending: HashSet<&str> = offers.iter().flat_map(|offer| offer.pods.iter()).map(|pod| &*pod.uid).collect();
        let mut moves = Vec::new();
        for (intent, purchase) in short {
            let pods = || purchase.pods.iter().enumerate().filter(|(_, (uid, _))| holds(uid, intent));
            let placed = pods().filter(|(_, (uid, seat))| *seat >= purchase.alive && !pending.contains(&**uid));
            let waiting = pods().filter(|(_, (uid, seat))| *seat < purchase.alive && pending.contains(&**uid));
            for ((a, (_, seat_a)), (b, (_, seat_b))) in placed.zip(waiting) {
                moves.extend([(intent.clone(), a, *seat_b), (intent.clone(), b, *seat_a)]);
            }
        }
        for (intent, place, seat) in moves {
            let Some(purchase) = self.purchases.get_mut(&intent) else { continue };
            let pod = &mut Arc::make_mut(&mut purchase.pods)[place];
            pod.1 = seat;
            self.pods.insert(pod.0.clone(), (intent, seat));
        }
    }

    /// Claims what was last offered for the group and answers how many of `delta` machines to launch. All of them
    /// when nothing was offered (a minimum size, a scale-up that another expander decided) or nothing is covered;
    /// fewer when a part of the pods has machines on their way; none when all of them have.
    ///
    /// None, answered OK, is what a CA <= 1.31 gets that scales up after a veto. Refusing it would make CA back off the
    /// group for minutes, and then the next pod, which nothing covers, could not buy there; an OK that raises no
    /// target leaves CA content, and it asks again in its next loop.
    ///
    /// A claim is consumed: the same increase a second time is a second increase.
    pub fn purchase(&mut self, group: &GroupId, intent: &str, delta: u32, now: Timestamp) -> u32 {
        self.expire(now);
        if !self.limits.enabled {
            return delta;
        }
        let Some(offer) = self.question.offers.remove(group) else { return delta };
        self.question.claimed_at.get_or_insert(now);
        let plan = self.plan(&offer, delta, now);
        if plan.launch > 0 && !plan.seats.is_empty() {
            let (group, pods) = (group.clone(), plan.seats.into());
            let (registered, registered_at) = (0, None);
            self.remember(intent, Purchase { group, at: now, alive: plan.launch, registered, registered_at, pods });
        }
        plan.launch
    }

    /// What [`Self::purchase`] would answer for this offer, without buying.
    #[must_use]
    pub fn plan(&self, offer: &Offer, delta: u32, now: Timestamp) -> Plan {
        let open = offer.pods.iter().filter(|pod| !self.covers(&pod.uid, now));
        let open = largest_first(open.map(Arc::as_ref));
        let covered = offer.pods.len() - open.len();
        let seats = seats(offer, &open);
        let needed = machines(&seats);
        let launch = match (open.len(), covered) {
            (_, 0) => delta,
            (0, _) => 0,
            // CA may go beyond its own estimate (all-or-nothing groups): that surplus is its wish, not a miscount.
            _ => delta.min(needed.max(1).saturating_add(delta.saturating_sub(offer.node_count))),
        };
        let held = open.iter().zip(seats).filter(|(pod, seat)| *seat < launch && !pod.uid.is_empty());
        let seats = held.map(|(pod, seat)| (pod.uid.clone(), seat)).collect();
        Plan { launch, covered: u32::try_from(covered).unwrap_or(u32::MAX), seats }
    }

    /// Machines of this intent will not come: their pods may buy again at once.
    pub fn refused(&mut self, intent: &str, machines: u32) {
        self.lose(intent, machines);
    }

    /// The same for machines that are no longer wanted (DecreaseTargetSize, a placeholder or a machine deleted) or gone.
    pub fn cancelled(&mut self, intent: &str, machines: u32) {
        self.lose(intent, machines);
    }

    /// One machine of this intent became a Node. When all of them have, the hold ends `settle` later.
    pub fn registered(&mut self, intent: &str, now: Timestamp) {
        if let Some(purchase) = self.purchases.get_mut(intent) {
            purchase.registered = purchase.registered.saturating_add(1);
            purchase.registered_at = Some(now);
        }
    }

    /// Forgets what time has ended. Answers are right without it; this keeps the memory small.
    pub fn expire(&mut self, now: Timestamp) {
        if !self.question.alive(now) {
            self.question = Question::default();
        }
        let before = self.purchases.len();
        self.purchases.retain(|_, purchase| now < purchase.until(&self.limits));
        if self.purchases.len() != before {
            self.forget_orphans();
        }
    }

    /// The machine on its way for a pod; None when it has none, or when it may buy again.
    #[must_use]
    pub fn cover(&self, pod_uid: &str, now: Timestamp) -> Option<Cover> {
        let (intent, purchase, until) = self.held(pod_uid, now)?;
        Some(Cover { group: purchase.group.clone(), intent: intent.clone(), until })
    }

    /// Whether a pod has a machine on its way: [`Self::cover`] without the details.
    #[must_use]
    pub fn covers(&self, pod_uid: &str, now: Timestamp) -> bool {
        !self.pods.is_empty() && self.held(pod_uid, now).is_some()
    }

    /// Whether no pod at all is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn held(&self, pod_uid: &str, now: Timestamp) -> Option<(&Arc<str>, &Purchase, Timestamp)> {
        let (intent, seat) = self.pods.get(pod_uid).filter(|_| self.limits.enabled)?;
        let purchase = self.purchases.get(intent).filter(|purchase| *seat < purchase.alive)?;
        let until = purchase.until(&self.limits);
        (now < until).then_some((intent, purchase, until))
    }

    /// How many pods are covered now, for people and for a gauge.
    #[must_use]
    pub fn covered_pods(&self, now: Timestamp) -> usize {
        self.pods.keys().filter(|uid| self.covers(uid, now)).count()
    }

    fn remember(&mut self, intent: &str, purchase: Purchase) {
        let intent: Arc<str> = intent.into();
        self.pods.extend(purchase.pods.iter().map(|(uid, seat)| (uid.clone(), (intent.clone(), *seat))));
        self.purchases.insert(intent, purchase);
        while self.pods.len() > MOST_PODS {
            let oldest = self.purchases.iter().min_by_key(|(_, purchase)| purchase.at);
            let Some(oldest) = oldest.map(|(intent, _)| intent.clone()) else { break };
            self.purchases.remove(&oldest);
            self.forget_orphans();
        }
    }

    fn lose(&mut self, intent: &str, machines: u32) {
        let Some(purchase) = self.purchases.get_mut(intent) else { return };
        purchase.alive = purchase.alive.saturating_sub(machines);
        if purchase.alive == 0 {
            self.purchases.remove(intent);
            self.forget_orphans();
        }
    }

    fn forget_orphans(&mut self) {
        self.pods.retain(|_, (intent, _)| self.purchases.contains_key(intent));
    }
}

/// Which machine each uncovered pod would be on. First-fit where it agrees with CA's estimate for the whole offer; where
/// CA counted more machines it knows a constraint that we do not (anti-affinity, a DaemonSet), and the pods are spread
/// evenly over their share of that estimate. So never fewer machines than CA's own reasons ask for.
fn seats(offer: &Offer, open: &[&PodAsk]) -> Vec<u32> {
    let most = offer.node_count.max(1);
    if let Some(room) = &offer.room {
        let all = largest_first(offer.pods.iter().map(Arc::as_ref));
        if packed(&all, room, most).is_some_and(|seats| machines(&seats) == most)
            && let Some(seats) = packed(open, room, most)
        {
            return seats;
        }
    }
    let (all, some) = (offer.pods.len().max(1) as u64, open.len().max(1) as u64);
    let share = (u64::from(most) * some).div_ceil(all);
    (0..open.len() as u64).map(|place| u32::try_from(place * share / some).unwrap_or(most - 1)).collect()
}

/// First-fit of all of them, or nothing when one finds no place.
fn packed(pods: &[&PodAsk], room: &packing::Room, most: u32) -> Option<Vec<u32>> {
    packing::first_fit(pods.iter().copied(), room, most).into_iter().collect()
}

fn machines(seats: &[u32]) -> u32 {
    seats.iter().max().map_or(0, |last| last + 1)
}

/// The order CA packs in, made total, so that the order of a request changes nothing.
fn largest_first<'a>(pods: impl Iterator<Item = &'a PodAsk>) -> Vec<&'a PodAsk> {
    let mut pods: Vec<_> = pods.collect();
    pods.sort_by(|a, b| {
        let size = |pod: &PodAsk| (pod.needs.extended.values().copied().max(), pod.needs.cpu_milli, pod.needs.memory);
        size(b).cmp(&size(a)).then_with(|| (&a.uid, &a.name).cmp(&(&b.uid, &b.name)))
    });
    pods
}

#[cfg(test)]
mod tests;
