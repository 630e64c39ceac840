//! What no network of the paper asks of [`OnnxLayers`], and the image encoder by itself.

use std::path::PathBuf;

use safetensors::SafeTensors;
use tenon_core::network::layers::{Layers, Window};
use tenon_core::network::{
    Activation, Compression, Listing, NoiseInputs, PatchEmbedding, VisionSpec, build_vit, sinusoid,
};
use tenon_core::noise::{NoiseSource, SeededNoise};

use super::layers::OnnxLayers;
use super::rows::{Order, Rows, Stage};
use super::{Tensor, draw_parameters};
use crate::engine::{Engine, Input, Session};

const TIME_DIM: usize = 8;

fn engines() -> impl Iterator<Item = Engine> {
    Engine::ALL.into_iter().filter(|engine| engine.available().is_ok())
}

fn run(engine: Engine, model: &[u8], inputs: &[&[f32]], len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    let inputs: Vec<Input> = inputs.iter().map(|x| Input::F32(x)).collect();
    Session::load(engine, "test", model, 1).unwrap().run(&inputs, &mut [&mut out]).unwrap();
    out
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let error = found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(found.len() == expected.len() && error <= 1e-5 * largest, "{what}: {error} of {largest}");
}

/// Values of the state alone, of the time alone and of both, with one position and with several, meet each other and
/// the chunk in every operation that takes two.
fn everything<L: Layers>(l: &mut L, inputs: &NoiseInputs<L::Value>) -> L::Value {
    let NoiseInputs { chunk, sinusoid: time, state, .. } = inputs;
    let position = l.parameter("position", &[4, 6], 4, 6);
    // Several positions that depend on the time, on the state, on both.
    let h = l.linear("timely", &[time], 24);
    let timely = l.reshape(&h, 4, 6);
    let timely = l.add(&timely, &position);
    let stately = l.linear("stately", &[&position, state], 6);
    let both = l.linear("both", &[&timely, &stately, time, state], 6);
    let both = l.add(&stately, &both);
    let both = l.concat(&[&both, &stately, &timely]);
    let both = l.dense("joined", &[&both], 6, Activation::Tanh);
    let both = l.group_norm("norm", &both, 2, 1e-5);
    let both = l.attention(&both, &stately, &timely, 2);
    let both = l.layer_norm("layer", &both, 1e-5);
    // The chunk meets them.
    let x = l.linear("first", &[chunk, &both, time, &position, state], 6);
    let x = l.add(&x, &both);
    let row = l.linear("row", &[state], 6);
    let x = l.add(&x, &row);
    let film = l.linear("film", &[state], 12);
    let x = l.modulate(&x, &film);
    let x = l.conv1d("conv", &x, 6, Window { kernel: 3, stride: 1, padding: 1 });
    let film = l.linear("late", &[time], 12);
    let x = l.modulate(&x, &film);
    let x = l.add(&x, &timely);
    let x = l.attention(&x, &both, &stately, 3);
    let flipped = l.transpose(&x);
    let weights = l.transpose(&both);
    let x = l.concat(&[&flipped, &weights]);
    let x = l.channels(&x, 2..7);
    let x = l.clamp(&x, -2.0, 2.0);
    let x = l.scale_shift(&x, 0.5, 0.25);
    let x = l.weighted_sum("weights", &x);
    let x = l.linear("last", &[&x, time], 8);
    l.reshape(&x, 4, 2)
}

/// Builds [`everything`]; `stages`: when sinusoids and state are known.
fn build<'a>(mut l: OnnxLayers<'a>, stages: [Stage; 2], steps: &[usize]) -> OnnxLayers<'a> {
    let chunk = l.input("x", &[1, 4, 2], Stage::Step, [4, 2]);
    let state = l.input("state", &[1, 5], stages[1], [1, 5]);
    let values: Vec<f32> = steps.iter().flat_map(|&t| sinusoid(t, TIME_DIM)).collect();
    let tensor = l.graph(stages[0]).constant("sinusoid", &[steps.len(), TIME_DIM], &values);
    let sinusoid = Rows::new(tensor, &[steps.len(), TIME_DIM], [steps.len(), 1, TIME_DIM], stages[0]);
    let out = everything(&mut l, &NoiseInputs { chunk, sinusoid, state, images: None });
    l.output("out", &out, &[1, 4, 2]);
    l
}

