//! From a functor type, as C++ text, to something that computes.
//!
//! Decides the argument and result types and the functor's memory layout;
//! what it computes is in `ops`.

use crate::name::{Callable, Lambda, Name, callable};
use crate::ops::{self, Eval, Op};
use crate::params::Layout;
use crate::value::{Class, DType, Lane};

/// A functor: `result = eval(captured scalars, arguments)`.
pub struct Functor {
    /// Parameter types; a memory element of another type is converted first.
    pub args: Vec<DType>,
    pub result: DType,
    /// The functor object, as it may lie in the kernel's parameters. A lambda
    /// without captures has two possible sizes (see `Layout::then_pointer`);
    /// the size of the parameter tells which it is.
    pub layouts: Vec<Layout>,
    pub eval: AnyEval,
}

/// An evaluation in one of the lane types.
pub enum AnyEval {
    F32(Eval<f32>),
    F64(Eval<f64>),
    I64(Eval<i64>),
}

/// The functor `text` names, if it is one we compute.
pub fn resolve(text: &str) -> Option<Functor> {
    match callable(text)? {
        Callable::Class(name) => class(&name),
        Callable::Lambda(lambda) => of_lambda(&lambda),
    }
}

fn class(name: &Name) -> Option<Functor> {
    match name.base.as_str() {
        "BinaryFunctor" => {
            let (first, second, result, inner) = inner(name)?;
            Some(Functor { args: vec![first, second], result, ..inner })
        }
        // AUnaryFunctor holds the first operand, BUnaryFunctor the second,
        // behind the functor, in the type the functor takes it in.
        "AUnaryFunctor" | "BUnaryFunctor" => {
            let bound = if name.base.starts_with('A') { 0 } else { 1 };
            let (first, second, result, inner) = inner(name)?;
            let free = if bound == 0 { second } else { first };
            let scalar = *inner.args.get(bound)?;
            let layouts =
                inner.layouts.into_iter().map(|layout| layout.nested_then(scalar)).collect();
            let eval = match inner.eval {
                AnyEval::F32(eval) => AnyEval::F32(bind(eval, bound)),
                AnyEval::F64(eval) => AnyEval::F64(bind(eval, bound)),
                AnyEval::I64(eval) => AnyEval::I64(bind(eval, bound)),
            };
            Some(Functor { args: vec![free], result, layouts, eval })
        }
        base => {
            let t = DType::from_cpp(name.args.first()?)?;
            let arity = match base {
                "FillFunctor" => 0,
                "AbsFunctor" | "CUDAFunctorOnSelf_add" | "CUDAFunctorOnOther_add" => 1,
                _ => 2,
            };
            let result = if base.starts_with("Compare") { DType::Bool } else { t };
            // The class's own op, in the lanes of its type.
            let (state, eval) = match t.class() {
                Class::F32 => erase(ops::class_op::<f32>(base, t)?, AnyEval::F32),
                Class::F64 => erase(ops::class_op::<f64>(base, t)?, AnyEval::F64),
                Class::I64 => erase(
                    ops::class_op::<i64>(base, t).or_else(|| ops::integer_class_op(base))?,
                    AnyEval::I64,
                ),
            };
            Some(Functor { args: vec![t; arity], result, layouts: vec![state], eval })
        }
    }
}

/// `<first argument, second argument, result, functor>` of a wrapper class.
fn inner(name: &Name) -> Option<(DType, DType, DType, Functor)> {
    let [first, second, result, functor] = name.args.as_slice() else {
        return None;
    };
    Some((
        DType::from_cpp(first)?,
        DType::from_cpp(second)?,
        DType::from_cpp(result)?,
        resolve(functor)?,
    ))
}

