//! Loads an encoder from a Hugging Face directory.

use super::config::{EncoderConfig, Pooling};
use super::layer::{Layer, Norm, linear_names};
use super::model::Encoder;
use crate::error::{Error, Result};
use crate::float_type::check_float_on;
use crate::lora::{LoraLinear, TrainedHead, laid_out};
use crate::models::load_report::LoadReport;
use crate::models::shards::Shards;
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{DType, Device, Tensor};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What the encoder is called inside a model with a head; a model without has its tensors without this.
const ROOT: &str = "bert.";
const HEAD: &str = "classifier";

/// An encoder on disk whose configuration has been read and checked.
#[derive(Debug, Clone)]
pub struct PretrainedEncoder {
    dir: PathBuf,
    config: EncoderConfig,
    dtype: DType,
}

/// An encoder with what its files hold beside it.
#[derive(Debug)]
pub struct LoadedEncoder {
    /// The encoder, frozen.
    pub encoder: Encoder,
    /// The head of a checkpoint that classifies.
    pub head: Option<TrainedHead>,
    /// What else the files hold.
    pub report: LoadReport,
}

impl PretrainedEncoder {
    /// Reads and checks the configuration of a directory: a model as transformers or sentence-transformers saves it.
    ///
    /// # Errors
    /// As [`EncoderConfig::from_dir`].
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let config = EncoderConfig::from_dir(&dir)?;
        Ok(Self { dir: dir.as_ref().to_path_buf(), config, dtype: DType::F32 })
    }

    /// Loads the weights as `dtype` instead of f32.
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Pools rows in another way than the files say.
    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        self.config.pooling = pooling;
        self
    }

    /// The model's shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Reads all weights onto `device`, frozen, and says what else the files hold.
    ///
    /// # Errors
    /// If the element type is none of floating point or unknown to the device; if a file or tensor is missing, truncated, of another
    /// shape, or holds values that are not finite.
    pub fn load(&self, device: &Device) -> Result<LoadedEncoder> {
        check_float_on("element type of the model", self.dtype, device)?;
        let shards = Shards::open(&self.dir)?;
        let names: BTreeSet<String> = shards.names().into_iter().collect();
        let root = if names.iter().any(|name| name.starts_with(ROOT)) { ROOT } else { "" };
        let device = device.clone().without_autodiff();
        let mut weights = Weights { shards, names, root, device, dtype: self.dtype, asked: BTreeSet::new() };
        let encoder = weights.encoder(&self.config)?;
        let head = weights.head(self.config.hidden_size)?;
        let report = LoadReport {
            location: self.dir.clone(),
            unread_tensors: weights.names.difference(&weights.asked).cloned().collect(),
            repeated_tensors: weights.shards.repeated(),
            unread_files: weights.shards.unread_files(),
            ..LoadReport::default()
        };
        Ok(LoadedEncoder { encoder: encoder.no_grad(), head, report })
    }
}

/// Typed reading of named weights.
struct Weights {
    shards: Shards,
    names: BTreeSet<String>,
    root: &'static str,
    device: Device,
    dtype: DType,
    asked: BTreeSet<String>,
}

impl Weights {
    fn tensor<const D: usize>(&mut self, stored: String, shape: [usize; D]) -> Result<Tensor<D>> {
        let tensor = self.shards.file_of(&stored)?.read(&stored, shape, self.dtype, &self.device)?;
        self.asked.insert(stored);
        Ok(tensor)
    }

    fn encoder(&mut self, config: &EncoderConfig) -> Result<Encoder> {
        let hidden = config.hidden_size;
        let layers = (0..config.n_layers).map(|layer| self.layer(config, layer)).collect::<Result<_>>()?;
        let pooler = config.pooling == Pooling::Pooler;
        Ok(Encoder {
            words: self.embedding("word_embeddings", config.vocab_size, hidden)?,
            positions: self.embedding("position_embeddings", config.max_positions, hidden)?,
            token_types: self.embedding("token_type_embeddings", config.n_token_types, hidden)?,
            norm: self.norm("embeddings.LayerNorm", config)?,
            layers,
            pooler: pooler.then(|| self.linear("pooler.dense", hidden, hidden)).transpose()?,
            config: config.clone(),
        })
    }

    fn embedding(&mut self, name: &str, rows: usize, width: usize) -> Result<Embedding> {
        let mut embedding: Embedding = EmbeddingConfig::new(1, width).init(&self.device);
        let table = self.tensor(format!("{}embeddings.{name}.weight", self.root), [rows, width])?;
        embedding.weight = Param::from_tensor(table);
        Ok(embedding)
    }

    /// Checkpoints of the first years call the parameters of norms gamma and beta.
    fn norm(&mut self, path: &str, config: &EncoderConfig) -> Result<Norm> {
        let mut read = |[new, old]: [&str; 2]| {
            let [new, old] = [new, old].map(|parameter| format!("{}{path}.{parameter}", self.root));
            let stored = if self.names.contains(&old) { old } else { new };
            self.tensor(stored, [config.hidden_size]).map(Param::from_tensor)
        };
        let (gamma, beta) = (read(["weight", "gamma"])?, read(["bias", "beta"])?);
        Ok(Norm { gamma, beta, eps: config.norm_eps })
    }

    /// A linear, its weight transposed to `[d_in, d_out]` and laid out anew; its path is that inside a model with a head.
    fn linear(&mut self, path: &str, d_in: usize, d_out: usize) -> Result<LoraLinear> {
        let weight: Tensor<2> = self.tensor(format!("{}{path}.weight", self.root), [d_out, d_in])?;
        let bias = self.tensor(format!("{}{path}.bias", self.root), [d_out])?;
        Ok(LoraLinear::new(format!("{ROOT}{path}"), laid_out(weight.transpose()), Some(bias)))
    }

    fn layer(&mut self, config: &EncoderConfig, layer: usize) -> Result<Layer> {
        let path = format!("encoder.layer.{layer}");
        let linears = linear_names(config)
            .into_iter()
            .map(|(name, d_in, d_out)| self.linear(&format!("{path}.{name}"), d_in, d_out))
            .collect::<Result<Vec<_>>>()?;
        let count =
            |linears: Vec<_>| Error::Count { what: "linears of a layer".into(), expected: 6, found: linears.len() };
        let [query, key, value, attention_output, intermediate, output] =
            <[LoraLinear; 6]>::try_from(linears).map_err(count)?;
        Ok(Layer {
            query,
            key,
            value,
            attention_output,
            intermediate,
            output,
            attention_norm: self.norm(&format!("{path}.attention.output.LayerNorm"), config)?,
            output_norm: self.norm(&format!("{path}.output.LayerNorm"), config)?,
            head_dim: config.head_dim(),
        })
    }

    /// The head of a classifier, with as many classes as its file has rows.
    fn head(&mut self, width: usize) -> Result<Option<TrainedHead>> {
        let [weight, bias] = ["weight", "bias"].map(|parameter| format!("{HEAD}.{parameter}"));
        if !self.names.contains(&weight) {
            return Ok(None);
        }
        let n_classes = self.shards.file_of(&weight)?.shape(&weight).and_then(|shape| shape.first().copied());
        let n_classes = n_classes.unwrap_or(0);
        let weight = self.tensor(weight, [n_classes, width])?;
        Ok(Some(TrainedHead::pretrained(HEAD, weight, Some(self.tensor(bias, [n_classes])?))))
    }
}
