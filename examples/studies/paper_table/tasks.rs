//! Which tasks a table has: a JSON file.

use crate::Outcome;
use bayes_lora::compare::{ClassName, Protocol, TaskKind};
use bayes_lora::data::{
    AnswerForm, EncodedDataset, Encoding, Item, Normalization, PromptTemplate, Task, Tokenizer, Truncation, read_areas,
};
use serde::Deserialize;
use std::path::Path;

/// One task, its files relative to a directory of data.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    pub name: String,
    pub train: String,
    pub test: String,
    /// `choices`, `question`, `passage` or `area`, or a Jinja body and cue of one's own.
    pub prompt: Prompt,
    /// Class tokens in the order of the choices; none scores each choice's text as a continuation.
    pub classes: Option<Vec<String>>,
    /// By what the log-likelihood of a continuation is divided: `sum` (nothing) or `per_character`.
    #[serde(default)]
    pub normalization: Normalization,
    /// A subject → area table: questions are routed by their subject to the areas named in `area_names`.
    pub areas: Option<String>,
    #[serde(default)]
    pub area_names: Vec<String>,
    /// Keep only items whose passage has at most so many characters.
    pub max_passage: Option<usize>,
    #[serde(default)]
    pub shifted: Vec<ShiftedSpec>,
    /// What it asks, for protocols that have a prompt of their own for that: `{"multiple_choice": 4}`, `yes_no` or `blank`.
    pub kind: Option<TaskKind>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    Choices,
    Question,
    Passage,
    Area,
    Own { name: String, body: String, cue: String },
}

/// Items from elsewhere, asked in the task's form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShiftedSpec {
    pub name: String,
    pub file: String,
    /// Keep only items of these subjects.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// Keep only items of so many choices.
    pub n_choices: Option<usize>,
    /// Their answers are of the task's classes, and are scored.
    #[serde(default)]
    pub labelled: bool,
}

/// How many items of each kind.
pub struct Sizes {
    pub train: usize,
    pub held_out: usize,
    pub test: usize,
    pub shifted: usize,
}

/// A task's items as a model sees them.
pub struct EncodedTask {
    pub train: EncodedDataset,
    pub held_out: Option<EncodedDataset>,
    pub test: EncodedDataset,
    pub shifted: Vec<EncodedShift>,
    pub example: String,
    pub classes: Vec<ClassName>,
    pub prompt_hash: String,
}

pub struct EncodedShift {
    pub name: String,
    pub data: EncodedDataset,
    pub labelled: bool,
}

