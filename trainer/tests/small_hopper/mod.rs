//! Hopper, trained from scratch with networks so small that an iteration takes milliseconds.

use tenon_train::checkpoint::Checkpoint;

/// K = 4, K' = 2.
pub const DIFFUSION: &str = r#"method = "diffusion"
network = { kind = "diffusion_mlp", time_dim = 8, mlp_dims = [32, 32, 32], activation = "relu" }
denoising_steps = 4
finetuned_steps = 2
sampler = { kind = "ddpm" }
denoised_clip = 1.0"#;

/// What DPPO needs beyond PPO.
const DIFFUSION_FINETUNING: &str = "[finetune.diffusion]
min_sampling_std = 0.1
min_logprob_std = 0.1
gamma_denoising = 0.99
clip_epsilon_base = 0.01
clip_epsilon_rate = 3.0
";

/// Iterations of a whole run.
pub const ITERATIONS: u64 = 8;
/// The first of so many evaluates.
pub const EVALUATE_EVERY: u64 = 3;
/// E, N.
pub const ENVIRONMENTS: usize = 3;
pub const CHUNK_STEPS: usize = 6;

/// A configuration with the policy `model`; fresh policies fall after some 20 steps, so episodes end in every iteration
/// and run on from one to the next.
pub fn config_text(model: &str) -> String {
    let diffusion = if model.contains("\"diffusion\"") { DIFFUSION_FINETUNING } else { "" };
    format!(
        r#"task = "hopper"

[policy]
prediction_horizon = 4
action_horizon = 4
noise_clip = 3.0

[policy.limits]
observation = {{ min = [0.7, -0.2, -2.7, -2.7, -0.8, -2, -4, -7, -10, -10, -10], max = [1.8, 0.2, 0.1, 0.1, 0.8, 7, 4, 7, 10, 10, 10] }}
action = {{ min = [-1, -1, -1], max = [1, 1, 1] }}

[policy.model]
{model}

[finetune]
seed = 42
iterations = {ITERATIONS}
environments = {ENVIRONMENTS}
chunk_steps = {CHUNK_STEPS}
reset_every_iteration = false
evaluate_every = {EVALUATE_EVERY}
update_epochs = 2
batch_size = 9
critic = {{ head = {{ dims = [64, 64, 64], activation = "mish" }} }}
critic_warmup_iterations = 2
actor_learning_rate = 1e-3
actor_min_learning_rate = 1e-4
actor_warmup_iterations = 2
critic_learning_rate = 1e-3
vf_coef = 0.5
target_kl = 1.0
clip_epsilon = 0.1
bc_loss_coeff = 0.01
advantage = {{ gamma = 0.99, gae_lambda = 0.95, reward_scale_running = true }}

{diffusion}
[evaluate]
seed = 1000
episodes = 5
"#
    )
}

/// Puts NaN into what the policy sees next in an environment, as a broken simulation would.
pub fn lose_observation(checkpoint: &mut Checkpoint, environment: usize) {
    /// Version, number of environments, width of an observation.
    const HEADER: usize = 3 * 8;
    let mut bytes = checkpoint.bytes("environments").unwrap().to_vec();
    let width = u64::from_le_bytes(bytes[16..HEADER].try_into().unwrap()) as usize;
    assert_eq!(width, 11);
    bytes[HEADER + environment * width * 8..][..8].copy_from_slice(&f64::NAN.to_le_bytes());
    checkpoint.put_bytes("environments", bytes);
}
