//! Long files of lines, a block at a time, so that memory does not grow with them.

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

/// Hands over the lines of a file, `-` for standard input, in blocks of `size`.
pub fn for_each_block(file: &Path, size: usize, mut work: impl FnMut(&[Line]) -> Outcome) -> Outcome {
    let is_input = file == Path::new(STANDARD_INPUT);
    let name = if is_input { Path::new("standard input") } else { file };
    let (mut block, mut failure, mut n_lines) = (Vec::new(), None, 0);
    let visit = |number: usize, text: &str| {
        block.push(Line { number, place: format!("{}:{number}", name.display()), text: text.into() });
        n_lines += 1;
        if block.len() < size {
            return Ok(());
        }
        let done = work(&block);
        block.clear();
        done.map_err(|error| {
            failure = Some(error);
            // ends the reading; what failed is said below
            Error::Incompatible(String::new())
        })
    };
    let read = if is_input { for_each_line_of(std::io::stdin(), name, visit) } else { for_each_line(file, visit) };
    if let Some(error) = failure {
        return Err(error);
    }
    read?;
    if n_lines == 0 {
        return Err(format!("{}: no line", name.display()).into());
    }
    if block.is_empty() { Ok(()) } else { work(&block) }
}
