//! core/v1 Pods of a `BestOptions` request, read straight from their bytes: a request may name thirty thousand of them,
//! and a choice needs a dozen fields of each. Every length is checked; nothing here can panic.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use prost::bytes::Bytes;
use windlass_proto::quantity;

use super::fields::{Malformed, each};
use crate::expander::{Needs, PodAsk};

/// Pods that CA makes up (proactive scale-up, capacity buffers) carry an annotation of this name, in either spelling.
const MADE_UP: &[u8] = b"podtype";
const GPU_MEMORY: &[u8] = b"nvidia.com/gpu.memory";

/// Pods already read, by uid: most options of a request name the same ones, byte for byte.
#[derive(Default)]
pub(super) struct Pods {
    read: HashMap<Bytes, (Bytes, Arc<PodAsk>)>,
    needs: HashSet<Arc<Needs>>,
}

impl Pods {
    /// Reads a pod, or finds it.
    pub(super) fn get(&mut self, pod: &Bytes) -> Result<Arc<PodAsk>, Malformed> {
        let uid = uid(pod)?;
        if let Some((_, ask)) = self.read.get(uid).filter(|(bytes, _)| bytes == pod) {
            return Ok(ask.clone());
        }
        let mut ask = read(pod)?;
        match self.needs.get(&ask.needs) {
            Some(known) => ask.needs = known.clone(),
            None => drop(self.needs.insert(ask.needs.clone())),
        }
        let ask = Arc::new(ask);
        if !uid.is_empty() {
            self.read.insert(pod.slice_ref(uid), (pod.clone(), ask.clone()));
        }
        Ok(ask)
    }
}

/// `metadata.uid` alone: it comes early, so this costs little.
fn uid(pod: &[u8]) -> Result<&[u8], Malformed> {
    let mut found: &[u8] = &[];
    each(pod, |field, metadata| match field {
        1 if found.is_empty() => each(metadata, |field, value| {
            if field == 5 {
                found = value;
            }
            Ok(())
        }),
        _ => Ok(()),
    })?;
    Ok(found)
}

/// Reads a pod.
pub(in crate::grpc) fn read(pod: &[u8]) -> Result<PodAsk, Malformed> {
    let (mut ask, mut needs) = (PodAsk::default(), Needs::default());
    each(pod, |field, value| {
        match field {
            1 => (ask.uid, ask.name) = metadata(value)?,
            2 => spec(value, &mut needs)?,
            _ => {}
        }
        Ok(())
    })?;
    ask.needs = Arc::new(needs);
    Ok(ask)
}

/// Uid, `namespace/name`. A pod that CA made up has no uid here.
fn metadata(bytes: &[u8]) -> Result<(Arc<str>, Arc<str>), Malformed> {
    let (mut name, mut namespace, mut uid, mut made_up) = (&[][..], &[][..], &[][..], false);
    each(bytes, |field, value| {
        match field {
            1 => name = value,
            3 => namespace = value,
            5 => uid = value,
            12 => made_up |= entry(value)?.0.eq_ignore_ascii_case(MADE_UP),
            _ => {}
        }
        Ok(())
    })?;
    let uid = if made_up { "".into() } else { text(uid).as_ref().into() };
    Ok((uid, format!("{}/{}", text(namespace), text(name)).into()))
}

fn spec(bytes: &[u8], needs: &mut Needs) -> Result<(), Malformed> {
    let (mut sum, mut inits, mut overhead, mut whole) =
        (Requests::default(), Vec::new(), Requests::default(), Requests::default());
    each(bytes, |field, value| {
        match field {
            2 => sum.add(&container(value)?.0),
            7 => {
                let (key, value) = entry(value)?;
                needs.selector.insert(text(key).into_owned(), text(value).into_owned());
            }
            18 => affinity(value, needs)?,
            20 => inits.push(container(value)?),
            32 => overhead.quantity(value, false)?,
            40 => whole = resources(value)?,
            _ => {}
        }
        Ok(())
    })?;
    let mut total = with_inits(sum, &inits);
    total.replace(whole);
    total.add(&overhead);
    (needs.cpu_milli, needs.memory, needs.extended) =
        (total.cpu_milli.unwrap_or(0), total.memory.unwrap_or(0), total.extended);
    Ok(())
}

/// What the scheduler reserves: sidecars run beside the containers; any other init container runs before them, beside the
/// sidecars started so far.
fn with_inits(mut containers: Requests, inits: &[(Requests, bool)]) -> Requests {
    let (mut sidecars, mut peak) = (Requests::default(), Requests::default());
    for (requests, is_sidecar) in inits {
        if *is_sidecar {
            sidecars.add(requests);
            containers.add(requests);
            peak.raise_to(&sidecars);
        } else {
            let mut step = sidecars.clone();
            step.add(requests);
            peak.raise_to(&step);
        }
    }
    containers.raise_to(&peak);
    containers
}

