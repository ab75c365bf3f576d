//! The new directory of a merged model: what is copied and said, and that it appears only where the model read back from it computes the
//! same.

use crate::atomic_dir::NewDir;
use crate::atomic_file::write_atomic;
use crate::error::{Error, Result, check_finite};
use crate::file_kind::parse_json;
use crate::lora::{Adaptable, to_vec};
use crate::outputs::claim_dir;
use crate::tensor_file::{StoredArray, stream_arrays};
use burn::tensor::{DType, Tensor};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Largest difference of a logit that rounding explains in f32, where the adapted network and the merged one round different
/// numbers: about 1e-5 on small models; SmolLM2-135M, whose logits reach 33, is off its own f64 by 4e-4 on random tokens.
pub const MERGE_TOLERANCE: f64 = 1e-3;

/// What a model is read from beside its weights and `config.json`; those that are there are copied.
const COPIED: [&str; 10] = [
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// What a merge did and how well it was done.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeReport {
    /// The directory that was written.
    pub dir: PathBuf,
    /// Modules whose adapter was folded in.
    pub n_modules: usize,
    /// Rows on which both models were compared.
    pub n_rows: usize,
    /// Positions in them at which logits were compared: every token of a language model; one a row where a head reads the row.
    pub n_positions: usize,
    /// Largest difference of a logit between the adapted model and the merged one, read back from disk.
    pub largest_difference: f64,
    /// The difference that was allowed.
    pub tolerance: f64,
}

impl std::fmt::Display for MergeReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "merged {} modules into {}: logits differ by at most {:.1e} (allowed: {:.1e}) at {} positions of {} rows. The \
             merged model carries no posterior: keep the adapter and its posterior for calibrated predictions.",
            self.n_modules,
            self.dir.display(),
            self.largest_difference,
            self.tolerance,
            self.n_positions,
            self.n_rows
        )
    }
}

/// A directory that is being filled.
pub(super) struct Merging<'a> {
    base: &'a Path,
    dir: &'a Path,
    new: NewDir,
    n_modules: usize,
    tolerance: f64,
}

impl<'a> Merging<'a> {
    /// Makes the directory beside its place, with what is copied from the base.
    ///
    /// # Errors
    /// If the tolerance is none, the model has no adapter, something is at `dir` already, or the disk refuses.
    pub(super) fn begin<M: Adaptable>(base: &'a Path, dir: &'a Path, model: &M, tolerance: f64) -> Result<Self> {
        if !(tolerance >= 0.0 && tolerance.is_finite()) {
            return Err(Error::config("tolerance", "finite and not negative", tolerance));
        }
        let n_modules = model.linears().iter().filter(|linear| linear.adapter.is_some()).count();
        if n_modules == 0 {
            return Err(Error::empty("adapter"));
        }
        let new = NewDir::beside(dir)?;
        claim_dir(new.path(), 4 * model.num_params() as u64)?;
        for name in COPIED.iter().filter(|name| base.join(name).is_file()) {
            let from = base.join(name);
            std::fs::copy(&from, new.path().join(name)).map_err(|e| Error::io(&from, e))?;
        }
        Ok(Self { base, dir, new, n_modules, tolerance })
    }

    /// Where the files go.
    pub(super) fn path(&self) -> &Path {
        self.new.path()
    }

    /// Writes the base's configuration with what is true of the merged weights.
    pub(super) fn write_config(&self, edit: impl FnOnce(&mut Map<String, Value>) -> Result<()>) -> Result<()> {
        let path = self.base.join("config.json");
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let mut fields: Map<String, Value> = parse_json(&bytes, path.display())?;
        edit(&mut fields)?;
        // transformers 5 says `dtype`, the versions before it `torch_dtype`; both read the older word
        let names = ["dtype", "torch_dtype"].into_iter().filter(|name| fields.contains_key(*name));
        let mut names: Vec<&str> = names.collect();
        if names.is_empty() {
            names.push("torch_dtype");
        }
        fields.extend(names.into_iter().map(|name| (name.to_string(), json!("float32"))));
        self.write_json("config.json", &fields)
    }

    /// Writes an object into a file of the directory.
    pub(super) fn write_json(&self, name: &str, fields: &Map<String, Value>) -> Result<()> {
        let path = self.new.path().join(name);
        let text = serde_json::to_vec_pretty(fields).map_err(|e| Error::format(path.display(), e))?;
        write_atomic(path, &text)
    }

    /// Writes the weights, each fetched from its device as its turn comes.
    pub(super) fn write_weights(&self, tensors: Vec<(String, StoredArray<'_>)>) -> Result<()> {
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        stream_arrays(&self.new.path().join("model.safetensors"), tensors, metadata)
    }

    /// Puts the directory in its place, if the logits of `n_rows` rows at `n_positions` positions differ by little enough.
    ///
    /// # Errors
    /// Names both numbers, where they differ by more.
    pub(super) fn end(self, largest_difference: f64, (n_rows, n_positions): (usize, usize)) -> Result<MergeReport> {
        let Self { dir, new, n_modules, tolerance, .. } = self;
        if largest_difference > tolerance {
            let bound = format!("at most {tolerance:e} (nothing was written)");
            return Err(Error::config(
                "largest difference of a logit by merging",
                bound,
                format!("{largest_difference:e}"),
            ));
        }
        new.publish()?;
        Ok(MergeReport { dir: dir.to_path_buf(), n_modules, n_rows, n_positions, largest_difference, tolerance })
    }
}

/// Checks that rows of token ids fit a model.
pub(super) fn check_rows(rows: &[Vec<u32>], vocabulary: usize, limit: usize) -> Result<()> {
    if rows.is_empty() {
        return Err(Error::empty("rows to compare"));
    }
    for (r, row) in rows.iter().enumerate() {
        if row.is_empty() {
            return Err(Error::empty(format!("row {r}")));
        }
        if row.len() > limit {
            let bound = format!("at most the model's context of {limit}");
            return Err(Error::config(format!("tokens of row {r}"), bound, row.len()));
        }
        if let Some(id) = row.iter().find(|id| **id as usize >= vocabulary) {
            let field = format!("token id in row {r}");
            return Err(Error::config(field, format!("below the vocabulary's {vocabulary}"), id));
        }
    }
    Ok(())
}

/// A tensor as it is written, fetched when its turn comes.
pub(super) fn fetched<'a, const D: usize>(shape: [usize; D], tensor: impl Fn() -> Tensor<D> + 'a) -> StoredArray<'a> {
    StoredArray::fetched(shape.to_vec(), move || tensor().detach().cast(DType::F32).into_data().iter::<f32>().collect())
}

/// Largest difference of a logit of the adapted model and the merged one.
pub(super) fn largest_difference([adapted, merged]: [Tensor<2>; 2]) -> Result<f64> {
    let (expected, found) = (to_vec(adapted)?, to_vec(merged)?);
    for (what, logits) in [("logits of the adapted model", &expected), ("logits of the merged model", &found)] {
        check_finite(what, logits.iter().map(|v| v.is_finite()))?;
    }
    Ok(expected.iter().zip(&found).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())))
}
