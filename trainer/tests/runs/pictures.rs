//! A policy that sees pictures, in a simulation: what it sees, what is kept for training, and what is said without them.

use tenon_core::network::{Activation, Compression, NetworkSpec, PatchEmbedding, VisionSpec};
use tenon_core::spec::{Denoising, PolicySpec, Prediction, Sampler};
use tenon_core::task::TaskName;
use tenon_sim::SimError;
use tenon_sim::batch::Environment;
use tenon_sim::render::{Quality, RenderOptions, Renderer, Sight};
use tenon_train::TrainError;
use tenon_train::dppo::Policy;
use tenon_train::environments::{BatchSettings, TaskBatch};
use tenon_train::evaluate::{Evaluation, EvaluationOptions, PolicyChunks, evaluate};
use tenon_train::finetune::Collector;
use tenon_train::network::NoiseNetwork;
use tenon_train::sampling::{ChunkMode, PolicyRef};
use tenon_train::seeds::Stream;
use tenon_train::workers::Workers;

use crate::small_hopper::config_text;
use crate::{GAUSSIAN, begin};

const SIDE: u32 = 16;
const IMAGE_LEN: usize = 3 * (SIDE * SIDE) as usize;
const ENVIRONMENTS: usize = 3;

fn spec() -> PolicySpec {
    let denoising = Denoising {
        denoising_steps: 4,
        finetuned_steps: 2,
        sampler: Sampler::Ddpm,
        denoised_clip: 1.0,
        noise_clip: 3.0,
        final_action_clip: None,
        prediction: Prediction::Noise,
        step_counts: Vec::new(),
    };
    PolicySpec { denoising: Some(denoising), ..begin(&config_text(GAUSSIAN), 1).run_info().policy.clone() }
}

fn policy(spec: &PolicySpec) -> Policy {
    let vision = VisionSpec {
        cameras: 1,
        image_px: SIDE as usize,
        embed_dim: 8,
        heads: 2,
        depth: 1,
        patch_embedding: PatchEmbedding::Two,
        patch_norm: false,
        compression: Compression::Spatial { dim: 8 },
    };
    let network = NetworkSpec::VitMlp {
        time_dim: 8,
        mlp_dims: vec![16; 3],
        activation: Activation::Mish,
        residual: true,
        vision,
    };
    let network = NoiseNetwork::new(&network, spec.state_len(), spec.prediction_horizon, spec.action_dim()).unwrap();
    let parameters = network.table().initialise(&mut Stream::ActorWeights.of(5));
    Policy::from_pretrained(network, parameters, spec.denoising.clone().unwrap())
}

fn look(quality: Quality) -> RenderOptions {
    RenderOptions::of_sight(Sight { camera: Some("track"), ..Sight::default() }, SIDE, SIDE, quality)
}

fn blind(threads: usize) -> TaskBatch {
    let settings = BatchSettings { environments: ENVIRONMENTS, threads, seed: 7, auto_reset: true };
    TaskBatch::new(TaskName::Hopper, &spec(), settings).unwrap()
}

