//! Finds the values of a JSON object in its text, each with its path.

use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::Range;

/// A value without values inside: a text, a number, `true`, `false`, `null`, `{}` or `[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JsonLeaf {
    /// `person.age`, `tags[1]`; names with other signs than letters, digits, `_` and `-` as `["first name"]`.
    pub(super) path: String,
    /// Where it stands in the text, quotes included.
    pub(super) bytes: Range<usize>,
}

/// The leaves of an object, in the order of the text.
///
/// # Errors
/// Says what the text is in its place, or where it ends to be JSON; names a field that stands twice.
pub(super) fn json_leaves(text: &str) -> Result<Vec<JsonLeaf>, String> {
    // what nests deeper than 128 levels is refused here
    let kind = match serde_json::from_str(text).map_err(|e| format!("is no JSON: {e}"))? {
        Value::Object(_) => None,
        Value::Array(_) => Some("a list"),
        Value::String(_) => Some("a text"),
        Value::Number(_) => Some("a number"),
        Value::Bool(_) => Some("true or false"),
        Value::Null => Some("null"),
    };
    if let Some(kind) = kind {
        return Err(format!("is {kind}, no JSON object"));
    }
    let mut walk = Walk { text, at: 0, leaves: Vec::new() };
    walk.value("")?;
    // an object without fields is no field of itself
    walk.leaves.retain(|leaf| !leaf.path.is_empty());
    Ok(walk.leaves)
}

/// Goes through JSON that is known to be right.
struct Walk<'a> {
    text: &'a str,
    at: usize,
    leaves: Vec<JsonLeaf>,
}

impl Walk<'_> {
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    fn space(&mut self) {
        while self.byte().is_ascii_whitespace() {
            self.at += 1;
        }
    }

    /// True once `end` is passed, the comma before another element otherwise.
    fn ends_with(&mut self, end: u8) -> bool {
        self.space();
        let ends = self.byte() == end;
        self.at += 1;
        ends
    }

    fn value(&mut self, path: &str) -> Result<(), String> {
        self.space();
        let start = self.at;
        match self.byte() {
            b'{' => {
                let mut names = BTreeSet::new();
                if self.is_empty(b'}') {
                    self.leaf(path, start);
                    return Ok(());
                }
                loop {
                    self.space();
                    let at = self.at;
                    self.string();
                    let name: String = serde_json::from_str(&self.text[at..self.at])
                        .map_err(|e| format!("has a name that is no text, at byte {at}: {e}"))?;
                    let inner = joined(path, &name);
                    if !names.insert(name) {
                        return Err(format!("has the field `{inner}` twice, again at byte {at}"));
                    }
                    self.space();
                    self.at += 1; // the colon
                    self.value(&inner)?;
                    if self.ends_with(b'}') {
                        return Ok(());
                    }
                }
            }
            b'[' => {
                if self.is_empty(b']') {
                    self.leaf(path, start);
                    return Ok(());
                }
                for index in 0.. {
                    self.value(&format!("{path}[{index}]"))?;
                    if self.ends_with(b']') {
                        break;
                    }
                }
                return Ok(());
            }
            b'"' => self.string(),
            _ => {
                while !matches!(self.byte(), b',' | b'}' | b']' | 0) && !self.byte().is_ascii_whitespace() {
                    self.at += 1;
                }
            }
        }
        self.leaf(path, start);
        Ok(())
    }

    /// Enters a container, and leaves it at once where nothing is inside.
    fn is_empty(&mut self, end: u8) -> bool {
        self.at += 1;
        self.space();
        let is_empty = self.byte() == end;
        self.at += usize::from(is_empty);
        is_empty
    }

    fn string(&mut self) {
        self.at += 1;
        while !matches!(self.byte(), b'"' | 0) {
            self.at += if self.byte() == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
    }

    fn leaf(&mut self, path: &str, start: usize) {
        self.leaves.push(JsonLeaf { path: path.into(), bytes: start..self.at });
    }
}

fn joined(path: &str, name: &str) -> String {
    let is_plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    match (is_plain, path) {
        (true, "") => name.into(),
        (true, path) => format!("{path}.{name}"),
        (false, path) => format!("{path}[{}]", Value::from(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Vec<(String, &str)> {
        json_leaves(text).unwrap().into_iter().map(|leaf| (leaf.path, &text[leaf.bytes])).collect()
    }

    #[test]
    fn every_leaf_has_its_path_and_its_own_text() {
        let text = r#" {"person": {"name": "Bo \"B\" ]}", "age":31 , "é": "ü🦀"},
            "tags": ["a", [true, null]], "none": {}, "list" : [ ], "first name": -1.5e3, "": 0, "a.b": {"c": "\\"}} "#;
        let expected = [
            ("person.name", r#""Bo \"B\" ]}""#),
            ("person.age", "31"),
            ("person.é", r#""ü🦀""#),
            ("tags[0]", r#""a""#),
            ("tags[1][0]", "true"),
            ("tags[1][1]", "null"),
            ("none", "{}"),
            ("list", "[ ]"),
            (r#"["first name"]"#, "-1.5e3"),
            (r#"[""]"#, "0"),
            (r#"["a.b"].c"#, r#""\\""#),
        ];
        assert_eq!(found(text), expected.map(|(path, value)| (path.to_string(), value)));
        assert!(found("{ }").is_empty());
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_kind_or_its_place() {
        for (text, words) in [
            ("[1]", "is a list, no JSON object"),
            ("\"a\"", "is a text, no JSON object"),
            ("17", "is a number"),
            ("null", "is null"),
            ("{\"a\": 1,}", "line 1 column 9"),
            ("{\"a\": 1} b", "trailing characters at line 1 column 10"),
            ("{\"a\":\n nul}", "line 2"),
            ("Sure! {\"a\": 1}", "line 1 column 1"),
            ("", "is no JSON"),
            (r#"{"a": "\ud800"}"#, "hex escape"),
            (r#"{"a": {"b": 1, "c": 2, "\u0062": 3}}"#, "has the field `a.b` twice, again at byte 23"),
        ] {
            let error = json_leaves(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let deep = "{\"a\":".repeat(200) + "1" + &"}".repeat(200);
        assert!(json_leaves(&deep).unwrap_err().contains("recursion limit"));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// The leaves of a value that serde has read.
    fn leaves_of(value: &Value, path: &str, all: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                fields.iter().for_each(|(name, value)| leaves_of(value, &joined(path, name), all));
            }
            Value::Array(values) if !values.is_empty() => {
                values.iter().enumerate().for_each(|(i, value)| leaves_of(value, &format!("{path}[{i}]"), all));
            }
            value if path.is_empty() => assert_eq!(value, &Value::Object(serde_json::Map::new())),
            value => all.push((path.into(), value.clone())),
        }
    }

    proptest! {
        #[test]
        fn any_object_has_the_leaves_that_serde_reads(
            fields in proptest::collection::btree_map(any::<String>(), any_value(), 0..5), pretty in any::<bool>(),
        ) {
            let value = Value::Object(fields.into_iter().collect());
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let mut expected = Vec::new();
            leaves_of(&value, "", &mut expected);
            let read = |(path, text): (String, &str)| (path, serde_json::from_str::<Value>(text).unwrap());
            let mut found: Vec<(String, Value)> = found(&text).into_iter().map(read).collect();
            let by_path = |a: &(String, Value), b: &(String, Value)| a.0.cmp(&b.0);
            found.sort_by(by_path);
            expected.sort_by(by_path);
            prop_assert_eq!(found, expected);
        }
    }
}
