//! Reads files as Rust's own tokens: comments are gone, texts whole. `use` trees are expanded, `super::` is resolved, and a name
//! that a folder hands on is followed to the file that defines it.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub type Names = Vec<String>;
/// Which files each file needs, and the lines that say so.
pub type Needs<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<usize>>>;

/// Where the reader stands.
#[derive(Clone)]
pub struct Place {
    pub file: String,
    pub module: Names,
    pub line: usize,
    pub in_tests: bool,
}

/// A path in the code, or one of a `use`, which binds a name.
pub struct Mention {
    pub at: Place,
    pub written: Names,
    pub binds: Option<String>,
    is_public: bool,
}

#[derive(Default)]
pub struct House {
    /// Every module by its path from the root, and the file that holds it.
    pub modules: BTreeMap<Names, String>,
    pub mentions: Vec<Mention>,
    /// Names, and the words of texts.
    pub words: Vec<(Place, String)>,
    /// Files that are compiled for tests alone.
    test_files: BTreeSet<String>,
    /// What a name in a module stands for, both from the root.
    bindings: BTreeMap<Names, Names>,
}

fn name(tree: Option<&TokenTree>) -> Option<String> {
    if let Some(TokenTree::Ident(ident)) = tree { Some(ident.to_string()) } else { None }
}

fn is(tree: Option<&TokenTree>, mark: char) -> bool {
    matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

fn group(tree: Option<&TokenTree>, delimiter: Delimiter) -> Option<TokenStream> {
    if let Some(TokenTree::Group(g)) = tree { (g.delimiter() == delimiter).then(|| g.stream()) } else { None }
}

pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn under(module: &[String], rest: &[String]) -> Names {
    [module, rest].concat()
}

/// The paths of the tree that starts at `i`, each with the name that it binds, and one past its end: `a::{b, c::d as e}` is
/// `a::b` and `a::c::d`.
fn tree(t: &[TokenTree], mut i: usize, prefix: &[String], out: &mut Vec<(Names, String)>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        if let Some(inner) = group(t.get(i), Delimiter::Brace).filter(|_| !path.is_empty()) {
            let (inner, mut at) = (Vec::from_iter(inner), 0);
            while at < inner.len() {
                at = tree(&inner, at, &path, out) + 1;
            }
            return i + 1;
        }
        path.push(name(t.get(i)).unwrap_or("*".into()));
        i += 1;
        if !(is(t.get(i), ':') && is(t.get(i + 1), ':')) || is(t.get(i + 2), '<') {
            break;
        }
        i += 2;
    }
    if path.len() > 1 && !prefix.is_empty() && path[path.len() - 1] == "self" {
        path.pop();
    }
    let alias = name(t.get(i)).filter(|word| word == "as").and_then(|_| name(t.get(i + 1)));
    out.push((path.clone(), alias.clone().unwrap_or(path[path.len() - 1].clone())));
    i + if alias.is_some() { 2 } else { 0 }
}

