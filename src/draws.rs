//! The one source of random streams. A stream is named by what is drawn, never by what was drawn before: no batch, order,
//! device or number of workers changes a draw, and no two things that are drawn share a stream.

use crate::hash::{fnv1a, fnv1a_words};
use ndarray::Array2;
use rand::{Rng, SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};

/// Raised whenever a stream gives other numbers than before: unfinished work of another version is not gone on with.
pub(crate) const VERSION: u64 = 3;

/// What a stream is for: everything that this crate draws, with the place and the index that a stream has there.
///
/// A new purpose takes the next number; a number never gets another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    /// Data of tests: free.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests alone make data"))]
    Synthetic = 0,
    /// A of a fresh adapter: module.
    AdapterStart = 1,
    /// Weights of a network that is not pretrained: layer or tensor.
    NetworkStart = 2,
    /// The order of the items: item, epoch.
    Shuffle = 3,
    /// The order of their batches: 0, epoch.
    ShuffledBatches = 4,
    /// Dropout while training: row of a module, epoch.
    Dropout = 5,
    /// Parts of a task; of texts: text.
    TaskSplit = 6,
    /// Draws from a Laplace posterior: site, draw.
    PosteriorDraw = 7,
    /// Right sides of the systems whose solutions are draws: 0, draw.
    SampleThenOptimize = 8,
    /// Labels of the sampled Fisher: item; of a text, place of a token in it, draw.
    SampledFisher = 9,
    /// Sums of function space: site.
    Sketch = 10,
    /// Normals of the link's integral: number of contrasts.
    Link = 11,
    /// Weights of the items in a bootstrap: 0, draw.
    Bootstrap = 12,
    /// A paired table's proportions: 0, draw.
    PairedTable = 13,
    /// Randomised conformal scores of the items fitted to: 0, position of the item.
    ConformalFit = 14,
    /// Those of the items predicted: 0, position of the item.
    ConformalPrediction = 15,
    /// The seed of a member's run: 0, member.
    Member = 16,
    /// Anchors of an ensemble: site.
    Anchor = 17,
    /// The seed of SWAG's run, whose order is not that of the training.
    SwagRun = 18,
    /// Draws from a diagonal Gaussian over adapters: site, draw.
    GaussianDraw = 19,
    /// Its low-rank part: 0, draw.
    GaussianColumns = 20,
    /// The seed of a method's draws beside a seed among its settings: 0, that seed.
    MethodDraws = 21,
    /// Dropout masks shared by all tokens: module, draw.
    DropoutMask = 22,
    /// Dropout masks of every token: row of a module, draw.
    TokenDropout = 23,
    /// Noise on A: module, draw.
    NoiseOfA = 24,
    /// Flipout's signs of every token: row of a module, draw.
    TokenSigns = 25,
    /// IVON's noise while training: site, step.
    IvonStep = 26,
    /// BLoB's G at the start: site.
    BlobStart = 27,
    /// BLoB's noise while training: site, step.
    BlobStep = 28,
    /// MonteCLoRA's ρ at the start: site.
    MonteCloraSpread = 29,
    /// MonteCLoRA's η: site.
    MonteCloraConcentrations = 30,
    /// MonteCLoRA's noise while training: site, step.
    MonteCloraStep = 31,
    /// Which training inputs TFB asks: item.
    TfbInputs = 32,
    /// Which training items a linearised model takes: item.
    LinearizedItems = 33,
    /// A token of generated text: answer of a prompt, token.
    GeneratedToken = 34,
    /// Numbers from a predictive distribution: 0, item.
    PredictedValue = 35,
}

/// The generator of what is drawn for `purpose` at `place` (see [`place`]) and `index`: a function of these and the seed alone.
///
/// The four numbers are ChaCha's key, which has room for them: two streams are the same only if all four are, however near
/// to each other seeds, places and indices lie.
pub(crate) fn generator(seed: u64, purpose: Purpose, place: u64, index: u64) -> ChaCha8Rng {
    keyed([seed, purpose as u64, place, index])
}

fn keyed(words: [u64; 4]) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The place of a thing that has a name, such as a site or a module.
pub(crate) fn place(name: impl std::fmt::Display) -> u64 {
    fnv1a(name.to_string().bytes())
}

/// The place of a part of what is at `place`, such as a row of a module.
pub(crate) fn within(place: u64, part: u64) -> u64 {
    fnv1a_words([place, part])
}

