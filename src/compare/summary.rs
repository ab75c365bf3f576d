//! Says everything about one row of a report in numbers, each with its interval where it has one.

use super::cell::Setting;
use super::options::ReportOptions;
use super::row::{RowAnswers, SplitAnswers};
use crate::belief::top_class;
use crate::calibrate::{Abstention, Calibrator, ConformalScore, ConformalSets, SetPredictor, Temperature};
use crate::error::Result;
use crate::metrics::{
    BayesianBootstrap, Estimate, Reliability, RiskCoverage, Scores, SelectiveScores, auroc_estimate,
    average_precision_estimate, beta_interval, false_positive_rate_estimate, nll_estimate,
};
use ndarray::{ArrayView1, ArrayView2};
use serde::{Deserialize, Serialize};

/// Recall at which the share of false alarms is told.
const RECALL: f64 = 0.95;
/// Bins of an entropy histogram.
const ENTROPY_BINS: usize = 20;
/// Points of a risk–coverage curve that are kept.
const CURVE_POINTS: usize = 100;
/// Most sure items that a risk needs: of fewer it is noise.
const FEWEST_ANSWERED: usize = 10;

/// Everything about the answers of one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Scores on the test items.
    pub scores: Scores,
    /// Accuracy on the surest items that make up [`ReportOptions::coverage`], and the largest share of items answered with at least
    /// [`ReportOptions::accuracy`].
    pub selective: SelectiveScores,
    /// What the temperature that suits the test labels best would make of the answers; none where they set no bound to it, or a label
    /// has probability 0.
    pub oracle: Option<OracleTemperature>,
    /// Conformal sets, one for each of [`ReportOptions::set_scores`]; none without held-out labels.
    pub sets: Vec<SetSummary>,
    /// Abstention; none without held-out labels.
    pub abstention: Option<AbstentionSummary>,
    /// Each shifted split, in the order of the setting.
    pub shifted: Vec<ShiftSummary>,
    /// Confidence against accuracy on the test items.
    pub reliability: Reliability,
    /// At most 101 pairs of coverage and risk on the test items, from the share that holds ten items.
    pub risk_coverage: Vec<(f64, f64)>,
    /// Entropies of right, wrong and shifted items.
    pub entropies: EntropyHistogram,
}

/// How conformal sets of one score fare on the test items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetSummary {
    /// How classes are scored.
    pub score: ConformalScore,
    /// Share α of items whose set may miss the label.
    pub miscoverage: f64,
    /// Largest score within a set; none where the items are too few and sets hold every class.
    pub threshold: Option<f64>,
    /// Number of held-out items that fixed it.
    pub n_items: usize,
    /// Share of the test items whose set holds the label, with its Beta interval.
    pub coverage: Estimate,
    /// Bounds within which so many held-out items put the coverage.
    pub expected_coverage: (f64, f64),
    /// Mean number of classes in a set, with its bootstrap interval.
    pub mean_size: Estimate,
}

/// The temperature fitted to the test labels themselves: no method but a bound on what any temperature could do, for a
/// calibrator's row to be held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OracleTemperature {
    /// The inverse temperature β of `p ∝ p̄^β`.
    pub beta: f64,
    /// Whether β is the smallest that is tried: uniform answers suit the labels best.
    pub at_its_end: bool,
    /// Negative log-likelihood at it, nats per item, with its bootstrap interval at this β.
    pub nll: Estimate,
}

/// How risk-controlled abstention fares on the test items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AbstentionSummary {
    /// Largest share of answers that may be wrong.
    pub risk: f64,
    /// Least largest probability at which an answer is given; none where none is safe.
    pub threshold: Option<f64>,
    /// Number of held-out items that fixed it.
    pub n_items: usize,
    /// Share of the test items that are answered, with its Beta interval.
    pub coverage: Estimate,
    /// Share of wrong ones among the answers, with its Beta interval; none without answers.
    pub selective_risk: Option<Estimate>,
}

/// How well a shifted split is told from the test items, and answered where it has labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShiftSummary {
    /// Name of the split.
    pub split: String,
    /// Number of its items; they are the positives.
    pub n_items: usize,
    /// One for each score that the row has.
    pub detections: Vec<Detection>,
    /// Scores of the answers; none where the split has no labels among the classes.
    pub scores: Option<Scores>,
}

