//! Loads an encoder from a Hugging Face directory.

use super::config::{EncoderConfig, EncoderFamily, Pooling};
use super::layer::{Layer, Norm, NormPlace, Pooler};
use super::model::Encoder;
use super::names::{HEAD, Names};
use crate::error::{Error, Result};
use crate::float_type::check_float_on;
use crate::lora::{LoraLinear, TrainedHead, laid_out};
use crate::models::activation::GateActivation;
use crate::models::load_report::LoadReport;
use crate::models::projections::Projections;
use crate::models::shards::Shards;
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{DType, Device, Tensor};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// An encoder on disk whose configuration has been read and checked.
#[derive(Debug, Clone)]
pub struct PretrainedEncoder {
    dir: PathBuf,
    /// The file that holds all of it; else it is a directory.
    #[cfg(feature = "gguf")]
    file: Option<PathBuf>,
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
        Ok(Self {
            dir: dir.as_ref().to_path_buf(),
            #[cfg(feature = "gguf")]
            file: None,
            config,
            dtype: DType::F32,
        })
    }

    /// Reads and checks the metadata of a GGUF file, version 3, of the architecture `bert`.
    ///
    /// llama.cpp keeps no pooler, so that rows are pooled by the mean or the first token, as the file says; the first where it says nothing
    /// ([`PretrainedEncoder::with_pooling`]). Heads in the file are not read. The vocabulary is not read either:
    /// [`Tokenizer::from_dir`](crate::data::Tokenizer::from_dir) needs the model's `tokenizer.json`.
    ///
    /// # Errors
    /// Those of [`GgufFile::open`](crate::gguf::GgufFile::open); [`Error::Unsupported`] for another architecture or a setting that is not
    /// computed; [`Error::Config`] for dimensions that are missing or contradict each other.
    #[cfg(feature = "gguf")]
    pub fn from_gguf(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let config = super::gguf::config(&crate::gguf::GgufFile::open(path)?)?;
        let dir = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(Self { dir, file: Some(path.to_path_buf()), config, dtype: DType::F32 })
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

    /// The directory of the checkpoint.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The model's shape.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Reads all weights onto `device`, frozen, and says what else the files hold.
    ///
    /// # Errors
    /// If the element type is none of floating point or unknown to the device; if a file or tensor is missing, truncated, of another
    /// shape, or holds values that are not finite; if the files hold biases or parts of layers that the configuration does not declare.
    /// [`Pooling::Pooler`] needs the layer before a classifier, which a bare encoder may lack: [`PretrainedEncoder::with_pooling`].
    pub fn load(&self, device: &Device) -> Result<LoadedEncoder> {
        check_float_on("element type of the model", self.dtype, device)?;
        let source = self.open()?;
        let names: BTreeSet<String> = source.names().into_iter().collect();
        let of = Names::of(&self.config.family);
        let is_bare = !names.iter().any(|name| name.starts_with(of.root));
        let device = device.clone().without_autodiff();
        let mut weights = Weights { source, names, of, is_bare, device, dtype: self.dtype, asked: BTreeSet::new() };
        let encoder = weights.encoder(&self.config)?;
        let head = weights.head(&self.config)?;
        let unread: Vec<String> = weights.names.difference(&weights.asked).cloned().collect();
        let has_pooler = encoder.pooler.is_some();
        let is_surplus = |name: &&String| weights.source.is_part(of, name, has_pooler);
        if let Some(name) = unread.iter().find(is_surplus) {
            let reason =
                "would change the logits and is none of what the configuration declares (num_hidden_layers, biases)";
            return Err(Error::format(self.dir.display(), format!("tensor `{name}` {reason}")));
        }
        let mut report = LoadReport { location: self.dir.clone(), unread_tensors: unread, ..LoadReport::default() };
        match &weights.source {
            Source::Shards(shards) => {
                report.repeated_tensors = shards.repeated();
                report.unread_files = shards.unread_files();
            }
            #[cfg(feature = "gguf")]
            Source::Gguf(file) => report.location = file.path().to_path_buf(),
        }
        Ok(LoadedEncoder { encoder: encoder.no_grad(), head, report })
    }

    fn open(&self) -> Result<Source> {
        #[cfg(feature = "gguf")]
        if let Some(path) = &self.file {
            return Ok(Source::Gguf(Box::new(crate::gguf::GgufFile::open(path)?)));
        }
        Ok(Source::Shards(Shards::open(&self.dir)?))
    }
}

