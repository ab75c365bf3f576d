//! What training items say about other items, against dense algebra over the weights and against refitting.

use super::joint::JointBelief;
use super::others::OtherRows;
use super::tests::{Problem, largest, problems};
use super::*;
use crate::belief::{LinkApprox, LogitBelief};
use crate::linalg::{CholeskyFactor, matmul};
use ndarray::{Array1, ArrayView1, Axis, s};

/// The first `n` items of a problem as training items, the rest as others.
fn halves(problem: &Problem, n: usize) -> (Problem, Problem) {
    let part = |from: usize, to: usize| {
        let k = problem.items.rows_per_item;
        let mut part = problem.clone();
        part.items.outputs = problem.items.outputs.slice(s![from..to, ..]).to_owned();
        part.targets = problem.targets[from..to].to_vec();
        part.items.drift = problem.items.drift.slice(s![from * k..to * k]).to_owned();
        part.features = problem.features.slice(s![from * k..to * k, ..]).to_owned();
        part
    };
    (part(0, n), part(n, problem.n_items()))
}

fn rows_of(train: &Problem, others: &Problem) -> OtherRows {
    match train.features.ncols() < train.features.nrows() {
        true => OtherRows::Features(others.features.clone()),
        false => OtherRows::Gram(matmul(others.features.view(), train.features.t())),
    }
}

fn joint(train: &Problem, others: &Problem, scale: f64) -> JointBelief {
    let model = train.model();
    let gram = || matmul(others.features.view(), others.features.t());
    let mode = model.mode(scale, None).unwrap();
    model.joint_belief_of(&mode, &rows_of(train, others), gram, others.items.outputs.clone()).unwrap()
}

/// `J(x)(θ − θ')` of one item, as its outputs.
fn pushed(problem: &Problem, item: usize, weights: ArrayView1<f64>) -> Array1<f64> {
    let k = problem.items.rows_per_item;
    let change = problem.features.slice(s![item * k..(item + 1) * k, ..]).dot(&weights);
    problem.model().combinations.push(change.view(), problem.items.outputs.ncols())
}

#[test]
fn influence_is_one_newton_step_without_the_item_and_nearly_all_of_refitting() {
    for (name, problem) in problems() {
        let (train, others) = halves(&problem, 8);
        let model = train.model();
        for (scale, bound) in [(0.3, 0.5), (3.0, 0.06), (30.0, 0.002)] {
            let mode = model.mode(scale, None).unwrap();
            let outputs = others.items.outputs.clone();
            let influence = model.influence_on(&mode, &rows_of(&train, &others), outputs).unwrap();
            assert_eq!((influence.n_training(), influence.n_others()), (8, others.n_items()));
            let all = train.dense_mode(&Array1::zeros(train.features.ncols()), scale, None);
            let (mut of_step, mut of_refit, mut size) = (0.0f64, 0.0f64, 0.0f64);
            for item in 0..8 {
                let step = train.newton_step(&all, scale, Some(item)) - &all;
                let refitted = train.dense_mode(&all, scale, Some(item)) - &all;
                for other in 0..others.n_items() {
                    let found = influence.changes().slice(s![item, other, ..]).to_owned();
                    of_step = of_step.max(largest(&(&found - &pushed(&others, other, step.view()))));
                    of_refit = of_refit.max(largest(&(&found - &pushed(&others, other, refitted.view()))));
                    size = size.max(largest(&found));
                }
            }
            println!(
                "{name}, scale {scale}: up to {size:.3}; {of_step:.1e} from one step, {of_refit:.1e} from refitting"
            );
            assert!(of_step < 1e-11, "{name} at {scale}: {of_step}"); // 1e-13 is seen: one solve, written in two ways
            assert!(of_refit <= bound * (1.0 + size), "{name} at {scale}: {of_refit} of {size}"); // the rest of the iteration
            assert!(size > 0.0, "{name} at {scale}: no item has any influence");
        }
    }
}

