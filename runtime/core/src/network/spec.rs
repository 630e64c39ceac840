//! Descriptions of networks, as they stand in configurations, checkpoints and bundles.

use serde::{Deserialize, Serialize};

use super::Parameter;

/// Element-wise non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Activation {
    #[serde(rename = "relu")]
    ReLU,
    /// x · tanh(softplus(x)).
    #[default]
    #[serde(rename = "mish")]
    Mish,
    #[serde(rename = "tanh")]
    Tanh,
    /// The exact form x · (1 + erf(x/√2))/2.
    #[serde(rename = "gelu")]
    Gelu,
    #[serde(rename = "elu")]
    Elu,
}

/// An MLP but for its output layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpSpec {
    /// Hidden widths. Residual: all equal and odd in number, h, then one block for each further pair.
    pub dims: Vec<usize>,
    pub activation: Activation,
    #[serde(default = "yes")]
    pub residual: bool,
    #[serde(default)]
    pub layer_norm: bool,
}

/// A denoising network. `state_len` = To · Do, `chunk_len` = Tp · Da.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum NetworkSpec {
    /// MLP on [chunk, time embedding, state or encoded state] (spec dppo.md §3.2).
    DiffusionMlp {
        time_dim: usize,
        mlp_dims: Vec<usize>,
        /// Observation encoder; empty = the state goes in as it is.
        #[serde(default)]
        cond_mlp_dims: Vec<usize>,
        activation: Activation,
        #[serde(default = "yes")]
        residual: bool,
        #[serde(default)]
        layer_norm: bool,
    },
    /// 1-D U-Net over the chunk with FiLM conditioning (spec dppo.md §3.3).
    Unet(UnetSpec),
    /// ViT image encoder in front of an MLP (spec dppo.md §3.4).
    VitMlp {
        time_dim: usize,
        mlp_dims: Vec<usize>,
        activation: Activation,
        #[serde(default = "yes")]
        residual: bool,
        vision: VisionSpec,
    },
    /// ViT image encoder in front of a U-Net.
    VitUnet { vision: VisionSpec, unet: UnetSpec },
}

/// Sizes of a 1-D U-Net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnetSpec {
    pub time_dim: usize,
    pub dim: usize,
    pub dim_mults: Vec<usize>,
    pub kernel_size: usize,
    /// Groups of GroupNorm; 0 = no normalisation.
    pub groups: usize,
    pub group_norm_eps: f32,
    #[serde(default)]
    pub activation: Activation,
    #[serde(default)]
    pub condition_encoder: ConditionEncoder,
    /// FiLM with scale and bias; otherwise the condition is added.
    #[serde(default = "yes")]
    pub condition_scales: bool,
    /// Residual observation encoder, the last width its output; empty = the state goes in as it is.
    #[serde(default)]
    pub cond_mlp_dims: Vec<usize>,
}

/// From the condition to a block's FiLM parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ConditionEncoder {
    /// f → Linear.
    Small,
    /// Linear → f → Linear → f → Linear.
    #[default]
    Large,
}

/// Image encoder: a ViT shared by all cameras and a compressor for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionSpec {
    pub cameras: usize,
    /// Image side in pixels (square, RGB).
    pub image_px: usize,
    pub embed_dim: usize,
    pub heads: usize,
    pub depth: usize,
    #[serde(default)]
    pub patch_embedding: PatchEmbedding,
    /// GroupNorm behind the first of two convolutions.
    #[serde(default)]
    pub patch_norm: bool,
    pub compression: Compression,
}

/// From pixels to tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum PatchEmbedding {
    /// Conv 8/8.
    One,
    /// Conv 8/4 → ReLU → conv 3/2.
    #[default]
    Two,
}

/// From tokens to image features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Spatial embedding of `dim` values a camera.
    Spatial { dim: usize },
    /// All tokens → Linear → LayerNorm → ReLU.
    Flat { dim: usize },
}

/// A policy that says mean and deviation of a chunk (spec dppo.md §4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussianSpec {
    pub trunk: TrunkSpec,
    pub std: StdSpec,
    /// M: components of a mixture; 0 = a single Gaussian.
    #[serde(default)]
    pub modes: usize,
    #[serde(default = "yes")]
    pub tanh_mean: bool,
}

/// The network of a policy, of either kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum PolicyNetwork {
    Diffusion(NetworkSpec),
    Gaussian(GaussianSpec),
}

