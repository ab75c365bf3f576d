//! One of several machines' parts of a job.

use std::fmt;
use std::str::FromStr;

/// Items `index`, `index + of`, `index + 2·of`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub index: usize,
    pub of: usize,
}

/// Where Slurm and Kubernetes say which part a process is.
const INDEX_VARIABLES: [&str; 2] = ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"];

impl Shard {
    /// True if an item is of this part.
    pub fn takes(&self, item: usize) -> bool {
        item % self.of == self.index
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-of-{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    /// Reads `2/8`, or `auto/8` with the index that the scheduler gives.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("a shard is I/K with I < K, such as 0/8, or auto/K, not `{text}`");
        let (index, of) = text.split_once('/').ok_or_else(expected)?;
        let of = of.parse().map_err(|_| expected())?;
        let index = match index {
            "auto" => {
                let value = INDEX_VARIABLES.iter().find_map(|name| std::env::var(name).ok());
                let value =
                    value.ok_or_else(|| format!("`{text}`: neither {} is set", INDEX_VARIABLES.join(" nor ")))?;
                value.parse().map_err(|_| format!("`{text}`: the scheduler's index is `{value}`"))?
            }
            index => index.parse().map_err(|_| expected())?,
        };
        if index < of {
            Ok(Self { index, of })
        } else {
            Err(format!("shard {index} of {of}: the index must be below {of}"))
        }
    }
}
