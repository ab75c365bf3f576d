//! Loads a model from a Hugging Face directory: `config.json` and one or several safetensors shards; or from a GGUF file.

use super::{attention::Attention, block::Block, causal_lm::CausalLm, config::DecoderConfig};
use crate::error::{Error, Result};
use crate::lora::LoraLinear;
use crate::plain_name::is_plain;
use crate::tensor_file::TensorFile;
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{DType, Device, Tensor};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub(super) const SINGLE_FILE: &str = "model.safetensors";
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";

/// A checkpoint on disk whose configuration has been read and checked.
#[derive(Debug, Clone)]
pub struct Pretrained {
    dir: PathBuf,
    format: Format,
    config: DecoderConfig,
    dtype: DType,
}

/// Where the weights are.
#[derive(Debug, Clone)]
enum Format {
    /// In safetensors files of the directory.
    Safetensors,
    /// In this file.
    #[cfg(feature = "gguf")]
    Gguf(PathBuf),
}

impl Pretrained {
    /// Reads and checks the configuration of a Hugging Face directory.
    ///
    /// # Errors
    /// If `config.json` is missing, malformed or of an unsupported family.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        let config = DecoderConfig::from_file(dir.join("config.json"))?;
        Ok(Self { dir, format: Format::Safetensors, config, dtype: DType::F32 })
    }

    /// Reads and checks the metadata of a GGUF file, version 3, of the architecture `llama` or `qwen2`.
    ///
    /// [`Pretrained::load`] decodes its blocks (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K) to the element type asked for:
    /// in f32 a Q4_0 file needs 7 times its size in memory, in bf16 half of that, and while a tensor is read its bytes and four
    /// bytes a value more. llama.cpp's order of the query and key rows is undone, so that adapters fit the Hugging Face
    /// checkpoint of the same model. Factors of rotary frequencies become [`RopeScaling::Factors`](super::RopeScaling).
    ///
    /// The vocabulary inside the file is not read: [`Tokenizer::from_dir`](crate::data::Tokenizer::from_dir) needs the
    /// model's `tokenizer.json`, beside the file ([`Pretrained::dir`]) or elsewhere.
    ///
    /// # Errors
    /// Those of [`GgufFile::open`](crate::gguf::GgufFile::open); [`Error::Unsupported`] for another architecture or a
    /// setting that is not computed; [`Error::Config`] for dimensions that are missing or contradict each other.
    #[cfg(feature = "gguf")]
    pub fn from_gguf(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let config = super::gguf::config(&mut crate::gguf::GgufFile::open(path)?)?;
        let dir = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(Self { dir, format: Format::Gguf(path.to_path_buf()), config, dtype: DType::F32 })
    }

    /// Loads the weights as `dtype` instead of f32.
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// The model's shape.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The directory of the checkpoint, where its tokenizer usually is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads all weights onto `device`, frozen.
    ///
    /// # Errors
    /// If a shard or tensor is missing, truncated, of another shape, or holds values that are not finite.
    pub fn load(&self, device: &Device) -> Result<CausalLm> {
        let source = match &self.format {
            Format::Safetensors => Source::Shards(Shards::open(&self.dir)?),
            #[cfg(feature = "gguf")]
            Format::Gguf(path) => Source::Gguf(Box::new(super::gguf::Weights::open(path, &self.config)?)),
        };
        let mut weights = Weights { source, device: device.clone().without_autodiff(), dtype: self.dtype };
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
        let model = CausalLm { embedding, blocks, norm, head, config: config.clone(), replaced: Default::default() };
        Ok(model.no_grad())
    }
}

/// Typed reading of named weights.
struct Weights {
    source: Source,
    device: Device,
    dtype: DType,
}

/// The opened files.
enum Source {
    Shards(Shards),
    #[cfg(feature = "gguf")]
    Gguf(Box<super::gguf::Weights>),
}

impl Weights {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        match &mut self.source {
            Source::Shards(shards) => shards.file_of(name)?.read(name, shape, self.dtype, &self.device),
            #[cfg(feature = "gguf")]
            Source::Gguf(file) => file.read(name, shape, self.dtype, &self.device),
        }
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
pub(super) fn shard_names(index: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(index).map_err(|e| Error::io(index, e))?;
    let value: Value = serde_json::from_str(&text).map_err(|e| Error::format(index.display(), e))?;
    let map = value
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| Error::format(index.display(), "has no `weight_map`"))?;
    let mut names = std::collections::BTreeSet::new();
    for (tensor, file) in map {
        let name = file.as_str().unwrap_or_default();
        if !is_plain(name) {
            return Err(Error::format(
                index.display(),
                format!("tensor `{tensor}` is placed in `{file}`, which is not a plain file name"),
            ));
        }
        names.insert(name.to_string());
    }
    Ok(names.into_iter().collect())
}
