//! `countersign profiles`: the built-in ones, and the tests of any.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{complain, print};
use crate::base::counted::counted;
use crate::provider::{Basis, DeclaredSetting, LintFinding, Profile, fixture};
use crate::syntax::{Diagnostics, SourceText, suggest};

/// Lists the built-in profiles, or prints one.
pub fn show(name: Option<&str>, as_json: bool) -> ExitCode {
    let Some(name) = name else {
        print(&if as_json { format!("{:#}\n", list_json()) } else { list_profiles() });
        return ExitCode::SUCCESS;
    };
    match (Profile::builtin_text(name), Profile::builtin(name)) {
        (Some(text), Some(profile)) => {
            print(&if as_json { format!("{:#}\n", one_json(&profile, text)) } else { text.to_owned() });
            ExitCode::SUCCESS
        }
        (_, _) => {
            complain(&format!("no built-in profile is called `{}`; {}", name.escape_debug(), nearest(name)));
            ExitCode::from(2)
        }
    }
}

fn nearest(name: &str) -> String {
    let known = Profile::builtin_names();
    match suggest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", known.join(", ")),
    }
}

fn builtin() -> Vec<Arc<Profile>> {
    Profile::builtin_names().into_iter().filter_map(Profile::builtin).collect()
}

fn list_profiles() -> String {
    let mut text = String::new();
    for profile in builtin() {
        let open = match profile.unconfirmed().len() {
            0 => String::new(),
            1 => " (1 fact unconfirmed)".to_owned(),
            open => format!(" ({open} facts unconfirmed)"),
        };
        let provenance = profile.provenance();
        let basis = provenance.basis.map_or("-", Basis::as_str);
        let version = if provenance.version.is_empty() { "-" } else { &provenance.version };
        let _ = writeln!(text, "{:<18} {version:<11} {basis:<12} {}{open}", profile.name(), profile.title());
    }
    text + "\n`countersign profiles NAME` prints one: a starting point for your own.\n"
}

fn list_json() -> Value {
    let one = |profile: Arc<Profile>| {
        let mut value = json!({ "name": profile.name(), "title": profile.title() });
        add_provenance(&mut value, &profile);
        value
    };
    json!({ "profiles": builtin().into_iter().map(one).collect::<Vec<_>>() })
}

/// Adds where the facts of a profile come from, and which of them no source confirms.
fn add_provenance(value: &mut Value, profile: &Profile) {
    let provenance = profile.provenance();
    value["version"] = json!(provenance.version);
    value["basis"] = json!(provenance.basis.map(Basis::as_str));
    value["sources"] = json!(provenance.sources);
    value["unconfirmed"] = json!(profile.unconfirmed());
}

/// Returns `kind` as a profile writes it.
const fn kind(setting: &DeclaredSetting) -> &'static str {
    match (setting.key, setting.public_key, setting.table) {
        (true, _, _) => "key",
        (_, true, _) => "public-key",
        (_, _, true) => "table",
        (false, false, false) => "text",
    }
}

fn one_json(profile: &Profile, text: &str) -> Value {
    let setting = |setting: DeclaredSetting| {
        json!({
            "name": &*setting.name,
            "description": setting.description,
            "kind": kind(&setting),
            "secret": setting.secret,
            "required": setting.required,
            "pattern": setting.pattern,
            "default": setting.default,
        })
    };
    let mut value = json!({
        "name": profile.name(),
        "title": profile.title(),
        "environments": profile.environments(),
        "coexistence": profile.coexistence().as_str(),
        "settings": profile.declared().into_iter().map(setting).collect::<Vec<_>>(),
        "text": text,
    });
    add_provenance(&mut value, profile);
    value
}

/// Plays the conversations of a profile: those that are named, or those that lie where they belong. 0: all went as
/// written, 1: some did not, or the profile has mistakes, 2: there is nothing to play.
pub fn test(profile: &str, conversations: &[PathBuf], as_json: bool) -> ExitCode {
    match play_all(profile, conversations, as_json) {
        Ok(played) => {
            let failed = played.iter().filter(|(_, wrong)| !wrong.is_empty()).count();
            print(&if as_json { outcome_json(&played) } else { outcome(&played, failed) });
            ExitCode::from(u8::from(failed > 0))
        }
        Err((why, status)) => {
            complain(&why);
            ExitCode::from(status)
        }
    }
}

/// Looks a profile through. 0: nothing was found that its notes do not explain, 1: something was, or the profile has
/// mistakes, 2: it cannot be read.
pub fn lint(profile: &str, as_json: bool) -> ExitCode {
    match find(profile, as_json) {
        Ok((profile, _)) => {
            let found = profile.lint();
            let open = found.iter().filter(|finding| finding.reason.is_none()).count();
            print(&if as_json { findings_json(&found, open) } else { findings(&found, open) });
            ExitCode::from(u8::from(open > 0))
        }
        Err((why, status)) => {
            complain(&why);
            ExitCode::from(status)
        }
    }
}

