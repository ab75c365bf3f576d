//! How preferences become rewards that know what they do not know: a Bradley–Terry model with a posterior, offline.
//!
//! `p(A before B) = σ(r(A) − r(B))`. Which area belongs to an MMLU question? From pairs of a right and a wrong answer, stories260K with a head
//! of one output learns a reward. Then it ranks all four answers of new questions: rewards of one question are jointly uncertain, so that
//! what all of them share is no doubt about which is best.
//!
//! ```sh
//! cargo run --release --example reward_model
//! ```
//!
//! Your own preferences are lines `{"prompt", "chosen", "rejected"}`: `Task::from_preferences_jsonl`.

use bayes_lora::BayesLoraConfig;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure};
use bayes_lora::data::{AnswerForm, BatchLimits, Encoding, Item, PromptTemplate, Task, Tokenizer, Truncation};
use bayes_lora::lora::LoraConfig;
use bayes_lora::models::{Pretrained, RewardModel};
use bayes_lora::predict::predict_rewards;
use bayes_lora::progress::Control;
use bayes_lora::train::TrainerConfig;
use burn::tensor::Device;
use std::error::Error;
use std::path::Path;

/// One pair a question: its right answer, and one of the wrong ones.
fn pairs(questions: &Task) -> bayes_lora::Result<Task> {
    let pair = |(index, item): (usize, &Item)| {
        let right = item.answer?;
        let wrong = (right + 1 + index % (item.choices.len() - 1)) % item.choices.len();
        Some(Item::new(&item.id, &item.question, [&item.choices[right], &item.choices[wrong]]).with_answer(0))
    };
    Task::new("which area", questions.items.iter().enumerate().filter_map(pair).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let control = Control::with_bars().with_workers(2)?;
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let questions = |part: &str, n| Task::from_jsonl(assets.join(format!("mmlu_areas/{part}.jsonl.gz")))?.sample(n, 0);
    let (known, asked) = (questions("train", 400)?, questions("test", 200)?);
    let tokenizer = Tokenizer::from_dir(assets.join("stories260K"))?;
    let encoding = Encoding::new(PromptTemplate::question_area(), AnswerForm::Rewards)
        .with_max_tokens(64)
        .with_truncation(Truncation::End);
    let train = encoding.encode(&pairs(&known)?, &tokenizer)?;
    let test = encoding.encode(&pairs(&asked)?, &tokenizer)?;
    // all answers of a question are one item
    let asked = encoding.encode(&asked, &tokenizer)?;
    println!("{}", train.example(0, &tokenizer)?);

    let limits = BatchLimits { max_items: 16, max_tokens: 4096 };
    let trainer = TrainerConfig::default().with_epochs(8).with_learning_rate(2e-3).with_limits(limits);
    let bayes = BayesLoraConfig::new(LoraConfig::new(8).with_target_modules(["q_proj", "k_proj", "v_proj", "o_proj"]))
        .with_trainer(trainer)
        // what two answers have in common cancels in Jacobians, and does not in Kronecker factors
        .with_curvature(CurvatureConfig::new(CurvatureStructure::FunctionSpace))
        .with_limits(limits)
        .init()?;
    let lm = Pretrained::from_dir(assets.join("stories260K"))?.load(&Device::flex())?;
    let fitted = bayes.fit_with(RewardModel::new(lm, &train, 0)?, &train, None, &control)?;
    fitted.remarks().iter().for_each(|remark| println!("note: {remark}"));

    // of each pair the right answer is the first
    let preference = predict_rewards(&fitted.model, &fitted.laplace, &test, &limits, &control)?.preference(0, 1)?;
    let right = preference.probability.iter().filter(|p| **p > 0.5).count();
    println!("{right} of {} new pairs in the right order", test.len());
    let rewards = predict_rewards(&fitted.model, &fitted.laplace, &asked, &limits, &control)?;
    let (mean, deviation) = (rewards.rewards(), rewards.deviations_from_mean());
    println!("\nrewards ± standard deviations of four answers, * the right one:");
    for (index, item) in asked.items.iter().enumerate().take(5) {
        print!("{:>8}", item.id);
        for answer in 0..item.n_choices {
            let mark = if item.label == Some(answer) { '*' } else { ' ' };
            print!("   {:6.2} ± {:4.2}{mark}", mean[[index, answer]], deviation[[index, answer]]);
        }
        println!();
    }
    Ok(())
}
