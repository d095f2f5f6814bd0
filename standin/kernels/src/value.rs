//! Element types in device memory, and the lanes kernels compute in.
//!
//! Kernels do not compute on memory types. They load a block of elements into
//! *lanes* (`f32`, `f64` or `i64`, the type PyTorch calls opmath, integers
//! widened), compute, and store with the conversion C++ would do. So each
//! operation is written once per lane type, not once per element type.
//! Not here: addressing (see `offsets`), operations (see `ops`).

use half::f16;

/// An element type, as stored in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

/// Which lane type values of a [`DType`] are computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    F32,
    F64,
    I64,
}

impl DType {
    /// Size in bytes; the alignment is the same.
    pub const fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 | DType::I8 => 1,
            DType::I16 | DType::F16 | DType::BF16 => 2,
            DType::I32 | DType::F32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }

    /// The type a demangled C++ name stands for (namespaces already removed).
    pub fn from_cpp(name: &str) -> Option<DType> {
        Some(match name.trim().trim_end_matches(" const") {
            "bool" => DType::Bool,
            "unsigned char" => DType::U8,
            "signed char" => DType::I8,
            "short" => DType::I16,
            "int" => DType::I32,
            "long" | "long long" => DType::I64,
            "Half" => DType::F16,
            "BFloat16" => DType::BF16,
            "float" => DType::F32,
            "double" => DType::F64,
            _ => return None,
        })
    }

    /// The type behind a `c10::ScalarType`, as dynamic-cast loaders carry it.
    pub fn from_scalar_type(code: u8) -> Option<DType> {
        Some(match code {
            0 => DType::U8,
            1 => DType::I8,
            2 => DType::I16,
            3 => DType::I32,
            4 => DType::I64,
            5 => DType::F16,
            6 => DType::F32,
            7 => DType::F64,
            11 => DType::Bool,
            15 => DType::BF16,
            _ => return None,
        })
    }

    pub fn class(self) -> Class {
        match self {
            DType::F16 | DType::BF16 | DType::F32 => Class::F32,
            DType::F64 => Class::F64,
            _ => Class::I64,
        }
    }

    /// PyTorch's `opmath_type`: what scalars and accumulators of this type are kept in.
    pub fn opmath(self) -> DType {
        match self {
            DType::F16 | DType::BF16 => DType::F32,
            other => other,
        }
    }
}

/// One element as it lies in memory, convertible to every lane type.
pub trait Element: Copy + 'static {
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
    fn to_i64(self) -> i64;
    fn from_f32(value: f32) -> Self;
    fn from_f64(value: f64) -> Self;
    fn from_i64(value: i64) -> Self;
}

macro_rules! number_element {
    ($($t:ty),*) => {$(
        impl Element for $t {
            #[inline(always)] fn to_f32(self) -> f32 { self as f32 }
            #[inline(always)] fn to_f64(self) -> f64 { self as f64 }
            #[inline(always)] fn to_i64(self) -> i64 { self as i64 }
            #[inline(always)] fn from_f32(value: f32) -> Self { value as Self }
            #[inline(always)] fn from_f64(value: f64) -> Self { value as Self }
            #[inline(always)] fn from_i64(value: i64) -> Self { value as Self }
        }
    )*};
}
number_element!(f32, f64, i64);

macro_rules! small_integer_element {
    ($($t:ty),*) => {$(
        impl Element for $t {
            #[inline(always)] fn to_f32(self) -> f32 { self as f32 }
            #[inline(always)] fn to_f64(self) -> f64 { self as f64 }
            #[inline(always)] fn to_i64(self) -> i64 { self as i64 }
            // Through i64, so that a value out of range wraps as on the device
            // instead of saturating at this type's limits.
            #[inline(always)] fn from_f32(value: f32) -> Self { value as i64 as Self }
            #[inline(always)] fn from_f64(value: f64) -> Self { value as i64 as Self }
            #[inline(always)] fn from_i64(value: i64) -> Self { value as Self }
        }
    )*};
}
small_integer_element!(u8, i8, i16, i32);

/// C++ `bool`: any non-zero byte is true, and true is stored as 1.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Boolean(u8);

impl Element for Boolean {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        (self.0 != 0) as u8 as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        (self.0 != 0) as u8 as f64
    }
    #[inline(always)]
    fn to_i64(self) -> i64 {
        (self.0 != 0) as i64
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        Boolean((value != 0.0) as u8)
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        Boolean((value != 0.0) as u8)
    }
    #[inline(always)]
    fn from_i64(value: i64) -> Self {
        Boolean((value != 0) as u8)
    }
}

/// bfloat16. Written out rather than taken from `half` because these two
/// conversions are branch-free and vectorise.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Brain(u16);

impl Element for Brain {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits((self.0 as u32) << 16)
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.to_f32() as f64
    }
    #[inline(always)]
    fn to_i64(self) -> i64 {
        self.to_f32() as i64
    }
    /// Round to nearest, ties to even; NaN becomes PyTorch's quiet NaN.
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let nan = (bits & 0x7fff_ffff) > 0x7f80_0000;
        Brain(if nan { 0x7fc0 } else { rounded as u16 })
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        Self::from_f32(value as f32)
    }
    #[inline(always)]
    fn from_i64(value: i64) -> Self {
        Self::from_f32(value as f32)
    }
}

