//! Modules, libraries and their functions.
//!
//! A library is a module with kernels asked for by CUkernel; both are one
//! [`Module`] here. A kernel and a function are two handles for one
//! [`Function`]. Symbols are looked up on demand, and found functions are
//! kept for the module's life.

use crate::abi::{Handle, NOT_FOUND, Outcome};
use crate::image::{Image, Layout};
use standin_kernels::Kernel;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

pub struct Function {
    /// Mangled.
    pub name: String,
    /// The same, NUL-terminated, for `cuFuncGetName`.
    pub c_name: CString,
    pub layout: Layout,
    /// Bytes of the whole parameter buffer.
    pub param_bytes: u32,
    /// `None`: no implementation on the stand-in.
    pub kernel: Option<Box<dyn Kernel>>,
    /// CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES and
    /// …_PREFERRED_SHARED_MEMORY_CARVEOUT, as set.
    pub max_dynamic_shared: AtomicI32,
    pub carveout: AtomicI32,
    pub module: Handle,
    /// It has been launched, or loaded by name; until then loading is to come.
    pub loaded: AtomicBool,
}

impl Function {
    fn new(
        name: &str,
        layout: Layout,
        kernel: Option<Box<dyn Kernel>>,
        module: Handle,
    ) -> Function {
        Function {
            name: name.to_string(),
            c_name: CString::new(name).unwrap_or_default(),
            param_bytes: layout.iter().map(|(offset, size)| offset + size).max().unwrap_or(0),
            layout,
            kernel,
            max_dynamic_shared: AtomicI32::new(48 << 10),
            carveout: AtomicI32::new(-1),
            module,
            loaded: AtomicBool::new(false),
        }
    }

    /// Reads an attribute of `CUfunction_attribute`.
    pub fn attribute(&self, attribute: i32, capability: (i32, i32)) -> Option<i32> {
        Some(match attribute {
            0 => 1024,
            1..=3 => 0,
            4 => 32,
            5 | 6 => capability.0 * 10 + capability.1,
            7 => 0,
            8 => self.max_dynamic_shared.load(Ordering::Relaxed),
            9 => self.carveout.load(Ordering::Relaxed),
            10..=15 => 0,
            _ => return None,
        })
    }

    /// Sets an attribute; false if it cannot be set.
    pub fn set_attribute(&self, attribute: i32, value: i32) -> bool {
        match attribute {
            8 => self.max_dynamic_shared.store(value, Ordering::Relaxed),
            9 => self.carveout.store(value, Ordering::Relaxed),
            10..=15 => {}
            _ => return false,
        }
        true
    }
}

pub struct Module {
    pub image: Arc<Image>,
    /// Kernels that came as PTX run by their text, even where there is an
    /// implementation in Rust.
    pub as_text: bool,
    /// Name → (function, kernel handle, function handle).
    pub functions: HashMap<String, (Arc<Function>, Handle, Handle)>,
    /// Name → (device address, bytes), per device.
    pub globals: HashMap<(String, usize), (u64, u64)>,
}

impl Module {
    pub fn new(image: Image, as_text: bool) -> Module {
        let image = Arc::new(image);
        Module { image, as_text, functions: HashMap::new(), globals: HashMap::new() }
    }

    /// A fresh function for a name the image contains.
    pub fn find(&self, name: &str, module: Handle) -> Outcome<Function> {
        let symbols = self.image.symbols()?;
        let layout = symbols.kernels.get(name).ok_or(NOT_FOUND)?;
        let text = symbols.ptx.get(name).map(|entry| Box::new(entry.clone()) as Box<dyn Kernel>);
        let kernel = match text {
            Some(text) if self.as_text => Some(text),
            text => standin_kernels::find(name).or(text),
        };
        Ok(Function::new(name, layout.clone(), kernel, module))
    }
}
