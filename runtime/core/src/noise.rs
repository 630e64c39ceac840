//! Seeded standard normal draws, the same in trainer, simulator and runtime.
//!
//! The generator is ChaCha8 with a 64-bit stream number, whose position can be stored and restored exactly
//! ([`NoiseState`]), so a resumed run draws what the uninterrupted one would have drawn.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// A stream of standard normal draws.
pub trait NoiseSource {
    /// Fills `out` with independent N(0, 1) values.
    fn fill_standard_normal(&mut self, out: &mut [f32]);
}

/// The generator behind every random number of Tenon.
#[derive(Debug, Clone)]
pub struct SeededNoise {
    seed: u64,
    rng: ChaCha8Rng,
}

/// Everything needed to continue a [`SeededNoise`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoiseState {
    pub seed: u64,
    pub stream: u64,
    /// Position in 32-bit words, split because TOML and JSON numbers end at 64 bits.
    pub word_pos_hi: u64,
    pub word_pos_lo: u64,
}

impl SeededNoise {
    /// Stream `stream` of seed `seed`; different streams of one seed are independent.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self { seed, rng }
    }

    /// The generator itself, for uniform and integer draws.
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.rng
    }

    /// Where the stream stands.
    pub fn state(&self) -> NoiseState {
        let pos = self.rng.get_word_pos();
        NoiseState {
            seed: self.seed,
            stream: self.rng.get_stream(),
            word_pos_hi: (pos >> 64) as u64,
            word_pos_lo: pos as u64,
        }
    }

    /// Continues a stream.
    pub fn restore(state: NoiseState) -> Self {
        let mut noise = Self::new(state.seed, state.stream);
        noise.rng.set_word_pos((u128::from(state.word_pos_hi) << 64) | u128::from(state.word_pos_lo));
        noise
    }
}

impl NoiseSource for SeededNoise {
    fn fill_standard_normal(&mut self, out: &mut [f32]) {
        for x in out {
            *x = StandardNormal.sample(&mut self.rng);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_stream_continues_bit_for_bit() {
        let mut a = SeededNoise::new(7, 3);
        let mut head = [0.0; 101];
        a.fill_standard_normal(&mut head);
        let mut b = SeededNoise::restore(a.state());
        let (mut x, mut y) = ([0.0; 64], [0.0; 64]);
        a.fill_standard_normal(&mut x);
        b.fill_standard_normal(&mut y);
        assert_eq!(x, y);
    }

    #[test]
    fn streams_of_one_seed_differ() {
        let (mut x, mut y) = ([0.0; 8], [0.0; 8]);
        SeededNoise::new(7, 0).fill_standard_normal(&mut x);
        SeededNoise::new(7, 1).fill_standard_normal(&mut y);
        assert_ne!(x, y);
    }
}
