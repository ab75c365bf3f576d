//! Flags of training.

use bayes_lora::data::BatchLimits;
use bayes_lora::train::TrainerConfig;
use clap::Args;

#[derive(Args)]
#[command(next_help_heading = "Training")]
pub struct TrainingArguments {
    /// Passes over the training items
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub epochs: usize,
    /// Step size of AdamW
    #[arg(long, value_name = "RATE", default_value_t = 5e-4)]
    pub learning_rate: f64,
    /// Most micro-batches of a step; as many as divide `--batch`, the items of a step
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub accumulation: usize,
    /// Put several texts into each row, of at most so many tokens, so that fewer are pads; of texts that are learned
    #[arg(long, value_name = "TOKENS")]
    pub pack: Option<usize>,
}

impl TrainingArguments {
    /// A step of `limits.max_items` items.
    pub fn trainer(&self, limits: BatchLimits, seed: u64) -> TrainerConfig {
        let divides = |n: &usize| limits.max_items.is_multiple_of(*n);
        let accumulation = (1..=self.accumulation).rev().find(divides).unwrap_or(self.accumulation);
        let micro = limits.max_items / accumulation.max(1);
        TrainerConfig::default()
            .with_epochs(self.epochs)
            .with_learning_rate(self.learning_rate)
            .with_limits(BatchLimits { max_items: micro, ..limits })
            .with_accumulation(accumulation)
            .with_packing(self.pack)
            .with_seed(seed)
    }
}
