//! The flags that stand for the model and the questions that ship with the crate, for programs that are called without a model.

use std::ffi::OsString;
use std::path::Path;

/// Where the adapter is that `bayesianize` trains for the model that ships with the crate.
const ADAPTER: &str = "target/bayesianize/adapter";

/// This program's command line. Without `--model` it gets that of stories260K, the adapter that knows MMLU's areas, `flag` with the
/// shipped file that it names, and `more` flags; a flag that is given stays as it is.
pub fn command_line((flag, file): (&str, &str), more: &[&str]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let given: Vec<String> = arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let name = |argument: &str| argument.split('=').next().unwrap_or_default().to_string();
    let has = |flag: &str| given.iter().any(|argument| name(argument) == name(flag));
    if has("--model") {
        return arguments;
    }
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let shipped = [
        ("--model", assets.join("stories260K").into()),
        (flag, assets.join("mmlu_areas").join(file).into()),
        ("--adapter", ADAPTER.into()),
    ];
    for (flag, value) in shipped.into_iter().filter(|(flag, _)| !has(flag)) {
        arguments.extend([OsString::from(flag), value]);
    }
    arguments.extend(more.iter().filter(|flag| !has(flag)).map(OsString::from));
    arguments
}
