use super::*;
use crate::belief::log_softmax;
use crate::linalg::semidefinite_cholesky;
use ndarray::{arr1, arr2, concatenate};

fn example() -> (Array2<f64>, Array2<f64>) {
    let features = Array2::from_shape_fn((9, 3), |(n, j)| ((n * 7 + j * 3) % 5) as f64 / 2.0 - 0.9 + 0.1 * j as f64);
    let weights = Array2::from_shape_fn((3, 3), |(c, j)| ((c * 5 + j * 2) % 4) as f64 / 3.0 - 0.4);
    (features, weights)
}

/// `Σ_n Λ_n ⊗ h_n h_nᵀ`, weights in the order (class, feature).
fn dense_hessian(features: &Array2<f64>, p: &Array2<f64>) -> Array2<f64> {
    let (d, c) = (features.ncols(), p.ncols());
    Array2::from_shape_fn((c * d, c * d), |(i, j)| {
        let (a, b) = (i / d, j / d);
        let of = |n: usize| {
            (f64::from(a == b) * p[[n, a]] - p[[n, a]] * p[[n, b]]) * features[[n, i % d]] * features[[n, j % d]]
        };
        (0..features.nrows()).map(of).sum()
    })
}

#[test]
fn the_covariance_is_that_of_the_dense_inverse_for_many_items_and_for_few() {
    let (features, weights) = example();
    covariance_is_that_of_the_dense_inverse(&features, &weights);
    covariance_is_that_of_the_dense_inverse(&features.slice(s![..2, ..]).to_owned(), &weights);
}

fn covariance_is_that_of_the_dense_inverse(features: &Array2<f64>, weights: &Array2<f64>) {
    let p = softmax(features.dot(&weights.t()).view());
    let lambda = PriorPrecision::new(0.7).unwrap();
    let posterior = HeadPosterior::new(features.view(), &p, Some(lambda), weights).unwrap();
    let precision = dense_hessian(features, &p) + Array2::<f64>::eye(9) * 0.7;
    let eigen = eigh(precision.view()).unwrap();
    let inverse = (&eigen.vectors / &eigen.values).dot(&eigen.vectors.t());
    let tests = arr2(&[[0.3, -1.2, 2.0], [1.0, 0.0, -0.5]]);
    let found = posterior.covariance(&tests);
    for item in 0..2 {
        for (a, b) in (0..9).map(|k| (k / 3, k % 3)) {
            let jacobian =
                |class: usize| Array1::from_shape_fn(9, |i| if i / 3 == class { tests[[item, i % 3]] } else { 0.0 });
            let expected = jacobian(a).dot(&inverse.dot(&jacobian(b)));
            assert!((found[[item, a, b]] - expected).abs() < 1e-12, "{item} {a} {b}");
        }
    }
}

#[test]
fn the_prior_precision_counts_only_what_answers_depend_on() {
    let (features, weights) = example();
    let p = softmax(features.dot(&weights.t()).view());
    let found = |features: &Array2<f64>, weights: &Array2<f64>| {
        HeadPosterior::new(features.view(), &p, None, weights).unwrap().precision.value()
    };
    // without the rows' common part all of ‖θ‖² counts: three classes less one have curvature in each of three features
    let centred = &weights - &weights.mean_axis(Axis(0)).unwrap();
    let eigenvalues = eigh(dense_hessian(&features, &p).view()).unwrap().values;
    let values = eigenvalues.iter().filter(|e| **e > 1e-9).map(|e| (*e, 1.0)).collect::<Vec<_>>();
    assert_eq!(values.len(), 6);
    let expected = Spectrum { values }.maximize(centred.iter().map(|w| w * w).sum()).unwrap().precision.value();
    let near = |a: f64| (a / expected - 1.0).abs() < 1e-9;
    assert!(near(found(&features, &weights)));
    // a part that all rows share, and a feature that no item has, change nothing
    let shifted = &weights + &arr1(&[3.0, -2.0, 5.0]);
    assert!(near(found(&features, &shifted)));
    let pad = |a: &Array2<f64>, value: f64| {
        let column = Array2::from_elem((a.nrows(), 1), value);
        concatenate(Axis(1), &[a.view(), column.view()]).unwrap()
    };
    assert!(near(found(&pad(&features, 0.0), &pad(&weights, 7.0))));
}

