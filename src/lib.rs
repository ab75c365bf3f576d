//! Bayesian LoRA: adapt a pretrained model with low-rank updates `W = W₀ + s·BA`, then find the whole posterior over the
//! adapter, a Kronecker-factored Laplace approximation around the trained point, and predict with confidence that can be
//! trusted.
//!
//! Data flow one way: **pretrained weights → LoRA → maximum likelihood → curvature → posterior → prediction → metrics**,
//! one module each, in that order.
//!
//! ```
//! use bayes_lora::BayesLoraConfig;
//! use bayes_lora::data::{AnswerForm, Encoding, PromptTemplate, Task, Tokenizer};
//! use bayes_lora::lora::LoraConfig;
//! use bayes_lora::models::{Pretrained, PromptClassifier};
//! # let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/assets");
//! # let (model_dir, file) = (format!("{assets}/stories260K"), format!("{assets}/mmlu_areas/train.jsonl.gz"));
//!
//! # #[cfg(feature = "flex")] {
//! let tokenizer = Tokenizer::from_dir(&model_dir)?;                      // a Hugging Face directory
//! let form = Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(["A", "B", "C", "D"]));
//! let short = Task::from_jsonl(&file)?.filter(|item| item.question.len() < 60);
//! let (train, test) = short.split(32, 0)?;
//! let (train, test) = (form.encode(&train, &tokenizer)?, form.encode(&test.sample(8, 0)?, &tokenizer)?);
//!
//! let device = burn::tensor::Device::flex();                             // or wgpu, vulkan, cuda, …
//! let model = PromptClassifier::new(Pretrained::from_dir(&model_dir)?.load(&device)?, &train)?;
//! let bayes = BayesLoraConfig::new(LoraConfig::new(8).with_target_modules(["q_proj", "v_proj"])).init()?;
//! let fitted = bayes.fit(model, &train)?;                                // fine-tuning, then the posterior
//! let answer = fitted.predict_calibrated(&test)?;
//! println!("{:.2}\n{:.3}", answer.probabilities, answer.entropy.epistemic);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An adapter that is already trained skips the training: [`BayesLora::fit_laplace`].
//!
//! # The types one meets
//!
//! | type | what it is |
//! |---|---|
//! | [`BayesLoraConfig`] | everything that can be set, with defaults; [`BayesLoraConfig::init`] gives a [`BayesLora`] |
//! | [`BayesLora`] | trains an adapter and finds its posterior, or finds that of one that exists |
//! | [`FittedBayesLora`] | adapter and posterior together: predicts, tunes its prior, is saved and loaded |
//! | [`LoraConfig`](lora::LoraConfig) | which matrices are adapted, and by what rank; PEFT's fields |
//! | [`Pretrained`](models::Pretrained) | a base model on disk, on the Hub or in a GGUF file |
//! | [`PromptClassifier`](models::PromptClassifier), [`SequenceClassifier`](models::SequenceClassifier), [`RewardModel`](models::RewardModel), [`TextModel`](models::TextModel) | a base with a question: one of several answers, a label or a number, a reward, the next token |
//! | [`Task`](data::Task), [`Encoding`](data::Encoding) | items from JSON Lines, and how they are put to the model |
//! | [`TrainerConfig`](train::TrainerConfig) | how the adapter trains |
//! | [`CurvatureStructure`](curvature::CurvatureStructure) | how the curvature is held |
//! | [`PriorChoice`](prior::PriorChoice) | how the width of the posterior is chosen |
//! | [`Laplace`](posterior::Laplace) | the posterior itself: evidence, covariances, draws |
//! | [`Prediction`](predict::Prediction) | probabilities, logits with their covariance, entropy in two parts |
//! | [`LogitBelief`](belief::LogitBelief) | what any method says about the logits of some items |
//! | [`Control`](progress::Control) | watches, stops and resumes a long call |
//! | [`Error`] | what went wrong, with the thing and both numbers |
//!
//! Your own burn module joins by [`lora::Adaptable`] and [`models::Classifier`].
//!
//! # How it works
//!
//! One page a concept, with equations: [LoRA](book::lora), [Laplace](book::laplace), [curvature structures](book::curvature),
//! [evidence and priors](book::evidence), [linearised prediction](book::linearised), [core space](book::core_space),
//! [leaving one out](book::leave_one_out), [texts](book::next_token), [generation](book::generation). The whole book, with guides,
//! formats and figures, is in `docs/`.
//!
//! Conventions: curvature is a **sum over the data**, never a mean; log-probabilities and entropies are in nats; host
//! algebra is f64; draws depend on (seed, purpose, place, index) alone.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod atomic_dir;
pub mod atomic_file;
mod batches;
pub mod bayes_lora;
pub mod belief;
pub mod book;
pub mod calibrate;
pub mod checkpoints;
pub mod compare;
pub mod curvature;
pub mod data;
mod draws;
pub mod error;
mod file_header;
mod file_kind;
mod float_type;
pub mod generate;
#[cfg(feature = "gguf")]
pub mod gguf;
mod hash;
#[cfg(feature = "hub")]
pub mod hub;
pub mod identity;
pub mod likelihood;
pub mod linalg;
pub mod lora;
pub mod memory;
pub mod methods;
pub mod metrics;
pub mod models;
pub mod number;
pub mod outputs;
mod plain_name;
#[cfg(feature = "plot")]
pub mod plot;
pub mod posterior;
pub mod predict;
pub mod prior;
pub mod progress;
pub mod search;
mod setters;
pub mod tape;
pub mod tensor_file;
pub mod train;

pub use crate::bayes_lora::{BayesLora, BayesLoraConfig, FitError, FittedBayesLora, Trained};
pub use crate::error::{Error, Result};
pub use crate::posterior::POSTERIOR_FILE;
