//! What a model itself says.

use crate::Outcome;
use bayes_lora::data::{TextDataset, TextEncoding, TextItem, Tokenizer};
use bayes_lora::models::{TextModel, TokenBatch};
use bayes_lora::tape::Tape;
use burn::tensor::{DType, Device};

/// Its answers to the prompts of `asked`, token by token the most probable one, up to a full stop or `longest` tokens.
pub fn own_answers(
    model: &TextModel,
    asked: &[TextItem],
    longest: usize,
    encoding: &TextEncoding,
    tokenizer: &Tokenizer,
) -> Outcome<TextDataset> {
    let mut data = encoding.encode("own answers", asked, tokenizer)?;
    for example in &mut data.examples {
        let start = example.scored[0].start;
        example.ids.truncate(start);
        while example.ids.len() < start + longest {
            let batch = TokenBatch::of_row(&example.ids, &Device::flex(), DType::F32)?;
            let hidden = model.lm.hidden(&batch, &mut Tape::off());
            let last = hidden.narrow(0, example.ids.len() - 1, 1);
            let logits = model.lm.head(last, None, &mut Tape::off());
            let best = logits.argmax(1).into_data().convert::<i64>().try_into_vec::<i64>();
            let id = best.map_err(|e| format!("{e:?}"))?[0] as u32;
            example.ids.push(id);
            if tokenizer.token(id).ends_with('.') {
                break;
            }
        }
        example.scored = std::iter::once(start..example.ids.len()).collect();
    }
    Ok(data)
}