impl Element for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f16::to_f64(self)
    }
    #[inline(always)]
    fn to_i64(self) -> i64 {
        f16::to_f32(self) as i64
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        // PyTorch converts double to Half through float.
        f16::from_f32(value as f32)
    }
    #[inline(always)]
    fn from_i64(value: i64) -> Self {
        f16::from_f32(value as f32)
    }
}

/// A type kernels compute in.
pub trait Lane: Element + Default + PartialOrd + Send + Sync {
    fn load<E: Element>(element: E) -> Self;
    fn store<E: Element>(self) -> E;
}

macro_rules! lane {
    ($t:ty, $to:ident, $from:ident) => {
        impl Lane for $t {
            #[inline(always)]
            fn load<E: Element>(element: E) -> Self {
                element.$to()
            }
            #[inline(always)]
            fn store<E: Element>(self) -> E {
                E::$from(self)
            }
        }
    };
}
lane!(f32, to_f32, from_f32);
lane!(f64, to_f64, from_f64);
lane!(i64, to_i64, from_i64);

/// Runs `$body` with `$e` standing for the Rust type of `$dtype`.
macro_rules! with_element {
    ($dtype:expr, $e:ident => $body:expr) => {
        match $dtype {
            $crate::value::DType::Bool => {
                type $e = $crate::value::Boolean;
                $body
            }
            $crate::value::DType::U8 => {
                type $e = u8;
                $body
            }
            $crate::value::DType::I8 => {
                type $e = i8;
                $body
            }
            $crate::value::DType::I16 => {
                type $e = i16;
                $body
            }
            $crate::value::DType::I32 => {
                type $e = i32;
                $body
            }
            $crate::value::DType::I64 => {
                type $e = i64;
                $body
            }
            $crate::value::DType::F16 => {
                type $e = half::f16;
                $body
            }
            $crate::value::DType::BF16 => {
                type $e = $crate::value::Brain;
                $body
            }
            $crate::value::DType::F32 => {
                type $e = f32;
                $body
            }
            $crate::value::DType::F64 => {
                type $e = f64;
                $body
            }
        }
    };
}

/// Loads `out.len()` elements, `stride` bytes apart, into lanes.
///
/// # Safety
/// `from + i * stride` must be readable for `dtype.size()` bytes for every
/// `i < out.len()`. No alignment is required.
pub unsafe fn load_lanes<L: Lane>(dtype: DType, from: *const u8, stride: isize, out: &mut [L]) {
    with_element!(dtype, E => {
        if stride == size_of::<E>() as isize {
            let from = from.cast::<E>();
            for (i, lane) in out.iter_mut().enumerate() {
                // SAFETY: element i is readable by this function's contract.
                *lane = L::load(unsafe { from.add(i).read_unaligned() });
            }
        } else {
            for (i, lane) in out.iter_mut().enumerate() {
                // SAFETY: element i is readable by this function's contract.
                *lane = L::load(unsafe { from.offset(i as isize * stride).cast::<E>().read_unaligned() });
            }
        }
    })
}

/// Stores lanes as elements `stride` bytes apart.
///
/// # Safety
/// `to + i * stride` must be writable for `dtype.size()` bytes for every
/// `i < lanes.len()`. No alignment is required.
pub unsafe fn store_lanes<L: Lane>(dtype: DType, to: *mut u8, stride: isize, lanes: &[L]) {
    with_element!(dtype, E => {
        if stride == size_of::<E>() as isize {
            let to = to.cast::<E>();
            for (i, lane) in lanes.iter().enumerate() {
                // SAFETY: element i is writable by this function's contract.
                unsafe { to.add(i).write_unaligned(lane.store::<E>()) };
            }
        } else {
            for (i, lane) in lanes.iter().enumerate() {
                // SAFETY: element i is writable by this function's contract.
                unsafe { to.offset(i as isize * stride).cast::<E>().write_unaligned(lane.store::<E>()) };
            }
        }
    })
}

/// Rounds lanes to what a variable of type `dtype` would hold, as passing a
/// value through a C++ argument or return type of that type does.
pub fn round_lanes<L: Lane>(dtype: DType, lanes: &mut [L]) {
    with_element!(dtype, E => {
        for lane in lanes {
            *lane = L::load(lane.store::<E>());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfloat16_rounds_to_nearest_even() {
        for (value, bits) in
            [(1.0f32, 0x3f80u16), (1.003_906_3, 0x3f80), (1.011_718_8, 0x3f82), (-0.0, 0x8000)]
        {
            assert_eq!(Brain::from_f32(value).0, bits, "{value}");
        }
        assert_eq!(Brain::from_f32(f32::NAN).0, 0x7fc0);
        assert_eq!(Brain::from_f32(f32::INFINITY).0, 0x7f80);
        assert_eq!(Brain::from_f32(f32::MAX).0, 0x7f80);
        for i in 0..1000u32 {
            let value = f32::from_bits(0x3f80_0000 + i * 7919);
            assert_eq!(Brain::from_f32(value).0, half::bf16::from_f32(value).to_bits());
        }
    }

    #[test]
    fn conversions_follow_cpp() {
        let mut lanes = [300.0f32, -1.0, 2.9];
        round_lanes(DType::U8, &mut lanes);
        assert_eq!(lanes, [44.0, 255.0, 2.0]);
        let mut lanes = [0i64, 5, -3];
        round_lanes(DType::Bool, &mut lanes);
        assert_eq!(lanes, [0, 1, 1]);
    }
}
