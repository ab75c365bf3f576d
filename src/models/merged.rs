//! Writes a decoder with its adapter folded in as a plain Hugging Face directory, and proves that it computes the same.

use super::merged_dir::{MergeReport, Merging, check_rows, fetched, largest_difference};
use super::merged_head::{HeadedNetwork, difference_of_heads, write_head};
use super::names::{INNER_ROOT, ROOT};
use super::{causal_lm::CausalLm, config::DecoderConfig, pretrained::Pretrained, token_batch::TokenBatch};
use crate::error::{Error, Result};
use crate::lora::{Adaptable, BasePart, LoraLinear, PartWeight};
use crate::tape::Tape;
use crate::tensor_file::StoredArray;
use burn::tensor::{DType, Device, Tensor};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Positions whose logits are held at once: 64 rows of a vocabulary of 50,000 are 13 MB in f32.
const POSITIONS: usize = 64;

impl Pretrained {
    /// Writes `model`, which was loaded from here, as a plain Hugging Face directory with its adapter folded in,
    /// `W = W₀ + s·B·A`; transformers and [`Pretrained::from_dir`] load it.
    ///
    /// **A merged model carries no posterior.** The posterior is about A and B, which it no longer has: what is left are the
    /// trained weights alone. Keep the adapter's directory, and use the merged one where only its most likely answer counts.
    ///
    /// The directory appears in one step, after the model has been read back from it and its logits compared with those of
    /// the adapted model, at every position of `rows` (token ids) and over the whole vocabulary. Where a logit differs by more
    /// than `tolerance` ([`MERGE_TOLERANCE`](super::MERGE_TOLERANCE) suits f32), nothing is left behind. Take rows like those that the
    /// model will see.
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
        let merging = self.begin(model, rows, tolerance, dir.as_ref())?;
        merging.write_config(|fields| {
            self.describe(model, fields)?;
            fields.insert("tie_word_embeddings".into(), json!(is_tied(&model.head)));
            Ok(())
        })?;
        merging.write_weights(tensors(model, true))?;
        let (device, dtype) = place(model);
        let merged = Pretrained::from_dir(merging.path())?.with_dtype(dtype).load(&device)?;
        let mut largest = 0.0f64;
        for row in rows {
            largest = largest.max(difference(model, &merged, row, &device, dtype)?);
        }
        merging.end(largest, (rows.len(), rows.iter().map(Vec::len).sum()))
    }

    /// The same with a head that classifies or rewards in the place of the output head: transformers loads it as the family's
    /// `…ForSequenceClassification`, and [`Pretrained::load_with_head`] here. The logits of the head are compared, a vector a row.
    ///
    /// `config.json` gets the labels. transformers takes rows of a batch apart by its `pad_token_id`, which must be there.
    ///
    /// # Errors
    /// As [`Pretrained::merge_and_save`]; and if transformers has no such model of the family, or the names of the labels are of another
    /// number than the head's outputs.
    pub fn merge_and_save_with_head(
        &self,
        model: HeadedNetwork<'_, CausalLm>,
        rows: &[Vec<u32>],
        tolerance: f64,
        dir: impl AsRef<Path>,
    ) -> Result<MergeReport> {
        let network = model.network;
        let traits = self.config().family.traits();
        let class = traits.classifier.ok_or_else(|| Error::Unsupported {
            what: "a head for classes, in transformers, on a model of type".into(),
            found: traits.model_type.into(),
            supported: "another family; merge the adapter as a language model".into(),
        })?;
        let merging = self.begin(network, rows, tolerance, dir.as_ref())?;
        merging.write_config(|fields| {
            self.describe(network, fields)?;
            write_head(model.head, model.labels, class, fields)
        })?;
        let mut all = tensors(network, false);
        all.extend(model.tensors());
        merging.write_weights(all)?;
        let (device, dtype) = place(network);
        let merged = Pretrained::from_dir(merging.path())?.with_dtype(dtype).load_with_head(&device)?;
        let head = merged.head.as_ref().ok_or_else(|| Error::empty("head that was read back"))?;
        let merged = HeadedNetwork::new(&merged.lm, head);
        let largest = difference_of_heads([&model, &merged], rows, &device, dtype)?;
        merging.end(largest, (rows.len(), rows.len()))
    }

    fn begin<'a>(&'a self, model: &CausalLm, rows: &[Vec<u32>], tolerance: f64, dir: &'a Path) -> Result<Merging<'a>> {
        // a head of its own unties what the configuration ties, and an adapter may have brought another vocabulary
        let DecoderConfig { tied_head, vocab_size, .. } = *self.config();
        let declared = DecoderConfig { tied_head, vocab_size, ..model.config().clone() };
        if declared != *self.config() {
            let reason = format!("the model was not loaded from {}: its shape is another", self.dir().display());
            return Err(Error::Incompatible(reason));
        }
        check_rows(rows, model.config().vocab_size, model.config().max_positions)?;
        Merging::begin(self.dir(), dir, model, tolerance)
    }

    /// The base's configuration, of the language model alone.
    fn describe(&self, model: &CausalLm, fields: &mut Map<String, Value>) -> Result<()> {
        if self.config().inside {
            let inner = fields.remove("text_config").and_then(|inner| serde_json::from_value(inner).ok());
            let missing = || Error::format(self.dir().join("config.json").display(), "has no `text_config`");
            *fields = inner.ok_or_else(missing)?;
        }
        fields.insert("vocab_size".into(), json!(model.config().vocab_size));
        Ok(())
    }
}

fn place(model: &CausalLm) -> (Device, DType) {
    let weight = model.embedding.weight.val();
    (weight.device().without_autodiff(), weight.dtype())
}

/// True if the merged head is still the embedding.
fn is_tied(head: &LoraLinear) -> bool {
    head.is_tied && head.adapter.is_none()
}

/// Every tensor of the merged model under the names of Hugging Face, fetched from the device as it is written; with or without the
/// output head.
fn tensors(model: &CausalLm, with_head: bool) -> Vec<(String, StoredArray<'_>)> {
    let mut all = Vec::new();
    for BasePart { path, weight, .. } in model.parts() {
        let stored = match weight {
            PartWeight::Table(table) => fetched(table.dims(), move || table.clone()),
            PartWeight::Vector(gains) => fetched(gains.dims(), move || gains.clone()),
        };
        all.push((format!("{path}.weight"), stored));
    }
    for linear in model.linears().into_iter().filter(|linear| with_head || !linear.is_head) {
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

/// Largest difference of a logit at any position of a row.
fn difference(adapted: &CausalLm, merged: &CausalLm, row: &[u32], device: &Device, dtype: DType) -> Result<f64> {
    let batch = TokenBatch::of_row(row, device, dtype)?;
    let hidden = [adapted, merged].map(|model| model.hidden(&batch, &mut Tape::off()));
    let mut largest = 0.0f64;
    for start in (0..row.len()).step_by(POSITIONS) {
        let length = POSITIONS.min(row.len() - start);
        let part = |model: &CausalLm, hidden: &Tensor<2>| {
            model.head(hidden.clone().narrow(0, start, length), None, &mut Tape::off())
        };
        largest = largest.max(largest_difference([part(adapted, &hidden[0]), part(merged, &hidden[1])])?);
    }
    Ok(largest)
}
