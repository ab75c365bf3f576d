//! The linearised model against a dense solver over weights, and leaving out against refitting.

use super::mode::{EXACT_FIT, Mode, ModePath};
use super::*;
use crate::belief::{LinkApprox, LogitBelief};
use crate::likelihood::{Categorical, Gaussian, SharedLikelihood, Target};
use crate::linalg::{CholeskyFactor, eigh};
use crate::prior::{PriorPrecision, PriorPrecisions};
use ndarray::{Array1, Array2, ArrayView1, Axis, s};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// A linear model of N items with random features, and all that a dense solver needs.
#[derive(Clone)]
pub(super) struct Problem {
    pub(super) items: LinearizedItems,
    pub(super) targets: Vec<Target>,
    pub(super) features: Array2<f64>,
    pub(super) likelihood: SharedLikelihood,
}

fn uniform(rng: &mut ChaCha8Rng, n: usize) -> Array1<f64> {
    Array1::from_shape_simple_fn(n, || 2.0 * rng.random::<f64>() - 1.0)
}

impl Problem {
    /// `present(item, c)` says which outputs an item has; labels are among these.
    pub(super) fn classes(
        (n, c, width): (usize, usize, usize),
        are_contrasts: bool,
        seed: u64,
        present: impl Fn(usize, usize) -> bool,
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let k = if are_contrasts { c - 1 } else { c };
        let mut outputs = Array2::zeros((n, c));
        let mut targets = Vec::new();
        let mut features = Array2::zeros((n * k, width));
        for item in 0..n {
            let logits = uniform(&mut rng, c) * 2.0;
            for class in 0..c {
                outputs[[item, class]] = if present(item, class) { logits[class] } else { f64::NEG_INFINITY };
            }
            let own: Vec<usize> = (0..c).filter(|&class| present(item, class)).collect();
            targets.push(Target::Class(own[rng.random_range(0..own.len())]));
            for row in 0..k {
                // an output that the item does not have has no Jacobian where rows are outputs
                let there = are_contrasts || present(item, row);
                let values = uniform(&mut rng, width) * if there { 1.0 } else { 0.0 };
                features.row_mut(item * k + row).assign(&values);
            }
        }
        let drift = features.dot(&uniform(&mut rng, width));
        let items = LinearizedItems { outputs, are_contrasts, rows_per_item: k, drift };
        Self { items, targets, features, likelihood: Categorical.into() }
    }

    pub(super) fn values(n: usize, c: usize, width: usize) -> Self {
        let mut of_classes = Self::classes((n, c, width), false, 3, |_, _| true);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        of_classes.targets = (0..n).map(|_| Target::Values(uniform(&mut rng, c).to_vec())).collect();
        of_classes.likelihood = Gaussian { noise_variance: 0.3 }.into();
        of_classes
    }

    pub(super) fn model(&self) -> LinearizedModel {
        let precisions = PriorPrecisions::from(PriorPrecision::new(1.0).unwrap());
        LinearizedModel::new(
            self.items.clone(),
            self.targets.clone(),
            self.features.clone(),
            self.likelihood.clone(),
            precisions,
        )
        .unwrap()
    }

    pub(super) fn n_items(&self) -> usize {
        self.targets.len()
    }

    /// Derivatives by outputs, as those by the item's rows.
    pub(super) fn pull(&self, of_outputs: &Array2<f64>) -> Array2<f64> {
        let first = usize::from(self.items.are_contrasts);
        of_outputs.slice(s![first..first + self.items.rows_per_item, ..]).to_owned()
    }

    pub(super) fn outputs_at(&self, item: usize, weights: ArrayView1<f64>) -> Array1<f64> {
        let k = self.items.rows_per_item;
        let rows = s![item * k..(item + 1) * k];
        let change = self.features.slice(s![item * k..(item + 1) * k, ..]).dot(&weights) - self.items.drift.slice(rows);
        let mut outputs = self.items.outputs.row(item).to_owned();
        for (row, value) in change.iter().enumerate() {
            outputs[row + usize::from(self.items.are_contrasts)] += value;
        }
        outputs
    }

