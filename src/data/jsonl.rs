//! Reads JSON Lines files, plain or gzipped, with caps on what a hostile file can make us allocate.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::marker::PhantomData;

use crate::error::{Error, Result};
use crate::file_kind::mistaken;

/// The most bytes of text that one file may hold, **after** decompression (1 GiB).
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// The most bytes that one line may hold (16 MiB).
pub const MAX_LINE_BYTES: u64 = 1 << 24;

/// The first bytes of a gzip stream (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Calls `visit` with the number (from 1) and the text of every line that is not blank.
///
/// Compression is recognised by its first two bytes and not by the file's name. Every error names the file and
/// the line.
///
/// ```
/// use bayes_lora::data::for_each_line;
///
/// let dir = std::env::temp_dir().join("bayes_lora_doc_jsonl");
/// std::fs::create_dir_all(&dir)?;
/// let path = dir.join("numbers.jsonl");
/// std::fs::write(&path, "1\n\n2\n")?;
/// let mut seen = Vec::new();
/// for_each_line(&path, |line, text| {
///     seen.push((line, text.to_owned()));
///     Ok(())
/// })?;
/// assert_eq!(seen, [(1, "1".to_owned()), (3, "2".to_owned())]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Format`] for another kind of file, such as a pointer of Git LFS, and
/// with `file:line` for a truncated or corrupt gzip stream, invalid UTF-8, or more than [`MAX_FILE_BYTES`] or [`MAX_LINE_BYTES`]; and whatever `visit` returns.
pub fn for_each_line(path: impl AsRef<Path>, visit: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let path = path.as_ref();
    for_each_line_of(File::open(path).map_err(|e| Error::io(path, e))?, path, visit)
}

/// The same for a stream, such as standard input, as its lines arrive; `name` stands for its path in errors.
///
/// # Errors
/// As [`for_each_line`].
pub fn for_each_line_of(
    source: impl Read + 'static,
    name: impl AsRef<Path>,
    visit: impl FnMut(usize, &str) -> Result<()>,
) -> Result<()> {
    for_each_line_capped(source, name.as_ref(), (MAX_FILE_BYTES, MAX_LINE_BYTES), visit)
}

/// Reads the object of a line; `place` is where it stands, for errors.
///
/// # Errors
/// [`Error::Format`] with `place` for what is no object, and for fields that are not those of `T`.
pub(super) fn object<T: DeserializeOwned>(text: &str, place: &str) -> Result<T> {
    object_or_reason(text).map_err(|reason| Error::format(place, reason))
}

/// The same with the reason alone.
pub(super) fn object_or_reason<T: DeserializeOwned>(text: &str) -> std::result::Result<T, String> {
    if !text.starts_with('{') {
        let found = match serde_json::from_str(text) {
            Ok(Value::Array(_)) => "a list, ",
            Ok(Value::String(_)) => "a text, ",
            Ok(Value::Number(_)) => "a number, ",
            Ok(Value::Bool(_)) => "true or false, ",
            Ok(Value::Null) => "null, ",
            Ok(Value::Object(_)) | Err(_) => "",
        };
        return Err(format!("is {found}not a JSON object"));
    }
    serde_json::from_str(text).map_err(|e| e.to_string().replace(" at line 1 column", " at column"))
}

/// Reads `T` from an object alone, for `Deserialize` of what stands inside a line: serde would read a list as a struct, field by field.
///
/// # Errors
/// Names what was found in the object's place.
pub(super) fn only_object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    struct Object<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, fields: A) -> std::result::Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(fields))
        }
    }
    deserializer.deserialize_map(Object(PhantomData))
}

/// The name of what a line holds: its `id`, a text or a number, or the line's number.
///
/// # Errors
/// [`Error::Format`] with `place` for an id of another kind.
pub(super) fn name(id: Option<Value>, place: &str, number: usize) -> Result<String> {
    match id {
        None => Ok(number.to_string()),
        Some(Value::String(id)) => Ok(id),
        Some(Value::Number(id)) => Ok(id.to_string()),
        Some(other) => Err(Error::format(place, format!("`id` is {other}, no text and no number"))),
    }
}

/// `path:line`, the form of every location in this crate's data errors.
pub(crate) fn location(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.display())
}

