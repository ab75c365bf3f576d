//! Fills one row of numbers an item, batch by batch, and keeps finished batches on disk where the caller says so.

use crate::batches::{batches_hash, for_each_batch};
use crate::checkpoints::{Checkpoints, Saver};
use crate::error::{Error, Result};
use crate::file_header::parse_header;
use crate::hash::fnv1a_words;
use crate::lora::model_fingerprint;
use crate::models::{Classifier, Dataset, data_fingerprint};
use crate::progress::Control;
use crate::tensor_file::{StoredArray, TensorFile, write_checked};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The version that this crate writes and reads; any change of the header or of a name needs another.
const FORMAT_VERSION: u64 = 2;
/// Where the header is among the metadata.
const KEY: &str = "bayes_lora_rows";
/// The only tensor: the bits of the numbers, which may be infinite.
const ROWS: &str = "rows";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format_version: u64,
    crate_version: String,
    batches_done: usize,
}

/// The rows `[n_items, n_columns]` in the data's order; `work` gives those of one batch, and `kind` is a hash of all that they
/// depend on besides the model, the data and the batches.
///
/// # Errors
/// As `work`; if unfinished rows are damaged, or the caller cancels.
pub(super) fn rows<M: Classifier, D: Dataset<Input = M::Input>>(
    (model, data): (&M, &D),
    (n_columns, kind): (usize, impl FnOnce() -> Result<u64>),
    batches: &[Vec<usize>],
    control: &Control,
    work: impl Fn(&[usize]) -> Result<Array2<f64>> + Sync,
) -> Result<Array2<f64>> {
    let mut rows = Array2::zeros((data.n_items(), n_columns));
    let take_up = |saver| {
        let name = fnv1a_words([data_fingerprint(data)?, model_fingerprint(model)?, batches_hash(batches), kind()?]);
        UnfinishedRows::take_up(saver, name, batches.len(), &mut rows)
    };
    let mut unfinished = control.saver().map(take_up).transpose()?;
    let mut done = unfinished.as_ref().map_or(0, |(_, done)| *done);
    for_each_batch("predict", &batches[done..], control, work, |indices, values| {
        for (&item, row) in indices.iter().zip(values.outer_iter()) {
            rows.row_mut(item).assign(&row);
        }
        done += 1;
        if let Some((files, _)) = &mut unfinished {
            files.keep(&rows, done, done == batches.len() || control.is_cancelled());
        }
        Ok(())
    })?;
    Ok(rows)
}

/// The file of one prediction: its name follows from all that the rows depend on.
struct UnfinishedRows {
    saver: Saver,
    path: PathBuf,
}

impl UnfinishedRows {
    /// Takes up what an earlier prediction left; with it, the number of batches that are done.
    fn take_up(
        (checkpoints, saver): (&Checkpoints, Saver),
        name: u64,
        n_batches: usize,
        rows: &mut Array2<f64>,
    ) -> Result<(Self, usize)> {
        let path = checkpoints.file("predict", name);
        let mut done = 0;
        if path.try_exists().map_err(|e| Error::io(&path, e))? {
            let mut file = TensorFile::open(&path)?;
            let text = file.checked_metadata(KEY)?;
            let header: Header = parse_header(text, FORMAT_VERSION, "unfinished prediction", &path)?;
            if header.batches_done > n_batches {
                return Err(Error::Count {
                    what: format!("{}: finished batches", path.display()),
                    expected: n_batches,
                    found: header.batches_done,
                });
            }
            let bits: Array2<u64> = file.read_array(ROWS, rows.dim())?;
            *rows = bits.mapv(f64::from_bits);
            done = header.batches_done;
        }
        Ok((Self { saver, path }, done))
    }

    /// Saves the rows of the first `done` batches if it is time to, or `now`.
    fn keep(&mut self, rows: &Array2<f64>, done: usize, now: bool) {
        if !(now || self.saver.is_due()) {
            return;
        }
        self.saver.save(&self.path, |path| {
            let header = Header {
                format_version: FORMAT_VERSION,
                crate_version: env!("CARGO_PKG_VERSION").into(),
                batches_done: done,
            };
            let bits = rows.mapv(f64::to_bits);
            write_checked(path, vec![(ROWS.into(), StoredArray::new(bits.view()))], KEY, &header)
        });
    }
}
