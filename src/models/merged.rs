//! Writes a model with its adapter folded in as a plain Hugging Face directory, and proves that it computes the same.

use super::names::{INNER_ROOT, ROOT};
use super::{causal_lm::CausalLm, config::DecoderConfig, pretrained::Pretrained, token_batch::TokenBatch};
use crate::atomic_dir::NewDir;
use crate::atomic_file::write_atomic;
use crate::error::{Error, Result, check_finite};
use crate::file_kind::parse_json;
use crate::lora::{Adaptable, BasePart, LoraLinear, PartWeight, to_vec};
use crate::outputs::claim_dir;
use crate::tape::Tape;
use crate::tensor_file::{StoredArray, stream_arrays};
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Largest difference of a logit that rounding explains in f32, where the adapted network and the merged one round different
/// numbers: about 1e-5 on small models; SmolLM2-135M, whose logits reach 33, is off its own f64 by 4e-4 on random tokens.
pub const MERGE_TOLERANCE: f64 = 1e-3;

/// What a model is read from beside its weights and `config.json`; those that are there are copied.
const COPIED: [&str; 9] = [
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

/// Positions whose logits are held at once: 64 rows of a vocabulary of 50,000 are 13 MB in f32.
const POSITIONS: usize = 64;

/// What a merge did and how well it was done.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeReport {
    /// The directory that was written.
    pub dir: PathBuf,
    /// Modules whose adapter was folded in.
    pub n_modules: usize,
    /// Rows on which both models were compared.
    pub n_rows: usize,
    /// Positions in them, each with the logits of the whole vocabulary.
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

impl Pretrained {
    /// Writes `model`, which was loaded from here, as a plain Hugging Face directory with its adapter folded in,
    /// `W = W₀ + s·B·A`; transformers and [`Pretrained::from_dir`] load it.
    ///
    /// **A merged model carries no posterior.** The posterior is about A and B, which it no longer has: what is left are the
    /// trained weights alone. Keep the adapter's directory, and use the merged one where only its most likely answer counts.
    ///
    /// The directory appears in one step, after the model has been read back from it and its logits compared with those of
    /// the adapted model, at every position of `rows` (token ids) and over the whole vocabulary. Where a logit differs by more
    /// than `tolerance` ([`MERGE_TOLERANCE`] suits f32), nothing is left behind. Take rows like those that the model will see.
    ///
    /// Of a larger model that was loaded for its language model, the language model alone is written.
    ///
    /// Weights are written in f32, in one file, whatever they were stored in: a half-precision sum of base and update would
    /// lose most of the update. `config.json` is the base's but for the element type, and for the tie of a head that has a
    /// weight of its own now; tokenizer files are copied.
    ///
    /// # Errors
    /// If the model has no adapter or another shape, `rows` are empty or do not fit it, something is at `dir` already, the
    /// disk refuses, a logit is not finite, or the logits differ by more than `tolerance`; both numbers are named.
    pub fn merge_and_save(
        &self,
        model: &CausalLm,
        rows: &[Vec<u32>],
        tolerance: f64,
        dir: impl AsRef<Path>,
    ) -> Result<MergeReport> {
        let dir = dir.as_ref();
        if !(tolerance >= 0.0 && tolerance.is_finite()) {
            return Err(Error::config("tolerance", "finite and not negative", tolerance));
        }
        let n_modules = model.linears().iter().filter(|linear| linear.adapter.is_some()).count();
        if n_modules == 0 {
            return Err(Error::empty("adapter"));
        }
        // a head of its own unties what the configuration ties, and an adapter may have brought another vocabulary
        let DecoderConfig { tied_head, vocab_size, .. } = *self.config();
        let declared = DecoderConfig { tied_head, vocab_size, ..model.config().clone() };
        if declared != *self.config() {
            let reason = format!("the model was not loaded from {}: its shape is another", self.dir().display());
            return Err(Error::Incompatible(reason));
        }
        check_rows(model, rows)?;
        let new = NewDir::beside(dir)?;
        claim_dir(new.path(), 4 * model.num_params() as u64)?;
        self.write_config(model, new.path())?;
        for name in COPIED.iter().filter(|name| self.dir().join(name).is_file()) {
            let from = self.dir().join(name);
            std::fs::copy(&from, new.path().join(name)).map_err(|e| Error::io(&from, e))?;
        }
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        stream_arrays(&new.path().join("model.safetensors"), tensors(model), metadata)?;

        let linear = &model.head;
        let (device, dtype) = (linear.weight.val().device().without_autodiff(), linear.weight.val().dtype());
        let merged = Pretrained::from_dir(new.path())?.with_dtype(dtype).load(&device)?;
        let mut largest_difference = 0.0f64;
        for row in rows {
            largest_difference = largest_difference.max(difference(model, &merged, row, &device, dtype)?);
        }
        if largest_difference > tolerance {
            let bound = format!("at most {tolerance:e} (nothing was written)");
            return Err(Error::config(
                "largest difference of a logit by merging",
                bound,
                format!("{largest_difference:e}"),
            ));
        }
        new.publish()?;
        let n_positions = rows.iter().map(Vec::len).sum();
        Ok(MergeReport {
            dir: dir.to_path_buf(),
            n_modules,
            n_rows: rows.len(),
            n_positions,
            largest_difference,
            tolerance,
        })
    }

    /// The base's configuration, true of the merged weights.
    fn write_config(&self, model: &CausalLm, to: &Path) -> Result<()> {
        let path = self.dir().join("config.json");
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let mut fields: Map<String, Value> = parse_json(&bytes, path.display())?;
        if self.config().inside {
            let inner = fields.remove("text_config").and_then(|inner| serde_json::from_value(inner).ok());
            fields = inner.ok_or_else(|| Error::format(path.display(), "has no `text_config`"))?;
        }
        fields.insert("tie_word_embeddings".into(), json!(is_tied(&model.head)));
        fields.insert("vocab_size".into(), json!(model.config().vocab_size));
        // transformers 5 says `dtype`, the versions before it `torch_dtype`; both read the older word
        let names = ["dtype", "torch_dtype"].into_iter().filter(|name| fields.contains_key(*name));
        let mut names: Vec<&str> = names.collect();
        if names.is_empty() {
            names.push("torch_dtype");
        }
        fields.extend(names.into_iter().map(|name| (name.to_string(), json!("float32"))));
        let text = serde_json::to_vec_pretty(&fields).map_err(|e| Error::format(path.display(), e))?;
        write_atomic(to.join("config.json"), &text)
    }
}

/// True if the merged head is still the embedding.
fn is_tied(head: &LoraLinear) -> bool {
    head.is_tied && head.adapter.is_none()
}

fn check_rows(model: &CausalLm, rows: &[Vec<u32>]) -> Result<()> {
    if rows.is_empty() {
        return Err(Error::empty("rows to compare"));
    }
    let (vocabulary, limit) = (model.config().vocab_size, model.config().max_positions);
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

/// Every tensor of the merged model under the names of Hugging Face, fetched from the device as it is written.
fn tensors(model: &CausalLm) -> Vec<(String, StoredArray<'_>)> {
    let mut all = Vec::new();
    for BasePart { path, weight, .. } in model.parts() {
        let stored = match weight {
            PartWeight::Table(table) => fetched(table.dims(), move || table.clone()),
            PartWeight::Vector(gains) => fetched(gains.dims(), move || gains.clone()),
        };
        all.push((format!("{path}.weight"), stored));
    }
    for linear in model.linears() {
        if !(linear.is_head && is_tied(linear)) {
            let shape = [linear.d_out(), linear.d_in()];
            all.push((format!("{}.weight", linear.path), fetched(shape, || merged_weight(model, linear).transpose())));
        }
        if let Some(bias) = &linear.bias {
            all.push((format!("{}.bias", linear.path), fetched(bias.dims(), || bias.val())));
        }
    }
    for (name, _) in &mut all {
        if let Some(rest) = name.strip_prefix(INNER_ROOT) {
            *name = format!("{ROOT}{rest}");
        }
    }
    all
}

/// The weight that a linear uses with its update; a tied head uses the embedding's.
fn merged_weight(model: &CausalLm, linear: &LoraLinear) -> Tensor<2> {
    if !linear.is_tied {
        return linear.merged_weight();
    }
    let mut own = linear.clone();
    own.weight = burn::module::Param::from_tensor(model.embedding.weight.val().transpose());
    own.merged_weight()
}

fn fetched<'a, const D: usize>(shape: [usize; D], tensor: impl Fn() -> Tensor<D> + 'a) -> StoredArray<'a> {
    StoredArray::fetched(shape.to_vec(), move || tensor().detach().cast(DType::F32).into_data().iter::<f32>().collect())
}

/// Largest difference of a logit at any position of a row.
fn difference(adapted: &CausalLm, merged: &CausalLm, row: &[u32], device: &Device, dtype: DType) -> Result<f64> {
    let batch = TokenBatch::of_row(row, device, dtype)?;
    let hidden = [adapted, merged].map(|model| model.hidden(&batch, &mut Tape::off()));
    let mut largest = 0.0f64;
    for start in (0..row.len()).step_by(POSITIONS) {
        let length = POSITIONS.min(row.len() - start);
        let part = |model: &CausalLm, hidden: &Tensor<2>| {
            to_vec(model.head(hidden.clone().narrow(0, start, length), None, &mut Tape::off()))
        };
        let (expected, found) = (part(adapted, &hidden[0])?, part(merged, &hidden[1])?);
        for (what, logits) in [("logits of the adapted model", &expected), ("logits of the merged model", &found)] {
            check_finite(what, logits.iter().map(|v| v.is_finite()))?;
        }
        largest = expected.iter().zip(&found).fold(largest, |m, (a, b)| m.max((a - b).abs()));
    }
    Ok(largest)
}
