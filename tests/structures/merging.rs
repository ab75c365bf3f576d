//! Sums over shards of the data are the sums over all of it.

use super::{ALGEBRA, adapted_for, cases, config, covariance, fixed, jacobians};
use crate::support::{FIXTURES, continuation_dataset, device, relative_error};
use bayes_lora::curvature::{
    AdapterSubset, Curvature, CurvatureConfig, CurvatureStructure, FactorSum, FisherKind, TokenTreatment,
    correct_eigenvalues, estimate_cost, fit_curvature,
};
use bayes_lora::data::{BatchLimits, EncodedDataset};
use bayes_lora::likelihood::Gaussian;
use bayes_lora::lora::{LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{MlpConfig, Points, PromptClassifier};
use bayes_lora::posterior::Laplace;
use bayes_lora::progress::Control;
use ndarray::Array2;

fn fit(model: &PromptClassifier, data: &EncodedDataset, config: &CurvatureConfig) -> Curvature {
    fit_curvature(model, data, config, &Control::silent()).unwrap()
}

fn shard(data: &EncodedDataset, keep: impl Fn(usize) -> bool) -> EncodedDataset {
    let mut shard = data.clone();
    shard.items = data.items.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, item)| item.clone()).collect();
    shard
}

/// Three shards, one of them in reverse, in other batches.
fn shards(data: &EncodedDataset) -> Vec<EncodedDataset> {
    let mut all: Vec<_> =
        (0..3).map(|k| shard(data, |i| (i * i + i / 2) % 3 == k)).filter(|s| !s.items.is_empty()).collect();
    all[0].items.reverse();
    all
}

#[test]
fn merged_shards_give_the_posterior_of_all_data() {
    for (fixture, _) in cases("merging") {
        for data in [fixture.train.clone(), continuation_dataset()] {
            let model = adapted_for(&fixture, &data);
            let test = jacobians(&model, &data);
            let fishers = [FisherKind::Exact, FisherKind::Sampled { n: 3, seed: 5 }, FisherKind::Empirical];
            for (structure, fisher) in CurvatureStructure::ALL.into_iter().flat_map(|s| fishers.map(|f| (s, f))) {
                // eigenvalues of matrices of width 1,856 take seconds each
                if structure == CurvatureStructure::Full && fixture.name != FIXTURES[0] {
                    continue;
                }
                let whole = config(structure).with_fisher(fisher);
                let small = whole.clone().with_limits(BatchLimits { max_items: 3, max_tokens: 1000 });
                let all = fit(&model, &data, &whole);
                let merged = match structure {
                    // shards of EKFAC share the bases of their merged factors
                    CurvatureStructure::Ekfac => {
                        let factors = |data: &EncodedDataset| {
                            fit(&model, data, &small.clone().with_structure(CurvatureStructure::Kronecker))
                        };
                        let bases = shards(&data).iter().map(factors).reduce(|a, b| a.merge(b).unwrap()).unwrap();
                        let second = |data| correct_eigenvalues(&model, data, &bases, &Control::silent()).unwrap();
                        shards(&data).iter().map(second).reduce(|a, b| a.merge(b).unwrap()).unwrap()
                    }
                    _ => {
                        let parts = shards(&data).into_iter().map(|shard| fit(&model, &shard, &small));
                        parts.reduce(|a, b| a.merge(b).unwrap()).unwrap()
                    }
                };
                assert_eq!(merged.n_data, all.n_data);
                let likelihoods = (merged.log_likelihood.unwrap(), all.log_likelihood.unwrap());
                assert!((likelihoods.0 / likelihoods.1 - 1.0).abs() < 1e-10); // rounding of another order
                let [merged, all] = [merged, all].map(|c| Laplace::new(&model, &c, &fixed(0.5)).unwrap());
                let error = relative_error(&covariance(&merged, &test, 0.5), &covariance(&all, &test, 0.5));
                assert!(error < ALGEBRA, "{} {structure} {fisher:?}: {error:e}", fixture.name);
            }
        }
    }
}