    /// Gradient and Hessian of `−Σ log p + ½ s‖w‖²` over the weights `w = θ − μ`, without the items left out.
    pub(super) fn derivatives(
        &self,
        weights: ArrayView1<f64>,
        scale: f64,
        left_out: Option<usize>,
    ) -> (Array1<f64>, Array2<f64>) {
        let k = self.items.rows_per_item;
        let mut gradient = &weights * scale;
        let mut hessian = Array2::eye(weights.len()) * scale;
        for item in (0..self.n_items()).filter(|item| Some(*item) != left_out) {
            let phi = self.features.slice(s![item * k..(item + 1) * k, ..]);
            let outputs = self.outputs_at(item, weights);
            let score = self.likelihood.score(outputs.view(), &self.targets[item]).insert_axis(Axis(1));
            gradient = gradient - phi.t().dot(&self.pull(&score).column(0));
            let fisher = self.likelihood.fisher(outputs.view());
            let half = self.pull(&fisher);
            let fisher = self.pull(&half.t().to_owned());
            hessian = hessian + phi.t().dot(&fisher).dot(&phi);
        }
        (gradient, hessian)
    }

    pub(super) fn newton_step(&self, weights: &Array1<f64>, scale: f64, left_out: Option<usize>) -> Array1<f64> {
        let (gradient, hessian) = self.derivatives(weights.view(), scale, left_out);
        weights - &CholeskyFactor::new(hessian.view()).unwrap().solve_vector(gradient.view())
    }

    /// The dense mode, from a good start.
    pub(super) fn dense_mode(&self, start: &Array1<f64>, scale: f64, left_out: Option<usize>) -> Array1<f64> {
        let mut weights = start.clone();
        for _ in 0..200 {
            // half steps from afar, so that the iteration needs no line search
            let next = self.newton_step(&weights, scale, left_out);
            let length = (&next - &weights).dot(&(&next - &weights)).sqrt();
            weights = if length > 0.5 { (&weights + &next) * 0.5 } else { next };
            if length < 1e-13 {
                break;
            }
        }
        weights
    }
}

pub(super) fn problems() -> Vec<(&'static str, Problem)> {
    vec![
        ("binary", Problem::classes((14, 2, 9), true, 1, |_, _| true)),
        ("four classes", Problem::classes((12, 4, 50), true, 2, |_, _| true)),
        ("four classes, few weights", Problem::classes((12, 4, 7), true, 2, |_, _| true)),
        ("masked", Problem::classes((12, 4, 30), true, 5, |item, c| (item + c) % 4 != 1)),
        ("continuations", Problem::classes((12, 5, 40), false, 6, |item, c| c < 2 + item % 4)),
        ("continuations, few weights", Problem::classes((12, 5, 8), false, 6, |item, c| c < 2 + item % 4)),
        ("regression", Problem::values(12, 3, 20)),
    ]
}

pub(super) fn largest(difference: &Array1<f64>) -> f64 {
    difference.iter().filter(|v| !v.is_nan()).fold(0.0, |m, v| m.max(v.abs()))
}

/// Outputs up to what the likelihood sees of them: their score, which a common shift leaves.
fn score(problem: &Problem, item: usize, outputs: ArrayView1<f64>) -> Array1<f64> {
    problem.likelihood.score(outputs, &problem.targets[item])
}

#[test]
fn the_mode_and_its_evidence_are_those_of_a_dense_solver_over_the_weights() {
    for (name, problem) in problems() {
        let model = problem.model();
        for scale in [0.03, 1.0, 40.0] {
            let mode = model.mode(scale, None).unwrap();
            let weights = problem.dense_mode(&Array1::zeros(problem.features.ncols()), scale, None);
            let (gradient, hessian) = problem.derivatives(weights.view(), scale, None);
            assert!(largest(&gradient) < 1e-9, "{name}: the dense solver did not converge");
            for item in 0..problem.n_items() {
                let (found, dense) = (model.outputs_of(item, &mode.change), problem.outputs_at(item, weights.view()));
                let difference = score(&problem, item, found.view()) - score(&problem, item, dense.view());
                assert!(largest(&difference) < 1e-8, "{name} at {scale}: item {item}, {difference}"); // tolerance of the steps
            }
            let fit: f64 = (0..problem.n_items())
                .map(|i| {
                    problem.likelihood.log_density(problem.outputs_at(i, weights.view()).view(), &problem.targets[i])
                })
                .sum();
            assert!((mode.log_likelihood - fit).abs() < 1e-7, "{name}: {} and {fit}", mode.log_likelihood);
            assert!((mode.penalty - 0.5 * scale * weights.dot(&weights)).abs() < 1e-7, "{name}");
            let log_det: f64 = eigh(hessian.view()).unwrap().values.iter().map(|e| (e / scale).ln()).sum();
            assert!((mode.log_det_ratio - log_det).abs() < 1e-6 * (1.0 + log_det), "{name}: {log_det}");
            assert!(mode.newton_gain.abs() < 1e-12 * (1.0 + fit.abs()), "{name}: {}", mode.newton_gain);
            // from another prior's mode, by another way to the same
            let again = model.mode(scale, Some(&model.mode(3.0, None).unwrap())).unwrap();
            assert!((again.log_marginal_likelihood() - mode.log_marginal_likelihood()).abs() < 1e-7, "{name}");
        }
    }
}

