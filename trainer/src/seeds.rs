//! Which random stream serves which purpose.
//!
//! One seed, many streams (`tenon_core::noise`): nothing that draws more or less often shifts what another draws.

use tenon_core::noise::SeededNoise;

/// Purpose of a stream; the numbers are part of what makes a run repeatable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Fresh weights of the noise network.
    ActorWeights,
    /// Fresh weights of the critic.
    CriticWeights,
    /// Fresh weights of η's module.
    EtaWeights,
    /// Order of samples in an epoch of pre-training.
    Shuffle,
    /// Time steps and noise of pre-training.
    Diffusion,
    /// Shifts of pictures in pre-training.
    Pictures,
    /// Order of rows in an epoch of fine-tuning.
    Minibatches,
    /// Shifts of pictures in fine-tuning.
    Augmentation,
    /// Teacher chains of the behaviour-cloning loss.
    Teacher(u32),
    /// Chains of one environment's rollouts.
    Policy(u32),
    /// Start states and disturbances of one environment.
    Environment(u32),
    /// Evaluation of one environment, apart from training.
    Evaluation(u32),
    /// Noise on what one environment shows and executes.
    Randomisation(u32),
    /// The same of one episode of an evaluation.
    EvaluationRandomisation(u32),
    /// Noise on what pre-training sees.
    CloningNoise,
    /// A scripted expert's manner and unsteadiness.
    Demonstrations,
}

impl Stream {
    /// The stream's number.
    pub fn number(self) -> u64 {
        let (purpose, index) = match self {
            Self::ActorWeights => (1, 0),
            Self::CriticWeights => (2, 0),
            Self::Shuffle => (3, 0),
            Self::Diffusion => (4, 0),
            Self::Minibatches => (5, 0),
            Self::Teacher(i) => (6, i),
            Self::Policy(i) => (7, i),
            Self::Environment(i) => (8, i),
            Self::Evaluation(i) => (9, i),
            Self::Pictures => (11, 0),
            Self::EtaWeights => (12, 0),
            Self::Augmentation => (13, 0),
            Self::Randomisation(i) => (14, i),
            Self::EvaluationRandomisation(i) => (15, i),
            Self::CloningNoise => (16, 0),
            // 16 << 32 and above belong to Avoid's paths, too, by their own seed.
            Self::Demonstrations => (17, 0),
        };
        (purpose << 32) | u64::from(index)
    }

    /// The stream of `seed`, from its beginning.
    pub fn of(self, seed: u64) -> SeededNoise {
        SeededNoise::new(seed, self.number())
    }
}
