//! The kernels on the processor, one element after the other: for checking, on any machine.

use super::{Driver, Kernel, Launch, Product};

/// The processor in the place of a card.
#[derive(Debug)]
pub(super) struct Emulated;

impl Driver for Emulated {
    fn name(&self) -> String {
        "emulated (the device's kernels on the processor, for checking)".into()
    }

    fn allocate(&self, words: usize) -> Result<u64, String> {
        let layout = layout(words)?;
        // SAFETY: the layout is not empty: `Memory` asks for nothing where there are no values.
        let address = unsafe { std::alloc::alloc_zeroed(layout) };
        if address.is_null() { Err("out of memory".into()) } else { Ok(address as u64) }
    }

    fn free(&self, address: u64, words: usize) {
        let layout = layout(words).expect("as it was allocated");
        // SAFETY: allocated above with this layout, and freed once, by the only owner.
        unsafe { std::alloc::dealloc(address as *mut u8, layout) };
    }

    fn write(&self, to: u64, words: &[u32]) -> Result<(), String> {
        // SAFETY: `View` has checked that so many words lie there; raw memory overlaps no slice.
        unsafe { std::ptr::copy_nonoverlapping(words.as_ptr(), to as *mut u32, words.len()) };
        Ok(())
    }

    fn read(&self, from: u64, words: &mut [u32]) -> Result<(), String> {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u32, words.as_mut_ptr(), words.len()) };
        Ok(())
    }

    fn launch(&self, kernel: Kernel, launch: Launch) -> Result<(), String> {
        // SAFETY: whoever launches gives addresses of views that hold what the kernel says it touches.
        unsafe { kernel.compiled()(launch) };
        Ok(())
    }

    fn multiply(&self, product: &Product) -> Result<(), String> {
        let Product { m, n, k, left, right, out, out_stride, factor, adds } = *product;
        let strides = |operand: &super::Operand| match operand.transposed {
            false => (1, operand.stride as isize),
            true => (operand.stride as isize, 1),
        };
        let ((left_column, left_row), (right_column, right_row)) = (strides(&left), strides(&right));
        // SAFETY: `Device::multiply` has checked the sizes against the views; `out` overlaps neither side.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                out.address() as *mut f32,
                1,
                out_stride as isize,
                adds,
                left.values.address() as *const f32,
                left_column,
                left_row,
                right.values.address() as *const f32,
                right_column,
                right_row,
                1.0,
                factor,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
        Ok(())
    }
}

fn layout(words: usize) -> Result<std::alloc::Layout, String> {
    std::alloc::Layout::array::<u32>(words).map_err(|e| e.to_string())
}
