//! Keeps the Jacobians of a pass on disk, every row once, and takes them up again to the same bits.

use super::collected::{BatchRows, CollectedRows};
use crate::checkpoints::{Checkpoints, Saver};
use crate::curvature::{RowBlock, push_block};
use crate::error::{Error, Result};
use crate::file_header::parse_header;
use crate::hash::fnv1a_words;
use crate::tensor_file::{StoredArray, TensorFile, write_checked};
use ndarray::{Array2, Axis, s};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The version that this crate writes and reads; any change of the header or of a name needs another.
const FORMAT_VERSION: u64 = 1;
/// Where the header is among the metadata.
const KEY: &str = "bayes_lora_jacobians";
/// The bits of the outputs, which may be infinite, and of `J(θ* − μ)`.
const OUTPUTS: &str = "outputs";
const DRIFT: &str = "drift";
/// Most bytes of rows in a file, unless one batch has more: a file is put together in memory before it is written.
const MOST_BYTES: usize = 256 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format_version: u64,
    crate_version: String,
    /// The batches that the file is about, the first and the one after the last.
    batches: (usize, usize),
    are_contrasts: bool,
    in_f64: bool,
    /// Rows of each block, tensors `rows.0`, `rows.1` and so on.
    blocks: Vec<usize>,
}

/// The files of one pass, one for the batches of each time that was due: their names follow from all that the rows depend on, and from
/// how many came before.
pub(super) struct UnfinishedJacobians<'a> {
    checkpoints: &'a Checkpoints,
    saver: Saver,
    name: u64,
    batches: &'a [Vec<usize>],
    width: usize,
    n_files: usize,
    /// Batches that lie in files.
    saved: usize,
}

