//! `bayes-lora score`.

use crate::adapted::{Adapted, AdaptedArguments};
use crate::blocks::{BLOCK, Line, for_each_block};
use crate::predict::Rate;
use crate::session::{Outcome, Session};
use crate::sink::{Sink, beside};
use crate::texts::TextArguments;
use bayes_lora::Error;
use bayes_lora::data::{BatchLimits, BatchOrder, StructuredText, TextDataset, TextItem};
use bayes_lora::models::{Classifier, Dataset, TextModel, TokenScore};
use bayes_lora::number::significant;
use bayes_lora::predict::{FieldScore, TextScore, score_fields, score_texts};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Instant;

/// Score texts: their log-likelihood, how sure the posterior is of it, and every token
#[derive(Args)]
#[command(after_help = "\
Lines are {\"text\"}, {\"prompt\", \"completion\"} or {\"messages\"}; an \"id\" is kept. An answer is a line of JSON, in nats.

Example:
  bayes-lora score --model SmolLM2-135M --adapter my_adapter --data answers.jsonl --out scores.jsonl")]
pub struct Score {
    #[command(flatten)]
    adapted: AdaptedArguments,
    /// Texts, completions and chats, one a line, plain or gzipped; `-` is standard input
    #[arg(long, value_name = "FILE|-")]
    data: PathBuf,
    /// File for the scores, which appears whole [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    texts: TextArguments,
    /// Score every field of answers that are JSON objects, too
    #[arg(long)]
    fields: bool,
    /// Texts of a batch
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
}

/// What is said of a text, in nats.
#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    log_likelihood: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    standard_deviation: Option<f64>,
    per_token: f64,
    mean_entropy: f64,
    /// Its end was cut off.
    #[serde(skip_serializing_if = "is_false")]
    shortened: bool,
    tokens: Vec<Token>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<Field>>,
    /// Log-likelihood of all that is in no field.
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<f64>,
}

/// A field of an answer in JSON.
#[derive(Serialize)]
struct Field {
    path: String,
    value: Value,
    log_likelihood: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    standard_deviation: Option<f64>,
    tokens: Vec<Token>,
    /// The field that has its only tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    within: Option<String>,
}

#[derive(Serialize)]
struct Token {
    token: String,
    log_probability: f64,
    entropy: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What to tell of all texts, in nats.
#[derive(Default, Serialize)]
struct Total {
    texts: usize,
    shortened: usize,
    tokens: usize,
    log_likelihood: f64,
    per_token: f64,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<PathBuf>,
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { texts, shortened, tokens, .. } = self;
        let (mean, seconds) = (significant(self.per_token), significant(self.seconds));
        write!(f, "{texts} texts, {tokens} tokens, {mean} nats a token; {shortened} shortened, in {seconds} s")?;
        self.out.as_ref().map_or(Ok(()), |out| write!(f, "\nwrote {}", out.display()))
    }
}

impl Score {
    pub fn run(&self, session: &Session) -> Outcome {
        let mut sink = Sink::open(self.out.as_deref())?;
        let adapted = self.adapted.load(session, TextModel::new)?;
        let context = adapted.model.lm.config().max_positions;
        let (begin, mut total) = (Instant::now(), Total::default());
        let mut rate = Rate::of("score", None, session.is_watched());
        for_each_block(&self.data, None, BLOCK, |_, lines| {
            self.block(lines, context, &adapted, &mut total, &mut sink, session)?;
            rate.advance(lines.len());
            Ok(())
        })?;
        drop(rate);
        sink.finish()?;
        total.per_token = total.log_likelihood / total.tokens as f64;
        total.seconds = begin.elapsed().as_secs_f64();
        match &self.out {
            // scores are there already
            None => session.say(total),
            Some(out) => {
                session.keep_settings(&beside(out, "run.toml"))?;
                total.out = Some(out.clone());
                session.show(&total)?;
            }
        }
        Ok(())
    }

    fn block(
        &self,
        lines: &[Line],
        context: usize,
        adapted: &Adapted<TextModel>,
        total: &mut Total,
        sink: &mut Sink,
        session: &Session,
    ) -> Outcome {
        let encoding = self.texts.encoding(context);
        let (mut examples, mut shortened, mut structured) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines {
            let item = TextItem::from_json(&line.text, &line.place, line.number)?;
            if self.fields {
                let text = StructuredText::new(&item, &encoding, &adapted.tokenizer);
                structured.push(text.map_err(|e| Error::format(&line.place, e))?);
            }
            let mut one = encoding.encode(&line.place, &[item], &adapted.tokenizer)?;
            shortened.push(one.n_truncated > 0);
            examples.append(&mut one.examples);
        }
        let data = TextDataset::new("texts", examples)?;
        let limits = BatchLimits { max_items: self.batch, max_tokens: 4096 };
        let scores = match &adapted.laplace {
            Some(laplace) => score_texts(&adapted.model, laplace, &data, &limits, &session.control().without_bars())?,
            None => plain_scores(&adapted.model, &data, limits, session)?,
        };
        let mut fields = if self.fields {
            let (laplace, control) = (adapted.laplace.as_ref(), session.control().without_bars());
            score_fields(&adapted.model, laplace, &structured, &scores, &limits, &control)?.into_iter()
        } else {
            Vec::new().into_iter()
        };
        let token = |score: &TokenScore| Token {
            token: adapted.tokenizer.token(score.id),
            log_probability: score.log_probability,
            entropy: score.entropy,
        };
        let field = |field: FieldScore| -> Outcome<Field> {
            let tokens = field.tokens.iter().map(token).collect();
            let FieldScore { path, value, log_likelihood, standard_deviation, within, .. } = field;
            Ok(Field { path, value: serde_json::from_str(&value)?, log_likelihood, standard_deviation, tokens, within })
        };
        for ((text, score), shortened) in data.examples.iter().zip(&scores).zip(shortened) {
            let of_text = fields.next();
            let rest = of_text.as_ref().map(|of| of.rest);
            let of_text = of_text.map(|of| of.fields.into_iter().map(field).collect::<Outcome<Vec<Field>>>());
            sink.put(&Answer {
                id: &text.id,
                log_likelihood: score.log_likelihood,
                standard_deviation: adapted.laplace.is_some().then_some(score.standard_deviation),
                per_token: score.per_token(),
                mean_entropy: score.mean_entropy(),
                shortened,
                tokens: score.tokens.iter().map(token).collect(),
                fields: of_text.transpose()?,
                rest,
            })?;
            total.texts += 1;
            total.shortened += usize::from(shortened);
            total.tokens += score.tokens.len();
            total.log_likelihood += score.log_likelihood;
        }
        Ok(())
    }
}

/// Scores without a posterior: one pass forward.
fn plain_scores(
    model: &TextModel,
    data: &TextDataset,
    limits: BatchLimits,
    session: &Session,
) -> Outcome<Vec<TextScore>> {
    let (mut scores, mut done): (Vec<Option<TextScore>>, usize) = (vec![None; data.len()], 0);
    for indices in Dataset::plan(data, limits, BatchOrder::ByLength)? {
        session.control().check("score", done, data.len())?;
        done += indices.len();
        let batch = Dataset::batch(data, &indices, &model.device(), model.dtype())?;
        for (&item, tokens) in indices.iter().zip(model.token_scores(&batch)?) {
            let log_likelihood = tokens.iter().map(|token| token.log_probability).sum();
            scores[item] = Some(TextScore { log_likelihood, standard_deviation: 0.0, tokens });
        }
    }
    Ok(scores.into_iter().flatten().collect())
}