#[test]
fn modes_on_a_path_are_those_from_the_start() {
    for (name, problem) in problems() {
        let model = problem.model();
        let mut path = ModePath::new(&model, None);
        // far steps, by which the curvature at the last mode is of no use, and near ones, by which it is
        for scale in [1.0, 40.0, 41.0, 40.999, 0.03, 0.031, 0.031] {
            let (found, alone) = (path.mode(scale).unwrap(), model.mode(scale, None).unwrap());
            let of = |mode: &Mode| [mode.log_likelihood, mode.penalty, mode.log_det_ratio];
            for (found, alone) in of(&found).into_iter().zip(of(&alone)) {
                assert!((found - alone).abs() < 1e-9 * (1.0 + alone.abs()), "{name} at {scale}: {found} and {alone}");
            }
            let fit = path.log_likelihood(scale, EXACT_FIT).unwrap();
            assert!((fit - alone.log_likelihood).abs() < 1e-9 * (1.0 + fit.abs()), "{name} at {scale}");
        }
    }
}

#[test]
fn leaving_out_is_one_newton_step_of_refitting_and_nearly_all_of_it() {
    for (name, problem) in problems() {
        let model = problem.model();
        for (scale, bound) in [(0.3, 0.35), (3.0, 0.08), (30.0, 0.004)] {
            let mode = model.mode(scale, None).unwrap();
            let left_out = model.leave_one_out(&mode).unwrap();
            let LogitBelief::Gaussian { mean, .. } = left_out.own_belief() else { panic!("a Gaussian belief") };
            let all = problem.dense_mode(&Array1::zeros(problem.features.ncols()), scale, None);
            let (mut of_step, mut of_refit) = (0.0f64, 0.0f64);
            for item in 0..problem.n_items() {
                let found = score(&problem, item, mean.row(item));
                let step = problem.newton_step(&all, scale, Some(item));
                let refitted = problem.dense_mode(&all, scale, Some(item));
                let at = |weights: &Array1<f64>| score(&problem, item, problem.outputs_at(item, weights.view()).view());
                of_step = of_step.max(largest(&(&found - &at(&step))));
                of_refit = of_refit.max(largest(&(&found - &at(&refitted))));
            }
            println!("{name}, scale {scale}: {of_step:.1e} from one Newton step, {of_refit:.1e} from refitting");
            assert!(of_step < 1e-8, "{name} at {scale}: {of_step}"); // the mode's own tolerance
            // in probabilities: the rest of the Newton iteration
            assert!(of_refit < bound, "{name} at {scale}: {of_refit}");
        }
    }
}

#[test]
fn the_covariance_without_an_item_is_that_of_all_others() {
    for (name, problem) in problems() {
        let (model, scale) = (problem.model(), 0.7);
        let mode = model.mode(scale, None).unwrap();
        let left_out = model.leave_one_out(&mode).unwrap();
        let all = problem.dense_mode(&Array1::zeros(problem.features.ncols()), scale, None);
        let LogitBelief::Gaussian { mean, covariance, .. } = left_out.belief() else { panic!("a Gaussian belief") };
        let k = problem.items.rows_per_item;
        for item in 0..problem.n_items() {
            let hessian = problem.derivatives(all.view(), scale, Some(item)).1;
            let phi = problem.features.slice(s![item * k..(item + 1) * k, ..]);
            let own = phi.dot(&CholeskyFactor::new(hessian.view()).unwrap().solve(phi.t()));
            let own = own.insert_axis(Axis(0));
            let outputs = problem.items.outputs.slice(s![item..item + 1, ..]);
            let expected = model.combinations.covariance_of_classes(outputs, own);
            let difference = &expected.index_axis(Axis(0), 0) - &covariance.index_axis(Axis(0), item);
            assert!(difference.iter().all(|d| d.abs() < 1e-7), "{name}, item {item}: {difference}");
            let missing = problem.items.outputs.row(item).iter().filter(|f| f.is_infinite()).count();
            assert_eq!(mean.row(item).iter().filter(|f| f.is_infinite()).count(), missing, "{name}");
        }
    }
}

