//! A function can be seen at one glance.

use crate::code::{code, parse};
use crate::known::assert_only_known;
use crate::sources::product_files;

/// As in `.clippy.toml`. Clippy can be told to look away, this rule cannot.
const FUNCTION_MAX_LINES: usize = 70;

/// To be mended and taken off.
const KNOWN: &[&str] = &[];

/// Lines with code, counted as clippy does.
fn code_lines(body: &str) -> usize {
    let mut in_comment = false;
    body.lines()
        .filter(|line| {
            let mut rest = line.trim();
            let mut has_code = false;
            while !rest.is_empty() {
                let mark = if in_comment { "*/" } else { "/*" };
                let line_comment = rest.find("//").filter(|_| !in_comment);
                let block = rest
                    .find(mark)
                    .filter(|at| line_comment.is_none_or(|c| *at < c));
                let end = block.or(line_comment).unwrap_or(rest.len());
                has_code |= !in_comment && !rest[..end].trim().is_empty();
                let Some(at) = block else { break };
                in_comment = !in_comment;
                rest = &rest[at + mark.len()..];
            }
            has_code
        })
        .count()
}

fn long_functions(source: &str) -> Vec<String> {
    let file = parse(source);
    let functions = code(&file).functions;
    let lengths = functions.iter().filter_map(|function| {
        let braces = function.body?.brace_token.span;
        let body = &source[braces.open().byte_range().end..braces.close().byte_range().start];
        Some((&function.name, code_lines(body)))
    });
    lengths
        .filter(|(_, lines)| *lines > FUNCTION_MAX_LINES)
        .map(|(name, lines)| format!("{name} has {lines} lines"))
        .collect()
}

#[test]
fn functions_can_be_seen_at_one_glance() {
    assert_only_known(&product_files(long_functions), KNOWN);
}

#[test]
fn a_long_function_is_found() {
    let body = |lines| "/* é */ a();\n".repeat(lines) + "\n// no code\n/* nor\n here\n */\n";
    let source = |lines| format!("// é\nimpl A {{ fn b() {{\n{} }} }}", body(lines));
    assert_eq!(long_functions(&source(70)), [""; 0]);
    assert_eq!(long_functions(&source(71)), ["A::b has 71 lines"]);
    let allowed = format!("#[allow(clippy::too_many_lines)] fn c() {{\n{}}}", body(72));
    assert_eq!(long_functions(&allowed), ["c has 72 lines"]);
    assert_eq!(long_functions(&format!("#[cfg(test)] {allowed}")), [""; 0]);
}
