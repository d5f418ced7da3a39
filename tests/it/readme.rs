//! README's own text: its commands do what it says, as printed, in a fresh folder.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use countersign::base::time::Stopwatch;

use crate::client::PATIENCE;
use crate::commands::Ending;

/// Commands that build the program or run the whole test suite.
const SKIPPED: [&str; 3] = ["cargo ", "tests/run", "bench/run"];
/// Commands that go on until they are stopped, with what they say on their way when they are ready.
const LASTING: [(&str, &str); 2] = [("countersign sim", "In another terminal"), ("countersign run", "admin listening")];

/// The commands in blocks of shell code, in order, without their comments.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_shell = false;
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            is_shell = ["console", "sh", "shell", "bash"].contains(&language.trim());
            continue;
        }
        let typed = line.split(" # ").next().unwrap_or_default().trim().trim_start_matches("$ ");
        if is_shell && !typed.is_empty() && !typed.starts_with('#') {
            found.push(typed.to_owned());
        }
    }
    found
}

/// The shell with a command as it is printed, in a folder.
fn shell(line: &str, folder: &Path) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_countersign")).parent().expect("it is in a folder");
    let before = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).env("PATH", format!("{}:{before}", program.display()));
    command.env_remove("COUNTERSIGN_CONFIG").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs a command to its end. Returns its exit code and everything that it wrote.
fn ended(line: &str, folder: &Path) -> (i32, String) {
    let log = folder.join("ended.log");
    let file = fs::File::create(&log).expect("a file");
    let mut command = shell(line, folder);
    command.stdout(file.try_clone().expect("the same file")).stderr(file);
    let mut child = Ending(command.spawn().expect("a shell"));
    let watch = Stopwatch::start();
    loop {
        if let Some(status) = child.0.try_wait().expect("it can be asked") {
            return (status.code().unwrap_or(-1), fs::read_to_string(&log).expect("text"));
        }
        assert!(watch.elapsed() < PATIENCE, "`{line}` does not end");
        sleep(Duration::from_millis(20));
    }
}

/// Starts a command that goes on, and waits until it says so. The error is everything that it wrote before it ended.
fn begun(line: &str, ready: &str, folder: &Path) -> Result<Ending, String> {
    let log = folder.join("begun.log");
    let file = fs::File::create(&log).expect("a file");
    let mut command = shell(&format!("exec {line}"), folder);
    command.stdout(file.try_clone().expect("the same file")).stderr(file);
    let mut child = Ending(command.spawn().expect("a shell"));
    let watch = Stopwatch::start();
    loop {
        let mut text = String::new();
        fs::File::open(&log).expect("it is there").read_to_string(&mut text).expect("text");
        if text.contains(ready) {
            return Ok(child);
        }
        if child.0.try_wait().expect("it can be asked").is_some() {
            return Err(text);
        }
        assert!(watch.elapsed() < PATIENCE, "`{line}` does not say `{ready}`: {text}");
        sleep(Duration::from_millis(20));
    }
}

/// Does everything that the text says, in a fresh folder. `None`: another process took an address meanwhile.
fn done_as_printed(lines: &[String]) -> Option<usize> {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut lasting, mut count) = (Vec::new(), 0);
    for line in lines.iter().filter(|line| !SKIPPED.iter().any(|skipped| line.starts_with(skipped))) {
        count += 1;
        match LASTING.iter().find(|(command, _)| line.starts_with(command)) {
            // Its output is read here, and no fixed time is waited for.
            Some((_, ready)) => {
                match begun(line.split(['&', '>']).next().unwrap_or(line).trim_end_matches('2'), ready, folder.path()) {
                    Ok(child) => lasting.push(child),
                    Err(why) if why.contains("Address already in use") || why.contains("taken") => return None,
                    Err(why) => panic!("`{line}` has ended: {why}"),
                }
            }
            None => {
                let (code, told) = ended(line, folder.path());
                assert_eq!(code, 0, "`{line}`: {told}");
                assert!(line.starts_with("export ") || !told.trim().is_empty(), "`{line}` says nothing");
            }
        }
    }
    Some(count)
}

#[test]
fn the_commands_of_the_readme_work_as_printed() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the README");
    let lines = commands(&text);
    // The simulators' config has the ports that are free when it is written.
    let count = (0..3).find_map(|_| done_as_printed(&lines)).expect("addresses that stay free");
    assert!(count >= 5, "only {count} of {lines:?}");
}

/// The first step with a real bank, which stands in the running text.
#[test]
fn the_first_config_of_the_readme_is_written_and_lacks_only_what_check_tells() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the README");
    let mut inline = text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("countersign init "));
    let line = inline.next().expect("the README has a `countersign init`");
    let folder = tempfile::tempdir().expect("a folder");
    let (code, told) = ended(line, folder.path());
    assert_eq!(code, 0, "{told}");
    let made = line.split("--dir ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a folder");
    let (code, told) = ended("countersign check", &folder.path().join(made));
    assert!(code == 1 && told.contains("is not set"), "{told}");
}
