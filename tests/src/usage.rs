//! What a process uses, as Linux tells it: memory and time.

use std::time::Duration;

/// Memory of the process that is resident now, in bytes.
///
/// # Panics
///
/// When there is no such process, or the system is not Linux.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    let status = read(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()).and_then(|kib| kib.parse().ok());
    1024 * kib.unwrap_or(0_u64)
}

/// Time that the process has computed so far.
///
/// # Panics
///
/// As [`resident_bytes`].
#[must_use]
pub fn cpu(pid: u32) -> Duration {
    let stat = read(pid, "stat");
    // The name, in parentheses, may hold spaces; the fields behind it hold none.
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    // Linux counts 100 ticks a second on every architecture we run on.
    Duration::from_millis((ticks(11).unwrap_or_default() + ticks(12).unwrap_or_default()) * 10)
}

fn read(pid: u32, file: &str) -> String {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        let pid = std::process::id();
        assert!(resident_bytes(pid) > 1024 * 1024);
        let before = cpu(pid);
        while cpu(pid) == before {}
    }
}
