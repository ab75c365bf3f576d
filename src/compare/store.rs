//! Keeps the cells of a run as JSON files, so that it resumes where it stopped.

use super::cell::{CELL_FORMAT, Cell, Outcome, Run, Setting, TrainingCost};
use crate::atomic_file::write_atomic;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::progress::Control;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// The name of a run's own file; a method's is its name in lower case, with hyphens.
const SETTING: &str = "setting.json";

/// The directory of one run.
pub(super) struct RunStore {
    dir: PathBuf,
}

impl RunStore {
    /// The directory of a run of these methods below that of its comparison.
    ///
    /// # Errors
    /// If a method has no file of its own, or there is a run already, with other data, weights or settings: the first difference is named.
    pub(super) fn open(root: &Path, setting: &Setting, methods: &[String]) -> Result<Self> {
        check_names(methods)?;
        let dir = root.join(plain(&setting.task)).join(format!("seed-{}", setting.seed));
        let store = Self { dir };
        if !exists(&store.file(SETTING))? {
            return Ok(store);
        }
        let kept = store.setting()?;
        match whole(setting).difference(&whole(&kept)) {
            None => Ok(store),
            Some(difference) => Err(Error::Incompatible(format!(
                "{} holds another run: {difference}; take another directory, or remove it",
                store.dir.display()
            ))),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the training of the shared adapter is kept.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.file("unfinished")
    }

    /// What the run's training cost; nothing before it was done.
    ///
    /// # Errors
    /// If the file is damaged.
    pub(super) fn training(&self) -> Result<TrainingCost> {
        if exists(&self.file(SETTING))? { Ok(self.setting()?.training) } else { Ok(TrainingCost::default()) }
    }

    fn setting(&self) -> Result<Setting> {
        read(&self.file(SETTING))
    }

    /// # Errors
    /// If the disk refuses.
    pub(super) fn keep_setting(&self, setting: &Setting) -> Result<()> {
        self.write(SETTING, setting)
    }

    /// The cell of a method that has answered; `None` for one that failed or was not run.
    ///
    /// # Errors
    /// If it was run with other settings, or the file is damaged.
    pub(super) fn finished(&self, method: &str, identity: &Identity) -> Result<Option<Cell>> {
        let path = self.file(&cell_name(method));
        if !exists(&path)? {
            return Ok(None);
        }
        let cell: Cell = read(&path)?;
        check_format(&cell, &path)?;
        if cell.method != method {
            let other = cell.method;
            return Err(Error::Incompatible(format!("{} is of `{other}`, not of `{method}`", path.display())));
        }
        let difference = match &cell.identity {
            None => Some("they were not kept there".into()),
            Some(kept) => identity.difference(kept),
        };
        if let Some(difference) = difference {
            return Err(Error::Incompatible(format!(
                "{} is of other settings: {difference}; remove it, or take another directory",
                path.display()
            )));
        }
        Ok((!matches!(cell.outcome, Outcome::Failed(_))).then_some(cell))
    }

    /// # Errors
    /// If the disk refuses.
    pub(super) fn keep(&self, cell: &Cell) -> Result<()> {
        self.write(&cell_name(&cell.method), cell)
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.file(name);
        let json = serde_json::to_vec(value).map_err(|e| Error::format(path.display(), e))?;
        std::fs::create_dir_all(&self.dir).map_err(|e| Error::io(&self.dir, e))?;
        write_atomic(&path, &json)
    }
}

/// Counts what a disk refused while there was work ([`Control::save_failures`]); the run goes on, and its cells are returned.
pub(super) fn count_failure(control: &Control, kept: Result<()>) {
    if let Err(reason) = kept {
        control.count_save_failure(&reason);
    }
}

/// All runs below a directory, in the order of their paths: those of several shards are merged by copying them together.
///
/// # Errors
/// If a directory cannot be read, or a file is damaged or of another format.
pub fn read_runs(dir: impl AsRef<Path>) -> Result<Vec<Run>> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.as_ref().to_path_buf()];
    while let Some(dir) = waiting.pop() {
        let (mut cells, mut setting) = (Vec::new(), None);
        for path in sorted_entries(&dir)? {
            if path.is_dir() {
                waiting.push(path);
            } else if path.file_name().is_some_and(|name| name == SETTING) {
                setting = Some(read::<Setting>(&path)?);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                cells.push(path);
            }
        }
        // JSON files elsewhere are others', and a run may have stopped before its first cell
        let Some(setting) = setting.filter(|_| !cells.is_empty()) else { continue };
        let cell = |path: &PathBuf| {
            let cell: Cell = read(path)?;
            check_format(&cell, path)?;
            Ok(cell)
        };
        found.push((dir, Run { setting, cells: cells.iter().map(cell).collect::<Result<_>>()? }));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found.into_iter().map(|(_, run)| run).collect())
}

/// Checks that every method has a file of its own.
///
/// # Errors
/// Names the method that has none, or the two that share one.
fn check_names(methods: &[String]) -> Result<()> {
    let files: Vec<String> = methods.iter().map(|method| cell_name(method)).collect();
    for (k, (method, file)) in methods.iter().zip(&files).enumerate() {
        if *file == SETTING || plain(method).is_empty() {
            return Err(Error::config("methods", "names that make a file's name", format!("`{method}`")));
        }
        if let Some(other) = files[..k].iter().position(|other| other == file) {
            let both = format!("`{}` and `{method}`, both {file}", methods[other]);
            return Err(Error::config("methods", "names that differ in their letters and digits", both));
        }
    }
    Ok(())
}

/// All that cells depend on: not the words that describe it, nor what the training took.
fn whole(setting: &Setting) -> Identity {
    let Setting {
        format_version,
        crate_version,
        protocol,
        task,
        model,
        seed,
        recipe: _,
        prompt_hash,
        prompt_example: _,
        classes,
        n_train,
        training: _,
        held_out,
        test,
        shifted,
        // the hashes of the data say them
        values: _,
        identity,
    } = setting;
    let names = Identity::new().with("protocol", protocol).with("task", task).with("model", model).with("seed", seed);
    let asked = names.with("prompt", prompt_hash).with("classes", classes).with("number of training items", n_train);
    let labels = asked.with("held-out labels", held_out).with("test labels", test).with("shifted data", shifted);
    let versions = labels.with("format", format_version).with("version of bayes-lora", crate_version);
    // below a name of their own: a split may be called `seed`
    identity.clone().with_part("setting", versions)
}

fn check_format(cell: &Cell, path: &Path) -> Result<()> {
    if cell.format_version == CELL_FORMAT {
        return Ok(());
    }
    Err(Error::config(format!("{}: format_version", path.display()), CELL_FORMAT.to_string(), cell.format_version))
}

fn sorted_entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(dir, e);
    let entries = std::fs::read_dir(dir).map_err(io)?;
    let mut paths = entries.map(|entry| Ok(entry.map_err(io)?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| Error::io(path, e))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::format(path.display(), e))
}

fn cell_name(method: &str) -> String {
    format!("{}.json", plain(method))
}

/// A name as a file's.
pub(super) fn plain(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}