#[test]
fn leaving_out_of_ridge_regression_is_exact() {
    let problem = Problem::values(15, 2, 8);
    let (model, scale) = (problem.model(), 0.4);
    let mode = model.mode(scale, None).unwrap();
    let left_out = model.leave_one_out(&mode).unwrap();
    let LogitBelief::Gaussian { mean, .. } = left_out.own_belief() else { panic!("a Gaussian belief") };
    for item in 0..problem.n_items() {
        let refitted = problem.dense_mode(&Array1::zeros(8), scale, Some(item));
        let difference = &mean.row(item) - &problem.outputs_at(item, refitted.view());
        assert!(largest(&difference) < 1e-9, "item {item}: {difference}");
    }
    // and the evidence is that of the Gaussian process: ln N(y; m, K/s + σ²I)
    let y: Array1<f64> =
        (0..15).flat_map(|i| (0..2).map(move |c| (i, c))).map(|(i, c)| problem.targets[i].component(c)).collect();
    let rest = y - (problem.items.outputs.iter().copied().collect::<Array1<f64>>() - &problem.items.drift);
    let covariance = problem.features.dot(&problem.features.t()) / scale + Array2::<f64>::eye(30) * 0.3;
    let factor = CholeskyFactor::new(covariance.view()).unwrap();
    let exact =
        -0.5 * (rest.dot(&factor.solve_vector(rest.view())) + factor.log_det() + 30.0 * std::f64::consts::TAU.ln());
    assert!((mode.log_marginal_likelihood() - exact).abs() < 1e-9 * exact.abs(), "{exact}");
}

#[test]
fn the_matched_prior_is_the_one_of_a_model_that_was_fitted_under_it() {
    for (name, mut problem) in problems() {
        for scale in [0.02, 1.0, 25.0] {
            let weights = problem.dense_mode(&Array1::zeros(problem.features.ncols()), scale, None);
            let mut fitted = problem.clone();
            for item in 0..problem.n_items() {
                fitted.items.outputs.row_mut(item).assign(&problem.outputs_at(item, weights.view()));
            }
            fitted.items.drift = problem.features.dot(&weights);
            let matched = fitted.model().matched_prior().unwrap().usable().unwrap();
            let found = matched.precisions.of(0).value();
            assert!((found / scale - 1.0).abs() < 1e-4, "{name}: {found} for {scale}"); // NLL is flat to 1e-8 there
            assert!((matched.mode_nll - matched.network_nll).abs() < 1e-7 * matched.network_nll.abs(), "{name}");
        }
        // θ* = μ: the network is the prior's centre, and no prior makes the mode fit worse
        problem.items.drift.fill(0.0);
        let error = problem.model().matched_prior().unwrap().usable().unwrap_err().to_string();
        assert!(error.contains("upper end") && error.contains("no worse than the network"), "{name}: {error}");
    }
}

#[test]
fn no_scale_of_the_prior_has_more_evidence_than_the_one_found() {
    for (name, problem) in
        problems().into_iter().filter(|(name, _)| *name == "regression" || *name == "four classes, few weights")
    {
        let model = problem.model();
        // labels that follow the outputs: the evidence of noise has no optimum
        let optimum = match model.optimal_prior() {
            Ok(optimum) => optimum,
            Err(error) => {
                assert!(error.to_string().contains("end of its search"), "{name}: {error}");
                continue;
            }
        };
        let best = optimum.mode.log_marginal_likelihood();
        for log in [-3.0, -1.0, -0.1, 0.1, 1.0, 3.0f64] {
            let other = model.mode(optimum.mode.scale * log.exp(), None).unwrap().log_marginal_likelihood();
            assert!(other <= best + 1e-3, "{name}: {other} at {log} beside {best}"); // 0.01 in log s, squared
        }
    }
}

