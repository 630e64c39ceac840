//! Where networks are computed when it is not the processor: memory, kernels and products of a graphics card.
//!
//! A [`Device`] hands out [`Memory`] and takes two kinds of orders, all on one stream and so in order: launches of the
//! kernels in `kernels.cu`, and matrix products. [`crate::network::plan`] gives those orders; nobody else does.
//!
//! Two drivers stand behind it:
//!
//! * `cuda` (feature `cuda`): an NVIDIA card. The kernels are compiled for the card at hand when it is opened (NVRTC),
//!   products are cuBLAS's. Driver, NVRTC and cuBLAS are loaded at run time, so building wants no CUDA.
//! * `emulated`: the same file of kernels, compiled by the C compiler and run on the processor one element after the
//!   other. It is slow and meant for checking: everything but the driver's own calls is the same code, so the tests of
//!   the card's side run on any machine.
//!
//! A kernel's work is cut by elements; no element is written twice and nothing is summed by atomic additions, so one card
//! gives the same bits every time. They differ from the processor's in the last places.

#[cfg(feature = "cuda")]
mod cuda;
mod emulated;
mod memory;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub(crate) use memory::{Memory, View};

use crate::error::TrainError;

/// Source of all kernels: what CUDA C++ and C have in common.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
const KERNELS: &str = include_str!("kernels.cu");

/// Pointers and numbers that a kernel takes; what each means is said beside the kernel. As `struct Launch` there.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Launch {
    /// Addresses of values; 0 where there are none.
    pub values: [u64; 6],
    pub sizes: [u64; 8],
    pub factors: [f32; 2],
    /// Elements to be computed.
    pub elements: u64,
}

macro_rules! kernels {
    ($($name:ident = $symbol:ident),* $(,)?) => {
        /// The kernels, by their names in `kernels.cu`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kernel { $($name),* }

        unsafe extern "C" {
            $(fn $symbol(launch: Launch);)*
        }

        impl Kernel {
            #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
            const ALL: &[Self] = &[$(Self::$name),*];

            const fn symbol(self) -> &'static str {
                match self { $(Self::$name => stringify!($symbol)),* }
            }

            /// The kernel as the C compiler made it.
            const fn compiled(self) -> unsafe extern "C" fn(Launch) {
                match self { $(Self::$name => $symbol),* }
            }
        }
    };
}

kernels! {
    Fill = tenon_fill,
    ScaleShift = tenon_scale_shift,
    AddRepeated = tenon_add_repeated,
    SumRepeated = tenon_sum_repeated,
    FillRows = tenon_fill_rows,
    Multiply = tenon_multiply,
    Clamp = tenon_clamp,
    ClampBackward = tenon_clamp_backward,
    Activate = tenon_activate,
    Gate = tenon_gate,
    Gather = tenon_gather,
    ScatterStates = tenon_scatter_states,
    OneHot = tenon_one_hot,
    CopyChannels = tenon_copy_channels,
    Transpose = tenon_transpose,
    Reshape = tenon_reshape,
    LayerNorm = tenon_layer_norm,
    LayerNormBackward = tenon_layer_norm_backward,
    GroupNorm = tenon_group_norm,
    GroupNormBackward = tenon_group_norm_backward,
    Modulate = tenon_modulate,
    ModulateFilm = tenon_modulate_film,
    ModulateInput = tenon_modulate_input,
    Patches = tenon_patches,
    PatchesBackward = tenon_patches_backward,
    AttentionScores = tenon_attention_scores,
    Softmax = tenon_softmax,
    SoftmaxBackward = tenon_softmax_backward,
    AttentionMix = tenon_attention_mix,
    AttentionMixBack = tenon_attention_mix_back,
    WeightedSum = tenon_weighted_sum,
    WeightedSumWeight = tenon_weighted_sum_weight,
    WeightedSumInput = tenon_weighted_sum_input,
}

/// A matrix of a product: `[rows, columns]` with rows `stride` apart, or its transpose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub values: View<'a>,
    pub stride: usize,
    pub transposed: bool,
}

impl<'a> Operand<'a> {
    pub fn new(values: View<'a>, stride: usize) -> Self {
        Self { values, stride, transposed: false }
    }

    pub fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Values from the first to the last of `rows` × `columns` before transposing.
    fn span(&self, rows: usize, columns: usize) -> usize {
        let (rows, columns) = if self.transposed { (columns, rows) } else { (rows, columns) };
        if rows == 0 || columns == 0 { 0 } else { (rows - 1) * self.stride + columns }
    }
}

