//! The stand-in's own image: text, one kernel a line (see `standin-abi`).

use super::Symbols;
use standin_abi::IMAGE_MAGIC;
use std::ffi::{CStr, c_char};

/// Copies a NUL-terminated image, if it is one.
///
/// # Safety
/// `data` points to readable bytes up to and including the first that differs
/// from [`IMAGE_MAGIC`]; if none differs, to a NUL-terminated string.
pub unsafe fn copy(data: *const c_char) -> Option<Vec<u8>> {
    for (i, expected) in IMAGE_MAGIC.bytes().enumerate() {
        // SAFETY: all bytes before this one matched, so this one is readable.
        if unsafe { *data.add(i) } as u8 != expected {
            return None;
        }
    }
    // SAFETY: the whole magic matched, so this is a NUL-terminated string.
    Some(unsafe { CStr::from_ptr(data) }.to_bytes().to_vec())
}

pub fn read(bytes: &[u8]) -> Option<Symbols> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut symbols = Symbols::default();
    for line in text.strip_prefix(IMAGE_MAGIC)?.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            None => continue,
            Some("kernel") => {}
            Some(_) => return None,
        }
        let name = words.next()?;
        let mut layout = Vec::new();
        let mut offset = 0u32;
        for size in words.next().unwrap_or("").split(',').filter(|s| !s.is_empty()) {
            let size: u32 = size.parse().ok()?;
            offset = offset.checked_next_multiple_of(size.clamp(1, 8).next_power_of_two())?;
            layout.push((offset, size));
            offset = offset.checked_add(size)?;
        }
        symbols.kernels.insert(name.to_string(), layout);
    }
    Some(symbols)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_aligned() {
        let image = format!("{IMAGE_MAGIC}kernel f 4,8,1,4\nkernel g\n");
        let symbols = read(image.as_bytes()).unwrap();
        assert_eq!(symbols.kernels["f"], [(0, 4), (8, 8), (16, 1), (20, 4)]);
        assert!(symbols.kernels["g"].is_empty());
    }
}
