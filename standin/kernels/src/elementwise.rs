//! PyTorch's elementwise kernels: contiguous, converting, and strided.
//!
//! | kernel | parameters |
//! |---|---|
//! | `vectorized_elementwise_kernel<n, F, A[, bool]>` | `int N, F, A data` |
//! | `unrolled_elementwise_kernel<F, A, n, In, Out, Load, Store>` | `int N, F, A data, In, Out, Load, Store` |
//! | `elementwise_kernel<nt, vt, lambda>` | `int N, lambda{OffsetCalculator, A data, F[, ScalarType[]]}` |
//!
//! `A` is `std::array<char*, 1 + arity>`, result first. The lambda ends with a
//! pointer to its host copy.

use crate::functor::{AnyEval, Functor, resolve};
use crate::name::{Callable, Name, callable};
use crate::offsets::Offsets;
use crate::ops::Eval;
use crate::params::{Cursor, Layout, unsupported};
use crate::value::{Class, DType, Lane, load_lanes, round_lanes, store_lanes};
use crate::{Cost, Fault, Kernel, Launch, Memory};

/// Elements computed at a time: few enough that the lanes stay in L1.
pub const BLOCK: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Vectorized,
    Unrolled,
    /// `gpu_kernel_impl_nocast`: strided, memory types as the functor's.
    Strided,
    /// `gpu_kernel_impl`: strided, memory types told at run time.
    StridedCast,
}

struct Elementwise {
    form: Form,
    functor: Functor,
}

pub fn find(name: &Name) -> Option<Box<dyn Kernel>> {
    let (form, functor) = match (name.base.as_str(), name.args.as_slice()) {
        ("vectorized_elementwise_kernel", [_, functor, _, ..]) => {
            (Form::Vectorized, resolve(functor)?)
        }
        ("unrolled_elementwise_kernel", [functor, ..]) => (Form::Unrolled, resolve(functor)?),
        ("elementwise_kernel", [_, _, lambda]) => {
            let Callable::Lambda(lambda) = callable(lambda)? else {
                return None;
            };
            let form = match lambda.function.base.as_str() {
                "gpu_kernel_impl_nocast" => Form::Strided,
                "gpu_kernel_impl" => Form::StridedCast,
                _ => return None,
            };
            (form, resolve(lambda.function.args.first()?)?)
        }
        _ => return None,
    };
    Some(Box::new(Elementwise { form, functor }))
}

/// One tensor of a launch: where it is and what lies there.
#[derive(Clone, Copy)]
struct Operand {
    address: u64,
    dtype: DType,
}

/// A launch's parameters, decoded.
struct Decoded<'a> {
    count: u64,
    /// The functor object's bytes, and where its captured scalars lie in them.
    state: &'a [u8],
    layout: &'a Layout,
    /// Result first.
    operands: Vec<Operand>,
    /// None: all operands are contiguous.
    offsets: Option<Offsets>,
}