impl PolicyNetwork {
    /// How it sees pictures, where it does.
    pub fn vision(&self) -> Option<&VisionSpec> {
        match self {
            Self::Diffusion(network) => network.vision(),
            Self::Gaussian(network) => network.vision(),
        }
    }

    /// Names and shapes of the parameters, in the order of the layers.
    pub fn parameters(&self, state_len: usize, prediction_horizon: usize, action_dim: usize) -> Vec<Parameter> {
        match self {
            Self::Diffusion(network) => network.parameters(state_len, prediction_horizon, action_dim),
            Self::Gaussian(network) => network.parameters(state_len, prediction_horizon, action_dim),
        }
    }

    /// Says what is wrong with the sizes, before anything is built of them.
    pub fn check(&self, state_len: usize, prediction_horizon: usize, action_dim: usize) -> Result<(), String> {
        match self {
            Self::Diffusion(network) => network.check(state_len, prediction_horizon, action_dim),
            Self::Gaussian(network) => network.check(state_len, prediction_horizon, action_dim),
        }
    }

    /// Whether training may go on with the weights of `before`. Deviations may be learned though they were fixed, and
    /// the ε of GroupNorm may be another, as in two of the paper's furniture tasks (spec dppo.md §3.8).
    pub fn continues(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Gaussian(before), Self::Gaussian(now)) => {
                before.trunk == now.trunk && before.modes == now.modes && before.tanh_mean == now.tanh_mean
            }
            (Self::Diffusion(before), Self::Diffusion(now)) => {
                let mut before = before.clone();
                if let (Some(old), Some(new)) = (before.unet_mut(), now.unet()) {
                    old.group_norm_eps = new.group_norm_eps;
                }
                before == *now
            }
            (Self::Gaussian(_), Self::Diffusion(_)) | (Self::Diffusion(_), Self::Gaussian(_)) => false,
        }
    }
}

/// What a Gaussian policy's heads stand on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum TrunkSpec {
    Mlp(MlpSpec),
    Transformer(TransformerSpec),
    VitMlp { vision: VisionSpec, head: MlpSpec },
}

/// Decoder-only transformer over the chunk's positions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerSpec {
    pub embed_dim: usize,
    pub heads: usize,
    pub layers: usize,
}

/// Where a Gaussian policy's standard deviation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum StdSpec {
    Fixed {
        std: f64,
    },
    /// One log-variance for each action (and mode), started at `std`, clamped to the bounds.
    Learned {
        std: f64,
        min: f64,
        max: f64,
    },
    /// From the state; bounded by a tanh where a single Gaussian stands on an MLP, by a clamp elsewhere.
    PerState {
        min: f64,
        max: f64,
    },
}

/// V(s) (spec dppo.md §3.5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriticSpec {
    pub head: MlpSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vision: Option<VisionSpec>,
}

/// The η module of DDIM (spec dppo.md §1.6).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtaSpec {
    pub base: f64,
    pub min: f64,
    pub max: f64,
    /// One η for each action instead of one for all.
    #[serde(default)]
    pub per_action: bool,
    /// Hidden widths of an MLP on the state; none = a learned constant.
    #[serde(default)]
    pub mlp_dims: Option<Vec<usize>>,
}

fn yes() -> bool {
    true
}

impl NetworkSpec {
    /// Width of the sinusoid.
    pub fn time_dim(&self) -> usize {
        match self {
            Self::DiffusionMlp { time_dim, .. } | Self::VitMlp { time_dim, .. } => *time_dim,
            Self::Unet(unet) | Self::VitUnet { unet, .. } => unet.time_dim,
        }
    }

    /// The image encoder of networks that see pictures.
    pub fn vision(&self) -> Option<&VisionSpec> {
        match self {
            Self::VitMlp { vision, .. } | Self::VitUnet { vision, .. } => Some(vision),
            Self::DiffusionMlp { .. } | Self::Unet(_) => None,
        }
    }

    /// The U-Net, where there is one.
    pub fn unet(&self) -> Option<&UnetSpec> {
        match self {
            Self::Unet(unet) | Self::VitUnet { unet, .. } => Some(unet),
            Self::DiffusionMlp { .. } | Self::VitMlp { .. } => None,
        }
    }

    fn unet_mut(&mut self) -> Option<&mut UnetSpec> {
        match self {
            Self::Unet(unet) | Self::VitUnet { unet, .. } => Some(unet),
            Self::DiffusionMlp { .. } | Self::VitMlp { .. } => None,
        }
    }

