//! Finds the prior with the most evidence at the linearised model's own mode.

use super::mode::{Mode, ModePath};
use super::model::LinearizedModel;
use crate::error::Result;
use crate::posterior::evidence::PRIOR_PRECISION;
use crate::prior::PriorPrecisions;
use crate::search::{Line, Search, SearchEnd};

/// The search of log s around where the largest prior variance of a combination is 1 nat²: from prior deviations of 33 nats to 0.2, and
/// farther while the log evidence still changes by 1e-6 nats.
const LINE: Line = Line { step: 1.0, width: 1e-2, level: 1e-6, limit: 18.0 };
const SPAN: (f64, f64) = (-7.0, 3.0);

/// The prior with the most evidence at the mode.
#[derive(Debug, Clone)]
pub struct ModeOptimum {
    /// The prior precisions.
    pub precisions: PriorPrecisions,
    /// How they were found.
    pub search: Search,
    /// The mode under them, with its evidence ([`Mode::log_marginal_likelihood`]).
    pub mode: Mode,
}

impl LinearizedModel {
    /// The scale of the prior with the most evidence, where the evidence is expanded about the mode under each prior: a Gaussian
    /// process classifier with the tangent kernel. The trained adapter enters by its Jacobians and outputs alone, and weights about which
    /// the data say nothing not at all.
    ///
    /// # Errors
    /// As [`LinearizedModel::mode`]; if a larger or a smaller precision is always better.
    pub fn optimal_prior(&self) -> Result<ModeOptimum> {
        let mut path = ModePath::new(self, None);
        let (_, centre, _) = self.log_scales()?;
        let found = LINE.minimize(SPAN, |log| Ok(-path.mode((centre + log).exp())?.log_marginal_likelihood()))?;
        let precision = |log: f64| self.precisions.values()[0].value() * (centre + log).exp();
        let bounds = (precision(found.bounds.0), precision(found.bounds.1));
        let search = Search::new(PRIOR_PRECISION, precision(found.at), bounds, found.end);
        let search = search.with_meaning(match found.end {
            SearchEnd::Inside => "",
            SearchEnd::AtLower => "the evidence asks for a flat prior",
            SearchEnd::AtUpper => "the evidence asks for the prior's centre: it sees nothing in the training items",
            SearchEnd::Undetermined => "no value of it changes the evidence",
        });
        let search = search.inside()?;
        let mode = path.mode((centre + found.at).exp())?;
        Ok(ModeOptimum { precisions: self.precisions.scaled(mode.scale)?, search, mode })
    }
}
