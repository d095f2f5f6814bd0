//! Reads what a mangled kernel name says: template, arguments, functor.
//!
//! PyTorch's kernels are templates over a functor type, so the name alone
//! tells which operation on which types a launch performs. Namespaces are
//! dropped: `at::native::`, `c10::`, anonymous ones.
//! Not here: what a name means (see `functor` and each kernel family).

/// A kernel's template name and its template arguments, as C++ text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub base: String,
    pub args: Vec<String>,
}

/// A functor type: a class (template), or a lambda inside a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callable {
    Class(Name),
    Lambda(Lambda),
}

/// A lambda is known by the function it is written in and its number there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lambda {
    /// The enclosing function, with its template arguments.
    pub function: Name,
    /// The numbers of the nested lambdas, outermost first, from 1; the last is
    /// this lambda's own.
    pub path: Vec<u32>,
    /// Parameter types.
    pub params: Vec<String>,
}

const NAMESPACES: [&str; 5] =
    ["(anonymous namespace)::", "at::native::", "binary_internal::", "c10::", "at::cuda::detail::"];

/// Parses a kernel's symbol. A name that is not mangled is its own base.
pub fn parse(symbol: &str) -> Option<Name> {
    if !symbol.starts_with("_Z") {
        return Some(Name { base: symbol.to_owned(), args: Vec::new() });
    }
    let text = cpp_demangle::Symbol::new(symbol)
        .ok()?
        .demangle(&cpp_demangle::DemangleOptions::default())
        .ok()?;
    Some(parse_demangled(&text))
}

/// [`parse`] for text that is demangled already.
pub fn parse_demangled(text: &str) -> Name {
    let mut text = text.to_owned();
    for namespace in NAMESPACES {
        text = text.replace(namespace, "");
    }
    name_of(text.strip_prefix("void ").unwrap_or(&text))
}

/// Parses a functor type out of a template argument.
pub fn callable(text: &str) -> Option<Callable> {
    let parts = split(text, "::");
    let Some(last) = parts.last().filter(|part| part.starts_with("{lambda(")) else {
        return Some(Callable::Class(name_of(parts.last()?)));
    };
    let params = last.strip_prefix("{lambda(")?.rsplit_once(")#")?.0;
    let function = parts.iter().find(|part| part.contains('('))?;
    let mut path = Vec::new();
    for part in &parts {
        if part.starts_with("{lambda(") {
            path.push(part.rsplit_once('#')?.1.strip_suffix('}')?.parse().ok()?);
        }
    }
    Some(Callable::Lambda(Lambda {
        function: name_of(function.strip_prefix("void ").unwrap_or(function)),
        path,
        params: if params.is_empty() { Vec::new() } else { split(params, ",") },
    }))
}

/// `base<args>(…)` taken apart; what follows the arguments is dropped.
pub fn name_of(text: &str) -> Name {
    let end = text.find(['<', '(']).unwrap_or(text.len());
    let base = text[..end].trim().to_owned();
    let args = match text[end..].strip_prefix('<') {
        Some(rest) => split(&rest[..closing(rest)], ","),
        None => Vec::new(),
    };
    // What is left of an outer namespace is of no use.
    Name { base: base.rsplit("::").next().unwrap_or_default().to_owned(), args }
}

/// Index of the bracket that closes the one just before `text`.
fn closing(text: &str) -> usize {
    let mut depth = 1;
    for (i, c) in text.char_indices() {
        match c {
            '<' | '(' | '{' => depth += 1,
            '>' | ')' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    text.len()
}

/// Splits at `separator` outside all brackets, and trims.
fn split(text: &str, separator: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let (mut depth, mut start, mut i) = (0, 0, 0);
    while i < text.len() {
        match text.as_bytes()[i] {
            b'<' | b'(' | b'{' => depth += 1,
            b'>' | b')' | b'}' => depth -= 1,
            _ if depth == 0 && text[i..].starts_with(separator) => {
                parts.push(text[start..i].trim().to_owned());
                i += separator.len();
                start = i;
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    parts.push(text[start..].trim().to_owned());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_and_classes() {
        assert_eq!(parse("standin_gemm").unwrap().base, "standin_gemm");
        let name = parse(
            "_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_15CUDAFunctor_addIfEESt5arrayIPcLm3EEEEviT0_T1_",
        )
        .unwrap();
        assert_eq!(name.base, "vectorized_elementwise_kernel");
        assert_eq!(name.args[0], "4");
        assert_eq!(
            callable(&name.args[1]),
            Some(Callable::Class(Name {
                base: "CUDAFunctor_add".into(),
                args: vec!["float".into()]
            }))
        );
    }

    #[test]
    fn lambdas_keep_their_function_path_and_parameters() {
        let name = parse(
            "_ZN2at6native18elementwise_kernelILi128ELi4EZNS0_15gpu_kernel_implIZZZNS0_18GeluCUDAKernelImplERNS_18TensorIteratorBaseENS0_8GeluTypeEENKUlvE0_clEvENKUlvE2_clEvEUlN3c108BFloat16EE_EEvS4_RKT_EUliE_EEviT1_",
        )
        .unwrap();
        assert_eq!((name.base.as_str(), name.args.len()), ("elementwise_kernel", 3));
        let Some(Callable::Lambda(outer)) = callable(&name.args[2]) else { panic!("{name:?}") };
        assert_eq!(
            (outer.function.base.as_str(), outer.params[0].as_str()),
            ("gpu_kernel_impl", "int")
        );
        let Some(Callable::Lambda(inner)) = callable(&outer.function.args[0]) else {
            panic!("{outer:?}")
        };
        assert_eq!(inner.function.base, "GeluCUDAKernelImpl");
        assert_eq!(inner.path, [2, 4, 1]);
        assert_eq!(inner.params, ["BFloat16"]);
    }
}
