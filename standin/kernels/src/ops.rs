//! The operations of PyTorch's elementwise functors, once per lane type.
//!
//! An [`Op`] knows the scalars its functor captured (in memory order) and how
//! to compute one block. The tables are keyed by what the kernel's name says:
//! the functor's class, or the function a lambda is written in. Formulas are
//! PyTorch's, so that results round alike.
//! Not here: argument and result types (see `functor`).

use crate::name::Lambda;
use crate::value::{DType, Lane};

/// Computes one block: captured scalars, argument lanes, result lanes.
pub type Eval<L> = Box<dyn Fn(&[L], &[&[L]], &mut [L]) + Send + Sync>;

pub struct Op<L> {
    pub eval: Eval<L>,
    /// The functor's captured scalars, in memory order.
    pub state: Vec<DType>,
}

fn op0<L: Lane>(f: impl Fn(&[L]) -> L + Send + Sync + 'static) -> Eval<L> {
    Box::new(move |state, _, out| out.fill(f(state)))
}

fn op1<L: Lane>(f: impl Fn(L) -> L + Send + Sync + 'static) -> Eval<L> {
    Box::new(move |_, args, out| {
        for (out, &a) in out.iter_mut().zip(args[0]) {
            *out = f(a);
        }
    })
}

/// One argument and the captured scalars.
fn op1s<L: Lane, const S: usize>(f: impl Fn([L; S], L) -> L + Send + Sync + 'static) -> Eval<L> {
    Box::new(move |state, args, out| {
        let state = fixed(state);
        for (out, &a) in out.iter_mut().zip(args[0]) {
            *out = f(state, a);
        }
    })
}

fn op2<L: Lane>(f: impl Fn(L, L) -> L + Send + Sync + 'static) -> Eval<L> {
    Box::new(move |_, args, out| {
        for ((out, &a), &b) in out.iter_mut().zip(args[0]).zip(args[1]) {
            *out = f(a, b);
        }
    })
}

fn op2s<L: Lane, const S: usize>(f: impl Fn([L; S], L, L) -> L + Send + Sync + 'static) -> Eval<L> {
    Box::new(move |state, args, out| {
        let state = fixed(state);
        for ((out, &a), &b) in out.iter_mut().zip(args[0]).zip(args[1]) {
            *out = f(state, a, b);
        }
    })
}

fn op3s<L: Lane, const S: usize>(
    f: impl Fn([L; S], L, L, L) -> L + Send + Sync + 'static,
) -> Eval<L> {
    Box::new(move |state, args, out| {
        let state = fixed(state);
        for (((out, &a), &b), &c) in out.iter_mut().zip(args[0]).zip(args[1]).zip(args[2]) {
            *out = f(state, a, b, c);
        }
    })
}

/// The first `S` captured scalars. The state is read by the layout the same
/// table entry declares, so there are at least as many.
fn fixed<L: Lane, const S: usize>(state: &[L]) -> [L; S] {
    std::array::from_fn(|i| state[i])
}

fn truth<L: Lane>(value: bool) -> L {
    L::from_i64(value as i64)
}

/// Arithmetic every lane type has. Integers wrap, as they do on the device.
pub trait Arithmetic: Lane {
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn abs(self) -> Self;
    fn neg(self) -> Self;
    fn sign(self) -> Self;
    fn is_nan(self) -> bool;
    /// C's `fmod` and integer `%`: the sign of the dividend.
    fn fmod(self, other: Self) -> Self;
    fn div_trunc(self, other: Self) -> Self;
    fn pow(self, exponent: Self) -> Self;

    /// Python's `%`: the sign of the divisor.
    fn remainder(self, other: Self) -> Self {
        let zero = Self::default();
        let rest = self.fmod(other);
        if rest != zero && (rest < zero) != (other < zero) {
            rest.add(other)
        } else {
            rest
        }
    }

    /// Python's `//`.
    fn div_floor(self, other: Self) -> Self;

    /// PyTorch's minimum and maximum: a NaN wins.
    fn minimum(self, other: Self) -> Self {
        if self.is_nan() || self < other {
            self
        } else {
            other
        }
    }
    fn maximum(self, other: Self) -> Self {
        if self.is_nan() || self > other {
            self
        } else {
            other
        }
    }
}

