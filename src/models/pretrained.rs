//! Loads a model from a Hugging Face directory: `config.json` and one or several safetensors shards; or from a GGUF file.

use super::load_report::{LoadReport, check_names, check_unread};
use super::names::{
    ATTENTION_OUTPUT, DOWN, EMBEDDING, GATE_UP, HEAD, LAYERS, NORM, QUERY_KEY_VALUE, SCORE, SCORE_WEIGHT, root,
};
use super::{
    attention::Attention, block::Block, causal_lm::CausalLm, config::DecoderConfig, family::QueryKeyNorms, norm::Norm,
    projections::Projections, random, shards::Shards,
};
use crate::error::{Error, Result};
use crate::float_type::check_float_on;
use crate::lora::{LoraLinear, TrainedHead, laid_out};
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{DType, Device, Tensor};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A checkpoint on disk whose configuration has been read and checked.
#[derive(Debug, Clone)]
pub struct Pretrained {
    dir: PathBuf,
    format: Format,
    config: DecoderConfig,
    dtype: DType,
}

/// A decoder with what its files hold beside it.
#[derive(Debug)]
pub struct LoadedDecoder {
    /// The decoder, frozen.
    pub lm: CausalLm,
    /// The head of a checkpoint that classifies or rewards.
    pub head: Option<TrainedHead>,
    /// What else the files hold.
    pub report: LoadReport,
}

/// Where the weights are.
#[derive(Debug, Clone)]
enum Format {
    /// In safetensors files of the directory.
    Safetensors,
    /// In this file.
    #[cfg(feature = "gguf")]
    Gguf(PathBuf),
    /// Nowhere: they are drawn by this seed.
    Random(u64),
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

    /// Reads and checks the metadata of a GGUF file, version 3, of the architecture `llama` (Mistral's too), `qwen2`, `qwen3`,
    /// `smollm3`, `olmo2` (OLMo 3's too), `granite`, `mistral3` (Ministral 3), `phi3`, `gemma2` or `gemma3`.
    ///
    /// [`Pretrained::load`] decodes its blocks (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K) to the element type asked for:
    /// in f32 a Q4_0 file needs 7 times its size in memory, in bf16 half of that, and while a tensor is read its bytes and four
    /// bytes a value more. llama.cpp's order of the query and key rows is undone, and Gemma's gains of norms are what they are
    /// on the Hub (one less), so that adapters fit the Hugging Face checkpoint of the same model. Factors of rotary frequencies become [`RopeScaling::Factors`](super::RopeScaling).
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

