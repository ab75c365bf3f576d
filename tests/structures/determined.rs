//! Batches, their order and the workers change nothing, where factors are singular too: no basis that rounding chooses enters.

use super::{cases, config, covariance, fixed, jacobians};
use crate::support::{FIXTURES, Fixture, device, relative_error};
use bayes_lora::curvature::{
    Coordinates, Curvature, CurvatureConfig, CurvatureStructure, CurvatureSums, TokenTreatment, fit_curvature,
};
use bayes_lora::data::{BatchLimits, EncodedDataset};
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{MlpConfig, Points, PromptClassifier};
use bayes_lora::posterior::Laplace;
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use bayes_lora::tape::LoraMatrix;
use burn::tensor::DType;
use ndarray::Array2;

/// Eigenvectors of a factor turn by its rounding, 1e-16 of the largest eigenvalue, over the gaps between eigenvalues.
const AGREEMENT: f64 = 1e-6;

/// The same sums from batches of several sizes, another order and several workers; first those of one batch.
fn ways(model: &PromptClassifier, data: &EncodedDataset, base: &CurvatureConfig) -> Vec<Curvature> {
    let mut reversed = data.clone();
    reversed.items.reverse();
    let n = data.items.len();
    [(data, n, 1), (data, 1, 1), (data, 5, 1), (&reversed, 5, 1), (data, 4, 3)]
        .map(|(data, max_items, workers)| {
            let limits = BatchLimits { max_items, max_tokens: 100_000 };
            let control = Control::silent().with_workers(workers).unwrap();
            fit_curvature(model, data, &base.clone().with_limits(limits), &control).unwrap()
        })
        .to_vec()
}

fn is_incomplete(curvature: &Curvature) -> bool {
    let CurvatureSums::Diagonal(sums) = &curvature.sums else { return false };
    let incomplete = |coordinates: &Coordinates| match coordinates {
        Coordinates::Kronecker(basis) => !basis.missing_parts().is_empty(),
        _ => false,
    };
    sums.iter().any(|sum| incomplete(&sum.space.coordinates))
}

#[test]
fn singular_factors_leave_no_choice_to_rounding() {
    for (fixture, model) in cases("singular factors") {
        let test = jacobians(&model, &fixture.test);
        for treatment in [TokenTreatment::Expand, TokenTreatment::Reduce, TokenTreatment::Last] {
            for structure in [CurvatureStructure::Ekfac, CurvatureStructure::Kronecker] {
                let base = config(structure).with_treatment(treatment).with_dense_limit(1000);
                let fits = ways(&model, &fixture.train, &base);
                if structure == CurvatureStructure::Ekfac && treatment != TokenTreatment::Expand {
                    // fewer items than the factors are wide
                    assert!(is_incomplete(&fits[0]), "{} {treatment:?}", fixture.name);
                }
                agree(&model, &fits, |laplace| covariance(laplace, &test, 0.5).into_iter().collect());
            }
        }
    }
}

/// Of the first posterior and each other one: `answers`, evidence and a draw.
fn agree(model: &PromptClassifier, fits: &[Curvature], answers: impl Fn(&Laplace) -> Vec<f64>) {
    let lambda = PriorPrecision::new(0.5).unwrap();
    let found = |curvature: &Curvature| {
        let laplace = Laplace::new(model, curvature, &fixed(0.5)).unwrap();
        let draw: Vec<f64> = laplace.sample(3, 1).values().flat_map(|w| w.iter().copied()).collect();
        (ndarray::Array1::from(answers(&laplace)), laplace.log_marginal_likelihood(lambda).unwrap(), draw)
    };
    let (first, evidence, draw) = found(&fits[0]);
    for (way, fit) in fits.iter().enumerate().skip(1) {
        let what = format!("{} {:?} way {way}", fit.config.structure, fit.config.treatment);
        let (other, other_evidence, other_draw) = found(fit);
        let error = relative_error(&other, &first);
        assert!(error < AGREEMENT, "{what}: covariance {error:e}");
        let error = (other_evidence / evidence - 1.0).abs();
        assert!(error < AGREEMENT, "{what}: log evidence {error:e}");
        let error = relative_error(&ndarray::Array1::from(other_draw), &ndarray::Array1::from(draw.clone()));
        assert!(error < AGREEMENT, "{what}: draw {error:e}");
    }
}