/// A seed for a call of its own, such as a member's training: arithmetic on seeds would meet those that users count up.
pub(crate) fn seed(seed: u64, purpose: Purpose, place: u64, index: u64) -> u64 {
    generator(seed, purpose, place, index).next_u64()
}

/// Standard normal draws `[rows, columns]`.
pub(crate) fn normals(rng: &mut ChaCha8Rng, (rows, columns): (usize, usize)) -> Array2<f64> {
    Array2::from_shape_simple_fn((rows, columns), || StandardNormal.sample(rng))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    /// Numbers near to each other, and those between which arithmetic on seeds has met before.
    const NUMBERS: [u64; 14] = [
        0,
        1,
        2,
        3,
        255,
        256,
        257,
        1 << 20,
        (1 << 20) + 1,
        (1 << 20) | (1 << 8),
        1 << 32,
        (1 << 32) + 1,
        1 << 63,
        u64::MAX,
    ];

    #[test]
    fn no_two_of_seed_purpose_place_and_index_share_a_stream() {
        let mut seen = BTreeMap::new();
        // beyond the last purpose, for those to come
        assert!((Purpose::GeneratedToken as u64) < 48);
        for purpose in 0..48 {
            for (seed, place) in NUMBERS.iter().flat_map(|seed| NUMBERS.map(|place| (*seed, place))) {
                for index in NUMBERS {
                    let mut rng = keyed([seed, purpose, place, index]);
                    let of = (seed, purpose, place, index);
                    if let Some(other) = seen.insert((rng.next_u64(), rng.next_u64()), of) {
                        panic!("{of:?} and {other:?} share a stream");
                    }
                }
            }
        }
    }

    #[test]
    fn streams_of_neighbours_are_uncorrelated_at_every_shift() {
        let n = 4096;
        let of = |seed, purpose, place, index| {
            normals(&mut generator(seed, purpose, place, index), (1, n)).row(0).to_owned()
        };
        let purposes = [Purpose::AdapterStart, Purpose::PosteriorDraw, Purpose::Dropout, Purpose::NetworkStart];
        let mut all: Vec<_> = purposes.iter().map(|purpose| of(0, *purpose, 0, 0)).collect();
        all.extend([of(1, purposes[0], 0, 0), of(0, purposes[0], 1, 0), of(0, purposes[0], 0, 1)]);
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                for shift in 0..8 {
                    let (a, b) = (a.slice(ndarray::s![shift..]), b.slice(ndarray::s![..n - shift]));
                    // of independent normals: 1/√n, five times
                    let correlation = a.dot(&b) / a.len() as f64;
                    assert!(correlation.abs() < 5.0 / (n as f64).sqrt(), "{correlation}");
                }
            }
        }
    }

    #[test]
    fn names_and_parts_are_places_of_their_own() {
        let rows = (0..64).flat_map(|row| ["q", "k", "q.lora_A"].map(|name| within(place(name), row)));
        let mut places: Vec<u64> = rows.chain(["q", "k", "q.lora_A"].map(place)).collect();
        let n = places.len();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), n);
    }

    /// The part of a file before its own tests.
    fn shipped(source: &str) -> &str {
        let end = source.find("\nmod tests {").or_else(|| source.find("\n#[cfg(test)]\n#[path"));
        &source[..end.unwrap_or(source.len())]
    }

    fn files(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                files(&path, found);
            } else if name.ends_with(".rs") && name != "tests.rs" && !name.ends_with("_tests.rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn no_other_file_makes_a_generator_or_computes_a_seed() {
        let own = |path: &Path| path.ends_with("src/draws.rs");
        let forbidden = |line: &str| {
            let makers =
                ["SeedableRng", "seed_from_u64", "from_seed", "from_rng", "set_stream", "thread_rng", "rand::rng("];
            let sums = ["seed.wrapping", "seed ^", "seed +", "seed |", "seed * "];
            makers.iter().chain(&sums).any(|part| line.contains(part))
        };
        assert!(forbidden("let mut rng = ChaCha8Rng::seed_from_u64(seed);") && forbidden("config.seed ^ step"));
        let mut all = Vec::new();
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
        assert!(all.iter().any(|path| own(path)) && all.len() > 100);
        for path in all.iter().filter(|path| !own(path)) {
            let source = std::fs::read_to_string(path).unwrap();
            for (line, text) in shipped(&source).lines().enumerate() {
                assert!(!forbidden(text), "{}:{}: {}", path.display(), line + 1, text.trim());
            }
        }
    }
}
