//! Long files of lines, a block at a time, so that memory does not grow with them.

use crate::flags::Shard;
use crate::session::Outcome;
use bayes_lora::Error;
use bayes_lora::data::{for_each_line, for_each_line_of};
use std::path::Path;

/// Lines that are worked on together, which bounds the memory whatever the file's length. Two programs that are to answer with the same bits
/// must agree on it, as the network in f32 rounds differently in other batches.
pub const BLOCK: usize = 256;

/// The name of standard input, as a file.
const STANDARD_INPUT: &str = "-";

/// A line that is not blank.
pub struct Line {
    /// From 1.
    pub number: usize,
    /// Where it stands, for errors: `file:line`.
    pub place: String,
    pub text: String,
}

/// What a file is called in messages.
pub fn name_of(file: &Path) -> &Path {
    if file == Path::new(STANDARD_INPUT) { Path::new("standard input") } else { file }
}

/// How many lines of a file a part of it has, where that is known beforehand: a pipe can be read once.
pub fn n_lines(file: &Path, shard: Option<Shard>) -> bayes_lora::Result<Option<usize>> {
    if !file.is_file() {
        return Ok(None);
    }
    let mut n = 0;
    for_each_line(file, |_, _| {
        n += 1;
        Ok(())
    })?;
    Ok(Some(shard.map_or(n, |shard| (shard.index..n).step_by(shard.of).count())))
}

/// Hands over the lines of a file, or of a part of it, in blocks of `size`, each with its number from 0; `-` is standard input.
pub fn for_each_block(
    file: &Path,
    shard: Option<Shard>,
    size: usize,
    mut work: impl FnMut(usize, &[Line]) -> Outcome,
) -> Outcome {
    let name = name_of(file);
    let (mut block, mut failure, mut seen, mut n_blocks) = (Vec::new(), None, 0, 0);
    let visit = |number: usize, text: &str| {
        let takes = shard.is_none_or(|shard| shard.takes(seen));
        seen += 1;
        if !takes {
            return Ok(());
        }
        block.push(Line { number, place: format!("{}:{number}", name.display()), text: text.into() });
        if block.len() < size {
            return Ok(());
        }
        let done = work(n_blocks, &block);
        block.clear();
        n_blocks += 1;
        done.map_err(|error| {
            failure = Some(error);
            // ends the reading; what failed is said below
            Error::Incompatible(String::new())
        })
    };
    let is_input = file == Path::new(STANDARD_INPUT);
    let read = if is_input { for_each_line_of(std::io::stdin(), name, visit) } else { for_each_line(file, visit) };
    if let Some(error) = failure {
        return Err(error);
    }
    read?;
    if seen == 0 {
        return Err(format!("{}: no line", name.display()).into());
    }
    if block.is_empty() { Ok(()) } else { work(n_blocks, &block) }
}
