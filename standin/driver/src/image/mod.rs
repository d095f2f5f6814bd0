//! Kernel images: what a module or library says about its kernels.
//!
//! Four forms are read: a fat binary (`fatbin`), a cubin (`cubin`), PTX
//! (`standin_kernels::ptx`) and the stand-in's own text (`text`). A program may
//! register hundreds of fat binaries at start, so an image is only looked into
//! when the first symbol is asked for. Of machine code only names, parameter
//! layouts and the sizes of globals are taken; PTX can be executed.

mod cubin;
mod fatbin;
mod text;

use crate::abi::{Code, INVALID_IMAGE, INVALID_PTX, NO_BINARY_FOR_GPU, Outcome};
use standin_kernels::ptx;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

/// (offset, size) in bytes of each parameter.
pub type Layout = Vec<(u32, u32)>;

/// What is known of an image's contents.
#[derive(Default)]
pub struct Symbols {
    pub kernels: BTreeMap<String, Layout>,
    /// The code of those kernels that came as text.
    pub ptx: BTreeMap<String, ptx::Entry>,
    /// Bytes of each global variable.
    pub globals: BTreeMap<String, u64>,
}

enum Source {
    /// A fat binary in the program's own image, which outlives the module.
    Registered(fatbin::Place),
    /// Our copy: the program may free its own after loading.
    Owned(Vec<u8>),
}

pub struct Image {
    source: Source,
    capability: (i32, i32),
    symbols: OnceLock<Result<Symbols, Code>>,
}

impl Image {
    /// Takes hold of an image of unknown form.
    ///
    /// # Safety
    /// `data` points to a complete image of one of the four forms. One that
    /// starts with the fat-binary wrapper must stay valid until it is unloaded.
    pub unsafe fn open(data: *const u8, capability: (i32, i32)) -> Outcome<Image> {
        // SAFETY: every form is at least four bytes long; the rest is the
        // caller's promise, passed on to each reader.
        let source = unsafe {
            match data.cast::<u32>().read_unaligned() {
                fatbin::WRAPPER_MAGIC => {
                    Source::Registered(fatbin::Place::of_wrapper(data).ok_or(INVALID_IMAGE)?)
                }
                fatbin::DATA_MAGIC => Source::Owned(fatbin::Place::of_data(data).bytes().to_vec()),
                cubin::ELF_MAGIC => {
                    let len = cubin::length(data).ok_or(INVALID_IMAGE)?;
                    Source::Owned(std::slice::from_raw_parts(data, len).to_vec())
                }
                _ => {
                    let copied = text::copy(data.cast()).or_else(|| copy_ptx(data.cast()));
                    Source::Owned(copied.ok_or(NO_BINARY_FOR_GPU)?)
                }
            }
        };
        Ok(Image { source, capability, symbols: OnceLock::new() })
    }

    /// The contents, read on the first call.
    pub fn symbols(&self) -> Outcome<&Symbols> {
        let symbols = self.symbols.get_or_init(|| match &self.source {
            // SAFETY: by the contract of `open` the program's image is still there.
            Source::Registered(place) => fatbin::read(unsafe { place.bytes() }, self.capability),
            Source::Owned(bytes) => read_bytes(bytes, self.capability),
        });
        symbols.as_ref().map_err(|code| *code)
    }
}

/// Copies NUL-terminated PTX, if it is that.
///
/// # Safety
/// `data` points to a complete image; one that begins with a character of
/// PTX's first lines (a comment, a directive, white space) is text.
unsafe fn copy_ptx(data: *const c_char) -> Option<Vec<u8>> {
    // SAFETY: an image has a first byte; if that is text, there is a NUL.
    let bytes = unsafe {
        if !b"/. \t\r\n".contains(&(*data as u8)) {
            return None;
        }
        CStr::from_ptr(data).to_bytes()
    };
    let text = std::str::from_utf8(bytes).ok()?;
    ptx::is_ptx(text).then(|| bytes.to_vec())
}

fn read_ptx(bytes: &[u8]) -> Outcome<Symbols> {
    let text = std::str::from_utf8(bytes).map_err(|_| INVALID_PTX)?;
    let module = ptx::Module::read(text).map_err(|fault| {
        eprintln!("standin: this PTX cannot be read: {fault}");
        INVALID_PTX
    })?;
    let layouts = module.entries.iter().map(|(name, entry)| (name.clone(), entry.layout.clone()));
    Ok(Symbols { kernels: layouts.collect(), ptx: module.entries, ..Symbols::default() })
}

/// Any bytes, read as the form that they begin as.
pub fn read_bytes(bytes: &[u8], capability: (i32, i32)) -> Outcome<Symbols> {
    match bytes.first_chunk().map(|m| u32::from_le_bytes(*m)) {
        Some(fatbin::DATA_MAGIC) => fatbin::read(bytes, capability),
        Some(cubin::ELF_MAGIC) => {
            let mut symbols = Symbols::default();
            cubin::read(bytes, &mut symbols).ok_or(INVALID_IMAGE)?;
            Ok(symbols)
        }
        _ => text::read(bytes).map_or_else(|| read_ptx(bytes), Ok),
    }
}

/// Little-endian fields at byte offsets; `None` past the end.
trait Fields {
    fn u16_at(&self, at: usize) -> Option<u16>;
    fn u32_at(&self, at: usize) -> Option<u32>;
    fn u64_at(&self, at: usize) -> Option<u64>;
}

impl Fields for [u8] {
    fn u16_at(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(*self.get(at..)?.first_chunk()?))
    }
    fn u32_at(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(*self.get(at..)?.first_chunk()?))
    }
    fn u64_at(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(*self.get(at..)?.first_chunk()?))
    }
}
