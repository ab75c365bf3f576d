//! Keeps the sums of a pass on disk, batch by batch, and takes them up again to the same bits.

use super::curvature::Curvature;
use crate::checkpoints::{Checkpoints, Saver};
use crate::error::{Error, Result};
use crate::hash::{fnv1a, fnv1a_words};
use crate::lora::model_fingerprint;
use crate::models::{Classifier, Dataset, data_fingerprint};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The files of one pass, one for each of its sums: their names follow from all that the sums depend on.
pub(super) struct UnfinishedPass {
    saver: Saver,
    /// Each with the batches that its sums have seen.
    files: Vec<(PathBuf, usize)>,
    n_batches: usize,
}

impl UnfinishedPass {
    /// Takes up what an earlier pass over the same `batches` left, in place of the empty `curvatures`.
    ///
    /// # Errors
    /// If a file cannot be read, is damaged, or is not about whole batches of `data`.
    pub(super) fn take_up<M: Classifier, D: Dataset<Input = M::Input>>(
        (checkpoints, saver): (&Checkpoints, Saver),
        model: &M,
        data: &D,
        batches: &[Vec<usize>],
        curvatures: &mut [Curvature],
    ) -> Result<Self> {
        let of_all = [data_fingerprint(data)?, model_fingerprint(model)?];
        let mut files = Vec::new();
        for curvature in curvatures {
            let config =
                serde_json::to_vec(&curvature.config).map_err(|e| Error::format("settings of curvature", e))?;
            let path = checkpoints.file("curvature", fnv1a_words(of_all.into_iter().chain([fnv1a(config)])));
            let mut done = 0;
            if path.try_exists().map_err(|e| Error::io(&path, e))? {
                let found = Curvature::load(&path)?;
                done = whole_batches(&found, &path, data, batches)?;
                *curvature = found;
            }
            files.push((path, done));
        }
        Ok(Self { saver, files, n_batches: batches.len() })
    }

    /// The first batch that some of the sums have not seen.
    pub(super) fn begin(&self) -> usize {
        self.files.iter().map(|(_, done)| *done).min().unwrap_or(0)
    }

    /// True if sum `index` has seen `batch`.
    pub(super) fn has(&self, index: usize, batch: usize) -> bool {
        self.files[index].1 > batch
    }

    /// Saves sums of the first `done` batches if it is time to, they are all, or `now`.
    pub(super) fn keep(&mut self, curvatures: &[Curvature], done: usize, now: bool) {
        if !(now || done == self.n_batches || self.saver.is_due()) {
            return;
        }
        for ((path, saved), curvature) in self.files.iter_mut().zip(curvatures) {
            if *saved < done {
                *saved = done;
                self.saver.save(path, |path| curvature.save(path));
            }
        }
    }
}

/// How many of `batches` the sums are about.
fn whole_batches<D: Dataset>(found: &Curvature, path: &Path, data: &D, batches: &[Vec<usize>]) -> Result<usize> {
    let (mut done, mut n_items) = (0, 0);
    while let Some(batch) = batches.get(done).filter(|batch| n_items + batch.len() <= found.n_data) {
        n_items += batch.len();
        done += 1;
    }
    let keys: BTreeSet<u64> = batches[..done].iter().flatten().map(|&item| data.item_key(item)).collect();
    if n_items != found.n_data || keys != found.item_keys {
        return Err(Error::Incompatible(format!(
            "{}: its {} items are not those of the first {done} batches ({n_items} items)",
            path.display(),
            found.n_data
        )));
    }
    Ok(done)
}
