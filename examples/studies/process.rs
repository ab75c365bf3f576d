//! What the system says about this process.

/// Largest resident memory so far, in bytes.
pub fn peak_resident_bytes() -> Option<usize> {
    status_bytes("VmHWM")
}

/// Resident memory now, in bytes.
pub fn resident_bytes() -> Option<usize> {
    status_bytes("VmRSS")
}

/// Forgets the largest resident memory so far; nothing happens where the system does not know how.
pub fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").ok();
}

fn status_bytes(field: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Seconds that all threads have run; 0 where the system does not tell.
pub fn cpu_seconds() -> f64 {
    /// Linux counts in hundredths of a second.
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // the name of the program may hold blanks
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS
}
