//! Runs the program, and what all tests ask it about.

use bayes_lora::data::for_each_line;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// How the questions are asked: few tokens, so that the tests take seconds.
pub const ASKED: [&str; 6] = ["--prompt", "area", "--classes", "A,B,C,D", "--max-tokens", "16"];

/// How a run ended and what it said.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub words: String,
}

impl Said {
    /// The only value on standard output.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.words))
    }

    pub fn well(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.words);
        self
    }

    /// Failed with these words.
    pub fn refused(self, parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.words);
        assert!(self.words.starts_with("error: ") || self.words.contains("\nerror: "), "{}", self.words);
        assert!(parts.iter().all(|part| self.words.contains(part)), "{parts:?}: {}", self.words);
    }
}

/// `bayes-lora` with a command and its arguments.
pub fn program<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_bayes-lora"));
    program.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program.env_remove("SLURM_ARRAY_TASK_ID").env_remove("JOB_COMPLETION_INDEX");
    program
}

pub fn said(mut program: Command) -> Said {
    let ended = program.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: ended.status.code(), out: text(ended.stdout), words: text(ended.stderr) }
}

pub fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets")
}

pub fn model() -> PathBuf {
    assets().join("stories260K")
}

/// The training questions.
pub fn questions() -> PathBuf {
    assets().join("mmlu_areas/train.jsonl.gz")
}

/// `n` short questions with identifiers of their own.
pub fn short_questions(dir: &Path, n: usize) -> PathBuf {
    let mut short: Vec<Value> = Vec::new();
    for_each_line(assets().join("mmlu_areas/test.jsonl.gz"), |_, line| {
        let item: Value = serde_json::from_str(line).unwrap();
        short.extend((item["question"].as_str().unwrap().len() < 60).then_some(item));
        Ok(())
    })
    .unwrap();
    let line = |k: usize| {
        let mut item = short[k % short.len()].clone();
        item["id"] = format!("{k}").into();
        format!("{item}\n")
    };
    let path = dir.join(format!("short-{n}.jsonl"));
    std::fs::write(&path, (0..n).map(line).collect::<String>()).unwrap();
    path
}

/// An adapter of 64 questions with its posterior, trained once for all tests.
pub fn trained() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("command_line");
        std::fs::remove_dir_all(&dir).ok();
        let adapter = dir.join("adapter");
        train(&adapter).well();
        adapter
    })
}

/// Trains on the first 64 questions of the seed, with `train`'s flags.
pub fn train(out: &Path) -> Said {
    let mut program = program(["train", "--epochs", "1", "--rank", "4", "--learning-rate", "2e-3", "--n-train", "64"]);
    program.args(ASKED).arg("--model").arg(model()).arg("--train").arg(questions()).arg("--out").arg(out);
    said(program)
}

/// Fits the posterior of the trained adapter on the items that it was trained on.
pub fn fit(more: &[&str], posterior: &Path) -> Command {
    let mut program = program(["fit", "--n-train", "64"]);
    program.args(ASKED).args(more).arg("--model").arg(model()).arg("--adapter").arg(trained());
    program.arg("--train").arg(questions()).arg("--posterior").arg(posterior);
    program
}

/// Answers with the trained adapter.
pub fn predict(data: &Path, more: &[&str]) -> Command {
    let mut program = program(["predict"]);
    program.args(more).arg("--model").arg(model()).arg("--adapter").arg(trained()).arg("--data").arg(data);
    program
}

pub fn bytes(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// A copy of a directory of files in which one bit in the middle of a file is another.
pub fn damaged(dir: &Path, file: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let mut content = bytes(to.join(file));
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(to.join(file), content).unwrap();
}
