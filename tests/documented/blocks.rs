//! Pages of Markdown with `console` blocks: `$ command`, and what it says below.

use std::path::Path;

/// A command with what the page says that it says.
pub struct Block {
    pub command: String,
    pub expected: String,
    /// Where the command stands, from 1.
    pub line: usize,
}

/// A page: words, and blocks of commands between them.
pub struct Page {
    words: Vec<String>,
    /// Those behind each part of the words.
    pub blocks: Vec<Vec<Block>>,
}

const OPENING: &str = "```console";
const CLOSING: &str = "```";

impl Page {
    pub fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let (mut words, mut blocks) = (vec![String::new()], Vec::new());
        let mut block: Option<Vec<Block>> = None;
        for (number, line) in text.lines().enumerate() {
            match (&mut block, line) {
                (None, OPENING) => block = Some(Vec::new()),
                (None, line) => *words.last_mut().unwrap() += &format!("{line}\n"),
                (Some(_), CLOSING) => {
                    blocks.extend(block.take());
                    words.push(String::new());
                }
                (Some(commands), line) => match (line.strip_prefix("$ "), commands.last_mut()) {
                    (Some(command), _) => {
                        let (command, expected) = (command.into(), String::new());
                        commands.push(Block { command, expected, line: number + 1 });
                    }
                    (None, Some(last)) => last.expected += &format!("{line}\n"),
                    (None, None) => panic!("{}:{}: output before a command", file.display(), number + 1),
                },
            }
        }
        assert!(block.is_none(), "{}: a block has no end", file.display());
        Self { words, blocks }
    }

    /// The page as Markdown.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (number, words) in self.words.iter().enumerate() {
            text += words;
            let Some(block) = self.blocks.get(number) else { continue };
            text += &format!("{OPENING}\n");
            for Block { command, expected, .. } in block {
                text += &format!("$ {command}\n{expected}");
            }
            text += &format!("{CLOSING}\n");
        }
        text
    }
}

#[test]
fn a_page_is_written_as_it_was_read() {
    let text = "# A\n\n```console\n$ a b\nsaid\n\n$ c\n```\n\n```sh\nnot run\n```\n";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("page.md");
    std::fs::write(&file, text).unwrap();
    let page = Page::read(&file);
    assert_eq!(page.text(), text);
    let found: Vec<(&str, &str, usize)> =
        page.blocks.iter().flatten().map(|b| (b.command.as_str(), b.expected.as_str(), b.line)).collect();
    assert_eq!(found, [("a b", "said\n\n", 4), ("c", "", 7)]);
}
