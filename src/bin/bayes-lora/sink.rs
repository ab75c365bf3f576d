//! Where lines of JSON go: to standard output as they come, or into a file that appears whole.

use crate::session::Outcome;
use bayes_lora::outputs::claim_file;
use serde::Serialize;
use std::fs::{File, remove_file, rename};
use std::io::{BufWriter, Write, stdout};
use std::path::{Path, PathBuf};

pub enum Sink {
    Output,
    File(Unfinished),
}

/// A file under another name, which is removed unless it is finished.
pub struct Unfinished {
    place: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
}

impl Sink {
    /// Claims the file, or takes standard output.
    pub fn open(out: Option<&Path>) -> Outcome<Self> {
        let Some(place) = out else { return Ok(Self::Output) };
        claim_file(place, 0)?;
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let part = place.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let file = File::create(&part).map_err(|error| format!("{}: {error}", part.display()))?;
        Ok(Self::File(Unfinished { place: place.into(), part, file: BufWriter::new(file) }))
    }

    pub fn put(&mut self, line: &impl Serialize) -> Outcome {
        let line = serde_json::to_string(line)?;
        match self {
            Self::Output => Ok(writeln!(stdout(), "{line}")?),
            Self::File(Unfinished { place, file, .. }) => {
                Ok(writeln!(file, "{line}").map_err(|error| format!("{}: {error}", place.display()))?)
            }
        }
    }

    /// Puts the file in its place.
    pub fn finish(self) -> Outcome {
        let Self::File(mut unfinished) = self else { return Ok(()) };
        let Unfinished { place, part, file } = &mut unfinished;
        let done = file.flush().and_then(|()| file.get_ref().sync_all()).and_then(|()| rename(part, &place));
        Ok(done.map_err(|error| format!("{}: {error}", place.display()))?)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // gone already where it was finished
        remove_file(&self.part).ok();
    }
}

/// The file with a further ending.
pub fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
