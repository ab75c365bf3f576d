//! Pairs the tensors of an adapter's file with those that its configuration describes on a model.

use super::WEIGHTS_FILE;
use super::tensors::{
    Holder, Key, Part, SEQUENCE_HEADS, Stored, is_wrapped, keeps_tie, parse, stored_tensors, vocabulary_weights,
};
use crate::error::{Error, Result};
use crate::lora::{Adaptable, LoraConfig};
use crate::tensor_file::TensorFile;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How many tensors of a kind an error lists; the rest are counted.
const MAX_LISTED: usize = 16;

/// The tensors of a file by what their names mean.
pub(super) struct Names {
    /// For errors.
    location: String,
    known: BTreeMap<Key, String>,
    shapes: BTreeMap<String, Vec<usize>>,
    unknown: Vec<String>,
}

impl Names {
    /// Reads every name of an opened file.
    ///
    /// # Errors
    /// Names two tensors that are the same, and adapters of embeddings.
    pub(super) fn of(file: &TensorFile, dir: &Path) -> Result<Self> {
        let location = dir.join(WEIGHTS_FILE).display().to_string();
        let shapes = file.names().into_iter().map(|name| (name.clone(), file.shape(&name).unwrap_or_default()));
        let mut names = Self { location, known: BTreeMap::new(), shapes: shapes.collect(), unknown: Vec::new() };
        for name in names.shapes.keys() {
            if name.contains(".lora_embedding_") {
                return Err(Error::Unsupported {
                    what: format!("{}: an adapter of an embedding, such as", names.location),
                    found: name.clone(),
                    supported: "adapters of linears; embeddings that are trained whole, by modules_to_save".into(),
                });
            }
            let Some(key) = parse(name) else {
                names.unknown.push(name.clone());
                continue;
            };
            match names.known.get(&key) {
                Some(first) if is_wrapped(first) == is_wrapped(name) => {
                    let reason = format!("`{first}` and `{name}` are the same tensor: one adapter a file");
                    return Err(Error::format(&names.location, reason));
                }
                // PEFT reads the plain name and leaves the other
                Some(_) if is_wrapped(name) => {}
                _ => drop(names.known.insert(key, name.clone())),
            }
        }
        Ok(names)
    }

    /// The module that PEFT wrapped, `""` for the whole model: the one within which most of the adapter's modules are linears.
    pub(super) fn root<M: Adaptable>(&self, model: &M) -> String {
        let paths: BTreeSet<String> = model.linears().into_iter().map(|linear| linear.path.clone()).collect();
        let adapted = || self.known.keys().filter(|(_, part)| *part == Part::A).map(|(path, _)| path);
        let mut best = (adapted().filter(|path| paths.contains(*path)).count(), "");
        for root in paths.iter().filter_map(|path| path.split_once('.')).map(|(root, _)| root).collect::<BTreeSet<_>>()
        {
            let n = adapted().filter(|path| paths.contains(&format!("{root}.{path}"))).count();
            best = if n > best.0 { (n, root) } else { best };
        }
        best.1.to_string()
    }

    /// The path and the number of outputs of the head of a sequence classifier, where there is one.
    pub(super) fn sequence_head(&self) -> Option<(&str, usize)> {
        let is_head = |(path, part): &Key| *part == Part::Weight && SEQUENCE_HEADS.contains(&path.as_str());
        let ((path, _), name) = self.known.iter().find(|(key, _)| is_head(key))?;
        Some((path, self.shapes.get(name)?.first().copied()?))
    }

