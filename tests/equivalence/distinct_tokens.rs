//! Rows that begin alike go through the layers once there: outputs and gradients are those of rows that know nothing of each other.

use super::common_beginning::{behind, precisions};
use super::read_tokens::{adapted, loss, of_adapters};
use crate::support::families::{FAMILIES, FamilyFixture, SPELLINGS};
use crate::support::{FIXTURES, Fixture, continuation_dataset, on_host, relative_error};
use bayes_lora::data::{EncodedDataset, PaddingSide};
use bayes_lora::models::{Classifier, ClassifierInput, PromptClassifier, TokenBatch};
use bayes_lora::tape::{RowKeys, Tape};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};
use ndarray::{Array2, Axis, concatenate, s};

#[derive(Clone, Copy, Debug)]
enum How {
    Graph,
    OwnPass { by_layers: bool },
}

/// Logits of a batch whose first item is the data's at `first`, and the gradients of the loss at all adapters.
fn pass(
    model: &PromptClassifier,
    (batch, first): (&TokenBatch, usize),
    (mut tape, how): (Tape, How),
) -> (Array2<f64>, Vec<Array2<f64>>) {
    let mut logits = None;
    let mut objective = |found: Tensor<2>| {
        logits = Some(on_host(found.clone()));
        loss(found, first)
    };
    let gradients = match how {
        How::Graph => GradientsParams::from_grads(objective(model.logits(batch, &mut tape)).backward(), model),
        How::OwnPass { by_layers } => {
            model.gradient(batch, &mut tape, by_layers, &mut |found| Ok(objective(found))).unwrap().unwrap()
        }
    };
    let mut of_classes = Array2::zeros((batch.n_items(), model.n_classes()));
    let logits = logits.unwrap();
    of_classes.slice_mut(s![.., ..logits.ncols()]).assign(&logits);
    (of_classes, of_adapters(model, &gradients))
}

fn check(name: &str, model: &PromptClassifier, data: &EncodedDataset, (dtype, tolerance): (DType, f64)) {
    let of = |items: &[usize], side| TokenBatch::new(data, items, side, &model.device(), dtype).unwrap();
    let alone = |item| pass(model, (&of(&[item], PaddingSide::Right), item), (Tape::off(), How::Graph));
    let all: Vec<usize> = (0..data.items.len()).collect();
    let (logits, gradients): (Vec<_>, Vec<_>) = all.iter().map(|item| alone(*item)).unzip();
    let logits = concatenate(Axis(0), &logits.iter().map(|of_item| of_item.view()).collect::<Vec<_>>()).unwrap();
    let gradients = gradients.into_iter().reduce(|sum, more| sum.iter().zip(more).map(|(a, b)| a + &b).collect());

    let apart = [PaddingSide::Left, PaddingSide::Right].map(|side| of(&all, side));
    let shared = apart.clone().map(|batch| batch.with_shared_prompts().unwrap());
    for (layout, batch) in apart.iter().chain(&shared).enumerate() {
        let keys = RowKeys::new((0..all.len() as u64).collect(), &batch.token_mask());
        for (tape, how) in [
            (Tape::off(), How::Graph),
            (Tape::off(), How::OwnPass { by_layers: false }),
            (Tape::off(), How::OwnPass { by_layers: true }),
            (Tape::dropout(0, 0, keys), How::OwnPass { by_layers: false }),
        ] {
            let (found, of_batch) = pass(model, (batch, 0), (tape, how));
            let error = relative_error(&found, &logits);
            assert!(error < tolerance, "{name} {dtype:?}, layout {layout}, {how:?}: {error:e}");
            for (found, expected) in of_batch.iter().zip(gradients.as_ref().unwrap()) {
                let error = relative_error(found, expected);
                // sums of another order over a hundred products
                assert!(error < 10.0 * tolerance, "{name} {dtype:?}, layout {layout}, {how:?}: {error:e}");
            }
        }
    }
}

#[test]
fn what_rows_begin_with_alike_goes_through_the_layers_once_in_every_family() {
    for precision in precisions() {
        for name in FAMILIES {
            let fixture = FamilyFixture::load(name);
            let mut data = behind(&fixture.data);
            // one question twice, and one that begins otherwise
            data.items.push(data.items[0].clone());
            data.items[1].rows[0].ids[3] += 1;
            check(name, &adapted(fixture.bare(SPELLINGS[0], precision.0), &[""]), &data, precision);
        }
        for name in FIXTURES {
            let data = behind(&continuation_dataset());
            check(name, &adapted(Fixture::load(name).model_for(&data, precision.0), &[""]), &data, precision);
        }
    }
}
