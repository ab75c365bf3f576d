//! Settings as a TOML file: what a run takes from one, and what it leaves to be repeated.

use crate::session::Outcome;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsString;
use toml::{Table, Value};

/// Flags that say nothing about the result.
const NOT_KEPT: [&str; 5] = ["config", "help", "json", "quiet", "version"];

/// The command line with the settings of the file that `--config` names, but for those that the line says itself.
pub fn with_file(program: &Command, mut line: Vec<OsString>) -> Outcome<Vec<OsString>> {
    let words: Vec<String> = line.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let after = words.iter().position(|word| word == "--config").and_then(|at| words.get(at + 1));
    let joined = words.iter().find_map(|word| word.strip_prefix("--config="));
    let Some(file) = after.map(String::as_str).or(joined) else { return Ok(line) };
    let table: Table = std::fs::read_to_string(file)
        .map_err(|error| format!("{file}: {error}"))?
        .parse()
        .map_err(|error| format!("{file}: {error}"))?;

    let command = words.iter().fold(program, |command, word| command.find_subcommand(word).unwrap_or(command));
    let said =
        |key: &str| words.iter().any(|word| word.strip_prefix("--").and_then(|w| w.split('=').next()) == Some(key));
    let mut positional = Vec::new();
    for (key, value) in table.iter().filter(|(key, _)| !said(key)) {
        let Some(argument) = settings(command).find(|argument| key_of(argument) == key) else {
            let keys: Vec<&str> = settings(command).map(key_of).collect();
            return Err(format!(
                "{file}: `{key}` is no setting of `{}` (settings: {})",
                command.get_name(),
                keys.join(", ")
            )
            .into());
        };
        let values = match value {
            Value::Array(values) => values.iter().map(text).collect(),
            one => vec![text(one)],
        };
        for value in values {
            let value = value.ok_or_else(|| {
                format!("{file}: `{key}` is neither text, nor a number, true, false or a list of these")
            })?;
            match (argument.get_long(), argument.get_action()) {
                (None, _) => positional.push(value.into()),
                (Some(_), ArgAction::SetTrue) if value == "false" => {}
                (Some(name), ArgAction::SetTrue) if value == "true" => line.push(format!("--{name}").into()),
                (Some(name), _) => line.push(format!("--{name}={value}").into()),
            }
        }
    }
    line.extend(positional);
    Ok(line)
}

/// All settings of a run as TOML, its defaults too, and how to repeat it.
pub fn resolved(program: &Command, matches: &ArgMatches) -> String {
    let (mut command, mut matches, mut names) = (program, matches, vec![program.get_name()]);
    while let Some((name, inner)) = matches.subcommand() {
        command = command.find_subcommand(name).unwrap_or(command);
        matches = inner;
        names.push(name);
    }
    let mut table = Table::new();
    for argument in settings(command) {
        let id = argument.get_id().as_str();
        let source = matches.value_source(id);
        if source.is_none() {
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
        "# {} {}; to repeat: {} --config FILE\n{table}",
        program.get_name(),
        env!("CARGO_PKG_VERSION"),
        names.join(" ")
    )
}

fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| !NOT_KEPT.contains(&argument.get_id().as_str()))
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
