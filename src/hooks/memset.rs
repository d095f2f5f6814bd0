//! Memsets: each writes one range on the device.

use std::ffi::c_uint;

use super::Call;
use super::touches::{Touches, ordered};
use crate::driver::abi::*;
use crate::engine::Touch;

fn fill(
    stream: CUstream,
    dst: DevicePtr,
    bytes: usize,
    forward: impl Fn() -> CuResult,
) -> CuResult {
    let mut touches = Touches::new();
    touches.add_sized(dst, bytes, Touch::DeviceWrite { bytes });
    ordered(stream, &touches, forward)
}

/// The synchronous and asynchronous hooks of one element type, linear and
/// pitched.
macro_rules! memsets {
    ($( $value:ty: $d:ident $d_async:ident $d2d:ident $d2d_async:ident; )*) => { $(
        /// # Safety
        /// As cuda.h asks.
        pub unsafe fn $d(
            call: Call,
            forward: impl Fn() -> CuResult,
            dst: DevicePtr,
            _value: $value,
            count: usize,
        ) -> CuResult {
            let bytes = count.saturating_mul(size_of::<$value>());
            fill(call.default_stream(), dst, bytes, forward)
        }

        /// # Safety
        /// As cuda.h asks.
        pub unsafe fn $d_async(
            call: Call,
            forward: impl Fn() -> CuResult,
            dst: DevicePtr,
            _value: $value,
            count: usize,
            stream: CUstream,
        ) -> CuResult {
            let bytes = count.saturating_mul(size_of::<$value>());
            fill(call.stream(stream), dst, bytes, forward)
        }

        /// # Safety
        /// As cuda.h asks.
        pub unsafe fn $d2d(
            call: Call,
            forward: impl Fn() -> CuResult,
            dst: DevicePtr,
            _pitch: usize,
            _value: $value,
            width: usize,
            height: usize,
        ) -> CuResult {
            let bytes = width.saturating_mul(height).saturating_mul(size_of::<$value>());
            fill(call.default_stream(), dst, bytes, forward)
        }

        /// # Safety
        /// As cuda.h asks.
        #[allow(clippy::too_many_arguments)]
        pub unsafe fn $d2d_async(
            call: Call,
            forward: impl Fn() -> CuResult,
            dst: DevicePtr,
            _pitch: usize,
            _value: $value,
            width: usize,
            height: usize,
            stream: CUstream,
        ) -> CuResult {
            let bytes = width.saturating_mul(height).saturating_mul(size_of::<$value>());
            fill(call.stream(stream), dst, bytes, forward)
        }
    )* };
}

memsets! {
    u8: d8 d8_async d2d8 d2d8_async;
    u16: d16 d16_async d2d16 d2d16_async;
    c_uint: d32 d32_async d2d32 d2d32_async;
}