    /// A diffusion MLP without LayerNorm.
    pub fn diffusion_mlp(time_dim: usize, mlp_dims: &[usize], cond_mlp_dims: &[usize], activation: Activation) -> Self {
        Self::DiffusionMlp {
            time_dim,
            mlp_dims: mlp_dims.to_vec(),
            cond_mlp_dims: cond_mlp_dims.to_vec(),
            activation,
            residual: true,
            layer_norm: false,
        }
    }

    /// The MLP of networks that end in one.
    pub(super) fn head(&self) -> MlpSpec {
        match self {
            Self::DiffusionMlp { mlp_dims, activation, residual, layer_norm, .. } => MlpSpec {
                dims: mlp_dims.clone(),
                activation: *activation,
                residual: *residual,
                layer_norm: *layer_norm,
            },
            Self::VitMlp { mlp_dims, activation, residual, .. } => {
                MlpSpec { dims: mlp_dims.clone(), activation: *activation, residual: *residual, layer_norm: false }
            }
            Self::Unet(_) | Self::VitUnet { .. } => unreachable!("a U-Net ends in a convolution"),
        }
    }

    /// Says what is wrong with the sizes, before anything is built of them.
    pub fn check(&self, state_len: usize, prediction_horizon: usize, action_dim: usize) -> Result<(), String> {
        if state_len == 0 || prediction_horizon == 0 || action_dim == 0 {
            return Err("state and chunk must not be empty".into());
        }
        let time_dim = self.time_dim();
        // The sinusoid divides by time_dim / 2 − 1.
        if time_dim < 4 || !time_dim.is_multiple_of(2) {
            return Err(format!("time_dim = {time_dim}: must be even and at least 4"));
        }
        match self {
            Self::DiffusionMlp { cond_mlp_dims, .. } => {
                self.head().check("mlp_dims")?;
                widths("cond_mlp_dims", cond_mlp_dims)
            }
            Self::Unet(unet) => unet.check(prediction_horizon),
            Self::VitMlp { vision, .. } => {
                self.head().check("mlp_dims")?;
                vision.check()
            }
            Self::VitUnet { vision, unet } => {
                unet.check(prediction_horizon)?;
                vision.check()
            }
        }
    }
}

/// Largest width of anything: a damaged description must not fill the memory.
const LARGEST: usize = 1 << 16;

fn widths(name: &str, dims: &[usize]) -> Result<(), String> {
    match dims.iter().find(|&&w| w == 0 || w > LARGEST) {
        Some(w) => Err(format!("{name} holds {w}: widths are 1 to {LARGEST}")),
        None => Ok(()),
    }
}

impl MlpSpec {
    /// Says what is wrong with the sizes; `name`: what they are called.
    pub fn check(&self, name: &str) -> Result<(), String> {
        widths(name, &self.dims)?;
        if self.dims.is_empty() {
            return Err(format!("{name} is empty: give at least one width"));
        }
        if self.residual && (self.dims.len().is_multiple_of(2) || self.dims.iter().any(|&w| w != self.dims[0])) {
            return Err(format!("{name} = {:?}: a residual network has an odd number of equal widths", self.dims));
        }
        Ok(())
    }
}

impl UnetSpec {
    fn check(&self, prediction_horizon: usize) -> Result<(), String> {
        widths("dim, dim_mults", &[&[self.dim], &self.dim_mults[..]].concat())?;
        widths("cond_mlp_dims", &self.cond_mlp_dims)?;
        let levels = self.dim_mults.len();
        if levels == 0 || levels > 8 {
            return Err(format!("dim_mults = {:?}: give one to eight levels", self.dim_mults));
        }
        if self.dim_mults.iter().any(|m| m * self.dim > LARGEST) {
            return Err(format!("dim {} · {:?}: widths are at most {LARGEST}", self.dim, self.dim_mults));
        }
        if !prediction_horizon.is_multiple_of(1 << (levels - 1)) {
            return Err(format!(
                "prediction_horizon = {prediction_horizon}: a U-Net of {levels} levels needs a multiple of {}",
                1 << (levels - 1)
            ));
        }
        if self.kernel_size.is_multiple_of(2) || self.kernel_size > 63 {
            return Err(format!("kernel_size = {}: must be odd and at most 63", self.kernel_size));
        }
        if self.groups > 0 {
            if let Some(m) = self.dim_mults.iter().find(|&&m| !(m * self.dim).is_multiple_of(self.groups)) {
                return Err(format!("groups = {}: does not divide the width {}", self.groups, m * self.dim));
            }
            if !self.dim.is_multiple_of(self.groups) {
                return Err(format!("groups = {}: does not divide dim = {}", self.groups, self.dim));
            }
            if !(self.group_norm_eps.is_finite() && self.group_norm_eps > 0.0) {
                return Err(format!("group_norm_eps = {}: must be positive", self.group_norm_eps));
            }
        }
        if !self.cond_mlp_dims.is_empty() {
            let (_, dims) = self.cond_mlp_dims.split_last().expect("not empty");
            MlpSpec { dims: dims.to_vec(), activation: self.activation, residual: true, layer_norm: false }
                .check("cond_mlp_dims without its last")?;
        }
        Ok(())
    }
}

