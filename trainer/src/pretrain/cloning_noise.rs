//! Noise on what pre-training sees (spec robot_control.md §9.1).

use tenon_core::noise::{NoiseSource, SeededNoise};
use tenon_core::normalizer::Normalizer;
use tenon_core::randomisation::Randomisation;

/// The noise and its stream.
#[derive(Debug)]
pub(super) struct CloningNoise {
    noise: Randomisation,
    pub stream: SeededNoise,
    bias: Vec<f32>,
    /// One observation: as it was, as it becomes, in doubles.
    before: Vec<f32>,
    after: Vec<f32>,
    exact: Vec<f64>,
}

impl CloningNoise {
    pub fn new(noise: Randomisation, stream: SeededNoise) -> Self {
        let bias = vec![0.0; noise.observation.bias_len()];
        Self { noise, stream, bias, before: Vec::new(), after: Vec::new(), exact: Vec::new() }
    }

    /// Puts noise onto a batch. `states`: `[rows, state_len]`, normalised, each row To observations of one episode, which share
    /// a bias.
    ///
    /// A sample is drawn apart from the others of its episode, so it gets a bias of its own: over the epochs the network sees
    /// each frame under many.
    pub fn disturb(&mut self, normalizer: &Normalizer, states: &mut [f32], state_len: usize) {
        let dim = normalizer.observation.min.len();
        if !self.noise.observation.is_none() {
            for state in states.chunks_exact_mut(state_len) {
                self.noise.observation.draw_bias(&mut self.stream, &mut self.bias);
                state.chunks_exact_mut(dim).for_each(|observation| self.disturb_one(normalizer, observation));
            }
        }
        if self.noise.cloning_std > 0.0 {
            for x in states {
                let mut z = [0.0];
                self.stream.fill_standard_normal(&mut z);
                *x += self.noise.cloning_std * z[0];
            }
        }
    }

    fn disturb_one(&mut self, normalizer: &Normalizer, observation: &mut [f32]) {
        self.before.clear();
        self.before.extend_from_slice(observation);
        normalizer.denormalize_observation(&mut self.before);
        self.exact.clear();
        self.exact.extend(self.before.iter().map(|&v| f64::from(v)));
        self.noise.observation.disturb(&self.bias, &mut self.stream, &mut self.exact);
        self.after.clear();
        self.after.extend(self.exact.iter().map(|&v| v as f32));
        // What has no noise must not change by the way there and back.
        let touched = |i: usize| self.after[i] != self.before[i];
        let touched: Vec<usize> = (0..observation.len()).filter(|&i| touched(i)).collect();
        normalizer.normalize_observation(&mut self.after);
        touched.into_iter().for_each(|i| observation[i] = self.after[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenon_core::config::{FieldNoise, PartNoise, RandomisationConfig};
    use tenon_core::normalizer::Limits;
    use tenon_core::spec::ObservationField;

    /// Standard errors that a statistic may be off: 1 in 1.7 million of a normal distribution lies farther out.
    const LEVEL: f64 = 5.0;
    const ROWS: usize = 4000;

    fn config(bias_share: f64, cloning_std: f64) -> RandomisationConfig {
        RandomisationConfig {
            noise: None,
            bias_share,
            action_std: 0.0,
            cloning_std,
            evaluation: false,
            origin: None,
            part: vec![PartNoise { part: "b".into(), position_std_m: [1e-3, 0.0, 2e-3], rotation_std_rad: [0.0; 3] }],
            field: vec![FieldNoise { name: "gripper_width".into(), std: vec![5e-4] }],
        }
    }

    /// Rows of two observations of a gripper and two parts, all the same, as they become; and as they were.
    fn disturbed(config: &RandomisationConfig) -> (Vec<Vec<f32>>, Vec<f32>) {
        let fields = [ObservationField::GripperWidth, ObservationField::PartPoses(2)];
        let noise = Randomisation::new(config, &fields, &["a", "b"]).unwrap();
        let normalizer = Normalizer::new(Limits::symmetric(0.5, 15), Limits::symmetric(1.0, 1));
        let mut observation: Vec<f32> = (0..15).map(|i| 0.03 * i as f32 - 0.2).collect();
        normalizer.normalize_observation(&mut observation);
        let mut states = observation.repeat(2 * ROWS);
        CloningNoise::new(noise, SeededNoise::new(3, 0)).disturb(&normalizer, &mut states, 30);
        (states.chunks_exact(30).map(<[f32]>::to_vec).collect(), observation)
    }

    fn std(values: &[f64]) -> f64 {
        (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
    }

    #[test]
    fn normalised_observations_have_the_noise_of_the_table_in_units_of_their_limits() {
        for share in [0.0, 0.5, 1.0] {
            let (rows, before) = disturbed(&config(share, 0.0));
            for (value, wanted) in [(0, 5e-4), (8, 1e-3), (10, 2e-3)] {
                // Limits of ±0.5 make one unit half a metre.
                let added = |row: &[f32], at: usize| 0.5 * f64::from(row[at + value] - before[value]);
                let oldest: Vec<f64> = rows.iter().map(|row| added(row, 0)).collect();
                let allowed = LEVEL * wanted / (2.0 * ROWS as f64).sqrt();
                assert!((std(&oldest) - wanted).abs() < allowed, "value {value}: {}", std(&oldest));
                // Observations of one sample share the bias: their difference has both jitters, 2 (1 − share) σ².
                let steps: Vec<f64> = rows.iter().map(|row| added(row, 15) - added(row, 0)).collect();
                let wanted = wanted * (2.0 * (1.0 - share)).sqrt();
                let allowed = LEVEL * wanted / (2.0 * ROWS as f64).sqrt() + 1e-6;
                assert!((std(&steps) - wanted).abs() < allowed, "share {share}: {}, not {wanted}", std(&steps));
            }
            for i in (0..15).filter(|i| ![0, 8, 10].contains(i)) {
                assert!(rows.iter().all(|row| row[i].to_bits() == before[i].to_bits()), "value {i} has no noise");
            }
        }
    }

    #[test]
    fn noise_of_cloning_is_on_every_normalised_value() {
        let (rows, before) =
            disturbed(&RandomisationConfig { part: Vec::new(), field: Vec::new(), ..config(0.5, 0.05) });
        for i in 0..15 {
            let added: Vec<f64> = rows.iter().map(|row| f64::from(row[i] - before[i])).collect();
            let allowed = LEVEL * 0.05 / (2.0 * ROWS as f64).sqrt();
            assert!((std(&added) - 0.05).abs() < allowed, "value {i}: {}", std(&added));
        }
    }
}
