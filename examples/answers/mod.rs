//! Answers a file of questions, one JSON object a question in the order of the file: what `bayesianize` and `serve_file` share.
//!
//! ```json
//! {"id": "7", "classes": ["no", "yes"], "probabilities": [0.25, 0.75], "prediction": 1, "uncertainty":
//!  {"method": "laplace-kronecker-linearized", "entropy": 0.562, "aleatoric": 0.541, "epistemic": 0.021, "confidence": 0.75,
//!   "source": "measured"}}
//! ```
//!
//! `classes` are the question's choices; `prediction` is an index into them, as `answer` is in a task file. `entropy` is that of
//! `probabilities`, `aleatoric` the part that more training data would leave, `epistemic` the part that they could remove: all
//! three in nats. `confidence` is the largest probability. `source` says that the numbers come from the posterior, and not from
//! what the model says about itself.

use bayes_lora::data::{BatchLimits, Encoding, Item, Task, Tokenizer, for_each_line, for_each_line_of};
use bayes_lora::error::{Error, Result};
use bayes_lora::metrics::{Estimate, ScoreOptions, Scores};
use bayes_lora::models::{CausalLm, PromptClassifier};
use bayes_lora::number::significant;
use bayes_lora::outputs::claim_file;
use bayes_lora::posterior::Laplace;
use bayes_lora::predict::{Predictive, predict};
use bayes_lora::progress::Control;
use ndarray::Array2;
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use tempfile::PersistError;

/// Questions that are read, encoded and predicted together, which bounds the memory whatever the file's length. Two programs
/// that are to answer with the same bits must agree on it, as the network in f32 rounds differently in other batches.
const BLOCK: usize = 256;

/// The name of standard input in messages, where it is asked for by `-`.
const STANDARD_INPUT: &str = "standard input";

/// A language model with its adapter, the adapter's posterior, and how questions are put to them.
pub struct Answerer {
    pub lm: CausalLm,
    pub laplace: Laplace,
    pub tokenizer: Tokenizer,
    pub encoding: Encoding,
    pub limits: BatchLimits,
    pub control: Control,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    classes: &'a [String],
    probabilities: &'a [f64],
    prediction: usize,
    uncertainty: Uncertainty<'a>,
}

#[derive(Serialize)]
struct Uncertainty<'a> {
    method: &'a str,
    entropy: f64,
    aleatoric: f64,
    epistemic: f64,
    confidence: f64,
    source: &'static str,
}

/// What was answered.
#[derive(Default)]
pub struct Tally {
    n_questions: usize,
    n_shortened: usize,
    /// Probabilities and right answer of every question that has one.
    labelled: Vec<(Vec<f64>, usize)>,
}

/// Asks for the place of the answers, before there is one: they take about the room of their questions.
pub fn claim_answers(questions: &Path, out: &Path) -> Result<()> {
    claim_file(out, std::fs::metadata(questions).map_or(0, |file| file.len()))
}

impl Answerer {
    /// Answers into a file, which appears in one step when the last question is answered.
    pub fn answer_into_file(&self, questions: &Path, out: &Path) -> Result<Tally> {
        let io = |e| Error::io(out, e);
        let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // removed when dropped unfinished; made by `File` for the permissions that other files have
        let mut file = tempfile::Builder::new().make_in(dir, |path| File::create_new(path)).map_err(io)?;
        let tally = self.answer(questions, &mut std::io::BufWriter::new(file.as_file_mut()), out)?;
        file.as_file().sync_all().map_err(io)?;
        file.persist(out).map_err(|PersistError { error, file }| match file.keep() {
            Ok((_, place)) => Error::Rescued { reason: Box::new(io(error)), place },
            Err(_) => io(error),
        })?;
        Ok(tally)
    }

