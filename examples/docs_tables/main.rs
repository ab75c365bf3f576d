//! Fills the tables of README.md and of docs/ from the files in docs/results, so that nobody types a figure.
//!
//! ```sh
//! cargo run --release --example docs_tables              # writes the tables
//! cargo run --release --example docs_tables -- --check   # names the tables that differ, and fails if there are any
//! ```
//!
//! A table stands between `<!-- table: KIND FILES; WORD VALUES; … -->` and `<!-- /table -->`. The kinds:
//!
//! | kind | files | words |
//! |---|---|---|
//! | `methods` | the report of quickstart | |
//! | `paired` | such reports, one a seed | |
//! | `study` | a curvature study | `fisher`: `sampled` or `empirical` in place of the exact one |
//! | `comparison` | a directory of cells | `task`; `calibrated`: the methods whose row with a temperature is shown; `rows`: some rows |
//! | `left-out` | a directory of cells of the leave-one-out study | `cells`: how the names of those wanted begin; `without`: how rows end |
//! | `left-out-counts` | the same | `cells`; `rows`: some rows |
//! | `left-out-chosen` | the same | `cells`; `tasks`: a name for each; `rows`: those that stand beside each other |
//! | `left-out-adapters`, `left-out-costs` | the same | `cells` |
//! | `next-task` | a directory of cells of the study of two tasks | |
//! | `addition` | a directory of cells of that study | `answers`: to `all` lengths, or to those `trained` on |
//! | `addition-lengths` | the same | |
//! | `invented-facts` | a directory of cells of that study | `answers`: `own` or `fact` |
//! | `invented-facts-exposure` | the same | |
//! | `rewards`, `best-of-n` | the report of the reward model's study | |
//! | `wrong-labels`, `influence`, `labels-next`, `sets` | reports of the study of training items | |
//! | `left-out-scale`, `left-out-scale-fit` | a directory of files of the study of costs | |
//! | `growth` | the report of the study of growth | |
//! | `text-parity`, `pads` | a directory of runs of that study | |
//! | `typed` | columns and rows that no run left as JSON | |

mod addition;
mod comparison;
mod data;
mod growth;
mod invented_facts;
mod left_out;
mod left_out_scale;
mod next_task;
mod rewards;
mod runs;
mod study;
mod table;
mod text_parity;
mod training_items;

use clap::Parser;
use data::{Data, Failure, Spec};
use std::path::PathBuf;
use std::process::ExitCode;

const OPEN: &str = "<!-- table: ";
const CLOSE: &str = "<!-- /table -->";

#[derive(Parser)]
#[command(about = "Fill the tables of the documentation from the files in docs/results")]
struct Arguments {
    /// Write nothing, and fail where a table differs from what its files say.
    #[arg(long)]
    check: bool,
    /// Directory of README.md and docs.
    #[arg(long, default_value = env!("CARGO_MANIFEST_DIR"))]
    root: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// True unless a table differs that was to be checked.
fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let mut data = Data::new(arguments.root.join("docs/results"));
    let (mut n_tables, mut n_different) = (0, 0);
    for name in pages(arguments)? {
        let path = arguments.root.join(&name);
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let filled = fill(&text, |spec| {
            n_tables += 1;
            table(&Spec::parse(spec)?, &mut data).map_err(|reason| format!("{name}, `{spec}`: {reason}").into())
        })?;
        for spec in &filled.different {
            println!("{name}: `{spec}` {}", if arguments.check { "differs from its files" } else { "is written anew" });
        }
        n_different += filled.different.len();
        if !arguments.check && !filled.different.is_empty() {
            std::fs::write(&path, filled.text).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    println!("{n_tables} tables, {n_different} of them different");
    Ok(!arguments.check || n_different == 0)
}

/// README.md and the pages of docs and its folders, from the root.
fn pages(arguments: &Arguments) -> Result<Vec<String>, Failure> {
    let (mut folders, mut pages) = (vec!["docs".to_string()], vec!["README.md".to_string()]);
    while let Some(folder) = folders.pop() {
        let dir = arguments.root.join(&folder);
        let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        for entry in entries.flatten() {
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(name);
            } else if name.ends_with(".md") {
                pages.push(name);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

struct Filled {
    text: String,
    /// What the tables that changed are made of.
    different: Vec<String>,
}

/// The text with every table made anew; a table that begins on its marker's line has no line breaks.
fn fill(text: &str, mut make: impl FnMut(&str) -> Result<String, Failure>) -> Result<Filled, Failure> {
    let (mut filled, mut different, mut rest) = (String::new(), Vec::new(), text);
    while let Some((before, after)) = rest.split_once(OPEN) {
        let start: String = after.chars().take(80).collect();
        let (spec, after) = after.split_once(" -->").ok_or_else(|| format!("`{start}`: its marker has no end"))?;
        let (old, after) = after.split_once(CLOSE).ok_or_else(|| format!("`{spec}`: there is no {CLOSE}"))?;
        let table = make(spec)?;
        let table = if old.starts_with('\n') { format!("\n{table}\n") } else { table };
        if table != old {
            different.push(spec.to_string());
        }
        filled.extend([before, OPEN, spec, " -->", &table, CLOSE]);
        rest = after;
    }
    filled.push_str(rest);
    Ok(Filled { text: filled, different })
}

fn table(spec: &Spec, data: &mut Data) -> Result<String, Failure> {
    match spec.kind.as_str() {
        "methods" => runs::methods(spec, data),
        "paired" => runs::paired(spec, data),
        "study" => study::study(spec, data),
        "comparison" => comparison::comparison(spec, data),
        "left-out" => left_out::scores(spec, data),
        "left-out-adapters" => left_out::adapters(spec, data),
        "left-out-costs" => left_out::costs(spec, data),
        "left-out-counts" => left_out::counts(spec, data),
        "left-out-chosen" => left_out::chosen(spec, data),
        "addition" => addition::scores(spec, data),
        "addition-lengths" => addition::lengths(spec, data),
        "invented-facts" => invented_facts::scores(spec, data),
        "invented-facts-exposure" => invented_facts::exposure(spec, data),
        "next-task" => next_task::next_task(spec, data),
        "rewards" => rewards::pairs(spec, data),
        "best-of-n" => rewards::best_of_n(spec, data),
        "wrong-labels" => training_items::wrong_labels(spec, data),
        "influence" => training_items::influence(spec, data),
        "labels-next" => training_items::labels_next(spec, data),
        "sets" => training_items::sets(spec, data),
        "left-out-scale" => left_out_scale::ways(spec, data),
        "left-out-scale-fit" => left_out_scale::fit(spec, data),
        "growth" => growth::growth(spec, data),
        "text-parity" => text_parity::perplexities(spec, data),
        "pads" => text_parity::pads(spec, data),
        "typed" => table::typed(spec, data),
        other => Err(format!("there is no kind of table `{other}`").into()),
    }
}
