//! Runs a program and ends it.

use bayes_lora::progress::Control;
use std::error::Error;
use std::process::ExitCode;

/// Runs a program with a control that shows bars. Its error is shown as it is meant to be read, which returning it from `main` would
/// not do; so are saves of unfinished work that failed, which stop nothing.
pub fn program(run: impl FnOnce(Control) -> Result<(), Box<dyn Error>>) -> ExitCode {
    let control = Control::with_bars();
    let result = run(control.clone());
    let failures = control.save_failures();
    if failures.count > 0 {
        eprintln!("warning: {failures}");
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
