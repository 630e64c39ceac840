//! MuJoCo's own drawing functions, for [`crate::render`]: the list of what is to be drawn (mjv) and OpenGL (mjr).
//!
//! MuJoCo finds the OpenGL functions by itself, in whichever platform library this process has loaded; making a context
//! and making it current is `crate::render::gl`.

use mujoco_rs::mujoco_c::{self, mjtCamera, mjtCatBit, mjtFontScale, mjtFramebuffer, mjtObj, mjtRndFlag};

use super::{CameraId, GeomId, Model, Simulation};
use crate::error::SimError;
use crate::render::lighter::{Faces, thin_out};

/// What of a model is drawn, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Look {
    /// Pixels.
    pub width: u32,
    pub height: u32,
    /// Shadows, reflections, several samples a pixel: as the model says. Without: none of them.
    pub effects: bool,
    pub geom_groups: [bool; 6],
    pub sites: bool,
    /// Cells on the longest side of a mesh, whose vertices are drawn as one; none: meshes as they are.
    pub mesh_cells: Option<u32>,
}

/// One model, made ready in one OpenGL context.
pub(crate) struct Drawing {
    scene: Box<mujoco_c::mjvScene>,
    context: Box<mujoco_c::mjrContext>,
    option: Box<mujoco_c::mjvOption>,
    camera: Box<mujoco_c::mjvCamera>,
    viewport: mujoco_c::mjrRect,
}

// SAFETY: the pointers inside lead to memory that nobody else knows of. What belongs to a thread is the OpenGL context,
// which every call wants to be current.
unsafe impl Send for Drawing {}

/// Triangles of a model's meshes before and after they were thinned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Triangles {
    pub whole: usize,
    pub drawn: usize,
}

impl Drawing {
    /// Uploads meshes and textures.
    ///
    /// # Errors
    /// [`SimError::ModelCopy`] where the memory does not suffice for a copy of the model.
    ///
    /// # Safety
    /// An OpenGL context (1.5 with framebuffer and vertex-buffer objects, buffers of the picture's size) is current in
    /// this thread. [`draw`](Self::draw) and [`release`](Self::release) want the same one.
    pub unsafe fn new(model: &Model, look: &Look) -> Result<(Self, Triangles), SimError> {
        let source: *const mujoco_c::mjModel = model.0.ffi();
        // The context is made from a copy that is thrown away, so that sizes and meshes can be those of the picture.
        // SAFETY: a null destination asks MuJoCo to allocate; the source is whole.
        let copy = unsafe { mujoco_c::mj_copyModel(std::ptr::null_mut(), source) };
        if copy.is_null() {
            return Err(SimError::ModelCopy);
        }
        // SAFETY: the copy is whole and ours alone until it is deleted below.
        let whole = unsafe { &mut *copy };
        whole.vis.global.offwidth = look.width as i32;
        whole.vis.global.offheight = look.height as i32;
        if !look.effects {
            whole.vis.quality.offsamples = 0;
            whole.vis.quality.shadowsize = 0;
        }
        // SAFETY: as above; the arrays of a model have the lengths that it says.
        let triangles = unsafe { thin_out_meshes(whole, look.mesh_cells) };
        let geoms = whole.ngeom + whole.nsite;

        let mut context = Box::<mujoco_c::mjrContext>::new_uninit();
        let mut scene = Box::<mujoco_c::mjvScene>::new_uninit();
        let mut option = Box::<mujoco_c::mjvOption>::new_uninit();
        let mut camera = Box::<mujoco_c::mjvCamera>::new_uninit();
        // SAFETY: each default function fills its struct whole; the OpenGL context is current as the caller promises.
        let (mut context, mut scene, mut option, camera) = unsafe {
            mujoco_c::mjr_defaultContext(context.as_mut_ptr());
            mujoco_c::mjr_makeContext(copy, context.as_mut_ptr(), mjtFontScale::mjFONTSCALE_150 as i32);
            mujoco_c::mj_deleteModel(copy);
            mujoco_c::mjv_defaultScene(scene.as_mut_ptr());
            // Geoms and sites, and room for what else MuJoCo draws (tendons, lines of actuators).
            mujoco_c::mjv_makeScene(source, scene.as_mut_ptr(), 1000 + 2 * geoms);
            mujoco_c::mjv_defaultOption(option.as_mut_ptr());
            mujoco_c::mjv_defaultCamera(camera.as_mut_ptr());
            (context.assume_init(), scene.assume_init(), option.assume_init(), camera.assume_init())
        };
        // SAFETY: the context was just made in the OpenGL context that is current.
        unsafe { mujoco_c::mjr_setBuffer(mjtFramebuffer::mjFB_OFFSCREEN as i32, &raw mut *context) };
        if !look.effects {
            scene.flags[mjtRndFlag::mjRND_SHADOW as usize] = 0;
            scene.flags[mjtRndFlag::mjRND_REFLECTION as usize] = 0;
        }
        option.geomgroup = look.geom_groups.map(u8::from);
        if !look.sites {
            option.sitegroup = [0; 6];
        }
        let viewport = mujoco_c::mjrRect { left: 0, bottom: 0, width: look.width as i32, height: look.height as i32 };
        Ok((Self { scene, context, option, camera, viewport }, triangles))
    }

