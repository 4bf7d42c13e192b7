//! From what is written to what it means: sizes, durations and prices become numbers, and what one key says about
//! another is checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use serde_saphyr::{Location, Spanned};
use windlass_proto::quantity;

use crate::fleet::{
    group::{Gpus, Group, GroupId, Shape, Taint, seconds},
    prices::{PriceOrigin, PriceSource},
};

use super::{
    Event, Happening, Scenario, ScenarioError, SimGroup, Spans,
    written::{Text, Written, WrittenEvent, WrittenGpu, WrittenGroup, WrittenTimes},
};

/// What a machine does when the scenario does not say: quick enough to watch, slow enough to see each stage.
const SPANS: Spans = Spans {
    pending: Duration::from_secs(1),
    boot: Duration::from_secs(2),
    device: Duration::from_secs(3),
    jitter: Duration::ZERO,
    shutdown: Duration::from_secs(2),
};
/// EC2 gives two minutes before it takes a spot instance back.
const NOTICE: Duration = Duration::from_secs(120);
/// What a machine's root volume holds when the scenario does not say.
const EPHEMERAL_STORAGE: u64 = 100 << 30;
/// Most a machine costs, in dollars an hour: beyond it the number is a slip of the pen.
const MOST_PRICE: f64 = 1_000_000.0;

/// A place in the file and where the key stands in the tree: what every complaint begins with.
struct At<'a> {
    file: &'a Path,
    path: String,
}

impl At<'_> {
    fn under(&self, key: &str) -> At<'_> {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        At { file: self.file, path }
    }

    fn wrong(&self, place: Location, what: impl std::fmt::Display) -> ScenarioError {
        let what = format!("{}: {what}", self.path);
        ScenarioError { file: self.file.to_owned(), line: place.line(), column: place.column(), what }
    }

    fn milli_cpu(&self, text: &Text) -> Result<u64, ScenarioError> {
        self.quantity(text, quantity::milli_value(&text.value), "a CPU count such as 8 or 500m")
    }

    fn bytes(&self, text: &Text) -> Result<u64, ScenarioError> {
        self.quantity(text, quantity::value(&text.value), "a size such as 32Gi")
    }

    fn quantity<E: std::fmt::Display>(
        &self,
        text: &Text,
        read: Result<i64, E>,
        such_as: &str,
    ) -> Result<u64, ScenarioError> {
        let wrong = |why: &dyn std::fmt::Display| {
            self.wrong(text.referenced, format!("\"{}\" is not {such_as}: {why}", text.value))
        };
        let number = read.map_err(|why| wrong(&why))?;
        u64::try_from(number).map_err(|_| wrong(&"it is negative"))
    }

    fn span(&self, text: Option<&Text>, default: Duration) -> Result<Duration, ScenarioError> {
        let Some(text) = text else { return Ok(default) };
        seconds::parse(&text.value).map_err(|why| self.wrong(text.referenced, why))
    }
}

/// The whole scenario, consistent.
pub(super) fn checked(written: Written, file: &Path) -> Result<Scenario, ScenarioError> {
    let top = At { file, path: String::new() };
    if written.groups.value.is_empty() {
        let what = "there is none; describe at least one group with id, max, instanceType, cpu and memory";
        return Err(top.under("groups").wrong(written.groups.referenced, what));
    }
    let common = common(&top.under("machines"), &written.machines)?;
    let mut groups = BTreeMap::new();
    for (number, one) in written.groups.value.into_iter().enumerate() {
        let at = top.under(&format!("groups[{number}]"));
        let place = one.id.referenced;
        let group = group(&at, one, &common)?;
        let id = group.group.id.clone();
        if groups.insert(id.clone(), group).is_some() {
            return Err(at.under("id").wrong(place, format!("\"{id}\" is there twice; rename one of them")));
        }
    }
    let mut events = Vec::new();
    for (number, one) in written.events.into_iter().enumerate() {
        events.push(event(&top.under(&format!("events[{number}]")), one, &groups)?);
    }
    events.sort_by_key(|event| event.at);
    Ok(Scenario { seed: written.seed, gpu_label: written.gpu_label, groups, events })
}

