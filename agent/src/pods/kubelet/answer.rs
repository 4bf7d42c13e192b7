//! The kubelet's answer as it travels, read where it lies: of 16 MiB only what is kept is ever copied, whatever the rest is made of.
//! Messages are walked field by field; numbers of fields are upstream's, as in `podresources.proto`.

use std::sync::Arc;

use prost::DecodeError;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::{Assignment, Owner};

/// Device ids kept out of one answer: 16 GPUs with 48 replicas each, ten times over.
pub(super) const ASSIGNMENTS_MAX: usize = 8192;
/// Longest name and longest id taken, in bytes: Kubernetes allows names of 253.
pub(super) const NAME_MAX: usize = 253;
/// NVIDIA's driver for claims (DRA).
const CLAIM_DRIVER: &[u8] = b"gpu.nvidia.com";

/// What is kept of a `ListPodResourcesResponse`. Only GPUs are kept: a node's other devices are many and none of our business.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Within the limit.
    pub(super) found: Vec<Assignment>,
    /// How many devices were named.
    pub(super) named: usize,
}

impl prost::Message for Answer {
    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if (tag, wire) != (1, WireType::LengthDelimited) {
            return skip_field(wire, tag, from, context);
        }
        let length = decode_varint(from)?;
        match usize::try_from(length) {
            // The bytes of a message that lies in one piece are shared and not copied.
            Ok(length) if length <= from.remaining() => self.pod(&from.copy_to_bytes(length)),
            _ => Err(cut()),
        }
    }
}

impl Answer {
    fn pod(&mut self, pod: &[u8]) -> Result<(), DecodeError> {
        let mut names: Option<(Arc<str>, Arc<str>)> = None;
        for container in fields(pod, 3) {
            let container = container?;
            let mut owner = None;
            each_gpu(container, &mut |id, claimed| {
                self.named += 1;
                if self.found.len() >= ASSIGNMENTS_MAX {
                    return Ok(());
                }
                let names = match &names {
                    Some(names) => names,
                    None => names.insert((name(field(pod, 2)?), name(field(pod, 1)?))),
                };
                let owner = match &owner {
                    Some(owner) => owner,
                    None => {
                        let (namespace, pod) = names.clone();
                        owner.insert(Arc::new(Owner { namespace, pod, container: name(field(container, 1)?) }))
                    }
                };
                self.found.push(Assignment { owner: Arc::clone(owner), device_id: (&*name(id)).into(), claimed });
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// The ids of a container's GPUs: from device plugins, then from claims. A claim that several share (share_id) names the same device for each of them.
fn each_gpu<'a>(
    container: &'a [u8],
    take: &mut impl FnMut(&'a [u8], bool) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    for devices in fields(container, 2) {
        let devices = devices?;
        let resource = field(devices, 1)?;
        for id in fields(devices, 2) {
            let id = id?;
            if is_gpu(resource, id) {
                take(id, false)?;
            }
        }
    }
    for claim in fields(container, 5) {
        for device in fields(claim?, 4) {
            let device = device?;
            if field(device, 2)? == CLAIM_DRIVER {
                take(field(device, 4)?, true)?;
            }
        }
    }
    Ok(())
}

/// `nvidia.com/gpu`, `nvidia.com/gpu.shared`, `nvidia.com/mig-1g.10gb`, the names that operators give with `renameByDefault`; and any resource whose
/// ids are a driver's own.
fn is_gpu(resource: &[u8], id: &[u8]) -> bool {
    resource.starts_with(b"nvidia.com/") || id.starts_with(b"GPU-") || id.starts_with(b"MIG-")
}

/// A name as text, whatever its bytes are, and no longer than a name can be.
fn name(bytes: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(bytes.get(..NAME_MAX).unwrap_or(bytes)).into()
}

/// Every field of this number, in order: bytes, or a message within this one.
fn fields(message: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8], DecodeError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            match next(&mut rest) {
                Ok((found, Some(bytes))) if found == number => return Some(Ok(bytes)),
                Ok(_) => {}
                Err(error) => {
                    rest = &[];
                    return Some(Err(error));
                }
            }
        }
        None
    })
}

/// The field of this number; of several the last, as protobuf has it, and nothing where there is none.
fn field(message: &[u8], number: u32) -> Result<&[u8], DecodeError> {
    fields(message, number).try_fold(&[][..], |_, found| found)
}

/// The next field: its number, and what it holds if that has a length.
fn next<'a>(rest: &mut &'a [u8]) -> Result<(u32, Option<&'a [u8]>), DecodeError> {
    let (number, wire) = decode_key(rest)?;
    if wire != WireType::LengthDelimited {
        skip_field(wire, number, rest, DecodeContext::default())?;
        return Ok((number, None));
    }
    let length = usize::try_from(decode_varint(rest)?).map_err(|_| cut())?;
    let (bytes, after) = rest.split_at_checked(length).ok_or_else(cut)?;
    *rest = after;
    Ok((number, Some(bytes)))
}

fn cut() -> DecodeError {
    #[expect(deprecated, reason = "prost has no other way to make one outside of its own code")]
    DecodeError::new("a field is longer than its message")
}
