//! Decides whether the activations of a differentiated pass fit into memory, or are computed again layer by layer.

use crate::number::bytes_text;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Whether a differentiated pass holds the activations of all layers, or of one layer at a time and computes each layer a second time when
/// its gradient is due (Chen et al. 2016, arXiv 1604.06174): one more forward pass for a fraction of the memory, and the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum GradientCheckpointing {
    /// Of all layers.
    Off,
    /// Of one layer.
    On,
    /// Of one layer where those of all would take more than there is: by the model's own estimate, beside
    /// [`Control::with_memory_limit`](crate::progress::Control::with_memory_limit) or what the system has free. Off where either is not
    /// known.
    #[default]
    Auto,
}

/// Bytes of the activations of a differentiated pass, by estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Activations {
    /// Where those of all layers are held.
    pub whole: u64,
    /// Where those of one layer are held, beside the inputs of all.
    pub by_layers: u64,
}

impl std::fmt::Display for Activations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} with gradient checkpointing", bytes_text(self.whole), bytes_text(self.by_layers))
    }
}

/// Words about what a call decided by itself, each once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remarks(Arc<Mutex<Vec<String>>>);

impl Remarks {
    pub(crate) fn add(&self, remark: String) {
        // a thread that panicked while it wrote has left whole words
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !all.contains(&remark) {
            all.push(remark);
        }
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// How the passes of one call are differentiated.
#[derive(Debug)]
pub struct ActivationBudget {
    checkpointing: GradientCheckpointing,
    /// Of all passes at once; `None` where it is not known.
    bytes: Option<u64>,
    /// Passes at once.
    passes: u64,
    what: &'static str,
    remarks: Remarks,
    has_remarked: AtomicBool,
}

impl ActivationBudget {
    pub(crate) fn new(
        checkpointing: GradientCheckpointing,
        bytes: Option<u64>,
        (passes, what): (usize, &'static str),
        remarks: Remarks,
    ) -> Self {
        Self { checkpointing, bytes, passes: passes as u64, what, remarks, has_remarked: AtomicBool::new(false) }
    }

    /// Holds the activations of all layers.
    pub fn unlimited() -> Self {
        Self::new(GradientCheckpointing::Off, None, (1, "pass"), Remarks::default())
    }

    /// True if a pass with these activations goes layer by layer; the first that does so by itself leaves a remark.
    pub(crate) fn goes_by_layers(&self, activations: impl FnOnce() -> Option<Activations>) -> bool {
        let budget = match self.checkpointing {
            GradientCheckpointing::Off => None,
            GradientCheckpointing::On => return true,
            GradientCheckpointing::Auto => self.bytes,
        };
        let Some((budget, activations)) = budget.and_then(|budget| Some((budget, activations()?))) else {
            return false;
        };
        let needed = activations.whole.saturating_mul(self.passes);
        let goes = needed > budget && activations.by_layers < activations.whole;
        if goes && !self.has_remarked.swap(true, Ordering::Relaxed) {
            self.remarks.add(format!(
                "{}: gradient checkpointing is on, for about {} of activations are more than {}: each layer is computed twice",
                self.what,
                bytes_text(needed),
                bytes_text(budget)
            ));
        }
        goes
    }
}

/// Bytes that this process can still get from the system; `None` where the system does not tell.
pub fn available_bytes() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let system = free_in(&read("/proc/meminfo")?)?;
    let group = |file: &str| read(&format!("/sys/fs/cgroup/{file}"))?.trim().parse::<u64>().ok();
    let of_group = group("memory.max").zip(group("memory.current")).map(|(most, held)| most.saturating_sub(held));
    Some(of_group.map_or(system, |of_group| of_group.min(system)))
}

/// What `/proc/meminfo` says is available.
fn free_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(checkpointing: GradientCheckpointing, bytes: Option<u64>) -> (ActivationBudget, Remarks) {
        let remarks = Remarks::default();
        (ActivationBudget::new(checkpointing, bytes, (2, "training"), remarks.clone()), remarks)
    }

    #[test]
    fn a_pass_goes_by_layers_where_what_it_needs_is_more_than_there_is() {
        use GradientCheckpointing::{Auto, Off, On};
        let activations = Some(Activations { whole: 100, by_layers: 30 });
        for (checkpointing, bytes, activations, expected) in [
            (Auto, Some(199), activations, true), // two passes at once
            (Auto, Some(200), activations, false),
            (Auto, None, activations, false),
            (Auto, Some(1), None, false),
            (Auto, Some(1), Some(Activations { whole: 100, by_layers: 100 }), false), // nothing to win
            (On, Some(u64::MAX), None, true),
            (Off, Some(1), activations, false),
        ] {
            let (budget, remarks) = budget(checkpointing, bytes);
            assert_eq!(budget.goes_by_layers(|| activations), expected, "{checkpointing:?} {bytes:?}");
            assert_eq!(budget.goes_by_layers(|| activations), expected);
            let by_itself = usize::from(expected && checkpointing == Auto);
            assert_eq!(remarks.all().len(), by_itself);
            assert!(remarks.all().iter().all(|said| said.contains("training") && said.contains("200 bytes")));
        }
    }

    #[test]
    fn what_is_free_is_read_in_kilobytes() {
        let text = "MemTotal:       24000000 kB\nMemFree: 5 kB\nMemAvailable:   16777216 kB\nBuffers: 1 kB\n";
        assert_eq!(free_in(text), Some(16 << 30));
        for other in ["", "MemTotal: 3 kB", "MemAvailable: many kB", "MemAvailable: 18446744073709551615 kB"] {
            assert_eq!(free_in(other), None, "{other}");
        }
    }
}
