use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::verify::{Anchor, Break, ChainFlaw, ChainVerdict, ChainVerifier, WholeChain};
use super::*;
use crate::base::secret::SecretString;
use crate::base::time::{ManualClock, Now};

const DIGEST: &str = "0123456789abcdef0123456789abcdef";

fn key(text: &str) -> Seal {
    Seal::Keyed(Arc::new(ChainKey::new(&SecretString::from(text))))
}

fn settings(path: &Path) -> AuditSettings {
    AuditSettings { path: Some(path.to_owned()), seal: key("a key"), goes_on: false, rotate: None }
}

/// One run of a process.
struct Run {
    audit: Auditor,
    thread: Option<JoinHandle<()>>,
    meters: AuditMeters,
}

impl Run {
    fn start(settings: AuditSettings) -> Self {
        Self::try_start(settings, Clock::System).unwrap()
    }

    fn try_start(settings: AuditSettings, clock: Clock) -> io::Result<Self> {
        let meters = AuditMeters::default();
        let (audit, thread) = Auditor::start(settings, DIGEST, clock, meters.clone())?;
        Ok(Self { audit, thread: Some(thread), meters })
    }

    /// Starts one in a folder, and renames its file after the first record.
    fn renamed(folder: &Path, clock: Clock) -> (Self, PathBuf, PathBuf) {
        let (path, moved) = (folder.join("audit.log"), folder.join("moved"));
        let run = Self::try_start(settings(&path), clock).unwrap();
        run.note("one");
        run.until(|run| run.meters.records.get() == 3);
        fs::rename(&path, &moved).unwrap();
        (run, path, moved)
    }

    fn note(&self, outcome: &str) {
        self.audit.note(&AuditAction { actor: "admin", what: "reload", target: &[], outcome });
    }

