//! OpenGL contexts without a window, from whatever this machine has.
//!
//! The platform library is loaded once a process: MuJoCo looks its functions up once, too, so two kinds of context in
//! one process would get each other's. `TENON_GL` asks for one kind, the other variables name its library.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use super::egl::Egl;
use super::library::as_function;
use super::osmesa::{OsMesa, OsMesaContext};
use crate::error::SimError;

/// Which platform to use: `egl` or `osmesa`; without it the first that works, in this order.
pub const PLATFORM_VARIABLE: &str = "TENON_GL";
/// Another library than libEGL.so.1.
pub const EGL_VARIABLE: &str = "TENON_EGL_LIBRARY";
/// Another library than libOSMesa.so.8 (or .6).
pub const OSMESA_VARIABLE: &str = "TENON_OSMESA_LIBRARY";

const GL_RENDERER: u32 = 0x1F01;
const GL_VERSION: u32 = 0x1F02;
const GL_EXTENSIONS: u32 = 0x1F03;
const GL_MAX_RENDERBUFFER_SIZE: u32 = 0x84E8;
/// What MuJoCo cannot do without; it ends the program where one is missing, so it is looked for before.
const NEEDED_EXTENSIONS: [&str; 2] = ["GL_ARB_framebuffer_object", "GL_ARB_vertex_buffer_object"];

#[derive(Debug)]
enum Platform {
    Egl(Egl),
    OsMesa(OsMesa),
}

/// The platform of this process, or what was tried in vain.
fn platform() -> Result<&'static Platform, SimError> {
    static CHOSEN: OnceLock<Result<Platform, String>> = OnceLock::new();
    CHOSEN.get_or_init(choose).as_ref().map_err(|tried| SimError::NoGl { tried: tried.clone() })
}

fn choose() -> Result<Platform, String> {
    let egl = || Egl::open(&names(EGL_VARIABLE, &["libEGL.so.1"])).map(Platform::Egl);
    let osmesa = || OsMesa::open(&names(OSMESA_VARIABLE, &["libOSMesa.so.8", "libOSMesa.so.6"])).map(Platform::OsMesa);
    match std::env::var(PLATFORM_VARIABLE).as_deref() {
        Ok("egl") => egl(),
        Ok("osmesa") => osmesa(),
        Ok(other) if !other.is_empty() => {
            Err(format!("{PLATFORM_VARIABLE}={other}: say egl or osmesa, or leave it out"))
        }
        _ => egl().or_else(|by_egl| osmesa().map_err(|by_osmesa| format!("{by_egl}; {by_osmesa}"))),
    }
}

fn names(variable: &str, usual: &[&str]) -> Vec<String> {
    match std::env::var(variable) {
        Ok(name) if !name.is_empty() => vec![name],
        _ => usual.iter().map(|&name| name.to_owned()).collect(),
    }
}

#[derive(Debug)]
enum Raw {
    Egl(*mut c_void),
    OsMesa(OsMesaContext),
}

/// One OpenGL context. It is current only while something draws, so it may move from thread to thread.
#[derive(Debug)]
pub(super) struct GlContext {
    platform: &'static Platform,
    raw: Raw,
    name: String,
}

// SAFETY: a context may be made current in any thread, in one at a time; `&mut` sees to that.
unsafe impl Send for GlContext {}

impl GlContext {
    /// A context in which MuJoCo can draw pictures of this size.
    pub fn new(width: u32, height: u32) -> Result<Self, SimError> {
        let platform = platform()?;
        let raw = match platform {
            Platform::Egl(egl) => egl.create().map(Raw::Egl),
            Platform::OsMesa(osmesa) => osmesa.create().map(Raw::OsMesa),
        }
        .map_err(|message| SimError::Gl { name: kind(platform).into(), message })?;
        let mut context = Self { platform, raw, name: kind(platform).into() };
        context.enter()?;
        let checked = check(platform, width, height);
        context.leave();
        let renderer = checked.map_err(|message| SimError::Gl { name: context.name.clone(), message })?;
        context.name = format!("{}, {renderer}", context.name);
        Ok(context)
    }

    /// Platform and renderer, e.g. `EGL, llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes it current in this thread; [`leave`](Self::leave) has to follow in the same thread.
    pub fn enter(&mut self) -> Result<(), SimError> {
        match (self.platform, &mut self.raw) {
            (Platform::Egl(egl), Raw::Egl(handle)) => egl.make_current(*handle),
            (Platform::OsMesa(osmesa), Raw::OsMesa(context)) => osmesa.make_current(context),
            _ => Err("a context of another platform".into()),
        }
        .map_err(|message| SimError::Gl { name: self.name.clone(), message })
    }

    /// Leaves this thread without a context.
    pub fn leave(&self) {
        match self.platform {
            Platform::Egl(egl) => egl.release(),
            Platform::OsMesa(osmesa) => osmesa.release(),
        }
    }
}

impl Drop for GlContext {
    fn drop(&mut self) {
        match (self.platform, &self.raw) {
            (Platform::Egl(egl), Raw::Egl(handle)) => egl.destroy(*handle),
            (Platform::OsMesa(osmesa), Raw::OsMesa(context)) => osmesa.destroy(context),
            _ => {}
        }
    }
}

fn kind(platform: &Platform) -> &'static str {
    match platform {
        Platform::Egl(_) => "EGL",
        Platform::OsMesa(_) => "OSMesa",
    }
}

/// Looks whether the context that is current suffices; gives the renderer's name.
fn check(platform: &Platform, width: u32, height: u32) -> Result<String, String> {
    type GetString = unsafe extern "C" fn(u32) -> *const c_char;
    type GetIntegers = unsafe extern "C" fn(u32, *mut i32);
    let proc = |name: &CStr| match platform {
        Platform::Egl(egl) => egl.proc(name),
        Platform::OsMesa(osmesa) => osmesa.proc(name),
    };
    // SAFETY: the types are those of OpenGL's headers.
    let (get_string, get_integers): (Option<GetString>, Option<GetIntegers>) =
        unsafe { (as_function(proc(c"glGetString")), as_function(proc(c"glGetIntegerv"))) };
    let (Some(get_string), Some(get_integers)) = (get_string, get_integers) else {
        return Err("it has no glGetString".into());
    };
    let text = |name| {
        // SAFETY: a context is current; the answer is null or a text that stays.
        unsafe {
            let text = get_string(name);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    };
    let version = text(GL_VERSION).ok_or("it gives no version")?;
    let numbers: Vec<u32> =
        version.split(|c: char| !c.is_ascii_digit()).take(2).filter_map(|number| number.parse().ok()).collect();
    if numbers < vec![1, 5] {
        return Err(format!("its OpenGL is {version}, MuJoCo needs 1.5"));
    }
    let extensions = text(GL_EXTENSIONS).unwrap_or_default();
    for needed in NEEDED_EXTENSIONS {
        if !extensions.split(' ').any(|extension| extension == needed) {
            return Err(format!("its OpenGL ({version}) lacks {needed}"));
        }
    }
    let mut largest = 0;
    // SAFETY: this name asks for one number.
    unsafe { get_integers(GL_MAX_RENDERBUFFER_SIZE, &raw mut largest) };
    if i64::from(width.max(height)) > i64::from(largest) {
        return Err(format!("a picture of {width}×{height} pixels: at most {largest} on a side"));
    }
    Ok(text(GL_RENDERER).unwrap_or_else(|| "unknown".into()))
}
