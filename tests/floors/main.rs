//! The house keeps its floors: imports point downwards, no two files need each other, one folder knows each foreign library,
//! no file names a backend.
//!
//! The last tests plant what must be found.

mod map;
mod reader;

use reader::{House, Mention, Place, reach, words};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module may import from floors below its own and from its own folder.
const FLOORS: [&str; 8] = [
    "atomic_dir atomic_file batches belief book checkpoints draws error file_header file_kind float_type gguf hash hub identity \
     likelihood linalg memory number outputs plain_name prior progress search setters tape tensor_file",
    "calibrate data lora metrics",
    "models",
    "curvature train",
    "posterior",
    "generate predict",
    "methods plot",
    "bayes_lora compare",
];
/// Foreign libraries, and the one folder that may know each.
const HOMES: &str = "faer linalg, gguf_rs_lib gguf, hf_hub hub, kuva plot, onig lora, ring hub, ureq hub";
/// Folders of mathematics on the host: nothing that they need, however far away, knows tensors.
const WITHOUT_BURN: &str = "belief calibrate linalg metrics";
/// Names that would tie the code to one of burn's backends; words of this kind in texts count too.
const BACKENDS: &str = "flex wgpu vulkan metal webgpu cuda rocm candle tch libtorch NdArray burn_ndarray burn_flex";
const MAX_LINES: usize = 400;

/// What is wrong, a line each.
type Faults = BTreeSet<String>;

impl House {
    /// Imports from the own floor or from above, in tests too.
    fn upward(&self) -> Faults {
        let floor = |module: &str| FLOORS.iter().position(|modules| words(modules).any(|one| one == module));
        let judge = |mention: &Mention| {
            let (own, path) = (mention.at.module.first()?, mention.path());
            let target = path.first().map_or("lib", |first| first);
            let reason = match (floor(own), floor(target)) {
                _ if target == own => return None,
                (None, _) => format!("`{own}` has no floor"),
                (_, None) => format!("`{target}` is no module of this crate"),
                (Some(from), Some(to)) if to < from || (from, to) == (0, 0) => return None,
                (Some(from), Some(to)) => format!("floor {from} imports `{target}` of floor {to}"),
            };
            Some(mention.at.says(reason))
        };
        self.mentions.iter().filter_map(judge).collect()
    }

    /// Files that need each other, with the lines that say so.
    fn circles(&self) -> BTreeMap<String, String> {
        let needs = self.needs();
        let circle = |file: &&str| -> Vec<&str> {
            let around = |other: &&str| reach(&needs, other).contains(file);
            reach(&needs, file).into_iter().filter(around).collect()
        };
        let describe = |circle: Vec<&str>| {
            let edges = circle.iter().flat_map(|file| needs[file].iter().map(move |edge| (file, edge)));
            let inside = edges.filter(|(_, (other, _))| circle.contains(other));
            let lines = inside.map(|(file, (other, lines))| format!("{file} {lines:?} needs {other}"));
            (circle.join(" "), lines.collect::<Vec<_>>().join(", "))
        };
        needs.keys().map(circle).filter(|circle| !circle.is_empty()).map(describe).collect()
    }

    /// Tensors within reach of the folders that do without.
    fn tensors(&self) -> Faults {
        let (needs, mut faults) = (self.needs(), Faults::new());
        let tensors = self.words.iter().filter(|(at, word)| word == "burn" && !at.in_tests);
        let knows: BTreeSet<&str> = tensors.map(|(at, _)| &*at.file).collect();
        for (module, file) in &self.modules {
            if module.first().is_some_and(|top| words(WITHOUT_BURN).any(|folder| folder == top)) {
                let within = reach(&needs, file).into_iter().chain([&**file]).filter(|file| knows.contains(file));
                faults.extend(within.map(|by| format!("{file} needs burn, by {by}")));
            }
        }
        faults
    }

    /// Backends named in what ships.
    fn backends(&self) -> Faults {
        let named = |(at, word): &&(Place, String)| !at.in_tests && words(BACKENDS).any(|backend| backend == word);
        self.words.iter().filter(named).map(|(at, word)| at.says(format!("names `{word}`"))).collect()
    }

    /// Foreign libraries outside the one folder that may know them.
    fn foreign(&self) -> Faults {
        let homes: BTreeMap<&str, &str> = HOMES.split(", ").filter_map(|pair| pair.split_once(' ')).collect();
        let judge = |(at, word): &(Place, String)| {
            let home = homes.get(&**word).filter(|home| at.module.first().is_none_or(|own| own != *home))?;
            Some(at.says(format!("`{word}` belongs to src/{home}")))
        };
        self.words.iter().filter_map(judge).collect()
    }

