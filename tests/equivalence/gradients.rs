//! Which gradients are taken, and which classes have a say.

use super::{ROUNDING, at_rank, batches_of, cases, covariance, dense, difference, exact, question_cases};
use crate::support::relative_error;
use bayes_lora::belief::LinkApprox;
use bayes_lora::belief::contrasts_to_classes;
use bayes_lora::curvature::{Cotangents, FisherKind, TokenTreatment};
use bayes_lora::predict::Predictive;
use ndarray::{Array1, Array2, Array3, s};

#[test]
fn contrasts_say_what_classes_say_about_differences() {
    for case in question_cases("contrasts") {
        for config in [exact(TokenTreatment::Expand), at_rank(TokenTreatment::Expand, 8, 3)] {
            let posterior = case.laplace(&case.fit(&config), 1.0);
            let by = |of| covariance(&posterior, &case.pass(of));
            let (classes, contrasts) = (by(Cotangents::Classes), by(Cotangents::Contrasts));
            let expected = Array3::from_shape_fn(contrasts.dim(), |(i, a, b)| {
                classes[[i, a + 1, b + 1]] - classes[[i, a + 1, 0]] - classes[[i, 0, b + 1]] + classes[[i, 0, 0]]
            });
            let error = relative_error(&contrasts, &expected);
            assert!(error < ROUNDING, "{}, {config:?}: {error:e}", case.fixture.name);
            let padded = contrasts_to_classes(contrasts.view());
            assert!(padded.slice(s![.., 0, ..]).iter().chain(padded.slice(s![.., .., 0]).iter()).all(|v| *v == 0.0));
            assert_eq!(padded.slice(s![.., 1.., 1..]), contrasts);
        }
    }
}

#[test]
fn sampled_labels_average_to_the_exact_sums() {
    for case in question_cases("sampled labels") {
        let name = case.fixture.name;
        // two numbers of every gradient sum: its trace, and uᵀGu for one direction
        let numbers = |fisher| -> Array1<f64> {
            let config = exact(TokenTreatment::Expand).with_fisher(fisher).with_limits(batches_of(12));
            let curvature = case.fit(&config);
            let sums = curvature.kronecker_factors().unwrap().iter().map(|f| dense(&f.gradient));
            let pair = |g: Array2<f64>| {
                let u = Array1::from_shape_fn(g.nrows(), |i| (1.0 + i as f64).sin());
                [g.diag().sum(), u.dot(&g).dot(&u)]
            };
            sums.flat_map(pair).collect()
        };
        let exact = numbers(FisherKind::Exact);
        let runs: Vec<Array1<f64>> = (0..40).map(|seed| numbers(FisherKind::Sampled { n: 1, seed })).collect();
        let n = runs.len() as f64;
        let mean = runs.iter().fold(&exact * 0.0, |sum, run| sum + run) / n;
        let variance = runs.iter().fold(&exact * 0.0, |sum, run| sum + (run - &mean).mapv(|v| v * v)) / (n - 1.0);
        let sd = variance.mapv(f64::sqrt);
        let many = numbers(FisherKind::Sampled { n: 256, seed: 99 });
        for k in 0..exact.len() {
            assert!(sd[k] > 0.0, "the draws do not differ");
            // five standard errors of means over 40 and over 256 independent draws
            assert!((mean[k] - exact[k]).abs() < 5.0 * sd[k] / n.sqrt(), "{name} number {k} over seeds");
            assert!((many[k] - exact[k]).abs() < 5.0 * sd[k] / 16.0, "{name} number {k} over labels");
        }
    }
}

#[test]
fn classes_that_an_item_lacks_have_no_probability_and_no_say() {
    let mut lacking = cases("class mask", |fixture| {
        for (i, item) in fixture.train.items.iter_mut().enumerate().filter(|(_, item)| item.label != Some(3)) {
            item.n_choices = if i % 2 == 0 { 3 } else { 4 };
        }
    });
    let Some(case) = lacking.next() else { return };
    let (data, config) = (&case.fixture.train, exact(TokenTreatment::Expand));
    let alone = case.fit(&config.clone().with_limits(batches_of(1)));
    let curvature = case.fit(&config);
    assert!(difference(&alone, &curvature) < ROUNDING);
    let posterior = case.laplace(&curvature, 1.0);
    let raw = Predictive::Linearized(LinkApprox::RawProbit);
    let mut n_lacking = 0;
    for how in [Predictive::Map, Predictive::Sampled { n_samples: 4, seed: 0 }, Predictive::default(), raw] {
        let found = case.predict(&posterior, data, how, 5, 1);
        for (item, p) in data.items.iter().zip(found.probabilities.outer_iter()) {
            assert!((p.sum() - 1.0).abs() < 1e-12); // rounding of four terms
            assert_eq!(p[3] == 0.0, item.n_choices == 3, "{how:?}");
            n_lacking += usize::from(item.n_choices == 3);
        }
    }
    assert!(n_lacking > 0);
}
