//! The minibatches of one pass over a rollout (spec dppo.md §2.5d).

use tenon_core::noise::SeededNoise;

use super::ActorCriticSettings;
use crate::pretrain::permutation;

/// The rows of an epoch in random order, cut into minibatches; a remainder is dropped.
#[derive(Debug)]
pub struct Epoch {
    order: Vec<u32>,
    size: usize,
    minibatches: usize,
}

impl Epoch {
    /// Over `samples` samples of `steps` rows each: those of sample s are numbered s · steps and on. Rows are drawn one by
    /// one, or all of a sample at once ([`ActorCriticSettings::whole_samples`]).
    pub(super) fn draw(settings: &ActorCriticSettings, samples: usize, steps: usize, noise: &mut SeededNoise) -> Self {
        let unit = if settings.whole_samples { steps } else { 1 };
        let (rows, wanted) = (samples * steps, (settings.batch_size / unit).max(1) * unit);
        let size = wanted.min(rows);
        let minibatches = (rows / wanted).max(1);
        let drawn = permutation(rows / unit, noise);
        let mut order: Vec<u32> =
            drawn.into_iter().flat_map(|one| one * unit as u32..(one + 1) * unit as u32).collect();
        // The order within a minibatch is free.
        order.chunks_exact_mut(size).take(minibatches).for_each(<[u32]>::sort_unstable);
        Self { order, size, minibatches }
    }

    /// The minibatches, each sorted: rows of one sample lie together.
    pub fn minibatches(&self) -> Vec<&[u32]> {
        self.order.chunks_exact(self.size).take(self.minibatches).collect()
    }

    /// The minibatches of each optimiser step, with the index of the last. What is left at the end makes a step too.
    pub fn groups(&self, grad_accumulate: usize) -> Vec<(usize, Vec<&[u32]>)> {
        let minibatches = self.minibatches();
        let numbered = minibatches.chunks(grad_accumulate).enumerate();
        numbered.map(|(g, group)| (g * grad_accumulate + group.len() - 1, group.to_vec())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: usize = 23;
    const STEPS: usize = 5;

    fn draw(batch_size: usize, whole_samples: bool) -> Epoch {
        let settings = ActorCriticSettings { batch_size, whole_samples, ..ActorCriticSettings::default() };
        Epoch::draw(&settings, SAMPLES, STEPS, &mut SeededNoise::new(3, 0))
    }

    /// Distinct samples of each minibatch.
    fn samples(epoch: &Epoch) -> Vec<usize> {
        let distinct = |rows: &&[u32]| rows.chunk_by(|a, b| *a as usize / STEPS == *b as usize / STEPS).count();
        epoch.minibatches().iter().map(distinct).collect()
    }

    #[test]
    fn every_row_comes_once_and_the_remainder_is_dropped() {
        for whole in [false, true] {
            let epoch = draw(30, whole);
            let mut rows: Vec<u32> = epoch.minibatches().concat();
            assert_eq!(rows.len(), 90, "three minibatches of 115 rows");
            rows.sort_unstable();
            rows.dedup();
            assert_eq!((rows.len(), rows.iter().all(|&row| row < 115)), (90, true));
            // More rows than there are make one minibatch of all.
            assert_eq!(draw(1000, whole).minibatches(), [(0..115).collect::<Vec<u32>>()]);
        }
    }

    #[test]
    fn whole_samples_stay_together_and_rows_do_not() {
        assert_eq!(samples(&draw(30, true)), [6, 6, 6]);
        assert!(samples(&draw(30, false)).iter().all(|&n| n > 10), "{:?}", samples(&draw(30, false)));
        // A size between is rounded down, to one sample at least.
        assert_eq!(samples(&draw(34, true)), [6, 6, 6]);
        assert_eq!(samples(&draw(2, true)), [1; SAMPLES]);
    }
}
