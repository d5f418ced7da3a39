//! `/ui/config`: the config in force without its secrets, where it stands, what the last reload changed, and the level of
//! the log.

use askama::Template;

use super::super::super::view::{ConfigFileView, ConfigSectionView, LogLevelView};
use super::super::Admin;
use super::super::format::{ShownMoment, head};
use super::super::session::SessionVisitor;
use super::{MOST_SHOWN, Query, StatusBadge, Top};
use crate::observe::logging::LogLevel;

/// Sections that are shown at once, and characters of each.
const MOST_SECTIONS: usize = 50;
const MOST_TEXT: usize = 4000;

#[derive(Template)]
#[template(path = "config.html")]
pub(super) struct ConfigPage {
    top: Top,
    digest: String,
    reload: StatusBadge,
    reloaded: ShownMoment,
    by: String,
    changes: Vec<String>,
    more_changes: usize,
    level: LogLevelView,
    until: Option<ShownMoment>,
    levels: [&'static str; LogLevel::WORDS.len()],
    files: Vec<ConfigFileView>,
    more_files: usize,
    sections: Vec<ConfigSectionView>,
    all: usize,
    more: usize,
    q: String,
    may: bool,
    csrf: String,
}

pub(super) fn gather(admin: &Admin, session: &SessionVisitor, top: Top, query: &Query) -> ConfigPage {
    let (view, now, wanted) = (admin.config(), admin.clock.now(), query.wanted());
    let reload = &view.last_reload;
    let all = view.sections.len();
    // Files and sections are for those who may change them.
    let may = session.may_operate();
    let fits = |section: &ConfigSectionView| {
        let texts = [&section.name, &section.file, &section.text];
        wanted.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(&wanted))
    };
    let mut sections: Vec<ConfigSectionView> =
        if may { view.sections.into_iter().filter(fits).collect() } else { Vec::new() };
    let more = sections.len().saturating_sub(MOST_SECTIONS);
    sections.truncate(MOST_SECTIONS);
    for section in &mut sections {
        section.text = head(section.text.trim_end(), MOST_TEXT);
    }
    let mut files = if may { view.files } else { Vec::new() };
    let more_files = files.len().saturating_sub(MOST_SHOWN);
    files.truncate(MOST_SHOWN);
    ConfigPage {
        top,
        digest: view.config_digest,
        reload: if reload.error.is_none() {
            StatusBadge::new("good", "applied")
        } else {
            StatusBadge::new("bad", "refused")
        },
        reloaded: ShownMoment::of(&reload.at, now),
        by: reload.by.clone(),
        changes: reload.changes.iter().take(MOST_SHOWN).cloned().collect(),
        more_changes: reload.changes.len().saturating_sub(MOST_SHOWN),
        until: ShownMoment::maybe(view.log_level.until.as_deref(), now),
        level: view.log_level,
        levels: LogLevel::WORDS,
        files,
        more_files,
        sections,
        all,
        more,
        q: query.word("q").to_owned(),
        may,
        csrf: session.csrf.clone(),
    }
}
