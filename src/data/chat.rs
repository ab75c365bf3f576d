//! Wraps a question in the chat template of an instruct model.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use hf_chat_template::{ChatTemplate, FixedClock, Message, TokenField, TokenizerConfig};

use super::chat_marks::{MARKS, with_marks};
use super::special::SpecialTokens;
use super::texts::{ChatTurn, Role};
use crate::error::{Error, Result};

/// The date that templates see, in seconds since 1970: 26 July 2024, which Llama 3.1's template has as its default.
pub const CHAT_DATE: i64 = 1_721_952_000;

/// The most bytes that a chat template's source may hold (1 MiB).
pub const MAX_CHAT_TEMPLATE_BYTES: usize = 1 << 20;

/// The most bytes that a rendered chat prompt may hold (16 MiB).
pub const MAX_CHAT_PROMPT_BYTES: usize = 1 << 24;

/// How long rendering one prompt may take, in seconds.
pub const MAX_CHAT_SECONDS: u64 = 10;

/// A chat template ready to render.
///
/// Templates come with the model and are not trusted: they run in minijinja (no files, no network), with a cap on
/// the size of source and output and a time limit. `strftime_now` always answers [`CHAT_DATE`], so that a prompt does
/// not change with the day it is written on.
///
/// ```
/// use bayes_lora::data::ChatFormat;
/// use bayes_lora::data::SpecialTokens;
///
/// let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}\
///               {% if add_generation_prompt %}<|assistant|>{% endif %}";
/// let special = SpecialTokens { eos: Some("</s>".into()), ..SpecialTokens::default() };
/// let chat = ChatFormat::new(source, &special)?;
/// assert_eq!(chat.render("Is it?")?, "<|user|>Is it?</s><|assistant|>");
/// # Ok::<(), bayes_lora::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChatFormat {
    template: Arc<ChatTemplate>,
    /// The same that marks the assistant's words, where it says which these are.
    marked: Option<Arc<ChatTemplate>>,
}

impl ChatFormat {
    /// Parses a template; the special tokens are what it sees as `bos_token`, `eos_token`, ….
    ///
    /// # Errors
    /// [`Error::Format`] for a source that is too long or does not parse.
    pub fn new(source: &str, special: &SpecialTokens) -> Result<Self> {
        if source.len() > MAX_CHAT_TEMPLATE_BYTES {
            return Err(chat_error(format!("its {} bytes exceed {MAX_CHAT_TEMPLATE_BYTES}", source.len())));
        }
        let field = |name: &Option<String>| name.clone().map(TokenField::Str);
        let config = TokenizerConfig {
            bos_token: field(&special.bos),
            eos_token: field(&special.eos),
            pad_token: field(&special.pad),
            unk_token: field(&special.unk),
            ..TokenizerConfig::default()
        };
        let build = |source: &str| {
            let builder = ChatTemplate::builder(source).special_tokens_from(&config);
            let template = builder.clock(FixedClock::from_unix_secs(CHAT_DATE)).build();
            template.map(Arc::new).map_err(chat_error)
        };
        let marked = with_marks(source).map(|source| build(&source)).transpose()?;
        Ok(Self { template: build(source)?, marked })
    }

    /// Parses the template that a tokenizer's files hold, if they hold one; else says why it is none of those that they hold.
    pub(crate) fn from_special(special: &SpecialTokens) -> Option<Result<Self>> {
        if let Some(reason) = &special.no_chat_template {
            return Some(Err(Error::Incompatible(reason.clone())));
        }
        let source = special.chat_template.as_deref()?;
        Some(Self::new(source, special))
    }

    /// Renders one user message, up to where the assistant's answer begins.
    ///
    /// # Errors
    /// [`Error::Format`] for a template that fails, writes more than [`MAX_CHAT_PROMPT_BYTES`] or takes longer than
    /// [`MAX_CHAT_SECONDS`] (its thread then goes on until it ends by itself).
    pub fn render(&self, user: &str) -> Result<String> {
        self.render_within(user, Duration::from_secs(MAX_CHAT_SECONDS))
    }

    /// Renders a chat; `asks` goes on up to where the assistant's answer begins.
    ///
    /// # Errors
    /// As [`ChatFormat::render`].
    pub fn render_turns(&self, turns: &[ChatTurn], asks: bool) -> Result<String> {
        self.render_first(&turns.into(), turns.len(), asks)
    }

    /// The same for the first `n` of a chat's messages.
    pub(super) fn render_first(&self, turns: &Arc<[ChatTurn]>, n: usize, asks: bool) -> Result<String> {
        render(&self.template, first(Arc::clone(turns), n), asks, Duration::from_secs(MAX_CHAT_SECONDS))
    }

