//! Scenes read from files, changed before they are compiled.

use std::path::Path;

use mujoco_rs::mujoco_c::{mjs_asGeom, mjs_delete, mjs_firstElement, mjs_nextElement, mjtDisableBit, mjtObj};
use mujoco_rs::wrappers::mj_editing::{MjSpec, SpecItem};
use mujoco_rs::wrappers::mj_model::MjtObj;

use super::{Model, prepare_library};
use crate::error::SimError;

/// MJCF read from a file with everything that it names; not compiled yet.
pub struct SceneFile {
    spec: MjSpec,
    moved: Vec<(String, [f64; 3])>,
}

impl std::fmt::Debug for SceneFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SceneFile")
    }
}

impl SceneFile {
    /// Reads a file. Meshes and pictures are looked for beside it, and only once the scene is compiled.
    ///
    /// # Errors
    /// [`SimError::WrongMujocoVersion`], [`SimError::ModelCompile`] with MuJoCo's message.
    pub fn read(path: &Path) -> Result<Self, SimError> {
        prepare_library()?;
        // The binding panics on a path that is no text.
        match path.to_str() {
            Some(text) if !text.contains('\0') => {
                let spec = MjSpec::from_xml(path).map_err(compile_error)?;
                Ok(Self { spec, moved: Vec::new() })
            }
            _ => Err(SimError::ModelCompile { message: format!("{} is not a path in UTF-8", path.display()) }),
        }
    }

    /// Gives a box or cylinder other half sizes (metres; a cylinder has radius and half length).
    ///
    /// # Errors
    /// [`SimError::UnknownName`].
    pub fn set_geom_size(&mut self, name: &str, half_sizes_m: &[f64]) -> Result<(), SimError> {
        let unknown = || SimError::UnknownName { kind: "geom", name: name.to_owned() };
        let geom = self.spec.geom_mut(name).ok_or_else(unknown)?;
        geom.size_mut().iter_mut().zip(half_sizes_m).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    /// Puts a geom elsewhere in its body's frame.
    ///
    /// # Errors
    /// [`SimError::UnknownName`].
    pub fn set_geom_position(&mut self, name: &str, position_m: [f64; 3]) -> Result<(), SimError> {
        let unknown = || SimError::UnknownName { kind: "geom", name: name.to_owned() };
        *self.spec.geom_mut(name).ok_or_else(unknown)?.pos_mut() = position_m;
        Ok(())
    }

    /// Puts a body elsewhere in its parent's frame once the scene is compiled, as somebody would who edits the model: what
    /// the compiler made of the body (its inertial frame, say) stays.
    ///
    /// # Errors
    /// [`SimError::UnknownName`].
    pub fn move_body(&mut self, name: &str, position_m: [f64; 3]) -> Result<(), SimError> {
        if self.spec.body(name).is_none() {
            return Err(SimError::UnknownName { kind: "body", name: name.to_owned() });
        }
        self.moved.push((name.to_owned(), position_m));
        Ok(())
    }

    /// Whether there is a geom of this name.
    pub fn has_geom(&self, name: &str) -> bool {
        self.spec.geom(name).is_some()
    }

    /// Takes away what is only seen: geoms that touch nothing and are left out of the inertia by their group, then
    /// materials, textures and the meshes that nobody names any more. The physics is the same.
    ///
    /// # Errors
    /// [`SimError::ModelCompile`] where MuJoCo refuses.
    pub fn remove_visuals(&mut self) -> Result<(), SimError> {
        let mass_groups = *self.spec.compiler().inertiagrouprange();
        // SAFETY: the elements belong to this specification, and those that are deleted are not used again.
        unsafe {
            let spec = std::ptr::from_mut(self.spec.ffi_mut());
            let mut kept_meshes = Vec::new();
            let mut visual = Vec::new();
            let mut element = mjs_firstElement(spec, mjtObj::mjOBJ_GEOM);
            while !element.is_null() {
                if let Some(geom) = mjs_asGeom(element).as_mut() {
                    let massless = geom.group() < mass_groups[0] || geom.group() > mass_groups[1];
                    if geom.contype() == 0 && geom.conaffinity() == 0 && massless {
                        visual.push(element);
                    } else {
                        geom.set_material("");
                        kept_meshes.push(geom.meshname().to_owned());
                    }
                }
                element = mjs_nextElement(spec, element);
            }
            for kind in [mjtObj::mjOBJ_MATERIAL, mjtObj::mjOBJ_TEXTURE, mjtObj::mjOBJ_MESH] {
                let mut element = mjs_firstElement(spec, kind);
                while !element.is_null() {
                    let kept = kind == mjtObj::mjOBJ_MESH
                        && mujoco_rs::mujoco_c::mjs_asMesh(element)
                            .as_ref()
                            .is_some_and(|mesh| kept_meshes.iter().any(|name| name == mesh.name()));
                    if !kept {
                        visual.push(element);
                    }
                    element = mjs_nextElement(spec, element);
                }
            }
            for element in visual {
                if mjs_delete(spec, element) != 0 {
                    let message = "what is only seen cannot be taken out of the scene".to_owned();
                    return Err(SimError::ModelCompile { message });
                }
            }
        }
        Ok(())
    }

    /// Compiles the scene as it is now; it may be changed and compiled again. Sensors are not computed: what they
    /// measure is read from the world itself.
    ///
    /// # Errors
    /// [`SimError::ModelCompile`] with MuJoCo's message.
    pub fn compile(&mut self) -> Result<Model, SimError> {
        let mut model = self.spec.compile().map_err(compile_error)?;
        for (name, position_m) in &self.moved {
            let body = usize::try_from(model.name_to_id(MjtObj::mjOBJ_BODY, name));
            let body = body.map_err(|_| SimError::UnknownName { kind: "body", name: name.clone() })?;
            model.body_pos_mut()[body] = *position_m;
        }
        Ok(Model::finish(model, mjtDisableBit::mjDSBL_SENSOR as i32))
    }
}

/// MuJoCo's messages have several lines.
fn compile_error(error: std::io::Error) -> SimError {
    SimError::ModelCompile { message: error.to_string().split_whitespace().collect::<Vec<_>>().join(" ") }
}
