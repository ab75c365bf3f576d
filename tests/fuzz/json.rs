//! Changes JSON as a tree, so that the result is JSON still, and as a text.

use super::mutate::{EDGES, Rng, bytes};
use rand::RngExt;
use serde_json::{Value, json};

/// What no JSON number is, or no machine number.
const NUMBERS: [&str; 12] = [
    "1e400",
    "-1e400",
    "1e-400",
    "NaN",
    "-Infinity",
    "-0",
    "007",
    "1.",
    "18446744073709551616",
    "-9223372036854775809",
    "0x10",
    "99999999999999999999999999999999999999999999",
];

/// Texts that mean something to one of the readers.
const TEXTS: [&str; 12] = [
    "",
    "NaN",
    "1e400",
    "-1",
    "../up.safetensors",
    "(a{500}){500}",
    "((((((((((x*)*)*)*)*)*)*)*)*)*",
    "[",
    "\u{0}",
    "F64",
    "Sketch",
    "ffffffffffffffff",
];

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// Node `n`, parents first.
fn nth<'a>(value: &'a mut Value, n: &mut usize) -> Option<&'a mut Value> {
    if *n == 0 {
        return Some(value);
    }
    *n -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, n)),
        Value::Object(fields) => fields.values_mut().find_map(|field| nth(field, n)),
        _ => None,
    }
}

fn any<'a>(value: &'a mut Value, rng: &mut Rng) -> &'a mut Value {
    let mut n = rng.random_range(0..count(value));
    nth(value, &mut n).unwrap()
}

fn edge(rng: &mut Rng) -> Value {
    let edge = EDGES[rng.random_range(0..EDGES.len())];
    match rng.random_range(0..4) {
        0 => json!((edge as i64).wrapping_neg()),
        1 => json!(edge as f64 + 0.5),
        _ => json!(edge),
    }
}

/// Changes one node of the tree.
pub fn tree(value: &mut Value, rng: &mut Rng) {
    match rng.random_range(0..10) {
        0..3 => *any(value, rng) = edge(rng),
        3 => {
            let others = [json!(null), json!(true), json!(""), json!([]), json!({}), json!([null]), json!("text")];
            *any(value, rng) = others[rng.random_range(0..others.len())].clone();
        }
        4 => *any(value, rng) = json!(TEXTS[rng.random_range(0..TEXTS.len())]),
        5 => {
            let copy = any(value, rng).clone();
            *any(value, rng) = copy;
        }
        6 => {
            let node = any(value, rng);
            let levels = [1, 5, 126, 130, 1000][rng.random_range(0..5)];
            *node = (0..levels).fold(node.take(), |inner, _| json!([inner]));
        }
        7 => match any(value, rng) {
            Value::Array(items) if !items.is_empty() => {
                let again = items[rng.random_range(0..items.len())].clone();
                items.extend(std::iter::repeat_n(again, [1, 2, 300][rng.random_range(0..3)]));
            }
            other => *other = json!("a".repeat(rng.random_range(1..5000))),
        },
        8 => match any(value, rng) {
            Value::Array(items) if !items.is_empty() => drop(items.remove(rng.random_range(0..items.len()))),
            Value::Object(fields) if !fields.is_empty() => {
                let key = fields.keys().nth(rng.random_range(0..fields.len())).unwrap().clone();
                fields.remove(&key);
            }
            other => *other = Value::Null,
        },
        _ => {
            let names = ["x", "", "r", "dtype", "format_version", "0", "weight"];
            let new = names[rng.random_range(0..names.len())].to_string();
            if let Value::Object(fields) = any(value, rng)
                && !fields.is_empty()
            {
                let key = fields.keys().nth(rng.random_range(0..fields.len())).unwrap().clone();
                let field = fields.remove(&key).unwrap();
                fields.insert(new, field);
            }
        }
    }
}

/// Replaces one number of a text by something that is none.
fn number(text: &mut Vec<u8>, rng: &mut Rng) {
    let is_digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    let starts: Vec<usize> = (0..text.len()).filter(|&at| is_digit(at) && (at == 0 || !is_digit(at - 1))).collect();
    if starts.is_empty() {
        return;
    }
    let start = starts[rng.random_range(0..starts.len())];
    let end = (start..text.len()).find(|&at| !is_digit(at)).unwrap_or(text.len());
    text.splice(start..end, NUMBERS[rng.random_range(0..NUMBERS.len())].bytes());
}

pub fn mutate(text: &mut Vec<u8>, donor: &[u8], rng: &mut Rng) {
    let parsed = serde_json::from_slice::<Value>(text);
    match (rng.random_range(0..10), parsed) {
        (0..7, Ok(mut value)) => {
            tree(&mut value, rng);
            *text = serde_json::to_vec(&value).unwrap();
        }
        (7 | 8, _) => number(text, rng),
        (9, _) if rng.random_bool(0.2) => {
            let depth = [127, 129, 20_000][rng.random_range(0..3)];
            let open = if rng.random_bool(0.5) { "[" } else { "{\"a\":" };
            let at = rng.random_range(0..=text.len());
            text.splice(at..at, open.repeat(depth).bytes());
        }
        _ => bytes(text, donor, rng),
    }
}
