//! How far the trained adapter is from the mode of its log joint.

use super::{ALGEBRA, LIMITS, cases, fit, fixed};
use bayes_lora::curvature::CurvatureStructure;
use bayes_lora::likelihood::Categorical;
use bayes_lora::lora::read_adapter;
use bayes_lora::posterior::{Laplace, log_likelihood_gradient};
use bayes_lora::prior::{PriorGrouping, PriorMean, PriorPrecision, PriorPrecisions};
use bayes_lora::progress::Control;
use ndarray::Array2;

#[test]
fn a_gradient_that_lacks_a_site_or_has_another_shape_is_refused() {
    for (fixture, model) in cases("refused gradients").take(1) {
        let gradient =
            log_likelihood_gradient(&model, &fixture.train, &Categorical, &LIMITS, &Control::silent()).unwrap();
        let curvature = fit(&model, &fixture.train, CurvatureStructure::FunctionSpace);
        let laplace = Laplace::new(&model, &curvature, &fixed(1.0)).unwrap();
        let mut lacking = gradient.clone();
        let (site, _) = lacking.pop_first().unwrap();
        let error = laplace.stationarity(&lacking).unwrap_err().to_string();
        assert!(error.contains(&site.to_string()), "{error}");
        let mut wrong = gradient;
        wrong.insert(site.clone(), Array2::zeros((1, 1)));
        let error = laplace.stationarity(&wrong).unwrap_err().to_string();
        assert!(error.contains(&site.to_string()) && error.contains("[1, 1]"), "{error}");
    }
}

#[test]
fn every_group_pulls_with_its_own_prior_precision() {
    for (fixture, model) in cases("stationarity of groups").take(1) {
        let gradient =
            log_likelihood_gradient(&model, &fixture.train, &Categorical, &LIMITS, &Control::silent()).unwrap();
        let config = fixed(1.0).with_prior_mean(PriorMean::Zero).with_prior_grouping(PriorGrouping::PerMatrix);
        let curvature = fit(&model, &fixture.train, CurvatureStructure::Kronecker);
        let laplace = Laplace::new(&model, &curvature, &config).unwrap();
        // far above the curvature, so that H + λI is λI
        let of = |matrix: &str| if matrix == "lora_A" { 1e7 } else { 3e8 };
        let precisions = laplace.groups().iter().map(|group| PriorPrecision::new(of(&group.name)).unwrap());
        let precisions = PriorPrecisions::new(precisions.collect()).unwrap();
        let found = laplace.with_prior_precisions(precisions).unwrap().stationarity(&gradient).unwrap();
        let (mut square, mut gain) = (0.0, 0.0);
        for (site, weight) in read_adapter(&model).unwrap() {
            let lambda = of(&site.matrix.to_string());
            let own: f64 = gradient[&site].iter().zip(&weight).map(|(g, w)| (g - lambda * w).powi(2)).sum();
            (square, gain) = (square + own, gain + 0.5 * own / lambda);
        }
        assert!((found.joint_gradient / f64::sqrt(square) - 1.0).abs() < ALGEBRA, "{found:?}");
        assert!((found.newton_gain / gain - 1.0).abs() < 1e-3, "{found:?} against {gain}"); // e/λ
    }
}

#[test]
fn a_newton_step_gains_what_stationarity_foretells() {
    for (fixture, model) in cases("stationarity") {
        let gradient =
            log_likelihood_gradient(&model, &fixture.train, &Categorical, &LIMITS, &Control::silent()).unwrap();
        for structure in [CurvatureStructure::FunctionSpace, CurvatureStructure::Core] {
            // a strong prior leaves a step so small that the quadratic model holds
            let lambda = 1e5;
            let config = fixed(lambda).with_prior_mean(PriorMean::Zero);
            let laplace = Laplace::new(&model, &fit(&model, &fixture.train, structure), &config).unwrap();
            let found = laplace.stationarity(&gradient).unwrap();
            // with λ far above the curvature: gain = ½‖∇ log joint‖²/λ
            let expected = 0.5 * found.joint_gradient.powi(2) / lambda;
            assert!((found.newton_gain / expected - 1.0).abs() < 0.01, "{} {structure}: {found:?}", fixture.name);
            // and the gradient of the joint is −λ(θ − μ) but for the likelihood's
            let prior = lambda * laplace.groups()[0].scatter.sqrt();
            assert!((found.joint_gradient / prior - 1.0).abs() < 0.01, "{} {structure}: {found:?}", fixture.name);
        }
        let norm = |gradient: &Array2<f64>| gradient.iter().map(|v| v * v).sum::<f64>();
        let expected = fixture.expected("mean_nll_gradient").iter().map(|v| v * v).sum::<f64>().sqrt();
        let found = gradient.values().map(norm).sum::<f64>().sqrt() / fixture.train.len() as f64;
        assert!((found / expected - 1.0).abs() < 1e-5); // see tests/parity.rs
    }
}

#[test]
fn a_basis_that_leaves_directions_out_counts_the_gradient_along_them() {
    for (fixture, model) in cases("stationarity in function space") {
        let gradient =
            log_likelihood_gradient(&model, &fixture.train, &Categorical, &LIMITS, &Control::silent()).unwrap();
        let of = |structure| {
            let laplace = Laplace::new(&model, &fit(&model, &fixture.train, structure), &fixed(2.0)).unwrap();
            laplace.stationarity(&gradient).unwrap()
        };
        let [whole, rows] = [CurvatureStructure::Full, CurvatureStructure::FunctionSpace].map(of);
        for (whole, rows) in [
            (whole.likelihood_gradient, rows.likelihood_gradient),
            (whole.joint_gradient, rows.joint_gradient),
            (whole.newton_gain, rows.newton_gain),
        ] {
            assert!((rows / whole - 1.0).abs() < ALGEBRA, "{}: {rows} against {whole}", fixture.name);
        }
    }
}
