//! Chance with a seed: the same seed and the same subject draw the same number, whatever was drawn before.

/// A number from `seed` and what it is drawn for.
pub(super) fn draw(seed: u64, subject: u64, purpose: &str) -> u64 {
    let purpose = purpose.bytes().fold(0_u64, |sum, byte| sum.rotate_left(7) ^ u64::from(byte));
    mix(mix(mix(seed) ^ subject) ^ purpose)
}

/// A number from 0 to `most`, both included.
pub(super) fn draw_up_to(most: u64, seed: u64, subject: u64, purpose: &str) -> u64 {
    match most.checked_add(1) {
        Some(range) => draw(seed, subject, purpose) % range,
        None => draw(seed, subject, purpose),
    }
}

/// One step of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_subject_draws_the_same_and_another_draws_another() {
        assert_eq!(draw(7, 1, "boot"), draw(7, 1, "boot"));
        assert_ne!(draw(7, 1, "boot"), draw(7, 2, "boot"));
        assert_ne!(draw(7, 1, "boot"), draw(8, 1, "boot"));
        assert_ne!(draw(7, 1, "boot"), draw(7, 1, "device"));
        assert!((0..1000).all(|n| draw_up_to(3, 7, n, "zone") <= 3));
        assert!((0..=3).all(|k| (0..1000).any(|n| draw_up_to(3, 7, n, "zone") == k)));
        assert_eq!(draw_up_to(0, 7, 1, "zone"), 0);
    }
}
