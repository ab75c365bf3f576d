//! How methods of uncertainty are compared: the same data, seed and adapter for all, one call, one report.
//!
//! ```sh
//! cargo run --release --example compare_methods
//! ```
//!
//! Three methods on the model and task that ship with the crate. The page in `target/compare_methods` has intervals, P(better) of every
//! pair, reliability diagrams, and what each method cost. A run that was interrupted goes on there.

use bayes_lora::compare::{About, ClassName, Comparison, Protocol, Report, ReportOptions, RowOutcome, Splits};
use bayes_lora::curvature::CurvatureStructure;
use bayes_lora::data::{AnswerForm, BatchLimits, Encoding, PromptTemplate, Task, Tokenizer, Truncation};
use bayes_lora::lora::LoraConfig;
use bayes_lora::methods::{LaplaceMethod, MaximumLikelihood, McDropout, Recipe};
use bayes_lora::models::{Pretrained, PromptClassifier};
use bayes_lora::outputs::claim_dir;
use bayes_lora::progress::Control;
use bayes_lora::train::TrainerConfig;
use burn::tensor::Device;
use std::error::Error;
use std::path::Path;

const OUT: &str = "target/compare_methods";
const AREAS: [&str; 4] = ["STEM", "humanities", "social sciences", "other"];

fn main() -> Result<(), Box<dyn Error>> {
    claim_dir(OUT, 0)?;
    let control = Control::with_bars().with_workers(2)?.with_signals()?;
    let seed = 0;

    // what all methods are given: training items, labels for temperatures and sets, and the items of the scores
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let tokenizer = Tokenizer::from_dir(assets.join("stories260K"))?;
    let encoding = Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(["A", "B", "C", "D"]))
        .with_max_tokens(64)
        .with_truncation(Truncation::End);
    let questions = |part: &str| Task::from_jsonl(assets.join(format!("mmlu_areas/{part}.jsonl.gz")));
    let (train, rest) = questions("train")?.split(400, seed)?;
    let tasks = [train, rest.sample(200, seed)?, questions("test")?.sample(500, seed)?];
    let [train, held_out, test] = tasks.each_ref().map(|task| encoding.encode(task, &tokenizer));
    let (train, held_out, test) = (train?, held_out?, test?);
    let splits = Splits { train: &train, held_out: Some(&held_out), test: &test, shifted: Vec::new() };

    // one adapter, trained with dropout so that dropout can be a method
    let limits = BatchLimits { max_items: 16, max_tokens: 4096 };
    let lora = LoraConfig::new(8).with_dropout(0.1).with_target_modules(["q_proj", "k_proj", "v_proj", "o_proj"]);
    let trainer = TrainerConfig::default().with_epochs(8).with_learning_rate(2e-3).with_limits(limits);
    let comparison = Comparison::new(Recipe::new(lora).with_trainer(trainer))
        .with_method(MaximumLikelihood)
        .with_method(McDropout::default())
        .with_method(LaplaceMethod::new(CurvatureStructure::Kronecker).with_leave_one_out_temperature())
        .with_limits(limits)
        .with_dir(OUT)
        .with_control(control);

    let about = About {
        protocol: Protocol::Clean.name().into(),
        task: "MMLU areas".into(),
        model: "stories260K".into(),
        prompt_hash: encoding.template.fingerprint(),
        prompt_example: train.example(0, &tokenizer)?,
        classes: AREAS.map(|name| ClassName { name: name.into(), token: None }).to_vec(),
    };
    let lm = Pretrained::from_dir(assets.join("stories260K"))?.load(&Device::flex())?;
    let run = comparison.run(&PromptClassifier::new(lm, &train)?, &about, &splits, seed)?;

    // rows come with and without a temperature from the held-out labels; a method that fails is a row that says why
    let report = Report::new(vec![run], ReportOptions::default().with_title("MMLU areas, stories260K"))?;
    println!("{:<76} {:>24} {:>24} {:>24}", "", "accuracy", "NLL", "ECE");
    for row in report.runs.iter().flat_map(|run| &run.rows) {
        match &row.outcome {
            RowOutcome::Answered(summary) => {
                let scores = &summary.scores;
                println!("{:<76} {:>24} {:>24} {:>24}", row.name, scores.accuracy, scores.nll, scores.ece);
            }
            RowOutcome::Failed(reason) => println!("{:<76} {reason}", row.name),
            // these are classes
            RowOutcome::Predicted(_) => {}
        }
    }
    println!("wrote {}", report.save(OUT)?.html.display());
    Ok(())
}
