//! The sampled Fisher information of texts: its mean is the exact one, whatever the batches and the shards.

use super::{mistral, sampled, small_models, text, texts};
use crate::support::{f64_or_skip, relative_error};
use bayes_lora::curvature::{
    AdapterSubset, Cotangents, Curvature, CurvatureConfig, CurvatureStructure, CurvatureSums, FisherKind,
    TokenTreatment, correct_eigenvalues, estimate_cost, fit_curvature, probe,
};
use bayes_lora::data::{BatchLimits, TextDataset, TextExample};
use bayes_lora::likelihood::NextToken;
use bayes_lora::models::{Classifier, Dataset, TextModel};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::progress::Control;
use ndarray::{Array1, Array2, Axis};

const VOCABULARY: usize = 64;

fn fit(model: &TextModel, data: &TextDataset, config: &CurvatureConfig) -> Curvature {
    fit_curvature(model, data, config, &Control::silent()).unwrap()
}

fn full_matrix(curvature: &Curvature) -> Array2<f64> {
    let CurvatureSums::Joint(blocks) = &curvature.sums else { panic!("a joint structure was asked for") };
    blocks[0].sum.to_matrix(blocks[0].spaces.iter().map(|space| space.width()).sum())
}

/// `log p(v | x, y_<t)` and its gradient over the last layer's adapter for every token v at a place: `[V]`, `[V, P]`.
fn scores_at(model: &TextModel, example: &TextExample, t: usize) -> (Array1<f64>, Array2<f64>) {
    let with = |v: usize| {
        let mut ids = example.ids[..t].to_vec();
        ids.push(v as u32);
        text(v, ids, &[t..t + 1])
    };
    let data = TextDataset::new("all", (0..VOCABULARY).map(with).collect()).unwrap();
    let items: Vec<usize> = (0..VOCABULARY).collect();
    let batch = data.batch(&items, &model.device(), model.dtype()).unwrap();
    let pass = probe(model, &batch, Cotangents::Classes).unwrap();
    let all: Vec<_> = pass.sites.iter().map(|site| site.site.clone()).collect();
    let chosen = AdapterSubset::LastLayer.select(&all).unwrap();
    let parts: Vec<Array2<f64>> = pass
        .sites
        .iter()
        .filter(|site| chosen.contains(&site.site))
        .map(|site| {
            let jacobians = site.jacobians().unwrap();
            let width = jacobians.len() / VOCABULARY;
            jacobians.into_shape_with_order((VOCABULARY, width)).unwrap()
        })
        .collect();
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    (pass.logits.column(0).to_owned(), ndarray::concatenate(Axis(1), &views).unwrap())
}

/// The exact Fisher information of a text with two scored tokens, and the mean of `‖score‖⁴` of both tokens' draws together.
fn exact(model: &TextModel, example: &TextExample) -> (Array2<f64>, f64) {
    let places: Vec<usize> = example.scored_places().collect();
    let at: Vec<_> = places.iter().map(|&t| scores_at(model, example, t)).collect();
    let p: Vec<Array1<f64>> = at.iter().map(|(log_p, _)| log_p.mapv(f64::exp)).collect();
    for p in &p {
        assert!((p.sum() - 1.0).abs() < 1e-12); // rounding
    }
    let width = at[0].1.ncols();
    let mut fisher = Array2::zeros((width, width));
    for ((_, scores), p) in at.iter().zip(&p) {
        let weighted = scores * &p.mapv(f64::sqrt).insert_axis(Axis(1));
        fisher = fisher + weighted.t().dot(&weighted);
    }
    let gram = |a: usize, b: usize| at[a].1.dot(&at[b].1.t());
    let (first, second, cross) = (gram(0, 0), gram(1, 1), gram(0, 1));
    let mut fourth = 0.0;
    for v in 0..VOCABULARY {
        for w in 0..VOCABULARY {
            fourth += p[0][v] * p[1][w] * (first[[v, v]] + second[[w, w]] + 2.0 * cross[[v, w]]).powi(2);
        }
    }
    (fisher, fourth)
}

/// Texts with two scored tokens each, beside each other or not.
fn pairs() -> TextDataset {
    let token = |k: usize| (3 + (k * 41 + 5) % 60) as u32;
    let one = |i: usize| {
        let ids = (0..6 + i).map(|t| token(9 * i + t)).collect();
        if i == 1 { text(i, ids, &[2..3, 5..6]) } else { text(i, ids, &[3..5]) }
    };
    TextDataset::new("pairs", (0..3).map(one).collect()).unwrap()
}

#[test]
fn the_sampled_fisher_tends_to_the_exact_one_with_the_error_of_independent_draws() {
    if !f64_or_skip("sampled Fisher of texts") {
        return;
    }
    small_models().into_iter().for_each(|model| check_sampled(&model));
}

