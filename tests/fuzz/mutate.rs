//! Changes a file at random, in ways that its format understands.

use super::container;
use super::harness::File;
use super::json;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rand::RngExt;
use std::io::{Read, Write};
use std::ops::Range;

pub type Rng = rand::rngs::ChaCha8Rng;

/// What a file is made of.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Bytes,
    Json,
    /// A JSON value a line.
    Lines,
    /// The same, gzipped.
    Gzip,
    /// A Jinja template.
    Template,
    /// safetensors; this crate's own files have checksums, which are made right again.
    Tensors,
}

/// Numbers at the edges of what fits somewhere.
pub const EDGES: [u64; 16] = [
    0,
    1,
    7,
    127,
    255,
    1 << 15,
    (1 << 16) - 1,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    1 << 53,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];

/// Pieces of Jinja. `tojson` is not among them: a chain of it doubles its text every time, without a bound (SECURITY.md).
const PIECES: [&str; 19] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{%-",
    "-%}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if true %}",
    "{% endif %}",
    "{% else %}",
    "{% set x = messages[0] %}",
    "{{ messages[99]['content'] }}",
    " | upper",
    "{% macro f(a) %}",
    "{% raw %}",
    "{{ raise_exception('no') }}",
];

/// A place, most of the time near the front, where headers are.
fn place(length: usize, rng: &mut Rng) -> usize {
    let end = [256, 4096, length][rng.random_range(0..3)];
    rng.random_range(0..=end.min(length))
}

fn range(length: usize, longest: usize, rng: &mut Rng) -> Range<usize> {
    let start = place(length, rng);
    start..(start + rng.random_range(0..=longest)).min(length)
}

/// Changes of plain bytes.
pub fn bytes(data: &mut Vec<u8>, donor: &[u8], rng: &mut Rng) {
    let length = data.len();
    match rng.random_range(0..9) {
        0 => {
            for _ in 0..rng.random_range(1..=8) {
                let at = place(length, rng);
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << rng.random_range(0..8);
                }
            }
        }
        1 => range(length, 16, rng).for_each(|at| data[at] = rng.random()),
        2 => {
            let (at, new) =
                (place(length, rng), (0..rng.random_range(1..=16)).map(|_| rng.random()).collect::<Vec<u8>>());
            data.splice(at..at, new);
        }
        3 => drop(data.drain(range(length, 64, rng))),
        4 => data.truncate(place(length, rng)),
        5 => {
            let (copy, at) = (data[range(length, 256, rng)].to_vec(), place(length, rng));
            data.splice(at..at, copy);
        }
        6 => {
            let piece = donor[range(donor.len(), 1024, rng)].to_vec();
            data.splice(range(length, 1024, rng), piece);
        }
        7 => {
            let width = [2, 4, 8][rng.random_range(0..3)];
            let edge = EDGES[rng.random_range(0..EDGES.len())].to_le_bytes();
            let at = place(length, rng);
            data.iter_mut().skip(at).zip(&edge[..width]).for_each(|(byte, new)| *byte = *new);
        }
        _ => {
            let fill = [0x00, 0xff, b'[', b'"'][rng.random_range(0..4)];
            range(length, 64, rng).for_each(|at| data[at] = fill);
        }
    }
}

fn lines(data: &mut Vec<u8>, donor: &[u8], rng: &mut Rng) {
    let mut lines: Vec<Vec<u8>> = data.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let at = rng.random_range(0..lines.len());
    match rng.random_range(0..8) {
        0 => lines.insert(at, lines[at].clone()),
        1 => drop(lines.remove(at)),
        2 => lines[at] = donor.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec(),
        3 => lines[at].extend_from_slice(b"\xef\xbb\xbf\xff"),
        _ => json::mutate(&mut lines[at], donor, rng),
    }
    *data = lines.join(&b'\n');
}

/// The text of a gzipped file; what cannot be unpacked is left out.
fn unpacked(data: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let _ = GzDecoder::new(data).read_to_end(&mut text);
    text
}

fn gzip(data: &mut Vec<u8>, donor: &[u8], rng: &mut Rng) {
    let mut text = unpacked(data);
    lines(&mut text, &unpacked(donor), rng);
    if rng.random_bool(0.002) {
        // as much as a line may hold, and somewhat more
        text.splice(0..0, std::iter::repeat_n(b'a', rng.random_range(1 << 20..20 << 20)));
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&text).unwrap();
    *data = encoder.finish().unwrap();
}

fn template(data: &mut Vec<u8>, donor: &[u8], rng: &mut Rng) {
    if rng.random_bool(0.5) {
        let piece = PIECES[rng.random_range(0..PIECES.len())];
        let repeated = piece.repeat([1, 1, 2, 200][rng.random_range(0..4)]);
        data.splice(range(data.len(), 8, rng), repeated.bytes());
    } else {
        bytes(data, donor, rng);
    }
}

/// Changes one file; `donor` is another of its kind.
pub fn mutate(file: &mut File, donor: &[u8], rng: &mut Rng) {
    let data = &mut file.bytes;
    if data.is_empty() {
        data.push(rng.random());
    }
    // what does not know the format finds what comes before it
    let kind = if rng.random_bool(0.25) { Kind::Bytes } else { file.kind };
    match kind {
        Kind::Bytes => bytes(data, donor, rng),
        Kind::Json => json::mutate(data, donor, rng),
        Kind::Lines => lines(data, donor, rng),
        Kind::Gzip => gzip(data, donor, rng),
        Kind::Template => template(data, donor, rng),
        Kind::Tensors => container::mutate(data, donor, rng),
    }
}
