//! Computes class logits: decoder-only language models and encoders from Hugging Face directories, a small multilayer perceptron,
//! and the trait by which your own burn module joins.

mod activation;
mod attention;
mod block;
mod by_layers;
mod causal_lm;
mod classifier;
mod config;
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
mod merged_dir;
mod merged_head;
mod mlp;
mod names;
mod norm;
mod pretrained;
mod problem;
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
pub use causal_lm::CausalLm;
pub use classifier::{
    Classifier, ClassifierInput, Dataset, HeadFeatures, OwnTargets, PulledBack, RowMeaning, TargetDraws, mask_absent,
};
pub(crate) use classifier::{batch_for, data_fingerprint, known_labels, output_batch_for, row_keys};
pub use config::DecoderConfig;
pub use encoder::{Encoder, EncoderConfig, EncoderFamily, LoadedEncoder, ModernBert, Pooling, PretrainedEncoder};
pub use family::Family;
pub(crate) use indices::indices_on;
pub use kv_cache::KeyValueCache;
pub use language_model::{HeadForm, LanguageModel};
pub use layers::LayerKind;
pub use load_report::LoadReport;
pub use merged_dir::{MERGE_TOLERANCE, MergeReport};
pub use merged_head::HeadedNetwork;
pub use mlp::{Activation, Mlp, MlpConfig, Points, PointsBatch};
pub use pretrained::{LoadedDecoder, Pretrained};
pub use problem::ProblemType;
pub use prompt_classifier::PromptClassifier;
pub use reward_model::RewardModel;
pub use rope_scaling::RopeScaling;
pub use scales::{PositionScale, Scales};
pub(crate) use scored_tokens::HEAD_CHUNK;
pub use sequence_classifier::SequenceClassifier;
pub use subset::Subset;
pub(crate) use targets::{batch_targets, check_targets, known_targets};
pub use text_batch::TextBatch;
pub use text_model::{TextModel, TokenScore};
pub use token_batch::TokenBatch;