fn group(at: &At<'_>, written: WrittenGroup, common: &Spans) -> Result<SimGroup, ScenarioError> {
    if written.id.value.trim().is_empty() {
        return Err(at.under("id").wrong(written.id.referenced, "it is empty; give the group a name"));
    }
    let (min, max) = (written.min, written.max.value);
    if min > max {
        let what = format!("the maximum {max} is below the minimum {min}; raise max or lower min");
        return Err(at.under("max").wrong(written.max.referenced, what));
    }
    let initial = written.initial.as_ref().map_or(min, |initial| initial.value);
    if let Some(written) = &written.initial
        && (initial < min || initial > max)
    {
        let what = format!("{initial} machines at the start is outside {min} to {max}");
        return Err(at.under("initial").wrong(written.referenced, what));
    }
    let zones = zones(at, &written)?;
    let limits = written.capacity.as_ref().map(|limits| capacity(&at.under("capacity"), limits, &zones)).transpose()?;
    let (shape, price_micros, spans) = (shape(at, &written)?, price(at, &written)?, spans(at, &written, common)?);
    let group = Group {
        id: written.id.value.into(),
        min,
        max,
        market: written.market,
        region: written.region,
        zones,
        shape,
        labels: written.labels,
        taints: taints(&at.under("taints"), written.taints)?,
        price_micros,
        price_origin: price_micros.map(|_| PriceOrigin {
            source: PriceSource::Scenario,
            at: None,
            zones: BTreeMap::new(),
        }),
        overrides: written.options,
        warnings: Vec::new(),
    };
    Ok(SimGroup { group, spans, capacity: limits.unwrap_or_default(), initial })
}

/// In order of name, without repetition; one zone named after the region when none is given.
fn zones(at: &At<'_>, written: &WrittenGroup) -> Result<Vec<String>, ScenarioError> {
    let Some(zones) = &written.zones else { return Ok(vec![format!("{}a", written.region)]) };
    let names: BTreeSet<&String> = zones.value.iter().collect();
    if names.is_empty() || names.iter().any(|zone| zone.trim().is_empty()) {
        let what = "a zone without a name, or no zone at all; name at least one, or leave the key out";
        return Err(at.under("zones").wrong(zones.referenced, what));
    }
    Ok(names.into_iter().cloned().collect())
}

fn capacity(
    at: &At<'_>,
    written: &Spanned<BTreeMap<String, u32>>,
    zones: &[String],
) -> Result<BTreeMap<String, u32>, ScenarioError> {
    if let Some(zone) = written.value.keys().find(|zone| !zones.contains(zone)) {
        let what = format!("\"{zone}\" is not a zone of this group; its zones are {}", zones.join(", "));
        return Err(at.wrong(written.referenced, what));
    }
    Ok(written.value.clone())
}

fn shape(at: &At<'_>, written: &WrittenGroup) -> Result<Shape, ScenarioError> {
    let reserved = written.reserved.as_ref();
    let storage = written.ephemeral_storage.as_ref().map(|text| at.under("ephemeralStorage").bytes(text));
    let held_cpu = reserved.and_then(|held| held.cpu.as_ref()).map(|text| at.under("reserved.cpu").milli_cpu(text));
    let held_memory =
        reserved.and_then(|held| held.memory.as_ref()).map(|text| at.under("reserved.memory").bytes(text));
    let shape = Shape {
        instance_type: written.instance_type.clone(),
        arch: written.arch.clone(),
        cpu_milli: at.under("cpu").milli_cpu(&written.cpu)?,
        memory: at.under("memory").bytes(&written.memory)?,
        ephemeral_storage: storage.transpose()?.unwrap_or(EPHEMERAL_STORAGE),
        pods: written.pods,
        reserved_cpu_milli: held_cpu.transpose()?.unwrap_or(0),
        reserved_memory: held_memory.transpose()?.unwrap_or(0),
        reserved_ephemeral_storage: 0,
        extended: BTreeMap::new(),
        gpus: written.gpu.as_ref().map(|gpu| gpus(&at.under("gpu"), gpu)).transpose()?,
    };
    if shape.cpu_milli <= shape.reserved_cpu_milli {
        let what = "nothing is left for pods; write more, or reserve less";
        return Err(at.under("cpu").wrong(written.cpu.referenced, what));
    }
    if shape.memory <= shape.reserved_memory {
        let what = "nothing is left for pods; write more, or reserve less";
        return Err(at.under("memory").wrong(written.memory.referenced, what));
    }
    Ok(shape)
}

fn gpus(at: &At<'_>, written: &WrittenGpu) -> Result<Gpus, ScenarioError> {
    if written.count.value == 0 {
        let what = "a machine with no GPU; leave the whole gpu key out";
        return Err(at.under("count").wrong(written.count.referenced, what));
    }
    Ok(Gpus {
        model: written.model.clone(),
        count: written.count.value,
        memory_mib: at.under("memory").bytes(&written.memory)? >> 20,
        resource: written.resource.clone(),
    })
}

