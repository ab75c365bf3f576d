//! Makes two whole chats of a preferred and a rejected one and of their prompt, and finds the messages that both begin with.

use serde_json::Value;

use super::texts::{ChatTurn, Role, chat_fault};
use crate::error::{Error, Result};

/// Two chats that go apart behind some messages.
#[derive(Debug)]
pub(super) struct ChatPair {
    /// The chosen one and the rejected one.
    pub chats: [Vec<ChatTurn>; 2],
    /// How many messages they share.
    shared: usize,
}

impl ChatPair {
    /// Joins a prompt with what follows it. A prompt of messages stands before both; without one the messages that both begin with are the
    /// prompt. A text is the user's message, which the chats may hold already.
    ///
    /// # Errors
    /// [`Error::Format`] with `place` for what is no pair of answers to one prompt.
    pub(super) fn new(prompt: Option<&Value>, answers: [Vec<ChatTurn>; 2], place: &str) -> Result<Self> {
        let wrong = |reason: String| Error::format(place, reason);
        for (name, answer) in ["chosen", "rejected"].iter().zip(&answers) {
            if answer.is_empty() {
                return Err(wrong(format!("`{name}` is an empty list")));
            }
        }
        let before = match prompt {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) if text.trim().is_empty() => return Err(wrong("`prompt` is empty".into())),
            Some(Value::String(text)) => of_text(text, &answers, place)?,
            Some(messages) => match turns("prompt", messages, place)? {
                none if none.is_empty() => return Err(wrong("`prompt` is an empty list".into())),
                turns => turns,
            },
        };
        let chats = answers.map(|answer| [before.clone(), answer].concat());
        let shared = shared(&chats);
        if shared == 0 {
            let reason = "there is no `prompt`, and the two chats begin with different messages: they answer no prompt in common";
            return Err(wrong(reason.into()));
        }
        let names = ["chosen", "rejected"];
        match [0, 1].map(|i| shared == chats[i].len()) {
            [true, true] => return Err(wrong(format!("`chosen` and `rejected` are the same {shared} messages"))),
            [false, false] => {}
            ends => {
                let (short, long) = if ends[0] { (names[0], names[1]) } else { (names[1], names[0]) };
                return Err(wrong(format!("`{short}` is how `{long}` begins: it holds no answer of its own")));
            }
        }
        for (name, chat) in names.iter().zip(&chats) {
            let last = chat.last().map_or("nobody", |turn| turn.role.name());
            let fault = chat_fault(chat).or_else(|| {
                let n = chat.len();
                (last != Role::Assistant.name())
                    .then(|| format!("message {n} of {n}, the last, is the {last}'s and not the assistant's"))
            });
            if let Some(reason) = fault {
                return Err(wrong(format!("`{name}`: {reason}")));
            }
        }
        Ok(Self { chats, shared })
    }

    /// The messages that both begin with.
    fn prompt(&self) -> &[ChatTurn] {
        &self.chats[0][..self.shared]
    }

    /// The last thing that the user asks before the chats go apart; the last message, where the user asks nothing.
    pub(super) fn question(&self) -> &str {
        let asked = self.prompt().iter().rfind(|turn| turn.role == Role::User);
        asked.or(self.prompt().last()).map_or("", |turn| &turn.content)
    }

    /// What follows in each.
    pub(super) fn answers(&self) -> [String; 2] {
        [0, 1].map(|i| {
            let turns = self.chats[i][self.shared..].iter();
            turns.map(|turn| turn.content.as_str()).collect::<Vec<_>>().join("\n\n")
        })
    }
}

/// How many messages two chats begin with in common.
pub(super) fn shared<C: AsRef<[ChatTurn]>>(chats: &[C]) -> usize {
    let Some((first, rest)) = chats.split_first() else { return 0 };
    let alike = |chat: &C| first.as_ref().iter().zip(chat.as_ref()).take_while(|(a, b)| a == b).count();
    rest.iter().map(alike).min().unwrap_or(first.as_ref().len())
}

/// A prompt that is a text: a message of the user, unless the chats begin with it already.
fn of_text(text: &str, answers: &[Vec<ChatTurn>; 2], place: &str) -> Result<Vec<ChatTurn>> {
    let common = &answers[0][..shared(answers)];
    if common.iter().all(|turn| turn.role != Role::User) {
        return Ok(vec![ChatTurn { role: Role::User, content: text.into() }]);
    }
    let is_prompt = |turn: &ChatTurn| turn.role == Role::User && turn.content.trim() == text.trim();
    if common.iter().any(is_prompt) {
        return Ok(Vec::new());
    }
    let n = common.len();
    let reason =
        format!("`prompt` is a text, and none of the user's among the {n} messages that both chats begin with");
    Err(Error::format(place, reason))
}

