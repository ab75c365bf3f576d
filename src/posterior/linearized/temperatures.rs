//! Finds the temperatures of answers that suit the training items when each is left out.

use super::leave_one_out::LeaveOneOut;
use crate::belief::LinkApprox;
use crate::calibrate::{Temperature, TemperatureFit};
use crate::error::Result;
use crate::posterior::answers::AnswerTemperatures;
use crate::search::{Line, Search, SearchEnd};

const INVERSE_TEMPERATURE: &str = "inverse temperature of answers";
/// The search of −log β: from the answers as they are down to a twentieth of their logits, and farther while the mean NLL changes.
const LINE: Line = Line { step: 0.25, width: 1e-4, level: 1e-7, limit: 20.0 };
const SPAN: f64 = 3.0;

impl LeaveOneOut {
    /// The inverse temperature β ≤ 1 with the least NLL of the training items' labels under the network's answers without them:
    /// [`Temperature::fit`] on the means of [`LeaveOneOut::belief`]. No held-out label is read.
    ///
    /// It does not sharpen: the features have seen the labels, so that these items show overconfidence, but no reason for more
    /// confidence ([`TemperatureFit::without_sharpening`]).
    ///
    /// # Errors
    /// As [`Temperature::fit`]; if a target is not a class.
    pub fn network_temperature(&self) -> Result<TemperatureFit> {
        let logits = self.belief().moments().0;
        Ok(Temperature::fit(logits.view(), &self.labels()?)?.without_sharpening())
    }

    /// The same for the posterior: the β ≤ 1 with the least mean NLL of the labels under `N(βf₋ₙ, β²S₋ₙ)` of
    /// [`LeaveOneOut::belief`].
    ///
    /// # Errors
    /// If a target is not a class, or a covariance does not suit the link.
    pub fn posterior_temperature(&self, link: LinkApprox) -> Result<Search> {
        let (belief, labels) = (self.belief(), self.labels()?);
        let nll = |cooler: f64| {
            // to the other side of β = 1 the line is level, so that it ends there or inside
            let losses = belief.tempered((-cooler.max(0.0)).exp()).losses(&labels, link)?;
            Ok(losses.iter().sum::<f64>() / losses.len() as f64)
        };
        let found = LINE.minimize((0.0, SPAN), nll)?;
        let (beta, lowest) = ((-found.at.max(0.0)).exp(), (-found.bounds.1).exp());
        let end = match found.end {
            SearchEnd::AtUpper => SearchEnd::AtLower,
            SearchEnd::AtLower => SearchEnd::AtUpper,
            SearchEnd::Undetermined | SearchEnd::Inside if beta == 1.0 => SearchEnd::AtUpper,
            end => end,
        };
        let search = Search::new(INVERSE_TEMPERATURE, beta, (lowest, 1.0), end);
        Ok(search.with_meaning(match end {
            SearchEnd::AtUpper => "the training items give no reason for softer answers than the posterior's",
            SearchEnd::AtLower => "the training items are answered best by uniform probabilities",
            SearchEnd::Inside | SearchEnd::Undetermined => "",
        }))
    }

    /// Both, with the default link.
    ///
    /// # Errors
    /// As [`LeaveOneOut::network_temperature`] and [`LeaveOneOut::posterior_temperature`].
    pub fn answer_temperatures(&self) -> Result<AnswerTemperatures> {
        let network = Search { quantity: INVERSE_TEMPERATURE.into(), ..self.network_temperature()?.search };
        Ok(AnswerTemperatures { network, posterior: self.posterior_temperature(LinkApprox::default())? })
    }
}