    /// Draws the world, seen through `camera` or, without one, from where the model as a whole can be seen.
    ///
    /// `rows`: receives `[height, width, 3]`, RGB, the *bottom* row first, as OpenGL has it.
    ///
    /// # Safety
    /// As for [`new`](Self::new); the world's model has the meshes and textures of the one that this was made from, and
    /// `rows` has the length of the picture.
    pub unsafe fn draw(&mut self, world: &mut Simulation, camera: Option<CameraId>, rows: &mut [u8]) {
        let model: *const mujoco_c::mjModel = world.1.0.ffi();
        // SAFETY: the world belongs to that model; the structs are whole and ours, `rows` is as long as promised.
        unsafe {
            match camera {
                Some(CameraId(id)) => {
                    self.camera.type_ = mjtCamera::mjCAMERA_FIXED as i32;
                    self.camera.fixedcamid = id as i32;
                }
                None => mujoco_c::mjv_defaultFreeCamera(model, &raw mut *self.camera),
            }
            let data: *mut mujoco_c::mjData = world.0.ffi_mut();
            mujoco_c::mjv_updateScene(
                model,
                data,
                &raw const *self.option,
                std::ptr::null(),
                &raw mut *self.camera,
                mjtCatBit::mjCAT_ALL as i32,
                &raw mut *self.scene,
            );
            self.resize(&world.2);
            mujoco_c::mjr_render(self.viewport, &raw mut *self.scene, &raw const *self.context);
            mujoco_c::mjr_readPixels(rows.as_mut_ptr(), std::ptr::null_mut(), self.viewport, &raw const *self.context);
        }
    }

    /// Gives geoms the sizes that they have in this world alone.
    fn resize(&mut self, sizes: &[(GeomId, [f32; 3])]) {
        if sizes.is_empty() {
            return;
        }
        // SAFETY: the scene holds that many geoms, and nobody else looks at them.
        let geoms = unsafe { std::slice::from_raw_parts_mut(self.scene.geoms, self.scene.ngeom.max(0) as usize) };
        for geom in geoms.iter_mut().filter(|geom| geom.objtype == mjtObj::mjOBJ_GEOM as i32) {
            if let Some((_, size)) = sizes.iter().find(|(id, _)| id.0 as i32 == geom.objid) {
                geom.size = *size;
            }
        }
    }

    /// Gives back what lies in the OpenGL context; nothing can be drawn afterwards.
    ///
    /// # Safety
    /// As for [`new`](Self::new).
    pub unsafe fn release(&mut self) {
        // SAFETY: the context is the one that these objects live in.
        unsafe { mujoco_c::mjr_freeContext(&raw mut *self.context) };
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        // SAFETY: the scene was made by mjv_makeScene and is freed once; it lies in ordinary memory.
        unsafe { mujoco_c::mjv_freeScene(&raw mut *self.scene) };
    }
}

