//! Words a question as a prompt: a body that may be shortened and a cue that never is.

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::{Deserialize, Serialize};

use super::task::Item;
use crate::error::{Error, Result};

/// The most instructions that rendering one template may take.
pub const PROMPT_FUEL: u64 = 1_000_000;

/// The most bytes that a template's source may hold (256 KiB).
pub const MAX_TEMPLATE_BYTES: usize = 1 << 18;

/// The most bytes that a rendered prompt may hold (16 MiB).
pub const MAX_PROMPT_BYTES: usize = 1 << 24;

/// A prompt's wording: Jinja sources of its body and of its cue.
///
/// Templates are Jinja (minijinja) and see `question`, `choices` (a list), `letters` (`A`, `B`, …, one per choice),
/// and where the item has them `passage` and `subject`. Printing a variable that the item lacks is an error, not an
/// empty text; `{% if passage %}` is allowed. A newline right after a block tag is dropped, as in chat templates.
///
/// ```
/// use bayes_lora::data::PromptTemplate;
/// use bayes_lora::data::Item;
///
/// let item = Item::new("q", "Which is warm?", ["ice", "fire"]);
/// let prompt = PromptTemplate::multiple_choice().render(&item)?;
/// assert!(prompt.body.ends_with("Choices:\nA) ice\nB) fire"));
/// assert_eq!(prompt.cue, "\nAnswer:");
///
/// let own = PromptTemplate::new("quiz", "{{ question | upper }} {{ choices | join('/') }}", " ->")?;
/// assert_eq!(own.render(&item)?.text(), "WHICH IS WARM? ice/fire ->");
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTemplate {
    /// The name that errors and reports show.
    pub name: String,
    /// The part that truncation may shorten.
    pub body: String,
    /// The end of the prompt, such as `Answer:`, which is never shortened.
    pub cue: String,
}

/// A rendered prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The part that truncation may shorten.
    pub body: String,
    /// The part that is always kept.
    pub cue: String,
}

impl Prompt {
    /// The whole text: body, then cue.
    pub fn text(&self) -> String {
        format!("{}{}", self.body, self.cue)
    }
}

impl PromptTemplate {
    /// Makes a template of one's own and checks its syntax.
    ///
    /// # Errors
    /// [`Error::Format`] naming the template and the place of the mistake.
    pub fn new(name: impl Into<String>, body: impl Into<String>, cue: impl Into<String>) -> Result<Self> {
        let template = Self { name: name.into(), body: body.into(), cue: cue.into() };
        template.compile()?;
        Ok(template)
    }

    /// Asks for the letter of the right choice (class tokens `A`, `B`, …).
    ///
    /// ```text
    /// Return the label of the correct answer for the question below.
    ///
    /// Question: …
    /// Choices:
    /// A) …
    /// B) …
    /// Answer:
    /// ```
    pub fn multiple_choice() -> Self {
        Self::built_in(
            "multiple_choice",
            "Return the label of the correct answer for the question below.\n\n\
             Question: {{ question }}\nChoices:\
             {% for choice in choices %}{{ '\\n' }}{{ letters[loop.index0] }}) {{ choice }}{% endfor %}",
            "\nAnswer:",
        )
    }

    /// Asks the question alone, for continuation scoring: `Question: …⏎Answer:`.
    pub fn question_answer() -> Self {
        Self::built_in("question_answer", "Question: {{ question }}", "\nAnswer:")
    }

    /// Gives the passage, then the question: `…⏎Question: …⏎Answer:`. Truncate it from the start, which drops the
    /// beginning of the passage and keeps the question.
    pub fn passage_question() -> Self {
        Self::built_in("passage_question", "{{ passage }}\nQuestion: {{ question }}", "\nAnswer:")
    }

    /// Gives the bare text, for models with a head.
    pub fn text() -> Self {
        Self::built_in("text", "{{ question }}", "")
    }