/// Reads a whole small text file of at most `cap` bytes.
pub(crate) fn read_capped(path: &Path, cap: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    file.take(cap.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > cap {
        return Err(Error::format(path.display(), format!("holds more than the {cap} bytes allowed for this file")));
    }
    Ok(bytes)
}

fn for_each_line_capped(
    source: impl Read + 'static,
    path: &Path,
    (max_file, max_line): (u64, u64),
    mut visit: impl FnMut(usize, &str) -> Result<()>,
) -> Result<()> {
    let mut reader = decompressed(source, path)?;
    let mut buffer = Vec::new();
    let mut total = 0u64;
    for line in 1.. {
        buffer.clear();
        // One byte more than allowed tells "exactly at the cap" from "beyond it".
        let cap = max_line.min(max_file - total).saturating_add(1);
        let read =
            (&mut reader).take(cap).read_until(b'\n', &mut buffer).map_err(|e| read_error(path, line, e))? as u64;
        if read == 0 {
            break;
        }
        total += read;
        if total > max_file {
            return Err(Error::format(
                location(path, line),
                format!("the text exceeds the {max_file} bytes allowed for one file"),
            ));
        }
        if read > max_line {
            return Err(Error::format(
                location(path, line),
                format!("the line exceeds the {max_line} bytes allowed for one line"),
            ));
        }
        let text =
            std::str::from_utf8(&buffer).map_err(|e| Error::format(location(path, line), format!("not UTF-8: {e}")))?;
        let text = if line == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
        let text = text.trim();
        if !text.is_empty() {
            visit(line, text)?;
        }
    }
    Ok(())
}

fn decompressed(source: impl Read + 'static, path: &Path) -> Result<BufReader<Box<dyn Read>>> {
    let mut buffered = BufReader::new(source);
    let head = buffered.fill_buf().map_err(|e| Error::io(path, e))?;
    // an empty stream is an empty list of lines
    if let Some(reason) = mistaken(head).filter(|_| !head.is_empty()) {
        return Err(Error::format(path.display(), reason));
    }
    let source: Box<dyn Read> = if head.starts_with(&GZIP_MAGIC) {
        Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
    } else {
        Box::new(buffered)
    };
    Ok(BufReader::new(source))
}

fn read_error(path: &Path, line: usize, error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => {
            Error::format(location(path, line), "the gzip stream ends early: the file is truncated")
        }
        ErrorKind::InvalidData | ErrorKind::InvalidInput => {
            Error::format(location(path, line), format!("corrupt gzip stream: {error}"))
        }
        _ => Error::io(path, error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn lines_of(path: &Path, max_file: u64, max_line: u64) -> Result<Vec<(usize, String)>> {
        let mut seen = Vec::new();
        for_each_line_capped(File::open(path).unwrap(), path, (max_file, max_line), |line, text| {
            seen.push((line, text.to_owned()));
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn gzip_is_recognised_by_its_bytes_whatever_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plain_name.jsonl");
        std::fs::write(&path, gzip("a\nb\n")).unwrap();
        let zipped = lines_of(&path, 100, 100).unwrap();
        std::fs::write(&path, "\u{feff}a\r\nb").unwrap();
        assert_eq!(zipped, lines_of(&path, 100, 100).unwrap());
        assert_eq!(zipped, [(1, "a".to_owned()), (2, "b".to_owned())]);
    }

    #[test]
    fn a_stream_reads_as_a_file_does_and_errors_have_its_name() {
        let mut seen = Vec::new();
        let visit = |line: usize, text: &str| {
            seen.push((line, text.to_owned()));
            Ok(())
        };
        for_each_line_of(std::io::Cursor::new(gzip("a\n\nb")), "standard input", visit).unwrap();
        assert_eq!(seen, [(1, "a".to_owned()), (3, "b".to_owned())]);
        let error = for_each_line_of(&b"a\n\xff"[..], "standard input", |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("standard input:2"), "{error}");
    }

    #[test]
    fn concatenated_gzip_members_are_read_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("two.gz");
        std::fs::write(&path, [gzip("a\n"), gzip("b\n")].concat()).unwrap();
        assert_eq!(lines_of(&path, 100, 100).unwrap().len(), 2);
    }

    #[test]
    fn a_truncated_gzip_stream_is_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.jsonl.gz");
        let whole = gzip(&"some text that compresses a little\n".repeat(50));
        std::fs::write(&path, &whole[..whole.len() - 6]).unwrap();
        let message = lines_of(&path, 1 << 20, 1 << 20).unwrap_err().to_string();
        assert!(message.contains("cut.jsonl.gz:"), "{message}");
        assert!(message.contains("truncated"), "{message}");
    }

    #[test]
    fn a_small_archive_that_grows_past_the_cap_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bomb.gz");
        std::fs::write(&path, gzip(&"x\n".repeat(50_000))).unwrap();
        let message = lines_of(&path, 1000, 1000).unwrap_err().to_string();
        assert!(message.contains("1000 bytes allowed for one file"), "{message}");
        std::fs::write(&path, gzip(&"x".repeat(50_000))).unwrap();
        let message = lines_of(&path, 1 << 20, 1000).unwrap_err().to_string();
        assert!(message.contains("1000 bytes allowed for one line"), "{message}");
    }

    #[test]
    fn a_file_exactly_at_the_cap_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exact");
        std::fs::write(&path, "abc\ndef").unwrap();
        assert_eq!(lines_of(&path, 7, 4).unwrap().len(), 2);
        assert!(lines_of(&path, 6, 4).is_err());
        assert!(lines_of(&path, 7, 3).is_err());
    }

    #[test]
    fn bytes_that_are_not_utf8_name_their_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad.jsonl");
        std::fs::write(&path, b"ok\n\xff\xfe\n").unwrap();
        let message = lines_of(&path, 100, 100).unwrap_err().to_string();
        assert!(message.contains("bad.jsonl:2"), "{message}");
    }

    #[test]
    fn a_missing_file_and_an_oversized_small_file_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent");
        assert!(matches!(for_each_line(&path, |_, _| Ok(())), Err(Error::Io { .. })));
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_capped(&path, 5).unwrap(), b"12345");
        assert!(read_capped(&path, 4).is_err());
    }
}
