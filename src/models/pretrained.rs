//! Loads a model from a Hugging Face directory: `config.json` and one or several safetensors shards.

use super::{attention::Attention, block::Block, causal_lm::CausalLm, config::DecoderConfig};
use crate::error::{Error, Result};
use crate::lora::LoraLinear;
use crate::tensor_file::TensorFile;
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// A checkpoint on disk whose configuration has been read and checked.
#[derive(Debug, Clone)]
pub struct Pretrained {
    dir: PathBuf,
    config: DecoderConfig,
    dtype: DType,
}

impl Pretrained {
    /// Reads and checks the configuration of a Hugging Face directory.
    ///
    /// # Errors
    /// If `config.json` is missing, malformed or of an unsupported family.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        let config = DecoderConfig::from_file(dir.join("config.json"))?;
        Ok(Self { dir, config, dtype: DType::F32 })
    }

    /// Loads the weights as `dtype` instead of f32.
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Where the checkpoint is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The model's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Reads all weights onto `device`, frozen.
    ///
    /// # Errors
    /// If a shard or tensor is missing, truncated, of another shape, or holds values that are not finite.
    pub fn load(&self, device: &Device) -> Result<CausalLm> {
        let mut weights =
            Weights { shards: Shards::open(&self.dir)?, device: device.clone().without_autodiff(), dtype: self.dtype };
        let config = &self.config;
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let table: Tensor<2> = weights.tensor("model.embed_tokens.weight", [vocab, hidden])?;
        let blocks = (0..config.n_layers).map(|layer| weights.block(config, layer)).collect::<Result<Vec<_>>>()?;
        let norm = weights.norm("model.norm", config)?;
        let mut head = if config.tied_head {
            LoraLinear::new("lm_head", table.clone().transpose(), None)
        } else {
            weights.linear("lm_head", hidden, vocab, false)?
        };
        head.is_head = true;
        head.is_tied = config.tied_head;
        let mut embedding: Embedding = EmbeddingConfig::new(1, hidden).init(&weights.device);
        embedding.weight = Param::from_tensor(table);
        let model = CausalLm { embedding, blocks, norm, head, config: config.clone() };
        Ok(model.no_grad())
    }
}

/// Typed reading of named weights.
struct Weights {
    shards: Shards,
    device: Device,
    dtype: DType,
}

impl Weights {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        self.shards.file_of(name)?.read(name, shape, self.dtype, &self.device)
    }

    /// Reads a linear, transposed to `[d_in, d_out]` and laid out anew, because products of transposed views are slower.
    fn linear(&mut self, path: &str, d_in: usize, d_out: usize, bias: bool) -> Result<LoraLinear> {
        let weight: Tensor<2> = self.tensor(&format!("{path}.weight"), [d_out, d_in])?;
        let weight = Tensor::from_data(weight.transpose().into_data(), (&self.device, self.dtype));
        let bias = bias.then(|| self.tensor(&format!("{path}.bias"), [d_out])).transpose()?;
        Ok(LoraLinear::new(path, weight, bias))
    }

    fn norm(&mut self, path: &str, config: &DecoderConfig) -> Result<RmsNorm> {
        let width = config.hidden_size;
        let mut norm = RmsNormConfig::new(width).with_epsilon(config.norm_eps).init(&self.device);
        norm.gamma = Param::from_tensor(self.tensor(&format!("{path}.weight"), [width])?);
        Ok(norm)
    }

    fn block(&mut self, config: &DecoderConfig, layer: usize) -> Result<Block> {
        let path = format!("model.layers.{layer}");
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
        let mut linear = |name: &str, d_in, d_out, bias| self.linear(&format!("{path}.{name}"), d_in, d_out, bias);
        let attention = Attention::new(
            config,
            [
                linear("self_attn.q_proj", hidden, queries, config.qkv_bias)?,
                linear("self_attn.k_proj", hidden, keys, config.qkv_bias)?,
                linear("self_attn.v_proj", hidden, keys, config.qkv_bias)?,
                linear("self_attn.o_proj", queries, hidden, config.output_bias)?,
            ],
        );
        Ok(Block {
            attention,
            gate_proj: linear("mlp.gate_proj", hidden, inner, config.mlp_bias)?,
            up_proj: linear("mlp.up_proj", hidden, inner, config.mlp_bias)?,
            down_proj: linear("mlp.down_proj", inner, hidden, config.mlp_bias)?,
            input_norm: self.norm(&format!("{path}.input_layernorm"), config)?,
            mlp_norm: self.norm(&format!("{path}.post_attention_layernorm"), config)?,
        })
    }
}

/// The safetensors files of a checkpoint and which tensor is where.
struct Shards {
    dir: PathBuf,
    files: Vec<TensorFile>,
    place: HashMap<String, usize>,
}

impl Shards {
    fn open(dir: &Path) -> Result<Self> {
        let names = match dir.join(SINGLE_FILE) {
            single if single.is_file() => vec![SINGLE_FILE.to_string()],
            single => {
                let index = dir.join(INDEX_FILE);
                if !index.is_file() {
                    let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
                    return Err(Error::io(single, missing));
                }
                shard_names(&index)?
            }
        };
        let mut shards = Self { dir: dir.to_path_buf(), files: Vec::new(), place: HashMap::new() };
        for name in names {
            let file = TensorFile::open(dir.join(name))?;
            shards.place.extend(file.names().into_iter().map(|tensor| (tensor, shards.files.len())));
            shards.files.push(file);
        }
        Ok(shards)
    }

    fn file_of(&mut self, name: &str) -> Result<&mut TensorFile> {
        let place = self.place.get(name).copied();
        place
            .and_then(|i| self.files.get_mut(i))
            .ok_or_else(|| Error::MissingTensor { name: name.to_string(), location: self.dir.clone() })
    }
}

/// File names in a shard index; each must be a plain name inside the directory.
fn shard_names(index: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(index).map_err(|e| Error::io(index, e))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| Error::format(index.display(), e))?;
    let map = value
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| Error::format(index.display(), "has no `weight_map`"))?;
    let mut names = std::collections::BTreeSet::new();
    for (tensor, file) in map {
        let name = file.as_str().unwrap_or_default();
        let plain = !name.is_empty() && !name.contains(['/', '\\', ':']) && name != "." && name != "..";
        if !plain {
            return Err(Error::format(
                index.display(),
                format!("tensor `{tensor}` is placed in `{file}`, which is not a plain file name"),
            ));
        }
        names.insert(name.to_string());
    }
    Ok(names.into_iter().collect())
}
