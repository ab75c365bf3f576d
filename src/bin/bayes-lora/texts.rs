//! Flags that say how texts become tokens.

use bayes_lora::data::{ScoredPart, TextEncoding, Truncation};
use clap::Args;

#[derive(Args)]
#[command(next_help_heading = "Texts")]
pub struct TextArguments {
    /// Score prompts too, not only what follows them
    #[arg(long)]
    pub everything: bool,
    /// Longest text in tokens; longer ones lose their end, and are counted [default: the model's context]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
}

impl TextArguments {
    /// `context` is the model's.
    pub fn encoding(&self, context: usize) -> TextEncoding {
        let scored = if self.everything { ScoredPart::Everything } else { ScoredPart::Answers };
        let longest = self.max_tokens.unwrap_or(context);
        TextEncoding::default().with_scored(scored).with_truncation(Truncation::End).with_max_tokens(longest)
    }
}
