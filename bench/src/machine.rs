//! The machine of a run, and the time that its host took away.

use std::fs;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

/// The circumstances that figures depend on.
pub struct Machine {
    pub date: String,
    pub cores: usize,
    pub processor: String,
    pub kernel: String,
    /// Commit of the sources beside this package; `?` outside of a repository.
    pub commit: String,
}

impl Machine {
    /// Looks around.
    pub fn look() -> Self {
        let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processors: Vec<&str> = information
            .lines()
            .filter_map(|line| line.strip_prefix("model name"))
            .map(|rest| rest.trim_start_matches([' ', '\t', ':']))
            .collect();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            date: said("date", &["-u", "+%Y-%m-%dT%H:%MZ"]),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: processors.first().map_or("?", |name| *name).to_owned(),
            kernel: kernel.trim().to_owned(),
            commit: said("git", &["rev-parse", "--short", "HEAD"]),
        }
    }

    /// Writes one line for the head of a report.
    pub fn line(&self) -> String {
        format!(
            "{} · {} cores, {} · Linux {} · commit {}",
            self.date, self.cores, self.processor, self.kernel, self.commit
        )
    }

    /// Tells the machine to programs.
    pub fn json(&self) -> Value {
        json!({
            "cores": self.cores,
            "processor": self.processor,
            "kernel": self.kernel,
        })
    }
}

/// Runs a small program for its output; `?` when it fails.
fn said(program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "?".to_owned(),
    }
}

/// Reads the load average over 1, 5 and 15 minutes.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// A reading of the steal column for groups of cores.
pub struct Steal {
    at: Instant,
    ticks: Vec<f64>,
}

impl Steal {
    /// Reads it now.
    pub fn read(groups: &[Vec<usize>]) -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self { at: Instant::now(), ticks: groups.iter().map(|cores| ticks(&text, cores)).collect() }
    }

    /// Computes the stolen share of the time since an earlier reading, of the group that lost most.
    pub fn since(&self, earlier: &Self) -> f64 {
        let took = self.at.duration_since(earlier.at).as_secs_f64().max(1e-3) * crate::process::TICKS;
        let lost = self.ticks.iter().zip(&earlier.ticks).map(|(now, before)| (now - before) / took);
        lost.fold(0.0, f64::max)
    }
}

/// Reads stolen ticks from `/proc/stat`, the mean of these cores.
fn ticks(stat: &str, cores: &[usize]) -> f64 {
    let stolen = |core: &usize| -> f64 {
        let name = format!("cpu{core}");
        let fields = stat.lines().map(str::split_whitespace);
        let line = fields.filter_map(|mut fields| (fields.next() == Some(&name)).then_some(fields)).next();
        line.and_then(|mut fields| fields.nth(7)).and_then(|text| text.parse().ok()).unwrap_or(0.0)
    };
    cores.iter().map(stolen).sum::<f64>() / cores.len().max(1) as f64
}

#[cfg(test)]
mod checks {
    use super::*;

    const STAT: &str =
        "cpu  9 9 9 9 9 9 9 90 0 0\ncpu0 1 2 3 4 5 6 7 10 0 0\ncpu1 1 2 3 4 5 6 7 30 0 0\ncpu10 1 2 3 4 5 6 7 50 0 0\n";

    #[test]
    fn stolen_ticks_are_those_of_the_cores_named() {
        assert_eq!(ticks(STAT, &[1]), 30.0);
        assert_eq!(ticks(STAT, &[0, 10]), 30.0);
        assert_eq!(ticks(STAT, &[7]), 0.0);
    }

    #[test]
    fn the_group_that_lost_most_counts() {
        let at = Instant::now();
        let before = Steal { at, ticks: vec![10.0, 20.0] };
        let later = Steal { at: at + std::time::Duration::from_secs(1), ticks: vec![11.0, 25.0] };
        assert!((later.since(&before) - 0.05).abs() < 1e-9);
    }
}
