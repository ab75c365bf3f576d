//! Every score of answers: by posteriors, by the model's probabilities, and by its hidden states. Higher is more doubt.

use super::familiar::Distances;
use crate::Outcome;
use bayes_lora::belief::LogitGauge;
use bayes_lora::curvature::{CurvatureConfig, CurvatureStructure, FisherKind, fit_curvatures};
use bayes_lora::data::{BatchLimits, BatchOrder, TextDataset};
use bayes_lora::likelihood::NextToken;
use bayes_lora::models::{Classifier, Dataset, TextModel, TokenScore};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::predict_linearized_for_all;
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;

/// The score that others are compared with; perplexity is its exponential, and ranks alike.
pub const PLAIN: &str = "−log-likelihood a token";

/// Posteriors around one adapter, and what its training set looks like to the model.
pub struct Scorer<'a> {
    model: &'a TextModel,
    limits: BatchLimits,
    /// Name of the score, what its standard deviations are multiplied with, and the posterior.
    posteriors: Vec<(String, f64, Laplace)>,
    distances: Distances,
    /// λ by evidence, by structure.
    pub priors: Vec<(String, f64)>,
}

impl<'a> Scorer<'a> {
    /// Fits a posterior of each structure.
    pub fn fit(
        model: &'a TextModel,
        train: &TextDataset,
        structures: &[CurvatureStructure],
        fisher: FisherKind,
        limits: BatchLimits,
        control: &Control,
    ) -> Outcome<Self> {
        let config = |structure: &CurvatureStructure| {
            CurvatureConfig::new(*structure).with_likelihood(NextToken).with_fisher(fisher).with_limits(limits)
        };
        let configs: Vec<CurvatureConfig> = structures.iter().map(config).collect();
        let (mut posteriors, mut lengths, mut priors) = (Vec::new(), Vec::<(String, f64, Laplace)>::new(), Vec::new());
        for curvature in &fit_curvatures(model, train, &configs, control)? {
            let structure = curvature.config.structure;
            let laplace = Laplace::new(model, curvature, &LaplaceConfig::default())?;
            priors.push((structure.to_string(), laplace.prior_precisions().of(0).value()));
            // under a prior that drowns the curvature only the length of the gradient is left, in the same coordinates
            let of = if structure == CurvatureStructure::Core { "cores" } else { "A and B" };
            let name = format!("gradient norm, {of}");
            if lengths.iter().all(|(other, ..)| *other != name) {
                lengths.push((name, 1e6, laplace.clone().with_prior_precisions(PriorPrecision::new(1e12)?)?));
            }
            posteriors.push((format!("standard deviation, {structure}"), 1.0, laplace));
        }
        posteriors.append(&mut lengths);
        Ok(Self { model, limits, posteriors, distances: Distances::new(model, train)?, priors })
    }

    /// Every score of the texts' scored tokens, by name.
    pub fn scores(&self, data: &TextDataset, control: &Control) -> Outcome<Vec<(String, Vec<f64>)>> {
        let laplaces: Vec<&Laplace> = self.posteriors.iter().map(|(.., laplace)| laplace).collect();
        let beliefs = predict_linearized_for_all(self.model, &laplaces, data, LogitGauge::Raw, &self.limits, control)?;
        let mut scores = Vec::new();
        for ((name, factor, _), belief) in self.posteriors.iter().zip(beliefs) {
            let covariance = belief.moments().1;
            let deviation = |item: usize| factor * covariance[[item, 0, 0]].max(0.0).sqrt();
            scores.push((name.clone(), (0..data.len()).map(deviation).collect()));
        }
        let tokens = self.tokens(data)?;
        let log_p = |of: &[TokenScore]| of.iter().map(|token| token.log_probability).sum::<f64>();
        let least = |of: &[TokenScore]| of.iter().map(|token| token.log_probability).fold(0.0, f64::min);
        let entropy = |of: &[TokenScore]| of.iter().map(|token| token.entropy).sum::<f64>() / of.len() as f64;
        let mut add = |name: &str, of: &dyn Fn(&[TokenScore]) -> f64| {
            scores.push((name.into(), tokens.iter().map(|tokens| of(tokens)).collect()));
        };
        add(PLAIN, &|of| -log_p(of) / of.len() as f64);
        add("−log-likelihood", &|of| -log_p(of));
        add("−log-probability of the least probable token", &|of| -least(of));
        add("mean token entropy", &entropy);
        let distances = self.distances.of(self.model, data)?;
        for (k, name) in ["end of the prompt", "sum over the answer", "mean over the answer"].into_iter().enumerate() {
            let values = distances.iter().map(|distances| distances[k]).collect();
            scores.push((format!("Mahalanobis distance, {name}"), values));
        }
        Ok(scores)
    }

    fn tokens(&self, data: &TextDataset) -> Outcome<Vec<Vec<TokenScore>>> {
        let mut tokens = vec![Vec::new(); data.len()];
        for indices in Dataset::plan(data, self.limits, BatchOrder::ByLength)? {
            let batch = Dataset::batch(data, &indices, &self.model.device(), self.model.dtype())?;
            for (item, scores) in indices.into_iter().zip(self.model.token_scores(&batch)?) {
                tokens[item] = scores;
            }
        }
        Ok(tokens)
    }
}
