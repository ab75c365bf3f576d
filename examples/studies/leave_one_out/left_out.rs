//! The linearised model over weights or over cores: its priors, and its training items left out.

use super::row::{Fit, LINK};
use crate::Outcome;
use bayes_lora::belief::LogitBelief;
use bayes_lora::data::{BatchLimits, EncodedDataset};
use bayes_lora::likelihood::Target;
use bayes_lora::metrics::{BayesianBootstrap, Dispersion};
use bayes_lora::models::PromptClassifier;
use bayes_lora::number::significant;
use bayes_lora::posterior::{
    JacobianRows, Laplace, LeaveOneOut, LinearizedConfig, LinearizedModel, MatchedPrior, ModeOptimum,
};
use bayes_lora::progress::Control;
use serde::Serialize;
use std::fmt;
use std::time::Instant;

/// What weights the linearised model has.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    Weights,
    Cores,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weights => "weights",
            Self::Cores => "cores",
        })
    }
}

/// Seconds of one stage, and the bytes that it leaves.
#[derive(Serialize)]
pub struct Cost {
    what: String,
    seconds: f64,
    bytes: Option<usize>,
}

impl Cost {
    pub fn new(what: impl Into<String>, seconds: f64) -> Self {
        Self { what: what.into(), seconds, bytes: None }
    }

    pub fn with_bytes(self, bytes: usize) -> Self {
        Self { bytes: Some(bytes), ..self }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<40} {:>8} s", self.what, significant(self.seconds))?;
        self.bytes.map_or(Ok(()), |bytes| write!(f, ", {:.1} MB", bytes as f64 / 1e6))
    }
}

/// What the cell says about it.
#[derive(Serialize)]
pub struct LeftOut {
    space: Space,
    n_rows: usize,
    projected: Option<usize>,
    precision_by_evidence: f64,
    precision_at_own_mode: Option<f64>,
    precision_matched: Option<f64>,
    /// The network's logits, shifted; and the linearised model's own.
    shifted: Option<Fit>,
    own: Option<Fit>,
    refused: Vec<String>,
}

/// The prior that is matched, and what it says of the items left out.
pub struct Matched {
    pub prior: MatchedPrior,
    pub left_out: LeaveOneOut,
    pub labels: Vec<usize>,
    pub dispersion: Dispersion,
}

impl Matched {
    fn new(prior: MatchedPrior, linearized: &LinearizedModel) -> Outcome<Self> {
        let left_out = linearized.leave_one_out(&prior.mode)?;
        let labels = left_out.labels()?;
        let bootstrap = BayesianBootstrap { n_draws: 200, ..BayesianBootstrap::default() };
        let dispersion = Dispersion::diagnose(left_out.belief(), &labels, LINK, &bootstrap)?;
        Ok(Self { prior, left_out, labels, dispersion })
    }
}

/// The linearised model of one space, cut down to what rows need.
pub struct Cut {
    /// Refused in words.
    pub matched: Result<Matched, String>,
    pub at_own_mode: Result<ModeOptimum, String>,
    pub summary: LeftOut,
}

impl Cut {
    pub fn new(
        space: Space,
        (model, laplace): (&PromptClassifier, &Laplace),
        train: &EncodedDataset,
        limits: &BatchLimits,
        control: &Control,
        costs: &mut Vec<Cost>,
    ) -> Outcome<Self> {
        let clock = Instant::now();
        let config = LinearizedConfig::default().with_limits(*limits);
        let rows = JacobianRows::of(model, laplace, train, &config, control)?;
        let mut clock = note(costs, format!("Jacobian pass, {space}"), clock, Some(rows.bytes()));
        let targets = train.labels()?.into_iter().map(Target::Class).collect();
        let linearized = LinearizedModel::from_rows(&rows, targets, laplace)?;
        let (n_rows, width) = (rows.n_rows(), rows.width());
        drop(rows);
        // where there are fewer weights than rows, the rows themselves
        let kernel_bytes = 8 * n_rows * n_rows.min(width);
        clock = note(costs, format!("kernel, {space}"), clock, Some(kernel_bytes));
        let at_own_mode = linearized.optimal_prior().map_err(|reason| reason.to_string());
        clock = note(costs, format!("evidence at own mode, {space}"), clock, None);
        let prior = linearized.matched_prior()?.usable();
        clock = note(costs, format!("matched prior, {space}"), clock, None);
        let matched = prior.map_err(Into::into).and_then(|prior| Matched::new(prior, &linearized));
        note(costs, format!("leaving every item out and diagnosing, {space}"), clock, None);
        let matched = matched.map_err(|reason: crate::Failure| reason.to_string());
        let fit = |of: fn(&LeaveOneOut) -> &LogitBelief| {
            matched.as_ref().ok().map(|matched| Fit::new(of(&matched.left_out), &matched.labels)).transpose()
        };
        let summary = LeftOut {
            space,
            n_rows,
            projected: linearized.projected(),
            precision_by_evidence: laplace.prior_precisions().of(0).value(),
            precision_at_own_mode: at_own_mode.as_ref().ok().map(|optimum| optimum.search.value),
            precision_matched: matched.as_ref().ok().map(|matched| matched.prior.search.value),
            shifted: fit(LeaveOneOut::belief)?,
            own: fit(LeaveOneOut::own_belief)?,
            refused: at_own_mode.as_ref().err().into_iter().chain(matched.as_ref().err()).cloned().collect(),
        };
        Ok(Self { matched, at_own_mode, summary })
    }
}

/// Ends a stage, and begins the next.
fn note(costs: &mut Vec<Cost>, what: String, clock: Instant, bytes: Option<usize>) -> Instant {
    costs.push(Cost { what, seconds: clock.elapsed().as_secs_f64(), bytes });
    Instant::now()
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>| value.map_or("refused".into(), significant);
        write!(
            f,
            "linearised over {}: λ {} by evidence, {} at own mode, {} matched",
            self.space,
            significant(self.precision_by_evidence),
            number(self.precision_at_own_mode),
            number(self.precision_matched)
        )?;
        if let (Some(shifted), Some(own)) = (&self.shifted, &self.own) {
            write!(f, "; left out: {shifted}; its own logits: {own}")?;
        }
        self.refused.iter().try_for_each(|reason| write!(f, "; {reason}"))
    }
}