impl Elementwise {
    fn decode<'a>(&'a self, launch: &Launch<'a>) -> Result<Decoded<'a>, Fault> {
        let count = Cursor::parameter(launch, 0)?.i32()?.max(0) as u64;
        let mut dtypes = vec![self.functor.result];
        dtypes.extend(&self.functor.args);
        let tensors = dtypes.len();
        let addresses =
            |cursor: &mut Cursor| (0..tensors).map(|_| cursor.u64()).collect::<Result<Vec<_>, _>>();
        let other_size = |size: usize| {
            let expected: Vec<usize> = self.functor.layouts.iter().map(Layout::size).collect();
            unsupported(
                launch,
                &format!(
                    "a functor in a parameter of {size} bytes, expected a functor of {expected:?}"
                ),
            )
        };

        let (layout, state, addresses, offsets) = match self.form {
            Form::Vectorized | Form::Unrolled => {
                let mut functor = Cursor::parameter(launch, 1)?;
                let mut data = Cursor::parameter(launch, 2)?;
                if data.size() != tensors * 8 {
                    return Err(unsupported(
                        launch,
                        &format!("{} bytes of pointers, expected {tensors}", data.size()),
                    ));
                }
                let layout =
                    self.functor.layouts.iter().find(|layout| layout.size() == functor.size());
                let layout = layout.ok_or_else(|| other_size(functor.size()))?;
                if self.form == Form::Unrolled {
                    // In and Out are TrivialOffsetCalculators, empty classes.
                    if Cursor::parameter(launch, 3)?.size() != 1
                        || Cursor::parameter(launch, 4)?.size() != 1
                    {
                        return Err(unsupported(
                            launch,
                            "an offset calculator that is not trivial",
                        ));
                    }
                    scalar_types(Cursor::parameter(launch, 6)?, &mut dtypes[..1])?;
                    scalar_types(Cursor::parameter(launch, 5)?, &mut dtypes[1..])?;
                }
                (layout, functor.take(layout.size())?, addresses(&mut data)?, None)
            }
            Form::Strided | Form::StridedCast => {
                let mut lambda = Cursor::parameter(launch, 1)?;
                let offsets = Offsets::read(&mut lambda, tensors)?;
                let addresses = addresses(&mut lambda)?;
                let casts = if self.form == Form::StridedCast { tensors } else { 0 };
                // The pointers before it leave the functor aligned to 8.
                let end = |layout: &Layout| {
                    (lambda.position() + layout.size() + casts).next_multiple_of(8) + 8
                };
                let layout =
                    self.functor.layouts.iter().find(|layout| end(layout) == lambda.size());
                let layout = layout.ok_or_else(|| other_size(lambda.size()))?;
                let state = lambda.take(layout.size())?;
                for dtype in &mut dtypes[..casts] {
                    *dtype = scalar_type(lambda.u8()?)?;
                }
                (layout, state, addresses, Some(offsets))
            }
        };
        let operands = addresses
            .iter()
            .zip(&dtypes)
            .map(|(&address, &dtype)| Operand { address, dtype })
            .collect();
        Ok(Decoded { count, state, layout, operands, offsets })
    }

    fn compute<L: Lane>(
        &self,
        eval: &Eval<L>,
        decoded: &Decoded,
        memory: &dyn Memory,
    ) -> Result<(), Fault> {
        let state: Vec<L> = decoded.layout.read(decoded.state)?;
        let views = decoded
            .operands
            .iter()
            .enumerate()
            .map(|(index, operand)| View::new(*operand, index, decoded, memory))
            .collect::<Result<Vec<_>, _>>()?;
        let [result, args @ ..] = views.as_slice() else {
            return Ok(());
        };

        let mut lanes = vec![[L::default(); BLOCK]; args.len()];
        let mut out = [L::default(); BLOCK];
        let mut start = 0;
        while start < decoded.count {
            let count = BLOCK.min((decoded.count - start) as usize);
            for ((view, lanes), &dtype) in args.iter().zip(&mut lanes).zip(&self.functor.args) {
                if view.dtype == dtype {
                    view.load(start, &mut lanes[..count]);
                } else {
                    view.load_as(dtype, start, &mut lanes[..count]);
                }
            }
            // Longest functor: four arguments; a fixed array avoids allocating per block.
            let mut slices: [&[L]; 8] = [&[]; 8];
            for (slice, lanes) in slices.iter_mut().zip(&lanes) {
                *slice = &lanes[..count];
            }
            eval(&state, &slices[..args.len().min(8)], &mut out[..count]);
            if result.dtype != self.functor.result {
                round_lanes(self.functor.result, &mut out[..count]);
            }
            result.store(start, &out[..count]);
            start += count as u64;
        }
        Ok(())
    }
}

impl Kernel for Elementwise {
    fn run(&self, launch: &Launch, memory: &dyn Memory) -> Result<(), Fault> {
        let decoded = self.decode(launch)?;
        match &self.functor.eval {
            AnyEval::F32(eval) => self.compute(eval, &decoded, memory),
            AnyEval::F64(eval) => self.compute(eval, &decoded, memory),
            AnyEval::I64(eval) => self.compute(eval, &decoded, memory),
        }
    }

    fn cost(&self, launch: &Launch) -> Cost {
        self.decode(launch).map_or(Cost::default(), |decoded| {
            let bytes: usize = decoded.operands.iter().map(|operand| operand.dtype.size()).sum();
            Cost { bytes: bytes as f64 * decoded.count as f64, flops: decoded.count as f64 }
        })
    }
}

