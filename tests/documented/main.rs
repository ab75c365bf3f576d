//! The pages say what the program says: every `console` block is run, in a checkout, and its output held against the page's.
//!
//! Words must be the same. Counts must be, too; seconds and rates may be anything; other numbers may differ by a twentieth, as other
//! processors round otherwise. `[..]` stands for anything within a line, and `...` for any lines. With `BAYES_LORA_DOCUMENTED=write` what was
//! said is written into the page.
//! `sh` blocks name models that do not ship: [`pages`] runs them on others under these names.

mod blocks;
mod likeness;
#[cfg(unix)]
mod pages;

use blocks::{Block, Page};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory that looks like a checkout, for what a page's commands write.
fn checkout() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name();
        if name != "target" && !name.to_string_lossy().starts_with('.') {
            #[cfg(unix)]
            std::os::unix::fs::symlink(entry.path(), dir.path().join(name)).unwrap();
        }
    }
    dir
}

/// What a command says on both streams, as one reads it.
fn said(command: &str, dir: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_bayes-lora"));
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{command}")])
        .current_dir(dir)
        .env("PATH", format!("{}:{path}", program.parent().unwrap().display()))
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    // help has lines of blanks; how far long work has come is said where it is slow
    let said = said.lines().map(str::trim_end).filter(|line| !likeness::is_progress(line));
    let mut said: String = said.map(|line| format!("{line}\n")).collect();
    if !output.status.success() {
        said += &format!("exit code {}\n", output.status.code().unwrap_or(-1));
    }
    said
}

/// Runs the blocks of a page behind each other in one checkout.
fn check(page: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let mut page = Page::read(&file);
    let dir = checkout();
    let mut wrong = Vec::new();
    for Block { command, expected, line } in page.blocks.iter_mut().flatten() {
        let said = said(command, dir.path());
        if let Some(difference) = likeness::difference(expected, &said) {
            wrong.push(format!("{}:{line}: $ {command}\n{difference}\nIt said:\n{said}", file.display()));
            *expected = said;
        }
    }
    if std::env::var("BAYES_LORA_DOCUMENTED").is_ok_and(|value| value == "write") {
        std::fs::write(&file, page.text()).unwrap();
    } else {
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
#[cfg(unix)]
fn five_minutes_are_as_the_page_says() {
    check("docs/start/five_minutes.md");
}

#[test]
#[cfg(unix)]
fn every_command_helps_as_its_page_says() {
    check("tests/documented/help.md");
}

#[test]
#[cfg(unix)]
fn what_is_wrong_is_refused_as_its_page_says() {
    check("tests/documented/refusals.md");
}

#[test]
#[cfg(unix)]
fn texts_are_scored_and_continued_as_their_page_says() {
    check("tests/documented/texts.md");
}

#[test]
#[cfg(unix)]
fn an_adapter_of_pefts_gets_its_posterior_as_its_page_says() {
    check("tests/documented/peft.md");
}

#[test]
#[cfg(unix)]
fn rewards_are_learned_as_their_page_says() {
    check("tests/documented/preferences.md");
}

#[test]
#[cfg(unix)]
fn methods_are_compared_in_parts_as_their_page_says() {
    check("tests/documented/compare.md");
}

#[test]
fn every_command_has_a_manual_page_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    let pages: PathBuf = dir.path().join("man");
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_bayes-lora")).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["man", "--out", pages.to_str().unwrap()]);
    let help = run(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"predict") && commands.contains(&"help"), "{help}");
    for command in commands.iter().filter(|command| **command != "help") {
        let page = std::fs::read_to_string(pages.join(format!("bayes-lora-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{command}");
        for shell in ["bash", "zsh", "fish"] {
            assert!(run(&["completions", shell]).contains(command), "{command} in {shell}");
        }
    }
    assert!(run(&["man"]).contains(".TH bayes-lora 1"));
}
