//! The posterior of one task as the prior of the next, against dense matrices.

use super::{config, covariance, fixed};
use crate::support::points::blobs;
use crate::support::{FIXTURES, Fixture, device, f64_or_skip};
use bayes_lora::curvature::{
    AdapterSubset, CoordinateKind, Coupling, Curvature, CurvatureStructure, CurvatureSums, FactorSum, Plan,
    RandomProjection, fit_curvature,
};
use bayes_lora::data::BatchLimits;
use bayes_lora::identity::Identity;
use bayes_lora::likelihood::Categorical;
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Mlp, MlpConfig, Points};
use bayes_lora::posterior::{AdapterAverage, Laplace, PosteriorPrior, log_likelihood_gradient};
use bayes_lora::prior::{PriorGrouping, PriorMean, PriorPrecision, PriorPrecisions};
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site};
use bayes_lora::train::{AdapterPrior, Objective, Trainer, TrainerConfig};
use burn::tensor::DType;
use ndarray::{Array1, Array2, Array4};
use std::collections::BTreeMap;

/// Two f64 algorithms for one result; the condition of the precisions here is below 1e4.
pub(super) const DENSE: f64 = 1e-9;

pub(super) const OVER_WEIGHTS: [CurvatureStructure; 6] = [
    CurvatureStructure::Full,
    CurvatureStructure::SiteBlock,
    CurvatureStructure::Diagonal,
    CurvatureStructure::Kronecker,
    CurvatureStructure::Ekfac,
    CurvatureStructure::FunctionSpace,
];

pub(super) fn start(rank: usize, alpha: f64) -> Mlp {
    let base = MlpConfig::new([2, 6, 2]).with_seed(1).with_dtype(DType::F64).init(&device()).unwrap();
    attach(base, &LoraConfig::new(rank).with_alpha(alpha), 3).unwrap()
}

pub(super) fn fit(model: Mlp, data: &Points, config: &TrainerConfig) -> Mlp {
    Trainer::new(config.clone()).unwrap().fit(model, data, None, &Control::silent()).unwrap().model
}

pub(super) fn quick() -> TrainerConfig {
    TrainerConfig::default().with_epochs(20).with_learning_rate(0.02)
}

pub(super) fn curvature(model: &Mlp, data: &Points, structure: CurvatureStructure) -> Curvature {
    fit_curvature(model, data, &config(structure), &Control::silent()).unwrap()
}

pub(super) fn laplace(model: &Mlp, data: &Points, structure: CurvatureStructure, lambda: f64) -> Laplace {
    Laplace::new(model, &curvature(model, data, structure), &fixed(lambda)).unwrap()
}

/// Points of another task: the first one's turned by a right angle.
pub(super) fn turned(points: &Points) -> Points {
    let mut turned = points.clone();
    turned.features = Array2::from_shape_fn(points.features.dim(), |(i, j)| {
        if j == 0 { -points.features[[i, 1]] } else { points.features[[i, 0]] + 0.5 }
    });
    turned
}

pub(super) fn flat(weights: &AdapterWeights) -> Array1<f64> {
    weights.values().flat_map(|w| w.iter().copied()).collect()
}

fn shaped(entries: &Array1<f64>, like: &AdapterWeights) -> AdapterWeights {
    let mut next = entries.iter().copied();
    let mut take = |w: &Array2<f64>| Array2::from_shape_simple_fn(w.dim(), || next.next().unwrap());
    like.iter().map(|(site, w)| (site.clone(), take(w))).collect()
}

/// The matrix of a linear map of adapters, column by column.
pub(super) fn matrix(like: &AdapterWeights, map: impl Fn(&AdapterWeights) -> AdapterWeights) -> Array2<f64> {
    let n = flat(like).len();
    let mut matrix = Array2::zeros((n, n));
    for (j, mut column) in matrix.columns_mut().into_iter().enumerate() {
        let mut unit = Array1::zeros(n);
        unit[j] = 1.0;
        column.assign(&flat(&map(&shaped(&unit, like))));
    }
    matrix
}

pub(super) fn product_matrix(laplace: &Laplace) -> Array2<f64> {
    matrix(laplace.map(), |v| laplace.precision_product(v).unwrap())
}

