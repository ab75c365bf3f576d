//! The safetensors files of a Hugging Face directory: which tensor is where, and that one in two places is the same in both.

use super::names::{INNER_ROOT, ROOT, STORED_INNER_ROOT};
use crate::error::{Error, Result};
use crate::file_kind::parse_json;
use crate::plain_name::is_plain;
use crate::tensor_file::TensorFile;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

pub(super) const SINGLE_FILE: &str = "model.safetensors";
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";

/// What transformers loads on top of a base in whose directory it is.
const ADAPTER_FILE: &str = "adapter_config.json";

/// The opened files of a checkpoint.
pub(super) struct Shards {
    dir: PathBuf,
    files: Vec<(String, TensorFile)>,
    place: HashMap<String, usize>,
    /// The names lack their `model.`, as those of models saved from `AutoModel` do.
    is_bare: bool,
    /// The names are those of a larger model, as transformers saves it.
    is_inner: bool,
    repeated: BTreeSet<String>,
}

impl Shards {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let names = match dir.join(SINGLE_FILE) {
            single if single.is_file() => vec![SINGLE_FILE.to_string()],
            single => {
                let index = dir.join(INDEX_FILE);
                if !index.is_file() {
                    let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
                    return Err(Error::io(single, missing));
                }
                shard_names(&index)?
            }
        };
        let mut shards = Self {
            dir: dir.to_path_buf(),
            files: Vec::new(),
            place: HashMap::new(),
            is_bare: false,
            is_inner: false,
            repeated: BTreeSet::new(),
        };
        for name in names {
            shards.add(name)?;
        }
        let any = |start: &str| shards.place.keys().any(|name| name.starts_with(start));
        let (is_bare, is_inner) = (any("layers.") && !any(ROOT), any(STORED_INNER_ROOT));
        (shards.is_bare, shards.is_inner) = (is_bare, is_inner);
        Ok(shards)
    }

    fn add(&mut self, name: String) -> Result<()> {
        let mut file = TensorFile::open(self.dir.join(&name))?;
        for tensor in file.names() {
            let Some((earlier, other)) = self.place.get(&tensor).and_then(|&i| self.files.get_mut(i)) else {
                self.place.insert(tensor, self.files.len());
                continue;
            };
            if !file.has_same(&tensor, other)? {
                return Err(Error::Incompatible(format!(
                    "{}: tensor `{tensor}` stands in `{earlier}` and, with other values, in `{name}`: remove the wrong file",
                    self.dir.display()
                )));
            }
            self.repeated.insert(tensor);
        }
        self.files.push((name, file));
        Ok(())
    }

    /// The name that a tensor has in the files.
    pub(super) fn stored_name(&self, name: &str) -> String {
        if let Some(rest) = name.strip_prefix(INNER_ROOT).filter(|_| self.is_inner) {
            return format!("{STORED_INNER_ROOT}{rest}");
        }
        let inner = format!("language_model.{name}");
        if self.is_inner && self.place.contains_key(&inner) {
            return inner; // the head
        }
        let bare = name.strip_prefix(ROOT).filter(|_| self.is_bare);
        bare.unwrap_or(name).to_string()
    }

    /// Whether the output head can have been left out: `AutoModel` has none.
    pub(super) fn is_bare(&self) -> bool {
        self.is_bare
    }

    /// All names in the files, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.place.keys().cloned().collect();
        names.sort();
        names
    }

    /// Tensors in more than one file.
    pub(super) fn repeated(&self) -> Vec<String> {
        self.repeated.iter().cloned().collect()
    }

    /// The file that holds a tensor.
    pub(super) fn file_of(&mut self, stored: &str) -> Result<&mut TensorFile> {
        let place = self.place.get(stored).copied();
        place
            .and_then(|i| self.files.get_mut(i))
            .map(|(_, file)| file)
            .ok_or_else(|| Error::MissingTensor { name: stored.to_string(), location: self.dir.clone() })
    }

    /// Files of the directory that transformers may read, and this crate does not: an index beside a single file, an adapter.
    pub(super) fn unread_files(&self) -> Vec<String> {
        let index = (self.dir.join(SINGLE_FILE).is_file()).then_some(INDEX_FILE);
        let names = index.into_iter().chain([ADAPTER_FILE]);
        names.filter(|name| self.dir.join(name).is_file()).map(str::to_string).collect()
    }
}

/// File names in a shard index; each must be a plain name inside the directory.
pub(super) fn shard_names(index: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(index).map_err(|e| Error::io(index, e))?;
    let value: Value = parse_json(&bytes, index.display())?;
    let files = value
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| Error::format(index.display(), "has no `weight_map`"))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in files {
        let name = file.as_str().unwrap_or_default();
        if !is_plain(name) {
            return Err(Error::format(
                index.display(),
                format!("tensor `{tensor}` is placed in `{file}`, which is not a plain file name"),
            ));
        }
        names.insert(name.to_string());
    }
    Ok(names.into_iter().collect())
}