/// Its requests, and whether it is a sidecar (an init container that restarts always).
fn container(bytes: &[u8]) -> Result<(Requests, bool), Malformed> {
    let (mut requests, mut is_sidecar) = (Requests::default(), false);
    each(bytes, |field, value| {
        match field {
            8 => requests = resources(value)?,
            24 => is_sidecar = value == b"Always",
            _ => {}
        }
        Ok(())
    })?;
    Ok((requests, is_sidecar))
}

/// Requests, and limits where no request is given, as the API server defaults them.
fn resources(bytes: &[u8]) -> Result<Requests, Malformed> {
    let mut requests = Requests::default();
    for (wanted, only_absent) in [(2, false), (1, true)] {
        each(bytes, |field, value| if field == wanted { requests.quantity(value, only_absent) } else { Ok(()) })?;
    }
    Ok(requests)
}

/// Required node affinity with one term, as far as it says the same as a selector, or asks for more GPU memory.
fn affinity(bytes: &[u8], needs: &mut Needs) -> Result<(), Malformed> {
    let mut terms: Vec<&[u8]> = Vec::new();
    for node in only(bytes, 1)? {
        for required in only(node, 1)? {
            terms.extend(only(required, 1)?);
        }
    }
    let [term] = terms[..] else { return Ok(()) };
    only(term, 1)?.into_iter().try_for_each(|requirement| expression(requirement, needs))
}

fn expression(bytes: &[u8], needs: &mut Needs) -> Result<(), Malformed> {
    let (mut key, mut operator, mut values) = (&[][..], &[][..], Vec::new());
    each(bytes, |field, value| {
        match field {
            1 => key = value,
            2 => operator = value,
            3 => values.push(value),
            _ => {}
        }
        Ok(())
    })?;
    match (operator, &values[..]) {
        (b"In", [value]) => drop(needs.selector.insert(text(key).into_owned(), text(value).into_owned())),
        (b"Gt", [value]) if key == GPU_MEMORY => needs.gpu_memory_over = text(value).parse().ok(),
        _ => {}
    }
    Ok(())
}

/// Every occurrence of one field.
fn only(message: &[u8], wanted: u64) -> Result<Vec<&[u8]>, Malformed> {
    let mut found = Vec::new();
    each(message, |field, value| {
        if field == wanted {
            found.push(value);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Key and value of one map entry.
fn entry(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut key, mut value) = (&[][..], &[][..]);
    each(bytes, |field, bytes| {
        match field {
            1 => key = bytes,
            2 => value = bytes,
            _ => {}
        }
        Ok(())
    })?;
    Ok((key, value))
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Resource requests; a quantity that is no quantity, or negative, counts as none.
#[derive(Clone, Debug, Default)]
struct Requests {
    cpu_milli: Option<u64>,
    memory: Option<u64>,
    extended: BTreeMap<String, u64>,
}

impl Requests {
    /// One entry of a resource list: `name -> Quantity { string = 1 }`.
    fn quantity(&mut self, map_entry: &[u8], only_absent: bool) -> Result<(), Malformed> {
        let (name, value) = entry(map_entry)?;
        let mut written: &[u8] = &[];
        each(value, |field, bytes| {
            if field == 1 {
                written = bytes;
            }
            Ok(())
        })?;
        let written = text(written);
        let whole = || quantity::value(&written).ok().and_then(|value| u64::try_from(value).ok());
        match name {
            b"cpu" if !(only_absent && self.cpu_milli.is_some()) => {
                self.cpu_milli = quantity::milli_value(&written).ok().and_then(|value| u64::try_from(value).ok());
            }
            b"memory" if !(only_absent && self.memory.is_some()) => self.memory = whole(),
            // Extended resources are the ones with a domain; hugepages and local storage decide nothing here.
            name if name.contains(&b'/') => {
                let name = text(name);
                if !(only_absent && self.extended.contains_key(&*name)) {
                    self.extended.insert(name.into_owned(), whole().unwrap_or(0));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, other: &Self) {
        self.merge(other, u64::saturating_add);
    }

    fn raise_to(&mut self, other: &Self) {
        self.merge(other, u64::max);
    }

    fn merge(&mut self, other: &Self, with: fn(u64, u64) -> u64) {
        for (mine, theirs) in [(&mut self.cpu_milli, other.cpu_milli), (&mut self.memory, other.memory)] {
            if let Some(theirs) = theirs {
                *mine = Some(with(mine.unwrap_or(0), theirs));
            }
        }
        for (name, theirs) in &other.extended {
            match self.extended.get_mut(name) {
                Some(mine) => *mine = with(*mine, *theirs),
                None => drop(self.extended.insert(name.clone(), *theirs)),
            }
        }
    }

    /// Requests of the pod as a whole stand for those of its containers.
    fn replace(&mut self, whole: Self) {
        self.cpu_milli = whole.cpu_milli.or(self.cpu_milli);
        self.memory = whole.memory.or(self.memory);
    }
}

#[cfg(test)]
mod tests;
