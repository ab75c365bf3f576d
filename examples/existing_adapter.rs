//! How an adapter that exists becomes Bayesian: load it, fit its posterior on the items that it was trained on, and answer from the files
//! alone. No training; PEFT's own files stay as they are.
//!
//! ```sh
//! cargo run --release --example existing_adapter
//! cargo run --release --example existing_adapter -- --adapter target/quickstart/adapter
//! ```
//!
//! Where there is no adapter, a small one is trained first, as if somebody had made it.
//!
//! ```text
//! prior precision 132.9, found without held-out labels
//! wrote target/existing_adapter/posterior.safetensors, 646512 bytes
//! ```

use bayes_lora::BayesLoraConfig;
use bayes_lora::bayes_lora::FittedBayesLora;
use bayes_lora::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, PromptTemplate, Task, Tokenizer, Truncation,
};
use bayes_lora::lora::{LoraConfig, attach, load_peft, save_peft};
use bayes_lora::models::{Pretrained, PromptClassifier};
use bayes_lora::posterior::POSTERIOR_FILE;
use bayes_lora::progress::Control;
use bayes_lora::train::{Trainer, TrainerConfig};
use burn::tensor::Device;
use clap::Parser;
use std::error::Error;
use std::path::{Path, PathBuf};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260K");
const LIMITS: BatchLimits = BatchLimits { max_items: 16, max_tokens: 4096 };

#[derive(Parser)]
#[command(about = "Put a posterior beside an adapter of stories260K for MMLU's areas")]
struct Arguments {
    /// The adapter's directory, as PEFT writes it.
    #[arg(long, default_value = "target/existing_adapter")]
    adapter: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { adapter } = Arguments::parse();
    let control = Control::with_bars().with_workers(2)?;
    let (train, questions) = (items("train", 400)?, items("test", 5)?);
    if !adapter.join("adapter_config.json").try_exists()? {
        somebody_trains_one(&train, &adapter, &control)?;
    }

    // 1. the adapter on its base; its configuration says which matrices it adapts
    let (model, lora) = load_peft(base(&train)?, &adapter)?;

    // 2. what it will cost, and the posterior; the items should be those of its training, asked in the same way
    let bayes = BayesLoraConfig::new(lora).with_limits(LIMITS).init()?;
    println!("{}", bayes.estimate(&model, &train)?);
    let fitted = bayes.fit_laplace_with(model, &train, &control)?;
    println!("prior precision {}, found without held-out labels", fitted.laplace.prior_precisions());

    // 3. one file beside the adapter
    let file = adapter.join(POSTERIOR_FILE);
    fitted.save_posterior_to(&file)?;
    println!("wrote {}, {} bytes\n", file.display(), std::fs::metadata(&file)?.len());

    // 4. another program loads both, without training data, and answers with the same bits
    let served = FittedBayesLora::load(base(&questions)?, &adapter, LIMITS)?;
    let answers = served.predict_calibrated(&questions)?;
    assert_eq!(answers.probabilities, fitted.predict_calibrated(&questions)?.probabilities);
    println!("{:>10} {:>8} {:>8} {:>8} {:>8} {:>18}", "question", "A", "B", "C", "D", "epistemic, nats");
    for (index, item) in questions.items.iter().enumerate() {
        print!("{:>10}", item.id);
        answers.probabilities.row(index).iter().for_each(|p| print!(" {p:>8.3}"));
        println!(" {:>18.4}", answers.entropy.epistemic[index]);
    }
    Ok(())
}

/// The base, asked for answers in the form of the data.
fn base(data: &EncodedDataset) -> bayes_lora::Result<PromptClassifier> {
    PromptClassifier::new(Pretrained::from_dir(MODEL)?.load(&Device::flex())?, data)
}

/// Questions of the shipped task: "Question …\nArea:", answered by a letter.
fn items(part: &str, n: usize) -> bayes_lora::Result<EncodedDataset> {
    let file = Path::new(MODEL).with_file_name("mmlu_areas").join(format!("{part}.jsonl.gz"));
    Encoding::new(PromptTemplate::question_area(), AnswerForm::class_tokens(["A", "B", "C", "D"]))
        .with_max_tokens(64)
        .with_truncation(Truncation::End)
        .encode(&Task::from_jsonl(file)?.sample(n, 0)?, &Tokenizer::from_dir(MODEL)?)
}

fn somebody_trains_one(train: &EncodedDataset, dir: &Path, control: &Control) -> bayes_lora::Result<()> {
    let lora = LoraConfig::new(8).with_target_modules(["q_proj", "v_proj"]);
    let trainer = Trainer::new(TrainerConfig::default().with_epochs(6).with_learning_rate(2e-3).with_limits(LIMITS))?;
    let trained = trainer.fit(attach(base(train)?, &lora, 0)?, train, None, control)?;
    save_peft(&trained.model, &lora, "stories260K", dir)
}