    /// Pairs what `config` describes on `model` with what is here.
    ///
    /// # Errors
    /// If a pattern is invalid, a head of another kind is here, or the embedding and the head would have rows for another number
    /// of tokens each; lists what is missing, unexpected or of another shape.
    pub(super) fn find<M: Adaptable>(mut self, model: &M, config: &LoraConfig) -> Result<Found> {
        self.check_sequence_head(model, config)?;
        let brought = self.vocabulary(model, config)?;
        let mut found = Found { tensors: Vec::new(), frozen: Vec::new() };
        let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
        for tensor in stored_tensors(model, config, &brought)? {
            if let (Part::A, Holder::Linear(linear)) = (tensor.part, tensor.holder) {
                // PEFT before 0.6 had the weight under an adapter by its plain name
                let copies = [Part::FrozenWeight, Part::Weight].map(|part| (tensor.path.clone(), part));
                found.frozen.extend(copies.iter().filter_map(|key| self.known.remove(key)).map(|name| (linear, name)));
            }
            for parameter in ["weight", "bias"] {
                if tensor.part == Part::Weight && !tensor.unlisted {
                    self.known.remove(&(format!("{}.{parameter}", tensor.path), Part::Original));
                }
            }
            match self.known.remove(&(tensor.path.clone(), tensor.part)) {
                None => missing.push(format!("{} {:?}", tensor.name, tensor.shape)),
                Some(name) if self.shapes[&name] != tensor.shape => {
                    misshapen.push(format!("{name} expected {:?}, found {:?}", tensor.shape, self.shapes[&name]));
                }
                Some(name) => found.tensors.push((tensor, name)),
            }
        }
        let unexpected = self.unknown.iter().chain(self.known.values());
        let unexpected = unexpected.map(|name| format!("{name} {:?}", self.shapes[name])).collect();
        let kinds = [("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)];
        let listed: Vec<String> = kinds.iter().filter(|(_, names)| !names.is_empty()).map(list).collect();
        if listed.is_empty() {
            return Ok(found);
        }
        let reason = format!("the tensors are not those of the configuration on this model; {}", listed.join("; "));
        Err(Error::format(self.location, reason))
    }

    /// Refuses the head of a sequence classifier, unless the model has a linear in its place.
    fn check_sequence_head<M: Adaptable>(&self, model: &M, config: &LoraConfig) -> Result<()> {
        let linears = model.linears();
        let heads = model.heads();
        let own = linears.iter().map(|linear| &linear.path).chain(heads.iter().map(|head| &head.path));
        let own: Vec<&str> = own.filter_map(|path| config.inside(path)).collect();
        let inside = |path: &str| own.contains(&path);
        let is_head = |path: &str| SEQUENCE_HEADS.contains(&path) && !inside(path);
        match self.known.iter().find(|((path, part), _)| *part == Part::Weight && is_head(path)) {
            None => Ok(()),
            Some(((path, _), name)) => Err(Error::Unsupported {
                what: format!("{}: the head `{path}` of a sequence classifier,", self.location),
                found: format!("{name} {:?}", self.shapes[name]),
                supported: format!("a models::SequenceClassifier, or a model of your own, with a head at `{path}`"),
            }),
        }
    }

    /// The numbers of rows of the embeddings and heads that are here whole, by their paths in the model.
    fn vocabulary<M: Adaptable>(&self, model: &M, config: &LoraConfig) -> Result<BTreeMap<String, usize>> {
        let weights = vocabulary_weights(model);
        let mut brought = BTreeMap::new();
        for weight in &weights {
            let key = config.inside(&weight.path).map(|path| (path.to_string(), Part::Weight));
            let Some(name) = key.and_then(|key| self.known.get(&key)) else { continue };
            if let [rows, width] = self.shapes[name][..]
                && width == weight.width
                && (rows == weight.rows || (weight.resizable && rows > 0))
            {
                brought.insert(weight.path.clone(), rows);
            }
        }
        let (linears, keeps_tie) = (model.linears(), keeps_tie(model, config));
        let rows = |holder, path: &str, own: usize| match (brought.get(path), holder) {
            (Some(rows), _) => Some(*rows),
            (None, Holder::Linear(i)) if linears[i].is_tied && keeps_tie => None,
            (None, _) => Some(own),
        };
        let resizable = weights.iter().filter(|weight| weight.resizable);
        let counted = resizable.filter_map(|w| Some((&w.path, rows(w.holder, &w.path, w.rows)?))).collect::<Vec<_>>();
        match counted.iter().find(|(_, rows)| *rows != counted[0].1) {
            None => Ok(brought),
            Some((path, rows)) => {
                let (first, n) = counted[0];
                let reason =
                    format!("`{first}` would have {n} rows and `{path}` {rows}: both are about one vocabulary");
                Err(Error::format(&self.location, reason))
            }
        }
    }
}

/// Which tensor of the file is which.
pub(super) struct Found {
    /// With the name in this file.
    pub(super) tensors: Vec<(Stored, String)>,
    /// Linear and name of copies of frozen weights.
    pub(super) frozen: Vec<(usize, String)>,
}

fn list((kind, names): &(&str, Vec<String>)) -> String {
    let shown = names[..names.len().min(MAX_LISTED)].join(", ");
    match names.len().saturating_sub(MAX_LISTED) {
        0 => format!("{} {kind}: {shown}", names.len()),
        rest => format!("{} {kind}: {shown} and {rest} more", names.len()),
    }
}
