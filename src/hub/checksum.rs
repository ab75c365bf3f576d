//! Verifies a file against the checksum by which the hub names its content.

use super::names::is_hex;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::io::Read;

/// How many bytes are hashed at once.
const CHUNK: usize = 1 << 16;

/// The hub's name of a content, its etag: SHA-256 of a large file, or git's hash of a small one, which is SHA-1 over
/// `blob <size>\0` and the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checksum(String);

impl Checksum {
    /// Reads an etag; `None` if it is neither of the two.
    pub(super) fn from_etag(etag: &str) -> Option<Self> {
        let text = etag.trim().trim_start_matches("W/").trim_matches('"');
        (is_hex(text, 64) || is_hex(text, 40)).then(|| Self(text.to_string()))
    }

    /// Its hexadecimal digits, the blob's name in the cache.
    pub(super) fn hex(&self) -> &str {
        &self.0
    }

    /// The checksum of the same kind of `size` bytes that `content` holds.
    pub(super) fn of(&self, mut content: impl Read, size: u64) -> std::io::Result<Self> {
        let mut context = Context::new(if self.0.len() == 64 { &SHA256 } else { &SHA1_FOR_LEGACY_USE_ONLY });
        if self.0.len() == 40 {
            context.update(format!("blob {size}\0").as_bytes());
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            match content.read(&mut chunk)? {
                0 => break,
                n => context.update(&chunk[..n]),
            }
        }
        Ok(Self(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_sha256sum_and_git() {
        // `printf 'hello\n' | sha256sum`, and `| git hash-object --stdin`
        for hex in [
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ] {
            let expected = Checksum::from_etag(&format!("\"{hex}\"")).unwrap();
            assert_eq!(expected.of(&b"hello\n"[..], 6).unwrap(), expected);
            assert_ne!(expected.of(&b"hallo\n"[..], 6).unwrap(), expected);
        }
    }

    #[test]
    fn an_etag_that_is_no_checksum_is_none() {
        for etag in
            ["", "\"../../a\"", "abc", "5d41402abc4b2a76b9719d911017c592", "CE013625030BA8DBA906F756967F9E9CA394464A"]
        {
            assert_eq!(Checksum::from_etag(etag), None, "{etag}");
        }
    }
}
