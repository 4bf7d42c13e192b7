//! How a value goes over the C border: into a pointer, a text buffer or a caller's array, each checked first.
//! NVML's protocol for arrays is kept: too small or null answers INSUFFICIENT_SIZE and the size that is needed.

use std::ffi::{CStr, c_char, c_uint};

pub(crate) use nvml_wrapper_sys::bindings::nvmlReturn_t as Code;

/// Done, or the code to answer.
pub(crate) type Outcome = Result<(), Code>;

pub(crate) const UNINITIALIZED: Code = 1;
pub(crate) const INVALID_ARGUMENT: Code = 2;
pub(crate) const NOT_SUPPORTED: Code = 3;
pub(crate) const NO_PERMISSION: Code = 4;
pub(crate) const NOT_FOUND: Code = 6;
pub(crate) const INSUFFICIENT_SIZE: Code = 7;
pub(crate) const DRIVER_NOT_LOADED: Code = 9;
pub(crate) const TIMEOUT: Code = 10;
pub(crate) const ARGUMENT_VERSION_MISMATCH: Code = 25;
pub(crate) const UNKNOWN: Code = 999;

/// Writes one value.
pub(crate) fn put<T>(to: *mut T, value: T) -> Outcome {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller of an NVML function promises room for one value of the documented type.
    unsafe { to.write(value) };
    Ok(())
}

/// Reads a struct that the caller filled in.
pub(crate) fn get<'a, T>(from: *mut T) -> Result<&'a mut T, Code> {
    // SAFETY: `as_mut` checks for null; the caller promises a valid struct that nobody else touches during the call.
    unsafe { from.as_mut() }.ok_or(INVALID_ARGUMENT)
}

/// Writes a C string.
pub(crate) fn put_text(to: *mut c_char, length: c_uint, text: &str) -> Outcome {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller promises `length` bytes at `to`, and text and its final zero are fewer.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), to, text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}

/// Fills a fixed array of C characters, cut to fit.
pub(crate) fn fixed_text<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (place, byte) in array.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *place = byte.cast_signed();
    }
    array
}

/// Reads a C string.
pub(crate) fn text<'a>(from: *const c_char) -> Result<&'a str, Code> {
    if from.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller promises a string that ends in zero.
    unsafe { CStr::from_ptr(from) }.to_str().map_err(|_| INVALID_ARGUMENT)
}

/// Writes a list into an array of `*count` places.
pub(crate) fn put_list<T: Copy>(to: *mut T, count: *mut c_uint, items: &[T]) -> Outcome {
    let count = get(count)?;
    let room = *count as usize;
    *count = c_uint::try_from(items.len()).map_err(|_| UNKNOWN)?;
    if items.is_empty() {
        return Ok(());
    }
    if to.is_null() || room < items.len() {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller promises `room` places at `to`, and the items are no more than that.
    unsafe { std::ptr::copy_nonoverlapping(items.as_ptr(), to, items.len()) };
    Ok(())
}

/// Versioned structs carry their size and version; a driver that does not know the pair says so.
pub(crate) fn check_version<T>(version: c_uint, number: c_uint) -> Outcome {
    let size = c_uint::try_from(size_of::<T>()).map_err(|_| UNKNOWN)?;
    if version == size | (number << 24) { Ok(()) } else { Err(ARGUMENT_VERSION_MISMATCH) }
}