    /// A network of a shape with random weights `N(0, 0.02²)`, gains of 1 and biases of 0, to measure what a shape costs and to test.
    ///
    /// A tensor of more than 2²⁰ numbers repeats its first ones.
    pub fn random(config: DecoderConfig, seed: u64) -> Self {
        Self { dir: PathBuf::new(), format: Format::Random(seed), config, dtype: DType::F32 }
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
    /// Those of [`Pretrained::load_with_report`].
    pub fn load(&self, device: &Device) -> Result<CausalLm> {
        Ok(self.load_with_report(device)?.0)
    }

    /// Reads all weights onto `device`, frozen, and says what else the files hold.
    ///
    /// A configuration that ties the output head to the embedding is obeyed where the weights have one of both, or both with
    /// the same values. Where they differ, the head of the file is used, as transformers does, and the report says so; the
    /// model's [`DecoderConfig::tied_head`] is then false. Names may lack their `model.`, as `AutoModel` saves them.
    ///
    /// # Errors
    /// If the element type is no floating-point type or unknown to the device; if a shard or tensor is missing, truncated, of
    /// another shape, holds values that are not finite or that the element type cannot hold, or stands in two shards with
    /// different values; if the files hold tensors that would change the logits and that the configuration does not declare:
    /// an adapter that is not merged, biases, more layers.
    pub fn load_with_report(&self, device: &Device) -> Result<(CausalLm, LoadReport)> {
        let loaded = self.read(device, false)?;
        Ok((loaded.lm, loaded.report))
    }

    /// The same with the head of a checkpoint that classifies or rewards, `score.weight`, where it has one. Such a checkpoint may lack the
    /// output head, which then is the embedding and is not asked.
    ///
    /// # Errors
    /// Those of [`Pretrained::load_with_report`].
    pub fn load_with_head(&self, device: &Device) -> Result<LoadedDecoder> {
        self.read(device, true)
    }

    fn read(&self, device: &Device, with_head: bool) -> Result<LoadedDecoder> {
        check_float_on("element type of the model", self.dtype, device)?;
        let (source, location) = match &self.format {
            Format::Safetensors => (Source::Shards(Shards::open(&self.dir)?), &self.dir),
            #[cfg(feature = "gguf")]
            Format::Gguf(path) => (Source::Gguf(Box::new(super::gguf::Weights::open(path, &self.config)?)), path),
            Format::Random(seed) => (Source::Random(*seed), &self.dir),
        };
        let mut config = self.config.clone();
        let place = location.display().to_string();
        check_names(&place, &source.names(), config.n_layers)?;
        let mut weights =
            Weights { source, device: device.clone().without_autodiff(), dtype: self.dtype, asked: BTreeSet::new() };
        let score = if with_head { weights.score(config.hidden_size)? } else { None };
        let (table, own_head) = weights.ends(&config, score.is_some())?;
        let mut report = LoadReport { location: location.clone(), ..LoadReport::default() };
        report.untied_head = config.tied_head && own_head.is_some();
        config.tied_head = own_head.is_none();
        let blocks = (0..config.n_layers).map(|layer| weights.block(&config, layer)).collect::<Result<Vec<_>>>()?;
        let norm = weights.norm(format!("{}{NORM}", root(config.inside)), config.hidden_size, &config)?;
        let weight = own_head.unwrap_or_else(|| table.clone().transpose());
        let mut head = LoraLinear::new(HEAD, weight, None);
        head.is_head = true;
        head.is_tied = config.tied_head;
        let mut embedding: Embedding = EmbeddingConfig::new(1, config.hidden_size).init(&weights.device);
        embedding.weight = Param::from_tensor(table);
        report.unread_tensors = check_unread(&place, weights.unread(), config.n_layers)?;
        weights.source.report(&mut report);
        let model = CausalLm { embedding, blocks, norm, head, config, replaced: Default::default() };
        Ok(LoadedDecoder { lm: model.no_grad(), head: score, report })
    }
}

/// Typed reading of named weights.
struct Weights {
    source: Source,
    device: Device,
    dtype: DType,
    /// Names in the files of the tensors that were read.
    asked: BTreeSet<String>,
}

/// The opened files.
enum Source {
    Shards(Shards),
    #[cfg(feature = "gguf")]
    Gguf(Box<super::gguf::Weights>),
    /// Draws by a seed.
    Random(u64),
}

impl Source {
    /// The name that a tensor has in the files.
    fn stored_name(&self, name: &str) -> String {
        match self {
            Self::Shards(shards) => shards.stored_name(name),
            #[cfg(feature = "gguf")]
            Self::Gguf(file) => file.stored_name(name),
            Self::Random(_) => name.to_string(),
        }
    }

    fn is_bare(&self) -> bool {
        match self {
            Self::Shards(shards) => shards.is_bare(),
            #[cfg(feature = "gguf")]
            Self::Gguf(_) => false,
            Self::Random(_) => false,
        }
    }

    /// Adds what several files of a directory say.
    fn report(&self, report: &mut LoadReport) {
        match self {
            Self::Shards(shards) => {
                report.repeated_tensors = shards.repeated();
                report.unread_files = shards.unread_files();
            }
            #[cfg(feature = "gguf")]
            Self::Gguf(_) => {}
            Self::Random(_) => {}
        }
    }

    /// The names of the tensors in the files, but for those that the configuration has been read from.
    fn names(&self) -> Vec<String> {
        match self {
            Self::Shards(shards) => shards.names(),
            #[cfg(feature = "gguf")]
            Self::Gguf(file) => file.names(),
            Self::Random(_) => Vec::new(),
        }
    }
}

impl Weights {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        let stored = self.source.stored_name(name);
        let tensor = match &mut self.source {
            Source::Shards(shards) => shards.file_of(&stored)?.read(&stored, shape, self.dtype, &self.device),
            #[cfg(feature = "gguf")]
            Source::Gguf(file) => file.read(name, shape, self.dtype, &self.device),
            Source::Random(seed) => Ok(random::tensor(*seed, name, shape, (&self.device, self.dtype))),
        }?;
        self.asked.insert(stored);
        Ok(tensor)
    }

    /// Names of tensors that were not read.
    fn unread(&self) -> Vec<String> {
        self.source.names().into_iter().filter(|name| !self.asked.contains(name)).collect()
    }

