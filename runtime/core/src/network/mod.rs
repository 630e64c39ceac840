//! What the policies' networks look like: sizes, layers, and the name and shape of every parameter.
//!
//! Descriptions ([`NetworkSpec`], [`GaussianSpec`], [`CriticSpec`], [`EtaSpec`]) travel in configurations, checkpoints
//! and bundles. What they mean is written once, over the vocabulary of [`layers::Layers`].
//!
//! Parameter names are those of the authors' public checkpoints, so an import is a look-up and an export keeps them.
//! Linear weights are `[out, in]`, Conv1d `[out, in, kernel]`, ConvTranspose1d `[in, out, kernel]`, Conv2d
//! `[out, in, kh, kw]` (spec dppo.md §3).

mod critic;
mod gaussian;
pub mod layers;
mod listing;
mod mlp;
mod spec;
mod unet;
mod vit;

pub use gaussian::GaussianOutputs;
pub use listing::Listing;
pub use spec::{
    Activation, Compression, ConditionEncoder, CriticSpec, EtaSpec, GaussianSpec, MlpSpec, NetworkSpec, PatchEmbedding,
    PolicyNetwork, StdSpec, TransformerSpec, TrunkSpec, UnetSpec, VisionSpec,
};

use layers::Layers;

/// What a denoising network sees of one row.
#[derive(Debug, Clone)]
pub struct NoiseInputs<V> {
    /// Noisy chunk `[Tp, Da]`.
    pub chunk: V,
    /// [`sinusoid`] of the step `[1, time_dim]`.
    pub sinusoid: V,
    /// Normalised observations `[1, To · Do]`.
    pub state: V,
    /// Pictures `[px · px, 3 · cameras]`, 0..255, of networks that see them.
    pub images: Option<V>,
}

/// Sinusoidal embedding of step t: `[sin(t ω_i), cos(t ω_i)]`, ω_i = exp(−i · ln 10000 / (d/2 − 1)), i < d/2, formed in
/// f32 like the authors' (spec dppo.md §3.1). `dim` is even and at least 4.
pub fn sinusoid(t: usize, dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let rate = (10_000f64.ln() / (half as f64 - 1.0)) as f32;
    let angles: Vec<f32> = (0..half).map(|i| t as f32 * (-(i as f32) * rate).exp()).collect();
    angles.iter().map(|a| a.sin()).chain(angles.iter().map(|a| a.cos())).collect()
}

/// Name and shape of a parameter tensor.
pub type Parameter = (String, Vec<usize>);

impl NetworkSpec {
    /// Builds the network: the predicted noise (or clean chunk) `[Tp, Da]`.
    pub fn build<L: Layers>(&self, l: &mut L, inputs: &NoiseInputs<L::Value>) -> L::Value {
        let features = |l: &mut L, vision: &VisionSpec| {
            let images = inputs.images.as_ref().expect("checked: a network that sees pictures is given some");
            vit::image_features(l, vision, images, &inputs.state)
        };
        match self {
            Self::DiffusionMlp { cond_mlp_dims, .. } => {
                mlp::diffusion_mlp(l, inputs, &self.head(), cond_mlp_dims, None)
            }
            Self::Unet(unet) => unet::unet(l, inputs, unet, None),
            Self::VitMlp { vision, .. } => {
                let features = features(l, vision);
                mlp::diffusion_mlp(l, inputs, &self.head(), &[], Some(&features))
            }
            Self::VitUnet { vision, unet } => {
                let features = features(l, vision);
                unet::unet(l, inputs, unet, Some(&features))
            }
        }
    }

    /// The network with its parameters and costs listed.
    pub fn listing(&self, state_len: usize, prediction_horizon: usize, action_dim: usize) -> Listing {
        let mut listing = Listing::default();
        let inputs = NoiseInputs {
            chunk: Listing::input(prediction_horizon, action_dim),
            sinusoid: Listing::input(1, self.time_dim()),
            state: Listing::input(1, state_len),
            images: self.vision().map(|v| Listing::input(v.image_px * v.image_px, 3 * v.cameras)),
        };
        self.build(&mut listing, &inputs);
        listing
    }

    /// Name and shape of every parameter, in a fixed order.
    ///
    /// `state_len` = To · Do, `prediction_horizon` = Tp, `action_dim` = Da.
    pub fn parameters(&self, state_len: usize, prediction_horizon: usize, action_dim: usize) -> Vec<Parameter> {
        self.listing(state_len, prediction_horizon, action_dim).into_parameters()
    }

