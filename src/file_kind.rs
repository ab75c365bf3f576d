//! Tells what a file is that is not what its name says: a pointer of Git LFS, an error page, a container of another kind.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;

/// Beginning of a file that is enough for [`mistaken`].
pub(crate) const HEAD_BYTES: u64 = 512;

/// What a file that begins with `head` is, and what to do about it; `None` where it may be what its reader expects.
pub(crate) fn mistaken(head: &[u8]) -> Option<String> {
    if head.is_empty() {
        return Some("is empty: its download or its copy did not finish".into());
    }
    if head.starts_with(b"version https://git-lfs.github.com/spec/") {
        let text = String::from_utf8_lossy(head);
        let size = text.lines().find_map(|line| line.strip_prefix("size ")).unwrap_or("unknown number of");
        return Some(format!(
            "is a Git LFS pointer and not the file itself, whose {size} bytes were not fetched: run `git lfs pull` in its \
             repository, or download the file again"
        ));
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins = |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
    if ["<!doctype html", "<html", "<head", "<?xml"].into_iter().any(begins) {
        let reason =
            "is a web page, as servers send for a file that is missing or that asks for a login: download it again";
        return Some(reason.into());
    }
    let length = head.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let is_safetensors = length.is_some_and(|n| n < 1 << 32) && head.get(8) == Some(&b'{');
    let reason = match head {
        [b'G', b'G', b'U', b'F', ..] => "is a GGUF file: `Pretrained::from_gguf` reads those",
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => {
            "is a pickle of PyTorch, which may run code and is not read: save the weights as safetensors"
        }
        _ if is_safetensors => "is a safetensors file: `Pretrained::from_dir` reads the directory of one",
        _ => return None,
    };
    Some(reason.into())
}

/// Parses the content of the JSON file at `location`.
///
/// # Errors
/// If it is no such JSON, with what it is instead where that is known.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8], location: impl std::fmt::Display) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::format(location, mistaken(bytes).unwrap_or_else(|| e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_stand_in_for_others_are_told_by_their_first_bytes() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        for (head, parts) in [
            (&pointer[..], &["Git LFS pointer", "12345 bytes", "git lfs pull"][..]),
            (b"", &["empty"]),
            (b"\xef\xbb\xbf \n<!DOCTYPE html><title>Sign in", &["web page", "login"]),
            (b"<HTML>", &["web page"]),
            (b"<?xml version=\"1.0\"?><Error>", &["web page"]),
            (b"GGUF\x03\0\0\0", &["GGUF", "from_gguf"]),
            (b"PK\x03\x04\0\0", &["pickle", "safetensors"]),
            (b"\x80\x02\x8a\x0a", &["pickle"]),
            (b"\x10\0\0\0\0\0\0\0{\"a\"", &["safetensors", "from_dir"]),
        ] {
            let reason = mistaken(head).unwrap();
            assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
        }
        for head in [&b"{\"a\": 1}"[..], b"<s>", b"\x1f\x8b\x08", b"version 2", b"\0"] {
            assert_eq!(mistaken(head), None, "{head:?}");
        }
    }

    #[test]
    fn malformed_json_says_where_unless_it_is_another_file_altogether() {
        let reason = |bytes: &[u8]| parse_json::<Vec<u8>>(bytes, "there").unwrap_err().to_string();
        assert!(reason(b"[1,").contains("line 1"));
        assert!(reason(b"<html>").starts_with("there: is a web page"));
    }
}
