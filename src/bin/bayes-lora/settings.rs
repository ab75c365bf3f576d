//! Settings as a TOML file: what a run takes from one, and what it leaves to be repeated.

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsString;
use toml::{Table, Value};

/// Flags that a file cannot hold, and those that say nothing about the result.
const NOT_READ: [&str; 3] = ["config", "help", "version"];
const NOT_KEPT: [&str; 5] = ["config", "help", "json", "quiet", "version"];

/// Why a run does not begin.
#[derive(Debug)]
pub enum Refused {
    /// The command line is wrong, or asks for help.
    Line(clap::Error),
    /// The file that `--config` names is.
    File(String),
}

/// Reads the command line, with the settings of the file that `--config` names, but for those that the line says itself.
pub fn read(program: &Command, mut line: Vec<OsString>) -> Result<ArgMatches, Refused> {
    let words: Vec<String> = line.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let said = Said::read(program, &words);
    let Some(file) = said.config else { return program.clone().try_get_matches_from(line).map_err(Refused::Line) };
    let (mut flags, mut positional, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    let add = |(key, value): (&String, &Value)| -> Result<(), String> {
        let argument = said.argument(key)?;
        if said.has(argument) || said.rules_out(argument) {
            return Ok(());
        }
        let values = match value {
            Value::Array(values) => values.iter().map(text).collect(),
            one => vec![text(one)],
        };
        taken.push((key.clone(), argument.to_string()));
        for value in values {
            let value =
                value.ok_or(format!("`{key}` is neither text, nor a number, true, false or a list of these"))?;
            match (argument.get_long(), argument.get_action()) {
                (None, _) => positional.push(OsString::from(value)),
                (Some(_), ArgAction::SetTrue) if value == "false" => {}
                (Some(name), ArgAction::SetTrue) if value == "true" => flags.push(format!("--{name}").into()),
                (Some(name), _) => flags.push(format!("--{name}={value}").into()),
            }
        }
        Ok(())
    };
    let refused = |reason: String| Refused::File(format!("{file}: {reason}"));
    let source = std::fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    let table: Table = source.parse().map_err(|error: toml::de::Error| refused(error.to_string()))?;
    table.iter().try_for_each(add).map_err(refused)?;

    line.splice(said.end..said.end, flags);
    if !positional.is_empty() && said.end == words.len() {
        // one that begins with `-` is no flag
        line.push("--".into());
    }
    line.extend(positional);
    program.clone().try_get_matches_from(line).map_err(|error| match of_file(&error, &taken) {
        Some(key) => refused(format!("`{key}`: {}", reason(&error))),
        None => Refused::Line(error),
    })
}

/// The setting of a file that an error of the whole line is about.
fn of_file<'a>(error: &clap::Error, taken: &'a [(String, String)]) -> Option<&'a str> {
    let Some(ContextValue::String(about)) = error.get(ContextKind::InvalidArg) else { return None };
    taken.iter().find(|(_, argument)| argument == about).map(|(key, _)| key.as_str())
}

/// An error without its frame.
fn reason(error: &clap::Error) -> String {
    let words = error.render().to_string();
    words.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").trim().to_string()
}

/// What a command line says by itself.
struct Said<'a> {
    command: &'a Command,
    keys: Vec<&'a str>,
    config: Option<&'a str>,
    /// Where `--` stands, behind which there are no flags, or the line's end.
    end: usize,
}

impl<'a> Said<'a> {
    fn read(program: &'a Command, words: &'a [String]) -> Self {
        let mut said = Self { command: program, keys: Vec::new(), config: None, end: words.len() };
        let mut at = 1;
        while let Some(word) = words.get(at) {
            at += 1;
            if word == "--" {
                said.end = at - 1;
                if at < words.len() {
                    said.keys.extend(positionals(said.command));
                }
                break;
            } else if let Some(flag) = word.strip_prefix("--") {
                let (name, joined) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
                let of_name = |argument: &&Arg| argument.get_long() == Some(name);
                // clap says what it does not know
                let Some(argument) = said.command.get_arguments().find(of_name) else { continue };
                said.keys.push(name);
                let apart = argument.get_action().takes_values() && joined.is_none();
                let value = if apart { words.get(at).map(String::as_str) } else { joined };
                at += usize::from(apart);
                if name == "config" {
                    said.config = value;
                }
            } else if let Some(inner) = said.command.find_subcommand(word) {
                said.command = inner;
            } else if !word.starts_with('-') || word == "-" {
                said.keys.extend(positionals(said.command));
            }
        }
        said
    }

