//! Figures of a process from `/proc`, and gauges from a metrics page.

use std::collections::BTreeMap;

use serde::Serialize;

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Open files, sockets included.
    pub files: u64,
    /// Threads.
    pub threads: u64,
}

/// Looks at a process. Linux only: elsewhere the error says that there is no `/proc`.
pub fn sample(pid: u32) -> Result<Sample, String> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let path = format!("/proc/{pid}/fd");
    let files = std::fs::read_dir(&path)
        .map_err(|e| format!("cannot read {path}: {e}"))?
        .count() as u64;
    Ok(Sample {
        rss_bytes: field("VmRSS:").unwrap_or(0) * 1024,
        files,
        threads: field("Threads:").unwrap_or(0),
    })
}

/// Every gauge of a metrics page, series of one name summed.
pub fn gauges(page: &str) -> BTreeMap<String, f64> {
    of_type(page, "gauge")
}

/// Every counter of a metrics page, likewise.
pub fn counters(page: &str) -> BTreeMap<String, f64> {
    of_type(page, "counter")
}

fn of_type(page: &str, kind: &str) -> BTreeMap<String, f64> {
    let is_one = |name: &str| page.contains(&format!("# TYPE {name} {kind}"));
    let mut out = BTreeMap::new();
    for line in page.lines().filter(|l| !l.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = series.split('{').next().unwrap_or(series);
        if let (Ok(v), true) = (value.parse::<f64>(), is_one(name)) {
            *out.entry(name.to_owned()).or_insert(0.0) += v;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_has_memory_files_and_threads() {
        let s = sample(std::process::id()).unwrap();
        assert!(s.rss_bytes > 100_000 && s.files >= 3 && s.threads >= 1, "{s:?}");
        assert!(sample(u32::MAX).unwrap_err().contains("/proc"));
    }

    #[test]
    fn gauges_are_summed_and_counters_left_out() {
        let page = "# TYPE a gauge\na{x=\"1\"} 2\na{x=\"2\"} 3\n# TYPE b counter\nb 7\n";
        assert_eq!(gauges(page), BTreeMap::from([("a".to_owned(), 5.0)]));
        assert_eq!(counters(page), BTreeMap::from([("b".to_owned(), 7.0)]));
    }
}