    /// The embedding, `[vocab, hidden]`, and the weight of the output head where it is not the embedding, `[hidden, vocab]`.
    fn ends(&mut self, config: &DecoderConfig, has_score: bool) -> Result<(Tensor<2>, Option<Tensor<2>>)> {
        let shape = [config.vocab_size, config.hidden_size];
        let names = self.source.names();
        let (table_name, head_name) = (format!("{}{EMBEDDING}.weight", root(config.inside)), format!("{HEAD}.weight"));
        let has = |name: &str| names.contains(&self.source.stored_name(name));
        let (has_table, has_head, scores) = (has(&table_name), has(&head_name), has(SCORE_WEIGHT));
        let tied = config.tied_head || has_score && !has_head;
        if !tied && !has_head && scores {
            return Err(Error::Incompatible(format!(
                "no `{HEAD}.weight`: the checkpoint has a head for classes or rewards, `{SCORE_WEIGHT}`, and none for tokens; it is a \
                 `SequenceClassifier`'s or a `RewardModel`'s (`Pretrained::load_with_head`)"
            )));
        }
        if !tied && !has_head && self.source.is_bare() {
            return Err(Error::Incompatible(format!(
                "no `{HEAD}.weight`: a model saved from `AutoModel` (names without `model.`) has no output head, and \
                 `tie_word_embeddings` is false: save it from `AutoModelForCausalLM`"
            )));
        }
        // a tie holds in both directions
        let table = self.tensor(if tied && has_head && !has_table { &head_name } else { &table_name }, shape)?;
        if tied && !(has_head && has_table) {
            return Ok((table, None));
        }
        let head = self.tensor(&head_name, shape)?;
        if tied && head.clone().into_data().as_bytes() == table.clone().into_data().as_bytes() {
            return Ok((table, None));
        }
        let head = laid_out(head.transpose());
        Ok((table, Some(head)))
    }

    /// The head of a classifier, with as many outputs as its file has rows.
    fn score(&mut self, width: usize) -> Result<Option<TrainedHead>> {
        let Source::Shards(shards) = &mut self.source else { return Ok(None) };
        if !shards.names().iter().any(|name| name == SCORE_WEIGHT) {
            return Ok(None);
        }
        let rows = shards.file_of(SCORE_WEIGHT)?.shape(SCORE_WEIGHT).and_then(|shape| shape.first().copied());
        let weight = self.tensor(SCORE_WEIGHT, [rows.unwrap_or(0), width])?;
        Ok(Some(TrainedHead::pretrained(SCORE, weight, None)))
    }

    /// Reads a linear, transposed to `[d_in, d_out]`.
    fn linear(&mut self, path: &str, d_in: usize, d_out: usize, bias: bool) -> Result<LoraLinear> {
        let weight: Tensor<2> = self.tensor(&format!("{path}.weight"), [d_out, d_in])?;
        let weight = laid_out(weight.transpose());
        let bias = bias.then(|| self.tensor(&format!("{path}.bias"), [d_out])).transpose()?;
        Ok(LoraLinear::new(path, weight, bias))
    }

    fn norm(&mut self, path: String, width: usize, config: &DecoderConfig) -> Result<Norm> {
        let gains = self.tensor(&format!("{path}.weight"), [width])?;
        Ok(Norm::new(path, gains, config.norm_eps, config.family.traits().norm_kind))
    }

    /// Several outputs of one input, by one linear where the family has them fused.
    fn projections(
        &mut self,
        at: impl Fn(&str) -> String,
        (apart, fused): (&[&str], &str),
        d_in: usize,
        (widths, bias): (&[usize], bool),
        is_fused: bool,
    ) -> Result<Projections> {
        let linears = match is_fused {
            true => vec![self.linear(&at(fused), d_in, widths.iter().sum(), bias)?],
            false => {
                let each = apart.iter().zip(widths);
                each.map(|(name, width)| self.linear(&at(name), d_in, *width, bias)).collect::<Result<_>>()?
            }
        };
        Ok(Projections::new(linears, widths))
    }

    fn block(&mut self, config: &DecoderConfig, layer: usize) -> Result<Block> {
        let traits = config.family.traits();
        let at = |name: &str| format!("{}{LAYERS}{layer}.{name}", root(config.inside));
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
        let widths = ([queries, keys, keys], [inner, inner]);
        let inputs = self.projections(at, QUERY_KEY_VALUE, hidden, (&widths.0, config.qkv_bias), traits.fused)?;
        let o_proj = self.linear(&at(ATTENTION_OUTPUT), queries, hidden, config.output_bias)?;
        let of_heads = match traits.query_key_norms {
            QueryKeyNorms::AllHeads => [queries, keys],
            _ => [config.head_dim; 2],
        };
        let mut norm =
            |name: Option<&str>, width: usize| name.map(|name| self.norm(at(name), width, config)).transpose();
        let [query, key] = traits.query_key_norm_names();
        let query_key_norms = [norm(query, of_heads[0])?, norm(key, of_heads[1])?];
        let [a, b, c, d] = traits.norm_names().map(|name| norm(name, hidden));
        Ok(Block {
            norms: [a?, b?, c?, d?],
            attention: Attention::new(config, inputs, o_proj, query_key_norms),
            gate_up: self.projections(at, GATE_UP, hidden, (&widths.1, config.mlp_bias), traits.fused)?,
            down_proj: self.linear(&at(DOWN), inner, hidden, config.mlp_bias)?,
            activation: config.activation,
            residual_scale: config.scales.residual,
        })
    }
}
