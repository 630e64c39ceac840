//! Tenon's trainer: pre-training and DPPO fine-tuning of diffusion policies on the CPU.
//!
//! The numeric part, in the order in which data flows:
//!
//! * [`dataset`]: demonstrations in the `.npz` layout of the paper, checked once when they are opened.
//! * [`network`]: the noise network and the critic with hand-written backward passes. Parameters of a network live in
//!   one flat `Vec<f32>`; [`network::ParameterTable`] says which range carries which checkpoint name.
//! * [`device`]: a graphics card in the place of the processor, for whatever a network computes.
//! * [`optimizer`]: AdamW, the learning-rate schedule and the moving average, all on flat slices.
//! * [`pretrain`]: behaviour cloning.
//! * [`rollout`]: what an iteration collected, reward scaling, advantages.
//! * [`surrogate`]: PPO's clipped objectives.
//! * [`actor_critic`]: critic, optimisers, schedules and streams of fine-tuning, whatever the policy.
//! * [`dppo`]: sampling with stored chains, log-probabilities, the loss and one whole update.
//! * [`ppo`]: the same for Gaussian policies and mixtures.
//! * [`sampling`], [`learner`]: either of them behind one name.
//! * [`checkpoint`]: safetensors with a typed header, written beside the target and renamed.
//!
//! The steps of the command line, on top of it:
//!
//! * [`demos`]: scripted or recorded demonstrations of Avoid.
//! * [`environments`], [`evaluate`], [`finetune`]: tasks in batches, judging a policy, the iterations of fine-tuning.
//! * [`film`]: episodes of a policy as videos.
//! * [`export`]: a checkpoint becomes a policy bundle, checked against the ONNX engine.
//! * [`import`]: PyTorch checkpoints of the authors, read without PyTorch.
//! * [`randomisation`]: noise on what a policy sees and does in training, from what a rig's calibration measured.
//! * [`settings`]: a task's configuration as the numeric part and the policy want it.
//! * [`run_dir`], [`watch`]: whole files, checkpoints; metrics as lines, for TensorBoard and as a page.
//! * [`progress`], [`interrupt`], [`wall_clock`]: a line that shows how far it is, Ctrl-C, the time of day.
//!
//! Work is cut into *shards* whose number depends on the number of rows only, never on the number of threads
//! ([`workers`]), and shard results are added in a fixed order: one and two threads give the same bits.

pub mod actor_critic;
pub mod augment;
pub mod bench;
pub mod checkpoint;
pub mod dataset;
pub mod demos;
pub mod device;
pub mod dppo;
pub mod elementwise;
pub mod environments;
pub mod error;
pub mod evaluate;
pub mod export;
pub mod film;
pub mod finetune;
pub mod import;
pub mod interrupt;
pub mod learner;
pub mod linalg;
pub mod network;
pub mod optimizer;
pub mod ppo;
pub mod pretrain;
pub mod progress;
pub mod randomisation;
pub mod rollout;
pub mod run_dir;
pub mod sampling;
pub mod seeds;
pub mod settings;
pub mod stopwatch;
pub mod surrogate;
pub mod wall_clock;
pub mod watch;
pub mod workers;

pub use error::TrainError;