/// A list of messages.
pub(super) fn turns(name: &str, value: &Value, place: &str) -> Result<Vec<ChatTurn>> {
    let Value::Array(messages) = value else {
        return Err(Error::format(place, format!("`{name}` is {value}, no text and no list of messages")));
    };
    let turn = |(index, message): (usize, &Value)| {
        let n = messages.len();
        serde_json::from_value(message.clone())
            .map_err(|error| Error::format(place, format!("`{name}`: message {} of {n}: {error}", index + 1)))
    };
    messages.iter().enumerate().map(turn).collect()
}

#[cfg(test)]
mod tests {
    use crate::data::{AnswerForm, Encoding, Item, PromptTemplate, Role, Tokenizer, TokenizerFiles, Truncation, tiny};
    use crate::error::Result;
    use serde_json::{Value, json};

    fn user(content: &str) -> Value {
        json!({"role": "user", "content": content})
    }

    fn said(content: &str) -> Value {
        json!({"role": "assistant", "content": content})
    }

    fn read(line: &Value) -> Result<Item> {
        Item::from_preference_line(&line.to_string(), 1, "here")
    }

    #[test]
    fn a_prompt_is_messages_a_text_or_what_both_chats_begin_with() {
        let system = json!({"role": "system", "content": "s"});
        let asked = [
            json!({"prompt": [user("is it")], "chosen": [said("yes")], "rejected": [said("no")]}),
            json!({"prompt": "is it", "chosen": [said("yes")], "rejected": [said("no")]}),
            json!({"chosen": [user("is it"), said("yes")], "rejected": [user("is it"), said("no")]}),
            // the field repeats what the chats hold
            json!({"prompt": "is it ", "chosen": [user("is it"), said("yes")], "rejected": [user("is it"), said("no")]}),
        ];
        let first = read(&asked[0]).unwrap();
        assert_eq!((first.question.as_str(), &first.choices[first.answer.unwrap()]), ("is it", &"yes".to_string()));
        assert_eq!(first.chats[first.answer.unwrap()][1].content, "yes");
        for other in &asked[1..] {
            assert_eq!(read(other).unwrap(), first, "{other}");
        }
        let [chosen, rejected] = ["a", "b"].map(|word| json!([system, user("x"), said("y"), user("z"), said(word)]));
        let long = read(&json!({"chosen": chosen, "rejected": rejected})).unwrap();
        assert_eq!((long.question.as_str(), long.chats[0].len(), long.chats[0][0].role), ("z", 5, Role::System));
    }

    #[test]
    fn the_order_of_two_chats_is_the_same_whichever_was_preferred_and_even() {
        let mut first = 0;
        for k in 0..1000 {
            let pair = |chosen: &str, rejected: &str| {
                read(&json!({"prompt": [user(&k.to_string())], "chosen": [said(chosen)], "rejected": [said(rejected)]}))
                    .unwrap()
            };
            let (one, other) = (pair("good", "bad"), pair("bad", "good"));
            assert_eq!((&one.choices, &one.chats), (&other.choices, &other.chats));
            assert_eq!(one.answer.unwrap() + other.answer.unwrap(), 1);
            first += usize::from(one.answer == Some(0));
        }
        // 500 with a standard deviation of √250 = 16
        assert!((420..580).contains(&first), "{first}");
    }

    #[test]
    fn what_is_no_pair_of_chats_is_named() {
        let robot = json!({"role": "robot", "content": "x"});
        let system = json!({"role": "system", "content": "s"});
        for (line, words) in [
            (
                json!({"chosen": [user("a"), said("b")], "rejected": [user("c"), said("d")]}),
                ["no `prompt`", "different"],
            ),
            (json!({"chosen": [], "rejected": [said("d")]}), ["`chosen`", "empty list"]),
            (json!({"prompt": [], "chosen": [said("c")], "rejected": [said("d")]}), ["`prompt`", "empty list"]),
            (json!({"prompt": " ", "chosen": [said("c")], "rejected": [said("d")]}), ["`prompt`", "empty"]),
            (json!({"prompt": "a", "chosen": [said("c")], "rejected": [said("c")]}), ["the same", "2 messages"]),
            (
                json!({"prompt": "a", "chosen": [said("c")], "rejected": [said("c"), user("e"), said("d")]}),
                ["`chosen` is how `rejected` begins", "no answer"],
            ),
            (json!({"prompt": "a", "chosen": [user("c")], "rejected": [said("d")]}), ["`chosen`", "none of the 2"]),
            (
                json!({"prompt": "a", "chosen": [said("d"), user("e")], "rejected": [said("f")]}),
                ["`chosen`: message 3 of 3", "user"],
            ),
            (json!({"prompt": "a", "chosen": [said(" ")], "rejected": [said("d")]}), ["message 2 of 2", "empty"]),
            (json!({"prompt": "a", "chosen": [robot], "rejected": [said("d")]}), ["`chosen`: message 1 of 1", "robot"]),
            (
                json!({"prompt": "a", "chosen": [system, said("c")], "rejected": [said("d")]}),
                ["message 2 of 3", "system"],
            ),
            (
                json!({"prompt": "a", "chosen": "c", "rejected": [said("d")]}),
                ["`chosen` is a text", "`rejected` a list"],
            ),
            (json!({"prompt": [user("a")], "chosen": "c", "rejected": "d"}), ["`prompt` is a list", "texts"]),
            (
                json!({"prompt": "z", "chosen": [user("a"), said("b")], "rejected": [user("a"), said("d")]}),
                ["`prompt` is a text", "1 messages"],
            ),
            (json!({"prompt": 3, "chosen": [said("b")], "rejected": [said("d")]}), ["`prompt` is 3", "messages"]),
        ] {
            let error = read(&line).unwrap_err().to_string();
            assert!(error.contains("here") && words.iter().all(|word| error.contains(word)), "{line}: {error}");
        }
    }

