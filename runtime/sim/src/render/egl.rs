//! OpenGL without a display through EGL: a card where there is one, else Mesa's software (llvmpipe).

use std::ffi::{CStr, c_char, c_void};

use super::library::{Library, as_function};

type Handle = *mut c_void;
type Enum = u32;
type Bool = u32;

const FALSE: Bool = 0;
const NONE: i32 = 0x3038;
const EXTENSIONS: i32 = 0x3055;
const OPENGL_API: Enum = 0x30A2;
const PLATFORM_DEVICE: Enum = 0x313F;
const PLATFORM_SURFACELESS: Enum = 0x31DD;
/// A mark of the device that computes on the processor.
const SOFTWARE_DEVICE: &str = "EGL_MESA_device_software";
const MOST_DEVICES: usize = 16;

/// Pairs of attribute and value: 8 bits a colour, depth, stencil (MuJoCo's reflections), off-screen, desktop OpenGL.
const CONFIG: [i32; 19] = [
    0x3024, 8, // red
    0x3023, 8, // green
    0x3022, 8, // blue
    0x3021, 8, // alpha
    0x3025, 24, // depth
    0x3026, 8, // stencil
    0x303F, 0x308E, // colour buffer: RGB
    0x3033, 0x0001, // surface: pbuffer
    0x3040, 0x0008, // renderable: OpenGL
    NONE,
];

type GetProcAddress = unsafe extern "C" fn(*const c_char) -> Handle;
type GetError = unsafe extern "C" fn() -> i32;
type Initialize = unsafe extern "C" fn(Handle, *mut i32, *mut i32) -> Bool;
type ChooseConfig = unsafe extern "C" fn(Handle, *const i32, *mut Handle, i32, *mut i32) -> Bool;
type BindApi = unsafe extern "C" fn(Enum) -> Bool;
type CreateContext = unsafe extern "C" fn(Handle, Handle, Handle, *const i32) -> Handle;
type DestroyContext = unsafe extern "C" fn(Handle, Handle) -> Bool;
type MakeCurrent = unsafe extern "C" fn(Handle, Handle, Handle, Handle) -> Bool;
type GetDisplay = unsafe extern "C" fn(Handle) -> Handle;
type QueryDevices = unsafe extern "C" fn(i32, *mut Handle, *mut i32) -> Bool;
type QueryDeviceString = unsafe extern "C" fn(Handle, i32) -> *const c_char;
type GetPlatformDisplay = unsafe extern "C" fn(Enum, Handle, *const i32) -> Handle;

/// EGL of this process: the library, a display that works and a configuration of it.
#[derive(Debug)]
pub(super) struct Egl {
    get_proc_address: GetProcAddress,
    get_error: GetError,
    bind_api: BindApi,
    create_context: CreateContext,
    destroy_context: DestroyContext,
    make_current: MakeCurrent,
    display: Handle,
    config: Handle,
}

// SAFETY: EGL's displays and configurations are handles that any thread may use; the display is never terminated.
unsafe impl Send for Egl {}
// SAFETY: as above.
unsafe impl Sync for Egl {}

impl Egl {
    /// Loads EGL and takes the first display that can draw, cards before software.
    pub fn open(library: &[String]) -> Result<Self, String> {
        let library = Library::open(library)?;
        let egl = Self::of(&library);
        if egl.is_err() {
            // SAFETY: of a platform that cannot draw nothing is left over.
            unsafe { library.close() };
        }
        egl
    }

    fn of(library: &Library) -> Result<Self, String> {
        // SAFETY: the types are those of EGL 1.4's headers.
        unsafe {
            let initialize: Initialize = library.function(c"eglInitialize")?;
            let choose_config: ChooseConfig = library.function(c"eglChooseConfig")?;
            let mut egl = Self {
                get_proc_address: library.function(c"eglGetProcAddress")?,
                get_error: library.function(c"eglGetError")?,
                bind_api: library.function(c"eglBindAPI")?,
                create_context: library.function(c"eglCreateContext")?,
                destroy_context: library.function(c"eglDestroyContext")?,
                make_current: library.function(c"eglMakeCurrent")?,
                display: std::ptr::null_mut(),
                config: std::ptr::null_mut(),
            };
            let displays = egl.displays(library.function(c"eglGetDisplay")?);
            let mut failures = Vec::new();
            for display in displays {
                match egl.try_display(display, initialize, choose_config) {
                    Ok(()) => return Ok(egl),
                    Err(failure) => failures.push(failure),
                }
            }
            failures.dedup();
            Err(match failures.len() {
                0 => "EGL offers no device: is libegl-mesa0 (or a card's driver) installed?".into(),
                _ => format!("no display of EGL can draw: {}", failures.join("; ")),
            })
        }
    }