    /// Neighbours that are not named from `super::`, and others that are not named from the root.
    fn dialect(&self) -> Faults {
        let judge = |Mention { at, written, binds, .. }: &Mention| {
            let beside = &at.module[..at.module.len().saturating_sub(1)];
            let is_judged = !at.in_tests && !beside.is_empty();
            let is_other = match &*written[0] {
                "crate" => written[1..].starts_with(beside),
                "super" => written.get(1).is_some_and(|word| word == "super"),
                first => first == "self" && binds.is_some(),
            };
            (is_judged && is_other).then(|| at.says(written.join("::")))
        };
        self.mentions.iter().filter_map(judge).collect()
    }
}

impl Place {
    fn says(&self, reason: String) -> String {
        format!("{}:{}: {reason}", self.file, self.line)
    }
}

// ---- the house --------------------------------------------------------------------------------------------------

/// Every file of the library, by its path from src; a program of src/bin is a crate of its own.
fn files() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut files) = (vec![root.clone()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.extend((path != root.join("bin")).then_some(path));
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                files.insert(name, std::fs::read_to_string(path).unwrap());
            }
        }
    }
    files
}

fn house() -> House {
    House::read(files().iter().map(|(file, text)| (&**file, &**text)))
}

fn none(faults: Faults) {
    assert!(faults.is_empty(), "\n{}", Vec::from_iter(faults).join("\n"));
}

#[test]
fn every_module_has_a_floor_and_every_floor_has_only_modules_that_exist() {
    let house = house();
    let found: BTreeSet<&str> = house.modules.keys().filter_map(|module| Some(&**module.first()?)).collect();
    assert_eq!(found, FLOORS.iter().flat_map(|modules| words(modules)).collect());
    assert!(house.words.iter().any(|(_, word)| word == "faer"), "the reader no longer finds the libraries at all");
}

#[test]
fn files_import_only_from_lower_floors_and_their_own_folder() {
    none(house().upward());
}

#[test]
fn no_two_files_need_each_other() {
    none(house().circles().into_values().collect());
}

#[test]
fn mathematics_on_the_host_knows_no_tensors_and_errors_know_nobody() {
    let house = house();
    none(house.tensors());
    let of_error = house.mentions.iter().filter(|m| m.at.file == "error.rs" && m.path()[0] != "error");
    none(of_error.map(|mention| mention.at.says(mention.written.join("::"))).collect());
}

#[test]
fn nothing_that_ships_names_a_backend() {
    none(house().backends());
}

#[test]
fn one_folder_knows_each_foreign_library() {
    none(house().foreign());
}

#[test]
fn neighbours_are_named_from_super_and_others_from_the_root() {
    none(house().dialect());
}

#[test]
fn no_file_is_longer_than_400_lines() {
    let long = files().into_iter().map(|(file, text)| (file, text.lines().count())).filter(|(_, n)| *n > MAX_LINES);
    none(long.map(|(file, n)| format!("{file}: {n} lines")).collect());
}

// ---- what must be found -----------------------------------------------------------------------------------------

#[test]
fn every_form_of_an_upward_import_is_found() {
    let cases = [
        ("linalg/eigen.rs", "use crate::models::Mlp;", "src:1: floor 0 imports `models` of floor 2"),
        ("metrics/ece.rs", "use crate::data::Task;", "floor 1 imports `data` of floor 1"),
        ("lora/peft.rs", "use crate::{error::Result, predict::{map, sampled}};", "`predict` of floor 5"),
        ("posterior/laplace.rs", "fn f() {\n let x = crate::plot::draw();\n}", "src:2: floor 4 imports `plot`"),
        ("posterior/laplace.rs", "use super::{evidence, super::predict};", "`predict` of floor 5"),
        ("prior.rs", "pub use super::bayes_lora::BayesLora;", "`bayes_lora` of floor 7"),
        ("data/task.rs", "#[cfg(test)] mod tests { use super::super::super::models; }", "`models` of floor 2"),
        ("data/task.rs", "const S: &str = r#\"\"#; /* a */ use /* b */ crate :: models;", "`models`"),
        ("data/task.rs", "fn f<'a>(x: &'a str) -> char { vec![crate::models::f(x, '\"')] }", "`models`"),
        ("predict/map.rs", "use crate::Laplace;", "`Laplace` is no module of this crate"),
        ("predict/map.rs", "use crate::*;", "`*` is no module of this crate"),
        ("helpers/map.rs", "use crate::error::Error;", "`helpers` has no floor"),
    ];
    for (path, source, expected) in cases {
        let found = Vec::from_iter(House::read([(path, source)]).upward()).join("\n");
        let expected = expected.replace("src:", &format!("{path}:"));
        assert!(found.contains(&expected), "{path} «{source}» gave «{found}» instead of «{expected}»");
    }
    for (path, source) in [
        ("models/mlp.rs", "use super::classifier::Classifier; use crate::lora::{Adaptable, LoraLinear as L};"),
        ("belief/link.rs", "fn f() { crate::linalg::gauss_hermite(points)?; } use burn::models;"),
        ("data/task.rs", "use crate::data::jsonl; mod tests { use super::*; use super::super::tiny; }"),
        ("error.rs", "//! [`crate::models`]\n/* crate::models */ const S: &str = \"crate::models\";"),
        ("lora/mod.rs", "pub(crate) use ndarray::s; pub(in crate::lora) fn f() {}"),
    ] {
        none(House::read([(path, source)]).upward());
    }
}

