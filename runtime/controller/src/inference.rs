//! The policy's thread: an observation comes in, an action chunk goes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use tenon_core::action::ActionChunk;
use tenon_core::diffusion::{Clips, Denoiser, DenoisingStep, Guide, SampleScratch, guide_mask, sample, sample_guided};
use tenon_core::noise::{NoiseState, SeededNoise};
use tenon_core::spec::{Denoising, PolicySpec};
use tenon_core::step_budget::StepBudget;

use crate::clock;
use crate::machine::InferRequest;
use crate::record::ChunkTap;

/// Samples chunks from observations; owns the noise, so one seed gives one sequence of chunks.
pub struct ChunkSampler<D> {
    spec: PolicySpec,
    denoiser: D,
    /// The steps of each number of steps that the policy allows, ascending.
    ladders: Vec<Vec<DenoisingStep>>,
    budget: StepBudget,
    clips: Clips,
    noise: SeededNoise,
    scratch: SampleScratch,
    state: Vec<f32>,
    x: Vec<f32>,
    given: Vec<f32>,
    mask: Vec<f32>,
}

impl<D: Denoiser> ChunkSampler<D> {
    /// Evaluation noise (spec dppo.md §1.3), drawn from stream 0 of `seed`. `denoising`: the policy's own, which `spec.check` has passed.
    pub fn new(spec: PolicySpec, denoising: &Denoising, denoiser: D, seed: u64) -> Self {
        Self {
            denoiser,
            ladders: denoising.counts().into_iter().filter_map(|count| denoising.steps_in(count)).collect(),
            budget: StepBudget::new(denoising.counts()),
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

    /// The most denoising steps that are done before the chunk is needed, by what the last chunks took.
    pub fn affordable_steps(&self, request: &InferRequest) -> usize {
        self.budget.choose(f64::from(request.budget_s))
    }

    /// One chunk in physical units, denoised in `count` steps (of [`Denoising::counts`]; another number means the usual one). A value
    /// that is not finite stays so: the controller refuses it by name.
    ///
    /// Panics if the request's length is not the policy's observation dim, which `Controller::new` has seen to.
    pub fn sample(&mut self, request: &InferRequest, count: usize) -> Result<ActionChunk, D::Error> {
        let started = clock::now();
        self.state.copy_from_slice(&request.observation[..request.len]);
        self.spec.normalizer.normalize_observation(&mut self.state);
        self.denoiser.condition(&self.state)?;
        let once = clock::elapsed(started);
        let Self { spec, denoiser, ladders, clips, noise, scratch, x, given, mask, .. } = self;
        let steps = ladders.iter().find(|steps| steps.len() == count).or(ladders.last()).map_or(&[][..], Vec::as_slice);
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
        let executed = steps.len();
        self.spec.normalizer.denormalize_action(&mut self.x);
        self.budget.learn(once.as_secs_f64(), clock::elapsed(started).saturating_sub(once).as_secs_f64(), executed);
        Ok(ActionChunk::new(request.id, self.spec.action_dim(), &self.x)
            .expect("Controller::new refuses policies whose chunks do not fit"))
    }
}

/// A chunk, and how long the policy took for it.
#[derive(Debug, Clone, Copy)]
pub struct Sampled {
    pub chunk: ActionChunk,
    pub took: Duration,
}

/// Where the control thread puts what it asks. Nothing here waits for the policy's thread.
pub struct RequestSlot {
    slot: triple_buffer::Input<Option<InferRequest>>,
    policy: Thread,
}

impl RequestSlot {
    /// Asks the policy. Newest wins: a request that has been overtaken has no one waiting for it.
    pub fn ask(&mut self, request: InferRequest) {
        self.slot.write(Some(request));
        self.policy.unpark();
    }
}

/// The control thread's ends of the policy's thread.
pub struct InferenceHandle {
    pub requests: RequestSlot,
    pub chunks: triple_buffer::Output<Option<Sampled>>,
    /// The first error of the policy, as text; the thread has ended then.
    pub errors: Receiver<String>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A chunk that the arm will follow, and all that it was made from.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    pub request: InferRequest,
    /// Where the noise stood before it was sampled.
    pub noise: NoiseState,
    pub chunk: ActionChunk,
}

/// Where a candidate policy is told what the driving one was asked and said. It may lag behind: what it has no room for is counted.
#[derive(Debug, Clone)]
pub struct Shadowing {
    pub told: Sender<Told>,
    pub missed: Arc<AtomicU64>,
}

/// Starts the policy's thread. It ends when the handle is dropped. `recorder` and `shadowing` are told of
/// every chunk before the controller is; neither can make it wait.
pub fn spawn<D>(
    mut sampler: ChunkSampler<D>,
    mut recorder: Option<ChunkTap>,
    shadowing: Option<Shadowing>,
) -> std::io::Result<InferenceHandle>
where
    D: Denoiser + Send + 'static,
    D::Error: std::fmt::Display,
{
    spawn_with(move |request| {
        let started = clock::now();
        let (noise, count) = (sampler.noise(), sampler.affordable_steps(request));
        let chunk = sampler.sample(request, count).map_err(|e| e.to_string())?;
        if let Some(recorder) = &mut recorder {
            recorder.chunk(started, clock::elapsed(started), noise, count, &chunk);
        }
        if let Some(Shadowing { told, missed }) = &shadowing
            && told.try_send(Told { request: *request, noise, chunk }).is_err()
        {
            missed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(chunk)
    })
}

/// The same with any other source of chunks.
pub fn spawn_with(
    mut sample: impl FnMut(&InferRequest) -> Result<ActionChunk, String> + Send + 'static,
) -> std::io::Result<InferenceHandle> {
    let (slot, mut requests) = triple_buffer::triple_buffer(&None::<InferRequest>);
    let (mut chunks_in, chunks) = triple_buffer::triple_buffer(&None::<Sampled>);
    let (send_error, errors) = bounded(1);
    let closing = Arc::new(AtomicBool::new(false));
    let closed = closing.clone();
    let thread = std::thread::Builder::new().name("tenon-policy".into()).spawn(move || {
        while !closed.load(Ordering::Acquire) {
            if !requests.update() {
                // An unpark that came since the look makes this return at once.
                std::thread::park();
                continue;
            }
            let Some(request) = requests.output_buffer() else { continue };
            let started = clock::now();
            match sample(request) {
                Ok(chunk) => chunks_in.write(Some(Sampled { chunk, took: clock::elapsed(started) })),
                Err(e) => {
                    // Nobody listens only when the run is over anyway.
                    let _ = send_error.try_send(e);
                    return;
                }
            }
        }
    })?;
    let requests = RequestSlot { slot, policy: thread.thread().clone() };
    Ok(InferenceHandle { requests, chunks, errors, closing, thread: Some(thread) })
}

impl Drop for InferenceHandle {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the policy's thread has been reported by the panic hook; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tenon_core::config::{TaskConfig, Values};
    use tenon_core::normalizer::{Limits, Normalizer};

    use super::*;

    /// Takes its time for each step, and says in which networks' names it was asked.
    struct Slow {
        step: Duration,
        asked: Vec<(usize, bool)>,
    }

    impl Denoiser for Slow {
        type Error = Infallible;

        fn condition(&mut self, _: &[f32]) -> Result<(), Infallible> {
            self.asked.clear();
            Ok(())
        }

        fn predict_noise(&mut self, step: &DenoisingStep, _: &[f32], noise: &mut [f32]) -> Result<(), Infallible> {
            std::thread::sleep(self.step);
            self.asked.push((step.t, step.finetuned));
            noise.fill(0.0);
            Ok(())
        }
    }

    fn sampler(step: Duration) -> ChunkSampler<Slow> {
        let text = include_str!("../../../configs/tasks/avoid_m1.toml");
        let task = TaskConfig::parse("avoid_m1.toml", text, Values::Latest).expect("the shipped file");
        let normalizer = Normalizer::new(Limits::symmetric(1.0, 4), Limits::symmetric(0.01, 2));
        let mut spec = task.policy_spec(normalizer, task.policy.finetuned_steps());
        let denoising = spec.denoising.as_mut().expect("a diffusion policy");
        denoising.step_counts = vec![5, 10];
        spec.check().expect("it makes sense");
        let denoising = spec.denoising.clone().expect("a diffusion policy");
        ChunkSampler::new(spec, &denoising, Slow { step, asked: Vec::new() }, 1)
    }

    #[test]
    fn a_chunk_that_would_be_late_is_denoised_in_fewer_steps() {
        let mut sampler = sampler(Duration::from_millis(1));
        let request = |budget_s| InferRequest { id: 1, len: 4, budget_s, ..InferRequest::default() };
        let unhurried = request(f32::INFINITY);
        assert_eq!(sampler.affordable_steps(&unhurried), 20);
        let Ok(_) = sampler.sample(&unhurried, 20);
        assert_eq!(sampler.denoiser.asked.len(), 20);
        // 20 steps take at least 20 ms, 2 take no less than 2; how much more is the machine's business.
        assert!(sampler.affordable_steps(&request(0.020)) < 20);
        assert_eq!(sampler.affordable_steps(&request(0.002)), 5);
        assert_eq!(sampler.affordable_steps(&unhurried), 20);
        let Ok(_) = sampler.sample(&request(0.002), 5);
        assert_eq!(sampler.denoiser.asked, [(16, false), (12, false), (8, true), (4, true), (0, true)]);
    }

    #[test]
    fn a_chunk_is_made_again_from_its_noise_and_its_number_of_steps() {
        let mut sampler = sampler(Duration::ZERO);
        let request = InferRequest { id: 1, len: 4, ..InferRequest::default() };
        let noise = sampler.noise();
        let Ok(first) = sampler.sample(&request, 5);
        let Ok(_) = sampler.sample(&request, 20);
        sampler.set_noise(noise);
        let Ok(again) = sampler.sample(&request, 5);
        assert_eq!(first.action(0), again.action(0));
        sampler.set_noise(noise);
        let Ok(other) = sampler.sample(&request, 20);
        assert_ne!(first.action(0), other.action(0));
    }
}