    /// Waits until something holds; the writer is a thread of its own.
    fn until(&self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..3000 {
            if holds(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it never holds");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.audit.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn check(paths: &[&Path], keys: &[&str]) -> Result<WholeChain, ChainVerdict> {
    let keys = keys.iter().map(|text| Arc::new(ChainKey::new(&SecretString::from(*text)))).collect();
    let mut verifier = ChainVerifier::new(keys, Vec::<Anchor>::new());
    for path in paths {
        verifier.file(&path.display().to_string(), io::Cursor::new(fs::read(path).unwrap()))?;
    }
    verifier.finish()
}

fn kinds(path: &Path) -> Vec<String> {
    let text = fs::read(path).unwrap();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| chain::RecordParts::of(line).and_then(|parts| parts.kind()).unwrap_or("-").to_owned()).collect()
}

/// Everything of the log that is beside `path`, in order.
fn files(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let mut found: Vec<PathBuf> =
        fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with(&format!("{name}.")));
    found.sort();
    found.push(path.to_owned());
    found
}

#[test]
fn a_chain_goes_on_across_restarts_and_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    for round in 1..=3 {
        let run = Run::start(settings(&path));
        run.note("ok");
        drop(run);
        let whole = check(&[&path], &["a key"]).unwrap();
        assert_eq!((whole.records, whole.first, whole.keyed), (1 + 3 * round, 1, true));
    }
    assert_eq!(kinds(&path)[..5], ["open", "start", "action", "stop", "start"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_crash_at_any_byte_is_told_of_and_nothing_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let run = Run::start(settings(&path));
    run.note("ok");
    drop(run);
    let text = fs::read(&path).unwrap();
    let last = text[..text.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for cut in last..=text.len() {
        fs::write(&path, &text[..cut]).unwrap();
        drop(Run::start(settings(&path)));
        let whole = check(&[&path], &["a key"]).unwrap_or_else(|error| panic!("cut at {cut}: {error:?}"));
        let torn = cut > last && cut < text.len() - 1;
        assert_eq!(whole.recovered, u64::from(torn), "cut at {cut}");
        assert!(fs::read(&path).unwrap().starts_with(&text[..cut]));
    }
    // Another crash, in the middle of telling of the first one.
    fs::write(&path, [&text[..last + 9], b"\n"].concat()).unwrap();
    drop(Run::start(settings(&path)));
    assert_eq!(check(&[&path], &["a key"]).unwrap().recovered, 1);
    fs::write(&path, [&text[..last + 9], b"\n{\"seq\":4,\"kind\":\"reco"].concat()).unwrap();
    drop(Run::start(settings(&path)));
    assert_eq!(check(&[&path], &["a key"]).unwrap().recovered, 1);
    assert_eq!(files(&path).len(), 1);
}

#[test]
fn an_end_that_was_altered_is_kept_and_never_taken_for_a_torn_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    drop(Run::start(settings(&path)));
    let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
    fs::write(&path, text.replace("\"kind\":\"stop\"", "\"kind\":\"stay\"")).unwrap();
    drop(Run::start(settings(&path)));
    let found = files(&path);
    assert_eq!(found.len(), 2);
    assert!(found[0].to_string_lossy().ends_with(".broken"), "{found:?}");
    assert!(matches!(check(&[&found[0]], &["a key"]), Err(ChainVerdict::Broken(broken)) if broken.line == 3));
    assert!(check(&[&path], &["a key"]).is_ok());
    // So is a file that is no audit log at all.
    fs::write(&path, "some notes\n").unwrap();
    drop(Run::start(settings(&path)));
    assert_eq!(fs::read_to_string(folder.path().join("audit.log.broken.2")).unwrap(), "some notes\n");
    assert!(check(&[&path], &["a key"]).is_ok());
}

#[test]
fn full_files_are_turned_and_are_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let run = Run::start(AuditSettings { rotate: Some(4000), ..settings(&path) });
    for n in 0..40 {
        run.note(&format!("{n} {}", "x".repeat(300)));
        run.until(|run| run.audit.0.as_ref().unwrap().state.queued.load(Ordering::Relaxed) == 0);
    }
    drop(run);
    let found = files(&path);
    assert!(found.len() > 4, "{found:?}");
    let paths: Vec<&Path> = found.iter().map(PathBuf::as_path).collect();
    let whole = check(&paths, &["a key"]).unwrap();
    assert_eq!((whole.first, whole.files), (1, found.len() as u64));
    assert!(found.iter().rev().skip(1).all(|path| fs::metadata(path).unwrap().len() < 5000));
    let without = [&paths[..2], &paths[3..]].concat();
    assert!(
        matches!(check(&without, &["a key"]), Err(ChainVerdict::Broken(broken)) if broken.flaw == ChainFlaw::Missing)
    );
    drop(Run::start(settings(&path)));
    assert!(check(&paths, &["a key"]).is_ok(), "and it goes on");
}

#[test]
fn a_file_that_was_moved_away_is_followed_by_another() {
    let folder = tempfile::tempdir().unwrap();
    // Its time stands still: the writer does not look for its file by itself.
    let clock = Clock::Manual(ManualClock::at(Now::at(0, 1_790_000_000_000)));
    let (run, path, moved) = Run::renamed(folder.path(), clock);
    run.note("two");
    run.until(|run| run.meters.records.get() == 4);
    run.audit.look();
    run.note("three");
    drop(run);
    assert_eq!(kinds(&moved), ["open", "start", "action", "action"]);
    assert_eq!(kinds(&path), ["open", "action", "stop"]);
    assert_eq!(check(&[&moved, &path], &["a key"]).unwrap().records, 7);
}

#[test]
fn a_file_that_is_renamed_is_followed_without_a_word_and_a_lost_one_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let (run, path, moved) = Run::renamed(folder.path(), Clock::System);
    run.until(|_| path.metadata().is_ok_and(|file| file.len() > 0));
    assert_eq!((run.meters.files_lost.get(), run.meters.failing.get()), (0, 0), "that is log rotation");
    run.note("two");
    run.until(|run| run.meters.records.get() == 5);
    assert_eq!(check(&[&moved, &path], &["a key"]).unwrap().records, 5);
    let kept = folder.path().join("backup");
    fs::copy(&path, &kept).unwrap();
    fs::remove_file(&path).unwrap();
    run.until(|_| path.metadata().is_ok_and(|file| file.len() > 0));
    assert_eq!((run.meters.files_lost.get(), run.audit.report().unwrap().files_lost), (1, 1));
    assert!(run.audit.ready(), "what comes is recorded");
    run.note("three");
    drop(run);
    let missing = |verdict| matches!(verdict, Err(ChainVerdict::Broken(Break { flaw: ChainFlaw::Missing, .. })));
    assert!(missing(check(&[&path], &["a key"])));
    assert!(missing(check(&[&moved, &path], &["a key"])));
    assert_eq!(check(&[&moved, &kept, &path], &["a key"]).unwrap().records, 8, "a backup mends it");
    // Another flaw is named before this one.
    let text = fs::read_to_string(&path).unwrap().replace("three", "tree");
    fs::write(&path, text).unwrap();
    assert!(
        matches!(check(&[&path], &["a key"]), Err(ChainVerdict::Broken(found)) if found.flaw == ChainFlaw::Altered)
    );
}

