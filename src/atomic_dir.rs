//! Makes a directory appear in one step, whole or not at all.

use crate::atomic_file::temporary_beside;
use crate::error::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A directory under a temporary name beside its place; dropped before [`NewDir::publish`], it vanishes.
#[derive(Debug)]
pub(crate) struct NewDir {
    temporary: PathBuf,
    place: PathBuf,
}

impl NewDir {
    /// Makes the directory, to be filled, beside `place`.
    ///
    /// # Errors
    /// If something is at `place` already or the directory above cannot be written.
    pub(crate) fn beside(place: &Path) -> Result<Self> {
        if place.file_name().is_none() {
            return Err(Error::Incompatible(format!("`{}` is not the name of a new directory", place.display())));
        }
        if place.symlink_metadata().is_ok() {
            return Err(Error::io(place, std::io::ErrorKind::AlreadyExists.into()));
        }
        let temporary = temporary_beside(place);
        std::fs::create_dir(&temporary).map_err(|e| Error::io(place, e))?;
        Ok(Self { temporary, place: place.to_path_buf() })
    }

    /// Where the files go.
    pub(crate) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Synchronises every file, then moves the directory to its place.
    ///
    /// # Errors
    /// If the disk refuses, or something has come to the place meanwhile.
    pub(crate) fn publish(self) -> Result<()> {
        let synchronised = std::fs::read_dir(&self.temporary)
            .and_then(|mut entries| entries.try_for_each(|entry| File::open(entry?.path())?.sync_all()));
        synchronised
            .and_then(|()| synchronise_names(&self.temporary))
            .and_then(|()| std::fs::rename(&self.temporary, &self.place))
            .and_then(|()| synchronise_names(self.place.parent().unwrap_or(Path::new(""))))
            .map_err(|e| Error::io(&self.place, e))
    }
}

impl Drop for NewDir {
    fn drop(&mut self) {
        // after `publish` nothing has this name any more; a failure here has an error before it that counts
        std::fs::remove_dir_all(&self.temporary).ok();
    }
}

/// Makes the names in a directory last; only Unix opens directories.
fn synchronise_names(dir: &Path) -> std::io::Result<()> {
    if cfg!(unix) && !dir.as_os_str().is_empty() { File::open(dir)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_directory_appears_with_all_its_files_or_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("model");
        let failed = NewDir::beside(&place).unwrap();
        std::fs::write(failed.path().join("half"), "x").unwrap();
        drop(failed);
        assert!(names(dir.path()).is_empty());
        let new = NewDir::beside(&place).unwrap();
        std::fs::write(new.path().join("whole"), "x").unwrap();
        assert!(!place.exists());
        new.publish().unwrap();
        assert_eq!((names(dir.path()), names(&place)), (vec!["model".into()], vec!["whole".into()]));
    }

    #[test]
    fn what_is_there_already_is_left_alone_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("model");
        std::fs::create_dir(&place).unwrap();
        let error = NewDir::beside(&place).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == place), "{error}");
        assert_eq!(names(dir.path()), ["model"]);
    }

    #[test]
    fn a_place_that_is_taken_meanwhile_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("model");
        let new = NewDir::beside(&place).unwrap();
        std::fs::create_dir_all(place.join("theirs")).unwrap();
        assert!(new.publish().is_err());
        assert_eq!((names(dir.path()), names(&place)), (vec!["model".into()], vec!["theirs".into()]));
    }
}