fn check_sampled(model: &TextModel) {
    let data = pairs();
    let (mut fisher, mut variance) = (Array2::<f64>::zeros((0, 0)), 0.0);
    for example in &data.examples {
        let (one, fourth) = exact(model, example);
        variance += fourth - one.mapv(|v| v * v).sum();
        fisher = if fisher.is_empty() { one } else { fisher + one };
    }
    // E‖F̂ − F‖² = Σ_items (E‖s‖⁴ − ‖F_item‖²) / n, cross terms of the two tokens included
    let rounds = 12;
    let mut errors = Vec::new();
    for n in [4, 16, 64] {
        let mut total = 0.0;
        for seed in 0..rounds {
            let config = sampled(CurvatureStructure::Full, n, seed).with_subset(AdapterSubset::LastLayer);
            total += (full_matrix(&fit(model, &data, &config)) - &fisher).mapv(|v| v * v).sum();
        }
        let (found, expected) = (total / rounds as f64, variance / n as f64);
        println!(
            "n = {n}: mean squared error {found:.3e}, expected {expected:.3e}, of ‖F‖² {:.3e}",
            fisher.mapv(|v| v * v).sum()
        );
        errors.push(found / expected);
    }
    // a mean of 12 squared errors, whose own spread is about their size: within a factor 2 by three standard errors
    assert!(errors.iter().all(|ratio| (0.4..2.2).contains(ratio)), "{errors:?}");
}

#[test]
fn draws_depend_on_the_seed_the_text_and_the_place_only() {
    if !f64_or_skip("draws of texts") {
        return;
    }
    small_models().into_iter().for_each(|model| check_draws(&model));
}

fn check_draws(model: &TextModel) {
    let data = texts(VOCABULARY);
    let mut turned = data.clone();
    turned.examples.reverse();
    for structure in [CurvatureStructure::Full, CurvatureStructure::Diagonal, CurvatureStructure::Core] {
        let flat = |data: &TextDataset, max_items: usize, seed: u64, workers: usize| -> Vec<f64> {
            let limits = BatchLimits { max_items, max_tokens: 100_000 };
            let config = sampled(structure, 3, seed).with_limits(limits);
            let control = Control::silent().with_workers(workers).unwrap();
            match fit_curvature(model, data, &config, &control).unwrap().sums {
                CurvatureSums::Joint(blocks) => {
                    let width = blocks[0].spaces.iter().map(|space| space.width()).sum();
                    blocks[0].sum.to_matrix(width).into_iter().collect()
                }
                CurvatureSums::Diagonal(sums) => sums.iter().flat_map(|sum| sum.kept.iter().copied()).collect(),
                CurvatureSums::Kronecker(_) => panic!("{structure} holds no factors"),
            }
        };
        let (whole, seed) = (flat(&data, 64, 1, 1), 1);
        let whole = Array1::from_vec(whole);
        for other in [flat(&data, 1, seed, 1), flat(&turned, 3, seed, 2)] {
            // sums in another order
            assert!(relative_error(&Array1::from_vec(other), &whole) < 1e-10, "{structure}");
        }
        assert!(relative_error(&Array1::from_vec(flat(&data, 64, 2, 1)), &whole) > 1e-3, "{structure}");
    }
}

#[test]
fn the_diagonal_and_the_evidence_are_those_of_the_full_matrix_and_of_all_scored_tokens() {
    if !f64_or_skip("diagonal of texts") {
        return;
    }
    let (model, data) = (mistral(), texts(VOCABULARY));
    let (full, diagonal) = (
        fit(&model, &data, &sampled(CurvatureStructure::Full, 2, 5)),
        fit(&model, &data, &sampled(CurvatureStructure::Diagonal, 2, 5)),
    );
    let CurvatureSums::Diagonal(sums) = &diagonal.sums else { panic!("the diagonal was asked for") };
    let found: Array1<f64> = sums.iter().flat_map(|sum| sum.kept.iter().copied()).collect();
    assert!(relative_error(&found, &full_matrix(&full).diag().to_owned()) < 1e-10); // the same draws, summed in another way
    // one backward pass a draw and text, whatever its number of tokens
    let cost = estimate_cost(&model, &data, &sampled(CurvatureStructure::Diagonal, 2, 5)).unwrap();
    assert_eq!(cost.network_rows, 2 * data.len() as u64);
    let scores: f64 = crate::support::logits(&model, &data).sum();
    for curvature in [&full, &diagonal] {
        assert!((curvature.log_likelihood.unwrap() - scores).abs() < 1e-10); // a sum of 7
        assert_eq!(curvature.n_data, data.len());
    }
    let laplace = Laplace::new(&model, &diagonal, &LaplaceConfig::default()).unwrap();
    let precision = laplace.prior_precisions().of(0);
    let scatter: f64 = laplace.map().values().map(|w| w.mapv(|v| v * v).sum()).sum();
    let by_hand =
        scores - 0.5 * precision.value() * scatter - 0.5 * found.mapv(|e| (e / precision.value()).ln_1p()).sum();
    let evidence = laplace.log_marginal_likelihood(precision).unwrap();
    assert!((evidence / by_hand - 1.0).abs() < 1e-10, "{evidence} {by_hand}"); // the same sum
}

