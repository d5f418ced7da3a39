//! The access log of countersign: what it tells of the time that calls took by its own clock.
//!
//! A generator that shares its core with the bank is late with its readings; the proxy, on a core of its own, is not.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde_json::Value;

use crate::Failure;

/// Where the log ends now, in bytes.
pub fn end(file: &Path) -> Result<u64, Failure> {
    Ok(std::fs::metadata(file)?.len())
}

/// The durations of the calls on a route that were logged behind this place, in µs and in order: from a request's head to the
/// end of its answer.
pub fn durations(file: &Path, from: u64, route: &str) -> Result<Vec<f64>, Failure> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(from))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(read(&text, route))
}

fn read(text: &str, route: &str) -> Vec<f64> {
    // The last line may not be whole yet.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines = lines.filter(|line| line.get("http.route").and_then(Value::as_str) == Some(route));
    let millis = lines.filter_map(|line| line.get("duration_ms").and_then(Value::as_f64));
    let mut micros: Vec<f64> = millis.map(|millis| millis * 1000.0).collect();
    micros.sort_by(f64::total_cmp);
    micros
}

/// The value where this share of the values ends, of values in order; 0 without values.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_another_route_and_lines_that_are_not_whole_do_not_count() {
        let text = "{\"http.route\":\"scb\",\"duration_ms\":2.5}\n{\"http.route\":\"signed\",\"duration_ms\":9}\n\
                    {\"http.route\":\"scb\",\"duration_ms\":0.25}\n{\"http.route\":\"scb\",\"dura";
        assert_eq!(read(text, "scb"), [250.0, 2500.0]);
    }

    #[test]
    fn quantiles_are_values_of_their_rank() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99)), (100.0, 198.0));
        assert_eq!(quantile(&[], 0.99), 0.0);
    }
}