impl VisionSpec {
    /// Tokens of one picture.
    pub fn patches(&self) -> usize {
        let side = match self.patch_embedding {
            PatchEmbedding::One => (self.image_px - 8) / 8 + 1,
            PatchEmbedding::Two => ((self.image_px - 8) / 4 + 1 - 3) / 2 + 1,
        };
        side * side
    }

    /// Image features of one camera.
    pub fn features(&self) -> usize {
        match self.compression {
            Compression::Spatial { dim } | Compression::Flat { dim } => dim,
        }
    }

    /// Says what is wrong with the sizes.
    pub fn check(&self) -> Result<(), String> {
        let smallest = match self.patch_embedding {
            PatchEmbedding::One => 8,
            PatchEmbedding::Two => 16,
        };
        if self.image_px < smallest || self.image_px > 1024 {
            return Err(format!("image_px = {}: must be {smallest} to 1024", self.image_px));
        }
        widths("embed_dim, spatial embedding", &[self.embed_dim, self.features()])?;
        if self.cameras == 0 || self.cameras > 16 || self.depth > 64 {
            return Err(format!("{} cameras, depth {}: 1 to 16 and at most 64", self.cameras, self.depth));
        }
        if self.heads == 0 || !self.embed_dim.is_multiple_of(self.heads) {
            return Err(format!("heads = {}: must divide embed_dim = {}", self.heads, self.embed_dim));
        }
        Ok(())
    }
}

impl GaussianSpec {
    /// The image encoder of networks that see pictures.
    pub fn vision(&self) -> Option<&VisionSpec> {
        match &self.trunk {
            TrunkSpec::VitMlp { vision, .. } => Some(vision),
            TrunkSpec::Mlp(_) | TrunkSpec::Transformer(_) => None,
        }
    }

    /// Says what is wrong with the sizes.
    pub fn check(&self, state_len: usize, prediction_horizon: usize, action_dim: usize) -> Result<(), String> {
        if state_len == 0 || prediction_horizon == 0 || action_dim == 0 {
            return Err("state and chunk must not be empty".into());
        }
        if self.modes > 256 {
            return Err(format!("modes = {}: at most 256", self.modes));
        }
        match &self.trunk {
            TrunkSpec::Mlp(head) => head.check("trunk.dims")?,
            TrunkSpec::VitMlp { vision, head } => {
                vision.check()?;
                head.check("trunk.head.dims")?;
            }
            TrunkSpec::Transformer(t) => {
                widths("embed_dim", &[t.embed_dim])?;
                if t.heads == 0 || !t.embed_dim.is_multiple_of(t.heads) || t.layers > 64 {
                    return Err(format!("heads = {}: must divide embed_dim = {}", t.heads, t.embed_dim));
                }
            }
        }
        let positive = |v: f64| v.is_finite() && v > 0.0;
        let (ok, text) = match self.std {
            StdSpec::Fixed { std } => (positive(std), format!("std = {std}")),
            StdSpec::Learned { std, min, max } => {
                (positive(min) && positive(max) && min <= std && std <= max, format!("std = {std} in {min}..{max}"))
            }
            StdSpec::PerState { min, max } => (positive(min) && positive(max) && min <= max, format!("{min}..{max}")),
        };
        if ok { Ok(()) } else { Err(format!("{text}: deviations are positive, the bounds in order")) }
    }
}

impl CriticSpec {
    /// Residual MLP on the state.
    pub fn state(mlp_dims: &[usize], activation: Activation) -> Self {
        let head = MlpSpec { dims: mlp_dims.to_vec(), activation, residual: true, layer_norm: false };
        Self { head, vision: None }
    }

    /// Says what is wrong with the sizes.
    pub fn check(&self) -> Result<(), String> {
        self.head.check("critic dims")?;
        self.vision.as_ref().map_or(Ok(()), VisionSpec::check)
    }
}
