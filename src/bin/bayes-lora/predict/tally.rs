//! What was answered, and how well where the right answers are known.

use crate::kinds::Known;
use bayes_lora::error::Result;
use bayes_lora::metrics::{Estimate, ScoreOptions, Scores};
use bayes_lora::number::significant;
use ndarray::Array2;
use serde::Serialize;
use std::fmt;
use std::time::Instant;

pub struct Tally {
    begin: Instant,
    n: usize,
    n_shortened: usize,
    /// Lines that an earlier run has answered.
    pub n_resumed: usize,
    known: Vec<Known>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { begin: Instant::now(), n: 0, n_shortened: 0, n_resumed: 0, known: Vec::new() }
    }
}

impl Tally {
    pub fn add(&mut self, n: usize, n_shortened: usize, known: Vec<Known>) {
        self.n += n;
        self.n_shortened += n_shortened;
        self.known.extend(known);
    }

    pub fn summary(&self) -> Result<Summary> {
        let seconds = self.begin.elapsed().as_secs_f64();
        Ok(Summary {
            answered: self.n,
            shortened: self.n_shortened,
            resumed: self.n_resumed,
            seconds,
            items_per_second: (self.n - self.n_resumed) as f64 / seconds.max(f64::MIN_POSITIVE),
            classes: self.classes()?,
            values: self.values(),
        })
    }

    fn classes(&self) -> Result<Option<ClassScores>> {
        let of = |known: &Known| match known {
            Known::Class { probabilities, label } => Some((probabilities.clone(), *label)),
            Known::Value { .. } => None,
        };
        let labelled: Vec<(Vec<f64>, usize)> = self.known.iter().filter_map(of).collect();
        if labelled.is_empty() {
            return Ok(None);
        }
        let n_classes = labelled.iter().map(|(probabilities, _)| probabilities.len()).max().unwrap_or(0);
        let value = |(index, class): (usize, usize)| labelled[index].0.get(class).copied().unwrap_or(0.0);
        let probabilities = Array2::from_shape_fn((labelled.len(), n_classes), value);
        let labels: Vec<usize> = labelled.iter().map(|(_, label)| *label).collect();
        let Scores { accuracy, nll, ece, .. } = Scores::new(probabilities.view(), &labels, &ScoreOptions::default())?;
        Ok(Some(ClassScores { labelled: labels.len(), accuracy, nll, ece }))
    }

    fn values(&self) -> Option<ValueScores> {
        let of = |known: &Known| match known {
            Known::Value { mean, deviation, value } => Some((value - mean, *deviation)),
            Known::Class { .. } => None,
        };
        let errors: Vec<(f64, f64)> = self.known.iter().filter_map(of).collect();
        let n = errors.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| errors.iter().map(of).sum::<f64>() / n;
        (!errors.is_empty()).then(|| ValueScores {
            labelled: errors.len(),
            root_mean_squared_error: mean(|(error, _)| error * error).sqrt(),
            nll: mean(|(error, sd)| 0.5 * ((error / sd).powi(2) + (std::f64::consts::TAU * sd * sd).ln())),
            within_two_deviations: mean(|(error, sd)| f64::from(error.abs() <= 2.0 * sd)),
        })
    }
}

/// What to tell about it.
#[derive(Serialize)]
pub struct Summary {
    answered: usize,
    shortened: usize,
    resumed: usize,
    seconds: f64,
    /// Of those that this run answered.
    items_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<ClassScores>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<ValueScores>,
}

#[derive(Serialize)]
struct ClassScores {
    labelled: usize,
    accuracy: Estimate,
    nll: Estimate,
    ece: Estimate,
}

#[derive(Serialize)]
struct ValueScores {
    labelled: usize,
    root_mean_squared_error: f64,
    /// A normal distribution's, in nats.
    nll: f64,
    /// Share of the numbers.
    within_two_deviations: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rate) = (significant(self.seconds), significant(self.items_per_second));
        write!(f, "{} lines answered, {} shortened, in {seconds} s ({rate} a second)", self.answered, self.shortened)?;
        if self.resumed > 0 {
            write!(f, "; {} of them by an earlier run", self.resumed)?;
        }
        if let Some(ClassScores { labelled, accuracy, nll, ece }) = &self.classes {
            let (accuracy, nll, ece) = (Shown(accuracy), Shown(nll), Shown(ece));
            write!(f, "\n{labelled} have an answer: accuracy {accuracy}, NLL {nll}, ECE {ece}")?;
        }
        if let Some(ValueScores { labelled, root_mean_squared_error, nll, within_two_deviations }) = &self.values {
            let [error, nll, share] = [*root_mean_squared_error, *nll, *within_two_deviations].map(significant);
            write!(
                f,
                "\n{labelled} have a number: root mean squared error {error}, NLL {nll}, {share} within two standard deviations"
            )?;
        }
        Ok(())
    }
}

struct Shown<'a>(&'a Estimate);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [value, low, high] = [self.0.value, self.0.low, self.0.high].map(significant);
        write!(f, "{value} [{low}, {high}]")
    }
}
