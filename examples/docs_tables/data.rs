//! Reads what a marker asks for, and the files that it names.

use bayes_lora::compare::{Report, ReportOptions, read_runs};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

pub type Failure = Box<dyn std::error::Error>;

/// A marker: `KIND FILES; WORD VALUES; …`.
pub struct Spec {
    pub kind: String,
    pub files: Vec<String>,
    words: BTreeMap<String, Vec<String>>,
}

impl Spec {
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut parts = text.split(';').map(str::trim);
        let mut first = parts.next().unwrap_or_default().split_whitespace().map(String::from);
        let kind = first.next().ok_or("an empty marker")?;
        let word = |part: &str| -> Result<(String, Vec<String>), Failure> {
            let (word, values) = part.split_once(' ').ok_or_else(|| format!("`{part}` has no value"))?;
            Ok((word.into(), values.split('|').map(|value| value.trim().into()).collect()))
        };
        Ok(Self { kind, files: first.collect(), words: parts.map(word).collect::<Result<_, _>>()? })
    }

    /// The values of a word; none where it is not given.
    pub fn values(&self, word: &str) -> Vec<&str> {
        self.words.get(word).into_iter().flatten().map(String::as_str).collect()
    }

    /// The only value of a word.
    pub fn value(&self, word: &str) -> Result<&str, Failure> {
        match self.values(word)[..] {
            [value] => Ok(value),
            ref values => Err(format!("`{word}`: one value is needed, found {}", values.len()).into()),
        }
    }

    /// The only file.
    pub fn file(&self) -> Result<&str, Failure> {
        match &self.files[..] {
            [file] => Ok(file),
            files => Err(format!("one file is needed, found {}", files.len()).into()),
        }
    }
}

/// The files in docs/results, each read once.
pub struct Data {
    dir: PathBuf,
    json: BTreeMap<String, Value>,
    reports: BTreeMap<String, Report>,
}

impl Data {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, json: BTreeMap::new(), reports: BTreeMap::new() }
    }

    /// The file `NAME.json`.
    pub fn json(&mut self, name: &str) -> Result<Node, Failure> {
        if !self.json.contains_key(name) {
            let path = self.dir.join(format!("{name}.json"));
            let text = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let value = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
            self.json.insert(name.into(), value);
        }
        Ok(Node { place: format!("{name}.json"), value: self.json[name].clone() })
    }

    /// The names of the files `DIR/NAME.json`, in order.
    pub fn names(&self, dir: &str) -> Result<Vec<String>, Failure> {
        let path = self.dir.join(dir);
        let entries = std::fs::read_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_string())).collect();
        names.sort();
        Ok(names)
    }

    /// The report of all cells in a directory.
    pub fn report(&mut self, name: &str) -> Result<&Report, Failure> {
        if !self.reports.contains_key(name) {
            let report = Report::new(read_runs(self.dir.join(name))?, ReportOptions::default())?;
            self.reports.insert(name.into(), report);
        }
        Ok(&self.reports[name])
    }
}

/// A JSON value that knows where it stands.
pub struct Node {
    place: String,
    value: Value,
}

impl Node {
    /// The value at a path such as `by_evidence.nll.value`, the whole at an empty one; an error names what is missing.
    pub fn at(&self, path: &str) -> Result<Node, Failure> {
        self.find(path).ok_or_else(|| format!("{}: there is no `{path}`", self.place).into())
    }

    /// The same; none where it is missing or null.
    pub fn find(&self, path: &str) -> Option<Node> {
        let parts = path.split('.').filter(|part| !part.is_empty());
        let value = parts.into_iter().try_fold(&self.value, |value, part| match part.parse::<usize>() {
            Ok(index) => value.get(index),
            Err(_) => value.get(part),
        })?;
        (!value.is_null()).then(|| Node { place: format!("{}, {path}", self.place), value: value.clone() })
    }

    pub fn number(&self, path: &str) -> Result<f64, Failure> {
        let node = self.at(path)?;
        node.value.as_f64().ok_or_else(|| format!("{} is no number", node.place).into())
    }

    pub fn text(&self, path: &str) -> Result<String, Failure> {
        let node = self.at(path)?;
        node.value.as_str().map(String::from).ok_or_else(|| format!("{} is no text", node.place).into())
    }

    pub fn list(&self, path: &str) -> Result<Vec<Node>, Failure> {
        let node = self.at(path)?;
        let values = node.value.as_array().ok_or_else(|| format!("{} is no list", node.place))?;
        let element =
            |(i, value): (usize, &Value)| Node { place: format!("{}, {i}", node.place), value: value.clone() };
        Ok(values.iter().enumerate().map(element).collect())
    }

    /// A list of numbers.
    pub fn numbers(&self, path: &str) -> Result<Vec<f64>, Failure> {
        let elements = self.list(path)?;
        elements
            .iter()
            .map(|node| Ok(node.value.as_f64().ok_or_else(|| format!("{} is no number", node.place))?))
            .collect()
    }

    /// A list of texts.
    pub fn texts(&self, path: &str) -> Result<Vec<String>, Failure> {
        let elements = self.list(path)?;
        let text = |node: &Node| {
            node.value.as_str().map(String::from).ok_or_else(|| format!("{} is no text", node.place).into())
        };
        elements.iter().map(text).collect()
    }
}
