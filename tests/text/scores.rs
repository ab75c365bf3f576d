//! Scores of texts: the standard deviation of a log-likelihood against dense algebra, draws and finite differences.

use super::{ALL, llama, mistral, sampled, small_models, text, texts};
use crate::support::{central_difference, f64_or_skip, logits, relative_error};
use bayes_lora::curvature::{Cotangents, CurvatureStructure, CurvatureSums, fit_curvature, probe};
use bayes_lora::data::TextDataset;
use bayes_lora::likelihood::Categorical;
use bayes_lora::linalg::eigh;
use bayes_lora::lora::read_adapter;
use bayes_lora::models::{Classifier, Dataset, TextModel};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{Predictive, predict, predict_targets, score_texts};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::tape::Site;
use burn::tensor::DType;
use ndarray::{Array1, Array2, Axis};

/// Over all matrices in forward order, `[n, P]`.
fn jacobian(model: &TextModel, data: &TextDataset) -> Array2<f64> {
    let items: Vec<usize> = (0..data.len()).collect();
    let batch = data.batch(&items, &model.device(), model.dtype()).unwrap();
    let pass = probe(model, &batch, Cotangents::Classes).unwrap();
    let parts: Vec<Array2<f64>> = pass
        .sites
        .iter()
        .map(|site| {
            let jacobians = site.jacobians().unwrap();
            let width = jacobians.len() / data.len();
            jacobians.into_shape_with_order((data.len(), width)).unwrap()
        })
        .collect();
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    ndarray::concatenate(Axis(1), &views).unwrap()
}

/// The adapted matrices in forward order.
pub(super) fn forward_order(model: &TextModel, data: &TextDataset) -> Vec<Site> {
    let batch = data.batch(&[0], &model.device(), model.dtype()).unwrap();
    probe(model, &batch, Cotangents::Classes).unwrap().sites.into_iter().map(|of| of.site).collect()
}

fn laplace(model: &TextModel, data: &TextDataset, structure: CurvatureStructure) -> Laplace {
    let curvature = fit_curvature(model, data, &sampled(structure, 2, 3), &Control::silent()).unwrap();
    let fixed = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(2.0).unwrap());
    Laplace::new(model, &curvature, &fixed).unwrap()
}

#[test]
fn the_jacobian_of_a_log_likelihood_equals_finite_differences() {
    if !f64_or_skip("Jacobian of texts") {
        return;
    }
    let (model, data) = (llama(DType::F64), texts(96));
    let items: Vec<usize> = (0..data.len()).collect();
    let pass =
        probe(&model, &data.batch(&items, &model.device(), model.dtype()).unwrap(), Cotangents::Classes).unwrap();
    for site in &pass.sites {
        let jacobians = site.jacobians().unwrap();
        for at in [[0, 0], [1, 2]] {
            let found = jacobians.slice(ndarray::s![.., .., at[0], at[1]]).to_owned();
            let expected = central_difference(&model, &data, &site.site, at);
            assert!(relative_error(&found, &expected) < 1e-6, "{}", site.site); // that of the difference
        }
    }
}

#[test]
fn the_standard_deviation_of_a_score_is_that_of_dense_algebra() {
    if !f64_or_skip("scores of texts") {
        return;
    }
    small_models().into_iter().for_each(|model| check_against_dense_algebra(&model));
}