#[test]
fn of_few_items_the_rows_count_within_their_span() {
    let (features, weights) = example();
    let features = features.slice(s![..2, ..]).to_owned();
    let p = softmax(features.dot(&weights.t()).view());
    let dense = eigh(dense_hessian(&features, &p).view()).unwrap();
    let kept: Vec<usize> = (0..9).filter(|&k| dense.values[k] > 1e-9).collect();
    assert_eq!(kept.len(), 4);
    let values = kept.iter().map(|&k| (dense.values[k], 1.0)).collect();
    let seen: f64 = kept.iter().map(|&k| dense.vectors.column(k).dot(&weights.flatten()).powi(2)).sum();
    let expected = Spectrum { values }.maximize(seen).unwrap().precision.value();
    let found = HeadPosterior::new(features.view(), &p, None, &weights).unwrap().precision.value();
    assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
}

#[test]
fn the_curvature_is_the_hessian_of_the_log_likelihood() {
    let (features, weights) = example();
    let labels = [0, 1, 2, 0, 1, 2, 0, 0, 1];
    let nll = |w: &Array2<f64>| {
        let log_p = log_softmax(features.dot(&w.t()).view());
        -labels.iter().enumerate().map(|(n, y)| log_p[[n, *y]]).sum::<f64>()
    };
    let p = softmax(features.dot(&weights.t()).view());
    let expected = dense_hessian(&features, &p);
    let spectrum = eigh(expected.view()).unwrap().values;
    let posterior = HeadPosterior::new(features.view(), &p, PriorPrecision::new(1.0).ok(), &weights).unwrap();
    // central differences with step 1e-4: error h²·f⁗/12 and rounding 1e-16/h²
    let h = 1e-4;
    for (i, j) in [(0, 0), (1, 5), (4, 8), (3, 7), (2, 2)] {
        let moved = |si: f64, sj: f64| {
            let mut w = weights.clone();
            w[[i / 3, i % 3]] += si * h;
            w[[j / 3, j % 3]] += sj * h;
            nll(&w)
        };
        let second = (moved(1.0, 1.0) - moved(1.0, -1.0) - moved(-1.0, 1.0) + moved(-1.0, -1.0)) / (4.0 * h * h);
        assert!((second - expected[[i, j]]).abs() < 1e-6, "{second} {}", expected[[i, j]]);
    }
    // the same eigenvalues among the weights and among the items
    let largest = |values: &Array1<f64>| {
        let mut values: Vec<f64> = values.to_vec();
        values.sort_by(|a, b| b.total_cmp(a));
        values
    };
    let dense = largest(&spectrum);
    for found in [&posterior.eigenvalues, &by_items(features.view(), &p).unwrap().1].map(largest) {
        for (a, b) in found.iter().zip(&dense) {
            assert!((a - b).abs() < 1e-11, "{a} {b}");
        }
        assert!(dense[found.len()..].iter().all(|e| e.abs() < 1e-11));
    }
}