/// `out (+)= factor · left · right`, `[m, k] · [k, n]`; `out` has rows `out_stride` apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product<'a> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub left: Operand<'a>,
    pub right: Operand<'a>,
    pub out: View<'a>,
    pub out_stride: usize,
    pub factor: f32,
    pub adds: bool,
}

/// What a kind of device has to do. Orders are done one after the other. Addresses were given by `allocate`, and what an
/// order touches lies within.
pub(crate) trait Driver: fmt::Debug + Send + Sync {
    fn name(&self) -> String;
    /// Zeros.
    fn allocate(&self, words: usize) -> Result<u64, String>;
    fn free(&self, address: u64, words: usize);
    fn write(&self, to: u64, words: &[u32]) -> Result<(), String>;
    fn read(&self, from: u64, words: &mut [u32]) -> Result<(), String>;
    fn launch(&self, kernel: Kernel, launch: Launch) -> Result<(), String>;
    fn multiply(&self, product: &Product) -> Result<(), String>;
}

/// A device that was opened.
#[derive(Debug, Clone)]
pub struct Device(Arc<dyn Driver>);

/// A device that was working and failed: the payload of the panic that ends the computation. There is nothing to be
/// mended on the way, and what is on the disk is whole; the command line turns it into an error.
#[derive(Debug)]
pub struct DeviceFailure(pub String);

/// Hands a failure of the device on.
fn must<T>(what: &str, result: Result<T, String>) -> T {
    result.unwrap_or_else(|e| std::panic::panic_any(DeviceFailure(format!("{what}: {e}"))))
}

impl Device {
    /// What it is.
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// `len` zeros.
    pub(crate) fn zeros(&self, len: usize) -> Memory {
        Memory::new(self.0.clone(), len)
    }

    /// A copy of `values`.
    pub(crate) fn upload(&self, values: &[f32]) -> Memory {
        let memory = self.zeros(values.len());
        memory.all().write(values);
        memory
    }

    /// Zeros in place of what is there.
    pub(crate) fn clear(&self, values: View) {
        let to = [values.address(), 0, 0, 0, 0, 0];
        self.launch(Kernel::Fill, Launch { values: to, elements: values.len() as u64, ..Launch::default() });
    }

    /// `sum += x`.
    pub(crate) fn add(&self, sum: View, x: View) {
        assert_eq!(sum.len(), x.len(), "a sum of as many values");
        let (values, sizes) = ([sum.address(), x.address(), 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]);
        let elements = sum.len() as u64;
        self.launch(Kernel::ScaleShift, Launch { values, sizes, factors: [1.0, 0.0], elements });
    }

    pub(crate) fn launch(&self, kernel: Kernel, launch: Launch) {
        assert!(launch.elements <= 1 << 31, "{} elements at a time", launch.elements);
        if launch.elements > 0 {
            must(kernel.symbol(), self.0.launch(kernel, launch));
        }
    }

    pub(crate) fn multiply(&self, product: Product) {
        let Product { m, n, k, left, right, out, out_stride, .. } = product;
        if m == 0 || n == 0 {
            return;
        }
        assert!(left.span(m, k) <= left.values.len(), "left side {m}×{k} in {} values", left.values.len());
        assert!(right.span(k, n) <= right.values.len(), "right side {k}×{n} in {} values", right.values.len());
        assert!((m - 1) * out_stride + n <= out.len(), "product {m}×{n} in {} values", out.len());
        must("product of matrices", self.0.multiply(&product));
    }
}

/// Where to compute, as a person says it: `cpu`, `cuda`, `cuda:1`, `emulated`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    #[default]
    Cpu,
    Cuda {
        ordinal: usize,
    },
    Emulated,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("`{text}` is no device: give cpu, cuda, cuda:N (the N-th card) or emulated");
        match text.split_once(':') {
            None => match text {
                "cpu" => Ok(Self::Cpu),
                "cuda" => Ok(Self::Cuda { ordinal: 0 }),
                "emulated" => Ok(Self::Emulated),
                _ => Err(unknown()),
            },
            Some(("cuda", ordinal)) => ordinal.parse().map(|ordinal| Self::Cuda { ordinal }).map_err(|_| unknown()),
            Some(_) => Err(unknown()),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda { ordinal } => write!(f, "cuda:{ordinal}"),
            Self::Emulated => write!(f, "emulated"),
        }
    }
}

