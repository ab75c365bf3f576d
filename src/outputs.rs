//! Checks before long work that its results will have a place, and finds another place where they lose it meanwhile.
//!
//! ```no_run
//! use bayes_lora::outputs::{claim_file, save_or_rescue};
//! use std::path::Path;
//!
//! # fn train() -> Vec<u8> { Vec::new() }
//! let place = Path::new("out/weights.bin");
//! claim_file(place, 30 << 20)?; // before the work: a directory that is read-only, a disk without 30 MiB
//! let weights = train();
//! save_or_rescue(place, |path| bayes_lora::atomic_file::write_atomic(path, &weights))?;
//! # Ok::<(), bayes_lora::Error>(())
//! ```

use crate::atomic_file::temporary_beside;
use crate::error::{Error, Result};
use std::fs::{OpenOptions, create_dir, create_dir_all, remove_file};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Checks that a file of about `bytes` can be written to `path` in one step, as [`crate::atomic_file::write_atomic`] does: it writes
/// and removes an empty file beside it. Directories that are missing are made; a file that is there stays as it is.
///
/// The room is asked for where the system tells it (on Unix), and may be gone when the work is done.
///
/// # Errors
/// If `path` is a directory, the directory above cannot be made or written, or has less room; both numbers are named.
pub fn claim_file(path: impl AsRef<Path>, bytes: u64) -> Result<()> {
    let path = path.as_ref();
    if path.is_dir() || path.file_name().is_none() {
        return Err(Error::io(path, ErrorKind::IsADirectory.into()));
    }
    claim(path, bytes)
}

/// Checks that files of about `bytes` in all can be written into the directory `dir`, which is made where it is missing.
///
/// # Errors
/// As [`claim_file`].
pub fn claim_dir(dir: impl AsRef<Path>, bytes: u64) -> Result<()> {
    claim(&dir.as_ref().join("claimed"), bytes)
}

fn claim(path: &Path, bytes: u64) -> Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_dir_all(dir).map_err(|e| match e.kind() {
        // a file has the name of the directory
        ErrorKind::AlreadyExists => Error::io(dir, ErrorKind::NotADirectory.into()),
        _ => Error::io(dir, e),
    })?;
    let probe = temporary_beside(path);
    let written = OpenOptions::new().write(true).create_new(true).open(&probe).and_then(|_| remove_file(&probe));
    written.map_err(|e| Error::io(dir, e))?;
    match free_bytes(dir) {
        Some(free) if free < bytes => {
            let reason = format!("about {bytes} bytes will be written, and {free} are free");
            Err(Error::io(dir, std::io::Error::new(ErrorKind::StorageFull, reason)))
        }
        _ => Ok(()),
    }
}

/// Bytes that may still be written in a directory, where the system tells.
#[cfg(unix)]
fn free_bytes(dir: &Path) -> Option<u64> {
    let about = rustix::fs::statvfs(dir).ok()?;
    // file systems of the network and of the kernel may count no blocks
    (about.f_blocks > 0).then(|| about.f_bavail.saturating_mul(about.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_dir: &Path) -> Option<u64> {
    None
}

/// Saves a result at `place`; where that fails, under the same name in a new folder of the system's temporary directory, so that the
/// work is not lost with its place.
///
/// # Errors
/// [`Error::Rescued`] with the reason and the place where the result is instead; the reason alone if that place refuses, too.
pub fn save_or_rescue(place: impl AsRef<Path>, save: impl Fn(&Path) -> Result<()>) -> Result<()> {
    rescue_into(&std::env::temp_dir(), place.as_ref(), save)
}

fn rescue_into(shelter: &Path, place: &Path, save: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let Err(reason) = save(place) else { return Ok(()) };
    let Some(folder) = new_folder(shelter) else { return Err(reason) };
    let instead = folder.join(place.file_name().unwrap_or("result".as_ref()));
    match save(&instead) {
        Ok(()) => Err(Error::Rescued { reason: Box::new(reason), place: instead }),
        Err(_) => Err(reason),
    }
}

/// Makes a folder that nobody had, so that nothing of others is written over.
fn new_folder(shelter: &Path) -> Option<PathBuf> {
    let mut names = (0..1000).map(|serial| shelter.join(format!("bayes_lora-{}-{serial}", std::process::id())));
    names.find(|folder| create_dir(folder).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atomic_file::write_atomic;

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_can_be_written_is_claimed_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, file) = (dir.path().join("new/inner"), dir.path().join("new/inner/a.bin"));
        claim_file(&file, 1).unwrap();
        assert_eq!(names(&inner), Vec::<String>::new());
        std::fs::write(&file, "kept").unwrap();
        claim_file(&file, 1).unwrap();
        claim_dir(&inner, 1).unwrap();
        assert_eq!((names(&inner), std::fs::read(&file).unwrap()), (vec!["a.bin".into()], b"kept".to_vec()));
    }

    #[test]
    fn what_cannot_be_written_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refused = |outcome: Result<()>, path: &Path| {
            let error = outcome.unwrap_err();
            assert!(matches!(&error, Error::Io { path: p, .. } if p == path), "{error}");
            error.to_string()
        };
        // not even root makes a directory below a file
        let text = refused(claim_file(file.join("a.bin"), 0), &file);
        assert!(text.ends_with("not a directory"), "{text}");
        refused(claim_dir(file.join("inner"), 0), &file.join("inner"));
        refused(claim_dir(&file, 0), &file);
        refused(claim_file(dir.path(), 0), dir.path());
        refused(claim_file("/", 0), Path::new("/"));
        if cfg!(unix) {
            let text = refused(claim_file(dir.path().join("large"), u64::MAX), dir.path());
            assert!(text.contains(&u64::MAX.to_string()) && text.contains("are free"), "{text}");
        }
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn a_result_that_loses_its_place_is_kept_elsewhere_and_says_where() {
        let (dir, shelter) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let save = |path: &Path| write_atomic(path, b"dear");
        rescue_into(shelter.path(), &dir.path().join("a.bin"), save).unwrap();
        assert_eq!((names(dir.path()), names(shelter.path()).len()), (vec!["a.bin".into()], 0));
        let place = dir.path().join("gone/b.bin");
        let error = rescue_into(shelter.path(), &place, save).unwrap_err();
        let text = error.to_string();
        let Error::Rescued { place: instead, .. } = error else { panic!("{text}") };
        assert!(instead.starts_with(shelter.path()) && instead.ends_with("b.bin"));
        assert_eq!(std::fs::read(&instead).unwrap(), b"dear");
        assert!([&place, &instead].iter().all(|path| text.contains(&path.display().to_string())), "{text}");
        // where nothing can be saved, the first reason counts
        let nowhere = dir.path().join("gone");
        let error = rescue_into(&nowhere, &place, save).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == place), "{error}");
    }
}