#[test]
fn circles_are_found_through_what_a_folder_hands_on_and_in_code_without_imports() {
    let circles = |a, b, c| {
        let folder = ("lora/mod.rs", "mod a; mod b; mod c; pub use b::{B, C as D};");
        Vec::from_iter(House::read([folder, ("lora/a.rs", a), ("lora/b.rs", b), ("lora/c.rs", c)]).circles())
    };
    let found =
        circles("use crate::lora::D;", "pub use super::c::C;\nfn f(c: C) {}", "use super::a;\nfn f() { a::f() }");
    let lines = "lora/a.rs {1} needs lora/c.rs, lora/c.rs {2} needs lora/a.rs";
    assert_eq!(found, [("lora/a.rs lora/c.rs".to_string(), lines.to_string())]);
    assert_eq!(circles("use super::B;", "fn f() { vec![super::a::A] }", "").len(), 1);
    assert_eq!(circles("use super::c;\nfn f() { c::f() }", "use super::a::A;", "use super::{B, a};").len(), 1);
    assert!(
        circles("use super::B;", "#[cfg(test)] mod tests { use super::super::a::A; }", "use super::{a::A, B};")
            .is_empty()
    );
    assert!(
        circles("fn f(lora: D) { b.c(); let b = 1; }", "use foreign::a; pub use super::a::A;", "fn a() {}").is_empty()
    );
}

#[test]
fn tensors_are_found_behind_what_needs_them() {
    let tensors =
        |tape| Vec::from_iter(House::read([("metrics/ece.rs", "use crate::tape::Tape;"), ("tape.rs", tape)]).tensors());
    assert_eq!(tensors("use burn::tensor::Tensor;"), ["metrics/ece.rs needs burn, by tape.rs"]);
    assert!(tensors("//! burn\n#[cfg(test)] use burn::tensor::Tensor;").is_empty());
}

#[test]
fn backends_in_tests_are_told_from_backends_that_ship() {
    for source in [
        "fn f() { let d = Device::flex(); }",
        "#[cfg(feature = \"cuda\")] fn f() {}",
        "use burn::backend::NdArray;",
        "fn f() { panic!(\"needs wgpu\") }",
        "#[cfg(not(test))] mod a { use burn_flex::x; }",
        "#[cfg(test)] mod a { } fn f() { Device::wgpu() }",
        "#[cfg(test)] use a::{b}; fn f() { Device::wgpu() }",
    ] {
        assert_eq!(House::read([("prior.rs", source)]).backends().len(), 1, "«{source}»");
    }
    for source in [
        "//! Device::flex()\n/// cuda\nfn f() { let d = Device::default(); } // wgpu",
        "#[cfg(all(test, feature = \"flex\"))] mod tests { fn f() { if x { Device::flex() } } }",
        "use ndarray::Array2; const S: &str = \"metallic\";",
        "#[cfg(test)] #[path = \"a_tests.rs\"] mod tests; #[cfg(test)] mod tiny;",
    ] {
        let of_tests = [("a_tests.rs", "fn f() { Device::wgpu() }"), ("prior/tiny.rs", "fn f() { Device::wgpu() }")];
        let files = if source.contains("tiny") { &of_tests[..] } else { &[] };
        none(House::read(files.iter().copied().chain([("prior.rs", source)])).backends());
    }
}

#[test]
fn foreign_libraries_and_other_dialects_are_found() {
    assert_eq!(House::read([("lora/a.rs", "use faer::Mat; fn f() { kuva::x() }")]).foreign().len(), 2);
    none(House::read([("plot/a.rs", "use kuva::Plot; // faer")]).foreign());
    for source in ["use crate::lora::b::B;", "use super::super::data::Task;", "use self::b::B;"] {
        assert_eq!(House::read([("lora/a.rs", source)]).dialect().len(), 1, "«{source}»");
    }
    none(House::read([("lora/a.rs", "use super::b::B; use crate::data::Task; fn f(self) { self.g() }")]).dialect());
}
