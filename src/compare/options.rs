//! Says what a report shows and at which levels.

use crate::calibrate::{AbstentionSettings, Calibration, ConformalScore, ConformalSettings};
use crate::error::{Error, Result};
use crate::metrics::{ScoreOptions, check_share};
use crate::setters::setters;
use serde::{Deserialize, Serialize};

/// Some of the methods of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodSelection {
    /// Every method.
    All,
    /// No method.
    None,
    /// The methods of these names.
    Only(Vec<String>),
}

impl MethodSelection {
    /// True if the method is among them.
    pub fn has(&self, method: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Only(names) => names.iter().any(|name| name == method),
        }
    }
}

/// What a report shows and at which levels.
///
/// ```
/// use bayes_lora::compare::{MethodSelection, ReportOptions};
///
/// let options =
///     ReportOptions::default().with_vector_scaling(MethodSelection::Only(vec!["map".into()])).with_miscoverage(0.05);
/// assert!(options.vector_scaling.has("map") && !options.vector_scaling.has("laplace"));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ReportOptions {
    /// Heading of the page.
    pub title: String,
    /// The method that comes first and that every row is compared with; `None` for maximum likelihood, or the first where it is not
    /// among them.
    pub reference: Option<String>,
    /// Bins, draws and level of all intervals.
    pub scores: ScoreOptions,
    /// Methods that get a row "method + temperature".
    pub temperature: MethodSelection,
    /// Methods that get a row "method + vector scaling".
    pub vector_scaling: MethodSelection,
    /// Share of items, in (0, 1], at which the accuracy on the surest ones is told.
    pub coverage: f64,
    /// Accuracy, in (0, 1], for which the largest share of items is told.
    pub accuracy: f64,
    /// Share α of items, in (0, 1), whose conformal set may miss the label.
    pub miscoverage: f64,
    /// Scores of conformal sets; a column each.
    pub set_scores: Vec<ConformalScore>,
    /// Largest share of answers, in (0, 1), that may be wrong where the method abstains otherwise.
    pub risk: f64,
    /// Probability, in (0, 1), that it is exceeded nonetheless.
    pub failure_probability: f64,
}

impl Default for ReportOptions {
    /// A temperature behind every method, no vector scaling; accuracy at 80 % coverage, coverage at 90 % accuracy; sets of the
    /// least ambiguous classes at α = 0.1; abstention at a risk of 0.1 with δ = 0.1.
    fn default() -> Self {
        Self {
            title: "Comparison of methods".into(),
            reference: None,
            scores: ScoreOptions::default(),
            temperature: MethodSelection::All,
            vector_scaling: MethodSelection::None,
            coverage: 0.8,
            accuracy: 0.9,
            miscoverage: 0.1,
            set_scores: vec![ConformalScore::LeastAmbiguous],
            risk: 0.1,
            failure_probability: 0.1,
        }
    }
}

impl ReportOptions {
    setters! {
        /// Sets the heading of the page.
        with_title(title: impl Into<String>);
        /// Sets the method that every row is compared with; `None` for maximum likelihood.
        with_reference(reference: impl Into<Option<String>>);
        /// Sets bins, draws and level of all intervals.
        with_scores(scores: ScoreOptions);
        /// Sets the methods that get a row "method + temperature".
        with_temperature(temperature: MethodSelection);
        /// Sets the methods that get a row "method + vector scaling".
        with_vector_scaling(vector_scaling: MethodSelection);
        /// Sets the share of items at which the accuracy on the surest ones is told.
        with_coverage(coverage: f64);
        /// Sets the accuracy for which the largest share of items is told.
        with_accuracy(accuracy: f64);
        /// Sets the share of items whose conformal set may miss the label.
        with_miscoverage(miscoverage: f64);
        /// Sets the scores of conformal sets.
        with_set_scores(set_scores: impl Into<Vec<ConformalScore>>);
        /// Sets the largest share of answers that may be wrong where the method abstains otherwise.
        with_risk(risk: f64);
        /// Sets the probability that it is exceeded nonetheless.
        with_failure_probability(failure_probability: f64);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// Names the field, its bound and its value.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [("coverage", self.coverage), ("accuracy", self.accuracy)] {
            check_share(field, value)?;
        }
        let within =
            [("miscoverage", self.miscoverage), ("risk", self.risk), ("failure_probability", self.failure_probability)];
        for (field, value) in within {
            if !(value > 0.0 && value < 1.0) {
                return Err(Error::config(field, "strictly between 0 and 1", value));
            }
        }
        self.scores.validate()
    }

    /// Refuses values out of their bounds and methods that no run has.
    pub(super) fn check(&self, methods: &[&str]) -> Result<()> {
        self.validate()?;
        if let Some(name) = self.reference.as_ref().filter(|name| !methods.contains(&name.as_str())) {
            return Err(Error::config("reference", format!("among the methods {}", methods.join(", ")), name));
        }
        for (field, selection) in [("temperature", &self.temperature), ("vector_scaling", &self.vector_scaling)] {
            let MethodSelection::Only(names) = selection else { continue };
            if let Some(name) = names.iter().find(|name| !methods.contains(&name.as_str())) {
                return Err(Error::config(field, format!("among the methods {}", methods.join(", ")), name));
            }
        }
        Ok(())
    }

    pub(super) fn calibrations_of(&self, method: &str) -> Vec<Calibration> {
        let all = [(Calibration::Temperature, &self.temperature), (Calibration::VectorScaling, &self.vector_scaling)];
        all.into_iter().filter(|(_, methods)| methods.has(method)).map(|(calibration, _)| calibration).collect()
    }

    pub(super) fn conformal(&self, score: ConformalScore) -> ConformalSettings {
        ConformalSettings { score, miscoverage: self.miscoverage, seed: self.scores.seed }
    }

    pub(super) fn abstention(&self) -> AbstentionSettings {
        AbstentionSettings { risk: self.risk, failure_probability: self.failure_probability }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_out_of_bounds_and_unknown_methods_are_refused() {
        let refusal = |change: fn(&mut ReportOptions)| {
            let mut options = ReportOptions::default();
            change(&mut options);
            options.check(&["map", "laplace"]).unwrap_err().to_string()
        };
        assert!(ReportOptions::default().check(&[]).is_ok());
        assert_eq!(refusal(|o| o.coverage = 0.0), "coverage: must be above 0 and at most 1, got 0");
        assert_eq!(refusal(|o| o.risk = 1.0), "risk: must be strictly between 0 and 1, got 1");
        assert!(refusal(|o| o.scores.level = f64::NAN).contains("level"));
        let unknown = refusal(|o| o.vector_scaling = MethodSelection::Only(vec!["lapalce".into()]));
        assert_eq!(unknown, "vector_scaling: must be among the methods map, laplace, got lapalce");
        let unknown = refusal(|o| o.reference = Some("mle".into()));
        assert_eq!(unknown, "reference: must be among the methods map, laplace, got mle");
    }

    #[test]
    fn options_are_read_from_the_fields_that_differ_and_no_unknown_ones() {
        let read = |json: &str| serde_json::from_str::<ReportOptions>(json);
        let options = read(r#"{"risk": 0.2, "set_scores": ["least_ambiguous", {"adaptive": {"randomized": true}}]}"#);
        assert_eq!(options.as_ref().unwrap().risk, 0.2);
        assert_eq!(options.unwrap().set_scores[1], ConformalScore::Adaptive { randomized: true });
        assert!(read(r#"{"rsik": 0.2}"#).is_err());
    }
}
