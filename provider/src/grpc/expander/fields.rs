//! The protobuf wire format, as far as walking over the fields of a message needs it. No allocation, no panic.

/// Bytes that are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no protobuf message")]
pub(in crate::grpc) struct Malformed;

/// Calls `visit(number, bytes)` for each field with a length (text, bytes, messages, map entries), in the order they come,
/// and steps over the others.
pub(super) fn each<'a>(
    mut message: &'a [u8],
    mut visit: impl FnMut(u64, &'a [u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => drop(varint(&mut message)?),
            1 => drop(take(&mut message, 8)?),
            2 => {
                let length = varint(&mut message)?;
                visit(key >> 3, take(&mut message, length)?)?;
            }
            5 => drop(take(&mut message, 4)?),
            // Groups were gone before Kubernetes came; 6 and 7 never were.
            _ => return Err(Malformed),
        }
    }
    Ok(())
}

fn take<'a>(message: &mut &'a [u8], length: u64) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let (taken, rest) = message.split_at_checked(length).ok_or(Malformed)?;
    *message = rest;
    Ok(taken)
}

fn varint(message: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().ok_or(Malformed)?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_with_a_length_are_visited_and_others_stepped_over() {
        let mut seen = Vec::new();
        let message = [0x08, 0xac, 0x02, 0x12, 2, b'h', b'i', 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x2a, 0];
        each(&message, |field, bytes| {
            seen.push((field, bytes.to_vec()));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(2, b"hi".to_vec()), (5, Vec::new())]);
    }

    #[test]
    fn what_is_cut_short_or_never_was_is_refused() {
        for message in [
            &[0x12][..],
            &[0x12, 5, b'h'],
            &[0x08],
            &[0x0b],
            &[0x1d, 1],
            &[0xff; 12],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert_eq!(each(message, |_, _| Ok(())), Err(Malformed), "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(message in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = each(&message, |_, inner| each(inner, |_, _| Ok(())));
        }
    }
}