/// `None`, with a line that says why, on a machine that cannot draw.
fn seeing(threads: usize, quality: Quality) -> Option<TaskBatch> {
    let mut batch = match blind(threads).seen_by(look(quality)) {
        Ok(batch) => batch,
        Err(TrainError::Config { detail, .. }) if detail.contains("libosmesa6") => {
            eprintln!("skipped: {detail}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    batch.reset();
    Some(batch)
}

fn images(batch: &TaskBatch) -> Vec<u8> {
    batch.seen().images.unwrap().to_vec()
}

#[test]
fn what_is_seen_is_the_environment_as_it_stands_for_any_number_of_threads() {
    let (Some(mut one), Some(mut two)) = (seeing(1, Quality::Fast), seeing(2, Quality::Fast)) else { return };
    let mut unseen = blind(1);
    unseen.reset();
    let model = unseen.environment_mut(0).world_to_draw().unwrap().model().clone();
    let mut alone = Renderer::new(&model, &look(Quality::Fast)).unwrap();
    let chunks = vec![0.9; ENVIRONMENTS * spec().chunk_len()];
    let mut ended = 0;
    for _ in 0..12 {
        let mut expected = vec![0; ENVIRONMENTS * IMAGE_LEN];
        for (i, picture) in expected.chunks_exact_mut(IMAGE_LEN).enumerate() {
            alone.render_channels(unseen.environment_mut(i).world_to_draw().unwrap(), picture).unwrap();
        }
        assert!(images(&one) == expected && images(&two) == expected);
        for batch in [&mut one, &mut two, &mut unseen] {
            batch.step(&chunks).unwrap();
        }
        assert_eq!(one.states(), unseen.states(), "drawing changes nothing");
        for (i, outcome) in one.outcomes().iter().enumerate().filter(|(_, outcome)| outcome.ended()) {
            ended += 1;
            let last = one.final_pictures(i).unwrap();
            assert_eq!(last, two.final_pictures(i).unwrap());
            assert!(last != &images(&one)[i * IMAGE_LEN..][..IMAGE_LEN], "fallen {outcome:?}, and up again");
        }
    }
    assert!(ended >= ENVIRONMENTS, "{ended} episodes ended");
}

#[test]
fn a_restored_batch_sees_what_it_saw() {
    let (Some(mut whole), Some(mut restored)) = (seeing(1, Quality::Exact), seeing(2, Quality::Exact)) else { return };
    let chunks = vec![0.3; ENVIRONMENTS * spec().chunk_len()];
    (0..3).for_each(|_| whole.step(&chunks).unwrap());
    assert_ne!(images(&restored), images(&whole));
    restored.restore_state(&whole.save_state()).unwrap();
    assert_eq!(images(&restored), images(&whole));
}

#[test]
fn a_rollout_keeps_the_pictures_that_its_chunks_were_sampled_from() {
    let Some(mut batch) = seeing(2, Quality::Fast) else { return };
    let (spec, workers) = (spec(), Workers::new(2).unwrap());
    let policy = policy(&spec);
    let policy = PolicyRef::Diffusion(&policy);
    let mode = ChunkMode::evaluation(policy);
    let collector = || {
        let streams = (0..ENVIRONMENTS as u32).map(|i| Stream::Policy(i).of(7)).collect();
        Collector::new(policy, &workers, 5, streams)
    };
    let (first, drawn) = (images(&batch), batch.time_drawing().unwrap());
    let mut seeing = collector();
    let times = seeing.collect(&workers, policy, mode, &mut batch, &|| false, &mut |_, _| ()).unwrap().unwrap();
    // Two threads at most draw at once, while the environments are stepped.
    let pictures = times.pictures.unwrap();
    assert!(!pictures.is_zero() && pictures <= 2 * times.environment.wall, "{times:?}");
    assert_eq!(batch.time_drawing().unwrap(), drawn + pictures);
    let rollout = seeing.rollout();
    rollout.check_images(IMAGE_LEN).unwrap();
    let kept = rollout.images.as_ref().unwrap();
    assert_eq!(kept.before[..ENVIRONMENTS * IMAGE_LEN], first);
    assert_eq!(kept.last, images(&batch));
    assert!(kept.before.chunks_exact(ENVIRONMENTS * IMAGE_LEN).all(|step| step != kept.last), "hoppers move");

    let mut blind = blind(1);
    assert_eq!(blind.time_drawing(), None);
    blind.reset();
    let refused = collector().collect(&workers, policy, mode, &mut blind, &|| false, &mut |_, _| ()).unwrap_err();
    assert!(refused.to_string().contains("pictures"), "{refused}");
}

#[test]
fn an_evaluation_depends_on_the_pictures_and_not_on_environments_or_threads() {
    if seeing(1, Quality::Fast).is_none() {
        return;
    }
    let spec = spec();
    let policy = policy(&spec);
    let policy = PolicyRef::Diffusion(&policy);
    let judged = |environments: usize, threads: usize, look: &RenderOptions| -> Result<Evaluation, TrainError> {
        let workers = Workers::new(threads)?;
        let options = EvaluationOptions {
            task: TaskName::Hopper,
            episodes: 6,
            seed: 3,
            environments,
            threads,
            randomisation: None,
            pictures: Some(look),
        };
        let mut source = PolicyChunks::new(policy, &workers, ChunkMode::evaluation(policy), environments);
        Ok(evaluate(&mut source, &spec, options, &|| false, &mut |_, _| {})?.unwrap())
    };
    let fast = look(Quality::Fast);
    let one = judged(1, 1, &fast).unwrap();
    assert_eq!(judged(4, 2, &fast).unwrap(), one);
    let dark = RenderOptions { geom_groups: [false; 6], ..fast.clone() };
    assert_ne!(judged(1, 1, &dark).unwrap(), one);
    let other_size = RenderOptions { width: 32, ..fast };
    let refused = judged(1, 1, &other_size).unwrap_err().to_string();
    assert!(refused.contains("768 bytes"), "{refused}");
}

#[test]
fn a_camera_that_is_not_there_is_named_before_anything_runs() {
    let look = RenderOptions::of_policies(&["agentview"], Quality::Exact);
    let refused = blind(1).seen_by(look).unwrap_err().to_string();
    let no_gl = SimError::NoGl { tried: String::new() }.to_string();
    assert!(refused.contains("agentview") || refused.contains(&no_gl[no_gl.len() - 20..]), "{refused}");
}
