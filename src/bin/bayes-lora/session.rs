//! One run of the program: how it is watched, stopped, repeated, and how it ends.

use crate::device::DeviceName;
use bayes_lora::atomic_file::write_atomic;
use bayes_lora::checkpoints::Checkpoints;
use bayes_lora::memory::GradientCheckpointing;
use bayes_lora::progress::Control;
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::cell::Cell;
use std::error::Error;
use std::fmt::Display;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a command ends with.
pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Stopped by Ctrl-C or SIGTERM, as shells report it.
const INTERRUPTED: u8 = 130;

/// Flags of every command.
#[derive(Args)]
#[command(next_help_heading = "Running")]
pub struct Running {
    /// Settings from a TOML file: keys are the long names of flags; what stands on the command line wins
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the result as one JSON value
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing but errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Batches worked on at once; results are the same bits, memory grows
    #[arg(long, global = true, value_name = "N", default_value_t = 2)]
    workers: usize,
    /// Hold the activations of one layer at a time where gradients are computed: a fraction of the memory for one more forward pass, and
    /// the same bits
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    gradient_checkpointing: Checkpointing,
    /// Most memory for activations under `--gradient-checkpointing auto`, in GiB; else what the system has free
    #[arg(long, global = true, value_name = "GIB", value_parser = gibibytes)]
    activation_memory: Option<u64>,
    /// Where tensors are computed
    #[arg(long, global = true, value_enum, value_name = "NAME", default_value = "flex")]
    device: DeviceName,
}

/// When the activations of one layer are held at a time.
#[derive(Clone, Copy, ValueEnum)]
pub enum Checkpointing {
    /// Where those of all layers do not fit
    Auto,
    /// Always
    On,
    /// Never
    Off,
}

impl From<Checkpointing> for GradientCheckpointing {
    fn from(when: Checkpointing) -> Self {
        match when {
            Checkpointing::Auto => Self::Auto,
            Checkpointing::On => Self::On,
            Checkpointing::Off => Self::Off,
        }
    }
}

/// A number of GiB, as bytes.
fn gibibytes(text: &str) -> Result<u64, String> {
    let number = text.parse::<f64>().ok().filter(|gib| *gib > 0.0 && gib.is_finite());
    number.map(|gib| (gib * (1u64 << 30) as f64) as u64).ok_or_else(|| "a positive number of GiB is expected".into())
}

/// What every command gets.
pub struct Session {
    control: Control,
    device: Device,
    json: bool,
    quiet: bool,
    settings: String,
    /// Whether unfinished work is kept somewhere.
    keeps: Cell<bool>,
}

impl Session {
    /// `settings` are those that the run resolved to, as TOML.
    pub fn new(running: &Running, settings: String) -> Outcome<Self> {
        let Running { config: _, json, quiet, workers, gradient_checkpointing, activation_memory, device } = *running;
        let control = if quiet { Control::silent() } else { Control::with_bars() };
        let control = control.with_workers(workers)?.with_signals()?;
        let control =
            control.with_gradient_checkpointing(gradient_checkpointing.into()).with_memory_limit(activation_memory);
        Ok(Self { control, device: device.open()?, json, quiet, settings, keeps: Cell::new(false) })
    }

    /// Progress, workers and cancellation.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The same, with unfinished work kept in a directory: the same command goes on from there.
    pub fn control_with(&self, unfinished: &Path) -> Outcome<Control> {
        self.keeps_work();
        Ok(self.control().with_checkpoints(Checkpoints::new(unfinished))?)
    }

    /// The command goes on from where it was interrupted.
    pub fn keeps_work(&self) {
        self.keeps.set(true);
    }

    /// Whether the result is asked for as one JSON value.
    pub fn is_json(&self) -> bool {
        self.json
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// True where a person may watch.
    pub fn is_watched(&self) -> bool {
        !self.quiet
    }

    /// Tells a person something on standard error.
    pub fn say(&self, words: impl Display) {
        if !self.quiet {
            told(words);
        }
    }

    /// Puts the result on standard output: in words, or as JSON where that was asked for.
    pub fn show<R: Display + Serialize>(&self, result: &R) -> Outcome {
        match self.json {
            true => self.print(serde_json::to_string_pretty(result)?),
            false => self.print(result),
        }
    }

    /// Puts words on standard output.
    pub fn print(&self, words: impl Display) -> Outcome {
        Ok(writeln!(stdout(), "{words}")?)
    }

    /// Keeps the settings in a file, from which `--config` repeats the run.
    pub fn keep_settings(&self, file: &Path) -> Outcome {
        Ok(write_atomic(file, self.settings.as_bytes())?)
    }

    /// Shows an error as it is meant to be read, and saves of unfinished work that failed, which stop nothing.
    pub fn end(&self, outcome: Outcome) -> ExitCode {
        let failures = self.control.save_failures();
        if failures.count > 0 {
            told(format_args!("warning: {failures}"));
        }
        self.control.remarks().iter().for_each(|remark| self.say(format_args!("note: {remark}")));
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if self.control.is_cancelled() => {
                let further = if self.keeps.get() { "; the same command goes on from there" } else { "" };
                told(format_args!("interrupted: {error}{further}"));
                ExitCode::from(INTERRUPTED)
            }
            // who reads the output wants no more of it
            Err(error) if is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
            Err(error) => {
                told(format_args!("error: {error}"));
                ExitCode::FAILURE
            }
        }
    }
}

/// Words on standard error, which may be closed.
fn told(words: impl Display) {
    writeln!(stderr(), "{words}").ok();
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let source = match error.downcast_ref() {
        Some(bayes_lora::Error::Io { source, .. }) => Some(source),
        _ => error.downcast_ref(),
    };
    source.is_some_and(|error: &std::io::Error| error.kind() == ErrorKind::BrokenPipe)
}
