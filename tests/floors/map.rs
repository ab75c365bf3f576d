//! The map of the house in CONTRIBUTING.md: every module on its floor, in the first words of its own documentation.

use crate::{FLOORS, files, words};
use std::path::Path;

const OPEN: &str = "<!-- map -->\n";
const CLOSE: &str = "<!-- /map -->";
/// Set to write the map instead of comparing it.
const WRITE: &str = "BAYES_LORA_WRITE_MAP";

/// The first sentence of a file's own documentation, without the brackets of links.
fn first_sentence(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let sentence = paragraph.split_inclusive(". ").next().unwrap_or_default();
    sentence.trim_end().trim_end_matches(['.', ':']).replace(['[', ']'], "").replace('|', "\\|")
}

/// A table of all modules, the lowest floor first.
fn map() -> String {
    let files = files();
    let mut map = String::from("| floor | module | what it does |\n|---|---|---|\n");
    for (floor, modules) in FLOORS.iter().enumerate() {
        for (at, module) in words(modules).enumerate() {
            let names = [format!("{module}.rs"), format!("{module}/mod.rs")];
            let text = names.iter().find_map(|name| files.get(name)).expect("every module on a floor has a file");
            let floor = if at == 0 { floor.to_string() } else { String::new() };
            let cell = if floor.is_empty() { "|".into() } else { format!("| {floor}") };
            map.push_str(&format!("{cell} | `{module}` | {} |\n", first_sentence(text)));
        }
    }
    map
}

#[test]
fn the_map_in_contributing_is_what_the_modules_say_of_themselves() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CONTRIBUTING.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(OPEN).expect("CONTRIBUTING.md has a place for the map");
    let (old, after) = rest.split_once(CLOSE).expect("the map has an end");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, format!("{before}{OPEN}{}{CLOSE}{after}", map())).unwrap();
    } else {
        assert_eq!(old, map(), "{WRITE}=1 cargo test --release --test floors writes the map anew");
    }
}

#[test]
fn a_sentence_ends_at_its_full_stop_and_keeps_no_links() {
    assert_eq!(
        first_sentence("//! Holds a\n//! [`Thing`]: more. Another.\n//!\n//! # Next\n"),
        "Holds a `Thing`: more"
    );
}