impl Choice {
    /// Opens it; none for the processor.
    ///
    /// # Errors
    /// [`TrainError::Device`] where there is no such card, a library of CUDA is missing, or the program was built without.
    pub fn open(self) -> Result<Option<Device>, TrainError> {
        match self {
            Self::Cpu => Ok(None),
            Self::Emulated => Ok(Some(Device(Arc::new(emulated::Emulated)))),
            Self::Cuda { ordinal } => {
                cuda_device(ordinal).map(Some).map_err(|detail| TrainError::Device { device: self.to_string(), detail })
            }
        }
    }
}

/// The kernels compiled for an architecture of NVIDIA's cards, e.g. `compute_90`, as PTX; none where NVRTC is not found. Wants
/// no card: this is how the kernels are checked on a machine without one.
#[cfg(feature = "cuda")]
pub fn kernels_for(architecture: &str) -> Result<Option<String>, TrainError> {
    // SAFETY: looks for a shared library of NVIDIA's and loads it.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return Ok(None);
    }
    let ptx = cuda::compile(architecture)
        .map_err(|detail| TrainError::Device { device: architecture.to_string(), detail })?
        .to_src();
    let missing = Kernel::ALL.iter().find(|kernel| !ptx.contains(&format!(".entry {}(", kernel.symbol())));
    match missing {
        Some(kernel) => {
            let detail = format!("{} is not among the compiled kernels", kernel.symbol());
            Err(TrainError::Device { device: architecture.to_string(), detail })
        }
        None => Ok(Some(ptx)),
    }
}

#[cfg(feature = "cuda")]
fn cuda_device(ordinal: usize) -> Result<Device, String> {
    Ok(Device(Arc::new(cuda::Cuda::open(ordinal)?)))
}

#[cfg(not(feature = "cuda"))]
fn cuda_device(_: usize) -> Result<Device, String> {
    Err("this program was built without CUDA: build it with `cargo build --release -p tenon-train --features cuda`, or \
         leave --device out"
        .into())
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use super::*;

    #[test]
    fn devices_are_named_as_they_are_written() {
        for text in ["cpu", "cuda:0", "cuda:3", "emulated"] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(Choice::Cuda { ordinal: 0 }));
        for text in ["", "gpu", "cuda:", "cuda:x", "cpu:1", "CUDA"] {
            assert!(text.parse::<Choice>().unwrap_err().contains("cuda:N"), "{text}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_program_without_cuda_says_how_to_build_one() {
        let error = Choice::Cuda { ordinal: 0 }.open().unwrap_err().to_string();
        assert!(error.contains("cuda:0") && error.contains("--features cuda"), "{error}");
    }

    /// The command line turns it into an error.
    #[test]
    fn memory_that_is_not_to_be_had_is_a_failure_of_the_device() {
        let device = Choice::Emulated.open().unwrap().unwrap();
        let panic = std::panic::catch_unwind(AssertUnwindSafe(|| device.zeros(usize::MAX / 4))).unwrap_err();
        let failure = panic.downcast::<DeviceFailure>().expect("a failure");
        assert!(failure.0.contains("MB of memory"), "{failure:?}");
    }

    #[test]
    fn products_of_views_and_transposes_equal_sums_by_hand() {
        let device = Choice::Emulated.open().unwrap().unwrap();
        let a: Vec<f32> = (0..12).map(|i| i as f32).collect(); // [3, 4]
        let b: Vec<f32> = (0..10).map(|i| 1.0 - i as f32).collect(); // two rows of four, five apart
        let (a_there, b_there, out) = (device.upload(&a), device.upload(&b), device.upload(&[1.0; 8]));
        device.multiply(Product {
            m: 3,
            n: 2,
            k: 4,
            left: Operand::new(a_there.all(), 4),
            right: Operand::new(b_there.all(), 5).t(),
            out: out.all(),
            out_stride: 3,
            factor: 2.0,
            adds: true,
        });
        let got = out.all().read();
        for i in 0..3 {
            for j in 0..2 {
                let sum: f32 = (0..4).map(|k| a[4 * i + k] * b[5 * j + k]).sum();
                assert_eq!(got[3 * i + j], 1.0 + 2.0 * sum);
            }
        }
        assert_eq!((got[2], got[5]), (1.0, 1.0), "between the rows nothing is written");
    }
}