    /// A tokenizer of single letters of a template that has one for everything.
    fn tokenizer() -> Tokenizer {
        let template = "{% for m in messages %}{{ m.role }} {{ m.content }} ? {% endfor %}\
                        {% if add_generation_prompt %}assistant{% endif %}";
        let json = tiny::words_json();
        let chat_template = Some(template.as_bytes());
        Tokenizer::from_files(&TokenizerFiles {
            tokenizer: json.as_bytes(),
            chat_template,
            ..TokenizerFiles::default()
        })
        .unwrap()
    }

    #[test]
    fn a_pair_of_chats_is_two_rows_in_the_chat_template_and_shrinks_by_the_last_common_message() {
        let tokenizer = tokenizer();
        let encoding = Encoding::new(PromptTemplate::text(), AnswerForm::Rewards);
        let line = json!({"prompt": [user("is it is it")], "chosen": [said("yes")], "rejected": [said("no no")]});
        let task = crate::data::Task::new("t", vec![read(&line).unwrap()]).unwrap();
        let data = encoding.encode(&task, &tokenizer).unwrap();
        let item = &data.items[0];
        let texts = ["user is it is it ? assistant yes ? ", "user is it is it ? assistant no no ? "];
        let texts = texts.map(|text| tokenizer.encode(text, false).unwrap());
        let label = item.label.unwrap();
        assert_eq!((&item.rows[label].ids, &item.rows[1 - label].ids), (&texts[0], &texts[1]));
        // the template was used, which the posterior will insist on
        let asked = data.asked.as_ref().unwrap();
        assert!(asked.encoding.chat && asked.chat_template.is_some());

        let limit = texts[1].len() - 2;
        let refused = encoding.clone().with_max_tokens(limit).encode(&task, &tokenizer).unwrap_err().to_string();
        assert!(refused.contains(&limit.to_string()), "{refused}");
        let short = encoding.clone().with_max_tokens(limit).with_truncation(Truncation::End);
        let cut = short.encode(&task, &tokenizer).unwrap();
        let expected = tokenizer.encode("user is it ? assistant no no ? ", false).unwrap();
        assert_eq!((&cut.items[0].rows[1 - label].ids, cut.n_truncated), (&expected, 1));
        let none = encoding.clone().with_max_tokens(3).with_truncation(Truncation::End);
        assert!(none.encode(&task, &tokenizer).is_err());

        // texts beside chats are not bare
        let texts = json!({"prompt": "is it", "chosen": "yes", "rejected": "no"});
        let both = crate::data::Task::new("t", vec![read(&line).unwrap(), read(&texts).unwrap()]).unwrap();
        let error = encoding.encode(&both, &tokenizer).unwrap_err().to_string();
        assert!(error.contains("with_chat"), "{error}");
        assert!(encoding.clone().with_chat(true).encode(&both, &tokenizer).is_ok());
        // and no other answer is asked by chats
        let labels = Encoding::new(PromptTemplate::text(), AnswerForm::labels(["yes", "no no"]));
        let error = labels.encode(&task, &tokenizer).unwrap_err().to_string();
        assert!(error.contains("chats") && error.contains("Rewards"), "{error}");
        let error = encoding.encode(&task, &tiny::words()).unwrap_err().to_string();
        assert!(error.contains("chat template"), "{error}");
    }

    #[test]
    fn texts_without_a_prompt_begin_with_one_up_to_a_space() {
        let pair = read(&json!({"chosen": "is it? I think", "rejected": "is it? I thank"})).unwrap();
        assert_eq!((pair.question.as_str(), &pair.choices[pair.answer.unwrap()]), ("is it? I ", &"think".to_string()));
        let apart = read(&json!({"chosen": "a b", "rejected": "c"})).unwrap();
        assert_eq!((apart.question.as_str(), apart.choices.len()), ("", 2));
        let error = read(&json!({"chosen": "a b ", "rejected": "a "})).unwrap_err().to_string();
        assert!(error.contains("`rejected`") && error.contains("nothing"), "{error}");
    }
}
