//! Named protocols: prompts, labels, splits and training that a table's rows have in common.

use crate::data::{
    AnswerForm, BatchLimits, EncodedDataset, Encoding, Normalization, PromptTemplate, Task, Tokenizer, Truncation,
};
use crate::error::{Error, Result};
use crate::lora::LoraConfig;
use crate::methods::Recipe;
use crate::train::{Decay, TrainerConfig};

/// What a task asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// A question with lettered choices, at most so many.
    MultipleChoice(usize),
    /// A passage, and a question whose choices are no and yes, in that order (BoolQ).
    YesNo,
    /// A sentence with a blank, and two fillings (WinoGrande).
    Blank,
}

/// How a comparison is made. Figures of two protocols never share a table: labels, truncation, splits and training differ, and
/// with them accuracy and calibration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// This crate's: right labels, no end-of-sequence token before the answer, prompts cut only where the caller sets a limit and
    /// never the cue, only classes that an item has, all test items, training in another order in each epoch.
    Clean,
    /// That of the published code of BLoB and TFB (2406.11675, 2412.05723), with its quirks: the answer of BoolQ inverted (`True`
    /// stands for no); choices before their letters; an end-of-sequence token before the answer of BoolQ and WinoGrande; cut
    /// at 300 tokens on the right, question or not; as many classes for ARC as its largest item has, for every item; items
    /// in one order, never shuffled; the last incomplete batch left out, at test too. What differs still: weights in full precision
    /// instead of 8 bits, Adam's ε 1e-8 instead of 1e-6, OBQA's `Chioces:` is spelt as ARC's, and MMLU's choices stand before their
    /// letters as ARC's do.
    Blob2024,
}

/// Most tokens of a prompt in the published code.
const BLOB_TOKENS: usize = 300;
/// Its batch in training.
const BLOB_BATCH: usize = 4;
/// Most tokens of a row: a prompt and the end-of-sequence token behind it.
const BLOB_ROW: usize = BLOB_TOKENS + 1;
/// Its steps.
const BLOB_STEPS: usize = 5000;
/// Characters of a BoolQ passage that it reads.
const BLOB_PASSAGE: usize = 1024;

impl std::str::FromStr for Protocol {
    type Err = Error;