/// A score that should be larger on foreign items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UncertaintyScore {
    /// `H[p̄]`, nats.
    Entropy,
    /// `H[p̄] − E[H[p]]`, nats.
    MutualInformation,
    /// `−log Σ_c exp f̄_c` of the mean logits.
    ///
    /// Liu et al. (2020), arXiv 2010.03759.
    Energy,
}

impl UncertaintyScore {
    /// All scores, in the order of the tables.
    pub const ALL: [Self; 3] = [Self::Entropy, Self::MutualInformation, Self::Energy];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entropy => "entropy",
            Self::MutualInformation => "mutual information",
            Self::Energy => "energy",
        }
    }

    fn of(self, split: &SplitAnswers) -> Option<&[f64]> {
        match self {
            Self::Entropy => Some(&split.entropy),
            Self::MutualInformation => split.mutual_information.as_deref(),
            Self::Energy => split.energy.as_deref(),
        }
    }
}

/// Detection of foreign items by one score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// The score.
    pub score: UncertaintyScore,
    /// Probability that a foreign item scores above a test item, with its bootstrap interval.
    pub auroc: Estimate,
    /// Average precision, foreign items being positive, with its bootstrap interval.
    pub aupr: Estimate,
    /// Share of test items that score at least the threshold at which 95 % of the foreign ones do, with its bootstrap interval.
    pub fpr95: Estimate,
}

/// Counts of items by entropy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntropyHistogram {
    /// Edges of the bins in nats, from 0 to `ln C`.
    pub edges: Vec<f64>,
    /// `right`, `wrong`, then the shifted splits by name.
    pub groups: Vec<String>,
    /// `[n_groups][n_bins]`
    pub counts: Vec<Vec<usize>>,
}

impl Summary {
    pub(super) fn new(row: &RowAnswers, setting: &Setting, options: &ReportOptions) -> Result<Self> {
        let (p, labels) = (row.test.probabilities.view(), &setting.test[..]);
        let bootstrap = options.scores.bootstrap();
        let (sets, abstention) = match &row.for_sets {
            None => (Vec::new(), None),
            Some((held_out, held_out_labels)) => {
                let sets = options.set_scores.iter().map(|score| {
                    let rule = ConformalSets::fit_to(held_out.view(), held_out_labels, &options.conformal(*score))?;
                    SetSummary::new(&rule, row, labels, options)
                });
                let rule = Abstention::fit_to(held_out.view(), held_out_labels, &options.abstention())?;
                (sets.collect::<Result<_>>()?, Some(AbstentionSummary::new(&rule, row, labels, options)?))
            }
        };
        let shifted = setting.shifted.iter().zip(&row.shifted).map(|(split, answers)| {
            let detections = UncertaintyScore::ALL.into_iter().filter_map(|score| {
                let (foreign, familiar) = (score.of(answers)?, score.of(&row.test)?);
                Some(Detection::new(score, foreign, familiar, options))
            });
            Ok(ShiftSummary {
                split: split.name.clone(),
                n_items: split.n_items,
                detections: detections.collect::<Result<_>>()?,
                scores: match &split.labels[..] {
                    [] => None,
                    labels => Some(Scores::new(answers.probabilities.view(), labels, &options.scores)?),
                },
            })
        });
        Ok(Self {
            scores: Scores::new(p, labels, &options.scores)?,
            selective: SelectiveScores::new(p, labels, (options.coverage, options.accuracy), &bootstrap)?,
            oracle: OracleTemperature::new(p, labels, &bootstrap)?,
            sets,
            abstention,
            shifted: shifted.collect::<Result<_>>()?,
            reliability: Reliability::new(p, labels, options.scores.n_bins)?,
            risk_coverage: thinned(&RiskCoverage::new(p, labels)?),
            entropies: EntropyHistogram::new(row, setting),
        })
    }
}

impl OracleTemperature {
    fn new(p: ArrayView2<f64>, labels: &[usize], bootstrap: &BayesianBootstrap) -> Result<Option<Self>> {
        // no power of 0 is more
        if labels.iter().enumerate().any(|(item, label)| p[[item, *label]] == 0.0) {
            return Ok(None);
        }
        let fit = Temperature::fit_probabilities(p, labels)?;
        // refused where the labels set no bound to it
        let Ok(temperature) = fit.usable() else { return Ok(None) };
        let scaled = temperature.apply_to_probabilities(p)?;
        let nll = nll_estimate(scaled.view(), labels, bootstrap)?;
        Ok(Some(Self { beta: temperature.beta, at_its_end: temperature.is_at_its_end(), nll }))
    }
}

