//! Prior precisions by group, and where their evidence is largest.

use super::{cases, config, fit, fixed};
use bayes_lora::curvature::{CurvatureStructure, fit_curvature};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::prior::{PriorGrouping, PriorPrecision, PriorPrecisions};
use bayes_lora::progress::Control;

const GROUPINGS: [PriorGrouping; 4] =
    [PriorGrouping::Scalar, PriorGrouping::PerLayer, PriorGrouping::PerMatrix, PriorGrouping::PerSite];

fn times(precisions: &PriorPrecisions, group: usize, factor: f64) -> PriorPrecisions {
    let mut values = precisions.values().to_vec();
    values[group] = PriorPrecision::new(values[group].value() * factor).unwrap();
    PriorPrecisions::new(values).unwrap()
}

#[test]
fn no_neighbour_of_any_group_has_more_evidence() {
    for (fixture, model) in cases("groups") {
        for structure in [CurvatureStructure::Kronecker, CurvatureStructure::Diagonal, CurvatureStructure::SiteBlock] {
            let curvature = fit(&model, &fixture.train, structure);
            let mut last = f64::NEG_INFINITY;
            for prior_grouping in GROUPINGS {
                let config = LaplaceConfig { prior_grouping, ..LaplaceConfig::default() };
                let laplace = Laplace::new(&model, &curvature, &config).unwrap();
                let evidence = |p: &PriorPrecisions| laplace.log_marginal_likelihood(p).unwrap();
                let best = evidence(laplace.prior_precisions());
                for group in 0..laplace.groups().len() {
                    for step in [1e-3f64, 0.1, 2.0] {
                        for factor in [step.exp(), (-step).exp()] {
                            let there = evidence(&times(laplace.prior_precisions(), group, factor));
                            assert!(there < best, "{} {structure} {prior_grouping:?}", fixture.name);
                        }
                    }
                }
                // finer groups can only do better than the scalar prior
                if prior_grouping == PriorGrouping::Scalar {
                    last = best;
                }
                assert!(best >= last - 1e-9);
            }
        }
    }
}

#[test]
fn coupled_structures_refuse_grouped_priors_and_cores_have_neither_a_nor_b() {
    for (fixture, model) in cases("refused groups").take(1) {
        for (structure, grouping, word) in [
            (CurvatureStructure::Full, PriorGrouping::PerSite, "couples"),
            (CurvatureStructure::FunctionSpace, PriorGrouping::PerMatrix, "couples"),
            (CurvatureStructure::Core, PriorGrouping::PerMatrix, "core space"),
        ] {
            let curvature = fit(&model, &fixture.train, structure);
            let config = LaplaceConfig { prior_grouping: grouping, ..fixed(1.0) };
            let error = Laplace::new(&model, &curvature, &config).unwrap_err().to_string();
            assert!(error.contains(word), "{structure}: {error}");
        }
    }
}

#[test]
fn the_number_of_precisions_must_be_that_of_the_groups() {
    for (fixture, model) in cases("counts").take(1) {
        let curvature =
            fit_curvature(&model, &fixture.train, &config(CurvatureStructure::Kronecker), &Control::silent()).unwrap();
        let config = LaplaceConfig { prior_grouping: PriorGrouping::PerMatrix, ..fixed(1.0) };
        let laplace = Laplace::new(&model, &curvature, &config).unwrap();
        let three = PriorPrecisions::new(vec![PriorPrecision::new(1.0).unwrap(); 3]).unwrap();
        let error = laplace.with_prior_precisions(three).unwrap_err().to_string();
        assert!(error.contains("expected 2, found 3"), "{error}");
    }
}
