//! Writes an encoder with its head, the adapter folded in, as a plain Hugging Face directory, and proves that it computes the same.

use super::config::{EncoderConfig, EncoderFamily, POOLING_FILE, POOLING_PREFIX, Pooling};
use super::layer::Norm;
use super::load::PretrainedEncoder;
use super::model::Encoder;
use super::names::{HEAD, Names};
use crate::error::{Error, Result};
use crate::lora::Adaptable;
use crate::models::merged_dir::{MergeReport, Merging, check_rows, fetched};
use crate::models::merged_head::{HeadedNetwork, difference_of_heads, write_head};
use crate::tensor_file::StoredArray;
use serde_json::{Map, json};
use std::path::Path;

impl PretrainedEncoder {
    /// Writes an encoder that was loaded from here, and its head, as a plain Hugging Face directory with the adapter folded in,
    /// `W = W₀ + s·B·A`; transformers and [`PretrainedEncoder::from_dir`] load it. A merged model carries no posterior.
    ///
    /// The directory appears in one step, after it has been read back and the head's outputs for `rows` (token ids) have been compared.
    /// Weights are written in f32 under the names of the family's `…ForSequenceClassification`, fused ones fused; `config.json` is the
    /// base's with the labels; tokenizer files are copied.
    ///
    /// **Pooling.** transformers' classifiers read the family's own pooler ([`Pooling::Pooler`]). Of a model that pools otherwise it loads the
    /// encoder alone; how it pools is written as sentence-transformers has it, and the head beside it is read here.
    ///
    /// # Errors
    /// If the model has no adapter or another shape, the names of the labels are of another number than the head's outputs, `rows` are empty
    /// or do not fit, something is at `dir` already, the disk refuses, or an output differs by more than `tolerance`, with both numbers.
    pub fn merge_and_save(
        &self,
        model: HeadedNetwork<'_, Encoder>,
        rows: &[Vec<u32>],
        tolerance: f64,
        dir: impl AsRef<Path>,
    ) -> Result<MergeReport> {
        let network = model.network;
        if network.config() != self.config() {
            let reason = format!("the encoder was not loaded from {}: its shape is another", self.dir().display());
            return Err(Error::Incompatible(reason));
        }
        if model.head.path != HEAD {
            let reason = format!("the head of an encoder is at `{HEAD}`, and this one at `{}`", model.head.path);
            return Err(Error::Incompatible(reason));
        }
        check_rows(rows, network.config().vocab_size, network.config().max_positions)?;
        let merging = Merging::begin(self.dir(), dir.as_ref(), network, tolerance)?;
        let class = class(network.config());
        merging.write_config(|fields| write_head(model.head, model.labels, class, fields))?;
        write_pooling(&merging, network.config())?;
        let mut all = tensors(network);
        all.extend(model.tensors());
        merging.write_weights(all)?;

        let weight = network.words.weight.val();
        let (device, dtype) = (weight.device().without_autodiff(), weight.dtype());
        let merged = Self::from_dir(merging.path())?.with_dtype(dtype).load(&device)?;
        let head = merged.head.as_ref().ok_or_else(|| Error::empty("head that was read back"))?;
        let merged = HeadedNetwork::new(&merged.encoder, head);
        let largest = difference_of_heads([&model, &merged], rows, &device, dtype)?;
        merging.end(largest, (rows.len(), rows.len()))
    }
}

/// What transformers loads.
fn class(config: &EncoderConfig) -> &'static str {
    match (&config.family, config.pooling) {
        (EncoderFamily::Bert, Pooling::Pooler) => "BertForSequenceClassification",
        (EncoderFamily::Bert, _) => "BertModel",
        (EncoderFamily::ModernBert(_), Pooling::Pooler) => "ModernBertForSequenceClassification",
        (EncoderFamily::ModernBert(_), _) => "ModernBertModel",
    }
}

/// Says how rows are pooled, where the family's pooler does not do it.
fn write_pooling(merging: &Merging, config: &EncoderConfig) -> Result<()> {
    let kind = match config.pooling {
        Pooling::Pooler => return Ok(()),
        Pooling::FirstToken => "cls_token",
        Pooling::Mean => "mean_tokens",
    };
    let path = merging.path().join(POOLING_FILE);
    let dir = path.parent().unwrap_or(merging.path());
    std::fs::create_dir(dir).map_err(|e| Error::io(dir, e))?;
    let width = ("word_embedding_dimension".to_string(), json!(config.hidden_size));
    let fields = Map::from_iter([width, (format!("{POOLING_PREFIX}{kind}"), json!(true))]);
    merging.write_json(POOLING_FILE, &fields)
}

/// Every tensor of the merged encoder under the names of a model with a head.
fn tensors(model: &Encoder) -> Vec<(String, StoredArray<'_>)> {
    let of = Names::of(&model.config.family);
    let tables = [(Some(of.words), Some(&model.words)), (of.positions, model.positions.as_ref())];
    let tables = tables.into_iter().chain([(of.token_types, model.token_types.as_ref())]);
    let mut all = Vec::new();
    for (path, table) in tables.filter_map(|(path, table)| path.zip(table)) {
        let table = table.weight.val();
        all.push((format!("{path}.weight"), fetched(table.dims(), move || table.clone())));
    }
    for (path, norm) in norms(model, of) {
        let parameters = [("weight", Some(&norm.gamma)), ("bias", norm.beta.as_ref())];
        for (name, parameter) in parameters.into_iter().filter_map(|(name, parameter)| Some((name, parameter?.val()))) {
            all.push((format!("{path}.{name}"), fetched(parameter.dims(), move || parameter.clone())));
        }
    }
    for linear in model.linears() {
        let shape = [linear.d_out(), linear.d_in()];
        all.push((format!("{}.weight", linear.path), fetched(shape, || linear.merged_weight().transpose())));
        if let Some(bias) = &linear.bias {
            all.push((format!("{}.bias", linear.path), fetched(bias.dims(), || bias.val())));
        }
    }
    all
}

/// Every norm with its path.
fn norms<'a>(model: &'a Encoder, of: &'a Names) -> Vec<(String, &'a Norm)> {
    let of_layer = |(index, layer): (usize, &'a super::layer::Layer)| {
        let names = of.norms.into_iter().zip(&layer.norms);
        names.filter_map(move |(name, norm)| Some((format!("{}{index}.{name}", of.layers), norm.as_ref()?)))
    };
    let ends = [
        (Some(of.norm), Some(&model.norm)),
        (of.final_norm, model.final_norm.as_ref()),
        (of.pooler.1, model.pooler.as_ref().and_then(|pooler| pooler.norm.as_ref())),
    ];
    let ends = ends.into_iter().filter_map(|(path, norm)| Some((path?.to_string(), norm?)));
    ends.chain(model.layers.iter().enumerate().flat_map(of_layer)).collect()
}
