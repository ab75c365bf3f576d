//! Checks names before they become parts of paths and addresses.

use crate::error::{Error, Result};
use crate::plain_name::is_plain;

/// Longest repository id, the hub's own limit.
const MAX_ID: usize = 96;

/// Longest name of a revision or a file.
const MAX_NAME: usize = 255;

fn all(text: &str, more: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

/// A part between slashes that is a plain name on every system and hides nothing.
fn is_part(part: &str) -> bool {
    is_plain(part) && all(part, "-_.+=@") && !part.starts_with(['.', '-'])
}

/// Checks a repository's id, `name` or `org/name`.
///
/// # Errors
/// [`Error::Config`] for whatever could leave the cache's directory or the hub's address.
pub(super) fn check_repository(id: &str) -> Result<()> {
    let parts: Vec<&str> = id.split('/').collect();
    let good = |part: &&str| is_part(part) && all(part, "-_.");
    // the cache writes `/` as `--`
    if parts.len() <= 2 && parts.iter().all(good) && !id.contains("--") && !id.contains("..") && id.len() <= MAX_ID {
        return Ok(());
    }
    let bound = format!("`name` or `org/name` of letters, digits, `-`, `_` and `.`, at most {MAX_ID}");
    Err(Error::config("repository", bound, id))
}

/// Checks a branch, tag or commit; slashes may lie between plain parts (`refs/pr/1`).
///
/// # Errors
/// As [`check_repository`].
pub(super) fn check_revision(revision: &str) -> Result<()> {
    if revision.split('/').all(is_part) && !revision.contains("..") && revision.len() <= MAX_NAME {
        return Ok(());
    }
    Err(Error::config("revision", "a branch, tag or commit of plain parts", revision))
}

/// Checks the name of a file in a repository.
///
/// # Errors
/// As [`check_repository`].
pub(super) fn check_file(name: &str) -> Result<()> {
    if is_part(name) && name.len() <= MAX_NAME {
        return Ok(());
    }
    Err(Error::config("file in the repository", "a plain file name of letters, digits and `-_.+=@`", name))
}

/// Whether a revision is a commit, whose files never change.
pub(super) fn is_commit(revision: &str) -> bool {
    is_hex(revision, 40)
}

/// Whether a text is so many lower-case hexadecimal digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in [
            "", "/a", "a/", "a//b", "a/b/c", "..", "../a", "a/..", "a\\b", "C:/a", "a b", "a--b", "a..b", ".a/b",
            "a/b?c", "-a",
        ] {
            assert!(check_repository(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "..", "a/../b", "/a", "a\\b", "a:b", "refs//1", "a#b", "a%2Fb"] {
            assert!(check_revision(bad).is_err(), "{bad:?}");
        }
        for bad in ["", ".", "..", "a/b", "../a", "/etc/passwd", "a\\b", "C:a", ".hidden", "a?b", "a b", "a\n"] {
            assert!(check_file(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_the_hub_pass() {
        for id in ["gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen2.5-0.5B", "a_b/c.d"] {
            check_repository(id).unwrap();
        }
        for revision in ["main", "v1.0", "refs/pr/1", "0123456789abcdef0123456789abcdef01234567"] {
            check_revision(revision).unwrap();
        }
        check_file("model-00001-of-00002.safetensors").unwrap();
        assert!(is_commit("0123456789abcdef0123456789abcdef01234567") && !is_commit("main"));
    }
}
