//! What the report of a comparison shows, from the command line.

use bayes_lora::calibrate::ConformalScore;
use bayes_lora::compare::{MethodSelection, ReportOptions};
use clap::Args;

#[derive(Args)]
pub struct ReportArguments {
    /// A row with vector scaling behind every method too.
    #[arg(long)]
    vector_scaling: bool,
    /// Scores of the conformal sets: `lac`, `aps`, `raps` (a penalty of 0.1 from the second rank on).
    #[arg(long, value_delimiter = ',', default_value = "lac", value_parser = score)]
    sets: Vec<ConformalScore>,
}

impl ReportArguments {
    pub fn options(&self, title: String) -> ReportOptions {
        let vector_scaling = if self.vector_scaling { MethodSelection::All } else { MethodSelection::None };
        ReportOptions::default()
            .with_title(title)
            .with_vector_scaling(vector_scaling)
            .with_set_scores(self.sets.clone())
    }
}

fn score(name: &str) -> Result<ConformalScore, String> {
    match name {
        "lac" => Ok(ConformalScore::LeastAmbiguous),
        "aps" => Ok(ConformalScore::Adaptive { randomized: true }),
        "raps" => Ok(ConformalScore::RegularizedAdaptive { randomized: true, penalty: 0.1, free_ranks: 1 }),
        _ => Err(format!("unknown score of sets `{name}`; there are lac, aps, raps")),
    }
}
