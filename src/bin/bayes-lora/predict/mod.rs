//! `bayes-lora predict`.

mod kept;
mod rate;
mod tally;

use crate::blocks::{BLOCK, for_each_block, n_lines, name_of};
use crate::flags::{PredictionArguments, QuestionArguments, Shard};
use crate::kind::Kind;
use crate::kinds::{Answerer, Block, Opening, answerer};
use crate::session::{Outcome, Session};
use crate::sink::beside;
use bayes_lora::POSTERIOR_FILE;
use bayes_lora::error::{Error, Result};
use bayes_lora::outputs::claim_file;
use bayes_lora::predict::Predictive;
use bayes_lora::progress::Control;
use clap::Args;
use kept::Kept;
pub use rate::Rate;
use std::io::Write;
use std::path::{Path, PathBuf};
use tally::Tally;

/// Answer lines with probabilities, or numbers, and their uncertainty
///
/// JSON Lines in, JSON Lines out, in the same order and in bounded memory; no training data are needed. Lines are asked as those were
/// that the posterior was fitted on, for it remembers how; flags that say otherwise are refused unless `--insist` is one of them.
/// Where lines hold the right answer, accuracy, NLL and ECE are told. With `--out` a run that was killed goes on where it was.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bayes-lora predict --model SmolLM2-135M --adapter my_adapter --data questions.jsonl --out answers.jsonl"
)]
pub struct Predict {
    /// The base: a Hugging Face directory (config.json, safetensors, tokenizer.json), or a GGUF file
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The adapter's directory, as PEFT writes it
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The posterior's file, where it does not lie beside the adapter
    #[arg(long, value_name = "FILE")]
    posterior: Option<PathBuf>,
    /// JSONL or JSONL.gz; `-` reads standard input, and answers after every 256 lines
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// A file for the answers, which appears when all are there; without it they go to standard output as they come
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Answer the lines I, I + K, … alone: `I/K`, or `auto/K` with the scheduler's index
    #[arg(long, value_name = "I/K")]
    shard: Option<Shard>,
    #[command(flatten)]
    prediction: PredictionArguments,
    /// What the lines are, where neither the posterior nor their fields say it
    #[arg(long, value_enum, value_name = "KIND")]
    task: Option<Kind>,
    /// Seed of the draws
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    questions: QuestionArguments,
}

impl Predict {
    pub fn run(&self, session: &Session) -> Outcome {
        if let Some(out) = &self.out {
            // answers take about the room of their questions
            claim_file(out, std::fs::metadata(&self.data).map_or(0, |file| file.len()))?;
            session.keeps_work();
        }
        let predictive = self.prediction.predictive(self.seed)?;
        let posterior = self.posterior_file(predictive)?;
        let asked = (predictive, self.prediction.insist);
        let opening = Opening::new((&self.model, &self.adapter), posterior, &self.questions, asked, session)?;
        let data = (!self.is_stream()).then_some(self.data.as_path());
        let answerer = answerer(&opening, self.task, data)?;
        let mut rate = Rate::new(n_lines(&self.data, self.shard)?, session.is_watched());
        let tally = match &self.out {
            None => self.to_stdout(&*answerer, &mut rate, &session.control())?,
            Some(out) => self.to_file(&*answerer, out, &mut rate, &session.control())?,
        };
        drop(rate);
        let summary = tally.summary()?;
        match &self.out {
            None => session.say(&summary),
            Some(out) => {
                session.keep_settings(&beside(out, "run.toml"))?;
                session.show(&summary)?;
            }
        }
        Ok(())
    }

    /// The posterior's file; none where the trained adapter answers alone and there is none.
    fn posterior_file(&self, predictive: Predictive) -> Outcome<Option<PathBuf>> {
        let file = self.posterior.clone().unwrap_or_else(|| self.adapter.join(POSTERIOR_FILE));
        let is_there = file.try_exists()?;
        match predictive {
            _ if is_there => Ok(Some(file)),
            Predictive::Map if self.posterior.is_none() => Ok(None),
            _ => Err(format!(
                "{}: there is no posterior (`bayes-lora fit` makes one; `--method map` answers without)",
                file.display()
            )
            .into()),
        }
    }

    fn is_stream(&self) -> bool {
        self.data == Path::new("-")
    }

    fn to_stdout(&self, answerer: &dyn Answerer, rate: &mut Rate, control: &Control) -> Outcome<Tally> {
        let (mut out, mut tally) = (std::io::stdout().lock(), Tally::default());
        let mut write = |text: &str| {
            let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            written.map_err(|error| Error::io("standard output", error))
        };
        self.for_each_block(control, |_, block| {
            let answered = answerer.answer(block)?;
            answered.lines.iter().try_for_each(|line| write(&format!("{line}\n")))?;
            rate.advance(block.lines.len());
            tally.add(answered.lines.len(), answered.n_shortened, answered.known);
            Ok(())
        })?;
        Ok(tally)
    }

    /// Answers into a file, which appears in one step when the last line is answered; blocks that an earlier run has answered are kept.
    fn to_file(&self, answerer: &dyn Answerer, out: &Path, rate: &mut Rate, control: &Control) -> Outcome<Tally> {
        let identity = answerer.identity().clone().with("shard", self.shard.map(|shard| shard.to_string()));
        let mut kept = Kept::open(out, identity.with("lines of a block", BLOCK))?;
        let mut tally = Tally::default();
        self.for_each_block(control, |number, block| {
            let (answered, is_new) = match kept.take(number, block)? {
                Some(answered) => (answered, false),
                None => (kept.keep(number, block, answerer.answer(block)?)?, true),
            };
            if is_new {
                rate.advance(block.lines.len());
            } else {
                rate.skip(block.lines.len());
                tally.n_resumed += block.lines.len();
            }
            tally.add(block.lines.len(), answered.n_shortened, answered.known);
            Ok(())
        })?;
        kept.finish()?;
        Ok(tally)
    }

    /// Visits the lines block by block.
    fn for_each_block(&self, control: &Control, mut visit: impl FnMut(usize, &Block) -> Result<()>) -> Outcome {
        let (file, mut done) = (name_of(&self.data).display().to_string(), 0);
        for_each_block(&self.data, self.shard, BLOCK, |number, lines| {
            control.check("predict", done, done + lines.len())?;
            let place = || match lines {
                [first, .., last] => format!("{file}, lines {} to {}", first.number, last.number),
                _ => file.clone(),
            };
            // encoding names the item, not its line
            visit(number, &Block { file: &file, lines }).map_err(|error| match error {
                Error::Io { .. } | Error::Cancelled { .. } | Error::Format { .. } => error,
                error => Error::format(place(), error),
            })?;
            done += lines.len();
            Ok(())
        })
    }
}
