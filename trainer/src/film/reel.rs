//! The camera of a film, and the files that it fills.

use std::io::BufWriter;
use std::path::Path;

use tempfile::NamedTempFile;
use tenon_sim::SimError;
use tenon_sim::batch::Environment;
use tenon_sim::render::{RenderOptions, Renderer, View};

use super::apng::{ApngWriter, FrameTime};
use super::mp4::Mp4Writer;
use super::{FilmOptions, drawing, pace};
use crate::error::TrainError;
use crate::run_dir::new_file_in;

/// Takes the pictures.
pub(crate) struct Camera {
    renderer: Renderer,
    picture: Vec<u8>,
}

impl Camera {
    pub fn new<E: Environment>(environment: &mut E, options: &FilmOptions) -> Result<Self, TrainError> {
        let sight = environment.sight();
        let mut render = RenderOptions::of_sight(sight, options.width, options.height, options.quality);
        if let Some(name) = options.camera {
            render.views = vec![View::Camera(name.to_owned())];
        }
        let world = environment.world_to_draw().ok_or(SimError::NothingToDraw).map_err(drawing)?;
        let renderer = Renderer::new(world.model(), &render).map_err(drawing)?;
        Ok(Self { picture: vec![0; renderer.picture_len()], renderer })
    }

    /// Platform and renderer of OpenGL.
    pub fn backend(&self) -> &str {
        self.renderer.backend()
    }

    pub fn shoot<E: Environment>(&mut self, environment: &mut E) -> Result<&[u8], TrainError> {
        let world = environment.world_to_draw().ok_or(SimError::NothingToDraw).map_err(drawing)?;
        self.renderer.render(world, 0, &mut self.picture).map_err(drawing)?;
        Ok(&self.picture)
    }
}

/// The files of one episode while they grow beside their places; dropped before its end it leaves none.
pub(crate) struct Reel<'a> {
    folder: &'a Path,
    name: String,
    png: ApngWriter<BufWriter<NamedTempFile>>,
    mp4: Option<Mp4Writer>,
}

impl<'a> Reel<'a> {
    pub fn new(options: &FilmOptions<'a>, episode: usize) -> Result<Self, TrainError> {
        let frame_ms = pace(options.task).1;
        let name = format!("episode-{episode:03}");
        let fail = |e: std::io::Error| TrainError::file(options.folder, format!("cannot be written: {e}"));
        let file = new_file_in(options.folder).map_err(fail)?;
        let (width, height, time) = (options.width, options.height, FrameTime::milliseconds(frame_ms));
        let png = ApngWriter::new(BufWriter::new(file), width, height, time).map_err(fail)?;
        let rate = 1000.0 / f64::from(frame_ms.max(1));
        let mp4 = options.mp4.then(|| Mp4Writer::new(options.folder, width, height, rate)).transpose()?;
        Ok(Self { folder: options.folder, name, png, mp4 })
    }

    pub fn add(&mut self, picture: &[u8]) -> Result<(), TrainError> {
        self.png.add(picture).map_err(|e| TrainError::file(self.folder.join(&self.name), e))?;
        match &mut self.mp4 {
            Some(mp4) => mp4.add(picture),
            None => Ok(()),
        }
    }

    /// Puts the files into place; their names and the number of frames.
    pub fn finish(self) -> Result<(String, Option<String>, u32), TrainError> {
        let png = format!("{}.png", self.name);
        let target = self.folder.join(&png);
        let fail = |e: &dyn std::fmt::Display| TrainError::file(&target, format!("cannot be written: {e}"));
        let (writer, frames) = self.png.finish().map_err(|e| fail(&e))?;
        let file = writer.into_inner().map_err(|e| fail(&e))?;
        {
            let _writing = crate::run_dir::writing();
            file.persist(&target).map_err(|e| fail(&e.error))?;
        }
        let mp4 = match self.mp4 {
            None => None,
            Some(mp4) => {
                let name = format!("{}.mp4", self.name);
                mp4.finish(&self.folder.join(&name))?;
                Some(name)
            }
        };
        Ok((png, mp4, frames))
    }
}