/// The opened files.
enum Source {
    Shards(Shards),
    #[cfg(feature = "gguf")]
    Gguf(Box<crate::gguf::GgufFile>),
}

impl Source {
    fn names(&self) -> Vec<String> {
        match self {
            Self::Shards(shards) => shards.names(),
            #[cfg(feature = "gguf")]
            Self::Gguf(file) => file.names(),
        }
    }

    fn rows_of(&mut self, stored: &str) -> Result<Option<usize>> {
        match self {
            Self::Shards(shards) => Ok(shards.file_of(stored)?.shape(stored).and_then(|shape| shape.first().copied())),
            #[cfg(feature = "gguf")]
            Self::Gguf(file) => Ok(file.shape(stored).and_then(|shape| shape.first()).copied()),
        }
    }

    /// Whether the logits depend on a tensor, by its name in a file.
    fn is_part(&self, of: &Names, stored: &str, with_pooler: bool) -> bool {
        match self {
            Self::Shards(_) => of.is_part(stored, with_pooler),
            #[cfg(feature = "gguf")]
            Self::Gguf(_) => super::gguf::is_part(stored),
        }
    }
}

/// Typed reading of named weights.
struct Weights {
    source: Source,
    names: BTreeSet<String>,
    of: &'static Names,
    /// The names in the files lack the root.
    is_bare: bool,
    device: Device,
    dtype: DType,
    asked: BTreeSet<String>,
}

impl Weights {
    fn stored_name(&self, name: String) -> String {
        #[cfg(feature = "gguf")]
        if let Source::Gguf(_) = self.source {
            return super::gguf::stored_name(self.of, &name);
        }
        let bare = name.strip_prefix(self.of.root).filter(|_| self.is_bare).map(str::to_string);
        bare.unwrap_or(name)
    }

    fn tensor<const D: usize>(&mut self, name: String, shape: [usize; D]) -> Result<Tensor<D>> {
        let stored = self.stored_name(name);
        let tensor = match &mut self.source {
            Source::Shards(shards) => shards.file_of(&stored)?.read(&stored, shape, self.dtype, &self.device)?,
            #[cfg(feature = "gguf")]
            Source::Gguf(file) => super::gguf::read(file, &stored, shape, (self.dtype, &self.device))?,
        };
        self.asked.insert(stored);
        Ok(tensor)
    }

    fn encoder(&mut self, config: &EncoderConfig) -> Result<Encoder> {
        let (of, hidden) = (self.of, config.hidden_size);
        let norm_bias = Biases::of(config).norms;
        let layers = (0..config.n_layers).map(|layer| self.layer(config, layer)).collect::<Result<_>>()?;
        let mut table = |name: Option<&str>, rows| name.map(|name| self.embedding(name, rows, hidden)).transpose();
        let positions = table(of.positions, config.max_positions)?;
        let token_types = table(of.token_types, config.n_token_types)?;
        let pooler = config.pooling == Pooling::Pooler;
        Ok(Encoder {
            words: self.embedding(of.words, config.vocab_size, hidden)?,
            positions,
            token_types,
            norm: self.norm(of.norm, config, norm_bias)?,
            layers,
            final_norm: of.final_norm.map(|path| self.norm(path, config, norm_bias)).transpose()?,
            pooler: pooler.then(|| self.pooler(config)).transpose()?,
            config: config.clone(),
        })
    }

    fn embedding(&mut self, path: &str, rows: usize, width: usize) -> Result<Embedding> {
        let mut embedding: Embedding = EmbeddingConfig::new(1, width).init(&self.device);
        let table = self.tensor(format!("{path}.weight"), [rows, width])?;
        embedding.weight = Param::from_tensor(table);
        Ok(embedding)
    }

    /// Checkpoints of the first years call the parameters of norms gamma and beta.
    fn norm(&mut self, path: &str, config: &EncoderConfig, bias: bool) -> Result<Norm> {
        let mut read = |[new, old]: [&str; 2]| {
            let [new, old] = [new, old].map(|parameter| format!("{path}.{parameter}"));
            let is_old = self.names.contains(&self.stored_name(old.clone()));
            self.tensor(if is_old { old } else { new }, [config.hidden_size]).map(Param::from_tensor)
        };
        let gamma = read(["weight", "gamma"])?;
        let beta = bias.then(|| read(["bias", "beta"])).transpose()?;
        Ok(Norm { gamma, beta, eps: config.norm_eps })
    }

