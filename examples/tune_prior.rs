//! How wide should a posterior be? Four ways to choose the prior precision of one adapter, and what each makes of new questions.
//!
//! ```sh
//! cargo run --release --example tune_prior
//! ```
//!
//! The evidence and the matched prior read the training items alone, the last row 200 labels that the adapter has not seen. Changing the
//! prior refits nothing: one curvature serves all.
//!
//! ```text
//!                                                        λ                      NLL                      ECE
//! maximum likelihood                                           1.615 [1.503, 1.742]  0.2338 [0.2029, 0.2746]
//! evidence, expanded about the adapter             136.216     1.264 [1.213, 1.321] 0.07841 [0.05585, 0.1191]
//! evidence at the mode of the linearised model      15.609        1.264 [1.23, 1.3] 0.05398 [0.04307, 0.09853]
//! matched to the training fit (the default)        217.764      1.277 [1.22, 1.341] 0.09415 [0.06558, 0.1339]
//! likelihood of 200 held-out labels                 56.709     1.256 [1.213, 1.302] 0.06754 [0.04743, 0.1086]
//! ```

use bayes_lora::belief::LinkApprox;
use bayes_lora::curvature::{CurvatureConfig, fit_curvature};
use bayes_lora::data::{AnswerForm, BatchLimits, Encoding, PromptTemplate, Task, Tokenizer, Truncation};
use bayes_lora::lora::{LoraConfig, attach};
use bayes_lora::metrics::{ScoreOptions, Scores};
use bayes_lora::models::{Pretrained, PromptClassifier};
use bayes_lora::posterior::{HeldOut, Laplace, LaplaceConfig};
use bayes_lora::predict::predict_map;
use bayes_lora::prior::PriorChoice;
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use burn::tensor::Device;
use ndarray::Array2;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let control = Control::with_bars().with_workers(2)?;
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let tokenizer = Tokenizer::from_dir(assets.join("stories260K"))?;
    let encoding = Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(["A", "B", "C", "D"]))
        .with_max_tokens(64)
        .with_truncation(Truncation::End);
    let questions = |part: &str| Task::from_jsonl(assets.join(format!("mmlu_areas/{part}.jsonl.gz")));
    let (train, rest) = questions("train")?.split(320, 0)?;
    let tasks = [train, rest.sample(200, 0)?, questions("test")?.sample(600, 0)?];
    let [train, held_out, test] = tasks.each_ref().map(|task| encoding.encode(task, &tokenizer));
    let (train, held_out, test) = (train?, held_out?, test?);

    // one adapter and one curvature
    let limits = BatchLimits { max_items: 16, max_tokens: 4096 };
    let lora = LoraConfig::new(8).with_target_modules(["q_proj", "k_proj", "v_proj", "o_proj"]);
    let lm = Pretrained::from_dir(assets.join("stories260K"))?.load(&Device::flex())?;
    let trainer = TrainerConfig::default().with_epochs(8).with_learning_rate(2e-3).with_limits(limits);
    let start = attach(PromptClassifier::new(lm, &train)?, &lora, 0)?;
    let model = Trainer::new(trainer)?.fit(start, &train, None, &control)?.model;
    let curvature = fit_curvature(&model, &train, &CurvatureConfig::default().with_limits(limits), &control)?;

    // the Jacobians of new items, once: then every prior is a matrix product away
    let link = LinkApprox::default();
    let usual = Laplace::new(&model, &curvature, &LaplaceConfig::default())?;
    let asked = HeldOut::new(&model, &usual, &test, &limits, &control)?;
    let labels = test.labels()?;
    println!("{:<46} {:>9} {:>24} {:>24}", "", "λ", "NLL", "ECE");
    let show = |name: &str, lambda: Option<f64>, p: &Array2<f64>| -> bayes_lora::Result<()> {
        let Scores { nll, ece, .. } = Scores::new(p.view(), &labels, &ScoreOptions::default())?;
        println!("{name:<46} {:>9} {nll:>24} {ece:>24}", lambda.map_or(String::new(), |value| format!("{value:.3}")));
        Ok(())
    };
    show("maximum likelihood", None, &predict_map(&model, &test, &limits, &control)?.probabilities(link)?)?;
    let choices = [
        ("evidence, expanded about the adapter", PriorChoice::Evidence),
        ("evidence at the mode of the linearised model", PriorChoice::EvidenceAtMode),
        ("matched to the training fit (the default)", PriorChoice::Matched),
    ];
    for (name, prior) in choices {
        let config = LaplaceConfig::default().with_prior(prior);
        let laplace = Laplace::fit(&model, &curvature, &train, &config, &limits, &control)?;
        let precisions = laplace.prior_precisions();
        show(name, Some(precisions.of(0).value()), &asked.belief(precisions)?.probabilities(link)?)?;
        laplace.prior_searches().iter().filter_map(|search| search.remark()).for_each(|remark| println!("  {remark}"));
    }
    let tuned = HeldOut::new(&model, &usual, &held_out, &limits, &control)?.tune(usual.prior_precisions(), link)?;
    let name = format!("likelihood of {} held-out labels", held_out.len());
    show(&name, Some(tuned.precisions.of(0).value()), &asked.belief(&tuned.precisions)?.probabilities(link)?)?;
    Ok(())
}
