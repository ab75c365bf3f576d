//! Writes one JSON line for every step and epoch of training.

use crate::error::{Error, Result};
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A JSONL file, one object a line, flushed after every line so that a crash loses nothing.
#[derive(Debug)]
pub struct TrainLog {
    path: PathBuf,
    file: BufWriter<File>,
}

impl TrainLog {
    /// Creates the file.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    /// Appends one object.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&mut self, record: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(record).map_err(|e| Error::format(self.path.display(), e))?;
        writeln!(self.file, "{line}").and_then(|()| self.file.flush()).map_err(|e| Error::io(&self.path, e))
    }
}
