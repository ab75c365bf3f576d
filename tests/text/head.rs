//! An adapter on the output head: its Jacobians and the curvature of every structure, written out from the hidden states.

use super::{ALL, headed, text, texts};
use crate::support::families::{FamilyFixture, SPELLINGS};
use crate::support::{central_difference, device, f64_or_skip, relative_error};
use bayes_lora::belief::softmax;
use bayes_lora::curvature::{
    AdapterSubset, Coordinates, CoreSpace, Cotangents, Curvature, CurvatureConfig, CurvatureStructure, CurvatureSums,
    DiagonalSum, FactorSum, FisherKind, JointSum, correct_eigenvalues, fit_curvature, probe,
};
use bayes_lora::data::{BatchLimits, TextDataset, TextExample};
use bayes_lora::likelihood::NextToken;
use bayes_lora::lora::{AdapterWeights, read_adapter};
use bayes_lora::models::{CausalLm, Dataset, TextModel, TokenBatch};
use bayes_lora::progress::Control;
use bayes_lora::tape::{LoraMatrix, Site, Tape};
use burn::tensor::{DType, Tensor};
use ndarray::{Array1, Array2, Array3, Axis, s};

/// Sums of the same products in another order, of f64.
const ROUNDING: f64 = 1e-10;

fn site(matrix: LoraMatrix) -> Site {
    Site { module: "lm_head".into(), matrix }
}

fn host(tensor: Tensor<2>) -> Array2<f64> {
    let dims = tensor.dims();
    Array2::from_shape_vec(dims, tensor.into_data().convert::<f64>().try_into_vec().unwrap()).unwrap()
}

/// What the two matrices of the head see and get at one scored token.
struct AtToken {
    /// h and A h
    inputs: [Array1<f64>; 2],
    /// `s Bᵀ(e_y − p)` and `s (e_y − p)`: `∂ log p(y)` by A h and by B A h, with s over the divisor of the logits.
    gradients: [Array1<f64>; 2],
}

/// Text by text.
fn written_out(lm: &CausalLm, weights: &AdapterWeights, data: &TextDataset, scale: f64) -> Vec<Vec<AtToken>> {
    let [a, b] = [LoraMatrix::A, LoraMatrix::B].map(|matrix| weights[&site(matrix)].clone());
    let of_text = |example: &TextExample| {
        let batch = TokenBatch::of_row(&example.ids, &device(), DType::F64).unwrap();
        let hidden = lm.hidden(&batch, &mut Tape::off());
        let p = softmax(host(lm.head(hidden.clone(), None, &mut Tape::off())).view());
        let hidden = host(hidden);
        let at = |t: usize| {
            let h = hidden.row(t - 1).to_owned();
            let mut error = -p.row(t - 1).to_owned();
            error[example.ids[t] as usize] += 1.0;
            let of_b = error * scale;
            AtToken { inputs: [h.clone(), a.dot(&h)], gradients: [b.t().dot(&of_b), of_b] }
        };
        example.scored_places().map(at).collect()
    };
    data.examples.iter().map(of_text).collect()
}

fn outer(g: &Array1<f64>, x: &Array1<f64>) -> Array2<f64> {
    g.view().insert_axis(Axis(1)).dot(&x.view().insert_axis(Axis(0)))
}

/// `Σ_t g_t x_tᵀ` of every text at one of the two, `[n, d_out, d_in]`.
fn jacobians(all: &[Vec<AtToken>], which: usize) -> Array3<f64> {
    let of_text = |tokens: &Vec<AtToken>| -> Array2<f64> {
        let products = tokens.iter().map(|at| outer(&at.gradients[which], &at.inputs[which]));
        products.reduce(|sum, product| sum + product).unwrap()
    };
    let texts: Vec<Array2<f64>> = all.iter().map(of_text).collect();
    let views: Vec<_> = texts.iter().map(|j| j.view()).collect();
    ndarray::stack(Axis(0), &views).unwrap()
}

fn empirical(structure: CurvatureStructure) -> CurvatureConfig {
    let config = CurvatureConfig::new(structure).with_likelihood(NextToken).with_fisher(FisherKind::Empirical);
    config.with_limits(BatchLimits { max_items: 3, max_tokens: 1000 }).with_dense_limit(1000)
}

fn fit(model: &TextModel, data: &TextDataset, config: &CurvatureConfig) -> Curvature {
    fit_curvature(model, data, config, &Control::silent()).unwrap()
}

/// The matrices of the blocks.
fn joint(curvature: &Curvature) -> Vec<Array2<f64>> {
    let CurvatureSums::Joint(blocks) = &curvature.sums else { panic!("a joint structure was asked for") };
    let matrix = |block: &JointSum| block.sum.to_matrix(block.spaces.iter().map(|space| space.width()).sum());
    blocks.iter().map(matrix).collect()
}

