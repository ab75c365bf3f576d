//! The house keeps its floors: imports point downwards, one folder knows each foreign library, no file names a backend.
//!
//! The scanner reads Rust well enough for this purpose: comments are dropped, strings kept whole, `use` trees expanded,
//! `super::` resolved by the depth of the file and of the module within it. Samples below show what it catches.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module may import from floors below its own and from its own folder.
const FLOORS: [&[&str]; 8] = [
    &[
        "atomic_dir",
        "atomic_file",
        "batches",
        "belief",
        "checkpoints",
        "draws",
        "error",
        "file_header",
        "file_kind",
        "float_type",
        "gguf",
        "hash",
        "hub",
        "likelihood",
        "linalg",
        "number",
        "outputs",
        "plain_name",
        "prior",
        "progress",
        "search",
        "tape",
        "tensor_file",
    ],
    &["calibrate", "data", "lora", "metrics"],
    &["models"],
    &["curvature", "train"],
    &["posterior"],
    &["predict"],
    &["methods", "plot"],
    &["bayes_lora", "compare"],
];

/// Names that would tie the code to one of burn's backends; words of this kind in texts count too.
const BACKENDS: [&str; 13] = [
    "flex",
    "wgpu",
    "vulkan",
    "metal",
    "webgpu",
    "cuda",
    "rocm",
    "candle",
    "tch",
    "libtorch",
    "NdArray",
    "burn_ndarray",
    "burn_flex",
];

const MAX_LINES: usize = 400;

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

// ---- reading ----------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Word(String),
    Text(String),
    Mark(char),
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    line: usize,
}

impl Token {
    fn word(&self) -> Option<&str> {
        if let Kind::Word(word) = &self.kind { Some(word) } else { None }
    }

    fn is(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }
}

/// Words, texts and marks of a file, without its comments.
fn tokens(source: &str) -> Vec<Token> {
    let c: Vec<char> = source.chars().collect();
    let at = |i: usize| c.get(i).copied().unwrap_or('\0');
    let (mut i, mut line, mut out) = (0, 1, Vec::new());
    let is_word = |ch: char| ch.is_alphanumeric() || ch == '_';
    while i < c.len() {
        let start_line = line;
        let kind = match at(i) {
            '\n' => {
                line += 1;
                i += 1;
                continue;
            }
            ch if ch.is_whitespace() => {
                i += 1;
                continue;
            }
            '/' if at(i + 1) == '/' => {
                while i < c.len() && at(i) != '\n' {
                    i += 1;
                }
                continue;
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => {
                            depth += 1;
                            i += 2;
                        }
                        ('*', '/') => {
                            depth -= 1;
                            i += 2;
                        }
                        (ch, _) => {
                            line += usize::from(ch == '\n');
                            i += 1;
                        }
                    }
                    if depth == 0 || i >= c.len() {
                        break;
                    }
                }
                continue;
            }
            '\'' => {
                // a character, or a lifetime, of which only the quote is dropped
                if at(i + 1) == '\\' {
                    i += 3;
                    while i < c.len() && at(i) != '\'' {
                        i += 1;
                    }
                    i += 1;
                } else {
                    i += if at(i + 2) == '\'' { 3 } else { 1 };
                }
                continue;
            }
            '"' => {
                let start = i + 1;
                i = start;
                while i < c.len() && at(i) != '"' {
                    line += usize::from(at(i) == '\n');
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
                Kind::Text(c[start..(i - 1).min(c.len())].iter().collect())
            }
            ch if is_word(ch) => {
                let start = i;
                while is_word(at(i)) {
                    i += 1;
                }
                let word: String = c[start..i].iter().collect();
                let hashes = (i..).take_while(|&j| at(j) == '#').count();
                if word.ends_with('r') && word.len() < 3 && at(i + hashes) == '"' {
                    let start = i + hashes + 1;
                    let closes = |j: usize| at(j) == '"' && (1..=hashes).all(|k| at(j + k) == '#');
                    i = start;
                    while i < c.len() && !closes(i) {
                        line += usize::from(at(i) == '\n');
                        i += 1;
                    }
                    let text = c[start..i.min(c.len())].iter().collect();
                    i += 1 + hashes;
                    Kind::Text(text)
                } else {
                    Kind::Word(word)
                }
            }
            ch => {
                i += 1;
                Kind::Mark(ch)
            }
        };
        out.push(Token { kind, line: start_line });
    }
    out
}