#[test]
fn the_empirical_fisher_is_that_of_the_texts_own_gradients() {
    if !f64_or_skip("empirical Fisher of texts") {
        return;
    }
    let (model, data) = (mistral(), pairs());
    let config = CurvatureConfig::new(CurvatureStructure::Full).with_likelihood(NextToken);
    let found = full_matrix(&fit(&model, &data, &config.with_fisher(FisherKind::Empirical)));
    let batch = data.batch(&[0, 1, 2], &model.device(), model.dtype()).unwrap();
    let pass = probe(&model, &batch, Cotangents::Classes).unwrap();
    let parts: Vec<Array2<f64>> = pass
        .sites
        .iter()
        .map(|site| {
            let jacobians = site.jacobians().unwrap();
            let width = jacobians.len() / 3;
            jacobians.into_shape_with_order((3, width)).unwrap()
        })
        .collect();
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    let j = ndarray::concatenate(Axis(1), &views).unwrap();
    assert!(relative_error(&found, &j.t().dot(&j)) < 1e-10); // the same products
}

#[test]
fn shards_merge_to_the_sums_of_the_whole_in_every_structure() {
    if !f64_or_skip("shards of texts") {
        return;
    }
    small_models().into_iter().for_each(|model| check_shards(&model));
}

fn check_shards(model: &TextModel) {
    let data = texts(VOCABULARY);
    let part = |remainder: usize| TextDataset {
        examples: data.examples.iter().skip(remainder).step_by(2).cloned().collect(),
        ..data.clone()
    };
    let covariance = |curvature: &Curvature| {
        let laplace = Laplace::new(model, curvature, &LaplaceConfig::default()).unwrap();
        let batch = data.batch(&[0, 1, 2, 3], &model.device(), model.dtype()).unwrap();
        let projections = laplace.project(&probe(model, &batch, Cotangents::Classes).unwrap()).unwrap();
        laplace.covariance(&projections, laplace.prior_precisions()).unwrap()
    };
    for structure in CurvatureStructure::ALL {
        let config = sampled(structure, 2, 3).with_dense_limit(1000);
        let whole = fit(model, &data, &config);
        let merged = if structure == CurvatureStructure::Ekfac {
            let first = sampled(CurvatureStructure::Kronecker, 2, 3).with_dense_limit(1000);
            let factors = fit(model, &part(0), &first).merge(fit(model, &part(1), &first)).unwrap();
            let correct = |data| correct_eigenvalues(model, data, &factors, &Control::silent()).unwrap();
            correct(&part(0)).merge(correct(&part(1))).unwrap()
        } else {
            fit(model, &part(0), &config).merge(fit(model, &part(1), &config)).unwrap()
        };
        let log_likelihoods = [&whole, &merged].map(|curvature| curvature.log_likelihood.unwrap());
        assert!((log_likelihoods[0] - log_likelihoods[1]).abs() < 1e-10);
        // through eigendecompositions of sums in another order
        let error = relative_error(&covariance(&merged), &covariance(&whole));
        assert!(error < 1e-7, "{structure}: {error:e}");
        // the same text twice is refused
        assert!(fit(model, &part(0), &config).merge(fit(model, &part(0), &config)).is_err());
    }
}

#[test]
fn low_rank_factors_of_texts_at_full_rank_are_the_dense_ones() {
    if !f64_or_skip("low rank of texts") {
        return;
    }
    let (model, data) = (mistral(), texts(VOCABULARY));
    let dense = sampled(CurvatureStructure::Kronecker, 2, 3).with_dense_limit(1000);
    let low = dense.clone().with_dense_limit(8).with_low_rank(64);
    let evidence = |config: &CurvatureConfig| {
        let laplace = Laplace::new(&model, &fit(&model, &data, config), &LaplaceConfig::default()).unwrap();
        laplace.log_marginal_likelihood(laplace.prior_precisions()).unwrap()
    };
    assert!((evidence(&low) / evidence(&dense) - 1.0).abs() < 1e-8); // two decompositions of one matrix
}

#[test]
fn what_has_no_meaning_for_texts_is_refused_by_name() {
    let (model, data) = (mistral(), texts(VOCABULARY));
    let error =
        |config: CurvatureConfig| fit_curvature(&model, &data, &config, &Control::silent()).unwrap_err().to_string();
    let plain = CurvatureConfig::default().with_likelihood(NextToken);
    let exact = error(plain);
    assert!(exact.contains("next-token") && exact.contains("Sampled") && exact.contains("token"), "{exact}");
    for treatment in [TokenTreatment::Reduce, TokenTreatment::Last] {
        let found = error(sampled(CurvatureStructure::Kronecker, 1, 0).with_treatment(treatment));
        assert!(found.contains(&format!("{treatment:?}")) && found.contains("Expand"), "{found}");
    }
    // a categorical likelihood of texts
    let found = error(CurvatureConfig::default());
    assert!(found.contains("`text-") && found.contains("NextToken"), "{found}");
}
