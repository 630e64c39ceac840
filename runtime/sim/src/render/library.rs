//! Libraries that are looked for at run time, so that programs start where there are none.

use std::ffi::{CStr, CString, c_void};

/// A shared library of this process. It stays loaded, because what it gave out may be in use anywhere, unless it is
/// closed.
#[derive(Debug)]
pub(super) struct Library {
    handle: *mut c_void,
    name: String,
}

// SAFETY: a handle of the dynamic linker may be used in any thread.
unsafe impl Send for Library {}
// SAFETY: as above; looking symbols up changes nothing.
unsafe impl Sync for Library {}

impl Library {
    /// The first of these libraries that can be loaded; its symbols can be found by MuJoCo too.
    pub fn open(names: &[String]) -> Result<Self, String> {
        let mut failures = Vec::new();
        for name in names {
            let Ok(text) = CString::new(name.as_str()) else {
                failures.push(format!("\"{}\" is no name of a library", name.replace('\0', "\\0")));
                continue;
            };
            // SAFETY: the name ends with a zero. The constructors of a GL library are trusted as those of any library
            // that a program is linked with.
            let handle = unsafe { libc::dlopen(text.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
            if !handle.is_null() {
                return Ok(Self { handle, name: name.clone() });
            }
            failures.push(last_error());
        }
        Err(failures.join("; "))
    }

    /// Unloads a library that turned out to be of no use, so that MuJoCo does not take its functions for ours.
    ///
    /// # Safety
    /// Nothing that it gave out is used afterwards.
    pub unsafe fn close(self) {
        // SAFETY: the handle is open, and is not used again.
        unsafe { libc::dlclose(self.handle) };
    }

    /// The function of this name.
    ///
    /// # Safety
    /// `F` is the type of a pointer to that function, `unsafe extern "C" fn(…)`.
    pub unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F, String> {
        // SAFETY: the handle is open, the name ends with a zero.
        let symbol = unsafe { libc::dlsym(self.handle, name.to_bytes_with_nul().as_ptr().cast()) };
        // SAFETY: F is a pointer to that function, as the caller promises.
        unsafe { as_function(symbol) }.ok_or_else(|| format!("{} has no {}", self.name, name.to_string_lossy()))
    }
}

/// An address as a function; `None` for a null pointer.
///
/// # Safety
/// `F` is the type of a pointer to the function at that address.
pub(super) unsafe fn as_function<F: Copy>(address: *mut c_void) -> Option<F> {
    assert_eq!(size_of::<F>(), size_of::<*mut c_void>(), "F is a pointer to a function");
    // SAFETY: the sizes are equal and the caller promises the type.
    (!address.is_null()).then(|| unsafe { std::mem::transmute_copy(&address) })
}

fn last_error() -> String {
    // SAFETY: dlerror gives a text that stays until this thread's next call of the dynamic linker, or null.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() { "unknown".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_are_not_there_are_named_one_by_one() {
        let names = ["libnowhere-a.so".to_string(), "libnowhere-b.so".to_string()];
        let message = Library::open(&names).unwrap_err();
        assert!(message.contains("libnowhere-a.so") && message.contains("libnowhere-b.so"), "{message}");
    }

    #[test]
    fn a_function_is_found_by_its_name_or_named_as_missing() {
        let library = Library::open(&["libnowhere.so".into(), "libm.so.6".into()]).unwrap();
        // SAFETY: that is the type of cosine.
        let cosine = unsafe { library.function::<unsafe extern "C" fn(f64) -> f64>(c"cos") }.unwrap();
        // SAFETY: cosine takes any number.
        assert_eq!(unsafe { cosine(0.0) }, 1.0);
        // SAFETY: nothing is called.
        let missing = unsafe { library.function::<unsafe extern "C" fn()>(c"no_such_function") }.unwrap_err();
        assert_eq!(missing, "libm.so.6 has no no_such_function");
    }
}
