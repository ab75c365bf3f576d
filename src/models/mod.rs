//! Computes class logits: decoder-only language models and encoders from Hugging Face directories, a small multilayer perceptron,
//! and the trait by which your own burn module joins.

mod activation;
mod activations;
mod adapter_gradient;
mod attention;
mod block;
mod by_layers;
mod causal_lm;
mod classifier;
mod config;
mod decoder_layers;
mod encoder;
mod extend;
mod family;
#[cfg(feature = "gguf")]
mod gguf;
#[cfg(feature = "hub")]
mod hub;
mod indices;
mod kv_cache;
mod language_model;
mod layer_contexts;
mod layer_values;
mod layers;
mod load_report;
mod merged;
mod mlp;
mod names;
mod norm;
mod output_batches;
mod pretrained;
mod projections;
mod prompt_classifier;
mod pull_back;
mod random;
mod real_tokens;
mod reward_model;
mod rope;
mod rope_scaling;
mod rope_settings;
mod scales;
mod scored_tokens;
mod seen_prefix;
mod sequence_classifier;
mod settings;
mod shards;
mod subset;
mod targets;
mod text_batch;
mod text_model;
mod through;
mod token_batch;
mod values;
mod visibility;

pub use activation::GateActivation;
pub(crate) use activations::{activation_budget, gradient_within, not_by_layers};
pub use causal_lm::CausalLm;
pub use classifier::{
    Classifier, ClassifierInput, Dataset, HeadFeatures, OwnTargets, PulledBack, RowMeaning, TargetDraws, mask_absent,
};
pub(crate) use classifier::{batch_for, data_fingerprint, known_labels, row_keys};
pub use config::DecoderConfig;
pub use encoder::{Encoder, EncoderConfig, EncoderFamily, LoadedEncoder, ModernBert, Pooling, PretrainedEncoder};
pub use family::Family;
pub(crate) use indices::indices_on;
pub use kv_cache::KeyValueCache;
pub use language_model::{HeadForm, LanguageModel};
pub use layers::LayerKind;
pub use load_report::LoadReport;
pub use merged::{MERGE_TOLERANCE, MergeReport};
pub use mlp::{Activation, Mlp, MlpConfig, Points, PointsBatch};
pub(crate) use output_batches::{OutputBatches, output_batch_for};
pub use pretrained::Pretrained;
pub use prompt_classifier::PromptClassifier;
pub use reward_model::RewardModel;
pub use rope_scaling::RopeScaling;
pub use scales::{PositionScale, Scales};
pub(crate) use scored_tokens::HEAD_CHUNK;
pub use seen_prefix::SeenPrefix;
pub use sequence_classifier::SequenceClassifier;
pub use subset::Subset;
pub(crate) use targets::{batch_targets, check_targets, known_targets};
pub use text_batch::TextBatch;
pub use text_model::{TextModel, TokenScore};
pub use token_batch::TokenBatch;