/// H from the sums themselves, in the order of the adapter's matrices.
pub(super) fn dense(curvature: &Curvature, like: &AdapterWeights) -> Array2<f64> {
    let mut offset = BTreeMap::new();
    let mut n = 0;
    for (site, w) in like {
        offset.insert(site.clone(), n);
        n += w.len();
    }
    let mut h = Array2::zeros((n, n));
    match &curvature.sums {
        CurvatureSums::Diagonal(sums) => {
            for sum in sums {
                sum.kept.iter().enumerate().for_each(|(i, v)| {
                    let at = offset[&sum.space.site] + i;
                    h[[at, at]] = *v;
                });
            }
        }
        CurvatureSums::Joint(sums) => {
            for sum in sums {
                let places = sum.spaces.iter().flat_map(|s| (0..s.width()).map(|i| offset[&s.site] + i));
                let places: Vec<usize> = places.collect();
                for ((i, j), v) in sum.sum.to_matrix(places.len()).indexed_iter() {
                    h[[places[i], places[j]]] = *v;
                }
            }
        }
        CurvatureSums::Kronecker(all) => {
            for factors in all {
                let (FactorSum::Dense(a), FactorSum::Dense(g)) = (&factors.activation, &factors.gradient) else {
                    panic!("factors of a few rows are dense")
                };
                let (at, d) = (offset[&factors.site], a.nrows());
                for ((o, p), of_g) in g.indexed_iter() {
                    for ((i, j), of_a) in a.indexed_iter() {
                        h[[at + o * d + i, at + p * d + j]] = of_g * of_a / curvature.normalizer(factors);
                    }
                }
            }
        }
    }
    h
}

pub(super) fn near(found: &Array2<f64>, expected: &Array2<f64>, what: &str) {
    let scale = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let error = (found - expected).iter().fold(0.0f64, |m, v| m.max(v.abs())) / scale;
    assert!(error < DENSE, "{what}: {error:e}");
}

/// A trained adapter and its task.
pub(super) fn first_task() -> (Mlp, Points) {
    let data = blobs(40, 3);
    (fit(start(2, 4.0), &data, &quick()), data)
}

#[test]
fn the_precisions_product_is_that_of_the_dense_matrix_and_the_inverse_of_the_covariance() {
    if !f64_or_skip("precision products") {
        return;
    }
    let (model, data) = first_task();
    let map = read_adapter(&model).unwrap();
    let n = flat(&map).len();
    let low_rank = config(CurvatureStructure::Kronecker).with_dense_limit(0).with_low_rank(2);
    for config in OVER_WEIGHTS.map(config).into_iter().chain([low_rank]) {
        let (structure, lambda, temperature) = (config.structure, 0.7, 2.5);
        let sums = fit_curvature(&model, &data, &config, &Control::silent()).unwrap();
        let laplace = Laplace::new(&model, &sums, &fixed(lambda)).unwrap().with_temperature(temperature).unwrap();
        let found = product_matrix(&laplace);
        if structure != CurvatureStructure::Ekfac && config.dense_limit.is_none() {
            let expected = (dense(&sums, &map) + Array2::<f64>::eye(n) * lambda) / temperature;
            near(&found, &expected, &format!("{structure} against its sums"));
        }
        // the covariance of all weights, as that of n outputs whose Jacobians are the unit vectors
        let mut at = 0;
        let jacobian = |w: &Array2<f64>| {
            let (first, (rows, columns)) = (at, w.dim());
            at += w.len();
            Array4::from_shape_fn((1, n, rows, columns), |(_, k, i, j)| {
                f64::from(u8::from(k == first + i * columns + j))
            })
        };
        let mut jacobian = jacobian;
        let jacobians = map.iter().map(|(site, w)| (site.clone(), jacobian(w))).collect();
        let sigma = covariance(&laplace, &jacobians, lambda).index_axis_move(ndarray::Axis(0), 0);
        near(&found.dot(&sigma), &Array2::eye(n), &format!("{structure} against its covariance"));
    }
}

