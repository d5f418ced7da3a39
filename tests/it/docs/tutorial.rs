//! The tutorial, run as it is printed: in a folder and a network of its own, in one shell, with the program on the PATH.
//!
//! A block `sh` is run; a block `text` behind it is what it prints: each line stands in the output, in this order, with
//! anything in the place of `…`. A marker `<!-- test: … -->` above a block of commands says what a reader would do without
//! being told: `wait for PLACE` (a file, or host:port), that the last command `fails`, or why it is `not run: …`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use super::markdown::{Fence, page};

/// Blocks of commands that are not run, and the reasons are in the pages.
const NOT_RUN: usize = 2;

/// Opens the output of a block. Its number follows, and its end the exit code.
const OPENS: &str = "=== block ";
const ENDS: &str = "=== ended ";

/// The shell's wait for a file or for a port on which something listens.
fn wait(place: &str) -> String {
    let there = match place.split_once(':') {
        Some((host, port)) => format!("(exec 3<>/dev/tcp/{host}/{port}) 2>/dev/null"),
        None => format!("test -s {place}"),
    };
    format!("for try in $(seq 300); do {there} && break; sleep 0.1; done\n")
}

fn script(fences: &[Fence]) -> String {
    let mut script = String::new();
    for (number, fence) in fences.iter().enumerate().filter(|(_, fence)| fence.info == "sh") {
        let marker = fence.marker.as_deref().unwrap_or_default();
        if marker.starts_with("not run: ") {
            continue;
        }
        for word in marker.split(", ") {
            match word.strip_prefix("wait for ") {
                Some(place) => script += &wait(place),
                None => assert!(["", "fails"].contains(&word), "line {}: unknown marker `{word}`", fence.line),
            }
        }
        let _ = writeln!(script, "echo '{OPENS}{number}'\n{}code=$?; echo; echo \"{ENDS}$code\"", fence.text);
    }
    script + "kill $(jobs -p) 2>/dev/null\nwait\n"
}

/// One blank for many, so that columns may be printed narrower.
fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a line is as printed, with anything in the place of `…`.
fn is_like(printed: &str, line: &str) -> bool {
    let Some((first, others)) = printed.split_once('…') else { return printed == line };
    let (between, last) = others.rsplit_once('…').unwrap_or(("", others));
    let Some(mut rest) = line.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    for part in between.split('…') {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    true
}

#[test]
fn a_printed_line_may_leave_something_out() {
    assert!(is_like("a … c", "a bb c c") && is_like("a…b…c", "axbxcc") && is_like("a…", "abc") && is_like("…", ""));
    assert!(!is_like("a … c", "a bb d") && !is_like("a", "ab") && !is_like("b…", "abc"));
}

#[test]
fn the_tutorial_goes_as_printed() {
    let fences = page("docs/tutorial.md").fences();
    let run = fences.iter().filter(|fence| fence.info == "sh").count();
    let marked = |fence: &&Fence| fence.marker.as_deref().is_some_and(|marker| marker.starts_with("not run: "));
    assert!(run >= 8, "{run}");
    assert_eq!(fences.iter().filter(marked).count(), NOT_RUN);

    let folder = tempfile::tempdir().expect("a folder");
    // As at a terminal, where curl shows no progress of what it prints.
    let home = tempfile::tempdir().expect("a folder");
    fs::write(home.path().join(".curlrc"), "silent\nshow-error\n").expect("written");
    let programs = Path::new(env!("CARGO_BIN_EXE_countersign")).parent().expect("a folder").display().to_string();
    let path = format!("{programs}:{}", env::var("PATH").unwrap_or_default());
    let command = format!("ip link set lo up && exec 2>&1 && {{\n{}}}", script(&fences));
    let ended = Command::new("unshare")
        .args(["--map-root-user", "--net", "--pid", "--fork", "--kill-child", "timeout", "300", "bash", "-c"])
        .arg(&command)
        .env("PATH", path)
        .env("HOME", home.path())
        .env_remove("COUNTERSIGN_CONFIG")
        .env_remove("COUNTERSIGN_ADMIN_TOKEN")
        .current_dir(folder.path())
        .output()
        .expect("unshare runs (package util-linux)");
    let told = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{}\n{told}", ended.status);

    let mut output = Vec::new();
    for (number, fence) in fences.iter().enumerate() {
        match fence.info.as_str() {
            "sh" if marked(&fence) => output.clear(),
            "sh" => {
                let (_, own) = told.split_once(&format!("{OPENS}{number}\n")).unwrap_or_else(|| panic!("{told}"));
                let (own, code) = own.split_once(ENDS).expect("the end of a block");
                let code = code.lines().next().unwrap_or_default();
                let fails = fence.marker.as_deref().is_some_and(|marker| marker.contains("fails"));
                assert!((code != "0") == fails, "line {}: exit code {code}\n{own}", fence.line);
                assert!(!own.contains("command not found"), "line {}: {own}", fence.line);
                output = own.lines().map(squeezed).collect();
            }
            "text" => {
                let mut lines = output.iter();
                for printed in fence.text.lines().map(squeezed).filter(|line| !line.is_empty()) {
                    let found = lines.any(|line| is_like(&printed, line));
                    assert!(found, "line {}: `{printed}` is not in\n{}", fence.line, output.join("\n"));
                }
            }
            other => panic!("line {}: a block of {other}", fence.line),
        }
    }
}
