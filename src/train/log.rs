//! Writes one JSON line for every step and epoch of training.

use crate::error::{Error, Result};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A JSONL file, one object a line, each written at once so that a crash loses nothing and a full disk leaves no half line.
#[derive(Debug)]
pub struct TrainLog {
    path: PathBuf,
    file: File,
    length: u64,
}

impl TrainLog {
    /// Creates the file.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::resume(path, 0)
    }

    /// Opens a file to go on after its first `length` bytes; what is behind them is dropped.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn resume(path: impl AsRef<Path>, length: u64) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let open = || {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            let found = file.metadata()?.len();
            if found > length {
                file.set_len(length)?;
            }
            // a shorter file has lost its end to the same crash: go on after what it has
            Ok((file, length.min(found)))
        };
        let (file, length) = open().map_err(|e| Error::io(&path, e))?;
        Ok(Self { path, file, length })
    }

    /// Bytes of all lines so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends one object; a line that does not fit is left out whole.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(|e| Error::format(self.path.display(), e))?;
        line.push(b'\n');
        let start = self.file.seek(SeekFrom::Start(self.length));
        match start.and_then(|_| self.file.write_all(&line)) {
            Ok(()) => {
                self.length += line.len() as u64;
                Ok(())
            }
            Err(e) => {
                // the first error is the one to report, whether or not tidying up succeeds
                self.file.set_len(self.length).ok();
                Err(Error::io(&self.path, e))
            }
        }
    }
}
