//! Structures that the library does not name: a plan is all that fitting, merging, files, estimates and posteriors need.

use super::{ALGEBRA, cases, config, covariance, fixed, full_matrix, half, jacobians};
use crate::support::{FIXTURES, Fixture, relative_error};
use bayes_lora::curvature::{
    CoordinateKind, Coupling, Curvature, CurvatureConfig, CurvatureStructure, CurvatureSums, Held, Plan,
    RandomProjection, Source, estimate_cost, fit_curvature,
};
use bayes_lora::data::EncodedDataset;
use bayes_lora::models::PromptClassifier;
use bayes_lora::posterior::Laplace;
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::{Array1, Array2, s};

/// Random sums of each site's weights, uncoupled.
const SKETCHED_DIAGONAL: Plan = Plan::of_jacobians(CoordinateKind::Sketch, Coupling::None);

/// The entries of cores, uncoupled; unlike cores that are coupled, these depend on the adapter's gauge.
const CORE_DIAGONAL: Plan = Plan::of_jacobians(CoordinateKind::Core, Coupling::None);

/// Random sums of each site's weights, coupled within the site.
const SKETCHED_BLOCK: Plan = Plan::of_jacobians(CoordinateKind::Sketch, Coupling::Site(Held::Smaller));

/// The exact blocks of the sites, as rows whatever their number.
const SITE_ROWS: Plan = Plan::of_jacobians(CoordinateKind::Weights, Coupling::Site(Held::Rows));

const PLANS: [Plan; 4] = [SKETCHED_DIAGONAL, CORE_DIAGONAL, SKETCHED_BLOCK, SITE_ROWS];

const PROJECTION: RandomProjection = RandomProjection { width: 200, seed: 4 };

/// The settings of a plan that has no name, with a projection where it needs one.
fn of(plan: Plan) -> CurvatureConfig {
    let projection = (plan.coordinates == CoordinateKind::Sketch).then_some(PROJECTION);
    config(CurvatureStructure::Custom(plan)).with_projection(projection)
}

fn fit(model: &PromptClassifier, data: &EncodedDataset, config: &CurvatureConfig) -> Curvature {
    fit_curvature(model, data, config, &Control::silent()).unwrap()
}

/// All numbers of a sum with one entry a coordinate.
fn diagonal(curvature: &Curvature) -> Array1<f64> {
    let CurvatureSums::Diagonal(sums) = &curvature.sums else { panic!("uncoupled sums were asked for") };
    sums.iter().flat_map(|sum| sum.kept.iter().copied()).collect()
}

#[test]
fn uncoupled_plans_are_the_diagonal_of_the_coupled_ones_in_their_coordinates() {
    for (fixture, model) in cases("plans") {
        let sketched = config(CurvatureStructure::FunctionSpace).with_projection(PROJECTION);
        for (plan, coupled) in [(SKETCHED_DIAGONAL, sketched), (CORE_DIAGONAL, config(CurvatureStructure::Core))] {
            let expected = full_matrix(&fit(&model, &fixture.train, &coupled)).diag().to_owned();
            let error = relative_error(&diagonal(&fit(&model, &fixture.train, &of(plan))), &expected);
            assert!(error < ALGEBRA, "{} {plan}: {error:e}", fixture.name);
        }
    }
}

#[test]
fn plans_within_a_site_are_the_blocks_of_those_that_couple_all() {
    for (fixture, model) in cases("blocks of plans").take(1) {
        let sketched = config(CurvatureStructure::FunctionSpace).with_projection(PROJECTION);
        let whole = full_matrix(&fit(&model, &fixture.train, &sketched));
        let CurvatureSums::Joint(blocks) = fit(&model, &fixture.train, &of(SKETCHED_BLOCK)).sums else {
            panic!("coupled sums were asked for")
        };
        let mut start = 0;
        for block in &blocks {
            let width = block.spaces[0].width();
            let expected: Array2<f64> = whole.slice(s![start..start + width, start..start + width]).to_owned();
            assert!(relative_error(&block.sum.to_matrix(width), &expected) < ALGEBRA);
            start += width;
        }
        assert_eq!(start, whole.nrows());
        let test = jacobians(&model, &fixture.test);
        let [rows, named] = [of(SITE_ROWS), config(CurvatureStructure::SiteBlock)].map(|config| {
            covariance(&Laplace::new(&model, &fit(&model, &fixture.train, &config), &fixed(1.0)).unwrap(), &test, 1.0)
        });
        assert!(relative_error(&rows, &named) < ALGEBRA);
    }
}

#[test]
fn a_plan_without_a_name_merges_is_estimated_saved_and_has_a_posterior() {
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32);
    let dir = tempfile::tempdir().unwrap();
    for plan in PLANS {
        let config = of(plan);
        let [whole, here, there] = [fixture.train.clone(), half(&fixture.train, 0), half(&fixture.train, 1)]
            .map(|data| fit(&model, &data, &config));
        let cost = estimate_cost(&model, &fixture.train, &config).unwrap();
        assert!(cost.to_string().starts_with(&format!("custom ({plan}):")), "{cost}");
        let sums: usize = match &whole.sums {
            CurvatureSums::Diagonal(sums) => sums.iter().map(|sum| 8 * sum.kept.len()).sum(),
            CurvatureSums::Joint(blocks) => blocks.iter().map(|block| block.sum.bytes()).sum(),
            CurvatureSums::Kronecker(_) => panic!("Jacobians were asked for"),
        };
        assert_eq!(cost.bytes, sums as u64, "{plan}");

        let path = dir.path().join("sums.safetensors");
        whole.save(&path).unwrap();
        assert_eq!(Curvature::load(&path).unwrap(), whole, "{plan}");

        let merged = here.merge(there).unwrap();
        let test = jacobians(&model, &fixture.test);
        let [all, parts] = [&whole, &merged].map(|curvature| Laplace::new(&model, curvature, &fixed(1.0)).unwrap());
        let error = relative_error(&covariance(&parts, &test, 1.0), &covariance(&all, &test, 1.0));
        assert!(error < 1e-5, "{plan}: {error:e}"); // a network in f32, batch by batch

        let path = dir.path().join("posterior.safetensors");
        all.save(&path, &model).unwrap();
        let back = Laplace::load(&path, &model).unwrap();
        assert_eq!(back.structure().plan(), plan);
        assert_eq!(back.sample(1, 2), all.sample(1, 2), "{plan}");
        assert_ne!(back.sample(1, 2), *all.map(), "{plan}");
    }
}

#[test]
fn plans_without_meaning_are_refused() {
    let fixture = Fixture::load(FIXTURES[0]);
    let model = fixture.model(DType::F32);
    let plain = |plan| config(CurvatureStructure::Custom(plan));
    let coupled = Plan::of_jacobians(CoordinateKind::Kronecker, Coupling::Site(Held::Smaller));
    let factors = Plan { source: Source::Factors, ..CORE_DIAGONAL };
    let projected = plain(CORE_DIAGONAL).with_projection(PROJECTION);
    for (config, expected) in [
        (plain(coupled), ["Kronecker coordinates, coupled within a site", "not coupled"]),
        (plain(factors), ["factors in cores, uncoupled", "Kronecker coordinates"]),
        (plain(SKETCHED_DIAGONAL), ["sketched weights, uncoupled", "random projection"]),
        (projected, ["cores, uncoupled", "random projection"]),
    ] {
        let error = fit_curvature(&model, &fixture.train, &config, &Control::silent()).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{error}");
        }
    }
}