/// Splits a file into what ships and the names (or `#[path]`s) of the modules that are compiled for tests alone.
fn without_tests(all: &[Token]) -> (Vec<Token>, Vec<PathBuf>) {
    let (mut kept, mut test_files, mut i) = (Vec::new(), Vec::new(), 0);
    while i < all.len() {
        let end = attribute_end(all, i);
        let is_test = end.is_some_and(|end| {
            let words: Vec<&str> = all[i..end].iter().filter_map(Token::word).collect();
            words.first() == Some(&"cfg") && words.contains(&"test") && !words.contains(&"not")
        });
        if !is_test {
            kept.push(all[i].clone());
            i += 1;
            continue;
        }
        let mut path = None;
        while let Some(end) = attribute_end(all, i) {
            if all[i..end].iter().any(|t| t.word() == Some("path")) {
                path = all[i..end].iter().find_map(|t| if let Kind::Text(p) = &t.kind { Some(p.into()) } else { None });
            }
            i = end;
        }
        let start = i;
        let mut depth = 0usize;
        while i < all.len() {
            depth += usize::from(all[i].is('{'));
            depth -= usize::from(all[i].is('}'));
            i += 1;
            if depth == 0 && (all[i - 1].is('}') || all[i - 1].is(';')) {
                break;
            }
        }
        let item: Vec<&str> = all[start..i].iter().filter_map(Token::word).collect();
        if let (["mod", name], true) = (item.as_slice(), all[i - 1].is(';')) {
            test_files.push(path.unwrap_or_else(|| format!("{name}.rs").into()));
        }
    }
    (kept, test_files)
}

/// One past the end of the attribute that starts at `i`.
fn attribute_end(all: &[Token], i: usize) -> Option<usize> {
    if !(all.get(i)?.is('#') && all.get(i + 1)?.is('[')) {
        return None;
    }
    let mut depth = 0;
    for (j, token) in all.iter().enumerate().skip(i + 1) {
        depth += i32::from(token.is('[')) - i32::from(token.is(']'));
        if depth == 0 {
            return Some(j + 1);
        }
    }
    None
}

/// All paths of the tree that starts at token `i`, and one past its end: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn tree(all: &[Token], mut i: usize, prefix: &[String], out: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match all.get(i) {
            Some(token) if token.is('{') && path.len() > prefix.len() => {
                i += 1;
                while all.get(i).is_some_and(|t| !t.is('}')) {
                    let next = tree(all, i, &path, out);
                    // an alias or a comma
                    i = (next..).find(|&j| all.get(j).is_none_or(|t| t.is(',') || t.is('}'))).unwrap_or(next);
                    i += usize::from(all.get(i).is_some_and(|t| t.is(',')));
                }
                return i + 1;
            }
            Some(token) if token.is('*') => {
                path.push("*".into());
                out.push(path);
                return i + 1;
            }
            Some(Token { kind: Kind::Word(word), .. }) => path.push(word.clone()),
            _ => {
                out.push(path);
                return i;
            }
        }
        let colons = [i + 1, i + 2].iter().all(|&j| all.get(j).is_some_and(|t| t.is(':')));
        let goes_on = all.get(i + 3).is_some_and(|t| t.word().is_some() || t.is('{') || t.is('*'));
        if !(colons && goes_on) {
            out.push(path);
            return i + 1;
        }
        i += 3;
    }
}