fn check_against_dense_algebra(model: &TextModel) {
    let data = texts(64);
    let curvature = fit_curvature(model, &data, &sampled(CurvatureStructure::Full, 2, 3), &Control::silent()).unwrap();
    let CurvatureSums::Joint(blocks) = &curvature.sums else { panic!("a joint structure was asked for") };
    let j = jacobian(model, &data);
    let eigen = eigh(blocks[0].sum.to_matrix(j.ncols()).view()).unwrap();
    let rotated = j.dot(&eigen.vectors);
    let variance: Array1<f64> =
        rotated.outer_iter().map(|row| row.iter().zip(&eigen.values).map(|(r, e)| r * r / (e + 2.0)).sum()).collect();
    let scores =
        score_texts(model, &laplace(model, &data, CurvatureStructure::Full), &data, &ALL, &Control::silent()).unwrap();
    let found: Array1<f64> = scores.iter().map(|score| score.standard_deviation).collect();
    let error = relative_error(&found, &variance.mapv(f64::sqrt));
    println!("standard deviations: {error:.1e}");
    assert!(error < 1e-9); // two exact algorithms
    // the log-likelihood is the sum of its tokens, and the model's output
    let outputs = logits(model, &data);
    for (i, score) in scores.iter().enumerate() {
        let sum: f64 = score.tokens.iter().map(|token| token.log_probability).sum();
        assert!((sum - score.log_likelihood).abs() < 1e-10 && (outputs[[i, 0]] - sum).abs() < 1e-10); // rounding
        let example = &data.examples[i];
        let ids: Vec<u32> = example.scored_places().map(|t| example.ids[t]).collect();
        assert_eq!(score.tokens.iter().map(|token| token.id).collect::<Vec<_>>(), ids);
        assert!(score.tokens.iter().all(|token| token.entropy > 0.0 && token.entropy < 64f64.ln()));
        assert!((score.per_token() * ids.len() as f64 - sum).abs() < 1e-10);
    }
}

#[test]
fn the_standard_deviation_is_that_of_twenty_thousand_draws_of_the_linearised_model() {
    if !f64_or_skip("draws of scores") {
        return;
    }
    small_models().into_iter().for_each(|model| check_against_draws(&model));
}

fn check_against_draws(model: &TextModel) {
    let data = texts(64);
    let laplace = laplace(model, &data, CurvatureStructure::Kronecker);
    let scores = score_texts(model, &laplace, &data, &ALL, &Control::silent()).unwrap();
    let j = jacobian(model, &data);
    let order = forward_order(model, &data);
    let map = read_adapter(model).unwrap();
    let n = 20_000;
    let mut squares = Array1::<f64>::zeros(data.len());
    for index in 0..n {
        let draw = laplace.sample(11, index);
        let change: Array1<f64> =
            order.iter().flat_map(|site| (&draw[site] - &map[site]).into_iter().collect::<Vec<f64>>()).collect();
        squares = squares + j.dot(&change).mapv(|v| v * v);
    }
    for (square, score) in squares.iter().zip(&scores) {
        let ratio = (square / n as f64).sqrt() / score.standard_deviation;
        // a standard deviation from n draws has the relative spread 1/√(2n), five times
        assert!((ratio - 1.0).abs() < 5.0 / (2.0 * n as f64).sqrt(), "{ratio}");
    }
}

#[test]
fn entropies_of_tokens_are_those_of_their_next_token_distributions() {
    if !f64_or_skip("entropies") {
        return;
    }
    let model = mistral();
    let data = TextDataset::new("t", vec![text(0, vec![5, 9, 30, 7], &[2..4])]).unwrap();
    let found = &model.token_scores(&data.batch(&[0], &model.device(), model.dtype()).unwrap()).unwrap()[0];
    for (token, t) in found.iter().zip([2, 3]) {
        let with = |v: u32| {
            let mut ids = data.examples[0].ids[..t].to_vec();
            ids.push(v);
            text(v, ids, &[t..t + 1])
        };
        let all = logits(&model, &TextDataset::new("all", (0..64).map(with).collect()).unwrap());
        let entropy: f64 = all.iter().map(|log_p| -log_p * log_p.exp()).sum();
        assert!((token.entropy - entropy).abs() < 1e-10); // rounding of 64 terms
        assert!((all[[data.examples[0].ids[t] as usize, 0]] - token.log_probability).abs() < 1e-10);
    }
}

#[test]
fn what_a_posterior_of_texts_cannot_say_is_refused_by_name() {
    let (model, data) = (mistral(), texts(64));
    let posterior = laplace(&model, &data, CurvatureStructure::Diagonal);
    let (control, how) = (Control::silent(), Predictive::default());
    let error = predict(&model, &posterior, &data, how, &ALL, &control).unwrap_err().to_string();
    assert!(error.contains("next-token"), "{error}");
    let error = predict_targets(&model, &posterior, &data, how, &ALL, &control).unwrap_err().to_string();
    assert!(error.contains("next-token"), "{error}");
    assert_ne!(posterior.likelihood(), &Categorical.into());
}