#[test]
fn an_items_influence_on_itself_is_its_leave_one_out_shift() {
    for (name, problem) in problems() {
        let model = problem.model();
        let mode = model.mode(0.8, None).unwrap();
        let outputs = problem.items.outputs.clone();
        let influence = model.influence_on(&mode, &rows_of(&problem, &problem), outputs.clone()).unwrap();
        let left_out = model.leave_one_out(&mode).unwrap();
        let LogitBelief::Gaussian { mean, .. } = left_out.belief() else { panic!("a Gaussian belief") };
        let losses = influence.loss_changes(&problem.targets).unwrap();
        for item in 0..problem.n_items() {
            let moved = &outputs.row(item) + &influence.changes().slice(s![item, item, ..]);
            assert!(largest(&(&moved - &mean.row(item))) < 1e-9, "{name}, item {item}"); // two ways to the same solve
            let loss = |outputs: ArrayView1<f64>| -problem.likelihood.log_density(outputs, &problem.targets[item]);
            let rise = loss(mean.row(item)) - loss(outputs.row(item));
            assert!((losses[[item, item]] - rise).abs() < 1e-9 * (1.0 + rise.abs()), "{name}, item {item}");
            // its own loss rises without it: −gᵀΔf = gᵀS₋ₙg
            assert!(name == "regression" || rise > 0.0, "{name}, item {item}: {rise}");
        }
    }
}

#[test]
fn influences_of_a_set_are_the_sum_of_its_items() {
    for (name, problem) in problems() {
        let (train, others) = halves(&problem, 8);
        let model = train.model();
        let mode = model.mode(2.0, None).unwrap();
        let influence = model.influence_on(&mode, &rows_of(&train, &others), others.items.outputs.clone()).unwrap();
        let set = [1, 4, 6];
        let sum = influence.changes().select(Axis(0), &set).sum_axis(Axis(0));
        let found = influence.change_without(&set).unwrap();
        assert!((&found - &sum).iter().all(|d| d.abs() < 1e-12), "{name}"); // order of summation
        let targets = &others.targets;
        let losses = influence.loss_change_without(&set, targets).unwrap();
        for (other, loss) in losses.iter().enumerate() {
            let log = |outputs: &Array1<f64>| problem.likelihood.log_density(outputs.view(), &targets[other]);
            let outputs = others.items.outputs.row(other).to_owned();
            let expected = log(&outputs) - log(&(&outputs + &sum.row(other)));
            assert!((loss - expected).abs() < 1e-12 * (1.0 + expected.abs()), "{name}");
        }
        let one = influence.loss_change_without(&[4], targets).unwrap();
        let all = influence.loss_changes(targets).unwrap();
        assert!(all.row(4).iter().zip(&one).all(|(a, b)| a == b), "{name}");
        let error = influence.change_without(&[8]).unwrap_err().to_string();
        assert_eq!(error, "training item: must be below 8, got 8");
        let error = influence.loss_changes(&targets[1..]).unwrap_err().to_string();
        let n = targets.len();
        assert_eq!(error, format!("targets of the other items: expected {n}, found {}", n - 1));
    }
}

#[test]
fn the_joint_covariance_and_the_information_of_labels_are_those_of_dense_algebra() {
    for (name, problem) in problems() {
        let (train, others) = halves(&problem, 7);
        let joint = joint(&train, &others, 0.6);
        let all = train.dense_mode(&Array1::zeros(train.features.ncols()), 0.6, None);
        let hessian = train.derivatives(all.view(), 0.6, None).1;
        let factor = CholeskyFactor::new(hessian.view()).unwrap();
        let expected = others.features.dot(&factor.solve(others.features.t()));
        let difference = &joint.covariance() - &expected;
        assert!(difference.iter().all(|d| d.abs() < 1e-8), "{name}"); // the mode's own tolerance
        let LogitBelief::Gaussian { mean, .. } = joint.belief() else { panic!("a Gaussian belief") };
        assert_eq!(mean, others.items.outputs, "{name}");
        assert!(joint.belief().decompose(LinkApprox::default()).unwrap().epistemic.iter().all(|v| *v >= 0.0));
        let k = problem.items.rows_per_item;
        for set in [&[0][..], &[1, 3], &[4, 2, 0], &[2, 2]] {
            let mut with = hessian.clone();
            for &item in set {
                let phi = others.features.slice(s![item * k..(item + 1) * k, ..]);
                let fisher = others.pull(&problem.likelihood.fisher(others.items.outputs.row(item)));
                let fisher = others.pull(&fisher.t().to_owned());
                with = with + phi.t().dot(&fisher).dot(&phi);
            }
            let gain = 0.5 * (CholeskyFactor::new(with.view()).unwrap().log_det() - factor.log_det());
            let found = joint.information(set).unwrap();
            assert!((found - gain).abs() < 1e-7, "{name}, {set:?}: {found} beside {gain}"); // of the same order
        }
        assert_eq!(joint.information(&[]).unwrap(), 0.0);
        let n = others.n_items();
        assert_eq!(joint.information(&[n]).unwrap_err().to_string(), format!("item: must be below {n}, got {n}"));
    }
}

