//! A function can be seen at one glance. Clippy counts its lines (`.clippy.toml`), and
//! product code may not tell it to look away.

use crate::sources::product_files;

fn looks_away(source: &str) -> Vec<String> {
    let lines = source.lines().enumerate();
    lines
        .filter(|(_, line)| line.contains("too_many_lines"))
        .map(|(number, _)| format!("line {}", number + 1))
        .collect()
}

#[test]
fn functions_can_be_seen_at_one_glance() {
    assert_eq!(product_files(looks_away), [""; 0]);
}

#[test]
fn a_function_that_may_be_long_is_found() {
    let allowed = "fn a() {}\n#[allow(clippy::too_many_lines)]\nfn b() {}\n";
    assert_eq!(looks_away(allowed), ["line 2"]);
}
