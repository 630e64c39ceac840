//! OpenGL into memory through Mesa's OSMesa: no display, no card.

use std::ffi::{CStr, c_char, c_void};

use super::library::Library;

type Handle = *mut c_void;

const RGBA: u32 = 0x1908;
const UNSIGNED_BYTE: u32 = 0x1401;
const DEPTH_BITS: i32 = 24;
/// MuJoCo draws reflections with it.
const STENCIL_BITS: i32 = 8;

type GetProcAddress = unsafe extern "C" fn(*const c_char) -> Handle;
type CreateContext = unsafe extern "C" fn(u32, i32, i32, i32, Handle) -> Handle;
type DestroyContext = unsafe extern "C" fn(Handle);
type MakeCurrent = unsafe extern "C" fn(Handle, *mut c_void, u32, i32, i32) -> u8;

/// OSMesa of this process.
#[derive(Debug)]
pub(super) struct OsMesa {
    get_proc_address: GetProcAddress,
    create_context: CreateContext,
    destroy_context: DestroyContext,
    make_current: MakeCurrent,
}

/// A context with the window that OSMesa wants; pictures are drawn elsewhere, so it is small.
#[derive(Debug)]
pub(super) struct OsMesaContext {
    handle: Handle,
    window: Box<[u32; WINDOW * WINDOW]>,
}

const WINDOW: usize = 16;

impl OsMesa {
    /// Loads OSMesa and makes sure that a context can be made.
    pub fn open(library: &[String]) -> Result<Self, String> {
        let library = Library::open(library)?;
        // SAFETY: the types are those of osmesa.h.
        let osmesa = unsafe {
            Self {
                get_proc_address: library.function(c"OSMesaGetProcAddress")?,
                create_context: library.function(c"OSMesaCreateContextExt")?,
                destroy_context: library.function(c"OSMesaDestroyContext")?,
                make_current: library.function(c"OSMesaMakeCurrent")?,
            }
        };
        let mut context = osmesa.create()?;
        let usable = osmesa.make_current(&mut context);
        osmesa.release();
        osmesa.destroy(&context);
        usable.map(|()| osmesa)
    }

    /// The address of a function of OpenGL; null where there is none.
    pub fn proc(&self, name: &CStr) -> Handle {
        // SAFETY: the name ends with a zero.
        unsafe { (self.get_proc_address)(name.as_ptr()) }
    }

    /// A new context, current nowhere.
    pub fn create(&self) -> Result<OsMesaContext, String> {
        // SAFETY: no context is shared.
        let handle = unsafe { (self.create_context)(RGBA, DEPTH_BITS, STENCIL_BITS, 0, std::ptr::null_mut()) };
        if handle.is_null() {
            return Err("OSMesaCreateContextExt failed".into());
        }
        Ok(OsMesaContext { handle, window: Box::new([0; WINDOW * WINDOW]) })
    }

    /// Makes the context current in this thread.
    pub fn make_current(&self, context: &mut OsMesaContext) -> Result<(), String> {
        let window = context.window.as_mut_ptr().cast();
        let side = WINDOW as i32;
        // SAFETY: the window has four bytes for each of its pixels and lives as long as the context.
        match unsafe { (self.make_current)(context.handle, window, UNSIGNED_BYTE, side, side) } {
            0 => Err("OSMesaMakeCurrent failed".into()),
            _ => Ok(()),
        }
    }

    /// Leaves this thread without a context.
    pub fn release(&self) {
        // SAFETY: nothing is made current.
        unsafe { (self.make_current)(std::ptr::null_mut(), std::ptr::null_mut(), UNSIGNED_BYTE, 0, 0) };
    }

    /// Ends a context, which is current nowhere and is not used again.
    pub fn destroy(&self, context: &OsMesaContext) {
        // SAFETY: the handle is one that OSMesa gave.
        unsafe { (self.destroy_context)(context.handle) };
    }
}
