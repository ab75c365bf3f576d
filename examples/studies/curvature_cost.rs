//! How the cost of every structure of curvature grows with the number of items, classes, ranks, tokens and widths, one
//! changed at a time: seconds of the pass, seconds of the decomposition with the prior, and bytes of the sums.
//!
//! ```sh
//! cargo run --release --example studies -- curvature-cost
//! ```

use crate::{Outcome, shipped};
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, fit_curvature};
use bayes_lora::data::{BatchLimits, EncodedDataset};
use bayes_lora::lora::{LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Classifier, Dataset, MlpConfig, Points, PromptClassifier};
use bayes_lora::number::significant;
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::progress::Control;
use burn::tensor::Device;
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use std::time::Instant;

/// All but the full matrix, which is for tiny adapters.
fn structures() -> impl Iterator<Item = CurvatureStructure> {
    CurvatureStructure::ALL.into_iter().filter(|structure| *structure != CurvatureStructure::Full)
}

/// What one measurement is about.
#[derive(Clone, Copy)]
struct Setting {
    n_items: usize,
    n_classes: usize,
    rank: usize,
    tokens: usize,
}

const BASE: Setting = Setting { n_items: 64, n_classes: 4, rank: 8, tokens: 64 };

pub fn run() -> Outcome<()> {
    let mut cells = vec!["what".to_string(), "weights".into()];
    cells.extend(structures().map(|s| format!("{s} (s + s, MB)")));
    println!("| {} |\n|{}", cells.join(" | "), "---|".repeat(cells.len()));
    language_model("warm-up", BASE)?;
    for n_items in [32, 64, 128] {
        language_model(&format!("N = {n_items}"), Setting { n_items, ..BASE })?;
    }
    for n_classes in [2, 4, 8] {
        language_model(&format!("C = {n_classes}"), Setting { n_classes, ..BASE })?;
    }
    for rank in [4, 8, 16] {
        language_model(&format!("r = {rank}"), Setting { rank, ..BASE })?;
    }
    for tokens in [32, 64, 128] {
        language_model(&format!("at most {tokens} tokens"), Setting { tokens, ..BASE })?;
    }
    for width in [256, 1024, 4096] {
        perceptron(width)?;
    }
    Ok(())
}

/// The shipped model, with adapters on q and v.
fn language_model(what: &str, setting: Setting) -> Outcome<()> {
    let (data, limits) = prompts(setting)?;
    let lm = shipped::language_model()?;
    let lora = LoraConfig::new(setting.rank).with_target_modules(["q_proj", "v_proj"]);
    measure(what, attach(PromptClassifier::new(lm, &data)?, &lora, 0)?, &data, limits)
}

fn prompts(setting: Setting) -> Outcome<(EncodedDataset, BatchLimits)> {
    let mut task = shipped::questions("train")?.sample(setting.n_items, 0)?;
    let classes = &["A", "B", "C", "D", "E", "F", "G", "H"][..setting.n_classes];
    for item in &mut task.items {
        item.choices = classes.iter().map(|class| class.to_string()).collect();
        item.answer = item.answer.map(|label| label % setting.n_classes);
    }
    let encoding = shipped::encoding(classes.iter().copied()).with_max_tokens(setting.tokens);
    Ok((encoding.encode(&task, &shipped::tokenizer()?)?, BatchLimits { max_items: 16, max_tokens: 4096 }))
}

/// Two hidden layers of a width, adapted with rank 8.
fn perceptron(width: usize) -> Outcome<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let features = Array2::from_shape_fn((64, 32), |_| rng.random_range(-1.0..1.0));
    let data = Points::new(features, (0..64).map(|i| i % 4).collect())?;
    let model = MlpConfig::new([32, width, width, 4]).init(&Device::flex())?;
    measure(
        &format!("d = {width}"),
        attach(model, &LoraConfig::new(8), 0)?,
        &data,
        BatchLimits { max_items: 64, max_tokens: 4096 },
    )
}

fn measure<M: Classifier, D: Dataset<Input = M::Input>>(
    what: &str,
    model: M,
    data: &D,
    limits: BatchLimits,
) -> Outcome<()> {
    // a core needs an adapter that has left its start
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut weights = read_adapter(&model)?;
    let n_weights: usize = weights.values().map(Array2::len).sum();
    weights.values_mut().for_each(|w| w.mapv_inplace(|v| v + rng.random_range(-0.05..0.05)));
    let model = write_adapter(model, &weights)?;
    let mut cells = vec![what.to_string(), n_weights.to_string()];
    for structure in structures() {
        let config = CurvatureConfig::new(structure).with_limits(limits);
        let clock = Instant::now();
        let curvature = fit_curvature(&model, data, &config, &Control::silent().with_workers(2)?)?;
        let pass = clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        Laplace::new(&model, &curvature, &LaplaceConfig::default())?;
        let decomposition = clock.elapsed().as_secs_f64();
        cells.push(format!(
            "{} + {}, {}",
            significant(pass),
            significant(decomposition),
            significant(curvature.bytes() as f64 / 1e6)
        ));
    }
    println!("| {} |", cells.join(" | "));
    Ok(())
}
