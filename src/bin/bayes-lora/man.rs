//! `bayes-lora man`.

use crate::program;
use crate::session::{Outcome, Session};
use bayes_lora::outputs::claim_dir;
use clap::Args;
use clap_mangen::{Man as Page, generate_to};
use std::io::stdout;
use std::path::PathBuf;

/// Print the manual page, or write one a command
#[derive(Args)]
#[command(after_help = "Example:\n  bayes-lora man | man -l -")]
pub struct Man {
    /// Directory for the pages of all commands; without it the program's own page goes to standard output.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Man {
    pub fn run(&self, session: &Session) -> Outcome {
        match &self.out {
            None => Page::new(program()).render(&mut stdout())?,
            Some(dir) => {
                claim_dir(dir, 0)?;
                generate_to(program(), dir)?;
                session.say(format_args!("wrote {}", dir.display()));
            }
        }
        Ok(())
    }
}
