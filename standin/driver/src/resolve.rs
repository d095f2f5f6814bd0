//! `cuGetProcAddress`: from a name and a version to an entry point.
//!
//! Answers exactly the address of the exported symbol. Of a name's versions
//! the newest that the caller's version knows is chosen; with the per-thread
//! flag, its `_ptds`/`_ptsz` form if there is one. Suffixed names are not found.

use crate::abi::{INVALID_VALUE, NOT_FOUND, Outcome};
use crate::edge::{Out, Text};
use crate::exports::{EXPORTS, Export};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::LazyLock;

const PER_THREAD_DEFAULT_STREAM: u64 = 2;
const QUERY_SUCCESS: i32 = 0;
const QUERY_NOT_FOUND: i32 = 1;
const QUERY_TOO_OLD: i32 = 2;

type Pointer = *mut c_void;

/// Unversioned name → its exports, oldest first.
static NAMES: LazyLock<HashMap<&'static str, Vec<&'static Export>>> = LazyLock::new(|| {
    let mut names: HashMap<_, Vec<&'static Export>> = HashMap::new();
    for export in EXPORTS {
        names.entry(base_name(export.name)).or_default().push(export);
    }
    names.values_mut().for_each(|list| list.sort_by_key(|e| e.since));
    names
});

/// `cuMemAlloc` of `cuMemAlloc_v2`.
fn base_name(name: &str) -> &str {
    match name.rsplit_once("_v") {
        Some((base, digits))
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            base
        }
        _ => name,
    }
}

fn find(name: &str, version: i32, flags: u64) -> Result<Pointer, i32> {
    let list = NAMES.get(name).ok_or(QUERY_NOT_FOUND)?;
    let export = list.iter().rev().find(|e| e.since <= version).ok_or(QUERY_TOO_OLD)?;
    Ok(export.address(flags & PER_THREAD_DEFAULT_STREAM != 0).cast_mut())
}

pub fn get_proc_address(name: Text, out: Out<Pointer>, version: i32, flags: u64) -> Outcome {
    let pointer = find(&name.get()?, version, flags).map_err(|_| NOT_FOUND)?;
    out.set(pointer)
}

pub fn get_proc_address_v2(
    name: Text,
    out: Out<Pointer>,
    version: i32,
    flags: u64,
    status: Out<i32>,
) -> Outcome {
    if out.is_null() {
        return Err(INVALID_VALUE);
    }
    let (pointer, answer) = match find(&name.get()?, version, flags) {
        Ok(pointer) => (pointer, QUERY_SUCCESS),
        Err(answer) => (std::ptr::null_mut(), answer),
    };
    status.set_if_asked(answer);
    out.set(pointer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_per_thread_forms() {
        let at = |name: &str| EXPORTS.iter().find(|e| e.name == name).unwrap();
        let (v2, copy) = (at("cuMemAlloc_v2"), at("cuMemcpyHtoDAsync_v2"));
        assert_eq!(find("cuMemAlloc", 13000, 0), Ok(v2.address(false).cast_mut()));
        assert_eq!(find("cuMemAlloc", 2000, 0), Err(QUERY_TOO_OLD));
        assert_eq!(find("cuMemAlloc_v2", 13000, 0), Err(QUERY_NOT_FOUND));
        assert_ne!(copy.address(false), copy.address(true));
        assert_eq!(find("cuMemcpyHtoDAsync", 13000, 2), Ok(copy.address(true).cast_mut()));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = EXPORTS.iter().map(|e| e.name).collect();
        names.sort_unstable();
        names.windows(2).for_each(|w| assert_ne!(w[0], w[1]));
    }
}