/// Top-level modules that a file refers to, with the line. `depth`: 1 for `a.rs` and `a/mod.rs`, 2 for `a/b.rs`.
fn references(all: &[Token], depth: usize) -> Vec<(usize, String)> {
    let (mut out, mut blocks, mut i) = (Vec::new(), Vec::new(), 0);
    while i < all.len() {
        let token = &all[i];
        if token.is('{') {
            blocks.push(i >= 2 && all[i - 2].word() == Some("mod"));
        } else if token.is('}') {
            blocks.pop();
        }
        let starts = matches!(token.word(), Some("crate" | "super" | "self"))
            && all.get(i + 1).is_some_and(|t| t.is(':'))
            && all.get(i + 2).is_some_and(|t| t.is(':'))
            && !(i > 0 && all[i - 1].is(':'));
        if !starts {
            i += 1;
            continue;
        }
        let mut paths = Vec::new();
        let next = tree(all, i, &[], &mut paths);
        let inner = depth + blocks.iter().filter(|is_module| **is_module).count();
        for path in paths {
            let rest: Vec<&String> = path.iter().skip_while(|s| *s == "self").collect();
            let supers = rest.iter().take_while(|s| **s == "super").count();
            let target = match rest.first().map(|s| s.as_str()) {
                Some("crate") => rest.get(1),
                Some("super") if supers >= inner => rest.get(supers),
                _ => continue,
            };
            out.push((token.line, target.map_or("(the root)".into(), |s| s.to_string())));
        }
        i = next.max(i + 1);
    }
    out
}

// ---- judging ----------------------------------------------------------------------------------------------------

/// Upward or sideways imports of a file at `path` (relative to src), as `path:line: what`.
fn bad_imports(path: &Path, source: &str) -> Vec<String> {
    let own = top_module(path);
    let Some(own_floor) = floor(&own) else {
        return vec![format!("{}: module `{own}` has no floor", path.display())];
    };
    references(&tokens(source), depth(path))
        .into_iter()
        .filter_map(|(line, target)| {
            let reason = match floor(&target) {
                _ if target == own => return None,
                None => format!("`{target}` is no module of this crate"),
                Some(f) if f < own_floor || (f == 0 && own_floor == 0) => return None,
                Some(f) => format!("floor {own_floor} imports `{target}` of floor {f}"),
            };
            Some(format!("{}:{line}: {reason}", path.display()))
        })
        .collect()
}

fn top_module(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_string()
}

fn depth(path: &Path) -> usize {
    path.components().count() - usize::from(path.ends_with("mod.rs"))
}

/// Backends named in what ships of a file.
fn backends(path: &Path, shipped: &[Token]) -> Vec<String> {
    let named = |token: &&Token| match &token.kind {
        Kind::Word(word) => BACKENDS.contains(&word.as_str()),
        Kind::Text(text) => text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| BACKENDS.contains(&word)),
        Kind::Mark(_) => false,
    };
    shipped.iter().filter(named).map(|t| format!("{}:{}: {:?}", path.display(), t.line, t.kind)).collect()
}

/// Uses of a foreign library outside the one folder that may know it.
fn foreign(path: &Path, all: &[Token]) -> Vec<String> {
    let own = top_module(path);
    [("faer", "linalg"), ("gguf_rs_lib", "gguf"), ("hf_hub", "hub"), ("kuva", "plot"), ("ring", "hub"), ("ureq", "hub")]
        .iter()
        .flat_map(|(library, home)| {
            let found = all.iter().find(|t| t.word() == Some(library)).filter(|_| own != *home);
            found.map(|t| format!("{}:{}: `{library}` belongs to src/{home}", path.display(), t.line))
        })
        .collect()
}

/// A cycle among modules, if there is one.
fn cycle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(at: &str, edges: &BTreeMap<String, BTreeSet<String>>, trail: &mut Vec<String>) -> bool {
        if trail.iter().any(|seen| seen == at) {
            trail.push(at.into());
            return true;
        }
        trail.push(at.into());
        if edges.get(at).is_some_and(|next| next.iter().any(|n| visit(n, edges, trail))) {
            return true;
        }
        trail.pop();
        false
    }
    edges.keys().find_map(|start| {
        let mut trail = Vec::new();
        visit(start, edges, &mut trail).then_some(trail)
    })
}

// ---- the house --------------------------------------------------------------------------------------------------

/// Every file of src with its path relative to it.
fn files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut out) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                out.push((path.strip_prefix(&root).unwrap().to_path_buf(), text));
            }
        }
    }
    assert!(out.len() > 50, "only {} files were found", out.len());
    out.sort();
    out
}

fn modules() -> impl Iterator<Item = (PathBuf, String)> {
    files().into_iter().filter(|(path, _)| path != Path::new("lib.rs"))
}

fn none(bad: Vec<String>) {
    assert!(bad.is_empty(), "\n{}", bad.join("\n"));
}