#[test]
fn split_graphs_of_whatever_meets_agree_with_one_graph() {
    let steps = [7, 3, 0];
    let mut listing = Listing::default();
    let inputs = NoiseInputs { chunk: [4, 2], sinusoid: [1, TIME_DIM], state: [1, 5], images: None };
    everything(&mut listing, &inputs);
    let parameters = draw_parameters(listing.into_parameters(), 1);
    let split = build(OnnxLayers::split(&parameters, steps.len()), [Stage::Export, Stage::Chunk], &steps);
    let (encoder, step) = split.finish_split();
    let mut source = SeededNoise::new(2, 0);
    let (mut x, mut state) = ([0.0; 8], [0.0; 5]);
    source.fill_standard_normal(&mut x);
    source.fill_standard_normal(&mut state);
    for engine in engines() {
        let width = Session::load(engine, "step", &step, 1).unwrap().inputs()[1].len();
        let features = run(engine, &encoder, &[&state], steps.len() * width);
        for (i, t) in steps.into_iter().enumerate() {
            let one = build(OnnxLayers::one("one", &parameters), [Stage::Step; 2], &[t]).finish();
            let expected = run(engine, &one, &[&x, &state], 8);
            let found = run(engine, &step, &[&x, &features[i * width..][..width]], 8);
            assert_close(&found, &expected, &format!("{engine} t = {t}"));
        }
    }
}

fn array(file: &SafeTensors, name: &str) -> Tensor {
    let view = file.tensor(name).unwrap();
    let data = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    Tensor { shape: view.shape().to_vec(), data }
}

#[test]
fn golden_image_encoders_are_reproduced() {
    let folder = std::env::var_os("TENON_GOLDEN")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"), PathBuf::from);
    let Ok(bytes) = std::fs::read(folder.join("networks.safetensors")) else {
        println!("skipped: no golden networks in {}", folder.display());
        return;
    };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, image_px, patch_embedding, patch_norm) in
        [("vit_embed1", 16, PatchEmbedding::One, false), ("vit_embed2_norm", 24, PatchEmbedding::Two, true)]
    {
        let (cameras, embed_dim, heads, depth, compression) = (1, 16, 2, 2, Compression::Flat { dim: 1 });
        let spec = VisionSpec { cameras, image_px, embed_dim, heads, depth, patch_embedding, patch_norm, compression };
        let prefix = format!("{name}.w.");
        let names = file.names().into_iter().filter_map(|n| n.strip_prefix(&prefix));
        let parameters = names.map(|n| (n.to_string(), array(&file, &format!("{prefix}{n}")))).collect();
        let mut l = OnnxLayers::one(name, &parameters);
        let rgb = l.input("rgb", &[1, 3, image_px, image_px], Stage::Step, [image_px * image_px, 3]);
        let tokens = build_vit(&mut l, "vit", &spec, &Rows { order: Order::ChannelsFirst, ..rgb });
        l.output("out", &tokens, &[1, tokens.positions, tokens.channels]);
        let model = l.finish();
        let (pictures, expected) = (array(&file, &format!("{name}.in.rgb")), array(&file, &format!("{name}.out")));
        let rows = pictures.data.chunks_exact(3 * image_px * image_px);
        for engine in engines() {
            let len = expected.data.len() / rows.len();
            let found: Vec<f32> = rows.clone().flat_map(|picture| run(engine, &model, &[picture], len)).collect();
            assert_close(&found, &expected.data, &format!("{engine} {name}"));
        }
    }
}