fn price(at: &At<'_>, written: &WrittenGroup) -> Result<Option<u64>, ScenarioError> {
    let Some(price) = &written.price else { return Ok(None) };
    if !(0.0..=MOST_PRICE).contains(&price.value) {
        let what = format!("{} is no price; write US dollars for one machine for one hour, such as 1.006", price.value);
        return Err(at.under("price").wrong(price.referenced, what));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above: 0 to 1e12 micros")]
    let micros = (price.value * 1e6).round() as u64;
    Ok(Some(micros))
}

/// For every group that does not say otherwise.
fn common(at: &At<'_>, written: &WrittenTimes) -> Result<Spans, ScenarioError> {
    Ok(Spans {
        pending: at.under("pendingTime").span(written.pending_time.as_ref(), SPANS.pending)?,
        boot: at.under("bootTime").span(written.boot_time.as_ref(), SPANS.boot)?,
        device: at.under("deviceDelay").span(written.device_delay.as_ref(), SPANS.device)?,
        jitter: at.under("jitter").span(written.jitter.as_ref(), SPANS.jitter)?,
        shutdown: at.under("shutdownTime").span(written.shutdown_time.as_ref(), SPANS.shutdown)?,
    })
}

fn spans(at: &At<'_>, written: &WrittenGroup, common: &Spans) -> Result<Spans, ScenarioError> {
    Ok(Spans {
        pending: at.under("pendingTime").span(written.pending_time.as_ref(), common.pending)?,
        boot: at.under("bootTime").span(written.boot_time.as_ref(), common.boot)?,
        device: at.under("deviceDelay").span(written.device_delay.as_ref(), common.device)?,
        jitter: at.under("jitter").span(written.jitter.as_ref(), common.jitter)?,
        shutdown: at.under("shutdownTime").span(written.shutdown_time.as_ref(), common.shutdown)?,
    })
}

fn taints(at: &At<'_>, written: Vec<Spanned<Taint>>) -> Result<Vec<Taint>, ScenarioError> {
    for taint in &written {
        if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&taint.value.effect.as_str()) {
            let what =
                format!("\"{}\" is not an effect; write NoSchedule, PreferNoSchedule or NoExecute", taint.value.effect);
            return Err(at.wrong(taint.referenced, what));
        }
    }
    Ok(written.into_iter().map(|taint| taint.value).collect())
}

fn event(
    at: &At<'_>,
    written: Spanned<WrittenEvent>,
    groups: &BTreeMap<GroupId, SimGroup>,
) -> Result<Event, ScenarioError> {
    let place = written.referenced;
    let written = written.value;
    let group = match &written.group {
        None => None,
        Some(name) => Some(groups.get(name.value.as_str()).ok_or_else(|| {
            let known: Vec<&str> = groups.keys().take(8).map(GroupId::as_str).collect();
            let what = format!("there is no group \"{}\"; there are {}", name.value, known.join(", "));
            at.under("group").wrong(name.referenced, what)
        })?),
    };
    let needs_group = |key: &str| at.under(key).wrong(place, "it needs a group; add group: and the id of one");
    let mut happenings = Vec::new();
    happenings.extend(written.stock_out.map(Happening::StockOut));
    happenings.extend(written.quota.map(Happening::Quota));
    happenings.extend(written.never_register.map(Happening::NeverRegister));
    happenings.extend(written.fail_calls.map(Happening::FailCalls));
    if let Some(zones) = &written.capacity {
        let group = group.ok_or_else(|| needs_group("capacity"))?;
        happenings.push(Happening::Capacity(capacity(&at.under("capacity"), zones, &group.group.zones)?));
    }
    if let Some(by) = &written.slow_calls {
        happenings.push(Happening::SlowCalls(at.under("slowCalls").span(Some(by), Duration::ZERO)?));
    }
    if let Some(interrupt) = &written.interrupt {
        group.ok_or_else(|| needs_group("interrupt"))?;
        let notice = at.under("interrupt.notice").span(interrupt.notice.as_ref(), NOTICE)?;
        happenings.push(Happening::Interrupt { instances: interrupt.instances, notice });
    }
    let [happening] = <[Happening; 1]>::try_from(happenings).map_err(|found| {
        let what = format!(
            "{} things happen; write exactly one of stockOut, capacity, quota, interrupt, neverRegister, slowCalls, failCalls",
            found.len()
        );
        at.wrong(place, what)
    })?;
    let lasts = written.lasts.as_ref().map(|text| at.under("for").span(Some(text), Duration::ZERO)).transpose()?;
    let group = group.map(|group| group.group.id.clone());
    Ok(Event { at: at.under("at").span(Some(&written.at), Duration::ZERO)?, lasts, group, happening })
}