    /// Number of values in all parameters.
    pub fn parameter_count(&self, state_len: usize, prediction_horizon: usize, action_dim: usize) -> usize {
        count(&self.parameters(state_len, prediction_horizon, action_dim))
    }
}

impl GaussianSpec {
    /// Builds the network. `state [1, To · Do]`, `images [px · px, 3 · cameras]`; chunks are `[Tp, Da]`.
    pub fn build<L: Layers>(
        &self,
        l: &mut L,
        state: &L::Value,
        images: Option<&L::Value>,
        chunk: [usize; 2],
    ) -> GaussianOutputs<L::Value> {
        gaussian::gaussian(l, self, state, images, chunk)
    }

    /// Name and shape of every parameter, in a fixed order.
    pub fn parameters(&self, state_len: usize, prediction_horizon: usize, action_dim: usize) -> Vec<Parameter> {
        let mut listing = Listing::default();
        let images = self.vision().map(|v| Listing::input(v.image_px * v.image_px, 3 * v.cameras));
        self.build(&mut listing, &Listing::input(1, state_len), images.as_ref(), [prediction_horizon, action_dim]);
        listing.into_parameters()
    }
}

impl CriticSpec {
    /// Builds V(s) `[1, 1]`.
    pub fn build<L: Layers>(&self, l: &mut L, state: &L::Value, images: Option<&L::Value>) -> L::Value {
        critic::value(l, self, state, images)
    }

    /// Name and shape of every parameter, in a fixed order.
    pub fn parameters(&self, state_len: usize) -> Vec<Parameter> {
        let mut listing = Listing::default();
        let images = self.vision.as_ref().map(|v| Listing::input(v.image_px * v.image_px, 3 * v.cameras));
        self.build(&mut listing, &Listing::input(1, state_len), images.as_ref());
        listing.into_parameters()
    }
}

impl EtaSpec {
    /// Builds η, `[1, 1]` or `[1, Da]`.
    pub fn build<L: Layers>(&self, l: &mut L, state: &L::Value, action_dim: usize) -> L::Value {
        critic::eta(l, self, state, action_dim)
    }
}

/// Builds Q(s, a) of two heads, each `[1, 1]`; `chunk [Ta, Da]`.
pub fn build_double_q<L: Layers>(l: &mut L, spec: &MlpSpec, state: &L::Value, chunk: &L::Value) -> [L::Value; 2] {
    critic::double_q(l, spec, state, chunk)
}

/// Builds the image encoder alone: tokens `[patches, embed_dim]` of one picture `[px · px, 3]`.
pub fn build_vit<L: Layers>(l: &mut L, prefix: &str, spec: &VisionSpec, picture: &L::Value) -> L::Value {
    vit::encode(l, prefix, spec, picture)
}

