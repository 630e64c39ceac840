//! Single networks of every kind: forward, and the gradients of L = mean(out²) with respect to weights and inputs.

use serde_json::Value;
use tenon_core::network::layers::Layers;
use tenon_core::network::{
    Activation, Compression, ConditionEncoder, CriticSpec, EtaSpec, GaussianSpec, MlpSpec, NetworkSpec, NoiseInputs,
    PatchEmbedding, StdSpec, TransformerSpec, TrunkSpec, UnetSpec, VisionSpec, build_double_q, build_vit,
};
use tenon_train::network::plan::{InputGradient, NodeId, Plan, PlanBuilder};
use tenon_train::network::{Mode, Prepared};

use crate::load::{Case, case, devices};

/// Float32 forward, relative to the largest magnitude.
const FORWARD: f64 = 1e-5;

/// What one of the networks is given.
struct Inputs {
    rows: usize,
    state: Vec<f32>,
    chunk: Vec<f32>,
    images: Vec<f32>,
    times: Vec<usize>,
}

struct Net<'a> {
    c: &'a Case,
    name: &'a str,
}

/// How a network's outputs are compared: as they are, or as the deviations that a Gaussian's log-variances stand for.
enum Output<'a> {
    Plain(&'a str),
    /// Log-variances clamped to these bounds and repeated to the length of the reference.
    Deviation(&'a str, [f64; 2]),
}

impl Net<'_> {
    fn array(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn shape(&self, key: &str) -> Vec<usize> {
        self.c.shape(&self.array(key))
    }

    fn optional(&self, key: &str) -> Vec<f32> {
        let name = self.array(key);
        if self.c.has(&name) { self.c.f32(&name) } else { vec![] }
    }

    fn inputs(&self) -> Inputs {
        let first = ["in.state", "in.rgb"].into_iter().find(|k| self.c.has(&self.array(k))).expect("an input");
        let chunk = if self.c.has(&self.array("in.x")) { "in.x" } else { "in.action" };
        let times = self.array("in.t");
        Inputs {
            rows: self.shape(first)[0],
            state: self.optional("in.state"),
            chunk: self.optional(chunk),
            images: self.optional("in.rgb"),
            times: if self.c.has(&times) { self.c.indices(&times) } else { vec![] },
        }
    }

    fn config(&self, key: &str) -> &Value {
        &self.c.config[self.name][key]
    }

    fn usize(&self, key: &str) -> usize {
        self.config(key).as_u64().unwrap_or_else(|| panic!("{}: {key}", self.name)) as usize
    }

    fn dims(&self, key: &str) -> Vec<usize> {
        let array = self.config(key).as_array();
        array.map_or_else(Vec::new, |a| a.iter().map(|v| v.as_u64().expect("a width") as usize).collect())
    }

    fn activation(&self, key: &str) -> Activation {
        match self.config(key).as_str() {
            Some("ReLU") => Activation::ReLU,
            Some("Tanh") => Activation::Tanh,
            Some("GELU") => Activation::Gelu,
            Some("ELU") => Activation::Elu,
            Some("Mish") | None => Activation::Mish,
            Some(other) => panic!("{}: activation {other}", self.name),
        }
    }

    fn head(&self, residual: bool) -> MlpSpec {
        MlpSpec {
            dims: self.dims("mlp_dims"),
            activation: self.activation("activation"),
            residual: self.config("residual_style").as_bool().unwrap_or(residual),
            layer_norm: self.config("layernorm").as_bool().unwrap_or(false),
        }
    }

    fn unet(&self) -> UnetSpec {
        UnetSpec {
            time_dim: self.usize("diffusion_step_embed_dim"),
            dim: self.usize("dim"),
            dim_mults: self.dims("dim_mults"),
            kernel_size: self.usize("kernel_size"),
            groups: self.config("n_groups").as_u64().unwrap_or(0) as usize,
            group_norm_eps: self.config("groupnorm_eps").as_f64().unwrap_or(1e-5) as f32,
            activation: self.activation("activation_type"),
            condition_encoder: match self.config("smaller_encoder").as_bool() {
                Some(false) => ConditionEncoder::Large,
                _ => ConditionEncoder::Small,
            },
            condition_scales: self.config("cond_predict_scale").as_bool().unwrap_or(false),
            cond_mlp_dims: self.dims("cond_mlp_dims"),
        }
    }

    /// The image encoder; widths that the configuration leaves out are read off the weights.
    fn vision(&self, prefix: &str) -> VisionSpec {
        let position = self.shape(&format!("w.{prefix}.pos_embed"));
        let layers = |i: usize| self.c.has(&self.array(&format!("w.{prefix}.net.{i}.layer_norm1.weight")));
        let flat = self.config("spatial_emb").as_u64() == Some(0);
        VisionSpec {
            cameras: self.config("num_img").as_u64().unwrap_or(1) as usize,
            image_px: *self.shape("in.rgb").last().expect("a picture"),
            embed_dim: position[2],
            heads: self.config("num_heads").as_u64().unwrap_or(2) as usize,
            depth: (0..).take_while(|&i| layers(i)).count(),
            patch_embedding: match self.config("embed_style").as_str() {
                Some("embed1") => PatchEmbedding::One,
                _ => PatchEmbedding::Two,
            },
            patch_norm: self.config("embed_norm").as_u64() == Some(1),
            compression: match flat {
                true => Compression::Flat { dim: self.usize("visual_feature_dim") },
                false => Compression::Spatial { dim: self.config("spatial_emb").as_u64().unwrap_or(8) as usize },
            },
        }
    }

    /// Runs the plan forward and backward and compares everything that the case holds.
    fn check(&self, plan: &Plan, outputs: &[Output]) {
        for device in devices() {
            self.check_on_device(&plan.clone().on(device.as_ref()), outputs);
        }
    }

    fn check_on_device(&self, plan: &Plan, outputs: &[Output]) {
        let inputs = self.inputs();
        let table = plan.table();
        let parameters = self.c.parameters(&format!("{}.w", self.name), table);
        let mut prepared = plan.prepare(&parameters, &inputs.times);
        let mut ws = plan.workspace(inputs.rows, Mode::Training);
        let state_len = inputs.state.len() / inputs.rows;
        plan.set_states(&mut ws, inputs.rows, |i, state| {
            state.copy_from_slice(&inputs.state[i * state_len..(i + 1) * state_len]);
        });
        if !inputs.images.is_empty() {
            let len = inputs.images.len() / inputs.rows;
            for i in 0..inputs.rows {
                plan.set_images(&mut ws, i, |k| inputs.images[i * len + k]);
            }
        }
        let len = inputs.chunk.len() / inputs.rows;
        if len > 0 {
            let rows = (0..inputs.rows).map(|i| (i as u32, i as u32, &inputs.chunk[i * len..(i + 1) * len]));
            plan.set_rows(&mut ws, rows);
        }
        plan.forward_states(&parameters, &prepared, &mut ws);
        plan.forward_rows(&parameters, &prepared, &mut ws);
        let mut gradient = plan.gradient(inputs.times.len());
        for (i, output) in outputs.iter().enumerate() {
            self.compare_output(plan, &prepared, &mut ws, &mut gradient, i, output);
        }
        plan.backward(&parameters, &prepared, &mut ws, &mut gradient);
        plan.finish_gradient(&parameters, &mut prepared, &mut gradient);
        self.c.compare_gradient(table, &gradient.parameters, |name| {
            self.c.reference(&format!("{}.grad.{name}", self.name))
        });
        for (key, which, channels) in [
            ("gin.x", InputGradient::Chunk, 0),
            ("gin.action", InputGradient::Chunk, 0),
            ("gin.state", InputGradient::State, 0),
            ("gin.rgb", InputGradient::Images, 1),
        ] {
            let name = self.array(key);
            let Some(ours) = plan.input_gradient(&ws, which).filter(|_| self.c.has(&name)) else { continue };
            // [positions, rows, channels] → [rows, positions, channels], or channels first for pictures.
            let shape = self.c.shape(&name);
            let (channels, pixels) = match channels {
                1 => (shape[shape.len() - 3], shape[shape.len() - 2] * shape[shape.len() - 1]),
                _ => {
                    let per_row = ours.len() / inputs.rows;
                    let width = *shape.last().expect("a shape");
                    // An MLP takes the chunk as one position.
                    if plan.input_positions(which) == 1 { (per_row, 1) } else { (width, per_row / width) }
                }
            };
            let mut ordered = vec![0.0; ours.len()];
            for p in 0..pixels {
                for r in 0..inputs.rows {
                    for k in 0..channels {
                        let place = if key == "gin.rgb" { k * pixels + p } else { p * channels + k };
                        ordered[r * pixels * channels + place] = ours[(p * inputs.rows + r) * channels + k];
                    }
                }
            }
            self.c.compare(&name, &ordered, &self.c.reference(&name), 1e-3);
        }
    }

    fn compare_output(
        &self,
        plan: &Plan,
        prepared: &Prepared,
        ws: &mut tenon_train::network::Workspace,
        gradient: &mut tenon_train::network::PlanGradient,
        i: usize,
        output: &Output,
    ) {
        let (key, bounds) = match output {
            Output::Plain(key) => (key, None),
            Output::Deviation(key, bounds) => (key, Some(bounds)),
        };
        let name = self.array(key);
        let reference = self.c.reference(&name);
        let shared = plan.shared_output(prepared, i).map(<[f32]>::to_vec);
        let ours = shared.clone().unwrap_or_else(|| plan.output(ws, i).to_vec());
        // (value, ∂value/∂ours) of each.
        let values: Vec<(f32, f32)> = ours
            .iter()
            .map(|&v| match bounds {
                None => (v, 1.0),
                Some([lo, hi]) => {
                    let clamped = v.clamp(*lo as f32, *hi as f32);
                    let std = (0.5 * clamped).exp();
                    (std, if clamped == v { 0.5 * std } else { 0.0 })
                }
            })
            .collect();
        // A value that stands for several elements is repeated: per action over the horizon, and for every row.
        let modes = if self.name.starts_with("gmm") && bounds.is_some() { self.usize("num_modes") } else { 1 };
        let rows = self.inputs().rows;
        let per_row = reference.len() / rows;
        let source = |k: usize| {
            if shared.is_none() && ours.len() == reference.len() {
                return k;
            }
            let (actions, within) = (ours.len() / modes, k % per_row);
            within / (per_row / modes) * actions + within % actions
        };
        let expanded: Vec<f32> = (0..reference.len()).map(|k| values[source(k)].0).collect();
        self.c.compare(&name, &expanded, &reference, FORWARD);
        let mut d = vec![0.0; ours.len()];
        for (k, v) in expanded.iter().enumerate() {
            d[source(k)] += 2.0 * v / reference.len() as f32 * values[source(k)].1;
        }
        match shared {
            Some(_) => plan.add_shared_output_gradient(gradient, i, &d),
            None => plan.output_and_gradient(ws, i).1.copy_from_slice(&d),
        }
    }
}

fn builder() -> PlanBuilder {
    PlanBuilder::with_input_gradients()
}

fn images(b: &mut PlanBuilder, v: &VisionSpec) -> NodeId {
    b.images(v.image_px * v.image_px, 3 * v.cameras)
}

fn noise(name: &str, spec: impl Fn(&Net) -> NetworkSpec) {
    let Some(c) = case("networks") else { return };
    let net = Net { c: &c, name };
    let spec = spec(&net);
    let (chunk, state) = (net.shape("in.x"), net.shape("in.state"));
    let state_len = state[1..].iter().product();
    spec.check(state_len, chunk[1], chunk[2]).expect("the golden sizes are sound");
    let mut b = builder();
    let inputs = NoiseInputs {
        chunk: b.chunk(chunk[1], chunk[2]),
        sinusoid: b.sinusoid(spec.time_dim()),
        state: b.state(state_len),
        images: spec.vision().map(|v| images(&mut b, v)),
    };
    let out = spec.build(&mut b, &inputs);
    net.check(&b.finish(&[out]), &[Output::Plain("out")]);
}

fn diffusion_mlp(name: &str, residual: bool) {
    noise(name, |net| {
        let head = net.head(residual);
        NetworkSpec::DiffusionMlp {
            time_dim: net.usize("time_dim"),
            mlp_dims: head.dims,
            cond_mlp_dims: vec![],
            activation: head.activation,
            residual: head.residual,
            layer_norm: head.layer_norm,
        }
    });
}

#[test]
fn golden_diffusion_mlps() {
    diffusion_mlp("mlp_residual_layernorm", true);
    for name in ["mlp_plain_Tanh", "mlp_plain_GELU", "mlp_plain_ELU"] {
        diffusion_mlp(name, false);
    }
}

#[test]
fn golden_unets() {
    for name in ["unet_smallenc", "unet_condmlp", "unet_nogroupnorm"] {
        noise(name, |net| NetworkSpec::Unet(net.unet()));
    }
}

#[test]
fn golden_vision_networks() {
    for name in ["vision_mlp_two_cameras", "vision_mlp_flat"] {
        noise(name, |net| {
            let width = net.shape("w.mlp_mean.layers.0.bias")[0];
            let dims = net.dims("mlp_dims");
            NetworkSpec::VitMlp {
                time_dim: net.config("time_dim").as_u64().unwrap_or(8) as usize,
                mlp_dims: if dims.is_empty() { vec![width; 3] } else { dims },
                activation: Activation::Mish,
                residual: true,
                vision: net.vision("backbone.vit"),
            }
        });
    }
    noise("vision_unet", |net| NetworkSpec::VitUnet { vision: net.vision("backbone.vit"), unet: net.unet() });
}

#[test]
fn golden_image_encoders() {
    for name in ["vit_embed1", "vit_embed2_norm"] {
        let Some(c) = case("networks") else { return };
        let net = Net { c: &c, name };
        let spec = net.vision("vit");
        let mut b = builder();
        let picture = images(&mut b, &spec);
        let tokens = build_vit(&mut b, "vit", &spec, &picture);
        net.check(&b.finish(&[tokens]), &[Output::Plain("out")]);
    }
}

#[test]
fn golden_critics() {
    let Some(c) = case("networks") else { return };
    let net = Net { c: &c, name: "vit_critic" };
    let spec = CriticSpec { head: net.head(true), vision: Some(net.vision("backbone.vit")) };
    let mut b = builder();
    let state = b.state(net.shape("in.state")[1..].iter().product());
    let pictures = spec.vision.as_ref().map(|v| images(&mut b, v));
    let value = spec.build(&mut b, &state, pictures.as_ref());
    net.check(&b.finish(&[value]), &[Output::Plain("out")]);

    let net = Net { c: &c, name: "critic_obs_act" };
    let mut b = builder();
    let state = b.state(net.shape("in.state")[1..].iter().product());
    let action = net.shape("in.action");
    let chunk = b.chunk(action[1], action[2]);
    let values = build_double_q(&mut b, &net.head(false), &state, &chunk);
    net.check(&b.finish(&values), &[Output::Plain("out0"), Output::Plain("out1")]);
}

#[test]
fn golden_eta_modules() {
    let Some(c) = case("networks") else { return };
    for name in ["eta_action", "eta_state", "eta_state_action"] {
        let net = Net { c: &c, name };
        let number = |key: &str| net.config(key).as_f64().expect("a number");
        let spec = EtaSpec {
            base: number("base_eta"),
            min: number("min_eta"),
            max: number("max_eta"),
            per_action: name.ends_with("action"),
            mlp_dims: net.config("mlp_dims").is_array().then(|| net.dims("mlp_dims")),
        };
        let mut b = builder();
        let state = b.state(net.shape("in.state")[1..].iter().product());
        let action_dim = *net.shape("out").last().expect("a shape");
        let eta = spec.build(&mut b, &state, action_dim);
        net.check(&b.finish(&[eta]), &[Output::Plain("out")]);
    }
}

#[test]
fn golden_gaussian_networks() {
    let Some(c) = case("networks") else { return };
    for name in
        ["gaussian_mlp_learnedstd", "gaussian_mlp_fixedstd", "gmm_mlp", "gaussian_transformer", "gmm_transformer"]
    {
        let net = Net { c: &c, name };
        let bounds = [c.f64(&net.array("w.logvar_min"))[0], c.f64(&net.array("w.logvar_max"))[0]];
        let deviation = |logvar: f64| (0.5 * logvar).exp();
        let (min, max) = (deviation(bounds[0]), deviation(bounds[1]));
        let learned = c.has(&net.array("w.logvar"));
        let modes = net.config("num_modes").as_u64().unwrap_or(0) as usize;
        let transformer = net.config("embed").as_u64();
        let per_row = net.shape("out0").last().copied().expect("a shape");
        let actions = if learned { net.shape("w.logvar")[0] / modes.max(1) } else { 3 };
        let trunk = match transformer {
            Some(embed_dim) => TrunkSpec::Transformer(TransformerSpec {
                embed_dim: embed_dim as usize,
                heads: net.usize("heads"),
                layers: net.usize("layers"),
            }),
            None => TrunkSpec::Mlp(net.head(true)),
        };
        let std = if learned { StdSpec::Learned { std: 0.1, min, max } } else { StdSpec::PerState { min, max } };
        let spec = GaussianSpec { trunk, std, modes, tanh_mean: true };
        let mut b = builder();
        let state_len = net.shape("in.state")[1..].iter().product();
        let state = b.state(state_len);
        let out = spec.build(&mut b, &state, None, [per_row / actions, actions]);
        let log_variance = out.log_variance.expect("a learned deviation");
        let mut nodes = vec![out.mean, log_variance];
        nodes.extend(out.logits);
        // Bounds a little wider, where the network bounds by itself: a clamp at its own end would take the gradient.
        let bounds = if learned { bounds } else { [bounds[0] - 1.0, bounds[1] + 1.0] };
        let mut outputs = vec![Output::Plain("out0"), Output::Deviation("out1", bounds)];
        if out.logits.is_some() {
            outputs.push(Output::Plain("out2"));
        }
        net.check(&b.finish(&nodes), &outputs);
    }
}

#[test]
fn a_value_may_be_an_output_and_go_on() {
    // y = W x, z = mish(y): y is asked for too, so the activation must not take its place.
    let mut b = PlanBuilder::default();
    let state = b.state(2);
    let y = b.linear("w", &[&state], 2);
    let z = b.activate(Activation::Mish, &y);
    let plan = b.finish(&[y, z]);
    let mut ws = plan.workspace(1, Mode::Training);
    let parameters = [1.0, 0.0, 0.0, 1.0, 0.5, -0.5];
    let prepared = plan.prepare(&parameters, &[]);
    plan.set_states(&mut ws, 1, |_, s| s.copy_from_slice(&[1.0, 2.0]));
    plan.forward_states(&parameters, &prepared, &mut ws);
    assert_eq!(plan.output(&ws, 0), [1.5, 1.5]);
    assert!((plan.output(&ws, 1)[0] - 1.403_38).abs() < 1e-5, "{:?}", plan.output(&ws, 1));
}
