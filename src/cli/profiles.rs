//! `countersign profiles`: the built-in ones, the tests of any, packs of them.

mod diff;
mod found_profile;
mod pack;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Value, json};

use self::found_profile::{FoundProfile, Unusable, is_pack, unreadable};
use super::table::table;
use super::{complain, config_path, print};
use crate::base::counted::counted;
use crate::provider::{Basis, DeclaredSetting, LintFinding, MANIFEST_FILE, Profile, fixture};
use crate::syntax::suggest;

#[derive(Debug, Subcommand)]
pub(super) enum ProfilesCommand {
    /// Compare two profiles by meaning: keys that were added, removed or changed, and what that does
    Diff {
        /// The profile before: a built-in one, a file, FOLDER/NAME of a pack, or PACK/NAME of a pack of the config
        #[arg(value_name = "A")]
        old: String,
        /// The profile after, named likewise
        #[arg(value_name = "B")]
        new: String,
        /// The config whose packs are meant; COUNTERSIGN_CONFIG names another default
        #[arg(short, long, value_name = "FILE", default_value_os_t = config_path::usual())]
        config: PathBuf,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Warn about what is no mistake and may cost dearly: refusals that fetch for ever, payments that are made twice
    Lint {
        /// The profile: a file, or the name of a built-in one
        #[arg(value_name = "FILE")]
        profile: String,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a pack of a folder of profiles: write its manifest, and sign it
    Pack(pack::PackArguments),
    /// Play the conversations of a profile; without any named, those in the folder beside FILE that is called like it
    Test {
        /// The profile: a file, the name of a built-in one, or the folder of a pack, for all in it
        #[arg(value_name = "FILE")]
        profile: String,
        /// Files of the conversations to play
        #[arg(value_name = "CONVERSATION")]
        conversations: Vec<PathBuf>,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Verify a pack: its signature, the digests of its files, each of its profiles
    Verify(pack::VerifyPackArguments),
}

/// Runs one of the subcommands.
pub(super) fn run(command: &ProfilesCommand) -> ExitCode {
    match command {
        ProfilesCommand::Diff { old, new, config, json } => diff::diff(old, new, config, *json),
        ProfilesCommand::Lint { profile, json } => lint(profile, *json),
        ProfilesCommand::Pack(arguments) => pack::pack(arguments),
        ProfilesCommand::Test { profile, conversations, json } => test(profile, conversations, *json),
        ProfilesCommand::Verify(arguments) => pack::verify(arguments),
    }
}

/// Lists the built-in profiles or those of a pack, or prints one.
pub(super) fn show(name: Option<&str>, as_json: bool) -> ExitCode {
    match shown(name, as_json) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err((why, status)) => {
            complain(&why);
            ExitCode::from(status)
        }
    }
}

fn shown(name: Option<&str>, as_json: bool) -> Result<String, Unusable> {
    let listed = match name {
        None => builtin(),
        Some(folder) if is_pack(Path::new(folder)) => pack::profiles_in(Path::new(folder))?,
        Some(named) => {
            let found = FoundProfile::find(named, Some(&config_path::usual()))?;
            let profile = found.parse(as_json)?;
            let text = &found.source.text;
            return Ok(if as_json { format!("{:#}\n", one_json(&profile, text)) } else { text.clone() });
        }
    };
    if as_json {
        let listed: Vec<Value> = listed.iter().map(|(name, profile)| one_line_json(name, profile)).collect();
        return Ok(format!("{:#}\n", json!({ "profiles": listed })));
    }
    let closing =
        if name.is_none() { "\n`countersign profiles NAME` prints one: a starting point for your own.\n" } else { "" };
    Ok(list_table(&listed) + closing)
}

fn nearest(name: &str) -> String {
    let known = Profile::builtin_names();
    match suggest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", known.join(", ")),
    }
}

/// The profiles that come with countersign, by name.
fn builtin() -> Vec<(String, Arc<Profile>)> {
    let named = |name: &'static str| Some((name.to_owned(), Profile::builtin(name)?));
    Profile::builtin_names().into_iter().filter_map(named).collect()
}

/// One line for each profile: its version, what its facts rest on, how many of them no source confirms, its sources.
fn list_table(listed: &[(String, Arc<Profile>)]) -> String {
    let row = |(name, profile): &(String, Arc<Profile>)| {
        let provenance = profile.provenance();
        let confirmed = match profile.unconfirmed().len() {
            0 => "all".to_owned(),
            open => format!("all but {open}"),
        };
        let said = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        vec![
            name.clone(),
            said(&provenance.version),
            provenance.basis.map_or("-", Basis::as_str).to_owned(),
            confirmed,
            provenance.sources.len().to_string(),
            profile.title().to_owned(),
        ]
    };
    table(&["name", "version", "basis", "confirmed", "sources", "title"], &listed.iter().map(row).collect::<Vec<_>>())
}

fn one_line_json(name: &str, profile: &Profile) -> Value {
    let mut value = json!({ "name": name, "title": profile.title() });
    add_provenance(&mut value, profile);
    value
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
fn test(profile: &str, conversations: &[PathBuf], as_json: bool) -> ExitCode {
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
fn lint(profile: &str, as_json: bool) -> ExitCode {
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

fn play_all(profile: &str, named: &[PathBuf], as_json: bool) -> Result<Played, Unusable> {
    if is_pack(Path::new(profile)) {
        return play_pack(Path::new(profile), named, as_json);
    }
    let found = FoundProfile::find(profile, Some(&config_path::usual()))?;
    let profile = found.parse(as_json)?;
    let files = match named {
        [] => lying_in(&found.home).map_err(|(why, status)| match found.home.starts_with(FIXTURES) {
            true => {
                (format!("{why}; those of built-in profiles are in a checkout of countersign: run this there"), status)
            }
            false => (why, status),
        })?,
        named => named.to_vec(),
    };
    play_files(&profile, files)
}

fn play_files(profile: &Arc<Profile>, files: Vec<PathBuf>) -> Result<Played, Unusable> {
    let mut played = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(|error| (unreadable(&file, &error), 2))?;
        let wrong = fixture::play(&file.display().to_string(), &text, Some(profile));
        played.push((file, wrong));
    }
    Ok(played)
}

/// Plays the conversations of every profile of a pack, of which at least one must have some.
fn play_pack(folder: &Path, named: &[PathBuf], as_json: bool) -> Result<Played, Unusable> {
    if !named.is_empty() {
        return Err(("conversations belong to one profile: name its file in the place of the folder".to_owned(), 2));
    }
    let mut played = Vec::new();
    for file in toml_files(folder)?.iter().filter(|file| file.file_name() != Some(MANIFEST_FILE.as_ref())) {
        let found = FoundProfile::of_file(file)?;
        let profile = found.parse(as_json)?;
        if found.home.is_dir() {
            played.extend(play_files(&profile, lying_in(&found.home)?)?);
        }
    }
    if played.is_empty() {
        let shown = folder.display();
        return Err((format!("no profile of {shown} has conversations; those of x.toml belong into {shown}/x/"), 2));
    }
    Ok(played)
}

/// The profile of a name or a file, and the folder in which its conversations belong.
pub(super) fn find(profile: &str, as_json: bool) -> Result<(Arc<Profile>, PathBuf), Unusable> {
    let found = FoundProfile::find(profile, Some(&config_path::usual()))?;
    Ok((found.parse(as_json)?, found.home))
}

/// The conversations of a folder, of which there must be one.
fn lying_in(folder: &Path) -> Result<Vec<PathBuf>, Unusable> {
    let files = toml_files(folder).unwrap_or_default();
    if files.is_empty() {
        let shown = folder.display();
        let why =
            format!("there are no conversations in {shown}/; put some there (*.toml), or name them after the profile");
        return Err((why, 2));
    }
    Ok(files)
}

/// The TOML files of a folder, sorted.
fn toml_files(folder: &Path) -> Result<Vec<PathBuf>, Unusable> {
    let entries = fs::read_dir(folder).map_err(|error| (unreadable(folder, &error), 2))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    Ok(files)
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
