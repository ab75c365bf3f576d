//! Feeds a parser with changed files and checks what it does with each.

use super::mutate::{Kind, Rng, mutate};
use crate::support::allocations::{Allocations, watch};
use bayes_lora::error::Result;
use rand::{RngExt, SeedableRng};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

/// Inputs of each parser unless `BAYES_LORA_FUZZ_INPUTS` says otherwise: all parsers together then take about 20 s.
const INPUTS: u64 = 4000;
/// Longest time for one input. All of them take milliseconds on an idle machine; this one may be busy.
const MAX_TIME: Duration = Duration::from_secs(5);
/// Memory that does not depend on the file: models that are already there, buffers, messages.
pub const FIXED_BYTES: usize = 8 << 20;
/// Memory for each byte of a file. A JSON value of two bytes (`0,`) takes 32, three times that while a list grows; decoded
/// GGUF metadata may take 64; tensors take a handful.
pub const BYTES_A_BYTE: usize = 64;

/// A file of an input.
#[derive(Clone)]
pub struct File {
    pub name: &'static str,
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

impl File {
    pub fn new(name: &'static str, kind: Kind, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name, kind, bytes: bytes.into() }
    }

    pub fn read(path: impl AsRef<Path>, name: &'static str, kind: Kind) -> Self {
        Self::new(name, kind, std::fs::read(path).unwrap())
    }
}

/// Files that a parser reads together, changed from those of entry `origin` of the corpus.
#[derive(Clone)]
pub struct Input {
    pub origin: usize,
    pub files: Vec<File>,
}

impl Input {
    fn bytes(&self) -> usize {
        self.files.iter().map(|file| file.bytes.len()).sum()
    }

    /// Writes the files into a directory that exists.
    pub fn write(&self, dir: &Path) {
        for file in &self.files {
            std::fs::write(dir.join(file.name), &file.bytes).unwrap();
        }
    }
}

/// A directory in memory, where the system has one.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

thread_local! {
    static EXPECTS_PANICS: Cell<bool> = const { Cell::new(false) };
}

/// Parsers of others panic behind a net, and what comes through is reported here: neither needs a trace each time.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !EXPECTS_PANICS.try_with(Cell::get).unwrap_or(false) {
                loud(panic);
            }
        }));
    });
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// How one input went.
struct Outcome {
    /// What was wrong with the parser, not with the file.
    fault: Option<String>,
    accepted: bool,
    asked: Allocations,
    time: Duration,
}

fn feed(input: &Input, fixed: usize, parse: &impl Fn(&Input) -> Result<()>) -> Outcome {
    let start = Instant::now();
    EXPECTS_PANICS.set(true);
    let (answer, asked) = watch(|| catch_unwind(AssertUnwindSafe(|| parse(input))));
    EXPECTS_PANICS.set(false);
    let time = start.elapsed();
    let allowed = fixed + BYTES_A_BYTE * input.bytes();
    let fault = match &answer {
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Some(format!("panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message")))
        }
        Ok(_) if time > MAX_TIME => Some(format!("took {time:?}, more than {MAX_TIME:?}")),
        Ok(_) if asked.peak > allowed => {
            Some(format!("held {} bytes for {} bytes of files, allowed are {allowed}", asked.peak, input.bytes()))
        }
        Ok(_) => None,
    };
    Outcome { fault, accepted: matches!(answer, Ok(Ok(()))), asked, time }
}

fn change(corpus: &[Vec<File>], rng: &mut Rng) -> Input {
    let origin = rng.random_range(0..corpus.len());
    let mut files = corpus[origin].clone();
    for _ in 0..rng.random_range(1..=3) {
        let changed = rng.random_range(0..files.len());
        let other = &corpus[rng.random_range(0..corpus.len())];
        let donor = &other[changed % other.len()].bytes;
        mutate(&mut files[changed], donor, rng);
    }
    Input { origin, files }
}

/// Keeps a bad input for whoever looks into it.
fn keep(parser: &str, seed: u64, number: u64, input: &Input) -> PathBuf {
    let dir = std::env::temp_dir().join("bayes-lora-fuzz").join(format!("{parser}-{seed}-{number}").replace(' ', "-"));
    std::fs::create_dir_all(&dir).unwrap();
    input.write(&dir);
    dir
}

/// Feeds `parse` with the files of `corpus`, which it must accept, and with changed ones, of which it must refuse some.
///
/// Input `n` depends on the seed and `n` alone. Held at once may be `fixed` bytes and [`BYTES_A_BYTE`] for each of the files'.
pub fn fuzz(parser: &str, fixed: usize, corpus: &[Vec<File>], parse: impl Fn(&Input) -> Result<()>) {
    silence_panics();
    for (origin, files) in corpus.iter().enumerate() {
        let input = Input { origin, files: files.clone() };
        let outcome = feed(&input, fixed, &parse);
        assert_eq!(outcome.fault, None, "{parser}: a right file, entry {origin}");
        assert!(outcome.accepted, "{parser}: entry {origin} was refused: {:?}", parse(&input));
    }
    let (seed, inputs) = (setting("BAYES_LORA_FUZZ_SEED", 0), setting("BAYES_LORA_FUZZ_INPUTS", INPUTS));
    let (start, mut accepted, mut peak, mut slowest) = (Instant::now(), 0u64, 0, Duration::ZERO);
    for number in 0..inputs {
        let mut rng = Rng::seed_from_u64(seed);
        rng.set_stream(number);
        let input = change(corpus, &mut rng);
        let outcome = feed(&input, fixed, &parse);
        if let Some(fault) = outcome.fault {
            let kept = keep(parser, seed, number, &input);
            panic!("{parser}, seed {seed}, input {number}: {fault}; kept in {}", kept.display());
        }
        accepted += u64::from(outcome.accepted);
        peak = peak.max(outcome.asked.peak);
        slowest = slowest.max(outcome.time);
    }
    println!(
        "{parser}: {inputs} inputs, {accepted} accepted, {} refused, at most {:.1} MiB held, slowest {:.0} ms, {:.1} s",
        inputs - accepted,
        peak as f64 / f64::from(1 << 20),
        slowest.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64()
    );
    assert!(inputs < 100 || accepted < inputs, "{parser}: none of {inputs} changed files was refused");
}
