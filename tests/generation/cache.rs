//! A decoder that keeps keys and values says what it says without.

use crate::support::families::{FAMILIES, FamilyFixture, SPELLINGS};
use crate::support::{FIXTURES, Fixture, device, has_f64, root};
use bayes_lora::models::{CausalLm, KeyValueCache, Pretrained, TokenBatch};
use bayes_lora::tape::Tape;
use burn::tensor::{DType, Tensor};

/// Element types with the tolerance each deserves, absolute on logits of about 1: rounding of sums in another order.
fn precisions() -> Vec<(DType, f64)> {
    let mut all = vec![(DType::F32, 1e-5)];
    if has_f64() {
        all.push((DType::F64, 1e-12));
    }
    all
}

fn models(dtype: DType) -> Vec<(&'static str, CausalLm)> {
    let of_families = FAMILIES.map(|name| (name, FamilyFixture::load(name).model(SPELLINGS[0], dtype).lm));
    let others = FIXTURES.map(|name| (name, Fixture::load(name).model(dtype).lm));
    of_families.into_iter().chain(others).collect()
}

/// `[rows][vocabulary]`
fn vocabulary_logits(lm: &CausalLm, hidden: Tensor<2>) -> Vec<Vec<f64>> {
    let logits = lm.head(hidden, None, &mut Tape::off());
    let width = logits.dims()[1];
    let values: Vec<f64> = logits.into_data().convert::<f64>().try_into_vec().unwrap();
    values.chunks(width).map(<[f64]>::to_vec).collect()
}

/// What comes after a row, by a pass over all of it alone.
fn uncached(lm: &CausalLm, row: &[u32], dtype: DType) -> Vec<f64> {
    let batch = TokenBatch::of_row(row, &device(), dtype).unwrap();
    let hidden = lm.hidden(&batch, &mut Tape::off());
    vocabulary_logits(lm, hidden.narrow(0, row.len() - 1, 1)).swap_remove(0)
}

/// Rows that are longer than every window, and before and behind LongRoPE's original context.
fn rows() -> Vec<Vec<u32>> {
    let row = |r: usize, n: usize| (0..n).map(|t| (3 + (r * 31 + t * 17 + t * t) % 58) as u32).collect();
    [13, 21, 4, 24].into_iter().enumerate().map(|(r, n)| row(r, n)).collect()
}

/// How much of each row comes in each pass; the rows end in different passes.
const PASSES: [[usize; 4]; 9] = [
    [6, 11, 1, 7],
    [1, 1, 1, 1],
    [1, 1, 1, 1],
    [3, 1, 1, 4],
    [2, 2, 0, 1],
    [0, 3, 0, 2],
    [0, 1, 0, 1],
    [0, 1, 0, 1],
    [0, 0, 0, 6],
];

#[test]
fn cached_logits_of_rows_of_different_lengths_are_those_of_each_row_alone_without_a_cache() {
    for (dtype, tolerance) in precisions() {
        for (name, lm) in models(dtype) {
            let rows = rows();
            let mut left: Vec<usize> = (0..rows.len()).collect();
            let (mut cache, mut done, mut worst) = (KeyValueCache::new(rows.len()), [0; 4], 0.0f64);
            for pass in PASSES {
                let stay: Vec<usize> = (0..left.len()).filter(|&i| pass[left[i]] > 0).collect();
                cache.keep(&stay).unwrap();
                left = stay.into_iter().map(|i| left[i]).collect();
                let new: Vec<Vec<u32>> = left.iter().map(|&row| rows[row][done[row]..][..pass[row]].to_vec()).collect();
                let found = vocabulary_logits(&lm, lm.extend(&mut cache, &new, &mut Tape::off()).unwrap());
                left.iter().for_each(|&row| done[row] += pass[row]);
                assert_eq!(cache.lengths(), left.iter().map(|&row| done[row]).collect::<Vec<_>>());
                for (&row, found) in left.iter().zip(found) {
                    let expected = uncached(&lm, &rows[row][..done[row]], dtype);
                    let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
                    let error = found.iter().zip(&expected).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / scale;
                    assert!(error < tolerance, "{name} {dtype:?} row {row} at {}: {error:e}", done[row]);
                    worst = worst.max(error);
                }
            }
            assert_eq!(done.to_vec(), rows.iter().map(Vec::len).collect::<Vec<_>>());
            println!("{name} {dtype:?}: {worst:.1e}");
        }
    }
}

#[test]
fn the_words_before_the_window_are_seen_by_no_layer_that_slides() {
    // a change of the first token moves nothing where all layers slide, and the fixtures are therefore able to tell windows apart
    let lm = FamilyFixture::load("mistral").model(SPELLINGS[0], DType::F32).lm;
    let window = lm.config().window.unwrap();
    let reach = lm.config().n_layers * (window - 1) + 1;
    let row: Vec<u32> = (0..reach + 2).map(|t| (3 + t % 50) as u32).collect();
    let after = |first: u32| {
        let mut cache = KeyValueCache::new(1);
        let mut row = row.clone();
        row[0] = first;
        let mut hidden = lm.extend(&mut cache, &[row[..2].to_vec()], &mut Tape::off()).unwrap();
        let near = vocabulary_logits(&lm, hidden.clone());
        for id in &row[2..] {
            hidden = lm.extend(&mut cache, &[vec![*id]], &mut Tape::off()).unwrap();
        }
        (near, vocabulary_logits(&lm, hidden))
    };
    let (a, b) = (after(7), after(40));
    assert_ne!(a.0, b.0);
    assert_eq!(a.1, b.1);
}

#[test]
fn rows_that_a_cache_or_a_context_cannot_take_are_refused_with_both_numbers() {
    let lm = Fixture::load("tiny_llama").model(DType::F32).lm;
    let (limit, vocabulary) = (lm.config().max_positions, lm.config().vocab_size);
    let mut cache = KeyValueCache::new(2);
    lm.extend(&mut cache, &[vec![1, 2, 3], vec![4]], &mut Tape::off()).unwrap();
    let mut refused = |new: &[Vec<u32>], parts: &[&str]| {
        let before = cache.lengths();
        let error = lm.extend(&mut cache, new, &mut Tape::off()).unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{error} lacks {part}"));
        assert_eq!(cache.lengths(), before);
    };
    refused(&[vec![5]], &["expected 2", "found 1"]);
    refused(&[vec![5], vec![]], &["row 1", "empty"]);
    refused(&[vec![5], vec![vocabulary as u32]], &[&vocabulary.to_string(), "token id"]);
    refused(&[vec![5; limit], vec![5]], &["row 0", &limit.to_string(), &(limit + 3).to_string()]);
    let deeper = Pretrained::from_dir(root().join("assets/stories260K")).unwrap().load(&device()).unwrap();
    let error = deeper.extend(&mut cache, &[vec![5], vec![5]], &mut Tape::off()).unwrap_err().to_string();
    let numbers = format!("expected {}, found {}", deeper.config().n_layers, lm.config().n_layers);
    assert!(error.contains("layers") && error.contains(&numbers), "{error}");
}
