//! Arguments as C passes them, converted once.
//!
//! Each type is a bare pointer with the contract of its role: the entry point
//! that takes it promises, as the driver API does, that it is null or points
//! to memory of that type, valid for the length of the call. Everything
//! behind the edge is safe code.

use crate::abi::{INVALID_VALUE, Outcome};
use std::ffi::{CStr, c_char};

/// A pointer to a result.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> std::marker::Copy for Out<T> {}

impl<T: Copy> Out<T> {
    /// Stores a result that is required.
    pub fn set(self, value: T) -> Outcome {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null, so valid by the contract of this module.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Stores a result the caller may not want.
    pub fn set_if_asked(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: as in `set`.
            unsafe { self.0.write_unaligned(value) };
        }
    }

    /// Reads a value that will be replaced.
    pub fn get(self) -> Outcome<T> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: as in `set`.
        Ok(unsafe { self.0.read_unaligned() })
    }

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Stores as many of `values` as there is room for.
    pub fn set_slice(self, values: &[T], room: usize) {
        for (i, value) in values.iter().take(room).enumerate() {
            // SAFETY: the caller's array has room for `room` elements.
            unsafe { self.0.add(i).write_unaligned(*value) };
        }
    }

    /// The same place, seen as another type.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }
}

impl Out<c_char> {
    /// Stores a NUL-terminated string, cut to `room` bytes.
    pub fn set_text(self, text: &str, room: usize) -> Outcome {
        if self.0.is_null() || room == 0 {
            return Err(INVALID_VALUE);
        }
        let bytes: Vec<c_char> =
            text.bytes().take(room - 1).chain([0]).map(|b| b as c_char).collect();
        self.set_slice(&bytes, room);
        Ok(())
    }
}

/// A pointer to an argument, or to an array of them.
#[repr(transparent)]
pub struct In<T>(*const T);

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> std::marker::Copy for In<T> {}

impl<T: Copy> In<T> {
    pub fn get(self) -> Outcome<T> {
        self.at(0)
    }

    pub fn at(self, index: usize) -> Outcome<T> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null, so valid by the contract of this module; the
        // caller vouches for the element count it passed.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }

    /// The first `count` elements.
    pub fn list(self, count: usize) -> Outcome<Vec<T>> {
        (0..count).map(|i| self.at(i)).collect()
    }

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// An argument that came inside a structure, under the same contract.
    pub fn from_address(address: *const T) -> In<T> {
        In(address)
    }
}

/// A NUL-terminated string.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Text(*const c_char);

impl Text {
    pub fn get(self) -> Outcome<String> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null, so a NUL-terminated string by the contract.
        Ok(unsafe { CStr::from_ptr(self.0) }.to_string_lossy().into_owned())
    }
}