    /// Gives the bare question and asks for its area: `…⏎Area:`.
    pub fn question_area() -> Self {
        Self::built_in("question_area", "{{ question }}", "\nArea:")
    }

    fn built_in(name: &str, body: &str, cue: &str) -> Self {
        Self { name: name.into(), body: body.into(), cue: cue.into() }
    }

    /// Parses both sources once, to render many items.
    ///
    /// # Errors
    /// [`Error::Format`] naming the template and the place of the mistake.
    pub fn compile(&self) -> Result<CompiledPrompt> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(PROMPT_FUEL));
        environment.set_keep_trailing_newline(true);
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        // A forgotten passage must not silently become an empty text; `{% if passage %}` stays possible.
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        for (part, source) in [("body", &self.body), ("cue", &self.cue)] {
            if source.len() > MAX_TEMPLATE_BYTES {
                return Err(template_error(
                    &self.name,
                    part,
                    format!("its {} bytes exceed {MAX_TEMPLATE_BYTES}", source.len()),
                ));
            }
            environment.add_template_owned(part, source.clone()).map_err(|e| template_error(&self.name, part, e))?;
        }
        Ok(CompiledPrompt { name: self.name.clone(), environment })
    }

    /// Words one item; [`compile`](Self::compile) first when there are many.
    ///
    /// # Errors
    /// [`Error::Format`] naming the template, for a mistake in it or a variable that the item lacks.
    pub fn render(&self, item: &Item) -> Result<Prompt> {
        self.compile()?.render(item)
    }

    /// A hash of body and cue (not of the name) for reports: 64-bit FNV-1a, 16 hexadecimal digits, the same on every
    /// platform and in every version.
    pub fn fingerprint(&self) -> String {
        let length = (self.body.len() as u64).to_le_bytes();
        // The body's length comes first, so that moving text between body and cue changes the hash.
        let bytes = length.iter().chain(self.body.as_bytes()).chain(self.cue.as_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}

/// A template whose sources are parsed.
#[derive(Clone, Debug)]
pub struct CompiledPrompt {
    name: String,
    environment: Environment<'static>,
}

#[derive(Serialize)]
struct Variables<'a> {
    question: &'a str,
    choices: &'a [String],
    letters: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
}

impl CompiledPrompt {
    /// Words one item.
    ///
    /// # Errors
    /// [`Error::Format`] naming template and item, for a variable that the item lacks, a filter that fails, more
    /// than [`PROMPT_FUEL`] instructions or more than [`MAX_PROMPT_BYTES`].
    pub fn render(&self, item: &Item) -> Result<Prompt> {
        let variables = Variables {
            question: &item.question,
            choices: &item.choices,
            letters: (0..item.choices.len()).map(letter).collect(),
            passage: item.passage.as_deref(),
            subject: item.subject.as_deref(),
        };
        let render = |part: &str| -> Result<String> {
            let reason = |e: String| template_error(&self.name, part, format!("item `{}`: {e}", item.id));
            let text = self
                .environment
                .get_template(part)
                .and_then(|template| template.render(&variables))
                .map_err(|e| reason(e.to_string()))?;
            if text.len() > MAX_PROMPT_BYTES {
                return Err(reason(format!("{} bytes exceed {MAX_PROMPT_BYTES}", text.len())));
            }
            Ok(text)
        };
        Ok(Prompt { body: render("body")?, cue: render("cue")? })
    }
}

/// The label of choice `index`: A … Z, then AA, AB, … as in a spreadsheet.
pub fn letter(index: usize) -> String {
    let last = char::from(b'A' + (index % 26) as u8);
    match index / 26 {
        0 => last.to_string(),
        more => format!("{}{last}", letter(more - 1)),
    }
}

