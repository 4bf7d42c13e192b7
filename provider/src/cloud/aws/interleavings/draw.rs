//! Numbers that follow from a seed, so that every story can be told again.

/// Numbers from a seed: Steele, Lea and Flood's SplitMix64.
pub(super) struct Draw(pub(super) u64);

impl Draw {
    /// A number below the limit; 0 when there is none.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit.max(1) as u64).unwrap()
    }
}
