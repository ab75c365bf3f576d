//! `bayes-lora completions`.

use crate::program;
use crate::session::Outcome;
use clap::Args;
use clap_complete::{Shell, generate};
use std::io::{Write, stdout};

/// Print a script that completes commands and flags in a shell
#[derive(Args)]
#[command(
    after_help = "Example:\n  bayes-lora completions bash > ~/.local/share/bash-completion/completions/bayes-lora"
)]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn run(&self) -> Outcome {
        let mut program = program();
        let name = program.get_name().to_string();
        let mut script = Vec::new();
        generate(self.shell, &mut program, name, &mut script);
        Ok(stdout().write_all(&script)?)
    }
}
