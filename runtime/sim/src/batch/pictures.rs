//! Renderers for a batch of environments, one a thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Environment;
use crate::error::SimError;
use crate::render::{RenderOptions, Renderer};

/// What [`super::BatchEnv::render`] draws with. The first picture of a thread opens its context; later ones allocate
/// nothing.
#[derive(Debug)]
pub struct BatchPictures {
    options: RenderOptions,
    /// One a thread; a thread takes only its own, so nobody waits.
    workers: Vec<Mutex<Option<Renderer>>>,
    /// Nanoseconds of all threads together.
    drawn_for: AtomicU64,
}

impl BatchPictures {
    /// For a batch of so many threads ([`super::BatchOptions::threads`]).
    ///
    /// # Errors
    /// [`SimError::BatchOptions`] for no thread or no view.
    pub fn new(options: RenderOptions, threads: usize) -> Result<Self, SimError> {
        if threads == 0 || options.views.is_empty() {
            return Err(SimError::BatchOptions { message: "pictures need a thread and a view".into() });
        }
        let workers = (0..threads).map(|_| Mutex::new(None)).collect();
        Ok(Self { options, workers, drawn_for: AtomicU64::new(0) })
    }

    /// Bytes of one environment's pictures.
    pub fn len_of_one(&self) -> usize {
        self.options.views.len() * self.options.picture_len()
    }

    /// What is drawn and how.
    pub fn options(&self) -> &RenderOptions {
        &self.options
    }

    /// Platform and renderer of OpenGL, once something was drawn.
    pub fn backend(&self) -> Option<String> {
        self.workers.iter().find_map(|worker| {
            let renderer = worker.lock().unwrap_or_else(PoisonError::into_inner);
            renderer.as_ref().map(|renderer| renderer.backend().to_owned())
        })
    }

    /// Time spent drawing so far, of all threads together.
    pub fn time_drawing(&self) -> Duration {
        Duration::from_nanos(self.drawn_for.load(Ordering::Relaxed))
    }

    /// Draws one environment with the renderer of `worker`, a thread's number.
    ///
    /// `pictures`: receives [`len_of_one`](Self::len_of_one) bytes, `[views · 3, height, width]`.
    ///
    /// # Errors
    /// [`SimError::NothingToDraw`], and as [`Renderer`].
    pub fn draw<E: Environment>(
        &self,
        worker: usize,
        environment: &mut E,
        pictures: &mut [u8],
    ) -> Result<(), SimError> {
        let world = environment.world_to_draw().ok_or(SimError::NothingToDraw)?;
        // A batch with more threads than this was made for shares renderers, which is slow but right.
        let mut renderer = self.workers[worker % self.workers.len()].lock().unwrap_or_else(PoisonError::into_inner);
        let renderer = match &mut *renderer {
            Some(renderer) => renderer,
            empty => empty.insert(Renderer::new(world.model(), &self.options)?),
        };
        let begun = Instant::now();
        let result = renderer.render_channels(world, pictures);
        self.drawn_for.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
}