    /// Renders a chat with marks around what the assistant says; `None` for a template that has none.
    ///
    /// # Errors
    /// As [`ChatFormat::render`], and for words that hold a mark.
    pub(super) fn render_marked(&self, turns: &Arc<[ChatTurn]>) -> Result<Option<String>> {
        let Some(marked) = &self.marked else { return Ok(None) };
        if let Some(index) = turns.iter().position(|turn| turn.content.contains(MARKS)) {
            let codes = MARKS.map(|mark| format!("U+{:04X}", u32::from(mark))).join(" or ");
            return Err(chat_error(format!("message {} of {} holds {codes}", index + 1, turns.len())));
        }
        render(marked, first(Arc::clone(turns), turns.len()), false, Duration::from_secs(MAX_CHAT_SECONDS)).map(Some)
    }

    fn render_within(&self, user: &str, limit: Duration) -> Result<String> {
        let message = Message::user(user);
        render(&self.template, move || vec![message], true, limit)
    }
}

/// The first `n` messages, made where they are rendered.
fn first(turns: Arc<[ChatTurn]>, n: usize) -> impl FnOnce() -> Vec<Message> + Send + 'static {
    let message = |turn: &ChatTurn| match turn.role {
        Role::System => Message::system(&turn.content),
        Role::User => Message::user(&turn.content),
        Role::Assistant => Message::assistant(&turn.content),
    };
    move || turns.iter().take(n).map(message).collect()
}

fn render(
    template: &Arc<ChatTemplate>,
    messages: impl FnOnce() -> Vec<Message> + Send + 'static,
    asks: bool,
    limit: Duration,
) -> Result<String> {
    let template = Arc::clone(template);
    // The renderer offers no fuel limit, and nested loops in a hostile template would never end.
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("chat template".into())
        .spawn(move || {
            // Nobody listens after the time limit: a failed send is then what must happen.
            let _ = sender.send(template.render_messages(&messages(), asks));
        })
        .map_err(|e| chat_error(format!("its thread did not start: {e}")))?;
    let text = receiver
        .recv_timeout(limit)
        .map_err(|e| match e {
            mpsc::RecvTimeoutError::Timeout => chat_error(format!("did not finish within {} s", limit.as_secs_f64())),
            mpsc::RecvTimeoutError::Disconnected => chat_error("panicked"),
        })?
        .map_err(chat_error)?;
    if text.len() > MAX_CHAT_PROMPT_BYTES {
        return Err(chat_error(format!("wrote {} bytes, more than {MAX_CHAT_PROMPT_BYTES}", text.len())));
    }
    Ok(text)
}

fn chat_error(reason: impl std::fmt::Display) -> Error {
    Error::format("chat template", reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tiny;
    use crate::data::tokens::{Tokenizer, TokenizerFiles};

    /// The chat template of HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0), word for word.
    const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn format(source: &str) -> ChatFormat {
        ChatFormat::new(source, &SpecialTokens::default()).unwrap()
    }

    #[test]
    fn the_template_of_smollm2_renders_as_in_transformers() {
        assert_eq!(
            format(SMOLLM2).render("Is it?").unwrap(),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
             <|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn the_date_is_always_the_same() {
        let text = format("{{ strftime_now('%d %b %Y') }}").render("").unwrap();
        assert_eq!(text, "26 Jul 2024");
    }

    #[test]
    fn a_template_that_takes_too_long_is_given_up() {
        // Two million turns take far more than a millisecond, and end soon enough not to disturb other tests.
        let slow = "{% for a in range(99999) %}{% for b in range(20) %}{% endfor %}{% endfor %}";
        let error = format(slow).render_within("", Duration::from_millis(1)).unwrap_err();
        assert!(error.to_string().contains("0.001 s"), "{error}");
    }

    #[test]
    fn templates_that_fail_name_the_reason() {
        let raised = format("{{ raise_exception('users only') }}").render("a").unwrap_err();
        assert!(raised.to_string().contains("users only"), "{raised}");
        assert!(ChatFormat::new("{% if", &SpecialTokens::default()).is_err());
        let long = "x".repeat(MAX_CHAT_TEMPLATE_BYTES + 1);
        assert!(ChatFormat::new(&long, &SpecialTokens::default()).is_err());
    }

    #[test]
    fn a_broken_template_matters_only_to_who_asks_for_chat() {
        assert!(matches!(tiny::words().chat_prompt("a"), Err(Error::Incompatible(_))));
        let json = tiny::words_json();
        let tokenizer = Tokenizer::from_files(&TokenizerFiles {
            tokenizer: json.as_bytes(),
            chat_template: Some(b"{% if"),
            ..TokenizerFiles::default()
        })
        .unwrap();
        assert!(tokenizer.encode("is", true).is_ok());
        assert!(matches!(tokenizer.chat_prompt("a"), Err(Error::Format { .. })));
    }
}
