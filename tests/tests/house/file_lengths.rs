//! A file can be read in one sitting.

use crate::sources::product_files;

/// Tests at its end may make a file longer.
const FILE_MAX_LINES: usize = 600;

fn too_long(source: &str) -> Vec<String> {
    let product = source
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let lines = product.lines().count();
    let too_long = (lines > FILE_MAX_LINES).then(|| format!("it has {lines} lines"));
    too_long.into_iter().collect()
}

#[test]
fn files_can_be_read_in_one_sitting() {
    assert_eq!(product_files(too_long), [""; 0]);
}

#[test]
fn a_long_file_is_found() {
    let tests = "#[cfg(test)]\nmod tests {\n}\n";
    assert_eq!(too_long(&("\n".repeat(600) + tests)), [""; 0]);
    assert_eq!(too_long(&"\n".repeat(601)), ["it has 601 lines"]);
}
