//! Ends a program.

use std::error::Error;
use std::process::ExitCode;

/// An error is shown as it is meant to be read, which returning it from `main` would not do.
pub fn end(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