fn of_lambda(lambda: &Lambda) -> Option<Functor> {
    let chooses = lambda.function.base == "where_kernel_impl";
    let dtype = |param: &String| {
        // What is only chosen is, from PyTorch 2.15 on, bits of a size.
        let bits = param.strip_prefix("unsigned ").filter(|&bits| chooses && bits != "char");
        DType::from_cpp(bits.unwrap_or(param))
    };
    let args = lambda.params.iter().map(dtype).collect::<Option<Vec<_>>>()?;
    // `where` takes its condition first; everywhere else the first is the data.
    let t = *if chooses { args.get(1) } else { args.first() }?;
    let (state, eval) = match t.class() {
        Class::F32 => erase(
            ops::lambda_op::<f32>(lambda, t).or_else(|| ops::real_lambda_op(lambda, t))?,
            AnyEval::F32,
        ),
        Class::F64 => erase(
            ops::lambda_op::<f64>(lambda, t).or_else(|| ops::real_lambda_op(lambda, t))?,
            AnyEval::F64,
        ),
        Class::I64 => erase(
            ops::lambda_op::<i64>(lambda, t).or_else(|| ops::integer_lambda_op(lambda, t))?,
            AnyEval::I64,
        ),
    };
    // A lambda's name does not tell what it returns.
    let result = match lambda.function.base.as_str() {
        "logical_not_kernel_cuda"
        | "logical_and_kernel_cuda"
        | "logical_or_kernel_cuda"
        | "logical_xor_kernel_cuda"
        | "compare_scalar_kernel"
        | "signbit_kernel_cuda"
        | "isneginf_kernel_impl"
        | "isposinf_kernel_impl" => DType::Bool,
        "bfloat16_copy_kernel_cuda" => DType::BF16,
        "float16_copy_kernel_cuda" => DType::F16,
        "converting_copy_kernel_cuda" => DType::from_cpp(lambda.function.args.get(1)?)?,
        _ => t,
    };
    let with_pointer = state.clone().then_pointer();
    let layouts =
        if state.fields.is_empty() { vec![state, with_pointer] } else { vec![with_pointer] };
    Some(Functor { args, result, layouts, eval })
}

fn erase<L: Lane>(op: Op<L>, wrap: impl Fn(Eval<L>) -> AnyEval) -> (Layout, AnyEval) {
    (Layout::of(&op.state), wrap(op.eval))
}

/// Feeds the last captured scalar to `eval` as its argument number `bound`.
fn bind<L: Lane>(eval: Eval<L>, bound: usize) -> Eval<L> {
    Box::new(move |state, args, out| {
        let scalar = [state[state.len() - 1]; crate::elementwise::BLOCK];
        let scalar = &scalar[..out.len()];
        let both = if bound == 0 { [scalar, args[0]] } else { [args[0], scalar] };
        eval(state, &both, out);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str) -> (Vec<(usize, DType)>, usize) {
        let functor = resolve(text).unwrap_or_else(|| panic!("{text}"));
        (functor.layouts[0].fields.clone(), functor.layouts[0].size())
    }

    #[test]
    fn captured_scalars_lie_where_cpp_puts_them() {
        assert_eq!(layout("FillFunctor<float>"), (vec![(0, DType::F32)], 4));
        assert_eq!(
            layout("CUDAFunctorOnSelf_add<long>"),
            (vec![(0, DType::I64), (8, DType::I64)], 16)
        );
        assert_eq!(
            layout("AUnaryFunctor<BFloat16, BFloat16, BFloat16, MulFunctor<float> >"),
            (vec![(4, DType::F32)], 8)
        );
        assert_eq!(
            layout("AUnaryFunctor<double, double, bool, CompareEqFunctor<double> >"),
            (vec![(0, DType::I32), (8, DType::F64)], 16)
        );
    }

    #[test]
    fn unknown_functors_are_refused() {
        assert!(resolve("CUDAFunctor_add<complex<float> >").is_none());
        assert!(resolve("SomethingElse<float>").is_none());
        assert!(resolve("exp_kernel_cuda(TensorIteratorBase&)::{lambda()#1}::operator()() const::{lambda(complex<float>)#1}").is_none());
    }
}