fn template_error(name: &str, part: &str, reason: impl std::fmt::Display) -> Error {
    Error::format(format!("prompt template `{name}` ({part})"), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> Item {
        Item::new("q7", "Why <b> & \"c\"?", ["one", "two"])
    }

    #[test]
    fn the_built_in_texts_are_as_documented() {
        let item = item().with_passage("P.");
        let text = |t: PromptTemplate| t.render(&item).unwrap().text();
        assert_eq!(
            text(PromptTemplate::multiple_choice()),
            "Return the label of the correct answer for the question below.\n\n\
             Question: Why <b> & \"c\"?\nChoices:\nA) one\nB) two\nAnswer:"
        );
        assert_eq!(text(PromptTemplate::question_answer()), "Question: Why <b> & \"c\"?\nAnswer:");
        assert_eq!(text(PromptTemplate::passage_question()), "P.\nQuestion: Why <b> & \"c\"?\nAnswer:");
        assert_eq!(text(PromptTemplate::question_area()), "Why <b> & \"c\"?\nArea:");
    }

    #[test]
    fn a_missing_passage_is_an_error_when_printed_and_false_when_tested() {
        let message = PromptTemplate::passage_question().render(&item()).unwrap_err().to_string();
        for part in ["passage_question", "body", "q7", "undefined"] {
            assert!(message.contains(part), "{message} lacks {part}");
        }
        let optional = "{% if passage %}{{ passage }}\n{% endif %}\n{{ question }}";
        let template = PromptTemplate::new("own", optional, "").unwrap();
        assert_eq!(template.render(&item()).unwrap().text(), item().question);
    }

    #[test]
    fn mistakes_in_templates_name_the_template_and_the_part() {
        let message = PromptTemplate::new("mine", "ok", "{{ oops").unwrap_err().to_string();
        assert!(message.contains("`mine` (cue)"), "{message}");
        let template = PromptTemplate::new("mine", "{{ qestion }}", "").unwrap();
        let message = template.render(&item()).unwrap_err().to_string();
        assert!(message.contains("`mine` (body)"), "{message}");
        let long = "x".repeat(MAX_TEMPLATE_BYTES + 1);
        assert!(PromptTemplate::new("long", long, "").is_err());
    }

    #[test]
    fn a_template_that_would_run_forever_runs_out_of_fuel() {
        let body = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        let template = PromptTemplate::new("endless", body, "").unwrap();
        let message = template.render(&item()).unwrap_err().to_string();
        assert!(message.contains("fuel"), "{message}");
    }

    #[test]
    fn the_fingerprint_depends_on_the_wording_alone_and_never_changes() {
        let template = PromptTemplate::question_answer();
        let renamed = PromptTemplate { name: "other".into(), ..template.clone() };
        assert_eq!(template.fingerprint(), renamed.fingerprint());
        let moved =
            PromptTemplate { body: "Question: {{ question }}\n".into(), cue: "Answer:".into(), ..template.clone() };
        assert_ne!(template.fingerprint(), moved.fingerprint());
        // FNV-1a of eight zero bytes, computed by hand: offset basis times prime to the eighth, modulo 2⁶⁴.
        let empty = PromptTemplate::new("empty", "", "").unwrap();
        let prime_to_8 = (0..8).fold(1u64, |p, _| p.wrapping_mul(0x0000_0100_0000_01b3));
        let expected = 0xcbf2_9ce4_8422_2325_u64.wrapping_mul(prime_to_8);
        assert_eq!(empty.fingerprint(), format!("{expected:016x}"));
    }

    #[test]
    fn letters_continue_after_z_as_in_a_spreadsheet() {
        let shown: Vec<String> = [0, 25, 26, 27, 51, 52, 701, 702].map(letter).to_vec();
        assert_eq!(shown, ["A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]);
    }

    #[test]
    fn templates_survive_json() {
        let template = PromptTemplate::multiple_choice();
        let json = serde_json::to_string(&template).unwrap();
        assert_eq!(serde_json::from_str::<PromptTemplate>(&json).unwrap(), template);
    }
}
