//! Adapters averaged by the precision of their posteriors.

use super::next_task::{DENSE, OVER_WEIGHTS, first_task, fit, flat, laplace, product_matrix, quick, start, turned};
use crate::support::points::{blobs, flipped};
use crate::support::{device, f64_or_skip};
use bayes_lora::curvature::CurvatureStructure;
use bayes_lora::linalg::eigh;
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Mlp, MlpConfig};
use bayes_lora::posterior::{AdapterAverage, Laplace, PosteriorPrior};
use bayes_lora::progress::Control;
use bayes_lora::train::{Objective, Trainer};
use burn::tensor::DType;
use ndarray::{Array1, Array2};

fn solve(matrix: &Array2<f64>, right: &Array1<f64>) -> Array1<f64> {
    let eigen = eigh(matrix.view()).unwrap();
    eigen.vectors.dot(&(eigen.vectors.t().dot(right) / &eigen.values))
}

#[test]
fn adapters_averaged_by_precision_solve_the_dense_system() {
    if !f64_or_skip("averages of adapters") {
        return;
    }
    let (model, data) = first_task();
    let tasks = [data.clone(), turned(&data), flipped(&turned(&blobs(20, 5)))];
    let models: Vec<Mlp> = tasks.iter().map(|task| fit(model.clone(), task, &quick().with_epochs(6))).collect();
    for structure in OVER_WEIGHTS {
        let lambdas = [0.5, 2.0, 1.0];
        let laplaces: Vec<Laplace> = (0..3).map(|k| laplace(&models[k], &tasks[k], structure, lambdas[k])).collect();
        let pairs: Vec<(&Mlp, &Laplace)> = models.iter().zip(&laplaces).collect();
        let average = AdapterAverage::new(&pairs).unwrap();
        let n = flat(laplaces[0].map()).len();
        let (mut total, mut right, mut plain) = (Array2::zeros((n, n)), Array1::zeros(n), Array1::zeros(n));
        for laplace in &laplaces {
            let p = product_matrix(laplace);
            right += &p.dot(&flat(laplace.map()));
            total += &p;
            plain += &(flat(laplace.map()) / 3.0);
        }
        let expected = solve(&total, &right);
        let error = |found: &AdapterWeights, expected: &Array1<f64>| {
            (flat(found) - expected).iter().fold(0.0f64, |m, v| m.max(v.abs()))
        };
        assert!(error(&average.by_precision, &expected) < DENSE, "{structure}: {:?}", average.solver);
        assert!(error(&average.plain, &plain) < 1e-14, "{structure}");
        assert!((&expected - &plain).iter().any(|v| v.abs() > 1e-3));
        assert_eq!(average.solver.is_none(), structure == CurvatureStructure::Diagonal);
        let merged = write_adapter(models[0].clone(), &average.by_precision).unwrap();
        assert_eq!(read_adapter(&merged).unwrap(), average.by_precision);
        // twice the same adapter is that adapter
        let same = AdapterAverage::new(&[pairs[0], pairs[0]]).unwrap();
        assert!(error(&same.by_precision, &flat(laplaces[0].map())) < 1e-14);
    }
}

#[test]
fn adapters_of_other_ranks_scales_and_bases_are_not_averaged_and_no_prior_for_each_other() {
    if !f64_or_skip("adapters that differ") {
        return;
    }
    let data = blobs(20, 3);
    let other_base = MlpConfig::new([2, 6, 2]).with_seed(9).with_dtype(DType::F64).init(&device()).unwrap();
    let other_base = attach(other_base, &LoraConfig::new(2).with_alpha(4.0), 3).unwrap();
    let posterior = |model: &Mlp| laplace(model, &data, CurvatureStructure::Diagonal, 1.0);
    let first = start(2, 4.0);
    let own = posterior(&first);
    for (other, words) in [
        (start(3, 6.0), &["shape", "[2, 2]", "[3, 2]"][..]),
        (start(2, 6.0), &["scale", "2", "3"]),
        (other_base, &["another base"]),
    ] {
        let error = AdapterAverage::new(&[(&first, &own), (&other, &posterior(&other))]).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        // the base is not hashed for a prior
        if !words[0].contains("base") {
            let prior = PosteriorPrior::new(&first, own.clone()).unwrap();
            let trainer = Trainer::new(quick().with_objective(Objective::under(prior.clone()))).unwrap();
            let error = trainer.fit(other.clone(), &data, None, &Control::silent()).err().unwrap().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
            assert!(prior.then(&other, posterior(&other)).is_err());
        }
    }
    let error = AdapterAverage::new(&[(&start(2, 6.0), &posterior(&fit(first, &data, &quick())))]).unwrap_err();
    assert!(error.to_string().contains("other weights"), "{error}");
    assert!(AdapterAverage::new::<Mlp>(&[]).is_err());
}
