//! Beliefs that are known: without noise the trained adapter, with few masks their enumeration, with one member the member.

use super::{Case, laplace, link, points};
use crate::support::{f64_or_skip, logits, relative_error};
use bayes_lora::belief::{LogitBelief, softmax};
use bayes_lora::curvature::CurvatureStructure;
use bayes_lora::data::BatchLimits;
use bayes_lora::lora::{Adaptable, AdapterSampler, AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::methods::{
    Belief, ColumnSpaceNoise, DropoutSampler, Flipout, GaussianAdapter, HeadLaplace, LaplaceMethod, Members, Method,
    NoiseOfA, NoisyBelief, OwnPointBelief, SampledBelief, TokenDropout,
};
use bayes_lora::models::{Activation, Mlp, MlpConfig, Points};
use bayes_lora::posterior::{Laplace, LaplaceConfig, LinearizedConfig, LinearizedModel};
use bayes_lora::predict::{Predictive, predict_map, predict_sampled};
use bayes_lora::prior::{PriorChoice, PriorPrecision};
use bayes_lora::progress::Control;
use bayes_lora::tape::LoraMatrix;
use burn::tensor::DType;
use ndarray::{Array1, Array2, Array3, Axis};
use std::collections::BTreeMap;
use std::sync::Arc;

const LIMITS: BatchLimits = BatchLimits { max_items: 64, max_tokens: 1000 };

fn believe(belief: &dyn Belief<Mlp, Points>, model: &Mlp, data: &Points) -> LogitBelief {
    belief.believe(model, data, &LIMITS, &Control::silent()).unwrap()
}

fn sampled<S>(sampler: S) -> SampledBelief<S> {
    SampledBelief { sampler, n_samples: 3, seed: 1, bytes: 0 }
}

/// The same values at every site that `keep` chooses.
fn constant(like: &AdapterWeights, value: f64, keep: impl Fn(LoraMatrix) -> bool) -> AdapterWeights {
    let chosen = like.iter().filter(|(site, _)| keep(site.matrix));
    chosen.map(|(site, w)| (site.clone(), w.mapv(|_| value))).collect()
}

fn flipout(weights: &AdapterWeights, sd: f64) -> Flipout {
    let of_a = constant(weights, sd, |matrix| matrix == LoraMatrix::A);
    let noise = |(site, deviations): (bayes_lora::tape::Site, _)| (site.module, NoiseOfA { frame: None, deviations });
    Flipout(Arc::new(of_a.into_iter().map(noise).collect()))
}

#[test]
fn without_noise_every_belief_is_the_trained_adapter_bit_for_bit() {
    let mut types = vec![DType::F32];
    types.extend(f64_or_skip("zero noise in f64").then_some(DType::F64));
    for dtype in types {
        let Case { base, mut map, recipe, test, .. } = points(dtype);
        map.linears_mut().into_iter().for_each(|linear| linear.adapter.as_mut().unwrap().dropout = 0.0);
        let weights = read_adapter(&map).unwrap();
        let other = attach(base, &recipe.lora, 99).unwrap();
        let expected = logits(&map, &test);
        assert_ne!(logits(&other, &test), expected);
        let zeros = constant(&weights, 0.0, |_| true);
        let gaussian = |sd: AdapterWeights, columns| GaussianAdapter::new(weights.clone(), sd, columns).unwrap();
        let noisy = |adapter| NoisyBelief { adapter, noise: flipout(&weights, 0.0), n_samples: 3, seed: 1, bytes: 0 };
        let p_of_none = BTreeMap::from([("layers.0".to_string(), 0.0)]);
        let dropout = NoisyBelief { adapter: None, noise: TokenDropout, n_samples: 3, seed: 1, bytes: 0 };
        type AnyBelief = Box<dyn Belief<Mlp, Points>>;
        let beliefs: Vec<(&str, &Mlp, AnyBelief)> = vec![
            ("no deviations", &other, Box::new(sampled(gaussian(AdapterWeights::new(), Vec::new())))),
            ("deviations of 0", &other, Box::new(sampled(gaussian(zeros.clone(), vec![zeros.clone()])))),
            ("no masks", &other, Box::new(sampled(DropoutSampler::new(weights.clone(), p_of_none)))),
            ("no dropout per token", &map, Box::new(dropout)),
            ("Flipout at the model's adapter", &map, Box::new(noisy(None))),
            ("Flipout at an adapter of its own", &other, Box::new(noisy(Some(weights.clone())))),
            ("one member", &other, Box::new(sampled(Members::new(vec![weights.clone()]).unwrap()))),
            ("equal members", &other, Box::new(sampled(Members::new(vec![weights.clone(); 3]).unwrap()))),
            (
                "no noise in B's columns",
                &other,
                Box::new(sampled(ColumnSpaceNoise::new(weights.clone(), 0.0).unwrap())),
            ),
            ("a point of its own", &other, Box::new(OwnPointBelief { adapter: weights.clone() })),
        ];
        for (what, model, belief) in &beliefs {
            let found = believe(&**belief, model, &test);
            match &found {
                LogitBelief::Point { logits } => assert_eq!(*logits, expected, "{what}, {dtype:?}"),
                LogitBelief::Samples { logits, .. } => {
                    assert!(logits.outer_iter().all(|draw| draw == expected), "{what}, {dtype:?}");
                }
                LogitBelief::Gaussian { .. } => panic!("{what} is a Gaussian over logits"),
            }
            let error = relative_error(&found.probabilities(link()).unwrap(), &softmax(expected.view()));
            // an average of equal numbers: a few ulp
            assert!(error < 1e-12, "{what}: {error:e}");
        }
        // noise makes a difference in each kind of belief
        for belief in [
            &sampled(gaussian(constant(&weights, 0.1, |_| true), Vec::new())) as &dyn Belief<Mlp, Points>,
            &NoisyBelief { adapter: None, noise: flipout(&weights, 0.1), n_samples: 3, seed: 1, bytes: 0 },
        ] {
            let LogitBelief::Samples { logits, .. } = believe(belief, &map, &test) else { panic!("no draws") };
            assert!(logits.outer_iter().all(|draw| draw != expected));
        }
    }
}

#[test]
fn a_prior_that_allows_nothing_leaves_the_answers_of_the_trained_adapter() {
    if !f64_or_skip("a prior without width") {
        return;
    }
    let case = points(DType::F64);
    let control = Control::silent();
    let expected = softmax(logits(&case.map, &case.test).view());
    let probabilities = |precision: f64| {
        let precision = Some(PriorPrecision::new(precision).unwrap());
        let config = LaplaceConfig::default().with_prior(precision.map_or(PriorChoice::Evidence, PriorChoice::Fixed));
        let laplace = laplace(CurvatureStructure::Kronecker).with_laplace(config);
        let head = HeadLaplace::default().with_prior_precision(precision);
        let fitted = [laplace.fit(&case.context(1, &control)), head.fit(&case.context(1, &control))];
        fitted.map(|fitted| {
            let belief = fitted.unwrap().belief;
            believe(&*belief, &case.map, &case.test).probabilities(belief.link()).unwrap()
        })
    };
    // the variance of a logit is some units over λ
    assert!(probabilities(1e15).iter().all(|p| relative_error(p, &expected) < 1e-12));
    assert!(probabilities(1.0).iter().all(|p| relative_error(p, &expected) > 1e-4));
}

#[test]
fn priors_and_temperatures_from_the_training_items_are_those_of_the_linearised_model() {
    if !f64_or_skip("priors of the linearised model") {
        return;
    }
    let case = points(DType::F64);
    let control = Control::silent();
    let found = |method: LaplaceMethod| method.fit(&case.context(1, &control)).unwrap().found;
    let kronecker = laplace(CurvatureStructure::Kronecker);
    let curvature = &case.curvatures.iter().find(|(config, _)| *config == kronecker.curvature).unwrap().1;
    let fixed = kronecker.laplace.with_prior_precision(PriorPrecision::new(1.0).unwrap());
    let posterior = Laplace::new(&case.map, curvature, &fixed).unwrap();
    let config = LinearizedConfig::default().with_limits(LIMITS);
    let linearized = LinearizedModel::of(&case.map, &posterior, &case.train, &config, &control).unwrap();
    let at_mode = linearized.optimal_prior().unwrap().precisions.of(0).value();
    let precision = |prior| found(kronecker.clone().with_prior(prior))["prior precision"];
    assert!((precision(PriorChoice::EvidenceAtMode) / at_mode - 1.0).abs() < 1e-9); // batches in parallel
    let matched = linearized.matched_prior().unwrap().usable().unwrap();
    assert!((precision(PriorChoice::Matched) / matched.precisions.of(0).value() - 1.0).abs() < 1e-9);
    assert!((precision(PriorChoice::Evidence) / at_mode - 1.0).abs() > 0.01);
    let answers = linearized.leave_one_out(&matched.mode).unwrap().answer_temperatures().unwrap();
    let tempered = found(kronecker.clone().with_leave_one_out_temperature());
    assert!((tempered["inverse temperature, network"] / answers.network.value - 1.0).abs() < 1e-9);
    assert!((tempered["inverse temperature, posterior"] / answers.posterior.value - 1.0).abs() < 1e-6); // a golden section

    // and they act on answers, whichever way these are made
    let limits = LIMITS;
    let of = |method: LaplaceMethod| {
        let fitted = method.fit(&case.context(1, &control)).unwrap();
        fitted.belief.believe(&case.map, &case.test, &limits, &control).unwrap()
    };
    let over_cores = laplace(CurvatureStructure::Core);
    let refused = over_cores.clone().with_leave_one_out_temperature().fit(&case.context(1, &control)).err().unwrap();
    assert!(refused.to_string().contains("no leave-one-out temperature over cores"), "{refused}");
    let fallen =
        over_cores.clone().with_laplace(LaplaceConfig::without_labels()).fit(&case.context(1, &control)).unwrap();
    assert_eq!(fallen.found["prior precision"], found(over_cores)["prior precision"]);
    let remark = fallen.searches[0].remark().unwrap();
    assert!(remark.contains("by evidence, as none is matched: a core lies"), "{remark}");

    let plain = predict_map(&case.map, &case.test, &limits, &control).unwrap();
    let network = of(kronecker.clone().with_leave_one_out_temperature().with_predictive(Predictive::Map));
    assert!(relative_error(&network.moments().0, &plain.tempered(answers.network.value).moments().0) < 1e-9);
    for predictive in [Predictive::default(), Predictive::Sampled { n_samples: 3, seed: 1 }] {
        let cold = of(kronecker.clone().with_prior(PriorChoice::Matched).with_predictive(predictive));
        let warm = of(kronecker.clone().with_leave_one_out_temperature().with_predictive(predictive));
        let expected = cold.tempered(answers.posterior.value);
        assert!(relative_error(&warm.moments().0, &expected.moments().0) < 1e-6, "{predictive:?}");
        assert!(relative_error(&warm.moments().1, &expected.moments().1) < 1e-6, "{predictive:?}");
    }
}

#[test]
fn an_ensemble_is_the_average_of_its_members_in_any_order() {
    if !f64_or_skip("ensembles") {
        return;
    }
    let Case { map, snapshots, test, .. } = points(DType::F64);
    let members: Vec<AdapterWeights> = snapshots.into_iter().map(|snapshot| snapshot.weights).collect();
    let probabilities = |members: Vec<AdapterWeights>| {
        let belief = believe(&sampled(Members::new(members).unwrap()), &map, &test);
        (belief.probabilities(link()).unwrap(), belief.decompose(link()).unwrap())
    };
    let (p, entropy) = probabilities(members.clone());
    let each = members.iter().map(|w| softmax(logits(&write_adapter(map.clone(), w).unwrap(), &test).view()));
    let average = each.fold(Array2::zeros(p.dim()), |sum, one| sum + one / 3.0);
    assert!(relative_error(&p, &average) < 1e-12);
    // an average of logits would be something else
    let logit = |w: &AdapterWeights| logits(&write_adapter(map.clone(), w).unwrap(), &test) / 3.0;
    let of_logits = members.iter().map(logit).fold(Array2::zeros(p.dim()), |sum, one| sum + one);
    assert!(relative_error(&p, &softmax(of_logits.view())) > 1e-6);
    for order in [[1, 2, 0], [2, 1, 0]] {
        let (other, of_other) = probabilities(order.map(|k| members[k].clone()).to_vec());
        assert!(relative_error(&other, &p) < 1e-12);
        assert!(relative_error(&of_other.total, &entropy.total) < 1e-12);
        assert!(relative_error(&of_other.expected, &entropy.expected) < 1e-12);
    }
}

/// A linear layer with an adapter, points of 4 features, and p.
fn linear_layer() -> (Mlp, Mlp, Points, f64, f64) {
    let config = MlpConfig::new([4, 3]).with_activation(Activation::Identity).with_dtype(DType::F64);
    let base = config.init(&crate::support::device()).unwrap();
    let lora = LoraConfig::new(2).with_alpha(3.0).with_dropout(0.25);
    let model = attach(base.clone(), &lora, 1).unwrap();
    let mut weights = read_adapter(&model).unwrap();
    for (site, w) in &mut weights {
        let shift = if site.matrix == LoraMatrix::A { 1 } else { 4 };
        w.indexed_iter_mut().for_each(|((i, j), v)| *v = ((3 * i + 5 * j + shift) % 7) as f64 / 4.0 - 0.8);
    }
    let features = Array2::from_shape_fn((3, 4), |(i, j)| ((i * 5 + j * 3) % 8) as f64 / 2.0 - 1.5);
    let data = Points::new(features, Vec::new()).unwrap();
    (base, write_adapter(model, &weights).unwrap(), data, lora.scale("layers.0").unwrap(), 0.25)
}

#[test]
fn enumerated_masks_give_the_expectation_and_the_covariance_of_dropout() {
    if !f64_or_skip("enumerated masks") {
        return;
    }
    let (base, model, data, scale, p) = linear_layer();
    let weights = read_adapter(&model).unwrap();
    let sampler = DropoutSampler::new(weights.clone(), BTreeMap::from([("layers.0".to_string(), p)]));
    let n_masks = 1usize << 4;
    let kept = |pattern: usize, j: usize| pattern >> j & 1 == 1;
    let mask = |pattern: usize| Array1::from_shape_fn(4, |j| if kept(pattern, j) { 1.0 / (1.0 - p) } else { 0.0 });
    let draw = |k: u64| {
        Ok(sampler.masked(|module, width, found| {
            assert_eq!((module, width, found), ("layers.0", 4, p));
            mask(k as usize)
        }))
    };
    let belief = predict_sampled(&model, &data, draw, n_masks, &LIMITS, &Control::silent()).unwrap();
    let LogitBelief::Samples { logits: drawn, .. } = belief else { panic!("no draws") };
    let probability = |pattern: usize| -> f64 { (0..4).map(|j| if kept(pattern, j) { 1.0 - p } else { p }).product() };
    let log_weights = Array1::from_shape_fn(n_masks, |pattern| probability(pattern).ln());
    let belief = LogitBelief::Samples { logits: drawn, log_weights };

    // by hand
    let matrix = |wanted| weights.iter().find(|(site, _)| site.matrix == wanted).map(|(_, w)| w).unwrap();
    let (a, b) = (matrix(LoraMatrix::A), matrix(LoraMatrix::B));
    let frozen = logits(&base, &data);
    let mut expected = Array2::<f64>::zeros((3, 3));
    for pattern in 0..n_masks {
        let masked = &data.features * &mask(pattern);
        let y = &frozen + scale * masked.dot(&a.t()).dot(&b.t());
        expected = expected + probability(pattern) * softmax(y.view());
    }
    let found = belief.probabilities(link()).unwrap();
    assert!(relative_error(&found, &expected) < 1e-12);
    let of_map = softmax(logits(&model, &data).view());
    assert!(relative_error(&found, &of_map) > 0.01);

    let (mean, covariance) = belief.moments();
    assert!(relative_error(&mean, &logits(&model, &data)) < 1e-12);
    let mut formula = Array3::<f64>::zeros((3, 3, 3));
    for (n, x) in data.features.outer_iter().enumerate() {
        // s² p/(1 − p) · B A diag(x∘x) Aᵀ Bᵀ
        let ba = b.dot(a) * x;
        formula.index_axis_mut(Axis(0), n).assign(&(scale * scale * p / (1.0 - p) * ba.dot(&ba.t())));
    }
    assert!(relative_error(&covariance, &formula) < 1e-12);
    assert!(formula.iter().any(|v| *v > 0.1));
}

#[test]
fn drawn_masks_are_among_the_enumerated_ones_with_their_frequency() {
    let (_, model, _, _, p) = linear_layer();
    let weights = read_adapter(&model).unwrap();
    let sampler = DropoutSampler::new(weights.clone(), BTreeMap::from([("layers.0".to_string(), p)]));
    let (n, mut dropped) = (2000, 0);
    for index in 0..n {
        let drawn = sampler.draw(9, index).unwrap();
        for (site, w) in &drawn {
            if site.matrix == LoraMatrix::B {
                assert_eq!(*w, weights[site]);
                continue;
            }
            for (column, of_map) in w.columns().into_iter().zip(weights[site].columns()) {
                let factor = column.sum() / of_map.sum();
                // the factor is held in f32
                let known = factor == 0.0 || (factor * (1.0 - p) - 1.0).abs() < 1e-6;
                assert!(known, "factor {factor}");
                dropped += usize::from(factor == 0.0);
            }
        }
    }
    let count = 4.0 * n as f64;
    let error = (p * (1.0 - p) / count).sqrt();
    assert!((dropped as f64 / count - p).abs() < 5.0 * error);
}
