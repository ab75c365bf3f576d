//! Finds the prior under which the linearised model fits its training items as well as the network does.

use super::mode::{EXACT_FIT, Mode, ModePath, ROUGH_FIT};
use super::model::LinearizedModel;
use crate::error::Result;
use crate::posterior::evidence::PRIOR_PRECISION;
use crate::prior::PriorPrecisions;
use crate::search::{Search, SearchEnd};

/// Relative differences of the NLL up to this are none: at the prior's centre a network that never moved is only matched by rounding.
const LEVEL: f64 = 1e-9;
/// Beyond this a difference is known well enough from a rough fit.
const FAR: f64 = 0.1;
/// Width of log s at which it is found.
const WIDTH: f64 = 1e-7;
/// Most evaluations after the bracket.
const MAX_STEPS: usize = 100;

/// The prior matched to the network's own fit.
#[derive(Debug, Clone)]
pub struct MatchedPrior {
    /// The prior precisions; where the search ended at a bound, those at the bound.
    pub precisions: PriorPrecisions,
    /// How they were found.
    pub search: Search,
    /// Mean NLL of the training items at the mode under these, in nats.
    pub mode_nll: f64,
    /// Mean NLL of the training items under the network, in nats: what is matched.
    pub network_nll: f64,
    /// The mode there.
    pub mode: Mode,
}

impl MatchedPrior {
    /// The prior, where one fits.
    ///
    /// # Errors
    /// Says which end of the search is nearest where none does.
    pub fn usable(self) -> Result<Self> {
        self.search.clone().inside()?;
        Ok(self)
    }
}

impl LinearizedModel {
    /// The scale of the prior under which the mode's NLL of the training items equals the network's.
    ///
    /// The regularisation that training really had (few epochs, small steps) has no λ. This one stands for it: the NLL at the mode rises
    /// with λ, so there is at most one, found by bisection with secant steps on log λ.
    ///
    /// # Errors
    /// As [`LinearizedModel::mode`]. Where no λ fits it is the search that says so, see [`MatchedPrior::usable`].
    pub fn matched_prior(&self) -> Result<MatchedPrior> {
        let network_nll = -self.network_log_likelihood();
        let mut path = ModePath::new(self, None);
        // in logarithms where both are positive, as of classes: a saturated adapter's NLL is many decades below that of its start
        let excess_to = |path: &mut ModePath, log: f64, tolerance: f64| -> Result<f64> {
            let nll = -path.log_likelihood(log.exp(), tolerance)?;
            Ok(if nll > 0.0 && network_nll > 0.0 { (nll / network_nll).ln() } else { nll - network_nll })
        };
        let excess = |path: &mut ModePath, log: f64| match excess_to(path, log, ROUGH_FIT)? {
            far if far.abs() > FAR => Ok(far),
            _ => excess_to(path, log, EXACT_FIT),
        };
        // a strong prior's mode is near the centre, from where the search begins
        let (low, begin, high) = self.log_scales()?;
        let mut here = (begin, excess(&mut path, begin)?);
        let mut step = if here.1 > 0.0 { -1.0 } else { 1.0 };
        let direction: f64 = step;
        let mut there = loop {
            let log = (here.0 + step).clamp(low, high);
            let next = (log, excess(&mut path, log)?);
            if next.1 * direction > LEVEL {
                break next;
            }
            if log == low || log == high {
                let end = if direction > 0.0 { SearchEnd::AtUpper } else { SearchEnd::AtLower };
                return self.found(path.mode(log.exp())?, network_nll, (low, high), end);
            }
            here = next;
            step *= 1.5;
        };
        let bounds = (here.0.min(there.0), here.0.max(there.0));
        // Illinois: an end that stays loses half its weight, so that both ends move
        let mut weights = (here.1, there.1);
        for _ in 0..MAX_STEPS {
            if (there.0 - here.0).abs() <= WIDTH || there.1 == 0.0 {
                break;
            }
            let secant = there.0 - weights.1 * (there.0 - here.0) / (weights.1 - weights.0);
            let (low, high) = (here.0.min(there.0), here.0.max(there.0));
            let log = if secant > low && secant < high { secant } else { 0.5 * (low + high) };
            let next = (log, excess(&mut path, log)?);
            if next.1 * there.1 < 0.0 {
                here = there;
                weights.0 = weights.1;
            } else {
                weights.0 *= 0.5;
            }
            weights.1 = next.1;
            there = next;
        }
        self.found(path.mode(there.0.exp())?, network_nll, bounds, SearchEnd::Inside)
    }

    fn found(&self, mode: Mode, network_nll: f64, logs: (f64, f64), end: SearchEnd) -> Result<MatchedPrior> {
        let n = self.n_items() as f64;
        let reference = self.precisions.values()[0].value();
        let bounds = (reference * logs.0.exp(), reference * logs.1.exp());
        let search = Search::new(PRIOR_PRECISION, reference * mode.scale, bounds, end);
        Ok(MatchedPrior {
            precisions: self.precisions.scaled(mode.scale)?,
            search: search.with_meaning(match end {
                SearchEnd::AtUpper => {
                    "even at the prior's centre the linearised model fits the training items no worse than the network"
                }
                SearchEnd::AtLower => {
                    "under no prior does the linearised model fit the training items as well as the network"
                }
                SearchEnd::Inside | SearchEnd::Undetermined => "",
            }),
            mode_nll: -mode.log_likelihood / n,
            network_nll: network_nll / n,
            mode,
        })
    }
}
