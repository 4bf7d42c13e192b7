//! Where this library itself lies on disk: a profile beside it belongs to this copy alone.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What `dladdr` fills in.
#[repr(C)]
struct SymbolInfo {
    file: *const c_char,
    base: *mut c_void,
    name: *const c_char,
    address: *mut c_void,
}

unsafe extern "C" {
    fn dladdr(address: *const c_void, info: *mut SymbolInfo) -> c_int;
}

/// The path of `name` in the folder of the file that holds this code.
pub(crate) fn beside(name: &str) -> Option<PathBuf> {
    let mut info = SymbolInfo {
        file: std::ptr::null(),
        base: std::ptr::null_mut(),
        name: std::ptr::null(),
        address: std::ptr::null_mut(),
    };
    // SAFETY: the address is that of a function of this file and `info` is a valid struct of the documented shape.
    let found = unsafe { dladdr(beside as *const c_void, &raw mut info) };
    if found == 0 || info.file.is_null() {
        return None;
    }
    // SAFETY: on success `file` is a C string that lives as long as the library is loaded.
    let file = unsafe { CStr::from_ptr(info.file) };
    Some(Path::new(OsStr::from_bytes(file.to_bytes())).parent()?.join(name))
}