#[test]
fn low_rank_sums_merge_within_the_discarded_trace() {
    for (fixture, model) in cases("low rank merging") {
        let cut = config(CurvatureStructure::Kronecker).with_dense_limit(0).with_low_rank(4);
        let whole = fit(&model, &fixture.train, &config(CurvatureStructure::Kronecker));
        let merged = shards(&fixture.train).into_iter().map(|shard| fit(&model, &shard, &cut));
        let merged = merged.reduce(|a, b| a.merge(b).unwrap()).unwrap();
        for (low, full) in merged.kronecker_factors().unwrap().iter().zip(whole.kronecker_factors().unwrap()) {
            for (low, full) in [(&low.activation, &full.activation), (&low.gradient, &full.gradient)] {
                use bayes_lora::curvature::FactorSum::{Dense, LowRank};
                let (LowRank(low), Dense(full)) = (low, full) else { continue };
                let error = full - &low.factor.dot(&low.factor.t());
                // what is missing is semi-definite, and its trace is what was discarded: that bounds its norm
                let trace = error.diag().sum();
                assert!((trace - low.discarded_trace).abs() < 1e-9 * full.diag().sum());
                let norm = error.iter().map(|v| v * v).sum::<f64>().sqrt();
                assert!(norm <= low.discarded_trace + 1e-9 * full.diag().sum());
            }
        }
    }
}

#[test]
fn sums_with_other_settings_refuse_to_merge_and_name_the_difference() {
    for (fixture, model) in cases("refused merges").take(1) {
        let base = config(CurvatureStructure::Kronecker);
        let others = [
            ("structure", config(CurvatureStructure::Diagonal)),
            ("subset", base.clone().with_subset(AdapterSubset::OnlyA)),
            ("fisher", base.clone().with_fisher(FisherKind::Empirical)),
            ("treatment", base.clone().with_treatment(TokenTreatment::Last)),
            ("likelihood.name", base.clone().with_likelihood(Gaussian { noise_variance: 1.0 })),
            ("low_rank", base.clone().with_low_rank(3)),
        ];
        let own = fit(&model, &fixture.train, &base);
        for (name, other) in others {
            let error = own.clone().merge(fit(&model, &fixture.train, &other)).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} is")), "{name}: {error}");
        }
    }
}

#[test]
fn the_estimate_is_what_the_sums_take_and_a_plan_above_the_limit_is_refused() {
    for (fixture, model) in cases("estimate") {
        for structure in CurvatureStructure::ALL {
            let config = config(structure);
            let cost = estimate_cost(&model, &fixture.train, &config).unwrap();
            let curvature = fit(&model, &fixture.train, &config);
            // bases of cores and of EKFAC come on top of its sums
            let found = curvature.bytes() as u64;
            assert!(
                found as f64 / cost.bytes as f64 > 0.5 && (found as f64) < 2.0 * cost.bytes as f64,
                "{} {structure}: {found} bytes, {} foretold",
                fixture.name,
                cost.bytes
            );
            let tight = config.with_memory_limit(cost.bytes - 1);
            let error = fit_curvature(&model, &fixture.train, &tight, &Control::silent()).unwrap_err().to_string();
            for number in [cost.bytes, cost.bytes - 1] {
                assert!(error.contains(&number.to_string()), "{error}");
            }
        }
    }
}

#[test]
fn low_rank_takes_over_where_decompositions_would_outlast_the_pass() {
    let fit_of = |width: usize| {
        let base = MlpConfig::new([width, 4]).init(&device()).unwrap();
        let model = attach(base, &LoraConfig::new(2), 0).unwrap();
        let data =
            Points::new(Array2::from_shape_fn((3, width), |(i, j)| ((i + j) % 5) as f64), vec![0, 1, 2]).unwrap();
        let config = config(CurvatureStructure::Kronecker);
        let curvature = fit_curvature(&model, &data, &config, &Control::silent()).unwrap();
        matches!(curvature.kronecker_factors().unwrap()[0].activation, FactorSum::Dense(_))
    };
    // three points: 25·d³ operations against a tenth of 4·4d·3·3, or of a second
    assert!(fit_of(64));
    assert!(!fit_of(1000));
}

#[test]
fn a_second_pass_at_another_adapter_is_refused() {
    for (fixture, model) in cases("other adapter").take(1) {
        let kronecker = fit(&model, &fixture.train, &config(CurvatureStructure::Kronecker));
        let mut weights = read_adapter(&model).unwrap();
        weights.values_mut().for_each(|w| w[[0, 0]] += 0.5);
        let other = write_adapter(model, &weights).unwrap();
        let error =
            correct_eigenvalues(&other, &fixture.train, &kronecker, &Control::silent()).unwrap_err().to_string();
        assert!(error.contains("at which it was fitted"), "{error}");
    }
}