#[test]
fn draws_of_every_structure_depend_on_seed_site_and_index_alone() {
    for (fixture, model) in cases("determined draws").take(1) {
        let test = jacobians(&model, &fixture.test);
        for structure in CurvatureStructure::ALL {
            agree(&model, &ways(&model, &fixture.train, &config(structure)), |laplace| {
                covariance(laplace, &test, 0.5).into_iter().collect()
            });
        }
        // and where two structures hold one matrix, they draw one adapter: the root of a matrix is symmetric, in any basis
        let draw = |structure| -> AdapterWeights {
            let curvature = super::fit(&model, &fixture.train, structure);
            Laplace::new(&model, &curvature, &fixed(0.5)).unwrap().sample(3, 1)
        };
        let (matrix, rows) = (draw(CurvatureStructure::Full), draw(CurvatureStructure::FunctionSpace));
        for (site, weight) in &matrix {
            let error = relative_error(&rows[site], weight);
            assert!(error < AGREEMENT, "{site}: {error:e}");
        }
    }
}

#[test]
fn in_single_precision_null_spaces_are_found_as_well() {
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32);
    let test = jacobians(&model, &fixture.test);
    for treatment in [TokenTreatment::Reduce, TokenTreatment::Last] {
        let base = config(CurvatureStructure::Ekfac).with_treatment(treatment).with_dense_limit(1000);
        let fits = ways(&model, &fixture.train, &base);
        assert!(is_incomplete(&fits[0]), "{treatment:?}");
        let of = |curvature| covariance(&Laplace::new(&model, curvature, &fixed(0.5)).unwrap(), &test, 0.5);
        for fit in &fits[1..] {
            let error = relative_error(&of(fit), &of(&fits[0]));
            // the network's own rounding, 1e-7, over the gaps between eigenvalues
            assert!(error < 1e-4, "{treatment:?}: {error:e}");
        }
    }
}

#[test]
fn directions_that_an_adapter_does_not_use_keep_the_priors_width() {
    // a zero column of B: nothing of the gradient reaches that row of A, and the narrow factor of its site is singular
    let model = attach(MlpConfig::new([6, 5, 3]).init(&device()).unwrap(), &LoraConfig::new(3), 1).unwrap();
    let mut weights = read_adapter(&model).unwrap();
    for (site, weight) in &mut weights {
        if site.matrix == LoraMatrix::B {
            let shape = weight.dim();
            *weight = Array2::from_shape_fn(shape, |(i, j)| if j == 1 { 0.0 } else { 0.3 + ((2 * i + j) % 3) as f64 });
        }
    }
    let model = write_adapter(model, &weights).unwrap();
    let features = Array2::from_shape_fn((8, 6), |(i, j)| ((i * 5 + j * 3) % 7) as f64 / 3.0 - 1.0);
    let data = Points::new(features, (0..8).map(|i| i % 3).collect()).unwrap();
    for structure in [CurvatureStructure::Kronecker, CurvatureStructure::Ekfac] {
        let curvature = fit_curvature(&model, &data, &config(structure), &Control::silent()).unwrap();
        let laplace = Laplace::new(&model, &curvature, &fixed(4.0)).unwrap();
        let directions: f64 = laplace.groups()[0].spectrum.values.iter().map(|(_, n)| n).sum();
        assert_eq!(directions as usize, weights.values().map(|w| w.len()).sum::<usize>());
        let a = weights.keys().find(|site| site.matrix == LoraMatrix::A).unwrap();
        let n = 2000;
        let moved = |index| (&laplace.sample(1, index)[a] - &laplace.map()[a]).row(1).mapv(|v| v * v).sum() / 6.0;
        let variance = (0..n).map(moved).sum::<f64>() / n as f64;
        // 1/λ, within five standard errors of a variance from 6 n normals
        assert!((variance * 4.0 - 1.0).abs() < 5.0 * (2.0 / (6.0 * n as f64)).sqrt(), "{structure}: {variance}");
    }
}
