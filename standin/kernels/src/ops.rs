//! The operations of PyTorch's elementwise functors, once per lane type.
//!
//! An [`Op`] knows the scalars its functor captured (in memory order) and how
//! to compute one block. The tables are keyed by what the kernel's name says:
//! the functor's class, or the function a lambda is written in. Formulas are
//! PyTorch's, so that results round alike.
//! Not here: argument and result types (see `functor`).

use crate::arithmetic::{Arithmetic, Real};
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

/// Functor classes any lane type computes. `t` is the class's scalar type.
pub fn class_op<L: Arithmetic>(name: &str, t: DType) -> Option<Op<L>> {
    let opmath = t.opmath();
    let (eval, state): (Eval<L>, Vec<DType>) = match name {
        "FillFunctor" => (op0(|state| state[0]), vec![t]),
        "AbsFunctor" => (op1(L::abs), vec![]),
        "CUDAFunctor_add" => (op2s(|[alpha]: [L; 1], a, b| a.add(alpha.mul(b))), vec![opmath]),
        // Captured: the other operand, then alpha.
        "CUDAFunctorOnSelf_add" => {
            (op1s(|[other, alpha]: [L; 2], x| x.add(alpha.mul(other))), vec![opmath, opmath])
        }
        "CUDAFunctorOnOther_add" => {
            (op1s(|[own, alpha]: [L; 2], x| own.add(alpha.mul(x))), vec![opmath, opmath])
        }
        "MulFunctor" => (op2(L::mul), vec![]),
        "DivFunctor" => (op2(L::div), vec![]),
        // enum class OpType { GE, GT, LE, LT }
        "CompareFunctor" => (op2s(|[op]: [L; 1], a, b| ordering(op, a, b)), vec![DType::I32]),
        // enum class EqOpType { EQ, NE }
        "CompareEqFunctor" => {
            (op2s(|[op]: [L; 1], a, b| truth((a == b) == (op == L::default()))), vec![DType::I32])
        }
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
    Some(Op { eval, state: vec![] })
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
                | "float16_copy_kernel_cuda"
                | "converting_copy_kernel_cuda",
                1,
            ) => (Box::new(|_, args, out| out.copy_from_slice(args[0])), vec![]),
            ("neg_kernel_cuda", 1) => (op1(L::neg), vec![]),
            ("sign_kernel_cuda", 1) => (op1(L::sign), vec![]),
            ("signbit_kernel_cuda", 1) => {
                (op1(move |x: L| truth(x < zero || x.to_f64().is_sign_negative())), vec![])
            }
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
            ("compare_scalar_kernel", 1) => {
                (op1s(|[op, other]: [L; 2], x| ordering(op, x, other)), vec![DType::I32, t])
            }
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
                op1s(|[limits, first, second]: [L; 3], x: L| match limits.to_i64() {
                    _ if x.is_nan() => x,
                    0 => clamp(x, Some(first), None),
                    1 => clamp(x, None, Some(first)),
                    _ => clamp(x, Some(first), Some(second)),
                }),
                vec![DType::I32, opmath, opmath],
            ),
            ("clamp_min_kernel_cuda", 1) => (
                op1s(|[low]: [L; 1], x: L| if x.is_nan() { x } else { clamp(x, Some(low), None) }),
                vec![opmath],
            ),
            ("clamp_max_kernel_cuda", 1) => (
                op1s(
                    |[high]: [L; 1], x: L| {
                        if x.is_nan() { x } else { clamp(x, None, Some(high)) }
                    },
                ),
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
                    (op1s(|[exponent]: [L; 1], x: L| x.pow(exponent)), vec![exponent])
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
    Some(Op { eval, state: vec![] })
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
        // Without weights: mean and reciprocal deviation; else factor and shift. Which lambda
        // that is: the first of the function with one argument, the second of three of the
        // one with two (PyTorch 2.15).
        ("GroupNormKernelImplInternal", 3) => {
            let number = lambda.path.last();
            let weighted = match lambda.function.args.len() {
                2 => number != Some(&2),
                _ => number == Some(&2) || lambda.params[0] != lambda.params[1],
            };
            (
                op3s(
                    move |[]: [R; 0], x: R, a: R, b: R| {
                        if weighted { x.mul(a).add(b) } else { x.add(a.neg()).mul(b) }
                    },
                ),
                vec![],
            )
        }
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
            op1s(
                move |[negative, positive, inner]: [R; 3], x| {
                    if x > zero { x.mul(positive) } else { x.mul(inner).expm1().mul(negative) }
                },
            ),
            vec![opmath; 3],
        ),
        ("softplus_kernel", 1) => (
            op1s(|[beta, threshold]: [R; 2], x: R| {
                let scaled = x.mul(beta);
                if scaled > threshold { x } else { scaled.exp().ln_1p().div(beta) }
            }),
            vec![opmath; 2],
        ),
        ("glu_kernel", 2) => {
            (op2(move |a: R, b: R| a.mul(one.div(one.add(b.neg().exp())))), vec![])
        }
        ("launch_log_sigmoid_forward_kernel", 1) => (
            op1(move |x: R| clamp(x, None, Some(zero)).add(x.abs().neg().exp().ln_1p().neg())),
            vec![],
        ),
        ("lerp_scalar_kernel", 2) => {
            (op2s(|[weight]: [R; 1], a, b| lerp(a, b, weight)), vec![opmath])
        }
        ("lerp_tensor_kernel", 3) => (op3s(|[]: [R; 0], a, b, weight| lerp(a, b, weight)), vec![]),
        // Dividing by a CPU scalar: captured are the divisor and its inverse.
        ("div_floor_kernel_cuda", 1) => {
            (op1s(|[divisor, _inverse]: [R; 2], x| x.div_floor(divisor)), vec![opmath; 2])
        }
        ("div_trunc_kernel_cuda", 1) => {
            (op1s(|[inverse]: [R; 1], x: R| x.mul(inverse).div_trunc(R::of(1.0))), vec![opmath])
        }
        ("isneginf_kernel_impl", 1) => (op1(move |x| truth(x == of(f64::NEG_INFINITY))), vec![]),
        ("isposinf_kernel_impl", 1) => (op1(move |x| truth(x == of(f64::INFINITY))), vec![]),
        ("mse_kernel_cuda", 2) => (
            op2(|a: R, b: R| {
                let difference = a.add(b.neg());
                difference.mul(difference)
            }),
            vec![],
        ),
        // The gradient comes first.
        ("tanh_backward_kernel_cuda", 2) => {
            (op2(move |dy: R, y: R| dy.mul(one.add(y.mul(y).neg()))), vec![])
        }
        ("sigmoid_backward_kernel_cuda", 2) => {
            (op2(move |dy: R, y: R| dy.mul(one.add(y.neg())).mul(y)), vec![])
        }
        ("silu_backward_kernel", 2) => (
            op2(move |dy: R, x: R| {
                let sigmoid = one.div(one.add(x.neg().exp()));
                dy.mul(sigmoid).mul(one.add(x.mul(one.add(sigmoid.neg()))))
            }),
            vec![],
        ),
        ("GeluBackwardCUDAKernelImpl", 2) => {
            let tanh = lambda.path[0] == 1;
            (
                op2(move |dy: R, x: R| {
                    dy.mul(if tanh { x.gelu_tanh_slope() } else { x.gelu_erf_slope() })
                }),
                vec![],
            )
        }
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