    /// True if the line says it itself.
    fn has(&self, argument: &Arg) -> bool {
        self.keys.contains(&key_of(argument))
    }

    /// True if what it says cannot stand beside this argument.
    fn rules_out(&self, argument: &Arg) -> bool {
        exclude(self.command, self.command.get_arguments().filter(|said| self.has(said)), argument)
    }

    /// The argument that a key of a file is of.
    fn argument(&self, key: &str) -> Result<&'a Arg, String> {
        let all = || self.command.get_arguments().filter(|argument| !NOT_READ.contains(&argument.get_id().as_str()));
        all().find(|argument| key_of(argument) == key).ok_or_else(|| {
            let keys: Vec<&str> = all().map(key_of).collect();
            format!("`{key}` is no setting of `{}` (settings: {})", self.command.get_name(), keys.join(", "))
        })
    }
}

/// True if one of those given and this argument exclude each other.
fn exclude<'a>(command: &Command, mut given: impl Iterator<Item = &'a Arg>, argument: &Arg) -> bool {
    let names = |one: &Arg, other: &Arg| {
        !one.is_global_set() && command.get_arg_conflicts_with(one).iter().any(|named| named.get_id() == other.get_id())
    };
    given.any(|given| names(given, argument) || names(argument, given))
}

fn positionals(command: &Command) -> impl Iterator<Item = &str> {
    command.get_positionals().map(key_of)
}

/// All settings of a run as TOML, its defaults too, and how to repeat it.
pub fn resolved(program: &Command, matches: &ArgMatches) -> String {
    let (mut command, mut matches, mut names) = (program, matches, vec![program.get_name()]);
    while let Some((name, inner)) = matches.subcommand() {
        command = command.find_subcommand(name).unwrap_or(command);
        matches = inner;
        names.push(name);
    }
    let kept = |argument: &&Arg| !NOT_KEPT.contains(&argument.get_id().as_str());
    let is_said = |argument: &&Arg| matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine);
    let mut table = Table::new();
    for argument in command.get_arguments().filter(kept) {
        let id = argument.get_id().as_str();
        let source = matches.value_source(id);
        let is_default = source == Some(ValueSource::DefaultValue);
        if source.is_none()
            || is_default && exclude(command, command.get_arguments().filter(kept).filter(is_said), argument)
        {
            continue;
        }
        let value = match argument.get_action() {
            ArgAction::SetTrue => match source {
                Some(ValueSource::CommandLine) => Value::Boolean(true),
                _ => continue,
            },
            action => {
                let mut values = matches.get_raw(id).into_iter().flatten().map(|raw| typed(&raw.to_string_lossy()));
                match action {
                    ArgAction::Append => Value::Array(values.collect()),
                    _ => match values.next() {
                        Some(value) => value,
                        None => continue,
                    },
                }
            }
        };
        table.insert(key_of(argument).into(), value);
    }
    format!(
        "# {} {}; to repeat: {} --config FILE\n{}\n",
        program.get_name(),
        env!("CARGO_PKG_VERSION"),
        names.join(" "),
        table.to_string().trim_end()
    )
}

/// A setting's name in a file: the flag's, or the argument's that stands without one.
fn key_of(argument: &Arg) -> &str {
    argument.get_long().unwrap_or(argument.get_id().as_str())
}

/// A value as the command line writes it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Array(_) | Value::Table(_) | Value::Datetime(_) => None,
    }
}

/// A number where the text is what a number would be written as.
fn typed(text: &str) -> Value {
    if let Some(number) = text.parse().ok().filter(|number: &i64| number.to_string() == text) {
        return Value::Integer(number);
    }
    match text.parse().ok().filter(|number: &f64| number.is_finite() && number.to_string() == text) {
        Some(number) => Value::Float(number),
        None => Value::String(text.into()),
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