fn scalar_type(code: u8) -> Result<DType, Fault> {
    DType::from_scalar_type(code)
        .ok_or_else(|| Fault::Unsupported(format!("elements of c10::ScalarType {code}")))
}

/// Reads the element types a `LoadWithCast` or `StoreWithCast` carries; the
/// variants without a cast are empty classes and leave `dtypes` as they are.
fn scalar_types(mut cursor: Cursor, dtypes: &mut [DType]) -> Result<(), Fault> {
    if cursor.size() > 1 {
        for dtype in dtypes {
            *dtype = scalar_type(cursor.u8()?)?;
        }
    }
    Ok(())
}

/// Checked access to one operand's elements, by linear index.
struct View<'a> {
    dtype: DType,
    /// Host pointer of the element at byte offset 0.
    base: *mut u8,
    offsets: Option<(&'a Offsets, usize)>,
}

impl<'a> View<'a> {
    /// Operand 0 is the result. All bytes any element may touch are checked here.
    fn new(
        operand: Operand,
        index: usize,
        decoded: &'a Decoded,
        memory: &dyn Memory,
    ) -> Result<Self, Fault> {
        let size = operand.dtype.size() as u64;
        let (low, high) = match &decoded.offsets {
            _ if decoded.count == 0 => (0, 0),
            None => (0, (decoded.count * size - size) as i64),
            Some(offsets) => offsets.bounds(index),
        };
        let address = operand.address.wrapping_add_signed(low);
        let bytes = if decoded.count == 0 { 0 } else { (high - low) as u64 + size };
        let pointer = if index == 0 {
            memory.write(address, bytes)?
        } else {
            memory.read(address, bytes)?.cast_mut()
        };
        Ok(View {
            dtype: operand.dtype,
            base: pointer.wrapping_offset(-low as isize),
            offsets: decoded.offsets.as_ref().map(|offsets| (offsets, index)),
        })
    }

    fn load<L: Lane>(&self, start: u64, out: &mut [L]) {
        let size = self.dtype.size() as isize;
        match self.offsets {
            // SAFETY: `new` had the memory checked for every element below `count`.
            None => unsafe {
                load_lanes(self.dtype, self.base.wrapping_offset(start as isize * size), size, out)
            },
            Some((offsets, index)) => {
                offsets.runs(index, start, out.len(), |first, stride, range| {
                    // SAFETY: `new` had the memory checked for every element below `count`.
                    unsafe {
                        load_lanes(
                            self.dtype,
                            self.base.wrapping_offset(first as isize),
                            stride as isize,
                            &mut out[range],
                        )
                    }
                })
            }
        }
    }

    /// [`Self::load`], with each element passed through a variable of type `dtype`.
    fn load_as<L: Lane>(&self, dtype: DType, start: u64, out: &mut [L]) {
        if dtype == DType::Bool && self.dtype.class() != Class::I64 {
            // Any non-zero number is true: 0.5 must not become the integer 0 first.
            let mut wide = [0f64; BLOCK];
            let wide = &mut wide[..out.len()];
            self.load(start, wide);
            for (out, &wide) in out.iter_mut().zip(&*wide) {
                *out = L::from_i64((wide != 0.0) as i64);
            }
        } else {
            self.load(start, out);
            round_lanes(dtype, out);
        }
    }

    fn store<L: Lane>(&self, start: u64, lanes: &[L]) {
        let size = self.dtype.size() as isize;
        match self.offsets {
            // SAFETY: as in `load`; this view is of the result, which was checked for writing.
            None => unsafe {
                store_lanes(
                    self.dtype,
                    self.base.wrapping_offset(start as isize * size),
                    size,
                    lanes,
                )
            },
            Some((offsets, index)) => {
                offsets.runs(index, start, lanes.len(), |first, stride, range| {
                    // SAFETY: as in `load`; this view is of the result, which was checked for writing.
                    unsafe {
                        store_lanes(
                            self.dtype,
                            self.base.wrapping_offset(first as isize),
                            stride as isize,
                            &lanes[range],
                        )
                    }
                })
            }
        }
    }
}
