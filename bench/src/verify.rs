//! The gate before any measurement: every contender does the whole job.

use std::time::Duration;

use serde_json::Value;

use crate::contender::{Contender, Door, Running};
use crate::stage::{Stage, count};
use crate::{Failure, job};

/// One kind of call, as the generator makes it.
struct Call {
    what: &'static str,
    options: &'static str,
    /// Connections to the bank that it may take.
    connections: u64,
}

const fn call(what: &'static str, options: &'static str, connections: u64) -> Call {
    Call { what, options, connections }
}

const GATEWAY: &[Call] = &[
    call("GET", "--mode keep --connections 1", 4),
    call("POST", "--mode keep --connections 1 --post 1024", 4),
    call("h2", "--mode h2 --connections 1 --streams 2", 4),
    call("a new connection for each request", "--mode new --connections 1", 4),
    call("a resumed connection for each request", "--mode resumed --connections 1", 4),
];

const FORWARD: &[Call] = &[
    call("GET", "--mode keep --connections 1", 4),
    call("POST", "--mode keep --connections 1 --post 1024", 4),
    // mitmproxy takes one for each tunnel; the tables say how many each takes.
    call("a new tunnel for each request", "--mode new --connections 1", u64::MAX),
    call("many tunnels", "--mode keep --connections 16", u64::MAX),
];

/// Credentials that nobody may accept: another key's.
const WRONG_BASIC: &str = "YmVuY2g6d3Jvbmcta2V5";

/// Checks the headers (by the origin), connection reuse, bodies both ways, h2, and that an upstream whose certificate is
/// of an unknown CA or for another name gets nothing; of a forward proxy also its certificates (by the generator, which
/// trusts no other CA then) and that the wrong credentials get no tunnel. What was checked, in words.
pub fn verify(stage: &Stage, contender: &Contender, door: Door) -> Result<&'static str, Failure> {
    let name = &contender.name;
    let fail = |what: String| -> Failure { format!("{name} does not do the job: {what}").into() };
    let running = contender.start(stage, door, stage.origin)?;
    let (list, checked) = match door {
        Door::Gateway => (GATEWAY, "headers, reuse, h2, bodies, upstream verified"),
        Door::Forward => (FORWARD, "credentials, certificates, headers, reuse, bodies, upstream verified"),
    };
    for Call { what, options, connections } in list {
        let (seen, told) = calls(stage, &running, options)?;
        let (requests, violations) = (count(&seen, "requests"), count(&seen, "violations"));
        if count(&told, "errors") > 0 || count(&told, "done") == 0 || requests == 0 {
            return Err(fail(format!("{what}: {requests} requests, answers {told}")));
        }
        if violations > 0 {
            return Err(fail(format!("{what}: {violations} violations, first: {}", seen["first"])));
        }
        let per = count(&told, "bytes") as f64 / count(&told, "done").max(1) as f64;
        if (per - job::ANSWER_BYTES as f64).abs() > 0.5 {
            return Err(fail(format!("{what}: answers of {per} bytes")));
        }
        if count(&seen, "connections") > *connections {
            return Err(fail(format!("{what}: {} upstream connections", count(&seen, "connections"))));
        }
    }
    let (_, told) = calls(stage, &running, &format!("--mode keep --connections 1 --seconds 1 --path {}", job::BIG))?;
    if count(&told, "done") == 0 || count(&told, "bytes") != count(&told, "done") * job::BIG_BYTES as u64 {
        return Err(fail(format!("the large download: {told}")));
    }
    if door == Door::Forward {
        let (seen, told) = calls(stage, &running, &format!("--mode new --connections 1 --basic {WRONG_BASIC}"))?;
        if count(&seen, "requests") > 0 || count(&told, "done") > 0 || count(&told, "errors") == 0 {
            return Err(fail("it opens a tunnel for the wrong credentials".to_owned()));
        }
    }
    drop(running);
    for (what, port) in [("of an unknown CA", stage.stranger), ("for another name", stage.other)] {
        let running = contender.start(stage, door, port)?;
        // HAProxy tries three times, a second apart, before it answers with its 503.
        let (seen, told) = calls(stage, &running, "--mode keep --connections 1 --seconds 4.5")?;
        if count(&seen, "betrayed") > 0 || count(&told, "done") > 0 || count(&told, "errors") == 0 {
            return Err(fail(format!("it accepts an upstream with a certificate {what}")));
        }
    }
    Ok(checked)
}

/// Calls for a moment; for longer when there is neither answer nor error, as on a busy machine.
fn calls(stage: &Stage, running: &Running, options: &str) -> Result<(Value, Value), Failure> {
    let (seen, told) = calls_for(stage, running, options, 0.4)?;
    if count(&told, "done") + count(&told, "errors") > 0 {
        return Ok((seen, told));
    }
    calls_for(stage, running, options, 4.0)
}

fn calls_for(stage: &Stage, running: &Running, options: &str, seconds: f64) -> Result<(Value, Value), Failure> {
    std::thread::sleep(Duration::from_millis(50));
    stage.reset()?;
    let mut load = running.load(stage, &format!("--threads 1 --warm 0.1 --seconds {seconds} {options}"))?;
    load.line()?;
    load.line()?;
    let told = serde_json::from_str(&load.line()?)?;
    load.wait()?;
    Ok((stage.seen()?, told))
}
