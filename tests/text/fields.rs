//! Fields of answers in JSON: their parts of the log-likelihood, and their standard deviations against dense algebra.

use super::{ALL, sampled};
use crate::support::{device, f64_or_skip, relative_error, root};
use bayes_lora::curvature::{CurvatureStructure, CurvatureSums, fit_curvature};
use bayes_lora::data::{StructuredText, TextDataset, TextEncoding, TextItem, Tokenizer};
use bayes_lora::linalg::eigh;
use bayes_lora::lora::{AdapterWeights, LoraConfig, attach, read_adapter, write_adapter};
use bayes_lora::models::{Dataset, Pretrained, TextModel};
use bayes_lora::posterior::{Laplace, LaplaceConfig};
use bayes_lora::predict::{TextScore, score_fields, score_texts};
use bayes_lora::prior::PriorPrecision;
use bayes_lora::progress::Control;
use burn::tensor::DType;
use ndarray::{Array1, Array2};

const ANSWERS: [&str; 3] = [
    r#" {"person": {"name": "Bo \"B\" Lee", "age": 31}, "tags": ["a", true], "none": {}}"#,
    r#" {"é": "ü🦀", "n":-1.5e3}"#,
    " {}",
];

/// stories260K in f64 with an adapter of 224 weights whose B is not zero.
fn stories() -> TextModel {
    let dir = root().join("assets/stories260K");
    let model = TextModel::new(Pretrained::from_dir(dir).unwrap().with_dtype(DType::F64).load(&device()).unwrap());
    let lora = LoraConfig::new(1).with_target_pattern(r"model\.layers\.1\.self_attn\.[qv]_proj");
    let model = attach(model, &lora, 5).unwrap();
    let moved: AdapterWeights = read_adapter(&model)
        .unwrap()
        .into_iter()
        .map(|(site, values)| {
            let new =
                Array2::from_shape_fn(values.dim(), |(i, j)| values[[i, j]] + 0.05 * ((i * 7 + j * 3) % 5) as f64);
            (site, new)
        })
        .collect();
    write_adapter(model, &moved).unwrap()
}

fn structured() -> Vec<StructuredText> {
    let tokenizer = Tokenizer::from_dir(root().join("assets/stories260K")).unwrap();
    let text = |(i, answer): (usize, &&str)| {
        let item = TextItem::completion(i.to_string(), "Who was it?", *answer);
        StructuredText::new(&item, &TextEncoding::default(), &tokenizer).unwrap()
    };
    ANSWERS.iter().enumerate().map(text).collect()
}

fn data(texts: &[StructuredText]) -> TextDataset {
    TextDataset::new("answers", texts.iter().map(|text| text.example().clone()).collect()).unwrap()
}

fn wholes(model: &TextModel, data: &TextDataset) -> Vec<TextScore> {
    let items: Vec<usize> = (0..data.len()).collect();
    let tokens = model.token_scores(&data.batch(&items, &device(), DType::F64).unwrap()).unwrap();
    let score = |tokens: Vec<_>| TextScore {
        log_likelihood: tokens.iter().map(|token: &bayes_lora::models::TokenScore| token.log_probability).sum(),
        standard_deviation: 0.0,
        tokens,
    };
    tokens.into_iter().map(score).collect()
}

#[test]
fn fields_and_what_is_no_field_sum_to_the_whole() {
    if !f64_or_skip("fields") {
        return;
    }
    let (model, texts) = (stories(), structured());
    let scores = wholes(&model, &data(&texts));
    let found = score_fields(&model, None, &texts, &scores, &ALL, &Control::silent()).unwrap();
    let tokenizer = Tokenizer::from_dir(root().join("assets/stories260K")).unwrap();
    let paths: Vec<Vec<&str>> =
        found.iter().map(|of| of.fields.iter().map(|field| field.path.as_str()).collect()).collect();
    assert_eq!(paths[0], ["person.name", "person.age", "tags[0]", "tags[1]", "none"]);
    assert_eq!((&paths[1][..], paths[2].len()), (&["é", "n"][..], 0));
    for ((found, whole), text) in found.iter().zip(&scores).zip(&texts) {
        let sum = found.fields.iter().map(|field| field.log_likelihood).sum::<f64>() + found.rest;
        assert!((sum - whole.log_likelihood).abs() < 1e-12 * whole.log_likelihood.abs()); // the same numbers in another order
        // what is no field's is summed on its own
        let example = text.example();
        let is_fields = |place: &usize| text.fields().iter().any(|field| field.tokens.contains(place));
        let others = example.scored_places().zip(&whole.tokens).filter(|(place, _)| !is_fields(place));
        let rest: f64 = others.map(|(_, token)| token.log_probability).sum();
        assert!((rest - found.rest).abs() < 1e-10, "{rest} {}", found.rest);
        for (field, place) in found.fields.iter().zip(text.fields()) {
            assert_eq!(
                (field.standard_deviation, &field.within, field.tokens.len()),
                (None, &None, place.tokens.len())
            );
            let words = tokenizer.decode_text(&example.ids[place.tokens.clone()]).unwrap();
            // letters of this model are tokens or joined with the space before them
            assert!(words.contains(&field.value), "`{words}` lacks {}", field.value);
        }
    }
}

