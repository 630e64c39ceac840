//! Pictures of a simulated world, without a window.
//!
//! A [`Renderer`] draws worlds of one model (or of models that differ only in the sizes and colours of their geoms) with
//! MuJoCo's own drawing functions, in an OpenGL context that is opened at run time: EGL with a card's driver or with
//! Mesa's llvmpipe, else OSMesa. Programs start and train without any of them; only making a renderer fails then, with
//! what to install. [`Renderer::backend`] names what was found.
//!
//! Pictures are RGB, one byte a colour, row 0 at the top (specification of the simulation tasks, section 3.8). A
//! renderer allocates nothing after it was made (what the OpenGL library does is its own affair), may be moved from
//! thread to thread, and is used by one at a time: one a worker.
//!
//! # Two qualities
//! [`Quality::Exact`] is MuJoCo's picture as its Python renderer and robosuite make it: shadows, reflections and samples
//! as the model says. [`Quality::Fast`] leaves shadows, reflections and further samples out and draws meshes with fewer
//! triangles. The two differ, so a policy has to see what it was trained with; [`mean_difference`] says by how much.

mod egl;
mod gl;
mod library;
pub(crate) mod lighter;
mod osmesa;

pub use gl::{EGL_VARIABLE, OSMESA_VARIABLE, PLATFORM_VARIABLE};
pub use tenon_core::pictures::Quality;

use crate::error::SimError;
use crate::mujoco::drawing::{Drawing, Look};
use crate::mujoco::{CameraId, Model, Simulation};
use gl::GlContext;

/// Side of the pictures that policies see, pixels.
pub const POLICY_PICTURE_SIDE: u32 = 96;
/// Bytes of a pixel: red, green, blue.
pub const CHANNELS: usize = 3;
/// Largest side of a picture, pixels.
pub const LARGEST_SIDE: u32 = 8192;
/// Cells on the longest side of a mesh in [`Quality::Fast`]: about a third of a pixel where a link of the arm fills a
/// picture of 96 pixels.
const FAST_MESH_CELLS: u32 = 32;

/// From where a world is seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum View {
    /// A camera of the model, by name.
    Camera(String),
    /// From where MuJoCo's viewer begins: the whole model.
    Overview,
}

/// How a task is best watched by a person: what [`crate::batch::Environment::sight`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// A camera of the model; none: the overview.
    pub camera: Option<&'static str>,
    /// Which groups of geoms are drawn.
    pub geom_groups: [bool; 6],
}

impl Sight {
    /// The groups that MuJoCo's viewer shows: 0, 1 and 2.
    pub const USUAL_GROUPS: [bool; 6] = [true, true, true, false, false, false];
    /// Group 1 only: in robosuite's scenes what is seen, while group 0 is what touches.
    pub const VISUALS_ONLY: [bool; 6] = [false, true, false, false, false, false];
}

impl Default for Sight {
    fn default() -> Self {
        Self { camera: None, geom_groups: Self::USUAL_GROUPS }
    }
}

/// What is drawn and how.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderOptions {
    pub quality: Quality,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// One picture each, in this order.
    pub views: Vec<View>,
    /// Which groups of geoms are drawn.
    pub geom_groups: [bool; 6],
    /// Whether sites are drawn.
    pub sites: bool,
}

impl RenderOptions {
    /// What a policy of the paper sees through these cameras: 96×96 pixels, geoms of group 1, no sites (specification
    /// of the simulation tasks, section 3.8).
    pub fn of_policies<S: AsRef<str>>(cameras: &[S], quality: Quality) -> Self {
        Self {
            quality,
            width: POLICY_PICTURE_SIDE,
            height: POLICY_PICTURE_SIDE,
            views: cameras.iter().map(|name| View::Camera(name.as_ref().to_owned())).collect(),
            geom_groups: Sight::VISUALS_ONLY,
            sites: false,
        }
    }

    /// One picture for people.
    pub fn of_sight(sight: Sight, width: u32, height: u32, quality: Quality) -> Self {
        let view = sight.camera.map_or(View::Overview, |name| View::Camera(name.to_owned()));
        Self { quality, width, height, views: vec![view], geom_groups: sight.geom_groups, sites: false }
    }

    /// Bytes of one picture.
    pub fn picture_len(&self) -> usize {
        self.width as usize * self.height as usize * CHANNELS
    }

    fn check(&self) -> Result<(), SimError> {
        let side = 1..=LARGEST_SIDE;
        if !side.contains(&self.width) || !side.contains(&self.height) {
            return Err(SimError::PictureSize { width: self.width, height: self.height, largest: LARGEST_SIDE });
        }
        Ok(())
    }
}

/// Draws worlds.
pub struct Renderer {
    /// Dropped by hand before the context that it lives in.
    drawing: Drawing,
    gl: GlContext,
    /// The model that it was made for, and others that it can draw as well.
    models: Vec<Model>,
    cameras: Vec<Option<CameraId>>,
    width: usize,
    height: usize,
    triangles: [usize; 2],
    /// `[height, width, 3]`, bottom row first.
    rows: Vec<u8>,
}

impl std::fmt::Debug for Renderer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Renderer").field("backend", &self.backend()).finish_non_exhaustive()
    }
}

