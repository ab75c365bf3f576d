//! Scores predicted probabilities against labels, every number with an interval.
//!
//! The input is always the same: `probabilities: [n_items, n_classes]`, **averaged** over whatever draws a method makes
//! (never softmax of averaged logits), and one label per item. A class that an item does not have carries probability 0.
//! Every call checks its input: rows finite, in `[0, 1]`, summing to 1 within 1e-6, labels that are classes.
//!
//! | number | better | scale |
//! |---|---|---|
//! | [`accuracy`] | higher | share of the items |
//! | [`nll`] | lower | nats, mean over the items |
//! | [`brier`] | lower | 0 to 2, mean over the items |
//! | [`ece`], [`adaptive_ece`], [`debiased_ece`], [`mce`] | lower | difference of two shares |
//! | [`aurc`], [`RiskCoverage`] | lower | share of wrong answers |
//! | [`SelectiveScores`] | higher | share of right answers among the surest; share of the items answered |
//! | [`prediction_rejection_ratio`] | higher | share of what an oracle would save by rejecting answers |
//! | [`auroc`] | higher | probability of a right ranking |
//! | [`average_precision`] | higher | share of alarms that are right, mean over recall |
//! | [`false_positive_rate_at`] | lower | share of the others that set off an alarm |
//!
//! Predicted distributions of numbers have scores of their own: [`ValuePredictions`] holds them against the numbers, [`ValueScores`] says
//! density, error, CRPS and the coverage of intervals, [`PairedValues`] compares methods.
//!
//! [`Dispersion`] says whether a posterior is too wide or too narrow. [`Scores`] has them all with intervals for one set of predictions; [`PairedScores`] compares two methods on the
//! **same** items ([`PairedMatrix`] all pairs of several), which is far sharper than laying two intervals side by side.
//!
//! ```
//! use bayes_lora::metrics::{PairedScores, ScoreOptions, Scores};
//! use ndarray::arr2;
//!
//! let labels = [0, 1, 1, 0];
//! let modest = arr2(&[[0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.9, 0.1]]);
//! let overconfident = arr2(&[[0.99, 0.01], [0.01, 0.99], [0.99, 0.01], [0.99, 0.01]]);
//!
//! let options = ScoreOptions::default(); // 15 bins, 1000 draws, 95 %
//! let scores = Scores::new(modest.view(), &labels, &options)?;
//! assert_eq!(scores.accuracy.value, 0.75);
//! assert!(scores.nll.low < scores.nll.value && scores.nll.value < scores.nll.high);
//!
//! let paired = PairedScores::new(modest.view(), overconfident.view(), &labels, &options)?;
//! assert_eq!(paired.accuracy.p_better, 0.5); // the same answers, so no method is ahead …
//! assert!(paired.nll.p_better > 0.5); // … but the modest one is the better forecaster
//! # Ok::<(), bayes_lora::error::Error>(())
//! ```

mod accuracy;
mod auroc;
mod bootstrap;
mod brier;
mod detection;
mod dispersion;
mod ece;
mod interval;
mod nll;
mod paired;
mod paired_matrix;
mod paired_table;
mod predictions;
mod ranked;
mod rejection;
mod reliability;
mod risk_coverage;
mod scores;
mod selective;
mod values;

pub use accuracy::accuracy;
pub use auroc::{auroc, auroc_estimate};
pub use bootstrap::BayesianBootstrap;
pub use brier::brier;
pub use detection::{
    average_precision, average_precision_estimate, false_positive_rate_at, false_positive_rate_estimate,
};
pub use dispersion::{Dispersion, DispersionVerdict};
pub use ece::{adaptive_ece, debiased_ece, ece, mce};
pub(crate) use interval::check_share;
pub use interval::{Estimate, beta_interval, wilson_interval};
pub use nll::{nll, nll_estimate};
pub use paired::{PairedDifference, PairedScores};
pub use paired_matrix::{PairedMatrix, PairedMetric};
pub use paired_table::{PairedTable, p_better_accuracy};
pub use rejection::{prediction_rejection_estimate, prediction_rejection_ratio};
pub use reliability::{Reliability, ReliabilityBin};
pub use risk_coverage::{RiskCoverage, aurc};
pub use scores::{ScoreOptions, Scores};
pub use selective::SelectiveScores;
pub use values::{INTERVALS, PairedValues, ValuePredictions, ValueScores};
