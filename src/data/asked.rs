//! Remembers how questions were put to a language model, and says how another way differs.
//!
//! An adapter and its posterior are about the prompts that they were fitted on: the same question in other words, or with other
//! class tokens, gets an answer that nobody calibrated.
//!
//! ```
//! use bayes_lora::data::{AnswerForm, Asked, Encoding, PromptTemplate, Tokenizer};
//!
//! let json = br#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
//!     "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
//!     "model": {"type": "WordLevel", "vocab": {"?": 0, "yes": 1, "no": 2}, "unk_token": "?"}}"#;
//! let tokenizer = Tokenizer::from_bytes(json)?;
//! let form = AnswerForm::class_tokens([" no", " yes"]);
//! let asked = |template| Asked::new(Encoding::new(template, form.clone()), vec![2, 1], &tokenizer);
//!
//! let (fitted, here) = (asked(PromptTemplate::question_answer()), asked(PromptTemplate::question_area()));
//! assert!(fitted.differences(&fitted).is_empty());
//! assert!(fitted.differences(&here)[0].starts_with("prompt template `question_answer`"));
//! # Ok::<(), bayes_lora::error::Error>(())
//! ```

use serde::{Deserialize, Serialize};

use super::encoding::{AnswerForm, Encoding, Normalization};
use super::prompt::PromptTemplate;
use super::tokens::Tokenizer;
use super::truncate::Truncation;

/// All that the ids of a question depend on besides its own text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Wording, form of the answers, limit, chat or not: enough to ask again.
    pub encoding: Encoding,
    /// The ids of the class tokens, in the order of the classes; none for continuations.
    pub class_tokens: Vec<u32>,
    /// [`Tokenizer::fingerprint`].
    pub tokenizer: u64,
    /// [`Tokenizer::chat_fingerprint`], where prompts are wrapped in the chat template.
    pub chat_template: Option<u64>,
}

impl Asked {
    /// Says how `encoding` asks with this tokenizer, which made `class_tokens` of its classes.
    pub fn new(encoding: Encoding, class_tokens: Vec<u32>, tokenizer: &Tokenizer) -> Self {
        let chat_template = tokenizer.chat_fingerprint().filter(|_| encoding.chat);
        Self { encoding, class_tokens, tokenizer: tokenizer.fingerprint(), chat_template }
    }

    /// Says how `here` differs from `self`, each time with both values; nothing where the ids of every question are the same.
    ///
    /// The name of a template is no difference, nor is a limit beyond which questions are refused.
    pub fn differences(&self, here: &Self) -> Vec<String> {
        let quantities = |asked: &Self| {
            [
                ("prompt template", asked.template()),
                ("answers by", asked.answers()),
                ("prompts", asked.chat()),
                ("long prompts are", asked.limit()),
                ("tokenizer", format!("{:016x}", asked.tokenizer)),
            ]
        };
        let same_wording = self.encoding.template.fingerprint() == here.encoding.template.fingerprint();
        let mut differences = Vec::new();
        for ((what, there), (_, here)) in quantities(self).into_iter().zip(quantities(here)) {
            let only_renamed = what == "prompt template" && same_wording;
            if there != here && !only_renamed {
                differences.push(format!("{what} {there} there, {here} here"));
            }
        }
        differences
    }

    fn template(&self) -> String {
        let template: &PromptTemplate = &self.encoding.template;
        format!("`{}` ({})", template.name, template.fingerprint())
    }

    fn answers(&self) -> String {
        match &self.encoding.answers {
            AnswerForm::ClassTokens { classes } => {
                let ids = self.class_tokens.iter().map(u32::to_string).chain(std::iter::repeat("?".into()));
                let tokens: Vec<String> =
                    classes.iter().zip(ids).map(|(class, id)| format!("`{class}` = {id}")).collect();
                format!("the class tokens {}", tokens.join(", "))
            }
            AnswerForm::Rewards => "rewards".into(),
            AnswerForm::Value => "a value".into(),
            AnswerForm::Labels { names } => format!("the labels {}", names.join(", ")),
            AnswerForm::Continuation { normalization: Normalization::Sum } => "continuations".into(),
            AnswerForm::Continuation { normalization: Normalization::PerCharacter } => {
                "continuations per character".into()
            }
        }
    }