#[test]
fn a_batch_is_chosen_greedily_by_the_information_of_all_its_labels() {
    for (name, problem) in problems() {
        let (train, others) = halves(&problem, 5);
        let joint = joint(&train, &others, 0.2);
        let n = others.n_items();
        let choices = joint.choose_batch(n).unwrap();
        let mut chosen: Vec<usize> = Vec::new();
        for choice in &choices {
            let with = |item: usize| joint.information(&[&chosen[..], &[item]].concat()).unwrap();
            let rest = (0..n).filter(|item| !chosen.contains(item));
            let most = rest.map(with).fold(f64::NEG_INFINITY, f64::max);
            let (found, before) = (with(choice.item), joint.information(&chosen).unwrap());
            assert!((found - most).abs() < 1e-10, "{name}: {choice:?} gives {found}, the best {most}"); // rounding
            assert!((choice.gain - (found - before)).abs() < 1e-9, "{name}: {choice:?} beside {}", found - before);
            chosen.push(choice.item);
        }
        assert_eq!(chosen.len(), n, "{name}");
        // a second label of what is known says less: gains fall
        assert!(choices.windows(2).all(|pair| pair[1].gain <= pair[0].gain + 1e-12), "{name}: {choices:?}");
        let error = joint.choose_batch(n + 1).unwrap_err().to_string();
        assert_eq!(error, format!("items to choose from: expected {}, found {n}", n + 1));
    }
}

#[test]
fn a_batch_leaves_the_copy_of_a_chosen_item_for_later() {
    let problem = Problem::classes((12, 4, 50), true, 2, |_, _| true);
    let (train, mut others) = halves(&problem, 6);
    // item 1 is item 0 again, and both say more than all others
    let k = others.items.rows_per_item;
    let first = others.features.slice(s![..k, ..]).to_owned() * 3.0;
    others.features.slice_mut(s![..k, ..]).assign(&first);
    others.features.slice_mut(s![k..2 * k, ..]).assign(&first);
    let row = others.items.outputs.row(0).to_owned();
    others.items.outputs.row_mut(1).assign(&row);
    let joint = joint(&train, &others, 0.05);
    let singles: Vec<f64> = (0..6).map(|item| joint.information(&[item]).unwrap()).collect();
    assert_eq!(largest_first(&singles)[..2], [0, 1]);
    let chosen: Vec<usize> = joint.choose_batch(3).unwrap().iter().map(|choice| choice.item).collect();
    assert!(chosen[0] == 0 && !chosen.contains(&1), "{chosen:?}");
}

#[test]
fn a_label_that_all_others_speak_against_surprises_most() {
    // forty copies of two kinds of item, one of them with the other kind's label
    let mut problem = Problem::classes((40, 2, 2), true, 1, |_, _| true);
    for item in 0..40 {
        let kind = item % 2;
        let features = if kind == 0 { [1.0, 0.0] } else { [0.0, 1.0] };
        problem.features.row_mut(item).assign(&ndarray::arr1(&features));
        problem.targets[item] = crate::likelihood::Target::Class(if item == 17 { 0 } else { kind });
        problem.items.outputs.row_mut(item).fill(0.0);
    }
    problem.items.drift.fill(0.0);
    let model = problem.model();
    let left_out = model.leave_one_out(&model.mode(0.1, None).unwrap()).unwrap();
    let link = LinkApprox::GaussHermite { points: 32 };
    for belief in [left_out.belief(), left_out.own_belief()] {
        let surprises = left_out.surprises(belief, link).unwrap();
        assert_eq!(largest_first(&surprises)[0], 17, "{surprises:?}");
        let expected = belief.losses(&left_out.labels().unwrap(), link).unwrap();
        assert!(surprises.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{surprises:?}");
    }
    assert!(left_out.surprises(&left_out.belief().select(&[0]), link).is_err());
}
