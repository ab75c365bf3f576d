//! Names what computed a cell, without which its seconds say little.

use burn::tensor::Device;
use std::env::consts::{ARCH, OS};

/// Says what computes: the device, the threads at hand, and the processor where the system tells it.
pub fn machine(device: &Device) -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let processor = processor().map_or(String::new(), |name| format!(", {name}"));
    format!("{device:?}, {threads} threads of {ARCH} {OS}{processor}")
}

/// Linux alone has it in a file.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}
