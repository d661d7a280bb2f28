//! Which crate may use which, and that versions are declared in one place.

use std::env::consts::{ARCH, OS};
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::sources::root;

/// Who may use whom. Tests may use all; nothing uses them.
const ARROWS: &[(&str, &[&str])] = &[
    ("pinhole-budget", &[]),
    ("pinhole-proto", &["pinhole-budget"]),
    ("pinhole-storage", &[]),
    ("pinhole-tls", &[]),
    (
        "pinhole-net",
        &["pinhole-budget", "pinhole-proto", "pinhole-tls"],
    ),
    ("pinhole-transfer", &["pinhole-budget"]),
    (
        "pinhole-server",
        &["pinhole-budget", "pinhole-proto", "pinhole-storage"],
    ),
    (
        "pinhole-client",
        &[
            "pinhole-budget",
            "pinhole-net",
            "pinhole-storage",
            "pinhole-storage",
            "pinhole-transfer",
        ],
    ),
    ("pinhole-cli", &["pinhole-client"]),
    ("pinhole-desktop", &["pinhole-client"]),
];

/// Only this platform's packages: others need not have been downloaded.
fn metadata() -> Value {
    let abi = match OS {
        "linux" => "unknown-linux-gnu",
        "macos" => "apple-darwin",
        _ => "pc-windows-msvc",
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--format-version", "1"]);
    cargo
        .arg("--filter-platform")
        .arg(format!("{ARCH}-{abi}"))
        .current_dir(root());
    let output = cargo.output().expect("cargo metadata");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn packages(metadata: &Value) -> &[Value] {
    metadata["packages"].as_array().expect("packages")
}

fn name(package: &Value) -> &str {
    package["name"].as_str().expect("a name")
}

fn wrong_arrows(metadata: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in packages(metadata)
        .iter()
        .filter(|package| package["source"].is_null())
    {
        if name(package) == "pinhole-tests" {
            continue;
        }
        let rule = ARROWS.iter().find(|(from, _)| *from == name(package));
        let Some((_, allowed)) = rule else {
            wrong.push(format!("{} has no place in the house", name(package)));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let (to, kind) = (name(dependency), dependency["kind"].as_str());
            let ours = to.starts_with("pinhole-");
            let forbidden = match kind {
                // A crate's own tests may set up the other side.
                Some("dev") => to == "pinhole-tests",
                _ => ours && !allowed.contains(&to),
            };
            if forbidden {
                wrong.push(format!("{} -> {to}", name(package)));
            }
        }
    }
    wrong
}

/// Dependencies that a member's manifest does not take over from the root.
fn own_versions(manifest: &str) -> Vec<&str> {
    let mut in_dependencies = false;
    let mut own = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && !line.trim().is_empty() && !line.starts_with('#') {
            let inherits = line.contains(".workspace = true") || line.contains("workspace = true,");
            if !inherits {
                own.push(line);
            }
        }
    }
    own
}

#[test]
fn crates_use_only_what_is_below_them() {
    assert_eq!(wrong_arrows(&metadata()), [""; 0]);
}

#[test]
fn a_wrong_arrow_is_found() {
    let package = |dependency: &str, kind: Value| {
        serde_json::json!({"packages": [{"name": "pinhole-proto", "source": null,
            "dependencies": [{"name": dependency, "kind": kind}]}]})
    };
    assert_eq!(
        wrong_arrows(&package("pinhole-net", Value::Null)),
        ["pinhole-proto -> pinhole-net"]
    );
    assert_eq!(wrong_arrows(&package("pinhole-net", "dev".into())), [""; 0]);
    assert_eq!(
        wrong_arrows(&package("pinhole-tests", "dev".into())).len(),
        1
    );
    assert_eq!(wrong_arrows(&package("serde", Value::Null)), [""; 0]);
}

#[test]
fn versions_are_declared_in_one_place() {
    let metadata = metadata();
    for package in packages(&metadata)
        .iter()
        .filter(|package| package["source"].is_null())
    {
        let path = package["manifest_path"].as_str().expect("a path");
        let manifest = fs::read_to_string(path).expect("a manifest");
        assert_eq!(own_versions(&manifest), [""; 0], "in {path}");
    }
    let bad = "[dependencies]\nserde.workspace = true\nrand = \"0.9\"\n[lints]\nworkspace = true";
    assert_eq!(own_versions(bad), ["rand = \"0.9\""]);
}