#[test]
fn the_penalty_and_its_gradient_are_those_of_the_quadratic_form() {
    if !f64_or_skip("penalties") {
        return;
    }
    let (model, data) = first_task();
    let map = read_adapter(&model).unwrap();
    let elsewhere: AdapterWeights = map.iter().map(|(s, w)| (s.clone(), w * 1.3 + 0.1)).collect();
    let d = flat(&elsewhere) - flat(&map);
    for structure in OVER_WEIGHTS {
        let laplace = laplace(&model, &data, structure, 0.7);
        let expected = 0.5 * 3.0 * d.dot(&product_matrix(&laplace).dot(&d));
        let prior = PosteriorPrior::new(&model, laplace).unwrap().weighted(3.0).unwrap();
        let penalty = prior.penalty(&elsewhere).unwrap();
        assert!((penalty / expected - 1.0).abs() < DENSE, "{structure}: {penalty} against {expected}");
        let gradient = flat(&prior.gradient(&elsewhere).unwrap());
        for i in 0..d.len() {
            let moved = |h: f64| {
                let mut entries = flat(&elsewhere);
                entries[i] += h;
                prior.penalty(&shaped(&entries, &map)).unwrap()
            };
            // central differences of a quadratic form have no error but rounding
            let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
            assert!((slope - gradient[i]).abs() < 1e-8 * (1.0 + penalty), "{structure} {i}: {slope}, {}", gradient[i]);
        }
        assert_eq!(prior.penalty(&map).unwrap(), 0.0);
    }
}

#[test]
fn groups_of_weights_keep_their_own_precision_in_the_next_prior() {
    if !f64_or_skip("grouped precision") {
        return;
    }
    let (model, data) = first_task();
    let map = read_adapter(&model).unwrap();
    let sums = curvature(&model, &data, CurvatureStructure::Diagonal);
    let grouped = fixed(1.0).with_prior_grouping(PriorGrouping::PerMatrix);
    let laplace = Laplace::new(&model, &sums, &grouped).unwrap();
    let of = |matrix: &str| if matrix == "lora_A" { 2.0 } else { 5.0 };
    let precisions = laplace.groups().iter().map(|group| PriorPrecision::new(of(&group.name)).unwrap()).collect();
    let laplace = laplace.with_prior_precisions(PriorPrecisions::new(precisions).unwrap()).unwrap();
    let lambda: Array1<f64> = map.iter().flat_map(|(site, w)| vec![of(&site.matrix.to_string()); w.len()]).collect();
    near(&product_matrix(&laplace), &(dense(&sums, &map) + Array2::from_diag(&lambda)), "grouped");
}

#[test]
fn structures_over_other_coordinates_and_posteriors_of_a_part_are_refused_by_name() {
    if !f64_or_skip("refused priors") {
        return;
    }
    let (model, data) = first_task();
    let sketched = Plan::of_jacobians(CoordinateKind::Sketch, Coupling::None);
    for (config, words) in [
        (config(CurvatureStructure::Core), "core space posterior"),
        (config(CurvatureStructure::CoreBlock), "core block posterior"),
        (
            config(CurvatureStructure::Custom(sketched)).with_projection(RandomProjection { width: 9, seed: 1 }),
            "sketched weights",
        ),
        (config(CurvatureStructure::Kronecker).with_subset(AdapterSubset::OnlyB), "lora_A` fixed"),
    ] {
        let sums = fit_curvature(&model, &data, &config, &Control::silent()).unwrap();
        let laplace = Laplace::new(&model, &sums, &fixed(1.0)).unwrap();
        let average = AdapterAverage::new(&[(&model, &laplace)]).unwrap_err().to_string();
        let error = PosteriorPrior::new(&model, laplace).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(error, average);
    }
    let cores = curvature(&model, &data, CurvatureStructure::Core);
    let error = cores.carried_to(&read_adapter(&model).unwrap()).unwrap_err().to_string();
    assert!(error.contains("core space curvature"), "{error}");
    let prior = PosteriorPrior::new(&model, laplace(&model, &data, CurvatureStructure::Diagonal, 1.0)).unwrap();
    let error = prior.weighted(0.0).unwrap_err().to_string();
    assert!(error.contains("positive") && error.contains('0'), "{error}");
}

/// An isotropic prior of the program's own.
#[derive(Debug)]
struct Isotropic(f64, AdapterWeights);

impl AdapterPrior for Isotropic {
    fn centre(&self) -> &AdapterWeights {
        &self.1
    }

    fn precision_product(&self, deviation: &AdapterWeights) -> bayes_lora::error::Result<AdapterWeights> {
        Ok(deviation.iter().map(|(site, w)| (site.clone(), w * self.0)).collect())
    }

    fn identity(&self) -> Identity {
        Identity::new().with("isotropic", self.0)
    }
}

