//! Random numbers that follow from a seed, on every machine alike.
//!
//! # Sources
//! SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.

/// Where randomness begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seed(pub u64);

/// A generator of the SplitMix64 family.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

/// The golden ratio in 64 bits: the increment that visits every state.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// A generator that follows from `seed`.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        Self { state: seed.0 }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from zero to `most`, both included.
    pub fn up_to(&mut self, most: u64) -> u64 {
        let scaled = (u128::from(self.bits()) * (u128::from(most) + 1)) >> 64;
        u64::try_from(scaled).expect("a product shifted by 64 bits is at most `most`")
    }

    /// A number from `least` to `most`, both included.
    ///
    /// # Panics
    /// When `least` exceeds `most`.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        assert!(least <= most, "an empty range holds no number");
        least + self.up_to(most - least)
    }

    /// True once in `times` calls, on average.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.up_to(times.saturating_sub(1)) == 0
    }

    /// A generator of its own, whose numbers do not depend on how many this one gives later.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self { state: self.bits() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_follows_from_the_seed() {
        let mut random = Random::new(Seed(0));
        // The first numbers of SplitMix64 from state zero, as published with the algorithm.
        assert_eq!(random.bits(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.bits(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_both_ends() {
        let mut random = Random::new(Seed(7));
        let drawn: Vec<u64> = (0..1000).map(|_| random.between(3, 6)).collect();
        assert_eq!(drawn.iter().min(), Some(&3));
        assert_eq!(drawn.iter().max(), Some(&6));
        assert_eq!(Random::new(Seed(1)).up_to(u64::MAX), Random::new(Seed(1)).bits());
    }
}