#[test]
fn the_standard_deviation_of_a_field_is_that_of_dense_algebra_by_finite_differences() {
    if !f64_or_skip("fields") {
        return;
    }
    const STEP: f64 = 1e-5;
    let (model, texts, control) = (stories(), structured()[..2].to_vec(), Control::silent());
    let data = data(&texts);
    let curvature = fit_curvature(&model, &data, &sampled(CurvatureStructure::Full, 2, 3), &control).unwrap();
    let fixed = LaplaceConfig::default().with_prior_precision(PriorPrecision::new(2.0).unwrap());
    let laplace = Laplace::new(&model, &curvature, &fixed).unwrap();
    let scores = score_texts(&model, &laplace, &data, &ALL, &control).unwrap();
    let found = score_fields(&model, Some(&laplace), &texts, &scores, &ALL, &control).unwrap();
    let found: Array1<f64> =
        found.iter().flat_map(|of| &of.fields).map(|field| field.standard_deviation.unwrap()).collect();

    // the fields' log-likelihoods at any adapter, by tokens of whole texts
    let at = |weights: &AdapterWeights| -> Array1<f64> {
        let scores = wholes(&write_adapter(model.clone(), weights).unwrap(), &data);
        let of_text = |(text, score): (&StructuredText, TextScore)| {
            let by_place: Vec<(usize, f64)> =
                text.example().scored_places().zip(score.tokens.iter().map(|token| token.log_probability)).collect();
            let of_field = |tokens: &std::ops::Range<usize>| -> f64 {
                by_place.iter().filter(|(place, _)| tokens.contains(place)).map(|(_, log_p)| log_p).sum()
            };
            text.fields().iter().map(|field| of_field(&field.tokens)).collect::<Vec<f64>>()
        };
        texts.iter().zip(scores).flat_map(of_text).collect()
    };
    let CurvatureSums::Joint(blocks) = &curvature.sums else { panic!("a joint structure was asked for") };
    let weights = read_adapter(&model).unwrap();
    let mut columns = Vec::new();
    // in the order of the dense matrix: forward order of the linears, A before B
    for site in super::scores::forward_order(&model, &data) {
        for at_index in ndarray::indices(weights[&site].dim()) {
            let moved = |step: f64| {
                let mut weights = weights.clone();
                weights.get_mut(&site).unwrap()[at_index] += step;
                at(&weights)
            };
            columns.push((moved(STEP) - moved(-STEP)) / (2.0 * STEP));
        }
    }
    let j = Array2::from_shape_fn((found.len(), columns.len()), |(f, p)| columns[p][f]);
    let eigen = eigh(blocks[0].sum.to_matrix(j.ncols()).view()).unwrap();
    let variance: Array1<f64> = j
        .dot(&eigen.vectors)
        .outer_iter()
        .map(|row| row.iter().zip(&eigen.values).map(|(r, e)| r * r / (e + 2.0)).sum())
        .collect();
    let error = relative_error(&found, &variance.mapv(f64::sqrt));
    println!("standard deviations of {} fields: {error:.1e}", found.len());
    assert!(found.iter().all(|sd| *sd > 0.0) && error < 1e-6); // that of the difference
    // one text's fields are not its whole: their gradients add up, their deviations do not
    let sum: f64 = found.iter().take(5).map(|sd| sd * sd).sum();
    assert!((sum.sqrt() / scores[0].standard_deviation - 1.0).abs() > 1e-3);
}

#[test]
fn scores_of_other_texts_are_refused() {
    let (model, texts, control) = (stories(), structured(), Control::silent());
    let data = data(&texts);
    let scores = wholes(&model, &data);
    let error = score_fields(&model, None, &texts, &scores[..2], &ALL, &control).unwrap_err().to_string();
    assert!(error.contains('3') && error.contains('2'), "{error}");
    let mut shorter = scores.clone();
    shorter[0].tokens.pop();
    let error = score_fields(&model, None, &texts, &shorter, &ALL, &control).unwrap_err().to_string();
    assert!(error.contains("text `0`"), "{error}");
}
