//! Texts, completions and chats, whose next tokens a language model learns; `score` answers about them.

use super::{About, Data, Job, Source, Splits, Subject};
use crate::kind::Kind;
use crate::session::Outcome;
use bayes_lora::data::{TextDataset, read_texts};
use bayes_lora::likelihood::NextToken;
use bayes_lora::models::TextModel;

pub fn with_subject<J: Job>(source: &Source, job: J) -> Outcome<J::Result> {
    let (lm, tokenizer) = source.language_model()?;
    let items = Splits::read(source, |file| Ok(read_texts(file)?))?;
    let encoding = source.questions.of_next_tokens(lm.config().max_positions);
    let splits = items.map(|name, items| Ok(encoding.encode(name, &items, &tokenizer)?))?;
    let train: &TextDataset = &splits.train;
    source.session.say(train.example(0, &tokenizer)?);
    let about = About {
        kind: Kind::Texts,
        items: train.len(),
        tokens: train.n_tokens(),
        longest: train.longest(),
        shortened: train.n_truncated,
    };
    source.session.say(&about);
    let data = Data { splits, likelihood: NextToken.into(), about };
    job.run(Subject { model: TextModel::new(lm), data })
}