impl TaskSpec {
    pub fn read_all(path: &Path) -> Outcome<Vec<Self>> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?)
    }

    /// Refuses a task that the protocol has no form for.
    pub fn check(&self, protocol: Protocol) -> Outcome<()> {
        self.form(protocol).map(|_| ())
    }

    /// How items become rows: as the task says, or as a preset does.
    fn form(&self, protocol: Protocol) -> Outcome<Form> {
        match (protocol, self.kind) {
            (Protocol::Clean, _) => Ok(Form::Own(self.encoding()?)),
            (Protocol::Blob2024, Some(kind)) => Ok(Form::Preset(protocol, kind)),
            (Protocol::Blob2024, None) => {
                Err(format!("task `{}` has no `kind`, by which {} would ask it", self.name, protocol.name()).into())
            }
        }
    }

    fn encoding(&self) -> Outcome<Encoding> {
        let template = match &self.prompt {
            Prompt::Choices => PromptTemplate::multiple_choice(),
            Prompt::Question => PromptTemplate::question_answer(),
            Prompt::Passage => PromptTemplate::passage_question(),
            Prompt::Area => PromptTemplate::question_area(),
            Prompt::Own { name, body, cue } => PromptTemplate::new(name, body, cue)?,
        };
        let answers = match &self.classes {
            Some(classes) => AnswerForm::class_tokens(classes.clone()),
            None => AnswerForm::Continuation { normalization: self.normalization },
        };
        Ok(Encoding::new(template, answers).with_max_tokens(256).with_truncation(Truncation::Start))
    }

    fn read(&self, path: &Path, form: &Form) -> Outcome<Task> {
        let short = |item: &Item| {
            let length = item.passage.as_ref().map_or(0, |text| text.chars().count());
            self.max_passage.is_none_or(|most| length <= most)
        };
        let task = Task::from_jsonl(path)?;
        // a preset cuts long passages itself
        Ok(if let Form::Own(_) = form { task.filter(short) } else { task })
    }

    fn routed(&self, task: Task, data: &Path) -> Outcome<Task> {
        match &self.areas {
            None => Ok(task),
            Some(areas) => Ok(task.route_by_subject(&read_areas(data.join(areas))?, &self.area_names)?),
        }
    }

    /// Training and held-out items from one file, test items from another: in the order of the seed, or of the files under a
    /// preset.
    pub fn encode(
        &self,
        data: &Path,
        tokenizer: &Tokenizer,
        sizes: &Sizes,
        (protocol, seed): (Protocol, u64),
    ) -> Outcome<EncodedTask> {
        let form = self.form(protocol)?;
        let read = |file: &str| self.routed(self.read(&data.join(file), &form)?, data);
        let all = read(&self.train)?;
        let n_train = form.at_most(sizes.train, all.len().saturating_sub(sizes.held_out));
        let (train, rest) = form.split(&all, n_train, seed)?;
        let held_out = (sizes.held_out > 0).then(|| form.split(&rest, sizes.held_out, seed)).transpose()?;
        let (test, _) = form.split(&read(&self.test)?, sizes.test, seed)?;
        let encode = |task: &Task| form.encode(task, tokenizer);
        let (train, test) = (encode(&train)?, encode(&test)?);
        let held_out = held_out.map(|(task, _)| encode(&task)).transpose()?;
        let of_held_out = held_out.as_ref().map_or(0, |data| data.n_classes);
        let n_classes = train.n_classes.max(of_held_out).max(test.n_classes);
        let shifted = self.shifted.iter().map(|spec| {
            let kept = |item: &Item| {
                (spec.subjects.is_empty() || item.subject.as_ref().is_some_and(|s| spec.subjects.contains(s)))
                    && spec.n_choices.is_none_or(|n| item.choices.len() == n)
            };
            let task = Task::from_jsonl(data.join(&spec.file))?.filter(kept);
            let data = encode(&form.split(&task, sizes.shifted, seed)?.0)?.with_classes(n_classes)?;
            Ok(EncodedShift { name: spec.name.clone(), data, labelled: spec.labelled })
        });
        let shifted = shifted.collect::<Outcome<Vec<_>>>()?;
        let names = match (&self.classes, self.area_names.is_empty()) {
            (Some(_), false) => self.area_names.clone(),
            (Some(classes), true) => classes.iter().map(|class| class.trim().to_string()).collect(),
            (None, _) => (1..=n_classes).map(|k| format!("choice {k}")).collect(),
        };
        let classes = names.into_iter().enumerate().map(|(c, name)| ClassName { name, token: token(&train, c) });
        Ok(EncodedTask {
            example: train.example(0, tokenizer)?,
            classes: classes.collect(),
            prompt_hash: form.encoding()?.template.fingerprint(),
            train: train.with_classes(n_classes)?,
            held_out: held_out.map(|data| data.with_classes(n_classes)).transpose()?,
            test: test.with_classes(n_classes)?,
            shifted,
        })
    }
}

/// How items become rows.
enum Form {
    Own(Encoding),
    Preset(Protocol, TaskKind),
}

impl Form {
    fn encoding(&self) -> bayes_lora::Result<Encoding> {
        match self {
            Self::Own(encoding) => Ok(encoding.clone()),
            Self::Preset(protocol, kind) => protocol.encoding(*kind),
        }
    }

    /// The first `n` items and the rest: in the order of the seed, or under a preset of the file, of which it takes all where they are
    /// fewer.
    fn split(&self, task: &Task, n: usize, seed: u64) -> bayes_lora::Result<(Task, Task)> {
        match self {
            Self::Own(_) => task.split(n, seed),
            Self::Preset(..) => task.split_at(self.at_most(n, task.len())),
        }
    }

    /// So many of the items at hand.
    fn at_most(&self, n: usize, at_hand: usize) -> usize {
        match self {
            Self::Own(_) => n,
            Self::Preset(..) => n.min(at_hand),
        }
    }

    fn encode(&self, task: &Task, tokenizer: &Tokenizer) -> bayes_lora::Result<EncodedDataset> {
        match self {
            Self::Own(encoding) => encoding.encode(task, tokenizer),
            Self::Preset(protocol, kind) => {
                let batch = protocol.recipe(task.len()).trainer.limits.max_items;
                protocol.encode(*kind, &protocol.items(task, batch)?, tokenizer)
            }
        }
    }
}

fn token(data: &EncodedDataset, class: usize) -> Option<u32> {
    match &data.answers {
        bayes_lora::data::ResolvedAnswers::ClassTokens(ids) => ids.get(class).copied(),
        _ => None,
    }
}