    /// A linear, its weight transposed to `[d_in, d_out]` and laid out anew; its path is that inside a model with a head.
    fn linear(&mut self, path: &str, d_in: usize, d_out: usize, bias: bool) -> Result<LoraLinear> {
        let weight: Tensor<2> = self.tensor(format!("{path}.weight"), [d_out, d_in])?;
        let bias = bias.then(|| self.tensor(format!("{path}.bias"), [d_out])).transpose()?;
        Ok(LoraLinear::new(path, laid_out(weight.transpose()), bias))
    }

    fn layer(&mut self, config: &EncoderConfig, layer: usize) -> Result<Layer> {
        let (of, biases, hidden, inner) = (self.of, Biases::of(config), config.hidden_size, config.intermediate_size);
        let at = |name: &str| format!("{}{layer}.{name}", of.layers);
        let (norm_place, gated, activation) = match &config.family {
            EncoderFamily::Bert => (NormPlace::OnSums, false, GateActivation::Gelu),
            EncoderFamily::ModernBert(modern) => (NormPlace::Before, true, modern.activation),
        };
        let wide = 3 * hidden / of.inputs.len();
        let inputs = of.inputs.iter().map(|name| self.linear(&at(name), hidden, wide, biases.attention));
        let inputs = Projections::new(inputs.collect::<Result<_>>()?, &[hidden; 3]);
        let widths = vec![inner; if gated { 2 } else { 1 }];
        let first = self.linear(&at(of.inner), hidden, widths.iter().sum(), biases.mlp)?;
        // the embeddings of a family with norms before have been through one
        let is_first = norm_place == NormPlace::Before && layer == 0;
        let mut norm = |name: &str| self.norm(&at(name), config, biases.norms);
        let norms = [(!is_first).then(|| norm(of.norms[0])).transpose()?, Some(norm(of.norms[1])?)];
        Ok(Layer {
            inputs,
            attention_output: self.linear(&at(of.attention_output), hidden, hidden, biases.attention)?,
            inner: Projections::new(vec![first], &widths),
            output: self.linear(&at(of.output), inner, hidden, biases.mlp)?,
            norms,
            norm_place,
            activation,
            gated,
            head_dim: config.head_dim(),
        })
    }

    fn pooler(&mut self, config: &EncoderConfig) -> Result<Pooler> {
        let ((dense, norm), biases, hidden) = (self.of.pooler, Biases::of(config), config.hidden_size);
        Ok(Pooler {
            dense: self.linear(dense, hidden, hidden, biases.pooler)?,
            activation: match &config.family {
                EncoderFamily::Bert => None,
                EncoderFamily::ModernBert(modern) => Some(modern.classifier_activation),
            },
            norm: norm.map(|path| self.norm(path, config, biases.norms)).transpose()?,
        })
    }

    /// The head of a classifier, with as many classes as its file has rows.
    fn head(&mut self, config: &EncoderConfig) -> Result<Option<TrainedHead>> {
        let [weight, bias] = ["weight", "bias"].map(|parameter| format!("{HEAD}.{parameter}"));
        if !self.names.contains(&weight) {
            return Ok(None);
        }
        let n_classes = self.source.rows_of(&weight)?;
        let (n_classes, n_labels) = (n_classes.unwrap_or(0), config.labels.len());
        if n_labels > 0 && n_labels != n_classes {
            let what = format!("rows of `{weight}`, one for each name of `id2label`");
            return Err(Error::Count { what, expected: n_labels, found: n_classes });
        }
        let weight = self.tensor(weight, [n_classes, config.hidden_size])?;
        Ok(Some(TrainedHead::pretrained(HEAD, weight, Some(self.tensor(bias, [n_classes])?))))
    }
}

/// Which parts have biases.
struct Biases {
    attention: bool,
    mlp: bool,
    norms: bool,
    pooler: bool,
}

impl Biases {
    fn of(config: &EncoderConfig) -> Self {
        match &config.family {
            EncoderFamily::Bert => Self { attention: true, mlp: true, norms: true, pooler: true },
            EncoderFamily::ModernBert(modern) => Self {
                attention: modern.attention_bias,
                mlp: modern.mlp_bias,
                norms: modern.norm_bias,
                pooler: modern.classifier_bias,
            },
        }
    }
}