fn diagonals(curvature: &Curvature) -> &[DiagonalSum] {
    let CurvatureSums::Diagonal(sums) = &curvature.sums else { panic!("a diagonal was asked for") };
    sums
}

/// Heads of their own and tied to the embedding, with and without adapters below, and the factor `s` over the divisor of the logits.
fn cases() -> Vec<(TextModel, f64)> {
    let model =
        |family, targets: &[&str]| headed(FamilyFixture::load(family).bare(SPELLINGS[0], DType::F64).lm, targets);
    vec![
        (model("mistral", &["lm_head"]), 2.0),
        (model("mistral", &["q_proj", "lm_head"]), 2.0),
        (model("smollm3", &["lm_head"]), 2.0),
        (model("granite", &["q_proj", "lm_head"]), 2.0 / 4.0),
    ]
}

#[test]
fn the_jacobians_of_a_head_are_sums_over_the_scored_tokens() {
    if !f64_or_skip("Jacobians of a head") {
        return;
    }
    let data = texts(64);
    for (model, scale) in cases() {
        let weights = read_adapter(&model).unwrap();
        let all = written_out(&model.lm, &weights, &data, scale);
        let items: Vec<usize> = (0..data.len()).collect();
        let pass = probe(&model, &data.batch(&items, &device(), DType::F64).unwrap(), Cotangents::Classes).unwrap();
        for (which, matrix) in [LoraMatrix::A, LoraMatrix::B].into_iter().enumerate() {
            let probed = pass.sites.iter().find(|probed| probed.site == site(matrix)).unwrap();
            assert_eq!(probed.output_rows, None);
            let n_read: Vec<usize> =
                probed.mask.outer_iter().map(|item| item.iter().filter(|read| **read).count()).collect();
            assert_eq!(n_read, all.iter().map(Vec::len).collect::<Vec<_>>());
            let found = probed.jacobians().unwrap().index_axis_move(Axis(1), 0);
            let error = relative_error(&found, &jacobians(&all, which));
            assert!(error < ROUNDING, "{matrix}: {error:e}");
            assert!(relative_error(&found.slice(s![..1, .., ..]).to_owned(), &jacobians(&all[..1], which)) < ROUNDING);
        }
    }
}

#[test]
fn a_heads_jacobians_equal_finite_differences_whatever_is_done_to_the_logits() {
    if !f64_or_skip("finite differences of a head") {
        return;
    }
    // a cap, a divisor, a tied embedding; more scored tokens than a chunk of the head takes
    let long = text("long", (0..60).map(|t| (5 + 7 * t % 50) as u32).collect(), &[2..60]);
    let mut data = texts(64);
    data.examples.push(long);
    assert!(data.examples.iter().map(TextExample::n_scored).sum::<usize>() > 64);
    for family in ["gemma2", "granite", "smollm3", "mistral"] {
        let lm = FamilyFixture::load(family).bare(SPELLINGS[0], DType::F64).lm;
        let model = headed(lm, &["v_proj", "lm_head"]);
        let items: Vec<usize> = (0..data.len()).collect();
        let pass = probe(&model, &data.batch(&items, &device(), DType::F64).unwrap(), Cotangents::Classes).unwrap();
        assert!(pass.sites.len() > 2 && pass.sites.iter().any(|probed| probed.site == site(LoraMatrix::B)));
        for probed in &pass.sites {
            let jacobians = probed.jacobians().unwrap();
            for at in [[0, 0], [1, 1]] {
                let found = jacobians.slice(s![.., .., at[0], at[1]]).to_owned();
                let expected = central_difference(&model, &data, &probed.site, at);
                let error = relative_error(&found, &expected);
                assert!(error < 1e-6, "{family} {}: {error:e}", probed.site); // that of the difference
            }
        }
    }
}

