//! Questions answered by continuations.

use super::{ROUNDING, check_jacobians, check_sums, continuation_cases, dense, exact};
use crate::support::{FIXTURES, Fixture, central_difference, host, logits, relative_error};
use bayes_lora::belief::softmax;
use bayes_lora::curvature::{Cotangents, FisherKind, SiteProbe, TokenTreatment};
use bayes_lora::likelihood::categorical_fisher;
use bayes_lora::lora::{read_adapter, write_adapter};
use bayes_lora::predict::Predictive;
use burn::tensor::DType;
use ndarray::{Array1, Array2, Array4, s};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

#[test]
fn continuations_respect_the_class_mask_and_do_not_depend_on_their_batch() {
    for case in continuation_cases("continuations") {
        let (name, data) = (case.fixture.name, &case.fixture.train);
        for treatment in [TokenTreatment::Expand, TokenTreatment::Reduce] {
            for fisher in [FisherKind::Exact, FisherKind::Sampled { n: 2, seed: 3 }, FisherKind::Empirical] {
                check_sums(&case, &exact(treatment).with_fisher(fisher));
            }
        }
        let posterior = case.laplace(&case.fit(&exact(TokenTreatment::Reduce)), 1.0);
        for how in [Predictive::Map, Predictive::Sampled { n_samples: 3, seed: 0 }, Predictive::default()] {
            let [one, many] = [1, 7].map(|items| case.predict(&posterior, data, how, items, 1));
            assert!(relative_error(&one.probabilities, &many.probabilities) < ROUNDING, "{name} {how:?}");
            let (_, covariance) = many.belief.moments();
            for (i, item) in data.items.iter().enumerate() {
                assert_eq!(many.probabilities[[i, 3]] == 0.0, item.n_choices == 3);
                assert!((many.probabilities.row(i).sum() - 1.0).abs() < 1e-12); // rounding of four terms
                if item.n_choices == 3 {
                    assert!(covariance.slice(s![i, 3, ..]).iter().all(|v| *v == 0.0));
                }
            }
        }
    }
}

#[test]
fn jacobians_of_continuations_equal_central_differences_choice_by_choice() {
    for case in continuation_cases("continuation Jacobians") {
        let (name, data) = (case.fixture.name, &case.fixture.test);
        let together = case.pass(Cotangents::Classes);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for site in &together.sites {
            let jacobians = site.jacobians().unwrap();
            let (_, choices, rows, columns) = jacobians.dim();
            assert_eq!(choices, 4);
            let scale = jacobians.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(scale > 0.0, "{name} {} has no gradient", site.site);
            for _ in 0..2 {
                let at = [rng.random_range(0..rows), rng.random_range(0..columns)];
                let expected = central_difference(&case.model, data, &site.site, at);
                for ((i, c), expected) in expected.indexed_iter() {
                    let found = jacobians[[i, c, at[0], at[1]]];
                    if c >= data.items[i].n_choices {
                        assert_eq!(found, 0.0, "a choice that is not there has a gradient");
                    } else {
                        let error = (found - expected).abs() / scale;
                        println!("{} {i} {c} {found} {expected}", site.site);
                        assert!(error < 1e-7, "{name} {} item {i} class {c}: {error:e}", site.site); // see support
                    }
                }
            }
        }
        // a choice alone, as an item of its own, has the same logit and the same gradients
        let mut alone = data.clone();
        alone.items.iter_mut().for_each(|item| (item.rows, item.n_choices) = (vec![item.rows[2].clone()], 1));
        let alone = case.pass_over(&alone, Cotangents::Classes);
        assert!(relative_error(&alone.logits.column(0).to_owned(), &together.logits.column(2).to_owned()) < ROUNDING);
        check_jacobians(&alone, &together, |whole| whole.slice_move(s![.., 2..3, .., ..]), name);
    }
}

/// The sums of `design/laplace.md` for continuations, written as loops: `Expand` takes every row by itself, `Reduce` the
/// item's mean input and each row's summed gradient under the whole Λ.
fn naive_sums(site: &SiteProbe, probabilities: &Array2<f64>, treatment: TokenTreatment) -> [Array2<f64>; 2] {
    let (x, g): (Array4<f64>, Array4<f64>) = (host(site.inputs.clone()), host(site.gradients.clone()));
    let (items, rows, tokens, d_in) = x.dim();
    let d_out = g.dim().3;
    let (mut a, mut b) = (Array2::<f64>::zeros((d_in, d_in)), Array2::<f64>::zeros((d_out, d_out)));
    let outer = |u: &Array1<f64>, v: &Array1<f64>| Array2::from_shape_fn((u.len(), v.len()), |(i, j)| u[i] * v[j]);
    for item in 0..items {
        let fisher = categorical_fisher(probabilities.row(item));
        let (mut input_sum, mut n) = (Array1::<f64>::zeros(d_in), 0.0f64);
        let mut sums = vec![Array1::<f64>::zeros(d_out); rows];
        for (r, t) in (0..rows).flat_map(|r| (0..tokens).map(move |t| (r, t))) {
            if !site.mask[[item, r, t]] {
                continue;
            }
            let input = x.slice(s![item, r, t, ..]).to_owned();
            let gradient = g.slice(s![item, r, t, ..]).to_owned();
            if treatment == TokenTreatment::Expand {
                a += &outer(&input, &input);
                b += &(outer(&gradient, &gradient) * fisher[[r, r]]);
            }
            input_sum += &input;
            sums[r] += &gradient;
            n += 1.0;
        }
        if treatment == TokenTreatment::Reduce {
            let mean = input_sum / n;
            a += &outer(&mean, &mean);
            for (c, e) in (0..rows).flat_map(|c| (0..rows).map(move |e| (c, e))) {
                b += &(outer(&sums[c], &sums[e]) * fisher[[c, e]]);
            }
        }
    }
    [a, b]
}

#[test]
fn sums_of_continuations_equal_the_naive_loops() {
    for case in continuation_cases("naive sums") {
        let (name, data) = (case.fixture.name, &case.fixture.train);
        let together = case.pass(Cotangents::Classes);
        let probabilities = softmax(together.logits.view());
        for treatment in [TokenTreatment::Expand, TokenTreatment::Reduce] {
            let found = case.fit(&exact(treatment));
            assert_eq!((found.n_data, found.kronecker_factors().unwrap()[0].n_vectors), (data.len(), data.n_tokens()));
            for (factors, site) in found.kronecker_factors().unwrap().iter().zip(&together.sites) {
                let [a, g] = naive_sums(site, &probabilities, treatment);
                for (found, expected) in [(&factors.activation, a), (&factors.gradient, g)] {
                    let error = relative_error(&dense(found), &expected);
                    assert!(error < ROUNDING, "{name} {treatment:?} {}: {error:e}", factors.site);
                }
            }
        }
    }
}

#[test]
fn a_moved_adapter_moves_the_logits() {
    // guards the finite differences above: had write_adapter no effect, every derivative would be zero
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32);
    let weights = read_adapter(&model).unwrap().into_iter().map(|(site, w)| (site, w * 2.0));
    let moved = write_adapter(model.clone(), &weights.collect()).unwrap();
    let (before, after) = (logits(&model, &fixture.test), logits(&moved, &fixture.test));
    assert!(relative_error(&after, &before) > 0.01); // far above f32 rounding
}
