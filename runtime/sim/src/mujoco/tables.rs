//! What a compiled model says of itself, for checks against a record.

use mujoco_rs::wrappers::mj_model::MjtObj;

use super::Model;

/// Kinds of named objects of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    Body,
    Joint,
    Geom,
    Site,
    Actuator,
    Camera,
}

impl ObjectKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Joint => "joint",
            Self::Geom => "geom",
            Self::Site => "site",
            Self::Actuator => "actuator",
            Self::Camera => "camera",
        }
    }
}

/// Tables of a compiled model, by MuJoCo's names for them, rows in compiled order.
#[derive(Debug, Clone, Copy)]
pub struct ModelTables<'a>(&'a Model);

impl Model {
    /// The model's tables.
    pub fn tables(&self) -> ModelTables<'_> {
        ModelTables(self)
    }

    /// Number of objects of a kind.
    pub fn count(&self, kind: ObjectKind) -> usize {
        let model = self.0.ffi();
        (match kind {
            ObjectKind::Body => model.nbody,
            ObjectKind::Joint => model.njnt,
            ObjectKind::Geom => model.ngeom,
            ObjectKind::Site => model.nsite,
            ObjectKind::Actuator => model.nu,
            ObjectKind::Camera => model.ncam,
        }) as usize
    }

    /// Names of all objects of a kind, in compiled order; empty for those without one.
    pub fn names(&self, kind: ObjectKind) -> Vec<String> {
        let object = match kind {
            ObjectKind::Body => MjtObj::mjOBJ_BODY,
            ObjectKind::Joint => MjtObj::mjOBJ_JOINT,
            ObjectKind::Geom => MjtObj::mjOBJ_GEOM,
            ObjectKind::Site => MjtObj::mjOBJ_SITE,
            ObjectKind::Actuator => MjtObj::mjOBJ_ACTUATOR,
            ObjectKind::Camera => MjtObj::mjOBJ_CAMERA,
        };
        (0..self.count(kind)).map(|id| self.0.id_to_name(object, id as i32).unwrap_or_default().to_owned()).collect()
    }
}

impl ModelTables<'_> {
    /// A table by MuJoCo's name for it, row-major, and the kind of its rows; `None` for one that is not offered.
    /// Integers come as reals.
    pub fn get(&self, name: &str) -> Option<(ObjectKind, Vec<f64>)> {
        use ObjectKind::*;
        let model = &self.0.0;
        fn flat<const N: usize>(rows: &[[f64; N]]) -> Vec<f64> {
            rows.as_flattened().to_vec()
        }
        let integers = |values: &[i32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>();
        Some(match name {
            "body_parentid" => (Body, integers(model.body_parentid())),
            "body_pos" => (Body, flat(model.body_pos())),
            "body_quat" => (Body, flat(model.body_quat())),
            "body_ipos" => (Body, flat(model.body_ipos())),
            "body_iquat" => (Body, flat(model.body_iquat())),
            "body_mass" => (Body, model.body_mass().to_vec()),
            "body_inertia" => (Body, flat(model.body_inertia())),
            "jnt_bodyid" => (Joint, integers(model.jnt_bodyid())),
            "jnt_type" => (Joint, model.jnt_type().iter().map(|&kind| f64::from(kind as i32)).collect()),
            "jnt_pos" => (Joint, flat(model.jnt_pos())),
            "jnt_axis" => (Joint, flat(model.jnt_axis())),
            "jnt_range" => (Joint, flat(model.jnt_range())),
            "geom_bodyid" => (Geom, integers(model.geom_bodyid())),
            "geom_type" => (Geom, model.geom_type().iter().map(|&kind| f64::from(kind as i32)).collect()),
            "geom_group" => (Geom, integers(model.geom_group())),
            "geom_contype" => (Geom, integers(model.geom_contype())),
            "geom_conaffinity" => (Geom, integers(model.geom_conaffinity())),
            "geom_condim" => (Geom, integers(model.geom_condim())),
            "geom_pos" => (Geom, flat(model.geom_pos())),
            "geom_quat" => (Geom, flat(model.geom_quat())),
            "geom_size" => (Geom, flat(model.geom_size())),
            "geom_friction" => (Geom, flat(model.geom_friction())),
            "geom_margin" => (Geom, model.geom_margin().to_vec()),
            "geom_solref" => (Geom, flat(model.geom_solref())),
            "geom_solimp" => (Geom, flat(model.geom_solimp())),
            "site_bodyid" => (Site, integers(model.site_bodyid())),
            "site_pos" => (Site, flat(model.site_pos())),
            "site_quat" => (Site, flat(model.site_quat())),
            "actuator_gear" => (Actuator, flat(model.actuator_gear())),
            "actuator_ctrlrange" => (Actuator, flat(model.actuator_ctrlrange())),
            "actuator_forcerange" => (Actuator, flat(model.actuator_forcerange())),
            "actuator_gainprm" => (Actuator, flat(model.actuator_gainprm())),
            "actuator_biasprm" => (Actuator, flat(model.actuator_biasprm())),
            "cam_bodyid" => (Camera, integers(model.cam_bodyid())),
            "cam_pos" => (Camera, flat(model.cam_pos())),
            "cam_quat" => (Camera, flat(model.cam_quat())),
            "cam_fovy" => (Camera, model.cam_fovy().to_vec()),
            _ => return None,
        })
    }

    /// What belongs to each degree of freedom: damping, armature, friction loss.
    pub fn degrees_of_freedom(&self) -> [&[f64]; 3] {
        let model = &self.0.0;
        [model.dof_damping(), model.dof_armature(), model.dof_frictionloss()]
    }

    /// Positions of the initial state.
    pub fn initial_positions(&self) -> &[f64] {
        self.0.0.qpos0()
    }
}
