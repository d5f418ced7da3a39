//! Memory of this process, latencies, and how long its thread did nothing else.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::Failure;

/// Resident memory of this process in MiB: now, and the most since [`forget_peak`].
pub fn resident() -> Result<(f64, f64), Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let read = |name: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
    };
    read("VmRSS:").zip(read("VmHWM:")).ok_or_else(|| "no memory in /proc/self/status".into())
}

/// Lets the peak start anew.
pub fn forget_peak() -> Result<(), Failure> {
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}

/// The value below which `part` of them are; zero if there are none.
pub fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Notes how long a task that wants to run each millisecond was kept waiting.
pub struct Watch(Rc<Cell<Duration>>, JoinHandle<()>);

impl Watch {
    pub fn start() -> Self {
        const STEP: Duration = Duration::from_millis(1);
        let longest = Rc::new(Cell::new(Duration::ZERO));
        let noted = longest.clone();
        let task = tokio::task::spawn_local(async move {
            loop {
                let asleep = Instant::now();
                tokio::time::sleep(STEP).await;
                noted.set(noted.get().max(asleep.elapsed().saturating_sub(STEP)));
            }
        });
        Self(longest, task)
    }

    /// The longest wait.
    pub async fn end(self) -> Duration {
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.1.abort();
        self.0.get()
    }
}
