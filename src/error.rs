//! Names what went wrong, with the thing and both numbers.

use std::path::{Path, PathBuf};

/// The result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, each kind with the name of the thing and what was expected of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file's content is not what its format says.
    #[error("{location}: {reason}")]
    Format {
        /// The file, with the line where there is one.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint lacks a tensor that the model needs.
    #[error("tensor `{name}` is missing from {}", location.display())]
    MissingTensor {
        /// The tensor's full name.
        name: String,
        /// The file or directory searched.
        location: PathBuf,
    },
    /// A shape differs from the one needed.
    #[error("{what}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The tensor or array concerned.
        what: String,
        /// The shape needed.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A value that must be finite is NaN or infinite.
    #[error("{what}: {count} of {total} values are not finite")]
    NonFinite {
        /// The tensor or quantity concerned.
        what: String,
        /// How many values are NaN or infinite.
        count: usize,
        /// How many values there are.
        total: usize,
    },
    /// A feature of a foreign file that this crate does not read.
    #[error("{what} `{found}` is not supported (supported: {supported})")]
    Unsupported {
        /// The field or feature.
        what: String,
        /// Its value here.
        found: String,
        /// What would be accepted.
        supported: String,
    },
    /// A configuration value outside its bounds.
    #[error("{field}: must be {bound}, got {value}")]
    Config {
        /// The field's name.
        field: String,
        /// The bound it must respect.
        bound: String,
        /// The value given.
        value: String,
    },
    /// A LoRA target that selects no linear module.
    #[error("target module `{target}` matches none of the {n_modules} linear modules (such as {examples})")]
    NoModuleMatches {
        /// The name or expression.
        target: String,
        /// How many linear modules the model has.
        n_modules: usize,
        /// A few of their names.
        examples: String,
    },
    /// A label that is not a class.
    #[error("item `{item}`: label {label} is out of range for {n_classes} classes")]
    LabelOutOfRange {
        /// The item's identifier.
        item: String,
        /// Its label.
        label: usize,
        /// The number of classes it may have.
        n_classes: usize,
    },
    /// Nothing to work on.
    #[error("{what} is empty")]
    Empty {
        /// The collection concerned.
        what: String,
    },
    /// A class name that does not add exactly one token to its prompt.
    #[error("class `{class}` must be one token after the prompt, but is {}", described(tokens, replaced))]
    ClassNotOneToken {
        /// The class name.
        class: String,
        /// The tokens it becomes.
        tokens: Vec<String>,
        /// The tokens at the end of the prompt that it merges with: where it stands, they are gone.
        replaced: Vec<String>,
    },
    /// Two classes that become the same token.
    #[error("classes `{first}` and `{second}` are the same token {token}")]
    ClassesCollide {
        /// The class listed first.
        first: String,
        /// The class listed later.
        second: String,
        /// Their common token id.
        token: u32,
    },
    /// A prompt that does not fit the model's context, of an encoding that does not shorten it so far.
    #[error(
        "item `{item}`: its {tokens} tokens exceed the limit of {limit}; ask for truncation to at most {limit} tokens to shorten it"
    )]
    PromptTooLong {
        /// The item's identifier.
        item: String,
        /// How many tokens it has.
        tokens: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A prompt that does not fit even when truncation has dropped all that it may.
    #[error(
        "item `{item}`: {tokens} tokens are left when its whole body is dropped, and exceed the limit of {limit}; shorten the \
         cue and the choices, or allow more tokens"
    )]
    PromptCannotShrink {
        /// The item's identifier.
        item: String,
        /// How many tokens remain.
        tokens: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Two counts that must agree.
    #[error("{what}: expected {expected}, found {found}")]
    Count {
        /// What is counted.
        what: String,
        /// The count needed.
        expected: usize,
        /// The count found.
        found: usize,
    },
    /// Settings that exclude each other or a request that has no meaning here.
    #[error("{0}")]
    Incompatible(String),
    /// A tokenizer's own error.
    #[error("tokenizer {location}: {reason}")]
    Tokenizer {
        /// The file or operation.
        location: String,
        /// What the tokenizer said.
        reason: String,
    },
    /// A numerical routine that did not succeed.
    #[error("{what} failed: {reason}")]
    Numerical {
        /// The routine.
        what: String,
        /// Why it stopped.
        reason: String,
    },
    /// A file that could not be had from the Hugging Face Hub.
    #[error("{url}: {reason}")]
    Hub {
        /// The address, or the repository with its revision.
        url: String,
        /// What the server answered or the network did, and after how many attempts.
        reason: String,
    },
    /// A result that could not be saved in its place, and was not lost.
    #[error("{reason}; the result is in {} instead", place.display())]
    Rescued {
        /// Why its own place refused.
        reason: Box<Error>,
        /// Where it is.
        place: PathBuf,
    },
    /// The caller asked to stop.
    #[error("{what}: cancelled after {done} of {total}")]
    Cancelled {
        /// The long call that was stopped.
        what: String,
        /// Units of work finished.
        done: usize,
        /// Units of work planned.
        total: usize,
    },
}

impl Error {
    /// Wraps an I/O error with the path it concerns.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// Describes malformed content at a place.
    pub fn format(location: impl std::fmt::Display, reason: impl std::fmt::Display) -> Self {
        Error::Format { location: location.to_string(), reason: reason.to_string() }
    }

    /// Describes a configuration value outside its bound.
    pub fn config(field: impl Into<String>, bound: impl Into<String>, value: impl std::fmt::Display) -> Self {
        Error::Config { field: field.into(), bound: bound.into(), value: value.to_string() }
    }

    /// Describes what stood between the caller and a file on the hub.
    pub fn hub(url: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Error::Hub { url: url.into(), reason: reason.to_string() }
    }

    /// Names what is empty.
    pub fn empty(what: impl Into<String>) -> Self {
        Error::Empty { what: what.into() }
    }

    /// Describes a failed numerical routine.
    pub fn numerical(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Error::Numerical { what: what.into(), reason: reason.to_string() }
    }
}

/// The tokens of a class that is not one, and what they took from the prompt.
fn described(tokens: &[String], replaced: &[String]) -> String {
    let plural = if tokens.len() == 1 { "" } else { "s" };
    let own = format!("{} token{plural}: {tokens:?}", tokens.len());
    if replaced.is_empty() { own } else { format!("{own}, in place of the prompt's {replaced:?}") }
}

/// Refuses numbers that are NaN or infinite; `are_finite` says it of each.
pub(crate) fn check_finite(what: impl std::fmt::Display, are_finite: impl IntoIterator<Item = bool>) -> Result<()> {
    let (mut count, mut total) = (0, 0);
    for is_finite in are_finite {
        total += 1;
        count += usize::from(!is_finite);
    }
    match count {
        0 => Ok(()),
        _ => Err(Error::NonFinite { what: what.to_string(), count, total }),
    }
}
