//! What the gauge `B → BS`, `A → S⁻¹A` does to each structure: the function stays, the prior's units do not.

use super::{ALGEBRA, cases, covariance, fit, fixed, jacobians};
use crate::support::{Fixture, logits, relative_error};
use bayes_lora::curvature::{CoreSpace, CurvatureStructure, CurvatureSums};
use bayes_lora::lora::{AdapterWeights, canonicalize, read_adapter, write_adapter};
use bayes_lora::models::PromptClassifier;
use bayes_lora::posterior::Laplace;
use bayes_lora::tape::{LoraMatrix, Site};
use ndarray::{Array2, s};

fn site(module: &str, matrix: LoraMatrix) -> Site {
    Site { module: module.into(), matrix }
}

/// The same function in another gauge, with an upper triangular S.
fn regauged(model: &PromptClassifier) -> PromptClassifier {
    let mut weights = read_adapter(model).unwrap();
    let modules: Vec<String> = weights.keys().filter(|s| s.matrix == LoraMatrix::A).map(|s| s.module.clone()).collect();
    for module in modules {
        let a = weights[&site(&module, LoraMatrix::A)].clone();
        let rank = a.nrows();
        // S = D(I + N) with N nilpotent in one off-diagonal: S⁻¹ = (I − N)D⁻¹
        let scales: Vec<f64> = (0..rank).map(|i| 0.5 + i as f64).collect();
        let mut s = Array2::from_diag(&ndarray::Array1::from(scales.clone()));
        let mut inverse = Array2::from_diag(&scales.iter().map(|v| 1.0 / v).collect::<ndarray::Array1<f64>>());
        if rank > 1 {
            s[[0, rank - 1]] = 0.7 * scales[0];
            inverse[[0, rank - 1]] = -0.7 / scales[rank - 1];
        }
        let b = weights[&site(&module, LoraMatrix::B)].dot(&s);
        weights.insert(site(&module, LoraMatrix::A), inverse.dot(&a));
        weights.insert(site(&module, LoraMatrix::B), b);
    }
    write_adapter(model.clone(), &weights).unwrap()
}

fn posterior_covariance(
    fixture: &Fixture,
    model: &PromptClassifier,
    structure: CurvatureStructure,
) -> ndarray::Array3<f64> {
    let laplace = Laplace::new(model, &fit(model, &fixture.train, structure), &fixed(1.0)).unwrap();
    covariance(&laplace, &jacobians(model, &fixture.test), 1.0)
}

#[test]
fn cores_do_not_see_the_gauge_and_every_other_structure_does() {
    for (fixture, model) in cases("gauge") {
        let other = regauged(&model);
        let change = relative_error(&logits(&other, &fixture.test), &logits(&model, &fixture.test));
        assert!(change < 1e-10, "{}: the gauge changed the function by {change:e}", fixture.name);
        for structure in CurvatureStructure::ALL {
            let [here, there] = [&model, &other].map(|m| posterior_covariance(&fixture, m, structure));
            let change = relative_error(&there, &here);
            println!("{} {structure}: {change:.1e}", fixture.name);
            match structure {
                _ if structure.plan().coordinates.is_of_modules() => {
                    assert!(change < ALGEBRA, "{}: {change:e}", fixture.name)
                }
                _ => assert!(change > 1e-3, "{} {structure} changed by {change:e} only", fixture.name),
            }
        }
    }
}

#[test]
fn a_canonical_adapter_is_the_same_function_in_one_gauge() {
    for (fixture, model) in cases("canonical") {
        let [here, there] = [model.clone(), regauged(&model)].map(|m| canonicalize(m).unwrap());
        for canonical in [&here, &there] {
            let change = relative_error(&logits(canonical, &fixture.test), &logits(&model, &fixture.test));
            assert!(change < 1e-10, "{}: {change:e}", fixture.name); // f64 rounding of a forward pass
        }
        let structure = CurvatureStructure::FunctionSpace;
        let [a, b] = [&here, &there].map(|m| posterior_covariance(&fixture, m, structure));
        // singular vectors are found from Gram matrices, to the square root of f64's rounding for the smallest values
        assert!(relative_error(&a, &b) < 1e-6, "{}: {:e}", fixture.name, relative_error(&a, &b));
    }
}

/// Derivatives of logits by the entries of a core, by central differences.
#[test]
fn core_jacobians_equal_finite_differences() {
    const STEP: f64 = 1e-5;
    for (fixture, model) in cases("core Jacobians") {
        let weights = read_adapter(&model).unwrap();
        let jacobians = jacobians(&model, &fixture.test);
        let curvature = fit(&model, &fixture.train, CurvatureStructure::Core);
        let CurvatureSums::Joint(blocks) = &curvature.sums else { panic!("core space is joint") };
        for space in &blocks[0].spaces {
            let core = CoreSpace::new(&weights, &space.site.module).unwrap();
            let (rows, columns) = core.trained.dim();
            for (i, j) in [(0, 0), (rows - 1, 0), (rows - 1, columns - 1)] {
                let moved = |step: f64| {
                    let mut moved = core.trained.clone();
                    moved[[i, j]] += step;
                    let mut weights: AdapterWeights = weights.clone();
                    set(&mut weights, &core, &moved);
                    logits(&write_adapter(model.clone(), &weights).unwrap(), &fixture.test)
                };
                let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                let of_a = &jacobians[&space.site];
                let (n, classes, _, _) = of_a.dim();
                let found = Array2::from_shape_fn((n, classes), |(item, c)| {
                    core.project(of_a.slice(s![item, c, .., ..]))[[i, j]]
                });
                let error = relative_error(&found, &expected);
                assert!(error < 1e-6, "{} {}: {error:e}", fixture.name, space.site); // see central_difference
            }
        }
    }
}

/// Writes `B = U·core`, `A = Vᵀ`.
fn set(weights: &mut AdapterWeights, space: &CoreSpace, core: &Array2<f64>) {
    let rank = core.ncols();
    let b = weights.get_mut(&site(&space.module, LoraMatrix::B)).unwrap();
    b.fill(0.0);
    b.slice_mut(s![.., ..rank]).assign(&space.column_basis.dot(core));
    let a = weights.get_mut(&site(&space.module, LoraMatrix::A)).unwrap();
    a.fill(0.0);
    a.slice_mut(s![..rank, ..]).assign(&space.row_basis.t());
}