/// Number of values in a list of parameters.
pub fn count(parameters: &[Parameter]) -> usize {
    parameters.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mlp(time_dim: usize, width: usize, cond: &[usize]) -> NetworkSpec {
        NetworkSpec::diffusion_mlp(time_dim, &[width; 3], cond, Activation::Mish)
    }

    fn unet(dim: usize, dim_mults: &[usize], time_dim: usize) -> UnetSpec {
        UnetSpec {
            time_dim,
            dim,
            dim_mults: dim_mults.to_vec(),
            kernel_size: 5,
            groups: 8,
            group_norm_eps: 1e-5,
            activation: Activation::Mish,
            condition_encoder: ConditionEncoder::Large,
            condition_scales: true,
            cond_mlp_dims: vec![],
        }
    }

    fn vision(cameras: usize) -> VisionSpec {
        VisionSpec {
            cameras,
            image_px: 96,
            embed_dim: 128,
            heads: 4,
            depth: 1,
            patch_embedding: PatchEmbedding::Two,
            patch_norm: false,
            compression: Compression::Spatial { dim: 128 },
        }
    }

    fn head(dims: &[usize], activation: Activation) -> MlpSpec {
        MlpSpec { dims: dims.to_vec(), activation, residual: true, layer_norm: false }
    }

    const LIFT: [usize; 3] = [19, 4, 7];
    const CAN: [usize; 3] = [23, 4, 7];
    const SQUARE: [usize; 3] = [23, 4, 7];
    const TRANSPORT: [usize; 3] = [59, 8, 14];

    /// Spec dppo.md §3.7, diffusion.
    #[test]
    fn parameter_counts_of_diffusion_policies_are_those_of_the_paper() {
        let count = |spec: &NetworkSpec, [s, h, a]: [usize; 3]| {
            spec.check(s, h, a).expect("the paper's sizes are sound");
            spec.parameter_count(s, h, a)
        };
        assert_eq!(count(&mlp(16, 512, &[]), LIFT), 573_516);
        assert_eq!(count(&mlp(16, 512, &[]), CAN), 575_564);
        assert_eq!(count(&mlp(32, 1024, &[512, 64]), SQUARE), 2_305_212);
        assert_eq!(count(&mlp(32, 1024, &[]), TRANSPORT), 2_427_088);
        assert_eq!(count(&mlp(16, 512, &[]), [11, 4, 3]), 553_020);
        assert_eq!(count(&mlp(16, 512, &[]), [17, 4, 6]), 568_392);
        assert_eq!(count(&mlp(16, 512, &[]), [4, 4, 2]), 545_336);
        assert_eq!(count(&mlp(16, 256, &[128, 32]), [60, 4, 9]), 175_604);
        let furniture = NetworkSpec::DiffusionMlp {
            time_dim: 32,
            mlp_dims: vec![1024; 7],
            cond_mlp_dims: vec![512, 64],
            activation: Activation::Mish,
            residual: true,
            layer_norm: true,
        };
        assert_eq!(count(&furniture, [58, 8, 10]), 6_640_368);
        assert_eq!(count(&furniture, [44, 8, 10]), 6_633_200);

        let net = |dim, mults: &[usize]| NetworkSpec::Unet(unet(dim, mults, 16));
        assert_eq!(count(&net(40, &[1, 2]), LIFT), 648_615);
        assert_eq!(count(&net(40, &[1, 2]), CAN), 652_455);
        assert_eq!(count(&net(64, &[1, 2]), SQUARE), 1_623_255);
        assert_eq!(count(&net(64, &[1, 2]), [59, 16, 14]), 1_681_694);
        assert_eq!(count(&net(64, &[1, 2, 4]), [58, 16, 10]), 6_856_346);
        assert_eq!(count(&net(64, &[1, 2, 4]), [44, 16, 10]), 6_806_170);

        let vit = |width, cameras| NetworkSpec::VitMlp {
            time_dim: 32,
            mlp_dims: vec![width; 3],
            activation: Activation::Mish,
            residual: true,
            vision: vision(cameras),
        };
        assert_eq!(count(&vit(512, 1), [9, 4, 7]), 1_064_956);
        assert_eq!(count(&vit(768, 1), [9, 4, 7]), 1_778_684);
        assert_eq!(count(&vit(768, 2), [18, 8, 14]), 2_048_720);
        let vit_unet = |dim, cameras| NetworkSpec::VitUnet { vision: vision(cameras), unet: unet(dim, &[1, 2], 32) };
        assert_eq!(count(&vit_unet(40, 1), [9, 4, 7]), 1_203_191);
        assert_eq!(count(&vit_unet(64, 1), [9, 4, 7]), 2_248_871);
        assert_eq!(count(&vit_unet(64, 2), [18, 16, 14]), 2_498_158);
    }

    /// Spec dppo.md §3.7, Gaussian and mixtures.
    #[test]
    fn parameter_counts_of_gaussian_policies_are_those_of_the_paper() {
        let counted = |trunk: TrunkSpec, std, modes, [s, h, a]: [usize; 3]| {
            let spec = GaussianSpec { trunk, std, modes, tanh_mean: true };
            spec.check(s, h, a).expect("the paper's sizes are sound");
            count(&spec.parameters(s, h, a))
        };
        let learned = StdSpec::Learned { std: 0.1, min: 0.01, max: 0.2 };
        // The table's mixtures are those of pre-training.
        let fixed = StdSpec::Fixed { std: 0.1 };
        let mlp = |width| TrunkSpec::Mlp(head(&[width; 3], Activation::Mish));
        assert_eq!(counted(mlp(512), learned, 0, LIFT), 549_923);
        assert_eq!(counted(mlp(512), learned, 0, CAN), 551_971);
        assert_eq!(counted(mlp(1024), learned, 0, SQUARE), 2_152_483);
        assert_eq!(counted(mlp(1024), learned, 0, TRANSPORT), 2_275_454);
        assert_eq!(counted(mlp(512), fixed, 5, LIFT), 1_145_489);
        assert_eq!(counted(mlp(512), fixed, 5, CAN), 1_149_585);
        assert_eq!(counted(mlp(1024), fixed, 5, SQUARE), 4_396_177);
        assert_eq!(counted(mlp(1024), fixed, 5, TRANSPORT), 4_900_405);
        let transformer = |embed_dim| TrunkSpec::Transformer(TransformerSpec { embed_dim, heads: 4, layers: 4 });
        assert_eq!(counted(transformer(96), learned, 0, LIFT), 674_606);
        assert_eq!(counted(transformer(96), learned, 0, CAN), 674_990);
        assert_eq!(counted(transformer(160), learned, 0, SQUARE), 1_862_254);
        assert_eq!(counted(transformer(160), learned, 0, TRANSPORT), 1_869_788);
        assert_eq!(counted(transformer(96), learned, 5, LIFT), 679_275);
        assert_eq!(counted(transformer(96), learned, 5, CAN), 679_659);
        assert_eq!(counted(transformer(160), learned, 5, SQUARE), 1_869_995);
        assert_eq!(counted(transformer(160), learned, 5, TRANSPORT), 1_885_265);
        let vit =
            |width, cameras| TrunkSpec::VitMlp { vision: vision(cameras), head: head(&[width; 3], Activation::Mish) };
        assert_eq!(counted(vit(512, 1), learned, 0, [9, 4, 7]), 1_030_051);
        assert_eq!(counted(vit(768, 1), learned, 0, [9, 4, 7]), 1_728_419);
        assert_eq!(counted(vit(768, 2), learned, 0, [18, 8, 14]), 1_933_950);
        let furniture = || TrunkSpec::Mlp(head(&[1024; 11], Activation::ReLU));
        assert_eq!(counted(furniture(), learned, 0, [58, 8, 10]), 10_638_426);
        assert_eq!(counted(furniture(), learned, 0, [44, 8, 10]), 10_624_090);
        let avoid = TrunkSpec::Mlp(head(&[256; 3], Activation::ReLU));
        assert_eq!(counted(avoid.clone(), learned, 0, [4, 4, 2]), 134_922);
        assert_eq!(counted(avoid, fixed, 0, [4, 4, 2]), 134_920);
        let plain = MlpSpec { residual: false, ..head(&[256; 2], Activation::ReLU) };
        assert_eq!(counted(TrunkSpec::Mlp(plain), fixed, 5, [4, 4, 2]), 145_709);
    }

    /// Spec dppo.md §3.7, critics and the image encoder.
    #[test]
    fn parameter_counts_of_critics_are_those_of_the_paper() {
        let value = |state, dims: &[usize]| count(&CriticSpec::state(dims, Activation::Mish).parameters(state));
        assert_eq!(value(11, &[256; 3]), 134_913);
        assert_eq!(value(23, &[256; 3]), 137_985);
        assert_eq!(value(59, &[256; 3]), 147_201);
        assert_eq!(value(58, &[512; 3]), 556_033);
        let pixels = CriticSpec { head: head(&[256; 3], Activation::Mish), vision: Some(vision(1)) };
        assert_eq!(count(&pixels.parameters(9)), 586_881);
        let plain = MlpSpec { residual: false, ..head(&[256; 3], Activation::Mish) };
        let double_q = |state: usize, actions: usize| {
            let mut listing = Listing::default();
            build_double_q(&mut listing, &plain, &Listing::input(1, state), &Listing::input(1, actions));
            count(&listing.into_parameters())
        };
        assert_eq!(double_q(11, 12), 275_970);
        assert_eq!(double_q(23, 28), 290_306);
        let mut listing = Listing::default();
        build_vit(&mut listing, "vit", &vision(1), &Listing::input(96 * 96, 3));
        assert_eq!(count(&listing.into_parameters()), 386_304);
    }

    #[test]
    fn sinusoid_starts_at_zero_one_and_ends_at_the_slowest_frequency() {
        let e = sinusoid(3, 16);
        assert_eq!(sinusoid(0, 4), [0.0, 0.0, 1.0, 1.0]);
        assert!((e[0] - 3f32.sin()).abs() < 1e-7 && (e[8] - 3f32.cos()).abs() < 1e-7);
        assert!((e[7] - 3e-4).abs() < 1e-9, "{e:?}");
    }
}
