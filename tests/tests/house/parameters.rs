//! A function is told few things.

use syn::{FnArg, Type};

use crate::code::{Function, code, parse};
use crate::known::assert_only_known;
use crate::sources::product_files;

const PARAMETERS_MAX: usize = 5;

/// To be mended and taken off.
const KNOWN: &[&str] = &[];

/// A tuple hides no parameters: it counts as what it holds.
fn values(parameter: &Type) -> usize {
    match parameter {
        Type::Tuple(tuple) => tuple.elems.iter().map(values).sum(),
        Type::Reference(reference) => values(&reference.elem),
        Type::Paren(paren) => values(&paren.elem),
        _ => 1,
    }
}

fn parameters(function: &Function<'_>) -> usize {
    let inputs = function.signature.inputs.iter();
    inputs
        .map(|input| match input {
            FnArg::Receiver(_) => 0,
            FnArg::Typed(typed) => values(&typed.ty),
        })
        .sum()
}

fn many_parameters(source: &str) -> Vec<String> {
    let file = parse(source);
    let functions = code(&file).functions;
    // Of a trait, only what declares it is looked at.
    let ours = functions.iter().filter(|function| !function.is_dictated);
    ours.map(|function| (&function.name, parameters(function)))
        .filter(|(_, parameters)| *parameters > PARAMETERS_MAX)
        .map(|(name, parameters)| format!("{name} takes {parameters}"))
        .collect()
}

#[test]
fn functions_take_few_parameters() {
    assert_only_known(&product_files(many_parameters), KNOWN);
}

#[test]
fn many_parameters_are_found_also_in_tuples() {
    let five = "trait A { fn b(&self, c: u8, d: u8, e: &[(u8, u8)], f: Option<(u8, u8)>, g: u8); }";
    assert_eq!(many_parameters(five), [""; 0]);
    let six = "fn a(b: u8, c: u8, d: u8, e: u8, f: u8, g: u8) -> (u8, u8) { (1, 2) }";
    assert_eq!(many_parameters(six), ["a takes 6"]);
    let hidden = "impl A { fn b(&self, (c, d): (u8, u8), e: &(u8, (u8, u8)), f: u8) {} }";
    assert_eq!(many_parameters(hidden), ["A::b takes 6"]);
    let foreign = "impl A for B { fn c(d: u8, e: u8, f: u8, g: u8, h: u8, i: u8) {} }";
    assert_eq!(many_parameters(foreign), [""; 0]);
}