#[test]
fn every_module_has_a_floor_and_every_floor_has_only_modules_that_exist() {
    let (_, root) = files().into_iter().find(|(path, _)| path == Path::new("lib.rs")).unwrap();
    let root = tokens(&root);
    let pairs = root.windows(2).filter(|pair| pair[0].word() == Some("mod"));
    let declared: BTreeSet<&str> = pairs.filter_map(|pair| pair[1].word()).collect();
    let planned: BTreeSet<&str> = FLOORS.iter().flat_map(|modules| modules.iter().copied()).collect();
    assert_eq!(declared, planned);
}

#[test]
fn files_import_only_from_lower_floors_and_their_own_folder() {
    none(modules().flat_map(|(path, text)| bad_imports(&path, &text)).collect());
}

#[test]
fn the_ground_floor_has_no_cycle_and_error_stands_alone() {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in modules() {
        let own = top_module(&path);
        if floor(&own) == Some(0) {
            let targets = references(&tokens(&text), depth(&path)).into_iter().map(|(_, target)| target);
            edges.entry(own.clone()).or_default().extend(targets.filter(|t| *t != own));
        }
    }
    let allowed = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<BTreeSet<_>>();
    assert!(edges["error"].is_empty(), "error imports {:?}", edges["error"]);
    assert!(edges["belief"].is_subset(&allowed(&["error", "linalg"])), "belief imports {:?}", edges["belief"]);
    assert!(edges["linalg"].is_subset(&allowed(&["error"])), "linalg imports {:?}", edges["linalg"]);
    assert_eq!(cycle(&edges), None);
}

#[test]
fn nothing_that_ships_names_a_backend() {
    let mut test_files = BTreeSet::new();
    let mut shipped = Vec::new();
    for (path, text) in files() {
        let (kept, names) = without_tests(&tokens(&text));
        let beside = path.parent().unwrap().to_path_buf();
        let below = if path.ends_with("mod.rs") || path == Path::new("lib.rs") {
            beside.clone()
        } else {
            path.with_extension("")
        };
        // a `#[path]` is relative to the file's own folder
        test_files.extend(names.into_iter().flat_map(|name| [beside.join(&name), below.join(&name)]));
        shipped.push((path, kept));
    }
    let kept = shipped.iter().filter(|(path, _)| !test_files.contains(path));
    none(kept.flat_map(|(path, kept)| backends(path, kept)).collect());
}

#[test]
fn one_folder_knows_each_foreign_library() {
    let all = files();
    let users =
        |library: &str| all.iter().filter(|(_, text)| tokens(text).iter().any(|t| t.word() == Some(library))).count();
    assert!(users("faer") > 0 && users("kuva") > 0, "the scanner no longer finds the libraries at all");
    none(all.iter().flat_map(|(path, text)| foreign(path, &tokens(text))).collect());
}

#[test]
fn no_file_is_longer_than_400_lines() {
    let lines = |(path, text): &(PathBuf, String)| (text.lines().count(), path.display().to_string());
    let all = files();
    let long = all.iter().map(lines).filter(|(n, _)| *n > MAX_LINES);
    none(long.map(|(n, path)| format!("{path}: {n} lines")).collect());
}

// ---- the scanner itself -----------------------------------------------------------------------------------------

