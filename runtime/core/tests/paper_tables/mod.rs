//! The tables of spec dppo.md that `configs/paper` is held to.

type Names = &'static [&'static str];
/// With the authors' last values, with the paper's.
type Both<T> = [T; 2];
/// A learning rate and its minimum.
type Rates = [f64; 2];
/// See [`FINETUNING`].
type Finetuning = (&'static str, Both<usize>, Both<usize>, Both<Rates>, Both<f64>, Both<f64>, Both<f64>);

const GYM: Names = &["hopper", "walker2d", "half_cheetah"];
const STATE: Names = &["lift", "can", "square", "transport"];
const PIXELS: Names = &["lift_pixels", "can_pixels", "square_pixels", "transport_pixels"];
const ONE_LEG: Names = &["one_leg_low", "one_leg_med"];
const LAMP_AND_ROUND_TABLE: Names = &["lamp_low", "lamp_med", "round_table_low", "round_table_med"];
pub const AVOID: Names = &["avoid_m1", "avoid_m2", "avoid_m3"];
pub const PRETRAIN_AND_FINETUNE: Names = &["pretrain", "finetune"];

/// Tasks, their methods, the stages of each.
#[rustfmt::skip]
pub const FILES: &[(Names, Names, Names)] = &[
    (GYM, &["diffusion_mlp"], &["pretrain", "finetune", "scratch"]),
    (GYM, &["gaussian_mlp"], &["pretrain", "scratch"]),
    (&["half_cheetah"], &["diffusion_mlp_ta1"], PRETRAIN_AND_FINETUNE),
    (STATE, &["diffusion_mlp", "unet", "gaussian_mlp", "gmm_mlp", "gaussian_transformer", "gmm_transformer"],
        PRETRAIN_AND_FINETUNE),
    (&["can", "square"], &["diffusion_mlp_ta1", "diffusion_mlp_ta1_ph"], PRETRAIN_AND_FINETUNE),
    (PIXELS, &["vit_mlp", "vit_unet", "gaussian_vit_mlp"], PRETRAIN_AND_FINETUNE),
    (ONE_LEG, &["diffusion_mlp", "unet", "gaussian_mlp"], PRETRAIN_AND_FINETUNE),
    (LAMP_AND_ROUND_TABLE, &["diffusion_mlp", "unet", "gaussian_mlp"], PRETRAIN_AND_FINETUNE),
    (AVOID, &["diffusion_mlp", "gaussian_mlp", "gmm_mlp"], PRETRAIN_AND_FINETUNE),
];

/// Spec dppo.md §3.7: tasks, method, parameters, whether a learned deviation is among them.
#[rustfmt::skip]
pub const ACTORS: &[(Names, &str, usize, bool)] = &[
    (&["hopper"], "diffusion_mlp", 553_020, false),
    (&["walker2d", "half_cheetah"], "diffusion_mlp", 568_392, false),
    (&["lift"], "diffusion_mlp", 573_516, false),
    (&["can"], "diffusion_mlp", 575_564, false),
    (&["square"], "diffusion_mlp", 2_305_212, false),
    (&["transport"], "diffusion_mlp", 2_427_088, false),
    (&["lift"], "unet", 648_615, false),
    (&["can"], "unet", 652_455, false),
    (&["square"], "unet", 1_623_255, false),
    (&["transport"], "unet", 1_681_694, false),
    (&["lift"], "gaussian_mlp", 549_923, true),
    (&["can"], "gaussian_mlp", 551_971, true),
    (&["square"], "gaussian_mlp", 2_152_483, true),
    (&["transport"], "gaussian_mlp", 2_275_454, true),
    (&["lift"], "gmm_mlp", 1_145_489, false),
    (&["can"], "gmm_mlp", 1_149_585, false),
    (&["square"], "gmm_mlp", 4_396_177, false),
    (&["transport"], "gmm_mlp", 4_900_405, false),
    (&["lift"], "gaussian_transformer", 674_606, true),
    (&["can"], "gaussian_transformer", 674_990, true),
    (&["square"], "gaussian_transformer", 1_862_254, true),
    (&["transport"], "gaussian_transformer", 1_869_788, true),
    (&["lift"], "gmm_transformer", 679_275, true),
    (&["can"], "gmm_transformer", 679_659, true),
    (&["square"], "gmm_transformer", 1_869_995, true),
    (&["transport"], "gmm_transformer", 1_885_265, true),
    (&["lift_pixels", "can_pixels"], "vit_mlp", 1_064_956, false),
    (&["square_pixels"], "vit_mlp", 1_778_684, false),
    (&["transport_pixels"], "vit_mlp", 2_048_720, false),
    (&["lift_pixels", "can_pixels"], "gaussian_vit_mlp", 1_030_051, true),
    (&["square_pixels"], "gaussian_vit_mlp", 1_728_419, true),
    (&["transport_pixels"], "gaussian_vit_mlp", 1_933_950, true),
    // The table leaves Lift out, whose sizes are those of Can.
    (&["lift_pixels", "can_pixels"], "vit_unet", 1_203_191, false),
    (&["square_pixels"], "vit_unet", 2_248_871, false),
    (&["transport_pixels"], "vit_unet", 2_498_158, false),
    (ONE_LEG, "unet", 6_856_346, false),
    (LAMP_AND_ROUND_TABLE, "unet", 6_806_170, false),
    (ONE_LEG, "gaussian_mlp", 10_638_426, true),
    (LAMP_AND_ROUND_TABLE, "gaussian_mlp", 10_624_090, true),
    (ONE_LEG, "diffusion_mlp", 6_640_368, false),
    (LAMP_AND_ROUND_TABLE, "diffusion_mlp", 6_633_200, false),
    (AVOID, "diffusion_mlp", 545_336, false),
    (AVOID, "gaussian_mlp", 134_922, true),
    (AVOID, "gmm_mlp", 145_709, false),
];

/// Spec dppo.md §2, "Samples & minibatches", §6.3, §6.4: what E · N · K' (or E · N) is and how many minibatches an
/// epoch has, with the authors' last values and with the paper's; and how many steps the environments take.
#[rustfmt::skip]
pub const ITERATIONS: &[(Names, Names, usize, Both<usize>, usize)] = &[
    (GYM, &["diffusion_mlp.finetune"], 200_000, [4, 4], 80_000),
    (GYM, &["diffusion_mlp.scratch"], 100_000, [20, 20], 10_000),
    (GYM, &["gaussian_mlp.scratch"], 10_000, [20, 20], 10_000),
    (&["half_cheetah"], &["diffusion_mlp_ta1.finetune"], 200_000, [20, 20], 20_000),
    (&["lift", "can"], &["diffusion_mlp.finetune", "unet.finetune"], 150_000, [20, 2], 60_000),
    (&["square"], &["diffusion_mlp.finetune", "unet.finetune"], 200_000, [20, 2], 80_000),
    (&["transport"], &["diffusion_mlp.finetune", "unet.finetune"], 200_000, [20, 2], 160_000),
    (&["can"], &["diffusion_mlp_ta1.finetune"], 150_000, [10, 10], 15_000),
    (&["square"], &["diffusion_mlp_ta1.finetune"], 200_000, [10, 10], 20_000),
    (&["can"], &["diffusion_mlp_ta1_ph.finetune"], 120_000, [20, 20], 12_000),
    (&["square"], &["diffusion_mlp_ta1_ph.finetune"], 160_000, [20, 20], 16_000),
    (&["lift", "can"], GAUSSIAN, 15_000, [2, 2], 60_000),
    (&["square"], GAUSSIAN, 20_000, [2, 2], 80_000),
    (&["transport"], GAUSSIAN, 20_000, [2, 2], 160_000),
    (&["lift_pixels", "can_pixels"], &["vit_mlp.finetune"], 75_000, [150, 30], 60_000),
    (&["square_pixels"], &["vit_mlp.finetune"], 100_000, [200, 40], 80_000),
    (&["transport_pixels"], &["vit_mlp.finetune"], 100_000, [200, 40], 160_000),
    (&["lift_pixels", "can_pixels"], &["vit_unet.finetune"], 75_000, [150, 150], 60_000),
    (&["square_pixels"], &["vit_unet.finetune"], 100_000, [200, 200], 80_000),
    (&["transport_pixels"], &["vit_unet.finetune"], 100_000, [200, 200], 160_000),
    (&["lift_pixels", "can_pixels"], &["gaussian_vit_mlp.finetune"], 15_000, [10, 10], 60_000),
    (&["square_pixels"], &["gaussian_vit_mlp.finetune"], 20_000, [20, 20], 80_000),
    (&["transport_pixels"], &["gaussian_vit_mlp.finetune"], 20_000, [20, 20], 160_000),
    (ONE_LEG, &["unet.finetune"], 440_000, [14, 10], 704_000),
    (&["one_leg_low"], &["diffusion_mlp.finetune"], 440_000, [25, 25], 704_000),
    (&["one_leg_med"], &["diffusion_mlp.finetune"], 440_000, [50, 50], 704_000),
    (ONE_LEG, &["gaussian_mlp.finetune"], 88_000, [10, 10], 704_000),
    (LAMP_AND_ROUND_TABLE, &["unet.finetune"], 625_000, [15, 14], 1_000_000),
    (LAMP_AND_ROUND_TABLE, &["diffusion_mlp.finetune"], 625_000, [71, 71], 1_000_000),
    (LAMP_AND_ROUND_TABLE, &["gaussian_mlp.finetune"], 125_000, [14, 14], 1_000_000),
    (AVOID, &["diffusion_mlp.finetune"], 12_500, [2, 2], 5_000),
    (AVOID, &["gaussian_mlp.finetune", "gmm_mlp.finetune"], 1_250, [2, 2], 5_000),
];

const GAUSSIAN: Names =
    &["gaussian_mlp.finetune", "gmm_mlp.finetune", "gaussian_transformer.finetune", "gmm_transformer.finetune"];

/// Spec dppo.md §6.2: files, batch, learning rate and its minimum, epochs and those of the paper.
#[rustfmt::skip]
pub const PRETRAINING: &[(Names, Names, usize, Rates, Both<usize>)] = &[
    (GYM, &["diffusion_mlp"], 128, [1e-3, 1e-4], [200, 3000]),
    (&["half_cheetah"], &["diffusion_mlp_ta1"], 128, [1e-3, 1e-4], [200, 200]),
    (&["hopper", "half_cheetah"], &["gaussian_mlp"], 128, [1e-4, 1e-4], [200, 500]),
    (&["walker2d"], &["gaussian_mlp"], 128, [1e-4, 1e-4], [200, 3000]),
    (STATE, &["diffusion_mlp", "unet"], 256, [1e-4, 1e-5], [3000, 8000]),
    (&["can", "square"], &["diffusion_mlp_ta1", "diffusion_mlp_ta1_ph"], 256, [1e-4, 1e-5], [3000, 3000]),
    (STATE, &["gaussian_mlp", "gmm_mlp", "gaussian_transformer", "gmm_transformer"], 256, [1e-4, 1e-5], [3000, 5000]),
    (&["lift_pixels"], &["vit_mlp"], 256, [1e-4, 1e-5], [2000, 2500]),
    (&["can_pixels"], &["vit_mlp"], 256, [1e-4, 1e-5], [2000, 5000]),
    (&["square_pixels"], &["vit_mlp"], 256, [1e-4, 1e-5], [2000, 4000]),
    (&["transport_pixels"], &["vit_mlp"], 256, [1e-4, 1e-5], [2000, 8000]),
    (PIXELS, &["vit_unet"], 256, [1e-4, 1e-5], [2000, 2000]),
    (&["lift_pixels"], &["gaussian_vit_mlp"], 256, [1e-4, 1e-5], [2000, 500]),
    (&["can_pixels"], &["gaussian_vit_mlp"], 256, [1e-4, 1e-5], [2000, 1000]),
    (&["square_pixels"], &["gaussian_vit_mlp"], 256, [1e-4, 1e-5], [2000, 4000]),
    (&["transport_pixels"], &["gaussian_vit_mlp"], 256, [1e-4, 1e-5], [2000, 5000]),
    (ONE_LEG, &["diffusion_mlp", "unet"], 256, [1e-4, 1e-5], [8000, 8000]),
    (LAMP_AND_ROUND_TABLE, &["diffusion_mlp", "unet"], 256, [1e-4, 1e-5], [8000, 8000]),
    (ONE_LEG, &["gaussian_mlp"], 256, [1e-4, 1e-5], [3000, 3000]),
    (LAMP_AND_ROUND_TABLE, &["gaussian_mlp"], 256, [1e-4, 1e-5], [3000, 3000]),
    (&["avoid_m1"], &["diffusion_mlp"], 16, [1e-4, 1e-5], [5000, 10_000]),
    (&["avoid_m2", "avoid_m3"], &["diffusion_mlp"], 16, [1e-4, 1e-5], [5000, 15_000]),
    (AVOID, &["gaussian_mlp"], 16, [1e-4, 1e-5], [5000, 10_000]),
    (&["avoid_m1", "avoid_m2"], &["gmm_mlp"], 16, [1e-4, 1e-5], [5000, 10_000]),
    (&["avoid_m3"], &["gmm_mlp"], 32, [1e-4, 1e-5], [5000, 10_000]),
];

/// Spec dppo.md §6.3, §6.4, each the authors' last value and the paper's: iterations, epochs of an update, actor's
/// learning rate and its minimum, σ, γ_denoise (0: not a diffusion policy), ε.
#[rustfmt::skip]
pub const FINETUNING: &[Finetuning] = &[
    ("hopper/diffusion_mlp", [1000; 2], [5; 2], [[1e-4; 2]; 2], [0.1; 2], [0.99; 2], [0.01; 2]),
    ("half_cheetah/diffusion_mlp_ta1", [501; 2], [5; 2], [[1e-4; 2]; 2], [0.1; 2], [0.99; 2], [0.01; 2]),
    ("lift/diffusion_mlp", [81, 300], [10; 2], [[1e-4; 2], [1e-5; 2]], [0.1; 2], [0.99; 2], [0.01; 2]),
    ("can/diffusion_mlp", [151, 300], [10; 2], [[1e-4; 2], [1e-5; 2]], [0.1; 2], [0.99; 2], [0.01; 2]),
    ("square/diffusion_mlp", [201, 500], [10; 2], [[1e-4; 2], [1e-5; 2]], [0.1; 2], [0.99; 2], [0.01; 2]),
    ("transport/diffusion_mlp", [201, 1000], [5, 8], [[1e-4; 2], [1e-5, 1e-6]], [0.1, 0.08], [0.99; 2], [0.01; 2]),
    ("lift/unet", [81, 300], [10; 2], [[1e-4; 2], [1e-5; 2]], [0.1; 2], [0.99; 2], [0.01; 2]),
    // Not v0.8's inverted rates: held at the maximum (§10).
    ("square/unet", [201, 1000], [10; 2], [[2e-5; 2], [1e-5; 2]], [0.1; 2], [0.99; 2], [0.01; 2]),
    ("transport/unet", [201, 1000], [5, 8], [[2e-5; 2], [1e-5, 1e-6]], [0.1, 0.08], [0.99; 2], [0.01, 0.001]),
    ("square/diffusion_mlp_ta1", [301; 2], [10; 2], [[1e-4; 2]; 2], [0.1; 2], [0.99; 2], [0.01; 2]),
    ("can/diffusion_mlp_ta1_ph", [301; 2], [10; 2], [[1e-4; 2]; 2], [0.1; 2], [0.9; 2], [0.01; 2]),
    ("lift_pixels/vit_mlp", [81, 200], [10; 2], [[5e-5; 2], [1e-5; 2]], [0.1; 2], [0.99, 0.9], [0.01; 2]),
    ("can_pixels/vit_mlp", [151, 200], [10; 2], [[5e-5; 2], [1e-5; 2]], [0.1; 2], [0.99, 0.9], [0.01; 2]),
    ("square_pixels/vit_mlp", [301, 500], [10; 2], [[1e-5; 2]; 2], [0.1; 2], [0.99, 0.9], [0.01; 2]),
    ("transport_pixels/vit_mlp", [201, 500], [10, 8], [[1e-5; 2], [1e-5, 1e-6]], [0.1, 0.08], [0.99, 0.9], [0.01; 2]),
    ("one_leg_med/unet", [1000; 2], [5; 2], [[1e-5, 1e-6]; 2], [0.04; 2], [0.9; 2], [0.001; 2]),
    ("lamp_low/diffusion_mlp", [1000; 2], [5; 2], [[1e-5, 1e-6]; 2], [0.04; 2], [0.9; 2], [0.001; 2]),
    ("avoid_m3/diffusion_mlp", [51; 2], [10; 2], [[1e-5; 2]; 2], [0.1; 2], [0.95; 2], [0.1; 2]),
    ("lift/gaussian_mlp", [81, 300], [10; 2], [[1e-4; 2], [1e-5; 2]], [0.1; 2], [0.0; 2], [0.01; 2]),
    ("can/gmm_transformer", [300; 2], [10; 2], [[1e-5; 2]; 2], [0.1; 2], [0.0; 2], [0.01; 2]),
    ("transport/gmm_mlp", [201, 1000], [5, 8], [[1e-4; 2], [1e-5, 1e-6]], [0.1, 0.08], [0.0; 2], [0.01; 2]),
    ("transport/gaussian_transformer", [201, 1000], [5, 8], [[1e-4; 2], [1e-5, 1e-6]], [0.08; 2], [0.0; 2], [0.01; 2]),
    ("can_pixels/gaussian_vit_mlp", [151, 200], [10; 2], [[1e-4; 2], [1e-5; 2]], [0.1; 2], [0.0; 2], [0.01; 2]),
    ("round_table_med/gaussian_mlp", [1000; 2], [5; 2], [[1e-5, 1e-6]; 2], [0.04; 2], [0.0; 2], [0.01, 0.001]),
    ("avoid_m1/gmm_mlp", [51; 2], [10; 2], [[1e-5; 2]; 2], [0.1; 2], [0.0; 2], [0.1; 2]),
];