#[test]
fn a_log_that_is_lost_at_the_end_is_told_of_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let run = Run::start(settings(&path));
    fs::remove_file(&path).unwrap();
    let meters = run.meters.clone();
    drop(run);
    assert_eq!((kinds(&path), meters.files_lost.get()), (vec!["open".to_owned(), "stop".to_owned()], 1));
    // While no new file can be begun, nobody may call.
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let run = Run::start(settings(&inner.join("audit.log")));
    fs::remove_dir_all(&inner).unwrap();
    run.until(|run| !run.audit.ready());
    fs::create_dir(&inner).unwrap();
    run.until(|run| run.audit.ready());
    assert_eq!(run.meters.files_lost.get(), 1);
    assert!(fs::read_to_string(inner.join("audit.log")).unwrap().contains("\"why\":\"lost\""));
}

#[test]
fn another_key_or_path_begins_another_file_of_the_same_chain() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("audit.log"), folder.path().join("other.log"));
    let run = Run::start(settings(&path));
    run.audit.apply(AuditSettings { seal: key("another key"), ..settings(&path) });
    run.note("ok");
    run.audit.apply(AuditSettings { seal: key("another key"), ..settings(&other) });
    run.note("ok");
    drop(run);
    let found = files(&path);
    let paths: Vec<&Path> = found.iter().map(PathBuf::as_path).chain([other.as_path()]).collect();
    assert_eq!(paths.len(), 3);
    let whole = check(&paths, &["a key", "another key"]).unwrap();
    assert_eq!((whole.files, whole.records), (3, 7));
    // The same, found at a start.
    drop(Run::start(AuditSettings { seal: key("a third key"), ..settings(&other) }));
    let found = files(&other);
    let paths: Vec<&Path> = paths[..2].iter().copied().chain(found.iter().map(PathBuf::as_path)).collect();
    assert_eq!(check(&paths, &["a key", "another key", "a third key"]).unwrap().files, 4);
    assert!(matches!(check(&paths, &["a key"]), Err(ChainVerdict::Unjudged(_))));
}

#[test]
fn two_processes_do_not_write_to_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let run = Run::start(settings(&path));
    let second = Run::try_start(settings(&path), Clock::System).err().unwrap();
    assert!(second.to_string().contains("another process"), "{second}");
    drop(run);
    assert!(Run::try_start(settings(&path), Clock::System).is_ok());
}

#[test]
fn nothing_is_lost_while_the_disk_is_full_and_nobody_may_call() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    symlink("/dev/full", &path).unwrap();
    let run = Run::start(settings(&path));
    assert!(!run.audit.ready(), "that is known before anybody can call");
    assert_eq!(run.meters.failing.get(), 1);
    (0..5).for_each(|n| run.note(&n.to_string()));
    // The operator makes room; no restart is needed.
    fs::remove_file(&path).unwrap();
    run.until(|run| run.audit.ready());
    run.note("after");
    drop(run);
    assert_eq!(kinds(&path), [&["open", "start"][..], &["action"; 6], &["stop"]].concat());
    assert!(check(&[&path], &["a key"]).is_ok());
}

#[test]
fn what_is_lost_while_calls_go_on_is_counted_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    symlink("/dev/full", &path).unwrap();
    let run = Run::start(AuditSettings { goes_on: true, ..settings(&path) });
    assert!(run.audit.ready() && run.meters.failing.get() == 1);
    let long = "x".repeat(4 << 10);
    (0..2200).for_each(|_| run.note(&long));
    let lost = run.meters.lost.get();
    assert!((100..=400).contains(&lost), "{lost}");
    fs::remove_file(&path).unwrap();
    run.until(|run| run.meters.failing.get() == 0);
    drop(run);
    let text = fs::read_to_string(&path).unwrap();
    let gaps: Vec<&str> = text.lines().filter(|line| line.contains("\"kind\":\"gap\"")).collect();
    assert_eq!(gaps.len(), 1);
    assert!(gaps[0].contains(&format!("\"lost\":{lost}")), "{}", gaps[0]);
    assert_eq!(text.lines().filter(|line| line.contains("\"kind\":\"action\"")).count() as u64, 2200 - lost);
    assert_eq!(check(&[&path], &["a key"]).unwrap().lost, lost);
}

#[test]
fn without_a_log_all_is_allowed_and_nothing_happens() {
    let audit = Auditor::off();
    assert!(audit.ready());
    audit.note(&AuditAction { actor: "admin", what: "reload", target: &[], outcome: "ok" });
    audit.look();
    audit.stop();
    assert!(audit.lines().is_none());
}