#[test]
fn an_isotropic_prior_of_the_programs_own_trains_as_maximum_a_posteriori_does() {
    if !f64_or_skip("isotropic priors") {
        return;
    }
    let data = blobs(40, 3);
    let start = start(2, 4.0);
    let centre = read_adapter(&start).unwrap();
    let precision = PriorPrecision::new(3.0).unwrap();
    // two micro-batches a step: the prior counts once
    let run = |objective| fit(start.clone(), &data, &quick().with_accumulation(2).with_objective(objective));
    let built_in = run(Objective::MaximumAPosteriori { precision, mean: PriorMean::Initial });
    let own = run(Objective::under(Isotropic(3.0, centre)));
    let free = run(Objective::MaximumLikelihood);
    let [built_in, own, free] = [built_in, own, free].map(|model| flat(&read_adapter(&model).unwrap()));
    // the same sums in another order, and burn rounds scalars to f32
    let distance = |a: &Array1<f64>, b: &Array1<f64>| (a - b).mapv(|v| v * v).sum().sqrt();
    assert!(distance(&built_in, &own) < 1e-4 * distance(&own, &free), "{}", distance(&built_in, &own));
}

#[test]
fn the_next_task_ends_where_its_likelihood_and_the_earlier_posterior_balance() {
    if !f64_or_skip("stationarity of the next task") {
        return;
    }
    let (model, data) = first_task();
    let second = turned(&data);
    let at_first = log_likelihood_gradient(&model, &second, &Categorical, &whole(), &Control::silent()).unwrap();
    let at_first = flat(&at_first).mapv(|v| v * v).sum().sqrt();
    for structure in [CurvatureStructure::Diagonal, CurvatureStructure::Kronecker, CurvatureStructure::FunctionSpace] {
        let prior = PosteriorPrior::new(&model, laplace(&model, &data, structure, 0.7)).unwrap();
        let config = quick().with_epochs(1500).with_limits(whole()).with_max_grad_norm(None);
        let next = fit(model.clone(), &second, &config.with_objective(Objective::under(prior.clone())));
        let likelihood = log_likelihood_gradient(&next, &second, &Categorical, &whole(), &Control::silent()).unwrap();
        let weights = read_adapter(&next).unwrap();
        let rest = flat(&likelihood) - flat(&prior.gradient(&weights).unwrap());
        let rest = rest.mapv(|v| v * v).sum().sqrt();
        // AdamW comes to rest but for its last steps, whose rate decays to zero
        assert!(rest < 1e-3 * at_first, "{structure}: {rest} of {at_first}");
        assert!(prior.penalty(&weights).unwrap() > 0.1);
    }
}

fn whole() -> BatchLimits {
    BatchLimits { max_items: 64, max_tokens: 1000 }
}

#[test]
fn an_adapted_head_keeps_its_prior_in_the_rows_that_no_answer_reads() {
    if !f64_or_skip("precision of a head") {
        return;
    }
    let fixture = Fixture::load(FIXTURES[0]);
    let targets = LoraConfig::new(2).with_target_modules(["lm_head"]);
    let model = attach(fixture.bare(DType::F64), &targets, 3).unwrap();
    let mut weights = read_adapter(&model).unwrap();
    weights.values_mut().for_each(|w| w.iter_mut().enumerate().for_each(|(i, v)| *v += 0.01 * (i % 7) as f64));
    let model = write_adapter(model, &weights).unwrap();
    let site = Site { module: "lm_head".into(), matrix: LoraMatrix::B };
    for structure in [CurvatureStructure::Full, CurvatureStructure::Kronecker, CurvatureStructure::Diagonal] {
        let sums = fit_curvature(&model, &fixture.train, &config(structure), &Control::silent()).unwrap();
        let laplace = Laplace::new(&model, &sums, &fixed(0.7)).unwrap();
        let image = laplace.precision_product(&weights).unwrap();
        let classes = laplace.blocks().iter().flat_map(|block| block.spaces()).find_map(|s| s.output_rows.clone());
        let classes = classes.unwrap();
        for (row, (image, weight)) in image[&site].outer_iter().zip(weights[&site].outer_iter()).enumerate() {
            assert_eq!(image == weight.mapv(|w| w * 0.7), !classes.contains(&row), "{structure}, row {row}");
        }
        // symmetric and above the prior, whatever the rows
        let along: f64 = weights.iter().map(|(site, w)| (w * &image[site]).sum()).sum();
        let square: f64 = weights.values().map(|w| w.mapv(|v| v * v).sum()).sum();
        assert!(along > 0.7 * square);
    }
}
