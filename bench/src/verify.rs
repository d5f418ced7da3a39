//! The gate before any measurement: every contender does the whole job.

use std::time::Duration;

use serde_json::Value;

use crate::contender::Contender;
use crate::stage::{Stage, count};
use crate::{Failure, job};

/// Checks the headers (by the origin), connection reuse, bodies both ways, h2, and that an upstream whose certificate is
/// of an unknown CA or for another name gets nothing.
pub fn verify(stage: &Stage, contender: &Contender) -> Result<(), Failure> {
    let name = &contender.name;
    let fail = |what: String| -> Failure { format!("{name} does not do the job: {what}").into() };
    let running = contender.start(stage, stage.origin)?;
    for (what, options) in [
        ("GET", "--mode keep --connections 1"),
        ("POST", "--mode keep --connections 1 --post 1024"),
        ("h2", "--mode h2 --connections 1 --streams 2"),
        ("a new connection for each request", "--mode new --connections 1"),
        ("a resumed connection for each request", "--mode resumed --connections 1"),
    ] {
        let (seen, told) = calls(stage, running.port, options)?;
        let (requests, violations) = (count(&seen, "requests"), count(&seen, "violations"));
        if count(&told, "errors") > 0 || requests == 0 {
            return Err(fail(format!("{what}: {requests} requests, answers {told}")));
        }
        if violations > 0 {
            return Err(fail(format!("{what}: {violations} violations, first: {}", seen["first"])));
        }
        let per = count(&told, "bytes") as f64 / count(&told, "done").max(1) as f64;
        if (per - job::ANSWER_BYTES as f64).abs() > 0.5 {
            return Err(fail(format!("{what}: answers of {per} bytes")));
        }
        if count(&seen, "connections") > 4 {
            return Err(fail(format!("{what}: {} upstream connections", count(&seen, "connections"))));
        }
    }
    let (_, told) = calls(stage, running.port, &format!("--mode keep --connections 1 --path {}", job::BIG))?;
    if count(&told, "done") == 0 || count(&told, "bytes") != count(&told, "done") * job::BIG_BYTES as u64 {
        return Err(fail(format!("the large download: {told}")));
    }
    drop(running);
    for (what, port) in [("of an unknown CA", stage.stranger), ("for another name", stage.other)] {
        let running = contender.start(stage, port)?;
        // HAProxy tries three times, a second apart, before it answers with its 503.
        let (seen, told) = calls(stage, running.port, "--mode keep --connections 1 --seconds 4.5")?;
        if count(&seen, "betrayed") > 0 || count(&told, "done") > 0 || count(&told, "errors") == 0 {
            return Err(fail(format!("it accepts an upstream with a certificate {what}")));
        }
    }
    Ok(())
}

fn calls(stage: &Stage, port: u16, options: &str) -> Result<(Value, Value), Failure> {
    std::thread::sleep(Duration::from_millis(50));
    stage.reset()?;
    let mut load = stage.load(port, &format!("--threads 1 --warm 0.1 --seconds 0.4 {options}"))?;
    load.line()?;
    load.line()?;
    let told = serde_json::from_str(&load.line()?)?;
    load.wait()?;
    Ok((stage.seen()?, told))
}
