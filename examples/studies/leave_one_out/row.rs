//! Scores one answer to the test items beside maximum likelihood and beside the temperature of 100 labels.

use crate::Outcome;
use bayes_lora::belief::{LinkApprox, LogitBelief, top_class};
use bayes_lora::metrics::{Estimate, PairedDifference, ScoreOptions, Scores};
use bayes_lora::number::significant;
use bayes_lora::search::Search;
use ndarray::Array2;
use serde::Serialize;
use std::fmt;

/// Of every average over a belief.
pub const LINK: LinkApprox = LinkApprox::MonteCarlo { n_samples: 1000, seed: 0 };

/// What a row was fitted to.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    TrainingItems,
    HeldOutLabels,
    /// A bound, and no method.
    TestLabels,
}

/// What a row says about the test items, and the numbers that were found for it.
pub struct Answer {
    pub belief: LogitBelief,
    pub found: Vec<Search>,
}

/// A row that may have been refused.
pub type Tried = Outcome<Answer>;

#[derive(Serialize)]
pub struct Row {
    pub name: String,
    source: Source,
    found: Vec<Search>,
    /// Why there are no scores.
    refused: Option<String>,
    scores: Option<RowScores>,
}

#[derive(Serialize)]
struct RowScores {
    accuracy: Estimate,
    nll: Estimate,
    ece: Estimate,
    brier: Estimate,
    aurc: Estimate,
    /// NLL of this row less that of maximum likelihood, on the same items.
    against_ml: PairedDifference,
    against_100_labels: Option<PairedDifference>,
    /// The interval of that difference to maximum likelihood lies above 0.
    harms: bool,
}

/// The test items, and the losses of the rows that others are compared with.
pub struct Test {
    /// Of the adapter alone.
    pub logits: Array2<f64>,
    pub labels: Vec<usize>,
    options: ScoreOptions,
    ml: Vec<f64>,
    hundred: Option<Vec<f64>>,
}

impl Test {
    pub fn new(logits: Array2<f64>, labels: Vec<usize>) -> Outcome<Self> {
        let ml = LogitBelief::Point { logits: logits.clone() }.losses(&labels, LINK)?;
        Ok(Self { logits, labels, options: ScoreOptions::default(), ml, hundred: None })
    }

    /// Takes an answer as that of the temperature of 100 labels.
    pub fn compare_with(&mut self, answer: &Answer) -> Outcome<()> {
        self.hundred = Some(answer.belief.losses(&self.labels, LINK)?);
        Ok(())
    }

    /// Scores a row, and prints it.
    pub fn row(&self, name: impl Into<String>, source: Source, tried: Tried) -> Outcome<Row> {
        let mut row = Row { name: name.into(), source, found: Vec::new(), refused: None, scores: None };
        match tried {
            Ok(Answer { belief, found }) => {
                row.found = found;
                row.scores = Some(self.scores(&belief)?);
            }
            Err(reason) => row.refused = Some(reason.to_string()),
        }
        println!("{row}");
        Ok(row)
    }

    fn scores(&self, belief: &LogitBelief) -> Outcome<RowScores> {
        let losses = belief.losses(&self.labels, LINK)?;
        let p = belief.probabilities(LINK)?;
        let scores = Scores::new(p.view(), &self.labels, &self.options)?;
        let mean = |weights: &[f64], losses: &[f64]| weights.iter().zip(losses).map(|(w, l)| w * l).sum::<f64>();
        let against = |other: &[f64]| {
            let pair = |weights: &[f64]| (mean(weights, &losses), mean(weights, other));
            PairedDifference::of_losses(losses.len(), &self.options.bootstrap(), pair)
        };
        let against_ml = against(&self.ml)?;
        Ok(RowScores {
            accuracy: scores.accuracy,
            nll: scores.nll,
            ece: scores.ece,
            brier: scores.brier,
            aurc: scores.aurc,
            harms: against_ml.difference.low > 0.0,
            against_ml,
            against_100_labels: self.hundred.as_deref().map(against).transpose()?,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<74}", self.name)?;
        let Some(s) = &self.scores else {
            return write!(f, " refused: {}", self.refused.as_deref().unwrap_or_default());
        };
        let (nll, ece, brier, aurc) = (s.nll.value, s.ece.value, s.brier.value, s.aurc.value);
        write!(f, " accuracy {:.3} NLL {nll:.3} ECE {ece:.3} Brier {brier:.3} AURC {aurc:.3}", s.accuracy.value)?;
        write!(f, " | P {:.3}", s.against_ml.p_better)?;
        if let Some(pair) = &s.against_100_labels {
            write!(f, " {:.3}", pair.p_better)?;
        }
        if s.harms {
            write!(f, " HARMS")?;
        }
        self.found.iter().try_for_each(|found| write!(f, " | {} {}", found.quantity, significant(found.value)))
    }
}

/// How well a belief about items suits their labels.
#[derive(Serialize)]
pub struct Fit {
    pub accuracy: f64,
    /// Mean over the items in nats, of the mean logits.
    pub nll: f64,
    /// The same of the averaged probabilities.
    pub averaged_nll: f64,
}

impl Fit {
    pub fn new(belief: &LogitBelief, labels: &[usize]) -> Outcome<Self> {
        let logits = belief.moments().0;
        let right = logits.outer_iter().zip(labels).filter(|(row, label)| top_class(*row) == **label).count();
        let mean = |losses: Vec<f64>| losses.iter().sum::<f64>() / losses.len() as f64;
        Ok(Self {
            accuracy: right as f64 / labels.len() as f64,
            nll: mean(LogitBelief::Point { logits }.losses(labels, LINK)?),
            averaged_nll: mean(belief.losses(labels, LINK)?),
        })
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accuracy {:.3}, NLL {:.3}", self.accuracy, self.nll)
    }
}