#[test]
fn the_scanner_catches_every_form_of_an_upward_import() {
    let cases = [
        ("linalg/eigen.rs", "use crate::models::Mlp;", "src:1: floor 0 imports `models` of floor 2"),
        ("metrics/ece.rs", "use crate::data::Task;", "floor 1 imports `data` of floor 1"),
        ("train/clip.rs", "use crate::curvature::probe;", "imports `curvature` of floor 3"),
        ("lora/peft.rs", "use crate::{error::Result, predict::{map, sampled}};", "imports `predict` of floor 5"),
        ("posterior/laplace.rs", "fn f() {\n let x = crate::plot::draw();\n}", "src:2: floor 4 imports `plot`"),
        ("posterior/laplace.rs", "use super::super::predict::map;", "imports `predict` of floor 5"),
        ("posterior/laplace.rs", "use super::{evidence, super::predict};", "imports `predict` of floor 5"),
        ("posterior/mod.rs", "use super::predict;", "imports `predict` of floor 5"),
        ("prior.rs", "pub use super::bayes_lora::BayesLora;", "imports `bayes_lora` of floor 7"),
        ("data/task.rs", "mod tests { use super::super::super::models; }", "imports `models` of floor 2"),
        ("data/task.rs", "#[cfg(test)] mod tests { use crate::models; }", "imports `models` of floor 2"),
        ("data/task.rs", "/* a */ use /* b */ crate :: models;", "imports `models`"),
        ("data/task.rs", "const S: &str = r#\"\"#; use crate::models;", "imports `models`"),
        ("data/task.rs", "fn f<'a>(x: &'a str) -> char { crate::models::f(x, '\"') }", "imports `models`"),
        ("predict/map.rs", "use crate::Laplace;", "`Laplace` is no module of this crate"),
        ("predict/map.rs", "use crate::*;", "`*` is no module of this crate"),
        ("helpers/map.rs", "", "module `helpers` has no floor"),
    ];
    for (path, source, expected) in cases {
        let found = bad_imports(Path::new(path), source).join("\n");
        let expected = expected.replace("src:", &format!("{path}:"));
        assert!(found.contains(&expected), "{path} «{source}» gave «{found}» instead of «{expected}»");
    }
}

#[test]
fn the_scanner_lets_good_imports_pass() {
    let cases = [
        ("models/mlp.rs", "use super::classifier::Classifier; use crate::lora::{Adaptable, LoraLinear as L};"),
        ("belief/link.rs", "let x = crate::linalg::gauss_hermite(points)?; use super::softmax::softmax;"),
        ("data/task.rs", "use crate::data::jsonl; mod tests { use super::*; use super::super::tiny; }"),
        ("plot/regions/draw.rs", "use crate::plot::axes::{Axes, Ticks}; use super::super::super::metrics;"),
        ("error.rs", "//! See [`crate::models`].\n/* crate::models */ const S: &str = \"crate::models\";"),
        ("lora/mod.rs", "pub(crate) use weights::to_vec; pub(in crate::lora) fn f() {}"),
    ];
    for (path, source) in cases {
        none(bad_imports(Path::new(path), source));
    }
}

#[test]
fn the_scanner_tells_backends_in_tests_from_backends_that_ship() {
    let named = |source: &str| backends(Path::new("x.rs"), &without_tests(&tokens(source)).0);
    for source in [
        "let d = Device::flex();",
        "#[cfg(feature = \"cuda\")] fn f() {}",
        "use burn::backend::NdArray;",
        "panic!(\"needs wgpu\")",
        "#[cfg(not(test))] mod a { use burn_flex::x; }",
        "#[cfg(test)] mod a { } fn f() { Device::wgpu() }",
        "#[cfg(test)] use a::b; fn f() { Device::wgpu() }",
    ] {
        assert_eq!(named(source).len(), 1, "«{source}»");
    }
    for source in [
        "//! Device::flex()\n/// cuda\nfn f() { let d = Device::default(); } // wgpu",
        "#[cfg(all(test, feature = \"flex\"))] mod tests { fn f() { if x { Device::flex() } } }",
        "use ndarray::Array2; let flexible = \"metallic\";",
    ] {
        none(named(source));
    }
    let (_, names) = without_tests(&tokens("#[cfg(test)] mod tiny; #[cfg(test)] #[path = \"a_tests.rs\"] mod tests;"));
    assert_eq!(names, [PathBuf::from("tiny.rs"), PathBuf::from("a_tests.rs")]);
}

#[test]
fn the_scanner_finds_foreign_libraries_and_cycles() {
    assert_eq!(foreign(Path::new("lora/a.rs"), &tokens("use faer::Mat; fn f() { kuva::x() }")).len(), 2);
    assert_eq!(foreign(Path::new("plot/a.rs"), &tokens("use kuva::Plot; // faer")).len(), 0);
    let graph = |edges: &[(&str, &str)]| {
        let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            map.entry(from.to_string()).or_default().insert(to.to_string());
        }
        map
    };
    assert_eq!(cycle(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    assert!(cycle(&graph(&[("a", "b"), ("b", "c"), ("c", "b")])).is_some());
}
