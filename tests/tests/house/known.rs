//! What violates a rule today is listed beside the rule, and the lists only shrink.

use std::collections::BTreeSet;

/// What is found and not known, and what is known and not found any more.
fn differences(found: &[String], known: &[&str]) -> Vec<String> {
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    let known: BTreeSet<&str> = known.iter().copied().collect();
    let new = found.difference(&known).map(|it| format!("new: {it}"));
    let mended = known.difference(&found);
    new.chain(mended.map(|it| format!("mended, so take it off KNOWN: {it}")))
        .collect()
}

pub(crate) fn assert_only_known(found: &[String], known: &[&str]) {
    let differences = differences(found, known);
    assert!(differences.is_empty(), "\n{}\n", differences.join("\n"));
}

#[test]
fn what_is_new_and_what_is_mended_is_told() {
    let found = ["a".to_owned(), "b".to_owned()];
    assert_eq!(differences(&found, &["a", "b"]), [""; 0]);
    assert_eq!(
        differences(&found, &["b", "c"]),
        ["new: a", "mended, so take it off KNOWN: c"]
    );
}
