//! Flags of a posterior.

use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, FisherKind};
use bayes_lora::likelihood::SharedLikelihood;
use bayes_lora::posterior::LaplaceConfig;
use bayes_lora::prior::{PriorChoice, PriorPrecision};
use clap::Args;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Args)]
#[command(next_help_heading = "Posterior")]
pub struct PosteriorArguments {
    /// How the curvature is held: Kronecker, EKFAC, "core space", "function space", diagonal …
    #[arg(long, value_name = "NAME", default_value_t = CurvatureStructure::Kronecker)]
    pub structure: CurvatureStructure,
    /// How the prior precision is found: matched (by evidence where none matches), evidence, evidence-at-mode, or a number
    #[arg(long, value_name = "CHOICE", default_value = "matched")]
    pub prior: Prior,
    /// Labelled items that training has not seen: they choose the prior precision
    #[arg(long, value_name = "FILE")]
    pub held_out: Option<PathBuf>,
    /// Labels drawn an item for the Fisher information, or `exact` [default: exact; 1 where texts are learned, which have no exact one]
    #[arg(long, value_name = "exact|N")]
    pub fisher: Option<Fisher>,
}

/// A choice of prior as the command line writes it.
#[derive(Clone, Copy)]
pub struct Prior(pub PriorChoice);

impl FromStr for Prior {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "matched" => PriorChoice::MatchedOrEvidence,
            "evidence" => PriorChoice::Evidence,
            "evidence-at-mode" => PriorChoice::EvidenceAtMode,
            number => {
                let value = number.parse().map_err(|_| {
                    format!("a prior is `matched`, `evidence`, `evidence-at-mode` or a precision, not `{number}`")
                })?;
                PriorChoice::Fixed(PriorPrecision::new(value).map_err(|error| error.to_string())?)
            }
        }))
    }
}

/// Draws of labels as the command line writes them.
#[derive(Clone, Copy)]
pub enum Fisher {
    Exact,
    Sampled(usize),
}

impl FromStr for Fisher {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "exact" => Ok(Self::Exact),
            Ok(n) if n > 0 => Ok(Self::Sampled(n)),
            _ => Err(format!("`exact` or a number of draws, at least 1, not `{text}`")),
        }
    }
}

impl PosteriorArguments {
    pub fn curvature(&self, likelihood: &SharedLikelihood, seed: u64) -> CurvatureConfig {
        let default = if likelihood.draws_in_model() { Fisher::Sampled(1) } else { Fisher::Exact };
        let fisher = match self.fisher.unwrap_or(default) {
            Fisher::Exact => FisherKind::Exact,
            Fisher::Sampled(n) => FisherKind::Sampled { n, seed },
        };
        CurvatureConfig::new(self.structure).with_fisher(fisher)
    }

    pub fn laplace(&self) -> LaplaceConfig {
        // a temperature by leave-one-out goes with the prior that it was studied with
        let Prior(choice) = self.prior;
        LaplaceConfig::default().with_prior(choice).with_leave_one_out_temperature(choice.is_matched())
    }
}