    /// Answers the questions of a file, or of standard input for `-`, block by block; `name` stands for `out` in errors.
    pub fn answer(&self, questions: &Path, out: &mut impl Write, name: &Path) -> Result<Tally> {
        let is_stream = questions == Path::new("-");
        let source = if is_stream { Path::new(STANDARD_INPUT) } else { questions };
        let mut tally = Tally::default();
        let mut block = Block::default();
        let mut answer_block = |block: &mut Block| {
            let task = Task::new(source.display().to_string(), std::mem::take(&mut block.items))?;
            // encoding names the item, not its line
            let lines = format!("{}, lines {} to {}", source.display(), block.first_line, block.last_line);
            self.answer_task(&task, &mut tally, &mut |answer| {
                serde_json::to_writer(&mut *out, &answer).map_err(|e| Error::io(name, e.into()))?;
                writeln!(out).map_err(|e| Error::io(name, e))
            })
            .map_err(|e| match e {
                Error::Io { .. } | Error::Cancelled { .. } => e,
                e => Error::format(lines, e),
            })?;
            out.flush().map_err(|e| Error::io(name, e))
        };
        let visit = |line: usize, text: &str| {
            block.push(line, Item::from_json_line(text, &format!("{}:{line}", source.display()))?);
            if block.items.len() == BLOCK { answer_block(&mut block) } else { Ok(()) }
        };
        if is_stream {
            for_each_line_of(std::io::stdin(), source, visit)?;
        } else {
            for_each_line(source, visit)?;
        }
        if !block.items.is_empty() {
            answer_block(&mut block)?;
        }
        if tally.n_questions == 0 {
            return Err(Error::empty(format!("the file of questions {}", source.display())));
        }
        Ok(tally)
    }

    fn answer_task(&self, task: &Task, tally: &mut Tally, write: &mut impl FnMut(Answer) -> Result<()>) -> Result<()> {
        let data = self.encoding.encode(task, &self.tokenizer)?;
        // the number of choices may differ from block to block
        let model = PromptClassifier::new(self.lm.clone(), &data)?;
        let prediction = predict(&model, &self.laplace, &data, Predictive::default(), &self.limits, &self.control)?;
        let method =
            format!("laplace-{}-linearized", self.laplace.structure().to_string().to_lowercase().replace(' ', "-"));
        for (index, item) in task.items.iter().enumerate() {
            let probabilities = prediction.probabilities.row(index);
            let probabilities: Vec<f64> = probabilities.iter().take(item.choices.len()).copied().collect();
            // the first of equals
            let better = |best: usize, c: usize| if probabilities[c] > probabilities[best] { c } else { best };
            let best = (0..probabilities.len()).fold(0, better);
            let entropy = &prediction.entropy;
            write(Answer {
                id: &item.id,
                classes: &item.choices,
                probabilities: &probabilities,
                prediction: best,
                uncertainty: Uncertainty {
                    method: &method,
                    entropy: entropy.total[index],
                    aleatoric: entropy.expected[index],
                    epistemic: entropy.epistemic[index],
                    confidence: probabilities[best],
                    source: "measured",
                },
            })?;
            tally.labelled.extend(item.answer.map(|label| (probabilities, label)));
        }
        tally.n_questions += task.len();
        tally.n_shortened += data.n_truncated;
        Ok(())
    }
}

/// Questions that wait for their answers.
#[derive(Default)]
struct Block {
    items: Vec<Item>,
    first_line: usize,
    last_line: usize,
}

impl Block {
    fn push(&mut self, line: usize, item: Item) {
        if self.items.is_empty() {
            self.first_line = line;
        }
        self.last_line = line;
        self.items.push(item);
    }
}

impl Tally {
    /// The scores of the questions whose answer is known.
    fn scores(&self) -> Result<Scores> {
        let n_classes = self.labelled.iter().map(|(probabilities, _)| probabilities.len()).max().unwrap_or(0);
        let value = |(index, class): (usize, usize)| self.labelled[index].0.get(class).copied().unwrap_or(0.0);
        let probabilities = Array2::from_shape_fn((self.labelled.len(), n_classes), value);
        let labels: Vec<usize> = self.labelled.iter().map(|(_, label)| *label).collect();
        Scores::new(probabilities.view(), &labels, &ScoreOptions::default())
    }

    /// What to tell about it.
    pub fn summary(&self) -> Result<String> {
        let answered = format!("{} questions answered, {} shortened", self.n_questions, self.n_shortened);
        if self.labelled.is_empty() {
            return Ok(answered);
        }
        let Scores { accuracy, nll, ece, .. } = self.scores()?;
        let (n, accuracy, nll, ece) = (self.labelled.len(), Shown(accuracy), Shown(nll), Shown(ece));
        Ok(format!("{answered}; {n} have an answer: accuracy {accuracy}, NLL {nll}, ECE {ece}"))
    }
}

struct Shown(Estimate);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [value, low, high] = [self.0.value, self.0.low, self.0.high].map(significant);
        write!(f, "{value} [{low}, {high}]")
    }
}