    /// Whatever could be a display, the best first.
    ///
    /// # Safety
    /// The functions of `self` and `get_display` are EGL's.
    unsafe fn displays(&self, get_display: GetDisplay) -> Vec<Handle> {
        let mut displays = Vec::new();
        // SAFETY: the types are those of the extensions' headers, all arguments are allowed by them.
        unsafe {
            let platform_display: Option<GetPlatformDisplay> = as_function(self.proc(c"eglGetPlatformDisplayEXT"));
            if let Some(platform_display) = platform_display {
                for device in self.devices() {
                    displays.push(platform_display(PLATFORM_DEVICE, device, std::ptr::null()));
                }
                displays.push(platform_display(PLATFORM_SURFACELESS, std::ptr::null_mut(), std::ptr::null()));
            }
            displays.push(get_display(std::ptr::null_mut()));
        }
        displays.retain(|display| !display.is_null());
        displays
    }

    /// EGL's devices, those that compute on the processor last.
    ///
    /// # Safety
    /// The functions of `self` are EGL's.
    unsafe fn devices(&self) -> Vec<Handle> {
        // SAFETY: the types are those of the extensions' headers.
        let (query, text) = unsafe {
            let query: Option<QueryDevices> = as_function(self.proc(c"eglQueryDevicesEXT"));
            let text: Option<QueryDeviceString> = as_function(self.proc(c"eglQueryDeviceStringEXT"));
            (query, text)
        };
        let Some(query) = query else { return Vec::new() };
        let mut devices = [std::ptr::null_mut(); MOST_DEVICES];
        let mut found = 0;
        // SAFETY: there is room for as many devices as are asked for.
        if unsafe { query(MOST_DEVICES as i32, devices.as_mut_ptr(), &raw mut found) } == FALSE {
            return Vec::new();
        }
        let mut devices = devices[..(found.max(0) as usize).min(MOST_DEVICES)].to_vec();
        devices.sort_by_key(|&device| {
            let Some(text) = text else { return false };
            // SAFETY: the device is one that was just given; the answer is null or a text that stays.
            unsafe {
                let extensions = text(device, EXTENSIONS);
                !extensions.is_null() && CStr::from_ptr(extensions).to_string_lossy().contains(SOFTWARE_DEVICE)
            }
        });
        devices
    }

    /// Takes a display, if a context can be made on it.
    ///
    /// # Safety
    /// The functions are EGL's and the display was given by it.
    unsafe fn try_display(
        &mut self,
        display: Handle,
        initialize: Initialize,
        choose_config: ChooseConfig,
    ) -> Result<(), String> {
        let (mut config, mut found) = (std::ptr::null_mut(), 0);
        // SAFETY: the pointers lead to variables of the right types; the list of attributes ends with NONE.
        unsafe {
            if initialize(display, std::ptr::null_mut(), std::ptr::null_mut()) == FALSE {
                return Err(self.failure("eglInitialize"));
            }
            let chosen = choose_config(display, CONFIG.as_ptr(), &raw mut config, 1, &raw mut found);
            if chosen == FALSE || found < 1 {
                return Err(format!("{}, {found} configurations with OpenGL", self.failure("eglChooseConfig")));
            }
        }
        (self.display, self.config) = (display, config);
        let context = self.create()?;
        let usable = self.make_current(context);
        self.release();
        self.destroy(context);
        usable
    }

    /// The address of a function of OpenGL or of an extension; null where there is none.
    pub fn proc(&self, name: &CStr) -> Handle {
        // SAFETY: the name ends with a zero.
        unsafe { (self.get_proc_address)(name.as_ptr()) }
    }

    /// A new context, current nowhere.
    pub fn create(&self) -> Result<Handle, String> {
        // SAFETY: display and configuration belong together; no context is shared, no attributes are given.
        let context = unsafe {
            if (self.bind_api)(OPENGL_API) == FALSE {
                return Err(self.failure("eglBindAPI"));
            }
            (self.create_context)(self.display, self.config, std::ptr::null_mut(), std::ptr::null())
        };
        if context.is_null() { Err(self.failure("eglCreateContext")) } else { Ok(context) }
    }

    /// Makes a context of [`create`](Self::create) current in this thread, without a surface.
    pub fn make_current(&self, context: Handle) -> Result<(), String> {
        let none = std::ptr::null_mut();
        // SAFETY: the context is one of this display.
        match unsafe { (self.make_current)(self.display, none, none, context) } {
            FALSE => Err(self.failure("eglMakeCurrent")),
            _ => Ok(()),
        }
    }

    /// Leaves this thread without a context.
    pub fn release(&self) {
        let none = std::ptr::null_mut();
        // SAFETY: nothing is made current; it cannot fail where a context is.
        unsafe { (self.make_current)(self.display, none, none, none) };
    }

    /// Ends a context, which is current nowhere.
    pub fn destroy(&self, context: Handle) {
        // SAFETY: the context is one of this display.
        unsafe { (self.destroy_context)(self.display, context) };
    }

    fn failure(&self, call: &str) -> String {
        // SAFETY: takes nothing.
        format!("{call} failed (EGL error {:#06x})", unsafe { (self.get_error)() })
    }
}
