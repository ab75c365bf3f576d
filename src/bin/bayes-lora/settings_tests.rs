//! A small program of two levels, and files for it.

use super::{Refused, read, resolved};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::ffi::OsString;
use std::path::PathBuf;

fn program() -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name);
    let fit = Command::new("fit")
        .arg(flag("rank").value_name("R").value_parser(value_parser!(usize)).default_value("8"))
        .arg(flag("rate").value_parser(value_parser!(f64)))
        .arg(flag("name"))
        .arg(flag("targets").action(ArgAction::Append).value_delimiter(',').default_value("q,v"))
        .arg(flag("prior").default_value("matched"))
        .arg(flag("no-posterior").action(ArgAction::SetTrue).conflicts_with("prior"));
    let shards = Command::new("curvature").arg(Arg::new("shards").action(ArgAction::Append)).arg(flag("name"));
    let mut program = Command::new("demo")
        .arg(flag("config").global(true))
        .arg(flag("quiet").action(ArgAction::SetTrue).global(true))
        .subcommand(fit)
        .subcommand(Command::new("merge").subcommand(shards));
    program.build();
    program
}

/// A file of settings that nothing else writes.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn line(words: &[&str], config: &std::path::Path) -> Vec<OsString> {
    let all = ["demo"].iter().chain(words).map(OsString::from);
    let config: OsString = config.into();
    // before `--`, behind which there are no flags
    let at = words.iter().position(|word| *word == "--").map_or(words.len() + 1, |at| at + 1);
    let mut all: Vec<OsString> = all.collect();
    all.splice(at..at, ["--config".into(), config]);
    all
}

fn run(words: &[&str], text: &str) -> Result<ArgMatches, Refused> {
    let (_dir, path) = file(text);
    read(&program(), line(words, &path))
}

/// What a file is refused by.
fn refusal(words: &[&str], text: &str) -> String {
    match run(words, text) {
        Err(Refused::File(reason)) => reason,
        other => panic!("not refused by its file: {other:?}"),
    }
}

fn fit<'a>(matches: &'a ArgMatches, key: &str) -> Vec<&'a str> {
    let raw = matches.subcommand_matches("fit").unwrap().get_raw(key).into_iter().flatten();
    raw.map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn what_the_line_says_wins_over_the_file() {
    let text = "rank = 4\nrate = 5e-4\ntargets = [\"k\", \"o\"]";
    let matches = run(&["fit"], text).unwrap();
    assert_eq!((fit(&matches, "rank"), fit(&matches, "rate")), (vec!["4"], vec!["0.0005"]));
    assert_eq!(fit(&matches, "targets"), ["k", "o"]);
    for words in [&["fit", "--rank", "16", "--targets", "q"][..], &["fit", "--rank=16", "--targets=q"]] {
        let matches = run(words, text).unwrap();
        assert_eq!((fit(&matches, "rank"), fit(&matches, "targets")), (vec!["16"], vec!["q"]));
        assert_eq!(fit(&matches, "rate"), ["0.0005"]);
    }
}

#[test]
fn what_the_line_rules_out_is_not_taken_from_the_file_and_not_kept() {
    let matches = run(&["fit", "--no-posterior"], "prior = \"evidence\"\nrank = 4").unwrap();
    assert_eq!((fit(&matches, "rank"), fit(&matches, "prior")), (vec!["4"], vec!["matched"]));
    let kept = resolved(&program(), &matches);
    assert!(kept.contains("no-posterior = true") && kept.contains("rank = 4") && !kept.contains("prior = "), "{kept}");
    // what is kept repeats the run
    assert!(run(&["fit"], &kept).unwrap().subcommand_matches("fit").unwrap().get_flag("no-posterior"));
    let matches = run(&["fit", "--prior", "evidence"], "no-posterior = true").unwrap();
    assert!(!matches.subcommand_matches("fit").unwrap().get_flag("no-posterior"));
    assert!(matches!(run(&["fit", "--prior", "evidence", "--no-posterior"], ""), Err(Refused::Line(_))));
    assert!(refusal(&["fit"], "no-posterior = true\nprior = \"evidence\"").contains("no-posterior"));
}

#[test]
fn a_value_that_is_the_name_of_a_command_is_no_command() {
    let matches = run(&["fit", "--name", "merge"], "rank = 4").unwrap();
    assert_eq!((fit(&matches, "name"), fit(&matches, "rank")), (vec!["merge"], vec!["4"]));
}