fn findings(found: &[LintFinding], open: usize) -> String {
    let mut text = String::new();
    for LintFinding { place, about, reason } in found {
        let _ = match reason {
            None => writeln!(text, "{:<8} {place}: {about}", "finding"),
            Some(reason) => writeln!(text, "{:<8} {place}: {about}\n         its note: {reason}", "noted"),
        };
    }
    let explained = found.len() - open;
    text + &format!("\n{}, and {explained} that notes explain.\n", counted(open, "finding"))
}

fn findings_json(found: &[LintFinding], open: usize) -> String {
    let one =
        |LintFinding { place, about, reason }: &LintFinding| json!({ "place": place, "about": about, "note": reason });
    format!("{:#}\n", json!({ "ok": open == 0, "findings": found.iter().map(one).collect::<Vec<_>>() }))
}

/// Folder of the built-in profiles' conversations, in a checkout.
const FIXTURES: &str = "tests/fixtures/provider";

type Played = Vec<(PathBuf, Vec<String>)>;

fn play_all(profile: &str, named: &[PathBuf], as_json: bool) -> Result<Played, (String, u8)> {
    let (profile, home) = find(profile, as_json)?;
    let is_builtin = home.starts_with(FIXTURES);
    let files = match named {
        [] => lying_in(&home).map_err(|(why, status)| match is_builtin {
            true => {
                (format!("{why}; those of built-in profiles are in a checkout of countersign: run this there"), status)
            }
            false => (why, status),
        })?,
        named => named.to_vec(),
    };
    let mut played = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(|error| (unreadable(&file, &error), 2))?;
        let wrong = fixture::play(&file.display().to_string(), &text, Some(&profile));
        played.push((file, wrong));
    }
    Ok(played)
}

/// The profile, and the folder in which its conversations belong.
pub(super) fn find(profile: &str, as_json: bool) -> Result<(Arc<Profile>, PathBuf), (String, u8)> {
    if let Some(builtin) = Profile::builtin(profile) {
        return Ok((builtin, Path::new(FIXTURES).join(profile)));
    }
    let path = Path::new(profile);
    if !profile.contains('/') && path.extension().is_none() {
        let why = format!("no built-in profile is called `{}`; {}", profile.escape_debug(), nearest(profile));
        return Err((why + "; a file is named by its path", 2));
    }
    let text = fs::read_to_string(path).map_err(|error| (unreadable(path, &error), 2))?;
    let report = Diagnostics::new();
    let parsed = Profile::parse(&SourceText::new(profile, text), &report);
    parsed.map(|parsed| (parsed, path.with_extension(""))).ok_or_else(|| {
        let found = report.into_diagnostics();
        let shown = found.iter().map(|one| if as_json { one.one_line() } else { one.render(false) });
        let shown: Vec<String> = shown.collect();
        (format!("{profile} has mistakes:\n\n{}", shown.join("\n\n")), 1)
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

/// The TOML files of a folder, sorted.
fn lying_in(folder: &Path) -> Result<Vec<PathBuf>, (String, u8)> {
    let none = || {
        let shown = folder.display();
        (format!("there are no conversations in {shown}/; put some there (*.toml), or name them after the profile"), 2)
    };
    let entries = fs::read_dir(folder).map_err(|_| none())?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    if files.is_empty() { Err(none()) } else { Ok(files) }
}

fn outcome(played: &Played, failed: usize) -> String {
    let mut text = String::new();
    for (file, wrong) in played {
        let _ = writeln!(text, "{:<6} {}", if wrong.is_empty() { "ok" } else { "FAILED" }, file.display());
        for line in wrong.iter().flat_map(|wrong| wrong.lines()) {
            let _ = writeln!(text, "         {line}");
        }
    }
    let _ = match failed {
        0 => writeln!(text, "\nAll {} went as written.", played.len()),
        failed => writeln!(text, "\n{failed} of {} did not go as written.", played.len()),
    };
    text
}

fn outcome_json(played: &Played) -> String {
    let one = |(file, wrong): &(PathBuf, Vec<String>)| json!({ "file": file.display().to_string(), "ok": wrong.is_empty(), "wrong": wrong });
    let ok = played.iter().all(|(_, wrong)| wrong.is_empty());
    format!("{:#}\n", json!({ "ok": ok, "conversations": played.iter().map(one).collect::<Vec<_>>() }))
}
