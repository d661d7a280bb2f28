//! Whoever calls a library says what is meant: `true` says nothing.

use syn::{FnArg, Type};

use crate::code::{Function, code, parse};
use crate::known::assert_only_known;
use crate::sources::{complaints, root};

const LIBRARIES: &[&str] = &[
    "budget", "client", "net", "proto", "server", "storage", "tls", "transfer",
];

/// To be mended and taken off.
const KNOWN: &[&str] = &[];

fn holds_flag(parameter: &Type) -> bool {
    match parameter {
        Type::Path(path) => path.path.is_ident("bool"),
        Type::Reference(reference) => holds_flag(&reference.elem),
        Type::Paren(paren) => holds_flag(&paren.elem),
        Type::Tuple(tuple) => tuple.elems.iter().any(holds_flag),
        _ => false,
    }
}

fn takes_flag(function: &Function<'_>) -> bool {
    let mut inputs = function.signature.inputs.iter();
    inputs.any(|input| match input {
        FnArg::Receiver(_) => false,
        FnArg::Typed(typed) => holds_flag(&typed.ty),
    })
}

fn public_flags(source: &str) -> Vec<String> {
    let file = parse(source);
    let functions = code(&file).functions;
    let public = functions.iter().filter(|function| function.is_public);
    public
        .filter(|function| takes_flag(function))
        .map(|function| format!("{} takes a bool", function.name))
        .collect()
}

#[test]
fn public_functions_take_no_flags() {
    let sources = LIBRARIES
        .iter()
        .map(|library| format!("crates/{library}/src"));
    let found = sources.flat_map(|folder| complaints(&root().join(folder), public_flags));
    // The server's binary is nobody's library.
    let found: Vec<_> = found
        .filter(|it| !it.starts_with("crates/server/src/main.rs"))
        .collect();
    assert_only_known(&found, KNOWN);
}

#[test]
fn a_flag_is_found_in_what_is_public() {
    let source = "pub fn a(b: bool) {} pub(crate) fn c(d: bool) {} pub fn e() -> bool { true }\n\
         impl F { pub fn g(&self, (h, i): (u8, bool)) {} fn j(k: bool) {} }\n\
         pub trait L { fn m(n: bool); } trait O { fn p(q: bool); } impl L for F { fn m(n: bool) {} }";
    assert_eq!(
        public_flags(source),
        ["a takes a bool", "F::g takes a bool", "L::m takes a bool"]
    );
}
