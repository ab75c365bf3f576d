//! Answers of an unfinished run: whole blocks, each in a file of its own, until all are there.

use crate::kinds::{Answered, Block, Known};
use crate::sink::beside;
use bayes_lora::atomic_file::write_atomic;
use bayes_lora::error::{Error, Result};
use bayes_lora::identity::Identity;
use bayes_lora::outputs::claim_dir;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What the answers depend on, in the directory of the blocks.
const IDENTITY: &str = "made_by.json";

/// The blocks that are there, and where their answers will be.
pub struct Kept {
    out: PathBuf,
    dir: PathBuf,
    n_blocks: usize,
}

/// The first line of a block's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// A hash of the lines that are answered.
    lines: String,
    n_lines: usize,
    n_shortened: usize,
    known: Vec<Known>,
}

impl Kept {
    /// Opens the directory of an earlier run, or makes one.
    ///
    /// # Errors
    /// If the answers there are those of another run: what differs is named, and nothing is removed.
    pub fn open(out: &Path, identity: Identity) -> Result<Self> {
        let dir = beside(out, "unfinished");
        claim_dir(&dir, 0)?;
        let file = dir.join(IDENTITY);
        if file.try_exists().map_err(|error| Error::io(&file, error))? {
            let bytes = std::fs::read(&file).map_err(|error| Error::io(&file, error))?;
            let there: Identity =
                serde_json::from_slice(&bytes).map_err(|error| Error::format(file.display(), error))?;
            if let Some(difference) = identity.difference(&there) {
                let reason = "holds the answers of another run, remove it to start anew";
                return Err(Error::format(dir.display(), format!("{reason}: {difference}")));
            }
        } else {
            let text = serde_json::to_vec_pretty(&identity).map_err(|error| Error::format(file.display(), error))?;
            write_atomic(&file, &text)?;
        }
        Ok(Self { out: out.to_path_buf(), dir, n_blocks: 0 })
    }

    fn file(&self, number: usize) -> PathBuf {
        self.dir.join(format!("block-{number:08}.jsonl"))
    }

    /// The answers to a block, if they are there already.
    ///
    /// # Errors
    /// If they are answers to other lines: the data file has changed.
    pub fn take(&mut self, number: usize, block: &Block) -> Result<Option<Answered>> {
        let file = self.file(number);
        if !file.try_exists().map_err(|error| Error::io(&file, error))? {
            return Ok(None);
        }
        let mut lines = lines_of(&file)?;
        let head = lines.next().ok_or_else(|| Error::empty(file.display().to_string()))??;
        let Head { lines: hash, n_lines, n_shortened, known } =
            serde_json::from_str(&head).map_err(|error| Error::format(file.display(), error))?;
        if hash != lines_hash(block) {
            let (first, last) = (block.lines.first(), block.lines.last());
            let numbers = [first, last].map(|line| line.map_or(0, |line| line.number));
            return Err(Error::format(
                self.dir.display(),
                format!(
                    "holds answers to other lines than {} to {} of {}: remove it to start anew",
                    numbers[0], numbers[1], block.file
                ),
            ));
        }
        let found = lines.map(|line| line.map(|_| 1)).sum::<Result<usize>>()?;
        if (found, n_lines) != (block.lines.len(), block.lines.len()) {
            let what = format!("answers in {}", file.display());
            return Err(Error::Count { what, expected: block.lines.len(), found });
        }
        self.n_blocks = self.n_blocks.max(number + 1);
        Ok(Some(Answered { lines: Vec::new(), n_shortened, known }))
    }

    /// Puts the answers to a block on disk.
    pub fn keep(&mut self, number: usize, block: &Block, answered: Answered) -> Result<Answered> {
        let file = self.file(number);
        let Answered { lines, n_shortened, known } = answered;
        let head = Head { lines: lines_hash(block), n_lines: lines.len(), n_shortened, known };
        let mut text = serde_json::to_string(&head).map_err(|error| Error::format(file.display(), error))?;
        lines.iter().for_each(|line| text.extend(["\n", line.as_str()]));
        text.push('\n');
        write_atomic(&file, text.as_bytes())?;
        self.n_blocks = self.n_blocks.max(number + 1);
        Ok(Answered { lines: Vec::new(), n_shortened, known: head.known })
    }

    /// Joins the answers into their file, which appears in one step, and removes the blocks.
    pub fn finish(self) -> Result<()> {
        let joined = self.dir.join("joined.jsonl");
        let io = |error| Error::io(&self.out, error);
        let mut file = BufWriter::new(File::create(&joined).map_err(io)?);
        for number in 0..self.n_blocks {
            for line in lines_of(&self.file(number))?.skip(1) {
                writeln!(file, "{}", line?).map_err(io)?;
            }
        }
        file.into_inner().map_err(|error| io(error.into_error()))?.sync_all().map_err(io)?;
        std::fs::rename(&joined, &self.out).map_err(io)?;
        std::fs::remove_dir_all(&self.dir).map_err(|error| Error::io(&self.dir, error))
    }
}

fn lines_of(file: &Path) -> Result<impl Iterator<Item = Result<String>>> {
    let io = |error| Error::io(file, error);
    let name = file.to_path_buf();
    let lines = BufReader::new(File::open(file).map_err(io)?).lines();
    Ok(lines.map(move |line| line.map_err(|error| Error::io(&name, error))))
}

/// A hash of a block's lines, FNV-1a of 64 bits, and of where each ends.
fn lines_hash(block: &Block) -> String {
    let bytes = block.lines.iter().flat_map(|line| line.text.bytes().chain([b'\n']));
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}
