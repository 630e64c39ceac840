//! Learning η beside the actor (spec dppo.md §1.6).

use super::{EtaLearning, EtaLikelihood, EtaModule, Samples};
use crate::actor_critic::WeightedSamples;
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::optimizer::{AdamW, check_finite_values, finite_norm};

/// What checkpoints call the module's weights.
const PREFIX: &str = "eta.";
const NAME: &str = "eta";

/// Likelihoods under an η of each sample's own, and the optimiser that moves it. The module itself is the policy's.
#[derive(Debug)]
pub(super) struct EtaLearner {
    pub likelihood: EtaLikelihood,
    optimizer: AdamW,
    /// Weights and optimiser when the update began.
    before: (Vec<f32>, AdamW),
}

/// What η was in some minibatches, and where it should go.
#[derive(Debug, Clone, Default)]
pub(super) struct EtaGradient {
    /// Mean of each minibatch's rows.
    pub means: Vec<f64>,
    /// Empty where η is not learned.
    parameters: Vec<f32>,
    pub norm: f64,
}

impl EtaLearner {
    pub fn new(likelihood: EtaLikelihood, module: &EtaModule, learning: Option<&EtaLearning>) -> Self {
        let optimizer = AdamW::new(module.parameters.len(), learning.map_or(0.0, |l| l.weight_decay));
        Self { likelihood, before: (module.parameters.clone(), optimizer.clone()), optimizer }
    }

    /// An update begins.
    pub fn remember(&mut self, module: &EtaModule) {
        self.before.0.clone_from(&module.parameters);
        self.before.1.copy_from(&self.optimizer);
    }

    /// The update failed.
    pub fn undo(&mut self, module: &mut EtaModule) {
        module.parameters.clone_from(&self.before.0);
        self.optimizer.copy_from(&self.before.1);
    }

    /// Says which weight or moment is not finite.
    pub fn check_finite(&self, module: &EtaModule) -> Result<(), TrainError> {
        check_finite_values("the weight of η", &module.parameters, module.table())?;
        self.optimizer.check_finite("the moment of the gradient of η", module.table())
    }

    /// The gradient of the loss, −ent_coef · mean η included. `etas`: ∂loss/∂η of the samples, without that term.
    pub fn gradient(
        &self,
        module: &EtaModule,
        learning: Option<&EtaLearning>,
        ent_coef: f64,
        samples: &Samples,
        minibatches: &[WeightedSamples],
        mut etas: Vec<f32>,
    ) -> Result<EtaGradient, TrainError> {
        let of = self.likelihood.sample_etas();
        let means = minibatches.iter().map(|minibatch| of.mean(minibatch)).collect();
        if learning.is_none() {
            return Ok(EtaGradient { means, ..Default::default() });
        }
        minibatches.iter().for_each(|minibatch| of.add_entropy_gradient(ent_coef, minibatch, &mut etas));
        let parameters = of.parameter_gradient(module, samples, &etas);
        let norm = finite_norm("the gradient of η", &parameters, module.table())?;
        Ok(EtaGradient { means, parameters, norm })
    }

    /// Moves η; `minibatch`: index in the epoch of the last one whose gradient it is.
    pub fn step(
        &mut self,
        module: &mut EtaModule,
        learning: &EtaLearning,
        gradient: &EtaGradient,
        rate: f64,
        minibatch: usize,
    ) {
        if minibatch.is_multiple_of(learning.update_interval) {
            self.optimizer.step(&mut module.parameters, &gradient.parameters, rate, None);
        }
    }

    pub fn store(&self, module: &EtaModule, checkpoint: &mut Checkpoint) {
        checkpoint.put_parameters(PREFIX, module.table(), &module.parameters);
        checkpoint.put_optimizer(NAME, module.table(), &self.optimizer);
    }

    pub fn restore(&mut self, module: &mut EtaModule, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        module.restore(checkpoint)?;
        checkpoint.restore_optimizer(NAME, module.table(), &mut self.optimizer)
    }
}

impl EtaModule {
    /// Takes the weights that a checkpoint of fine-tuning holds.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.parameters = checkpoint.parameters(PREFIX, self.table())?;
        Ok(())
    }
}
