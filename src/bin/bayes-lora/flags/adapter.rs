//! Flags of a new adapter.

use bayes_lora::lora::LoraConfig;
use clap::Args;

/// A pattern of PEFT's instead of names.
const ALL_LINEAR: &str = "all-linear";

#[derive(Args)]
#[command(next_help_heading = "Adapter")]
pub struct AdapterArguments {
    /// Rank of the adapter
    #[arg(long, value_name = "R", default_value_t = 8)]
    pub rank: usize,
    /// Its scale is alpha / rank
    #[arg(long, default_value_t = 16.0)]
    pub alpha: f64,
    /// Dropout of its inputs in training
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub dropout: f64,
    /// Modules that get one, by the ends of their names, or `all-linear`
    #[arg(long, value_delimiter = ',', value_name = "NAMES", default_value = "q_proj,v_proj")]
    pub targets: Vec<String>,
}

impl AdapterArguments {
    pub fn lora(&self) -> LoraConfig {
        let lora = LoraConfig::new(self.rank).with_alpha(self.alpha).with_dropout(self.dropout);
        match self.targets.as_slice() {
            [one] if one == ALL_LINEAR => lora.with_target_pattern(ALL_LINEAR),
            names => lora.with_target_modules(names.to_vec()),
        }
    }
}