impl Model {
    /// Whether a drawing made from this model can draw worlds of `other`: the same cameras, meshes, textures, materials
    /// and height fields. Sizes and colours of geoms are read from each world's own model.
    pub(crate) fn draws_like(&self, other: &Self) -> bool {
        let (a, b) = (self.0.ffi(), other.0.ffi());
        let counts = |m: &mujoco_c::mjModel| {
            [
                m.ncam,
                m.nmesh,
                m.nmeshvert,
                m.nmeshnormal,
                m.nmeshtexcoord,
                m.nmeshface,
                m.ntex,
                m.ntexdata,
                m.nmat,
                m.nhfield,
                m.nhfielddata,
                m.nskin,
                m.nflex,
                m.ngeom,
                m.nsite,
            ]
        };
        if counts(a) != counts(b) || a.nskin + a.nflex > 0 {
            return false;
        }
        // SAFETY: the arrays of a model have the lengths that it says, and nobody writes to a model that is shared.
        unsafe {
            same(a.mesh_vert, b.mesh_vert, 3 * a.nmeshvert)
                && same(a.mesh_face, b.mesh_face, 3 * a.nmeshface)
                && same(a.hfield_data, b.hfield_data, a.nhfielddata)
                && same(a.tex_data, b.tex_data, a.ntexdata)
                && same(a.mat_texrepeat, b.mat_texrepeat, 2 * a.nmat)
        }
    }
}

/// # Safety
/// Both arrays hold `len` values, or `len` is 0.
unsafe fn same<T: PartialEq>(a: *const T, b: *const T, len: i32) -> bool {
    // SAFETY: as the caller promises; a null pointer is allowed only where there is nothing.
    let slice =
        |array: *const T| if len <= 0 { &[] } else { unsafe { std::slice::from_raw_parts(array, len as usize) } };
    slice(a) == slice(b)
}

/// Draws vertices that lie in one cell as one. Only the number of faces changes, not where they begin, so the arrays
/// keep their places.
///
/// # Safety
/// The model is whole and nobody else has it.
unsafe fn thin_out_meshes(model: &mut mujoco_c::mjModel, cells: Option<u32>) -> Triangles {
    let mut triangles = Triangles { whole: 0, drawn: 0 };
    for mesh in 0..model.nmesh.max(0) as usize {
        // SAFETY: these arrays have one entry a mesh.
        let (vertex, vertices, face, faces) = unsafe {
            (
                *model.mesh_vertadr.add(mesh) as usize,
                *model.mesh_vertnum.add(mesh) as usize,
                *model.mesh_faceadr.add(mesh) as usize,
                *model.mesh_facenum.add(mesh) as usize,
            )
        };
        triangles.whole += faces;
        let Some(cells) = cells.filter(|_| faces > 0 && vertices > 0) else {
            triangles.drawn += faces;
            continue;
        };
        // SAFETY: three numbers a vertex and three indices a face, at the places that the model says; the three index
        // arrays do not overlap.
        let kept = unsafe {
            let positions: &[[f32; 3]] =
                std::slice::from_raw_parts(model.mesh_vert.cast::<[f32; 3]>().add(vertex), vertices);
            let indices = |array: *mut i32| std::slice::from_raw_parts_mut(array.cast::<[i32; 3]>().add(face), faces);
            thin_out(
                positions,
                Faces {
                    vertices: indices(model.mesh_face),
                    normals: indices(model.mesh_facenormal),
                    texture: indices(model.mesh_facetexcoord),
                },
                cells,
            )
        };
        // SAFETY: one entry a mesh.
        unsafe { *model.mesh_facenum.add(mesh) = kept as i32 };
        triangles.drawn += kept;
    }
    triangles
}
