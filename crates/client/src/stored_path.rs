//! Paths in the profile's JSON. Not every path is text, and JSON holds only text.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path as it is stored: a string where it is Unicode, else its encoded bytes
/// ([`std::ffi::OsStr::as_encoded_bytes`]) in hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredPath {
    Text(String),
    Encoded { encoded: String },
}

impl From<&Path> for StoredPath {
    fn from(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Encoded {
                encoded: HEXLOWER.encode(path.as_os_str().as_encoded_bytes()),
            },
        }
    }
}

impl StoredPath {
    fn decode(self) -> Option<PathBuf> {
        match self {
            Self::Text(text) => Some(text.into()),
            Self::Encoded { encoded } => decode(&HEXLOWER.decode(encoded.as_bytes()).ok()?),
        }
    }
}

#[cfg(unix)]
fn decode(bytes: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    Some(OsString::from_vec(bytes.to_vec()).into())
}

/// Windows: WTF-8, in which only unpaired surrogates are not UTF-8.
#[cfg(windows)]
fn decode(bytes: &[u8]) -> Option<PathBuf> {
    use std::os::windows::ffi::OsStringExt as _;
    let mut units = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let valid = match std::str::from_utf8(rest) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(rest.get(..error.valid_up_to())?).ok()?,
        };
        units.extend(valid.encode_utf16());
        rest = rest.get(valid.len()..)?;
        if let [first, second, third, after @ ..] = rest {
            let bits = |byte: u8, mask: u8| u16::from(byte & mask);
            units.push(bits(*first, 0x0f) << 12 | bits(*second, 0x3f) << 6 | bits(*third, 0x3f));
            rest = after;
        } else if !rest.is_empty() {
            return None;
        }
    }
    Some(OsString::from_wide(&units).into())
}

fn decoded<E: serde::de::Error>(stored: StoredPath) -> Result<PathBuf, E> {
    stored
        .decode()
        .ok_or_else(|| E::custom("a path that this system cannot have"))
}

/// For `#[serde(with)]` on a path.
pub(crate) mod required {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        StoredPath::from(path).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PathBuf, D::Error> {
        decoded(StoredPath::deserialize(deserializer)?)
    }
}

/// For `#[serde(with)]` on an optional path.
pub(crate) mod optional {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let stored = path.as_deref().map(StoredPath::from);
        stored.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        let stored: Option<StoredPath> = Option::deserialize(deserializer)?;
        stored.map(decoded).transpose()
    }
}

/// For `#[serde(with)]` on a list of paths.
pub(crate) mod list {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        paths: &[PathBuf],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| StoredPath::from(path.as_path())))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PathBuf>, D::Error> {
        let stored: Vec<StoredPath> = Vec::deserialize(deserializer)?;
        stored.into_iter().map(decoded).collect()
    }
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both {
        #[serde(with = "optional")]
        one: Option<PathBuf>,
        #[serde(with = "list")]
        all: Vec<PathBuf>,
    }

    #[test]
    fn every_path_survives_being_stored() {
        let latin_1 = PathBuf::from(OsString::from_vec(b"/in/caf\xe9".to_vec()));
        for one in [None, Some(latin_1.clone()), Some("/in/caf\u{e9}".into())] {
            let both = Both {
                one,
                all: vec![latin_1.clone(), "plain".into()],
            };
            let json = serde_json::to_string(&both).unwrap();
            assert_eq!(serde_json::from_str::<Both>(&json).unwrap(), both, "{json}");
        }
    }

    #[test]
    fn a_path_that_is_text_is_stored_as_before() {
        let both = Both {
            one: Some("/a".into()),
            all: vec!["b".into()],
        };
        let json = serde_json::to_string(&both).unwrap();
        assert_eq!(json, r#"{"one":"/a","all":["b"]}"#);
    }
}
