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
    /// How the curvature is held: Kronecker, EKFAC, "core space", "function space", diagonal … [default: Kronecker]
    #[arg(long, value_name = "NAME")]
    pub structure: Option<CurvatureStructure>,
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

impl std::fmt::Display for Fisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact => f.write_str("exact"),
            Self::Sampled(n) => n.fmt(f),
        }
    }
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
        CurvatureConfig::new(self.structure.unwrap_or(CurvatureStructure::Kronecker)).with_fisher(fisher)
    }

    /// Flags that say otherwise than sums that are there, each with both values.
    pub fn differences(&self, sums: &CurvatureConfig) -> Vec<String> {
        let there = match sums.fisher {
            FisherKind::Exact => "exact".into(),
            FisherKind::Sampled { n, .. } => n.to_string(),
            FisherKind::Empirical => "empirical".into(),
        };
        let said = [
            ("--structure", self.structure.map(|said| said.to_string()), sums.structure.to_string()),
            ("--fisher", self.fisher.map(|said| said.to_string()), there),
        ];
        let differing =
            said.into_iter().filter_map(|(flag, said, there)| Some((flag, said.filter(|s| *s != there)?, there)));
        differing.map(|(flag, said, there)| format!("`{flag} {said}`, and the sums are of `{there}`")).collect()
    }

    pub fn laplace(&self) -> LaplaceConfig {
        // a temperature by leave-one-out goes with the prior that it was studied with
        let Prior(choice) = self.prior;
        LaplaceConfig::default().with_prior(choice).with_leave_one_out_temperature(choice.is_matched())
    }
}
