//! Replaces a file in one step, so that a reader or a crash never meets half of it.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Distinguishes the temporary names of concurrent writers within this process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A name that nothing has yet, beside `path`: what is made under it can be renamed to `path` in one step.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}-{serial}.tmp", std::process::id()))
}

/// Writes `bytes` to `path`: temporary file in the same directory, synchronise, rename.
///
/// # Errors
/// [`Error::Io`] with `path`; the temporary file is then removed and an older file at `path` is untouched.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let temporary = temporary_beside(path);
    let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(|e| Error::io(path, e))?;
    fill(file, bytes).and_then(|()| std::fs::rename(&temporary, path)).map_err(|e| {
        // The first error is the one to report, whether or not tidying up succeeds.
        std::fs::remove_file(&temporary).ok();
        Error::io(path, e)
    })
}

/// Takes the file by value: Windows renames only what is closed.
fn fill(mut file: File, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_second_write_replaces_the_first_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, b"a long first content").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(names(dir.path()), ["a.txt"]);
    }

    #[test]
    fn a_failed_rename_names_the_destination_and_cleans_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        // A directory with something in it cannot be replaced by a file.
        std::fs::create_dir_all(path.join("child")).unwrap();
        let error = write_atomic(&path, b"x").unwrap_err();
        assert!(matches!(&error, Error::Io { path: p, .. } if *p == path), "{error}");
        assert_eq!(names(dir.path()), ["taken"]);
    }

    #[test]
    fn a_missing_directory_names_the_destination() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent/a.txt");
        let error = write_atomic(&path, b"x").unwrap_err();
        assert!(matches!(&error, Error::Io { path: p, .. } if *p == path), "{error}");
    }
}
