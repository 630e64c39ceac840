//! What a policy that sees pictures saw in training: the part of its definition that its network does not tell.

use serde::{Deserialize, Serialize};

/// How much is drawn of a simulated world. The two differ by a few grey levels, so a policy has to see what it was
/// trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Equals the picture of MuJoCo's Python renderer, and robosuite's, on the same OpenGL library.
    #[default]
    Exact,
    /// No shadows, no reflections, one sample a pixel, meshes with fewer triangles.
    Fast,
}

impl std::fmt::Display for Quality {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Exact => "exact",
            Self::Fast => "fast",
        })
    }
}

impl std::str::FromStr for Quality {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "exact" => Ok(Self::Exact),
            "fast" => Ok(Self::Fast),
            _ => Err(format!("unknown quality \"{name}\": say exact or fast")),
        }
    }
}

/// The pictures that a policy was trained with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PicturesSeen {
    pub quality: Quality,
    /// Names of the scene's cameras, in the order of the network's pictures.
    pub cameras: Vec<String>,
}
