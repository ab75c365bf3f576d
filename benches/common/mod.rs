//! What the benches share: a trained adapter on a pretrained model, and a few real prompts.
//!
//! The base is the model and the task that ship with the crate. Set `BAYES_LORA_BENCH_MODEL` to a Hugging Face directory
//! to measure that model as well, on the same prompts:
//!
//! ```sh
//! cargo bench --benches
//! BAYES_LORA_BENCH_MODEL=SmolLM2-135M-Instruct cargo bench --bench lora_step -- --quick
//! ```

// every bench uses a part of this module
#![allow(dead_code)]

use bayes_lora::curvature::{Curvature, CurvatureConfig, FisherKind, TokenTreatment, fit_curvature};
use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, Normalization, PromptTemplate, Task, Tokenizer, Truncation,
};
use bayes_lora::error::Error;
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::models::{Pretrained, PromptClassifier};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use burn::tensor::Device;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};
use std::path::{Path, PathBuf};
use std::time::Duration;

type Result<T> = std::result::Result<T, Error>;

/// Prompts a bench works on.
const N_ITEMS: usize = 16;
/// Names the directory of a further model.
const MODEL_VARIABLE: &str = "BAYES_LORA_BENCH_MODEL";

/// A trained model with its prompts.
pub struct Subject {
    /// The model's directory name, which ends the name of every bench.
    pub name: String,
    /// Questions to be routed to one of four areas.
    pub data: EncodedDataset,
    /// The model with an adapter (r = 8 on `q_proj` and `v_proj`) that has left its start.
    pub model: PromptClassifier,
    /// Size of a batch.
    pub limits: BatchLimits,
}

/// The shipped model, and the one that `BAYES_LORA_BENCH_MODEL` names, on questions answered by class tokens.
pub fn subjects() -> Vec<Subject> {
    load(|classes| Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(classes)))
}

/// The same models on questions whose choices are continuations.
pub fn continuations() -> Vec<Subject> {
    let form = AnswerForm::Continuation { normalization: Normalization::Sum };
    load(|_| Encoding::new(PromptTemplate::question_answer(), form.clone()))
}

fn load(encoding: impl Fn([&str; 4]) -> Encoding) -> Vec<Subject> {
    let shipped = assets().join("stories260K");
    let mut subjects = vec![Subject::load(&shipped, &encoding(["A", "B", "C", "D"]), 16)];
    if let Some(dir) = std::env::var_os(MODEL_VARIABLE).map(PathBuf::from) {
        // larger models meet the memory of a small machine with fewer prompts at a time
        subjects.push(Subject::load(&dir, &encoding([" A", " B", " C", " D"]), 4));
    }
    subjects.into_iter().map(|s| s.unwrap_or_else(|e| panic!("set-up of a bench: {e}"))).collect()
}

/// A group with few samples, so that all benches together take about a minute and a half.
pub fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group
}

impl Subject {
    fn load(dir: &Path, encoding: &Encoding, max_items: usize) -> Result<Self> {
        let tokenizer = Tokenizer::from_dir(dir)?;
        let task = Task::from_jsonl(assets().join("mmlu_areas/train.jsonl.gz"))?.sample(N_ITEMS, 0)?;
        let data = encoding.clone().with_max_tokens(64).with_truncation(Truncation::End).encode(&task, &tokenizer)?;
        let limits = BatchLimits { max_items, max_tokens: 4096 };
        let lm = Pretrained::from_dir(dir)?.load(&Device::flex())?;
        let lora = LoraConfig::new(8).with_target_modules(["q_proj", "v_proj"]);
        let model = attach(PromptClassifier::new(lm, &data)?, &lora, 0)?;
        // at its start the adapter is the prior's mean, where the evidence has no optimum
        let trainer = TrainerConfig::default().with_epochs(1).with_learning_rate(1e-3).with_limits(limits);
        let model = Trainer::new(trainer)?.fit(model, &data, None, &Control::silent())?.model;
        let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, data, model, limits })
    }

    /// Fits the Kronecker factors on all prompts.
    pub fn curvature(&self, fisher: FisherKind, treatment: TokenTreatment) -> Result<Curvature> {
        let config = CurvatureConfig::default().with_fisher(fisher).with_treatment(treatment).with_limits(self.limits);
        fit_curvature(&self.model, &self.data, &config, &Control::silent())
    }

    /// Fits the whole posterior: exact factors, their decomposition, the prior precision.
    pub fn laplace(&self) -> Result<Laplace> {
        let curvature = self.curvature(FisherKind::Exact, TokenTreatment::Expand)?;
        Laplace::new(&self.model, &curvature, &LaplaceConfig::default())
    }

    /// Number of prompts.
    pub fn n_items(&self) -> u64 {
        self.data.len() as u64
    }
}

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets")
}