impl Renderer {
    /// Opens a context and uploads the model's meshes and textures.
    ///
    /// # Errors
    /// [`SimError::NoGl`] on a machine without an OpenGL library, [`SimError::Gl`] where it does not suffice,
    /// [`SimError::UnknownCamera`], [`SimError::PictureSize`].
    pub fn new(model: &Model, options: &RenderOptions) -> Result<Self, SimError> {
        options.check()?;
        let camera = |view: &View| match view {
            View::Camera(name) => model.camera(name).map(Some),
            View::Overview => Ok(None),
        };
        let cameras = options.views.iter().map(camera).collect::<Result<_, _>>()?;
        let fast = options.quality == Quality::Fast;
        let look = Look {
            width: options.width,
            height: options.height,
            effects: !fast,
            geom_groups: options.geom_groups,
            sites: options.sites,
            mesh_cells: fast.then_some(FAST_MESH_CELLS),
        };
        let mut gl = GlContext::new(options.width, options.height)?;
        gl.enter()?;
        // SAFETY: the context is current, was found to suffice and has room for the picture.
        let made = unsafe { Drawing::new(model, &look) };
        gl.leave();
        let (drawing, triangles) = made?;
        Ok(Self {
            drawing,
            gl,
            models: vec![model.clone()],
            cameras,
            width: options.width as usize,
            height: options.height as usize,
            triangles: [triangles.whole, triangles.drawn],
            rows: vec![0; options.picture_len()],
        })
    }

    /// Platform and renderer of OpenGL, e.g. `EGL, llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub fn backend(&self) -> &str {
        self.gl.name()
    }

    /// Triangles of the model's meshes: of all, and of those that are drawn.
    pub fn mesh_triangles(&self) -> [usize; 2] {
        self.triangles
    }

    /// Number of views.
    pub fn views(&self) -> usize {
        self.cameras.len()
    }

    /// Bytes of one picture.
    pub fn picture_len(&self) -> usize {
        self.rows.len()
    }

    /// Draws one view of a world as its bodies stand now; see [`Simulation::place`] for worlds that were not stepped
    /// since they were changed.
    ///
    /// `picture`: receives `[height, width, 3]`, row 0 at the top.
    ///
    /// # Errors
    /// [`SimError::PictureBuffer`] where `picture` has another length or there is no such view, [`SimError::OtherModel`]
    /// for a world with other meshes or cameras, [`SimError::Gl`].
    pub fn render(&mut self, world: &mut Simulation, view: usize, picture: &mut [u8]) -> Result<(), SimError> {
        self.expect(picture, 1)?;
        self.draw(world, view)?;
        let row_len = self.width * CHANNELS;
        for (to, from) in picture.chunks_exact_mut(row_len).zip(self.rows.chunks_exact(row_len).rev()) {
            to.copy_from_slice(from);
        }
        Ok(())
    }

    /// Draws all views of a world, colours apart, as networks want them.
    ///
    /// `pictures`: receives `[views · 3, height, width]`, row 0 at the top.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_channels(&mut self, world: &mut Simulation, pictures: &mut [u8]) -> Result<(), SimError> {
        self.expect(pictures, self.cameras.len())?;
        let (len, row_len, plane) = (self.rows.len(), self.width * CHANNELS, self.width * self.height);
        for (view, picture) in pictures.chunks_exact_mut(len).enumerate() {
            self.draw(world, view)?;
            for (row, from) in self.rows.chunks_exact(row_len).rev().enumerate() {
                for (column, pixel) in from.chunks_exact(CHANNELS).enumerate() {
                    for (channel, &value) in pixel.iter().enumerate() {
                        picture[channel * plane + row * self.width + column] = value;
                    }
                }
            }
        }
        Ok(())
    }

    fn expect(&self, pictures: &[u8], count: usize) -> Result<(), SimError> {
        let expected = count * self.rows.len();
        if pictures.len() == expected {
            Ok(())
        } else {
            Err(SimError::PictureBuffer { expected, found: pictures.len() })
        }
    }

    /// Draws a view into `rows`.
    fn draw(&mut self, world: &mut Simulation, view: usize) -> Result<(), SimError> {
        let Some(&camera) = self.cameras.get(view) else {
            return Err(SimError::UnknownView { view, views: self.cameras.len() });
        };
        if !self.models.iter().any(|known| known.is_same(world.model())) {
            if !self.models[0].draws_like(world.model()) {
                return Err(SimError::OtherModel);
            }
            self.models.push(world.model().clone());
        }
        self.gl.enter()?;
        // SAFETY: the context is the one that the drawing was made in, the model was found to be alike, and `rows` has
        // the length of the picture.
        unsafe { self.drawing.draw(world, camera, &mut self.rows) };
        self.gl.leave();
        Ok(())
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        // A context that cannot be entered any more takes what is in it with it.
        if self.gl.enter().is_ok() {
            // SAFETY: the context is the one that the drawing was made in.
            unsafe { self.drawing.release() };
            self.gl.leave();
        }
    }
}

/// Mean absolute difference of two pictures, grey levels (of 255).
///
/// # Panics
/// Where they have not the same length.
pub fn mean_difference(first: &[u8], second: &[u8]) -> f64 {
    assert_eq!(first.len(), second.len(), "pictures of one size");
    let sum: u64 = first.iter().zip(second).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
    sum as f64 / first.len().max(1) as f64
}