impl Arithmetic for i64 {
    fn add(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    fn mul(self, other: Self) -> Self {
        self.wrapping_mul(other)
    }
    // Division by zero is undefined on the device; it must not panic here.
    fn div(self, other: Self) -> Self {
        if other == 0 {
            -1
        } else {
            self.wrapping_div(other)
        }
    }
    fn abs(self) -> Self {
        self.wrapping_abs()
    }
    fn neg(self) -> Self {
        self.wrapping_neg()
    }
    fn sign(self) -> Self {
        self.signum()
    }
    fn is_nan(self) -> bool {
        false
    }
    fn fmod(self, other: Self) -> Self {
        if other == 0 {
            self
        } else {
            self.wrapping_rem(other)
        }
    }
    fn div_trunc(self, other: Self) -> Self {
        self.div(other)
    }
    fn div_floor(self, other: Self) -> Self {
        let quotient = self.div(other);
        let rest = self.fmod(other);
        if rest != 0 && (rest < 0) != (other < 0) {
            quotient - 1
        } else {
            quotient
        }
    }
    fn pow(self, exponent: Self) -> Self {
        if exponent >= 0 {
            let (mut result, mut base, mut left) = (1i64, self, exponent);
            while left > 0 {
                if left & 1 == 1 {
                    result = result.wrapping_mul(base);
                }
                base = base.wrapping_mul(base);
                left >>= 1;
            }
            return result;
        }
        match self {
            1 => 1,
            -1 => {
                if exponent % 2 == 0 {
                    1
                } else {
                    -1
                }
            }
            _ => 0,
        }
    }
}

/// What only floating-point lanes can do.
pub trait Real: Arithmetic {
    fn of(value: f64) -> Self;
    fn exp(self) -> Self;
    fn expm1(self) -> Self;
    fn ln_1p(self) -> Self;
    fn tanh(self) -> Self;
    fn erf(self) -> Self;
    fn sqrt(self) -> Self;
    /// One-argument functions by the name PyTorch's kernels carry.
    fn named(name: &str) -> Option<fn(Self) -> Self>;
    fn atan2(self, other: Self) -> Self;
    fn copysign(self, sign: Self) -> Self;

    fn gelu_tanh(self) -> Self {
        let beta = Self::of(std::f64::consts::SQRT_2 * std::f64::consts::FRAC_2_SQRT_PI * 0.5);
        let cube = self.mul(self).mul(self);
        let inner = beta.mul(self.add(Self::of(0.044715).mul(cube)));
        Self::of(0.5).mul(self).mul(Self::of(1.0).add(inner.tanh()))
    }