    /// Reads a [name](Self::name).
    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|protocol| protocol.name() == name);
        known.ok_or_else(|| Error::config("protocol", Self::ALL.map(Self::name).join(" or "), name))
    }
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Clean, Self::Blob2024];

    /// The name that reports show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Blob2024 => "blob2024",
        }
    }

    /// The adapter and its training on so many items.
    pub fn recipe(self, n_train: usize) -> Recipe {
        match self {
            Self::Clean => Recipe {
                lora: LoraConfig::new(8).with_alpha(16.0).with_dropout(0.1).with_target_modules(["q_proj", "v_proj"]),
                trainer: TrainerConfig::default(),
            },
            Self::Blob2024 => Recipe {
                lora: LoraConfig::new(8).with_alpha(16.0).with_target_modules(["q_proj", "v_proj", "lm_head"]),
                trainer: TrainerConfig {
                    // each epoch leaves the last incomplete batch out
                    epochs: BLOB_STEPS.div_ceil((n_train / BLOB_BATCH).max(1)),
                    max_steps: Some(BLOB_STEPS),
                    shuffle: false,
                    learning_rate: 1e-4,
                    weight_decay: 0.0,
                    warmup_fraction: 0.06,
                    decay: Decay::Linear,
                    limits: BatchLimits { max_items: BLOB_BATCH, max_tokens: BLOB_BATCH * BLOB_ROW },
                    max_grad_norm: None,
                    ..TrainerConfig::default()
                },
            },
        }
    }

    /// The prompt and the form of the answer.
    ///
    /// # Errors
    /// If a task of choices has fewer than two, or more than there are letters.
    pub fn encoding(self, kind: TaskKind) -> Result<Encoding> {
        if let TaskKind::MultipleChoice(n) = kind
            && !(2..=26).contains(&n)
        {
            return Err(Error::config("choices", "2 to 26", n));
        }
        match self {
            Self::Clean => {
                let (template, answers) = match kind {
                    TaskKind::MultipleChoice(n) => (PromptTemplate::multiple_choice(), letters(n, " ")),
                    TaskKind::YesNo => (PromptTemplate::passage_question(), AnswerForm::class_tokens([" no", " yes"])),
                    TaskKind::Blank => (
                        PromptTemplate::new("blank", "{{ question }}", "\nThe blank _ is")?,
                        AnswerForm::Continuation { normalization: Normalization::Sum },
                    ),
                };
                Ok(Encoding::new(template, answers))
            }
            Self::Blob2024 => {
                let (body, answers) = match kind {
                    TaskKind::MultipleChoice(n) => (
                        format!(
                            "{BLOB_HEAD}{{% for choice in choices %}}{{{{ '\\n' }}}}{{{{ choice }}}}) \
                             {{{{ letters[loop.index0] }}}}{{% endfor %}}{{{{ '\\n' }}}}Answer:"
                        ),
                        letters(n, ""),
                    ),
                    TaskKind::YesNo => (
                        format!(
                            "Read the passage below and answer the question with the words 'true' or 'false'.\n\n\
                             Passage: {{{{ passage[:{BLOB_PASSAGE}] }}}}\nQuestion: {{{{ question }}}}\nAnswer (true or false):"
                        ),
                        // the target 1 stands for yes, and the second token is `False`
                        AnswerForm::class_tokens(["True", "False"]),
                    ),
                    TaskKind::Blank => (
                        format!(
                            "{BLOB_HEAD}{{% for choice in choices %}}{{{{ '\\n' }}}}{{{{ letters[loop.index0] }}}}) \
                             {{{{ choice }}}}{{% endfor %}}{{{{ '\\n' }}}}Answer:"
                        ),
                        letters(2, ""),
                    ),
                };
                // all of it may be cut, the cue too
                let template = PromptTemplate::new("blob2024", body, "")?;
                Ok(Encoding::new(template, answers).with_max_tokens(BLOB_TOKENS).with_truncation(Truncation::End))
            }
        }
    }

    /// The items that are used, of a split that is read in batches of `batch`.
    ///
    /// # Errors
    /// If none is left.
    pub fn items(self, task: &Task, batch: usize) -> Result<Task> {
        match self {
            Self::Clean => Ok(task.clone()),
            Self::Blob2024 => {
                let whole = task.items.len() / batch.max(1) * batch.max(1);
                if whole == 0 {
                    return Err(Error::empty(format!("{} in whole batches of {batch}", task.name)));
                }
                Ok(task.split_at(whole)?.0)
            }
        }
    }

    /// Encodes a task's items.
    ///
    /// # Errors
    /// As [`Encoding::encode`]; if the tokenizer lacks the end-of-sequence token that the protocol asks for.
    pub fn encode(self, kind: TaskKind, task: &Task, tokenizer: &Tokenizer) -> Result<EncodedDataset> {
        let mut data = self.encoding(kind)?.encode(task, tokenizer)?;
        if self == Self::Blob2024 {
            // an encoding does not tell what is changed here
            data.asked = None;
            let ends = match kind {
                TaskKind::MultipleChoice(_) => None,
                TaskKind::YesNo | TaskKind::Blank => Some(tokenizer.eos_id().ok_or_else(|| {
                    Error::Incompatible(format!("{} names no end-of-sequence token", tokenizer.location()))
                })?),
            };
            for item in &mut data.items {
                item.n_choices = data.n_classes;
                item.rows.iter_mut().for_each(|row| row.ids.extend(ends));
            }
        }
        Ok(data)
    }
}