    fn chat(&self) -> String {
        match (self.encoding.chat, self.chat_template) {
            (false, _) => "without a chat template".into(),
            (true, None) => "in a chat template".into(),
            (true, Some(hash)) => format!("in the chat template {hash:016x}"),
        }
    }

    fn limit(&self) -> String {
        match (self.encoding.max_tokens, self.encoding.truncation) {
            // what is refused has no answer that could differ
            (None, _) | (_, Truncation::Refuse) => "never shortened".into(),
            (Some(limit), Truncation::Start) => format!("shortened at their start to {limit} tokens"),
            (Some(limit), Truncation::End) => format!("shortened at their end to {limit} tokens"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tiny;
    use crate::data::tokens::TokenizerFiles;

    fn asked(encoding: Encoding) -> Asked {
        Asked::new(encoding, vec![4, 3], &tiny::words())
    }

    fn encoding() -> Encoding {
        Encoding::new(PromptTemplate::question_answer(), AnswerForm::class_tokens(["no", "yes"]))
    }

    #[test]
    fn every_difference_is_named_with_both_values() {
        let own = asked(encoding());
        let by = |answers| Encoding { answers, ..encoding() };
        let continuation = |normalization| by(AnswerForm::Continuation { normalization });
        let short = encoding().with_max_tokens(64);
        let chat = Asked { chat_template: Some(17), ..asked(encoding().with_chat(true)) };
        let others: [(Asked, [&str; 2]); 8] = [
            (
                asked(Encoding { template: PromptTemplate::question_area(), ..encoding() }),
                ["`question_answer`", "`question_area`"],
            ),
            (asked(by(AnswerForm::class_tokens(["no", "yes", "one"]))), ["`yes` = 3 there", "`one` = ?"]),
            (Asked { class_tokens: vec![4, 7], ..own.clone() }, ["`yes` = 3", "`yes` = 7"]),
            (asked(continuation(Normalization::Sum)), ["class tokens", "continuations here"]),
            (asked(continuation(Normalization::PerCharacter)), ["class tokens", "continuations per character"]),
            (asked(short.with_truncation(Truncation::Start)), ["never shortened", "at their start to 64"]),
            (chat, ["without a chat template", "0000000000000011"]),
            (Asked { tokenizer: own.tokenizer + 1, ..own.clone() }, ["tokenizer", "there"]),
        ];
        for (other, parts) in &others {
            for differences in [own.differences(other), other.differences(&own)] {
                assert_eq!(differences.len(), 1, "{differences:?}");
            }
            let text = &own.differences(other)[0];
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn what_changes_no_answer_is_no_difference() {
        let own = asked(encoding());
        let renamed = PromptTemplate { name: "mine".into(), ..PromptTemplate::question_answer() };
        // one that refuses long prompts answers the others in the same way
        let strict = encoding().with_max_tokens(64);
        for other in [Encoding { template: renamed, ..encoding() }, strict] {
            assert_eq!(own.differences(&asked(other)), Vec::<String>::new());
        }
        let spaced = tiny::words_json().replace("\"padding\": null", "\"padding\":   null");
        let padded = tiny::words_json().replace(
            "\"truncation\": null",
            r#""truncation": {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}"#,
        );
        let with_chat = TokenizerFiles { chat_template: Some(b"{{ messages }}"), ..TokenizerFiles::default() };
        for json in [spaced, padded] {
            let tokenizer =
                crate::data::Tokenizer::from_files(&TokenizerFiles { tokenizer: json.as_bytes(), ..with_chat })
                    .unwrap();
            assert_eq!(own.differences(&Asked::new(encoding(), vec![4, 3], &tokenizer)), Vec::<String>::new());
        }
        let other = tiny::words_json().replace("\"yes\": 3, \"no\": 4", "\"no\": 3, \"yes\": 4");
        let tokenizer = crate::data::Tokenizer::from_bytes(other.as_bytes()).unwrap();
        assert_eq!(own.differences(&Asked::new(encoding(), vec![4, 3], &tokenizer)).len(), 1);
    }

    #[test]
    fn a_way_of_asking_survives_json() {
        let own = asked(encoding().with_max_tokens(64).with_truncation(Truncation::End));
        let json = serde_json::to_string(&own).unwrap();
        assert_eq!(serde_json::from_str::<Asked>(&json).unwrap(), own);
    }
}