    fn gelu_erf(self) -> Self {
        let scaled = self.mul(Self::of(std::f64::consts::FRAC_1_SQRT_2));
        self.mul(Self::of(0.5)).mul(Self::of(1.0).add(scaled.erf()))
    }
}

macro_rules! real {
    ($t:ty, $erf:path) => {
        impl Arithmetic for $t {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self * other
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                self / other
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn neg(self) -> Self {
                -self
            }
            #[inline(always)]
            fn sign(self) -> Self {
                (self > 0.0) as i8 as $t - (self < 0.0) as i8 as $t
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            fn fmod(self, other: Self) -> Self {
                self % other
            }
            fn div_trunc(self, other: Self) -> Self {
                (self / other).trunc()
            }
            fn div_floor(self, other: Self) -> Self {
                if other == 0.0 {
                    return self / other;
                }
                let rest = self % other;
                let mut quotient = (self - rest) / other;
                if rest != 0.0 && (other < 0.0) != (rest < 0.0) {
                    quotient -= 1.0;
                }
                if quotient == 0.0 {
                    return (0.0 as $t).copysign(self / other);
                }
                let floor = quotient.floor();
                if quotient - floor > 0.5 {
                    floor + 1.0
                } else {
                    floor
                }
            }
            fn pow(self, exponent: Self) -> Self {
                self.powf(exponent)
            }
        }

        impl Real for $t {
            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn exp(self) -> Self {
                self.exp()
            }
            #[inline(always)]
            fn expm1(self) -> Self {
                self.exp_m1()
            }
            #[inline(always)]
            fn ln_1p(self) -> Self {
                self.ln_1p()
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                self.tanh()
            }
            #[inline(always)]
            fn erf(self) -> Self {
                $erf(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            fn atan2(self, other: Self) -> Self {
                self.atan2(other)
            }
            fn copysign(self, sign: Self) -> Self {
                self.copysign(sign)
            }

            fn named(name: &str) -> Option<fn(Self) -> Self> {
                Some(match name {
                    "exp" => |x| x.exp(),
                    "exp2" => |x| x.exp2(),
                    "expm1" => |x| x.exp_m1(),
                    "log" => |x| x.ln(),
                    "log2" => |x| x.log2(),
                    "log10" => |x| x.log10(),
                    "log1p" => |x| x.ln_1p(),
                    "sqrt" => |x| x.sqrt(),
                    "rsqrt" => |x| 1.0 / x.sqrt(),
                    "reciprocal" => |x| 1.0 / x,
                    "sin" => |x| x.sin(),
                    "cos" => |x| x.cos(),
                    "tan" => |x| x.tan(),
                    "asin" => |x| x.asin(),
                    "acos" => |x| x.acos(),
                    "atan" => |x| x.atan(),
                    "sinh" => |x| x.sinh(),
                    "cosh" => |x| x.cosh(),
                    "tanh" => |x| x.tanh(),
                    "asinh" => |x| x.asinh(),
                    "acosh" => |x| x.acosh(),
                    "atanh" => |x| x.atanh(),
                    "erf" => |x| $erf(x),
                    "erfc" => |x| 1.0 - $erf(x),
                    "sigmoid" => |x| 1.0 / (1.0 + (-x).exp()),
                    "ceil" => |x| x.ceil(),
                    "floor" => |x| x.floor(),
                    "round" => |x| x.round_ties_even(),
                    "trunc" => |x| x.trunc(),
                    "frac" => |x| x - x.trunc(),
                    _ => return None,
                })
            }
        }
    };
}
real!(f32, libm::erff);
real!(f64, libm::erf);

/// Functor classes any lane type computes. `t` is the class's scalar type.
pub fn class_op<L: Arithmetic>(name: &str, t: DType) -> Option<Op<L>> {
    let opmath = t.opmath();
    let (eval, state): (Eval<L>, Vec<DType>) = match name {
        "FillFunctor" => (op0(|state| state[0]), vec![t]),
        "AbsFunctor" => (op1(L::abs), vec![]),
        "CUDAFunctor_add" => (
            op2s(|[alpha]: [L; 1], a, b| a.add(alpha.mul(b))),
            vec![opmath],
        ),
        // Captured: the other operand, then alpha.
        "CUDAFunctorOnSelf_add" => (
            op1s(|[other, alpha]: [L; 2], x| x.add(alpha.mul(other))),
            vec![opmath, opmath],
        ),
        "CUDAFunctorOnOther_add" => (
            op1s(|[own, alpha]: [L; 2], x| own.add(alpha.mul(x))),
            vec![opmath, opmath],
        ),
        "MulFunctor" => (op2(L::mul), vec![]),
        "DivFunctor" => (op2(L::div), vec![]),
        // enum class OpType { GE, GT, LE, LT }
        "CompareFunctor" => (
            op2s(|[op]: [L; 1], a, b| ordering(op, a, b)),
            vec![DType::I32],
        ),
        // enum class EqOpType { EQ, NE }
        "CompareEqFunctor" => (
            op2s(|[op]: [L; 1], a, b| truth((a == b) == (op == L::default()))),
            vec![DType::I32],
        ),
        _ => return None,
    };
    Some(Op { eval, state })
}

fn ordering<L: Lane>(op: L, a: L, b: L) -> L {
    truth(match op.to_i64() {
        0 => a >= b,
        1 => a > b,
        2 => a <= b,
        _ => a < b,
    })
}

/// Functor classes on integers only.
pub fn integer_class_op(name: &str) -> Option<Op<i64>> {
    let eval = match name {
        "BitwiseAndFunctor" => op2(|a: i64, b| a & b),
        "BitwiseOrFunctor" => op2(|a: i64, b| a | b),
        "BitwiseXorFunctor" => op2(|a: i64, b| a ^ b),
        _ => return None,
    };
    Some(Op {
        eval,
        state: vec![],
    })
}

/// Lambdas any lane type computes. `t` is the lambda's scalar type.
pub fn lambda_op<L: Arithmetic>(lambda: &Lambda, t: DType) -> Option<Op<L>> {
    let opmath = t.opmath();
    let zero = L::default();
    let one = L::from_i64(1);
    let (eval, state): (Eval<L>, Vec<DType>) =
        match (lambda.function.base.as_str(), lambda.params.len()) {
            (
                "direct_copy_kernel_cuda"
                | "bfloat16_copy_kernel_cuda"
                | "float16_copy_kernel_cuda",
                1,
            ) => (
                Box::new(|_, args, out| out.copy_from_slice(args[0])),
                vec![],
            ),
            ("neg_kernel_cuda", 1) => (op1(L::neg), vec![]),
            ("sign_kernel_cuda", 1) => (op1(L::sign), vec![]),
            ("signbit_kernel_cuda", 1) => (
                op1(move |x: L| truth(x < zero || x.to_f64().is_sign_negative())),
                vec![],
            ),
            ("logical_not_kernel_cuda", 1) => (op1(move |x| truth(x == zero)), vec![]),
            ("logical_and_kernel_cuda", 2) => {
                (op2(move |a, b| truth(a != zero && b != zero)), vec![])
            }
            ("logical_or_kernel_cuda", 2) => {
                (op2(move |a, b| truth(a != zero || b != zero)), vec![])
            }
            ("logical_xor_kernel_cuda", 2) => {
                (op2(move |a, b| truth((a != zero) != (b != zero))), vec![])
            }
            ("compare_scalar_kernel", 1) => (
                op1s(|[op, other]: [L; 2], x| ordering(op, x, other)),
                vec![DType::I32, t],
            ),
            ("maximum_kernel_cuda", 2) => (op2(L::maximum), vec![]),
            ("minimum_kernel_cuda", 2) => (op2(L::minimum), vec![]),
            ("fmax_kernel_cuda", 2) => (
                op2(|a: L, b: L| {
                    if a.is_nan() {
                        b
                    } else if b.is_nan() {
                        a
                    } else {
                        a.maximum(b)
                    }
                }),
                vec![],
            ),
            ("fmin_kernel_cuda", 2) => (
                op2(|a: L, b: L| {
                    if a.is_nan() {
                        b
                    } else if b.is_nan() {
                        a
                    } else {
                        a.minimum(b)
                    }
                }),
                vec![],
            ),
            ("fmod_kernel_cuda", 2) => (op2(L::fmod), vec![]),
            ("remainder_kernel_cuda", 2) => (op2(L::remainder), vec![]),
            ("div_trunc_kernel_cuda", 2) => (op2(L::div_trunc), vec![]),
            ("div_floor_kernel_cuda", 2) => (op2(L::div_floor), vec![]),
            ("masked_fill_kernel", 2) => (
                op2s(move |[value]: [L; 1], own, mask| if mask != zero { value } else { own }),
                vec![t],
            ),
            ("where_kernel_impl", 3) => (
                op3s(move |[]: [L; 0], condition, a, b| if condition != zero { a } else { b }),
                vec![],
            ),
            ("threshold_kernel_impl", 2) => (
                op2s(
                    |[threshold, value]: [L; 2], x, other| {
                        if x <= threshold { value } else { other }
                    },
                ),
                vec![t, t],
            ),
            ("clamp_kernel_impl", 3) => (
                op3s(|[]: [L; 0], x: L, low: L, high: L| {
                    if x.is_nan() {
                        x
                    } else if low.is_nan() {
                        low
                    } else if high.is_nan() {
                        high
                    } else {
                        clamp(x, Some(low), Some(high))
                    }
                }),
                vec![],
            ),
            // enum class ClampLimits { Min, Max, MinMax }, then both limits.
            ("launch_clamp_scalar", 1) => (
                op1s(
                    |[limits, first, second]: [L; 3], x: L| match limits.to_i64() {
                        _ if x.is_nan() => x,
                        0 => clamp(x, Some(first), None),
                        1 => clamp(x, None, Some(first)),
                        _ => clamp(x, Some(first), Some(second)),
                    },
                ),
                vec![DType::I32, opmath, opmath],
            ),
            ("clamp_min_kernel_cuda", 1) => (
                op1s(|[low]: [L; 1], x: L| {
                    if x.is_nan() {
                        x
                    } else {
                        clamp(x, Some(low), None)
                    }
                }),
                vec![opmath],
            ),
            ("clamp_max_kernel_cuda", 1) => (
                op1s(|[high]: [L; 1], x: L| {
                    if x.is_nan() {
                        x
                    } else {
                        clamp(x, None, Some(high))
                    }
                }),
                vec![opmath],
            ),
            ("pow_tensor_tensor_kernel", 2) => (op2(L::pow), vec![]),
            ("pow_scalar_tensor_impl", 1) => (op1s(|[base]: [L; 1], x| base.pow(x)), vec![t]),
            // The lambdas of this function, in order: exponent 2, 3, -2, any.
            ("pow_tensor_scalar_kernel_impl", 1) => match lambda.path.last()? {
                1 => (op1(|x: L| x.mul(x)), vec![]),
                2 => (op1(|x: L| x.mul(x).mul(x)), vec![]),
                3 => (op1(move |x: L| one.div(x.mul(x))), vec![]),
                _ => {
                    let exponent = DType::from_cpp(lambda.function.args.get(1)?)?;
                    (
                        op1s(|[exponent]: [L; 1], x: L| x.pow(exponent)),
                        vec![exponent],
                    )
                }
            },
            ("addcmul_cuda_kernel", 3) => (
                op3s(|[alpha]: [L; 1], own: L, a: L, b| own.add(alpha.mul(a).mul(b))),
                vec![opmath],
            ),
            ("addcdiv_cuda_kernel", 3) => (
                op3s(|[alpha]: [L; 1], own: L, a: L, b| own.add(alpha.mul(a.div(b)))),
                vec![opmath],
            ),
            _ => return None,
        };
    Some(Op { eval, state })
}

fn clamp<L: Lane>(x: L, low: Option<L>, high: Option<L>) -> L {
    let x = low.map_or(x, |low| if x < low { low } else { x });
    high.map_or(x, |high| if x > high { high } else { x })
}

/// Lambdas on integers (and booleans) only.
pub fn integer_lambda_op(lambda: &Lambda, t: DType) -> Option<Op<i64>> {
    let eval = match (lambda.function.base.as_str(), lambda.params.len()) {
        ("bitwise_not_kernel_cuda", 1) if t == DType::Bool => op1(|x: i64| (x == 0) as i64),
        ("bitwise_not_kernel_cuda", 1) => op1(|x: i64| !x),
        ("lshift_kernel_cuda", 2) => op2(|a: i64, b| if (0..64).contains(&b) { a << b } else { 0 }),
        ("rshift_kernel_cuda", 2) => op2(|a: i64, b| a >> b.clamp(0, 63)),
        _ => return None,
    };
    Some(Op {
        eval,
        state: vec![],
    })
}

/// Lambdas on floating-point numbers only.
pub fn real_lambda_op<R: Real>(lambda: &Lambda, t: DType) -> Option<Op<R>> {
    let opmath = t.opmath();
    let of = R::of;
    let (zero, one) = (of(0.0), of(1.0));
    let name = lambda.function.base.as_str();
    let (eval, state): (Eval<R>, Vec<DType>) = match (name, lambda.params.len()) {
        // The first lambda of the function is the tanh approximation.
        ("GeluCUDAKernelImpl", 1) if lambda.path[0] == 1 => (op1(R::gelu_tanh), vec![]),
        ("GeluCUDAKernelImpl", 1) => (op1(R::gelu_erf), vec![]),
        ("silu_kernel", 1) => (op1(move |x: R| x.div(one.add(x.neg().exp()))), vec![]),
        ("mish_kernel", 1) => (op1(|x: R| x.mul(x.exp().ln_1p().tanh())), vec![]),
        // Captured: the constants zero, one sixth, three, six.
        ("hardswish_kernel", 1) => (
            op1s(move |[zero, sixth, three, six]: [R; 4], x| {
                x.mul(clamp(x.add(three), Some(zero), Some(six))).mul(sixth)
            }),
            vec![opmath; 4],
        ),
        ("hardsigmoid_kernel", 1) => (
            op1s(move |[zero, sixth, three, six]: [R; 4], x| {
                clamp(x.add(three), Some(zero), Some(six)).mul(sixth)
            }),
            vec![opmath; 4],
        ),
        ("nan_to_num_kernel_cuda", 1) => (
            op1s(|[nan, infinity, negative]: [R; 3], x| {
                if x.is_nan() {
                    nan
                } else if x == R::of(f64::INFINITY) {
                    infinity
                } else if x == R::of(f64::NEG_INFINITY) {
                    negative
                } else {
                    x
                }
            }),
            vec![t; 3],
        ),
        ("leaky_relu_kernel", 1) => (
            op1s(move |[slope]: [R; 1], x: R| if x > zero { x } else { x.mul(slope) }),
            vec![opmath],
        ),
        ("elu_kernel", 1) => (
            op1s(move |[negative, positive, inner]: [R; 3], x| {
                if x > zero {
                    x.mul(positive)
                } else {
                    x.mul(inner).expm1().mul(negative)
                }
            }),
            vec![opmath; 3],
        ),
        ("softplus_kernel", 1) => (
            op1s(|[beta, threshold]: [R; 2], x: R| {
                let scaled = x.mul(beta);
                if scaled > threshold {
                    x
                } else {
                    scaled.exp().ln_1p().div(beta)
                }
            }),
            vec![opmath; 2],
        ),
        ("glu_kernel", 2) => (
            op2(move |a: R, b: R| a.mul(one.div(one.add(b.neg().exp())))),
            vec![],
        ),
        ("launch_log_sigmoid_forward_kernel", 1) => (
            op1(move |x: R| clamp(x, None, Some(zero)).add(x.abs().neg().exp().ln_1p().neg())),
            vec![],
        ),
        ("lerp_scalar_kernel", 2) => (
            op2s(|[weight]: [R; 1], a, b| lerp(a, b, weight)),
            vec![opmath],
        ),
        ("lerp_tensor_kernel", 3) => (op3s(|[]: [R; 0], a, b, weight| lerp(a, b, weight)), vec![]),
        // Dividing by a CPU scalar: captured are the divisor and its inverse.
        ("div_floor_kernel_cuda", 1) => (
            op1s(|[divisor, _inverse]: [R; 2], x| x.div_floor(divisor)),
            vec![opmath; 2],
        ),
        ("div_trunc_kernel_cuda", 1) => (
            op1s(|[inverse]: [R; 1], x: R| x.mul(inverse).div_trunc(R::of(1.0))),
            vec![opmath],
        ),
        ("isneginf_kernel_impl", 1) => (op1(move |x| truth(x == of(f64::NEG_INFINITY))), vec![]),
        ("isposinf_kernel_impl", 1) => (op1(move |x| truth(x == of(f64::INFINITY))), vec![]),
        ("mse_kernel_cuda", 2) => (
            op2(|a: R, b: R| {
                let difference = a.add(b.neg());
                difference.mul(difference)
            }),
            vec![],
        ),
        ("atan2_kernel_cuda", 2) => (op2(R::atan2), vec![]),
        ("copysign_kernel_cuda", 2) => (op2(R::copysign), vec![]),
        ("hypot_kernel_cuda", 2) => (op2(|a: R, b: R| a.mul(a).add(b.mul(b)).sqrt()), vec![]),
        (_, 1) => {
            let function = R::named(name.strip_suffix("_kernel_cuda")?)?;
            (op1(function), vec![])
        }
        _ => return None,
    };
    Some(Op { eval, state })
}

/// PyTorch's lerp, which is exact at both ends.
fn lerp<R: Real>(a: R, b: R, weight: R) -> R {
    let difference = b.add(a.neg());
    if weight.abs() < R::of(0.5) {
        a.add(weight.mul(difference))
    } else {
        b.add(difference.mul(R::of(1.0).add(weight.neg())).neg())
    }
}
