//! What stands for too many Jacobians, against all of them.

use super::tests::Problem;
use crate::belief::LinkApprox;
use crate::error::Result;
use crate::likelihood::Target;
use crate::linalg::matmul;
use ndarray::{Array2, Axis};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// 300 items of three classes with 3,000 weights, at the mode under the precision 300: the prior that is to be found again.
const N: usize = 300;
const LAMBDA: f64 = 300.0;

fn trained() -> Problem {
    let mut problem = Problem::classes((N, 3, 3000), true, 11, |_, _| true);
    // labels that a few of the weights tell, three quarters of the time
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    for item in 0..N {
        let signal = [0.0, 1.0, 2.0].map(|c| if (c - (item % 3) as f64).abs() < 0.5 { 1.0 } else { 0.0 });
        for row in 0..2 {
            for weight in 0..20 {
                problem.features[[2 * item + row, weight]] += 3.0 * (signal[row + 1] - signal[0]);
            }
        }
        let told = rng.random::<f64>() < 0.75;
        problem.targets[item] = Target::Class(if told { item % 3 } else { rng.random_range(0..3) });
    }
    problem.items.outputs.fill(0.0);
    problem.items.drift.fill(0.0);
    let mode = problem.model().mode(LAMBDA, None).unwrap();
    for item in 0..N {
        for row in 0..2 {
            problem.items.outputs[[item, row + 1]] = mode.change[2 * item + row];
        }
    }
    problem.items.drift = mode.change;
    problem
}

/// The logarithms of the matched precision and of the temperatures of the network's and the posterior's answers.
fn found(problem: &Problem) -> Result<[f64; 3]> {
    let model = problem.model();
    let matched = model.matched_prior()?.usable()?;
    let left_out = model.leave_one_out(&matched.mode)?;
    let posterior = left_out.posterior_temperature(LinkApprox::MonteCarlo { n_samples: 200, seed: 0 })?;
    Ok([matched.search.value, left_out.network_temperature()?.search.value, posterior.value].map(f64::ln))
}

fn projected(problem: &Problem, width: usize, seed: u64) -> Problem {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sums = Array2::zeros((problem.features.ncols(), width));
    for mut weight in sums.outer_iter_mut() {
        weight[rng.random_range(0..width)] = if rng.random::<bool>() { 1.0 } else { -1.0 };
    }
    Problem { features: matmul(problem.features.view(), sums.view()), ..problem.clone() }
}

fn some(problem: &Problem, n: usize, seed: u64) -> Problem {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut items: Vec<usize> = (0..N).collect();
    for place in 0..n {
        items.swap(place, rng.random_range(place..N));
    }
    items.truncate(n);
    let rows: Vec<usize> = items.iter().flat_map(|item| [2 * item, 2 * item + 1]).collect();
    let mut part = problem.clone();
    part.items.outputs = problem.items.outputs.select(Axis(0), &items);
    part.items.drift = problem.items.drift.select(Axis(0), &rows);
    part.features = problem.features.select(Axis(0), &rows);
    part.targets = items.iter().map(|&item| problem.targets[item].clone()).collect();
    part
}

/// Roots of the mean squares, over three seeds, of the differences to what all Jacobians say.
fn errors(exact: [f64; 3], make: impl Fn(u64) -> Problem) -> [f64; 3] {
    let mut squares = [0.0; 3];
    for seed in 0..3 {
        for (square, (value, exact)) in squares.iter_mut().zip(found(&make(seed)).unwrap().into_iter().zip(exact)) {
            *square += (value - exact).powi(2) / 3.0;
        }
    }
    squares.map(f64::sqrt)
}

#[test]
fn priors_and_temperatures_of_projections_and_subsets_come_closer_to_those_of_all_jacobians() {
    let problem = trained();
    let exact = found(&problem).unwrap();
    assert!((exact[0] - LAMBDA.ln()).abs() < 1e-3, "{exact:?}"); // as far as the NLL is flat
    // 600 rows of m random sums: the directions that they lack, about 600/m of all, are what makes λ too small, so that the error falls as
    // 1/m; half of 600/m, and less in the temperature
    for width in [300, 900, 2700] {
        let found = errors(exact, |seed| projected(&problem, width, seed));
        println!("{width} sums: {found:?}");
        let bound = 300.0 / width as f64;
        assert!(found[0] < bound && found[1] < 0.25 * bound && found[2] < 0.25 * bound, "{width}: {found:?}");
    }
    // means over n of 300 items: 1.5 standard errors of a quantity with spread 1
    for n in [40, 160] {
        let found = errors(exact, |seed| some(&problem, n, seed));
        println!("{n} items: {found:?}");
        let bound = 1.5 * (1.0 / n as f64 - 1.0 / N as f64).sqrt();
        assert!(found.iter().all(|error| *error < bound), "{n}: {found:?}");
    }
}

#[test]
fn a_projection_that_is_too_narrow_to_fit_as_well_as_the_network_is_refused_in_words() {
    let error = found(&projected(&trained(), 60, 0)).unwrap_err().to_string();
    assert!(error.contains("under no prior") && error.contains("as well as the network"), "{error}");
}
