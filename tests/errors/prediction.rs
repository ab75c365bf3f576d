//! Predictions that come to nothing.

use super::{LIMITS, adapted_mlp, check, mlp, points, silent};
use bayes_lora::belief::{LinkApprox, LogitBelief, LogitGauge};
use bayes_lora::data::BatchLimits;
use bayes_lora::error::Error;
use bayes_lora::lora::{read_adapter, write_adapter};
use bayes_lora::predict::{predict_map, predict_sampled};
use bayes_lora::progress::Control;
use ndarray::{Array2, Array3};

#[test]
fn a_bad_prediction_is_refused_by_name_and_numbers() {
    check(&[
        (
            "no draws",
            || {
                let (model, draws) = (adapted_mlp(2), read_adapter(&adapted_mlp(2))?);
                predict_sampled(&model, &points(), |_| Ok(draws.clone()), 0, &LIMITS, &silent()).map(|_| ())
            },
            &["n_samples", "at least 1", "got 0"],
        ),
        (
            "weights so large that logits overflow",
            || {
                let weights = read_adapter(&adapted_mlp(2))?.into_iter().map(|(site, w)| (site, w.mapv(|_| 1e30)));
                let model = write_adapter(adapted_mlp(2), &weights.collect())?;
                predict_map(&model, &points(), &LIMITS, &silent()).map(|_| ())
            },
            &["logits", "of 9"],
        ),
        (
            "quadrature over three classes",
            || {
                let (mean, covariance) = (Array2::zeros((1, 3)), Array3::ones((1, 3, 3)));
                let belief = LogitBelief::Gaussian { mean, covariance, gauge: LogitGauge::Centred };
                belief.probabilities(LinkApprox::GaussHermite { points: 8 }).map(|_| ())
            },
            &["classes", "expected 2", "found 3"],
        ),
        (
            "raw variances of a centred covariance",
            || {
                let (mean, covariance) = (Array2::zeros((1, 3)), Array3::zeros((1, 3, 3)));
                let belief = LogitBelief::Gaussian { mean, covariance, gauge: LogitGauge::Centred };
                belief.probabilities(LinkApprox::RawProbit).map(|_| ())
            },
            &["RawProbit", "centred gauge"],
        ),
    ]);
}

#[test]
fn cancelled_work_says_what_and_how_far() {
    let control = Control::silent();
    control.cancel();
    let limits = BatchLimits { max_items: 2, max_tokens: 9 };
    let error = predict_map(&mlp(), &points(), &limits, &control).unwrap_err();
    assert!(matches!(error, Error::Cancelled { done: 2, total: 3, .. }), "{error}");
}