#[test]
fn temperatures_of_answers_have_the_least_loss_without_the_item_and_never_sharpen() {
    // sure and wrong about some of a quarter of the items; right about all, and not sure
    for (boldness, n_right, scale, softer) in [(6.0, 30, 20.0, true), (0.2, 40, 1e6, false)] {
        let mut problem = Problem::classes((40, 3, 30), true, 9, |_, _| true);
        for (item, outputs) in problem.items.outputs.outer_iter().enumerate().take(n_right) {
            problem.targets[item] = Target::Class(crate::belief::top_class(outputs));
        }
        problem.items.outputs *= boldness;
        problem.items.drift.fill(0.0);
        let model = problem.model();
        let left_out = model.leave_one_out(&model.mode(scale, None).unwrap()).unwrap();
        let answers = left_out.answer_temperatures().unwrap();
        let labels = left_out.labels().unwrap();
        let mean = left_out.belief().moments().0;
        let link = LinkApprox::default();
        let nll = |belief: &LogitBelief| belief.losses(&labels, link).unwrap().iter().sum::<f64>() / 40.0;
        for (search, belief) in
            [(answers.network, LogitBelief::Point { logits: mean }), (answers.posterior, left_out.belief().clone())]
        {
            assert_eq!(search.value < 1.0, softer, "{search}");
            let best = nll(&belief.tempered(search.value));
            for beta in [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0] {
                assert!(nll(&belief.tempered(beta)) >= best - 1e-6, "{search}: {beta} is better"); // width 1e-4, squared
            }
            assert_eq!(search.remark().is_some(), !softer, "{search}");
        }
    }
}

#[test]
fn a_network_that_no_prior_lets_the_linear_model_reach_is_told_so() {
    // two items with equal features and different labels, of which the network is sure
    let mut problem = Problem::classes((2, 2, 3), true, 1, |_, _| true);
    let first = problem.features.row(0).to_owned();
    problem.features.row_mut(1).assign(&first);
    problem.targets = vec![Target::Class(0), Target::Class(1)];
    problem.items.outputs = ndarray::arr2(&[[5.0, 0.0], [0.0, 5.0]]);
    problem.items.drift = ndarray::arr1(&[-5.0, 5.0]);
    let matched = problem.model().matched_prior().unwrap();
    assert!(matched.mode_nll > 0.69 && matched.network_nll < 0.01, "{matched:?}"); // ln 2 against ln(1 + e⁻⁵)
    let error = matched.usable().unwrap_err().to_string();
    assert!(error.contains("lower end") && error.contains("under no prior"), "{error}");
}

#[test]
fn what_does_not_fit_together_is_refused_with_both_numbers() {
    let problem = Problem::classes((4, 3, 5), true, 1, |_, _| true);
    let build = |change: &dyn Fn(&mut Problem)| {
        let mut problem = problem.clone();
        change(&mut problem);
        let precisions = PriorPrecisions::from(PriorPrecision::new(1.0).unwrap());
        LinearizedModel::new(problem.items, problem.targets, problem.features, problem.likelihood, precisions)
            .unwrap_err()
            .to_string()
    };
    let error = build(&|p| drop(p.targets.pop()));
    assert_eq!(error, "targets of the training items: expected 4, found 3");
    let error = build(&|p| p.features = Array2::zeros((7, 5)));
    assert_eq!(error, "rows of Jacobians: expected 8, found 7");
    let error = build(&|p| p.features[[0, 0]] = f64::NAN);
    assert_eq!(error, "Jacobians of the training items: 1 of 40 values are not finite");
    let error = build(&|p| p.targets[2] = Target::Class(3));
    assert_eq!(error, "item `2`: label 3 is out of range for 3 classes");
    let error = build(&|p| p.likelihood = Gaussian { noise_variance: 1.0 }.into());
    assert!(error.contains("differences of outputs") && error.contains("gaussian"), "{error}");
    let error = problem.model().mode(0.0, None).unwrap_err().to_string();
    assert_eq!(error, "scale of the prior precisions: must be positive and finite, got 0");
}