#[test]
fn every_structure_holds_what_is_written_out() {
    if !f64_or_skip("curvature of a head") {
        return;
    }
    let data = texts(64);
    for (model, scale) in cases() {
        let weights = read_adapter(&model).unwrap();
        let all = written_out(&model.lm, &weights, &data, scale);
        let only = |config: CurvatureConfig| config.with_subset(AdapterSubset::LastLayer);
        let [of_a, of_b] = [0, 1].map(|which| jacobians(&all, which));
        let flat = |j: &Array3<f64>| j.to_shape((data.len(), j.len() / data.len())).unwrap().to_owned();
        let j = ndarray::concatenate(Axis(1), &[flat(&of_a).view(), flat(&of_b).view()]).unwrap();
        let h = j.t().dot(&j);

        for structure in [CurvatureStructure::Full, CurvatureStructure::FunctionSpace] {
            let found = joint(&fit(&model, &data, &only(empirical(structure)))).swap_remove(0);
            assert!(relative_error(&found, &h) < ROUNDING, "{structure}");
        }
        let blocks = joint(&fit(&model, &data, &only(empirical(CurvatureStructure::SiteBlock))));
        for (block, j) in blocks.iter().zip([flat(&of_a), flat(&of_b)]) {
            assert!(relative_error(block, &j.t().dot(&j)) < ROUNDING);
        }
        let diagonal = fit(&model, &data, &only(empirical(CurvatureStructure::Diagonal)));
        let found: Array1<f64> = diagonals(&diagonal).iter().flat_map(|sum| sum.kept.iter().copied()).collect();
        assert!(relative_error(&found, &h.diag().to_owned()) < ROUNDING);

        let core = CoreSpace::new(&weights, "lm_head").unwrap();
        let found = joint(&fit(&model, &data, &only(empirical(CurvatureStructure::Core)))).swap_remove(0);
        let mut expected = Array2::<f64>::zeros((core.n_unknowns(), core.n_unknowns()));
        for tokens in &all {
            let of_token = |at: &AtToken| outer(&core.column_basis.t().dot(&at.gradients[1]), &at.inputs[0]);
            let sum = tokens.iter().map(of_token).reduce(|sum, product| sum + product).unwrap();
            let j: Array1<f64> = sum.dot(&core.row_basis).into_iter().collect();
            expected = expected + outer(&j, &j);
        }
        assert!(relative_error(&found, &expected) < ROUNDING);

        // dense factors, and the vocabulary's at full rank
        let n_tokens: usize = all.iter().map(Vec::len).sum();
        let mut factors = Vec::new();
        for config in
            [empirical(CurvatureStructure::Kronecker), empirical(CurvatureStructure::Kronecker).with_dense_limit(40)]
        {
            let kronecker = fit(&model, &data, &only(config.with_low_rank(64)));
            for (which, found) in kronecker.kronecker_factors().unwrap().iter().enumerate() {
                assert_eq!((found.n_vectors, &found.output_rows), (n_tokens, &None));
                let sum = |of: fn(&AtToken) -> &[Array1<f64>; 2]| {
                    let each = all.iter().flatten().map(|at| outer(&of(at)[which], &of(at)[which]));
                    each.reduce(|sum, product| sum + product).unwrap()
                };
                let dense = |sum: &FactorSum| match sum {
                    FactorSum::Dense(matrix) => matrix.clone(),
                    FactorSum::LowRank(sum) => sum.factor.dot(&sum.factor.t()),
                };
                assert!(relative_error(&dense(&found.activation), &sum(|at| &at.inputs)) < ROUNDING);
                assert!(relative_error(&dense(&found.gradient), &sum(|at| &at.gradients)) < ROUNDING);
            }
            factors.push(kronecker);
        }
        assert!(matches!(factors[1].kronecker_factors().unwrap()[1].gradient, FactorSum::LowRank(_)));

        // second moments in the eigenbases: the diagonal of H there
        let ekfac = correct_eigenvalues(&model, &data, &factors[0], &Control::silent()).unwrap();
        for (sum, j) in diagonals(&ekfac).iter().zip([&of_a, &of_b]) {
            let Coordinates::Kronecker(basis) = &sum.space.coordinates else { panic!("EKFAC has a Kronecker basis") };
            let mut expected = Array1::zeros(sum.kept.len());
            for j in j.outer_iter() {
                let oriented = if basis.wide_is_input { j } else { j.reversed_axes() };
                let rotated = basis.narrow.basis.t().dot(&oriented).dot(&basis.wide.basis);
                expected = expected + rotated.iter().map(|v| v * v).collect::<Array1<f64>>();
            }
            assert!(relative_error(&sum.kept, &expected) < ROUNDING, "{}", sum.space.site);
        }
    }
}

#[test]
fn a_head_is_curved_alike_in_any_batches_and_beside_other_matrices() {
    if !f64_or_skip("batches of a head") {
        return;
    }
    let data = texts(64);
    let mut turned = data.clone();
    turned.examples.reverse();
    let (model, _) = cases().swap_remove(1);
    let matrix = |data: &TextDataset, limits, subset| {
        let config = super::sampled(CurvatureStructure::Full, 3, 1).with_limits(limits).with_subset(subset);
        joint(&fit(&model, data, &config)).swap_remove(0)
    };
    use AdapterSubset::{All, LastLayer};
    let whole = matrix(&data, ALL, All);
    for (data, max_items) in [(&data, 1), (&turned, 5)] {
        let other = matrix(data, BatchLimits { max_items, ..ALL }, All);
        assert!(relative_error(&other, &whole) < ROUNDING);
    }
    // the head's own block, where nothing else is recorded
    let head = matrix(&data, ALL, LastLayer);
    let start = whole.nrows() - head.nrows();
    assert!(relative_error(&head, &whole.slice(s![start.., start..]).to_owned()) < ROUNDING);
}