impl House {
    /// Reads files, each with its path from src.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut house = Self::default();
        for (file, text) in files {
            let path = file.trim_end_matches(".rs").trim_end_matches("/mod").trim_start_matches("lib");
            let module: Names = path.split('/').filter(|part| !part.is_empty()).map(String::from).collect();
            house.modules.insert(module.clone(), file.into());
            let tokens = text.parse().unwrap_or_else(|e| panic!("{file}: {e}"));
            house.tokens(tokens, &Place { file: file.into(), module, line: 0, in_tests: false });
        }
        for at in house.mentions.iter_mut().map(|m| &mut m.at).chain(house.words.iter_mut().map(|(at, _)| at)) {
            at.in_tests |= house.test_files.contains(&at.file);
        }
        for mention in &house.mentions {
            // a foreign crate binds nothing of ours
            let ours = ["crate", "self", "super"].contains(&&*mention.written[0])
                || house.modules.contains_key(&under(&mention.at.module, &mention.written[..1]));
            if let Some(bound) = mention.binds.clone().filter(|_| ours) {
                house.bindings.insert(under(&mention.at.module, &[bound]), mention.path());
            }
        }
        house
    }

    fn tokens(&mut self, tokens: TokenStream, around: &Place) {
        let (t, mut i, mut at, mut given) = (Vec::from_iter(tokens), 0, around.clone(), None);
        while i < t.len() {
            at.line = t[i].span().start().line;
            let before = |n: usize| i.checked_sub(n).and_then(|j| t.get(j));
            let follows = is(before(1), '.') && !is(before(2), '.') || is(before(1), ':') && is(before(2), ':');
            let inner = usize::from(is(t.get(i + 1), '!'));
            let attribute = group(t.get(i + 1 + inner), Delimiter::Bracket).filter(|_| is(t.get(i), '#'));
            match (&t[i], attribute, name(t.get(i + 1))) {
                (_, Some(attribute), _) => {
                    let text = attribute.to_string();
                    let said = Vec::from_iter(words(&text));
                    match said[0] {
                        "doc" => {}
                        "cfg" if said.contains(&"test") && !said.contains(&"not") => at.in_tests = true,
                        "path" => given = text.split('"').nth(1).map(String::from),
                        _ => self.tokens(attribute, &at),
                    }
                    i += 1 + inner;
                }
                (TokenTree::Ident(word), _, Some(module)) if word == "mod" => {
                    let inner = Place { module: under(&at.module, &[module]), ..at.clone() };
                    let usual = inner.module.join("/") + ".rs";
                    let file = given.take().map(|file| Path::new(&at.file).with_file_name(file).display().to_string());
                    match group(t.get(i + 2), Delimiter::Brace) {
                        Some(body) => {
                            self.modules.insert(inner.module.clone(), at.file.clone());
                            self.tokens(body, &inner);
                        }
                        None if at.in_tests => self.test_files.extend([file.unwrap_or(usual)]),
                        None => {}
                    }
                    at.in_tests = around.in_tests;
                    i += 2;
                }
                // `pub(super)` needs nobody
                (TokenTree::Ident(word), ..)
                    if word == "pub" && group(t.get(i + 1), Delimiter::Parenthesis).is_some() =>
                {
                    i += 1
                }
                (TokenTree::Ident(word), ..) if !follows => {
                    let is_public = name(before(1)).is_some() || group(before(1), Delimiter::Parenthesis).is_some();
                    let (is_use, mut paths) = (word == "use", Vec::new());
                    i = tree(&t, i + usize::from(is_use), &[], &mut paths) - 1;
                    for (written, bound) in paths {
                        self.words.extend(written.iter().map(|part| (at.clone(), part.clone())));
                        let binds = is_use.then_some(bound);
                        self.mentions.push(Mention { at: at.clone(), written, binds, is_public });
                    }
                }
                (TokenTree::Group(inner), ..) => {
                    self.tokens(inner.stream(), &at);
                    at.in_tests = at.in_tests && (around.in_tests || inner.delimiter() != Delimiter::Brace);
                }
                (other, ..) => {
                    self.words.extend(words(&other.to_string()).map(|word| (at.clone(), word.into())));
                    at.in_tests = at.in_tests && (around.in_tests || !is(Some(other), ';'));
                }
            }
            i += 1;
        }
    }

    /// The file that defines what a path from the root names.
    fn home(&self, path: &[String]) -> Option<&str> {
        let module = (0..=path.len()).rev().find(|&n| self.modules.contains_key(&path[..n]))?;
        match path.get(..=module).and_then(|name| self.bindings.get(name)) {
            Some(target) => self.home(&under(target, &path[module + 1..])),
            None => Some(&self.modules[&path[..module]]),
        }
    }

    /// Tests left out. What a file hands on is no need of its own, and of a module it needs what it uses.
    pub fn needs(&self) -> Needs<'_> {
        let mut needs = Needs::new();
        for mention in self.mentions.iter().filter(|m| !(m.at.in_tests || m.binds.is_some() && m.is_public)) {
            let path = mention.path();
            let home = self.home(&path).filter(|home| *home != mention.at.file && !self.modules.contains_key(&path));
            if let Some(home) = home {
                needs.entry(&*mention.at.file).or_default().entry(home).or_default().insert(mention.at.line);
            }
        }
        needs
    }
}

/// All that a file needs, however far away.
pub fn reach<'a>(needs: &Needs<'a>, file: &str) -> BTreeSet<&'a str> {
    let next = |file: &str| needs.get(file).into_iter().flat_map(|of| of.keys().copied()).collect::<Vec<&'a str>>();
    let (mut seen, mut left) = (BTreeSet::new(), next(file));
    while let Some(file) = left.pop() {
        if seen.insert(file) {
            left.extend(next(file));
        }
    }
    seen
}

impl Mention {
    /// From the root.
    pub fn path(&self) -> Names {
        if self.written[0] == "crate" {
            return self.written[1..].to_vec();
        }
        let own = self.written.iter().take_while(|word| *word == "self" || *word == "super").count();
        let up = self.written[..own].iter().filter(|word| *word == "super").count();
        under(&self.at.module[..self.at.module.len().saturating_sub(up)], &self.written[own..])
    }
}