#[test]
fn files_that_are_wrong_are_refused_by_file_and_key() {
    for (text, words) in [
        ("ranks = 4", ["run.toml: `ranks`", "is no setting of `fit` (settings: rank, rate, name, targets"]),
        ("config = \"other.toml\"", ["run.toml: `config`", "no setting"]),
        ("rank = \"eight\"", ["run.toml: `rank`", "'eight'"]),
        ("rank = true", ["run.toml: `rank`", "'true'"]),
        ("rank = -4", ["run.toml: `rank`", "'-4'"]),
        ("rank = [4, 8]", ["run.toml: `rank`", "multiple times"]),
        ("no-posterior = \"maybe\"", ["run.toml: `no-posterior`", "'maybe'"]),
        ("[rank]\nvalue = 4", ["run.toml: `rank`", "neither text, nor a number"]),
        ("targets = [[\"q\"]]", ["run.toml: `targets`", "neither text, nor a number"]),
        ("name = 1979-05-27", ["run.toml: `name`", "neither text, nor a number"]),
        ("rank = ", ["run.toml: ", "line 1"]),
        ("rank = 4\nrank = 5", ["run.toml: ", "duplicate key"]),
    ] {
        let refusal = refusal(&["fit"], text);
        assert!(words.iter().all(|word| refusal.contains(word)), "{text:?}: {refusal}");
    }
    let missing = read(&program(), line(&["fit"], "nowhere/run.toml".as_ref()));
    assert!(matches!(missing, Err(Refused::File(reason)) if reason.starts_with("nowhere/run.toml: ")));
}

#[test]
fn an_error_of_the_line_is_not_put_down_to_the_file() {
    assert!(matches!(run(&["fit", "--rank", "eight"], "rate = 0.5"), Err(Refused::Line(_))));
    assert!(matches!(run(&["fit", "--rank", "eight"], "rank = 4"), Err(Refused::Line(_))));
}

#[test]
fn what_a_run_keeps_repeats_it() {
    let lines: [&[&str]; 6] = [
        &["fit"],
        &["fit", "--name", "007", "--rate", "1e-3", "--no-posterior"],
        &["fit", "--name=-x", "--targets", "q,k", "--targets", "o"],
        &["fit", "--name=true", "--rank=2", "--rate=0.1", "--quiet"],
        &["fit", "--name= A", "--targets=all-linear", "--rate=-2"],
        &["fit", "--name=[1, 2]\n", "--rate=inf"],
    ];
    for words in lines {
        let first = program().try_get_matches_from(["demo"].iter().chain(words)).unwrap();
        let kept = resolved(&program(), &first);
        assert!(kept.starts_with("# demo ") && kept.contains("demo fit --config FILE"), "{kept}");
        assert!(!kept.contains("quiet"), "{kept}");
        let second = run(&["fit"], &kept).unwrap();
        assert_eq!(resolved(&program(), &second), kept);
        let (first, second) = (first.subcommand_matches("fit").unwrap(), second.subcommand_matches("fit").unwrap());
        for key in ["rank", "rate", "name", "targets"] {
            let raw =
                |matches: &ArgMatches| matches.get_raw(key).map(|raw| raw.map(OsString::from).collect::<Vec<_>>());
            assert_eq!(raw(first), raw(second), "{key} of {words:?}");
        }
        assert_eq!(first.get_flag("no-posterior"), second.get_flag("no-posterior"));
    }
}

#[test]
fn commands_within_commands_have_their_settings_and_files_without_flags() {
    let shards = |words: &[&str], text: &str| -> Vec<String> {
        let matches = run(words, text).unwrap();
        let inner = matches.subcommand_matches("merge").unwrap().subcommand_matches("curvature").unwrap();
        inner.get_raw("shards").into_iter().flatten().map(|value| value.to_str().unwrap().to_string()).collect()
    };
    let text = "shards = [\"a\", \"-b\"]\nname = \"curvature\"";
    assert_eq!(shards(&["merge", "curvature"], text), ["a", "-b"]);
    assert_eq!(shards(&["merge", "curvature", "c"], text), ["c"]);
    assert_eq!(shards(&["merge", "curvature", "--", "-c"], text), ["-c"]);
    assert_eq!(shards(&["merge", "curvature", "--"], text), ["a", "-b"]);
    let matches = run(&["merge", "curvature", "c"], text).unwrap();
    let kept = resolved(&program(), &matches);
    assert!(kept.contains("demo merge curvature --config FILE") && kept.contains("shards = [\"c\"]"), "{kept}");
    assert!(refusal(&["merge"], text).contains("`name` is no setting of `merge`"));
}

#[test]
fn a_file_may_ask_for_quiet() {
    assert!(run(&["fit"], "quiet = true").unwrap().get_flag("quiet"));
}
