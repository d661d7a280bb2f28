//! What may not be in a crate.

use crate::sources::{root, sources};

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
        folder: "crates/storage/src",
        except: &[],
        words: &["tokio", "std::net", "Instant::now", "SystemTime"],
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
        folder: "crates/client/src/state",
        except: &["world.rs"],
        words: &[
            "tokio",
            "Instant::now",
            "SystemTime",
            "std::fs",
            "std::thread",
            "Mutex",
        ],
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
}
