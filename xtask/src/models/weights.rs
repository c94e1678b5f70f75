//! Seeded weights, equal to the bit on every machine.
//!
//! Each tensor has a stream of its own, keyed by the model's seed and the tensor's name: cutting a
//! model into stages, or adding a layer, leaves every other tensor as it was.
//!
//! # Invariants
//! 1. Only integer arithmetic, IEEE 754 division, multiplication and square root are used. They
//!    are exactly rounded everywhere; `ln` and `cos` are not, which is why the weights are uniform
//!    and not normal.
//! 2. A sample has 24 random bits, so it is exact as `f32` before it is scaled.
//!
//! # Sources
//! - Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014: SplitMix64.
//! - He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", ICCV 2015, equation (10): the variance
//!   `gain / fan_in` that keeps activations of one size through the depth of a network.

/// The random stream of one tensor.
pub(crate) struct Stream {
    state: u64,
}

impl Stream {
    /// Starts the stream of `tensor` in the model with `seed`.
    pub(crate) fn new(seed: u64, tensor: &str) -> Self {
        // FNV-1a: a name becomes a number without the randomised hasher of the standard library.
        let name = tensor.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ name }
    }

    /// The next 64 bits (SplitMix64).
    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `count` samples, uniform in `[centre - spread, centre + spread)`, as little-endian `f32`.
    pub(crate) fn uniform(mut self, count: usize, centre: f32, spread: f32) -> Vec<u8> {
        const UNIT: f32 = 1.0 / 8_388_608.0; // 2^-23: 24 bits span [0, 2).
        let mut bytes = Vec::with_capacity(count.next_multiple_of(2) * 4);
        while bytes.len() < count * 4 {
            let bits = self.bits();
            for sample in [bits >> 40, (bits >> 8) & 0x00ff_ffff] {
                let value = centre + (sample as f32 * UNIT - 1.0) * spread;
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        bytes.truncate(count * 4);
        bytes
    }
}

/// The half-width of a uniform distribution of variance `gain / fan_in`.
pub(crate) fn spread(gain: f32, fan_in: usize) -> f32 {
    (3.0 * gain / fan_in as f32).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    #[test]
    fn splitmix_gives_its_published_first_output() {
        // The first output for state 0, as in the reference implementation's test vectors.
        assert_eq!(Stream { state: 0 }.bits(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn samples_have_the_asked_range_and_variance() {
        let bound = spread(2.0, 50);
        let samples = floats(&Stream::new(1, "w").uniform(100_001, 0.0, bound));
        assert_eq!(samples.len(), 100_001);
        assert!(samples.iter().all(|x| x.abs() <= bound));
        let variance = samples.iter().map(|x| x * x).sum::<f32>() / 100_001.0;
        assert!((variance - 2.0 / 50.0).abs() < 0.001, "variance {variance}");
    }

    #[test]
    fn tensors_and_seeds_have_streams_of_their_own() {
        let of = |seed, name| Stream::new(seed, name).uniform(8, 0.0, 1.0);
        assert_eq!(of(1, "a"), of(1, "a"));
        assert_ne!(of(1, "a"), of(1, "b"));
        assert_ne!(of(1, "a"), of(2, "a"));
    }
}