impl SetSummary {
    fn new(rule: &ConformalSets, row: &RowAnswers, labels: &[usize], options: &ReportOptions) -> Result<Self> {
        let sets = rule.sets(row.test.probabilities.view())?;
        let n_covered = labels.iter().enumerate().filter(|(item, label)| sets[[*item, **label]]).count();
        let size = |set: ArrayView1<bool>| set.iter().filter(|member| **member).count() as f64;
        let sizes: Vec<f64> = sets.outer_iter().map(size).collect();
        Ok(Self {
            score: rule.score,
            miscoverage: rule.miscoverage,
            threshold: rule.threshold.is_finite().then_some(rule.threshold),
            n_items: rule.n_items,
            coverage: beta_interval(n_covered, labels.len(), options.scores.level)?,
            expected_coverage: rule.coverage_interval(options.scores.level)?,
            mean_size: options.scores.bootstrap().mean(&sizes)?,
        })
    }
}

impl AbstentionSummary {
    fn new(rule: &Abstention, row: &RowAnswers, labels: &[usize], options: &ReportOptions) -> Result<Self> {
        let tally = rule.tally(row.test.probabilities.view(), labels)?;
        let n_wrong = tally.n_answered - tally.n_covered;
        let level = options.scores.level;
        Ok(Self {
            risk: rule.risk,
            threshold: rule.threshold.is_finite().then_some(rule.threshold),
            n_items: rule.n_items,
            coverage: beta_interval(tally.n_answered, tally.n_items, level)?,
            selective_risk: match tally.n_answered {
                0 => None,
                n => Some(beta_interval(n_wrong, n, level)?),
            },
        })
    }
}

impl Detection {
    fn new(score: UncertaintyScore, foreign: &[f64], familiar: &[f64], options: &ReportOptions) -> Result<Self> {
        let bootstrap = &options.scores.bootstrap();
        Ok(Self {
            score,
            auroc: auroc_estimate(foreign, familiar, bootstrap)?,
            aupr: average_precision_estimate(foreign, familiar, bootstrap)?,
            fpr95: false_positive_rate_estimate(RECALL, foreign, familiar, bootstrap)?,
        })
    }
}

impl EntropyHistogram {
    fn new(row: &RowAnswers, setting: &Setting) -> Self {
        let widest = (setting.classes.len().max(2) as f64).ln();
        let count = |entropies: &mut dyn Iterator<Item = f64>| -> Vec<usize> {
            let mut counts = vec![0; ENTROPY_BINS];
            for entropy in entropies {
                let bin = (entropy / widest * ENTROPY_BINS as f64) as usize;
                // ln C itself, and what rounding puts above it
                counts[bin.min(ENTROPY_BINS - 1)] += 1;
            }
            counts
        };
        let test = row.test.probabilities.outer_iter().zip(&setting.test).zip(&row.test.entropy);
        let of = |right: bool| {
            let test = test.clone();
            count(&mut test.filter(|((p, label), _)| (top_class(*p) == **label) == right).map(|(_, entropy)| *entropy))
        };
        let mut counts = vec![of(true), of(false)];
        counts.extend(row.shifted.iter().map(|split| count(&mut split.entropy.iter().copied())));
        let names = ["right", "wrong"].into_iter().chain(setting.shifted.iter().map(|split| split.name.as_str()));
        Self {
            edges: (0..=ENTROPY_BINS).map(|i| widest * i as f64 / ENTROPY_BINS as f64).collect(),
            groups: names.map(String::from).collect(),
            counts,
        }
    }
}

/// The curve at equally spaced coverages, without its start, where a risk of few items is noise.
fn thinned(curve: &RiskCoverage) -> Vec<(f64, f64)> {
    let n = curve.coverage.len();
    let first = FEWEST_ANSWERED.min(n);
    let mut counts: Vec<usize> = (0..=CURVE_POINTS).map(|i| first + (n - first) * i / CURVE_POINTS).collect();
    counts.dedup();
    counts.into_iter().map(|k| (curve.coverage[k - 1], curve.risk[k - 1])).collect()
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
