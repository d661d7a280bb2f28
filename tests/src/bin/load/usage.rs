//! What processes take of the machine, as Linux tells it in /proc/PID.

use std::fs;

use anyhow::{Context, Result};

/// The CPU time that a process has used, and that its children had used when they ended.
pub(crate) fn cpu_s(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    // utime, stime, cutime and cstime are the 14th to the 17th field; the name was the
    // second.
    let ticks = fields.split_whitespace().skip(11).take(4);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    // Linux counts in hundredths of a second on every architecture.
    Ok(ticks as f64 / 100.0)
}

/// The memory that a process holds now.
pub(crate) fn resident_bytes(process: u32) -> Result<u64> {
    bytes(process, "status", "VmRSS:")
}

/// The most memory that a process has held.
pub(crate) fn peak_bytes(process: u32) -> Result<u64> {
    bytes(process, "status", "VmHWM:")
}

/// The memory that a process holds now, with its share of what it shares with others.
pub(crate) fn proportional_bytes(process: u32) -> Result<u64> {
    bytes(process, "smaps_rollup", "Pss:")
}

fn bytes(process: u32, file: &str, field: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|it| it.split_whitespace().next());
    let kib: u64 = kib.context("no such field")?.parse()?;
    Ok(kib << 10)
}