impl<'a> UnfinishedJacobians<'a> {
    /// Takes up what an earlier pass over the same `batches` left, in place of the empty `collected`.
    ///
    /// # Errors
    /// If a file cannot be read, is damaged, or is not about the batches after those of the file before.
    pub(super) fn take_up(
        (checkpoints, saver): (&'a Checkpoints, Saver),
        name: u64,
        batches: &'a [Vec<usize>],
        width: usize,
        collected: &mut CollectedRows,
    ) -> Result<Self> {
        let mut unfinished = Self { checkpoints, saver, name, batches, width, n_files: 0, saved: 0 };
        loop {
            let path = unfinished.path();
            if !path.try_exists().map_err(|e| Error::io(&path, e))? {
                return Ok(unfinished);
            }
            unfinished.read(&path, collected)?;
            unfinished.n_files += 1;
        }
    }

    /// The first batch that is in no file.
    pub(super) fn begin(&self) -> usize {
        self.saved
    }

    fn path(&self) -> PathBuf {
        self.checkpoints.file("jacobians", fnv1a_words([self.name, self.n_files as u64]))
    }

    fn items(&self, batches: (usize, usize)) -> Vec<usize> {
        self.batches[batches.0..batches.1].concat()
    }

    fn read(&mut self, path: &Path, collected: &mut CollectedRows) -> Result<()> {
        let mut file = TensorFile::open(path)?;
        let header: Header =
            parse_header(file.checked_metadata(KEY)?, FORMAT_VERSION, "unfinished Jacobian pass", path)?;
        let (begin, end) = header.batches;
        if begin != self.saved || end <= begin || end > self.batches.len() {
            return Err(Error::Incompatible(format!(
                "{}: its batches {begin}..{end} do not follow the first {} of {}",
                path.display(),
                self.saved,
                self.batches.len()
            )));
        }
        let items = self.items(header.batches);
        let (k, n_outputs) = (collected.items.rows_per_item, collected.items.outputs.ncols());
        let (expected, found) = (items.len() * k, header.blocks.iter().sum::<usize>());
        if expected != found {
            return Err(Error::Count { what: format!("{}: rows of Jacobians", path.display()), expected, found });
        }
        let mut outputs = |name, columns| -> Result<Array2<f64>> {
            Ok(file.read_array::<u64, _>(name, [items.len(), columns])?.mapv(f64::from_bits))
        };
        let (logits, drift) = (outputs(OUTPUTS, n_outputs)?, outputs(DRIFT, k)?);
        let mut blocks = header.blocks.iter().enumerate().map(|(index, &n)| -> Result<RowBlock> {
            let (name, shape) = (rows_name(index), [n, self.width]);
            Ok(match header.in_f64 {
                true => RowBlock::F64(file.read_array(&name, shape)?.into_shared()),
                false => RowBlock::F32(file.read_array(&name, shape)?.into_shared()),
            })
        });
        let first = blocks.next().ok_or_else(|| Error::empty(format!("set of Jacobians in {}", path.display())))??;
        collected.add(&items, BatchRows { logits, are_contrasts: header.are_contrasts, rows: first, drift })?;
        for block in blocks {
            push_block(&mut collected.blocks, block?)?;
        }
        self.saved = end;
        Ok(())
    }

    /// Saves the batches up to `done` that are in no file yet, if it is time to, or `now`. The end of the pass is no reason: rows are
    /// as large on disk as in memory.
    pub(super) fn keep(&mut self, collected: &CollectedRows, done: usize, now: bool) {
        if !(now || self.saver.is_due()) {
            return;
        }
        while self.saved < done {
            let end = self.end_of_file(collected, done);
            let (path, batches, mut is_saved) = (self.path(), (self.saved, end), false);
            let (before, items) = (self.items((0, self.saved)).len(), self.items(batches));
            self.saver.save(&path, |path| {
                write(path, batches, (before, &items), collected)?;
                is_saved = true;
                Ok(())
            });
            if !is_saved {
                return;
            }
            (self.saved, self.n_files) = (end, self.n_files + 1);
        }
    }

    /// The batch after the last that the next file has room for.
    fn end_of_file(&self, collected: &CollectedRows, done: usize) -> usize {
        let number = if matches!(collected.blocks.first(), Some(RowBlock::F64(_))) { 8 } else { 4 };
        let of_item = (number * self.width * collected.items.rows_per_item).max(1);
        let (mut bytes, mut end) = (of_item * self.batches[self.saved].len(), self.saved + 1);
        while end < done && bytes + of_item * self.batches[end].len() <= MOST_BYTES {
            bytes += of_item * self.batches[end].len();
            end += 1;
        }
        end
    }
}

fn rows_name(index: usize) -> String {
    format!("rows.{index}")
}

/// Writes the rows of some batches and of their items, which come after those of `before` others.
fn write(
    path: &Path,
    batches: (usize, usize),
    (before, items): (usize, &[usize]),
    collected: &CollectedRows,
) -> Result<()> {
    let k = collected.items.rows_per_item;
    let (start, end) = (before * k, (before + items.len()) * k);
    let outputs = collected.items.outputs.select(Axis(0), items).mapv(f64::to_bits);
    let drift = Array2::from_shape_fn((items.len(), k), |(i, row)| collected.items.drift[items[i] * k + row].to_bits());
    let mut arrays = vec![
        (OUTPUTS.to_string(), StoredArray::new(outputs.view())),
        (DRIFT.to_string(), StoredArray::new(drift.view())),
    ];
    let mut header = Header {
        format_version: FORMAT_VERSION,
        crate_version: env!("CARGO_PKG_VERSION").into(),
        batches,
        are_contrasts: collected.items.are_contrasts,
        in_f64: matches!(collected.blocks.first(), Some(RowBlock::F64(_))),
        blocks: Vec::new(),
    };
    let mut row = 0;
    for block in &collected.blocks {
        let (from, to) = (start.max(row), end.min(row + block.n_rows()));
        if from < to {
            let own = s![from - row..to - row, ..];
            let name = rows_name(header.blocks.len());
            arrays.push(match block {
                RowBlock::F32(rows) => (name, StoredArray::new(rows.slice(own))),
                RowBlock::F64(rows) => (name, StoredArray::new(rows.slice(own))),
            });
            header.blocks.push(to - from);
        }
        row += block.n_rows();
    }
    write_checked(path, arrays, KEY, &header)
}