#[test]
fn the_prior_precision_of_sure_answers_has_all_its_digits() {
    let (features, weights) = example();
    // a part common to all rows, of which answers say nothing, and answers with 1 − p from 1e-8 down to 1e-13
    let features = features.mapv(|v| v + 1.5);
    let weights = arr2(&[[4.0, 3.0, 5.0], [0.1, -0.4, 0.3], [-0.6, 0.2, -0.1]]) * 1.2 + weights.mapv(|w| 0.1 * w) + 7.0;
    for features in [features.clone(), features.slice(s![..2, ..]).to_owned()] {
        let p = softmax(features.dot(&weights.t()).view());
        assert!(p.column(0).iter().all(|p| 1.0 - p < 2e-8 && 1.0 - p > 0.0), "{p}");
        // Λ = Σ_{a<b} p_a p_b (e_a − e_b)(e_a − e_b)ᵀ subtracts nothing; orthonormal contrasts leave out the common direction
        let (h, k) = (0.5f64.sqrt(), 6f64.sqrt().recip());
        let contrasts = arr2(&[[h, k], [-h, k], [0.0, -2.0 * k]]);
        let mut hessian = Array2::<f64>::zeros((6, 6));
        for (n, (a, b)) in (0..features.nrows()).flat_map(|n| [(n, (0, 1)), (n, (0, 2)), (n, (1, 2))]) {
            let difference = &contrasts.row(a) - &contrasts.row(b);
            let x = Array1::from_shape_fn(6, |i| difference[i / 3] * features[[n, i % 3]]);
            let x = x.insert_axis(Axis(1));
            hessian.scaled_add(p[[n, a]] * p[[n, b]], &x.dot(&x.t()));
        }
        let eigen = eigh(hessian.view()).unwrap();
        let largest = eigen.values[5];
        let held: Vec<usize> = (0..6).filter(|&k| eigen.values[k] > 1e-12 * largest).collect();
        let rows = contrasts.t().dot(&weights).flatten().to_owned();
        let seen = held.iter().map(|&k| eigen.vectors.column(k).dot(&rows).powi(2)).sum();
        let spectrum = Spectrum { values: held.iter().map(|&k| (eigen.values[k], 1.0)).collect() };
        let expected = spectrum.maximize(seen).unwrap().precision.value();
        let posterior = HeadPosterior::new(features.view(), &p, None, &weights).unwrap();
        assert_eq!(posterior.eigenvalues.len(), held.len());
        let found = posterior.precision.value();
        // eigenvectors of the least of six values within three digits of each other: 1e-16 of the largest over the least
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
    }
}

#[test]
fn the_answers_of_two_classes_are_the_integral_over_the_posterior() {
    // rows (w₀, w₁) of two features: only δ = w₁ − w₀ answers, p(1|x) = ∫ sigmoid(δᵀx) N(δ) dδ
    let features = arr2(&[[1.0, 0.5], [-0.3, 1.2], [0.8, -1.0], [-1.1, -0.4]]);
    let weights = arr2(&[[0.4, -0.2], [-0.5, 0.9]]);
    let p = softmax(features.dot(&weights.t()).view());
    let lambda = PriorPrecision::new(0.6).unwrap();
    let posterior = HeadPosterior::new(features.view(), &p, Some(lambda), &weights).unwrap();
    let precision = dense_hessian(&features, &p) + Array2::<f64>::eye(4) * 0.6;
    let eigen = eigh(precision.view()).unwrap();
    let covariance = (&eigen.vectors / &eigen.values).dot(&eigen.vectors.t());
    let difference = arr2(&[[-1.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 1.0]]);
    let spread = difference.dot(&covariance).dot(&difference.t());
    let root = semidefinite_cholesky(spread.view()).unwrap();
    let centre = &weights.row(1) - &weights.row(0);

    let tests = arr2(&[[1.5, -0.7], [0.2, 0.3], [-2.0, 1.0]]);
    let (mean, covariance) = (tests.dot(&weights.t()), posterior.covariance(&tests));
    let belief = LogitBelief::Gaussian { mean, covariance, gauge: LogitGauge::Raw };
    let found = belief.probabilities(LinkApprox::GaussHermite { points: 64 }).unwrap();
    for (item, x) in tests.outer_iter().enumerate() {
        // trapezoids in both whitened directions: exact to rounding for an analytic integrand within ±9 standard deviations
        let (step, n) = (0.05, 180);
        let mut integral = 0.0;
        for (i, j) in (-n..=n).flat_map(|i| (-n..=n).map(move |j| (i, j))) {
            let z = Array1::from(vec![step * f64::from(i), step * f64::from(j)]);
            let delta = &centre + &root.dot(&z);
            integral += (-0.5 * z.dot(&z)).exp() / (1.0 + (-delta.dot(&x)).exp());
        }
        integral *= step * step / std::f64::consts::TAU;
        assert!((found[[item, 1]] - integral).abs() < 1e-6, "{} {integral}", found[[item, 1]]);
    }
}