const BLOB_HEAD: &str =
    "Return the label of the correct answer for the question below.\n\nQuestion: {{ question }}\nChoices:";

/// `A`, `B`, … as class tokens.
fn letters(n: usize, before: &str) -> AnswerForm {
    AnswerForm::class_tokens((0..n).map(|k| format!("{before}{}", crate::data::letter(k))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{About, ClassName, Comparison, Report, ReportOptions, Splits};
    use crate::data::{Item, ResolvedAnswers};
    use crate::methods::{Blob, MaximumLikelihood};
    use crate::models::{Pretrained, PromptClassifier};
    use burn::tensor::Device;

    const STORIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260K");

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_dir(STORIES).unwrap()
    }

    fn question() -> Task {
        let item = |id: &str| Item::new(id, "Which is warm?", ["ice", "fire", "snow"]).with_answer(1);
        Task::new("q", vec![item("a"), item("b"), item("c"), item("d"), item("e")]).unwrap()
    }

    #[test]
    fn the_published_prompts_have_their_quirks_and_ours_do_not() {
        let render = |protocol: Protocol, kind, item: &Item| {
            protocol.encoding(kind).unwrap().template.render(item).unwrap().text()
        };
        let task = question();
        let published = render(Protocol::Blob2024, TaskKind::MultipleChoice(5), &task.items[0]);
        assert_eq!(
            published,
            "Return the label of the correct answer for the question below.\n\nQuestion: Which is warm?\nChoices:\nice) A\nfire) \
             B\nsnow) C\nAnswer:"
        );
        assert!(render(Protocol::Clean, TaskKind::MultipleChoice(5), &task.items[0]).contains("\nA) ice\nB) fire"));
        let long = Item::new("q", "Is it?", ["no", "yes"]).with_passage("x".repeat(2000));
        let published = render(Protocol::Blob2024, TaskKind::YesNo, &long);
        assert_eq!(published.matches('x').count(), BLOB_PASSAGE);
        assert!(published.ends_with("Question: Is it?\nAnswer (true or false):"));
        assert_eq!(render(Protocol::Clean, TaskKind::YesNo, &long).matches('x').count(), 2000);
        let blank = Item::new("w", "The _ is big.", ["cat", "dog"]);
        assert!(render(Protocol::Blob2024, TaskKind::Blank, &blank).contains("Choices:\nA) cat\nB) dog\nAnswer:"));
    }

    #[test]
    fn published_items_have_all_classes_and_end_as_published() {
        let tokenizer = tokenizer();
        let kind = TaskKind::MultipleChoice(5);
        let ours = Protocol::Clean.encode(TaskKind::YesNo, &yes_no(), &tokenizer);
        let theirs = Protocol::Blob2024.encode(kind, &question(), &tokenizer).unwrap();
        assert!(theirs.items.iter().all(|item| item.n_choices == 5) && theirs.n_classes == 5);
        let (ResolvedAnswers::ClassTokens(ids), eos) = (&theirs.answers, tokenizer.eos_id().unwrap()) else { panic!() };
        assert_eq!(ids.len(), 5);
        assert!(theirs.items.iter().all(|item| item.rows[0].ids.last() != Some(&eos)));
        // this small vocabulary has no ` no` in one piece
        assert!(ours.is_err() || ours.unwrap().items.iter().all(|item| item.rows[0].ids.last() != Some(&eos)));
        let blank = Task::new("w", vec![Item::new("w", "The _ is big.", ["cat", "dog"]).with_answer(1)]).unwrap();
        let theirs = Protocol::Blob2024.encode(TaskKind::Blank, &blank, &tokenizer).unwrap();
        assert_eq!(theirs.items[0].rows[0].ids.last(), Some(&eos));
        let ours = Protocol::Clean.encode(TaskKind::Blank, &blank, &tokenizer).unwrap();
        assert_eq!((ours.items[0].rows.len(), ours.answers), (2, ResolvedAnswers::Continuation));
    }

    #[test]
    fn a_comparison_under_the_published_protocol_runs_to_its_report() {
        let protocol = Protocol::Blob2024;
        let items = |n: usize| -> Vec<Item> {
            let item = |k: usize| Item::new(format!("q{k}"), "Who is big?", ["cat", "dog", "sun"]).with_answer(k % 3);
            (0..n).map(item).collect()
        };
        let encoded = |n: usize| {
            let task = protocol.items(&Task::new("q", items(n)).unwrap(), BLOB_BATCH).unwrap();
            protocol.encode(TaskKind::MultipleChoice(3), &task, &tokenizer()).unwrap()
        };
        let (train, test) = (encoded(10), encoded(7));
        let lm = Pretrained::from_dir(STORIES).unwrap().load(&Device::flex()).unwrap();
        let base = PromptClassifier::new(lm, &train).unwrap();
        let about = About {
            protocol: protocol.name().into(),
            task: "q".into(),
            model: "stories260K".into(),
            prompt_hash: String::new(),
            prompt_example: String::new(),
            classes: ["A", "B", "C"].map(|name| ClassName { name: name.into(), token: None }).into(),
        };
        let splits = Splits { train: &train, held_out: None, test: &test, shifted: Vec::new() };
        let mut recipe = protocol.recipe(10);
        recipe.trainer.max_steps = Some(3);
        let comparison = Comparison::new(recipe).with_method(MaximumLikelihood).with_method(Blob::published());
        let run = comparison.run(&base, &about, &splits, 0).unwrap();
        // two whole batches of ten items, one of seven
        assert_eq!((run.setting.n_train, run.setting.test.len(), run.setting.training.items), (8, 4, 3 * BLOB_BATCH));
        assert!(
            run.setting.recipe.contains("on q_proj, v_proj, lm_head") && run.setting.recipe.contains("never shuffled")
        );
        let mut clean = run.clone();
        let report = Report::new(vec![run], ReportOptions::default()).unwrap();
        assert_eq!((report.protocol.as_str(), report.groups[0].rows.len()), ("blob2024", 2));
        assert!(report.groups[0].rows.iter().all(|row| row.failures.is_empty()), "{:?}", report.groups[0].rows);
        // and stands in no table with ours
        (clean.setting.protocol, clean.setting.seed) = (Protocol::Clean.name().into(), 1);
        let runs = vec![comparison.run(&base, &about, &splits, 2).unwrap(), clean];
        let error = Report::new(runs, ReportOptions::default()).unwrap_err().to_string();
        assert!(error.contains("`blob2024`") && error.contains("`clean`"), "{error}");
    }

    fn yes_no() -> Task {
        Task::new("b", vec![Item::new("b", "Is it?", ["no", "yes"]).with_passage("p").with_answer(1)]).unwrap()
    }

    #[test]
    fn the_published_run_is_5000_unshuffled_steps_of_whole_batches() {
        let recipe = Protocol::Blob2024.recipe(642);
        assert_eq!((recipe.trainer.max_steps, recipe.trainer.shuffle), (Some(5000), false));
        // 160 whole batches an epoch
        assert_eq!(recipe.trainer.epochs, 32);
        assert_eq!(Protocol::Blob2024.items(&question(), 2).unwrap().items.len(), 4);
        assert_eq!(Protocol::Clean.items(&question(), 2).unwrap().items.len(), 5);
        for protocol in Protocol::ALL {
            assert_eq!(protocol.name().parse::<Protocol>().unwrap(), protocol);
        }
        assert!("blob".parse::<Protocol>().unwrap_err().to_string().contains("clean or blob2024, got blob"));
        let error = Protocol::Blob2024.items(&question(), 6).unwrap_err().to_string();
        assert!(error.contains("batches of 6"), "{error}");
        assert!(Protocol::Clean.encoding(TaskKind::MultipleChoice(1)).unwrap_err().to_string().contains("choices"));
    }
}
