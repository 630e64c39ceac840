//! The policy's thread: an observation comes in, an action chunk goes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use tenon_core::action::ActionChunk;
use tenon_core::diffusion::{
    Clips, Denoiser, DenoisingStep, Guide, SampleScratch, StepNoise, guide_mask, sample, sample_guided,
};
use tenon_core::noise::{NoiseState, SeededNoise};
use tenon_core::spec::{Denoising, PolicySpec};

use crate::clock;
use crate::machine::InferRequest;
use crate::record::ChunkTap;

/// Samples chunks from observations; owns the noise, so one seed gives one sequence of chunks.
pub struct ChunkSampler<D> {
    spec: PolicySpec,
    denoiser: D,
    steps: Vec<DenoisingStep>,
    clips: Clips,
    noise: SeededNoise,
    scratch: SampleScratch,
    state: Vec<f32>,
    x: Vec<f32>,
    given: Vec<f32>,
    mask: Vec<f32>,
}

impl<D: Denoiser> ChunkSampler<D> {
    /// Evaluation noise (spec dppo.md §1.3), drawn from stream 0 of `seed`. `denoising`: the policy's own.
    pub fn new(spec: PolicySpec, denoising: &Denoising, denoiser: D, seed: u64) -> Self {
        Self {
            denoiser,
            steps: denoising.steps(StepNoise::Evaluation),
            clips: denoising.clips(),
            noise: SeededNoise::new(seed, 0),
            scratch: SampleScratch::new(spec.chunk_len()),
            state: vec![0.0; spec.state_len()],
            x: vec![0.0; spec.chunk_len()],
            given: vec![0.0; spec.chunk_len()],
            mask: vec![0.0; spec.prediction_horizon],
            spec,
        }
    }

    /// Where the noise stands: what the next chunk begins with.
    pub fn noise(&self) -> NoiseState {
        self.noise.state()
    }

    /// Goes on from another position of the noise, to make a recorded chunk again.
    pub fn set_noise(&mut self, state: NoiseState) {
        self.noise = SeededNoise::restore(state);
    }

    /// One chunk in physical units. A value that is not finite stays so: the controller refuses it by name.
    ///
    /// Panics if the request's length is not the policy's observation dim, which `Controller::new` has seen to.
    pub fn sample(&mut self, request: &InferRequest) -> Result<ActionChunk, D::Error> {
        self.state.copy_from_slice(&request.observation[..request.len]);
        self.spec.normalizer.normalize_observation(&mut self.state);
        self.denoiser.condition(&self.state)?;
        let Self { spec, denoiser, steps, clips, noise, scratch, x, given, mask, .. } = self;
        let guide = &request.guide;
        if guide.overlap == 0 {
            sample(denoiser, steps, *clips, noise, scratch, x)?;
        } else {
            given.fill(0.0);
            // A guide of another policy's width would not fit; of this one it does.
            let values = &guide.values()[..guide.values().len().min(given.len())];
            given[..values.len()].copy_from_slice(values);
            spec.normalizer.normalize_action(&mut given[..values.len()]);
            guide_mask(guide.frozen, guide.overlap, mask);
            sample_guided(denoiser, steps, *clips, noise, scratch, &Guide { chunk: given, weights: mask }, x)?;
        }
        self.spec.normalizer.denormalize_action(&mut self.x);
        Ok(ActionChunk::new(request.id, self.spec.action_dim(), &self.x)
            .expect("Controller::new refuses policies whose chunks do not fit"))
    }
}

/// The control thread's ends of the policy's thread.
pub struct InferenceHandle {
    pub requests: Sender<InferRequest>,
    pub chunks: triple_buffer::Output<Option<ActionChunk>>,
    /// Duration of each inference.
    pub durations: Receiver<Duration>,
    /// The first error of the policy, as text; the thread has ended then.
    pub errors: Receiver<String>,
    thread: Option<JoinHandle<()>>,
}

/// A chunk that the arm will follow, and all that it was made from.
#[derive(Debug, Clone, Copy)]
pub struct Sampled {
    pub request: InferRequest,
    /// Where the noise stood before it was sampled.
    pub noise: NoiseState,
    pub chunk: ActionChunk,
}

/// Where a candidate policy is told what the driving one was asked and said. It may lag behind: what it has no room for is counted.
#[derive(Debug, Clone)]
pub struct Shadowing {
    pub sampled: Sender<Sampled>,
    pub missed: Arc<AtomicU64>,
}

/// Starts the policy's thread. It ends when the handle is dropped. `recorder` is told of every chunk before the controller is,
/// `shadowing` after it.
pub fn spawn<D>(
    mut sampler: ChunkSampler<D>,
    mut recorder: Option<ChunkTap>,
    shadowing: Option<Shadowing>,
) -> std::io::Result<InferenceHandle>
where
    D: Denoiser + Send + 'static,
    D::Error: std::fmt::Display,
{
    let (requests, receive) = bounded::<InferRequest>(2);
    let (send_duration, durations) = bounded(256);
    let (send_error, errors) = bounded(1);
    let (mut slot, chunks) = triple_buffer::triple_buffer(&None::<ActionChunk>);
    let thread = std::thread::Builder::new().name("tenon-policy".into()).spawn(move || {
        while let Ok(mut request) = receive.recv() {
            // Newest wins: a request that has been overtaken has no one waiting for it.
            while let Ok(newer) = receive.try_recv() {
                request = newer;
            }
            let started = clock::now();
            let noise = sampler.noise();
            match sampler.sample(&request) {
                Ok(chunk) => {
                    if let Some(recorder) = &mut recorder {
                        recorder.chunk(started, clock::elapsed(started), noise, &chunk);
                    }
                    slot.write(Some(chunk));
                    if let Some(Shadowing { sampled, missed }) = &shadowing
                        && sampled.try_send(Sampled { request, noise, chunk }).is_err()
                    {
                        missed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(e) => {
                    // Nobody listens only when the run is over anyway.
                    let _ = send_error.try_send(e.to_string());
                    return;
                }
            }
            let _ = send_duration.try_send(clock::elapsed(started));
        }
    })?;
    Ok(InferenceHandle { requests, chunks, durations, errors, thread: Some(thread) })
}

impl Drop for InferenceHandle {
    fn drop(&mut self) {
        // Closing the channel ends the thread's loop.
        let (closed, _) = bounded(0);
        self.requests = closed;
        if let Some(thread) = self.thread.take() {
            // A panic of the policy's thread has been reported by the panic hook; there is nothing to add here.
            let _ = thread.join();
        }
    }
}
