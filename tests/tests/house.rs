//! The rules of the house (ARCHITECTURE.md): which crate may use which, what
//! may not be in it, how long a file may be.
//! Each rule is a function from text to complaints, shown to complain too.

use std::env::consts::{ARCH, OS};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may use whom. Tests may use all; nothing uses them.
const ARROWS: &[(&str, &[&str])] = &[
    ("pinhole-budget", &[]),
    ("pinhole-proto", &["pinhole-budget"]),
    ("pinhole-tls", &[]),
    (
        "pinhole-net",
        &["pinhole-budget", "pinhole-proto", "pinhole-tls"],
    ),
    ("pinhole-transfer", &["pinhole-budget"]),
    ("pinhole-server", &["pinhole-budget", "pinhole-proto"]),
    (
        "pinhole-client",
        &["pinhole-budget", "pinhole-net", "pinhole-transfer"],
    ),
    ("pinhole-cli", &["pinhole-client"]),
    ("pinhole-desktop", &["pinhole-client"]),
];

/// What may not appear in a folder's code, tests and comments aside.
struct Ban {
    folder: &'static str,
    /// Files whose very purpose is what is banned elsewhere.
    except: &'static [&'static str],
    words: &'static [&'static str],
}

const BANS: &[Ban] = &[
    Ban {
        folder: "crates/budget/src",
        except: &[],
        words: &["tokio", "Instant::now", "SystemTime", "Mutex", "std::fs"],
    },
    Ban {
        folder: "crates/proto/src",
        except: &[],
        words: &[
            "tokio",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "socket2",
            "Instant::now",
            "SystemTime",
            "SystemRandom",
            "rand::",
            "std::fs",
            "File::",
        ],
    },
    Ban {
        folder: "crates/tls/src",
        except: &[],
        words: &[
            "tokio",
            "std::io",
            "std::net",
            "std::fs",
            "Instant::now",
            "SystemTime",
        ],
    },
    Ban {
        folder: "crates/net/src",
        except: &[],
        words: &["std::fs", "tokio::fs", "File::", "println!"],
    },
    Ban {
        folder: "crates/transfer/src",
        except: &[],
        words: &[
            "std::net",
            "tokio::net",
            "SocketAddr",
            "PeerName",
            "println!",
        ],
    },
    Ban {
        folder: "crates/client/src",
        except: &[],
        words: &["egui", "clap", "print!", "println!"],
    },
    Ban {
        folder: "crates/cli/src",
        except: &[],
        words: &["TcpStream", "rustls", "sha2"],
    },
    Ban {
        folder: "crates/desktop/src",
        except: &["bridge.rs", "dialogs.rs"],
        words: &[
            "tokio",
            "block_on",
            "thread::sleep",
            "std::net",
            "TcpStream",
        ],
    },
];

/// Tests at its end may make a file longer.
const FILE_MAX_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

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

/// The text without comments and without what is compiled for tests only.
fn product_code(source: &str) -> String {
    let end = source
        .find("#[cfg(test)]\nmod tests")
        .unwrap_or(source.len());
    let lines = source[..end]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn forbidden<'a>(source: &str, words: &[&'a str]) -> Vec<&'a str> {
    let code = product_code(source);
    words
        .iter()
        .copied()
        .filter(|word| code.contains(word))
        .collect()
}

/// Modules that a file declares for tests only, as paths beside it.
fn test_modules(file: &Path, source: &str) -> Vec<PathBuf> {
    let stem = file.file_stem().expect("a file name");
    let folder = file.parent().expect("a folder");
    let is_root = ["lib", "main", "mod"].iter().any(|root| *root == stem);
    let folder = if is_root {
        folder.to_owned()
    } else {
        folder.join(stem)
    };
    let names = source
        .split("#[cfg(test)]\nmod ")
        .skip(1)
        .filter_map(|rest| rest.split_once(';'));
    names
        .filter(|(name, _)| !name.contains('{'))
        .map(|(name, _)| folder.join(name))
        .collect()
}

/// All Rust files under a folder with their text, without test-only modules.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(current) = waiting.pop() {
        let entries =
            fs::read_dir(&current).unwrap_or_else(|e| panic!("{}: {e}", current.display()));
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).expect("a source file");
                files.push((path, source));
            }
        }
    }
    let test_only: Vec<PathBuf> = files
        .iter()
        .flat_map(|(file, s)| test_modules(file, s))
        .collect();
    files.retain(|(file, _)| {
        !test_only
            .iter()
            .any(|module| file.with_extension("") == *module || file.starts_with(module))
    });
    files
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
fn crates_hold_nothing_that_belongs_elsewhere() {
    for ban in BANS {
        for (file, source) in sources(&root().join(ban.folder)) {
            if !ban.except.iter().any(|name| file.ends_with(name)) {
                assert_eq!(
                    forbidden(&source, ban.words),
                    [""; 0],
                    "in {}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn a_forbidden_word_is_found_but_not_in_comments_and_tests() {
    let source =
        "// tokio\nfn a() {\n    std::fs::read();\n}\n#[cfg(test)]\nmod tests {\n  clap\n}";
    assert_eq!(
        forbidden(source, &["tokio", "std::fs", "clap"]),
        ["std::fs"]
    );
    let declared = test_modules(
        Path::new("src/agent.rs"),
        "#[cfg(test)]\nmod simulator;\nmod a;",
    );
    assert_eq!(declared, [Path::new("src/agent/simulator")]);
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

#[test]
fn files_can_be_read_in_one_sitting() {
    let crates = fs::read_dir(root().join("crates")).expect("crates");
    let folders = crates
        .map(|entry| entry.expect("an entry").path())
        .chain([root().join("tests")]);
    for (file, source) in folders.flat_map(|folder| sources(&folder.join("src"))) {
        let product = source
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default();
        let lines = product.lines().count();
        assert!(
            lines <= FILE_MAX_LINES,
            "{} has {lines} lines",
            file.display()
        );
    }
}
