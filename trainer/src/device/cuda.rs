//! An NVIDIA card through the CUDA driver, NVRTC and cuBLAS, all of which are loaded when it is opened.

use std::ffi::c_int;
use std::fmt::Display;
use std::sync::Arc;

use cudarc::cublas::{self, CudaBlas, sys::cublasOperation_t};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DeviceRepr, LaunchConfig, PushKernelArg, result};
use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};

use super::{Driver, KERNELS, Kernel, Launch, Operand, Product};

/// Threads of a block of the kernels.
const BLOCK: u32 = 256;
/// Most blocks of a launch; elements beyond them are walked by the same threads.
const MOST_BLOCKS: u32 = 1 << 16;

// SAFETY: `Launch` is `repr(C)`, made of integers and floats, and `kernels.cu` declares the same struct.
unsafe impl DeviceRepr for Launch {}

/// A card, a stream of orders to it, and the kernels compiled for it.
#[derive(Debug)]
pub(super) struct Cuda {
    stream: Arc<CudaStream>,
    kernels: Vec<CudaFunction>,
    blas: CudaBlas,
    name: String,
}

impl Cuda {
    /// Opens the `ordinal`-th card.
    pub fn open(ordinal: usize) -> Result<Self, String> {
        // SAFETY: looks for shared libraries of NVIDIA's and loads them, as whoever asks for a card wants.
        let present = unsafe {
            [
                ("libcuda.so, of the card's driver", cudarc::driver::sys::is_culib_present()),
                ("libnvrtc.so, of CUDA 12", cudarc::nvrtc::sys::is_culib_present()),
                ("libcublas.so, of CUDA 12", cudarc::cublas::sys::is_culib_present()),
            ]
        };
        if let Some((library, _)) = present.iter().find(|(_, present)| !present) {
            return Err(format!("{library}, is not found: install it, or name its folder in LD_LIBRARY_PATH"));
        }
        let cards = CudaContext::device_count().map_err(|e| format!("the driver answers {e}"))?;
        if ordinal >= cards.max(0) as usize {
            return Err(format!("this machine has {cards} cards; they are counted from 0"));
        }
        let context = CudaContext::new(ordinal).map_err(|e| format!("opening the card: {e}"))?;
        // One stream does everything in order; there is nothing to be tracked.
        // SAFETY: memory is used by this stream only, and freed in its order.
        unsafe { context.disable_event_tracking() };
        let (major, minor) = context.compute_capability().map_err(|e| format!("asking for its kind: {e}"))?;
        let ptx = compile(&format!("compute_{major}{minor}"))?;
        let module = context.load_module(ptx).map_err(|e| format!("loading the kernels: {e}"))?;
        let kernel = |kernel: &Kernel| module.load_function(kernel.symbol()).map_err(|e| format!("{kernel:?}: {e}"));
        let kernels = Kernel::ALL.iter().map(kernel).collect::<Result<_, _>>()?;
        let stream = context.default_stream();
        let blas = CudaBlas::new(stream.clone()).map_err(|e| format!("opening cuBLAS: {e}"))?;
        let name = context.name().map_err(|e| format!("asking for its name: {e}"))?;
        Ok(Self { stream, kernels, blas, name: format!("cuda:{ordinal}, {name}") })
    }

    fn bind(&self) -> Result<(), String> {
        text(self.stream.context().bind_to_thread())
    }
}

fn text<T>(result: Result<T, impl Display>) -> Result<T, String> {
    result.map_err(|e| e.to_string())
}

/// The kernels for an architecture, e.g. `compute_90`.
pub(super) fn compile(architecture: &str) -> Result<Ptx, String> {
    let options = vec![format!("--gpu-architecture={architecture}")];
    let options = CompileOptions { name: Some("kernels.cu".into()), options, ..CompileOptions::default() };
    compile_ptx_with_opts(KERNELS, options).map_err(|e| match e {
        CompileError::CompileError { log, .. } => format!("compiling the kernels: {}", log.to_string_lossy()),
        other => format!("compiling the kernels: {other}"),
    })
}

impl Driver for Cuda {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn allocate(&self, words: usize) -> Result<u64, String> {
        self.bind()?;
        let (stream, bytes) = (self.stream.cu_stream(), 4 * words);
        // SAFETY: the stream is open; what is allocated is zeroed in its order, before anyone knows the address.
        unsafe {
            let address = match self.stream.context().has_async_alloc() {
                true => text(result::malloc_async(stream, bytes))?,
                false => text(result::malloc_sync(bytes))?,
            };
            text(result::memset_d8_async(address, 0, bytes, stream))?;
            Ok(address)
        }
    }

    fn free(&self, address: u64, _: usize) {
        // A card that has failed frees nothing more, and the failure has been told: nothing to do about it here.
        let _ = self.bind();
        // SAFETY: allocated above, freed once, after all orders given before.
        let _ = unsafe {
            match self.stream.context().has_async_alloc() {
                true => result::free_async(address, self.stream.cu_stream()),
                false => self.stream.synchronize().and_then(|()| result::free_sync(address)),
            }
        };
    }

    fn write(&self, to: u64, words: &[u32]) -> Result<(), String> {
        self.bind()?;
        // SAFETY: `View` has checked that so many words lie there. From memory that is not pinned the driver has taken a copy
        // when it returns.
        unsafe { text(result::memcpy_htod_async(to, words, self.stream.cu_stream())) }
    }

    fn read(&self, from: u64, words: &mut [u32]) -> Result<(), String> {
        self.bind()?;
        // SAFETY: `View` has checked that so many words lie there; waited for before they are used.
        unsafe { text(result::memcpy_dtoh_async(words, from, self.stream.cu_stream()))? };
        text(self.stream.synchronize())
    }

    fn launch(&self, kernel: Kernel, launch: Launch) -> Result<(), String> {
        let blocks = (launch.elements as u32).div_ceil(BLOCK).clamp(1, MOST_BLOCKS);
        let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 };
        let mut order = self.stream.launch_builder(&self.kernels[kernel as usize]);
        order.arg(&launch);
        // SAFETY: every kernel takes one `Launch`, and whoever launches gives addresses of views that hold what the kernel says
        // it touches.
        unsafe { text(order.launch(config))? };
        Ok(())
    }

    fn multiply(&self, product: &Product) -> Result<(), String> {
        self.bind()?;
        let Product { m, n, k, left, right, out, out_stride, factor, adds } = *product;
        // cuBLAS counts by columns: rows of ours are its columns, so it is asked for rightᵀ · leftᵀ.
        let operation = |operand: &Operand| match operand.transposed {
            false => cublasOperation_t::CUBLAS_OP_N,
            true => cublasOperation_t::CUBLAS_OP_T,
        };
        let size = |n: usize| c_int::try_from(n).map_err(|_| format!("{n} is more than cuBLAS counts"));
        let kept = if adds { 1.0f32 } else { 0.0 };
        // SAFETY: `Device::multiply` has checked the sizes against the views; factors live until the call returns.
        unsafe {
            text(cublas::result::sgemm(
                *self.blas.handle(),
                operation(&right),
                operation(&left),
                size(n)?,
                size(m)?,
                size(k)?,
                &factor,
                right.values.address() as *const f32,
                size(right.stride)?,
                left.values.address() as *const f32,
                size(left.stride)?,
                &kept,
                out.address() as *mut f32,
                size(out_stride)?,
            ))
        }
    }
}
