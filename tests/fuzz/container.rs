//! Changes safetensors files part by part: the length, the header, the JSON that this crate keeps inside it, the tensors; and
//! makes checksums right again, so that what lies behind them is reached.

use super::json;
use super::mutate::{EDGES, Rng, bytes};
use rand::RngExt;
use serde_json::{Map, Value, json};

const METADATA: &str = "__metadata__";
const CHECKSUMS: &str = "checksums";

struct Container {
    header: Value,
    data: Vec<u8>,
}

impl Container {
    fn split(file: &[u8]) -> Option<Self> {
        let length = u64::from_le_bytes(file.get(..8)?.try_into().ok()?);
        let end = usize::try_from(length).ok()?.checked_add(8)?;
        Some(Self { header: serde_json::from_slice(file.get(8..end)?).ok()?, data: file[end..].to_vec() })
    }

    fn join(&self) -> Vec<u8> {
        let mut header = serde_json::to_vec(&self.header).unwrap();
        header.resize(header.len().next_multiple_of(8), b' ');
        [&(header.len() as u64).to_le_bytes()[..], &header, &self.data].concat()
    }

    fn texts(&mut self) -> Option<&mut Map<String, Value>> {
        self.header.get_mut(METADATA)?.as_object_mut()
    }

    /// Writes checksums that fit, into a file that has any.
    fn repair(&mut self) {
        let sum = |bytes: &[u8]| {
            let hash = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
            json!(format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, hash)))
        };
        let mut sums = Map::new();
        for (name, entry) in self.header.as_object().into_iter().flatten() {
            let offset = |at: usize| entry["data_offsets"][at].as_u64().map(|n| n as usize);
            if let (Some(start), Some(end)) = (offset(0), offset(1))
                && let Some(tensor) = self.data.get(start..end)
            {
                sums.insert(name.clone(), sum(tensor));
            }
        }
        let Some(texts) = self.texts() else { return };
        for (key, text) in texts.iter().filter(|(key, _)| *key != CHECKSUMS) {
            sums.insert(key.clone(), sum(text.as_str().unwrap_or_default().as_bytes()));
        }
        if let Some(old) = texts.get_mut(CHECKSUMS) {
            *old = json!(Value::Object(sums).to_string());
        }
    }

    /// Changes the JSON in one of the texts.
    fn change_text(&mut self, rng: &mut Rng) {
        let Some(texts) = self.texts() else { return };
        let Some(Value::String(text)) = texts.iter_mut().find(|(key, _)| *key != CHECKSUMS).map(|(_, text)| text)
        else {
            return;
        };
        let mut changed = text.clone().into_bytes();
        json::mutate(&mut changed, &[], rng);
        *text = String::from_utf8_lossy(&changed).into_owned();
    }

    /// Swaps, renames or reshapes tensors, whose bytes stay where they are.
    fn change_entries(&mut self, rng: &mut Rng) {
        let Some(entries) = self.header.as_object_mut() else { return };
        let names: Vec<String> = entries.keys().filter(|name| *name != METADATA).cloned().collect();
        if names.is_empty() {
            return;
        }
        let [one, two] = [(); 2].map(|()| names[rng.random_range(0..names.len())].clone());
        let first = entries[&one].clone();
        if !first.is_object() {
            // by an earlier change
            return;
        }
        match rng.random_range(0..4) {
            0 => {
                let second = std::mem::replace(&mut entries[&two], first);
                entries[&one] = second;
            }
            1 => drop(entries.insert(format!("{one}.x"), first)),
            2 => {
                let axis = [0, 1, EDGES[rng.random_range(0..EDGES.len())]][rng.random_range(0..3)];
                let at = [json!([0, 0]), first["data_offsets"].clone()][rng.random_range(0..2)].clone();
                entries[&one] = json!({"dtype": first["dtype"], "shape": [0, axis, 1], "data_offsets": at});
            }
            _ => {
                let types = ["F64", "F32", "F16", "BF16", "I64", "U64", "U8", "BOOL", "F8_E4M3"];
                entries[&one]["dtype"] = json!(types[rng.random_range(0..types.len())]);
            }
        }
    }
}

/// The file with the JSON in its text changed, and checksums that fit.
pub fn with_text(file: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut parts = Container::split(file).unwrap();
    let texts = parts.texts().unwrap();
    let text = texts.iter_mut().find(|(key, _)| *key != CHECKSUMS).unwrap().1;
    let mut parsed = serde_json::from_str(text.as_str().unwrap()).unwrap();
    change(&mut parsed);
    *text = json!(parsed.to_string());
    parts.repair();
    parts.join()
}

pub fn mutate(file: &mut Vec<u8>, donor: &[u8], rng: &mut Rng) {
    let Some(mut parts) = Container::split(file) else { return bytes(file, donor, rng) };
    match rng.random_range(0..10) {
        0 => {
            let length = EDGES[rng.random_range(0..EDGES.len())];
            file[..8].copy_from_slice(&length.to_le_bytes());
            return;
        }
        1 | 2 => json::tree(&mut parts.header, rng),
        3 => parts.change_entries(rng),
        4 if !parts.data.is_empty() => bytes(&mut parts.data, donor, rng),
        5 => {
            // numbers that are not finite, negative or huge, in their places
            let value = [f64::NAN, f64::NEG_INFINITY, -1.0, 0.0, 1e308, 5e-324][rng.random_range(0..6)];
            let start = 8 * rng.random_range(0..=parts.data.len() / 8);
            parts.data.iter_mut().skip(start).zip(value.to_le_bytes()).for_each(|(byte, new)| *byte = new);
        }
        _ => parts.change_text(rng),
    }
    if rng.random_bool(0.9) {
        parts.repair();
    }
    *file = parts.join();
}
