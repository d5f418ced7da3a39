//! `/ui/runbooks/NAME`: the manual's runbooks, from the binary itself, for where the manual is not at hand.

use askama::Template;
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};

use super::Top;

/// Names the runbooks and their texts.
macro_rules! runbooks {
    ($($name:literal,)*) => {
        /// The runbooks of the manual by name, sorted.
        const RUNBOOKS: &[(&str, &str)] = &[
            $(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks/", $name, ".md"))),)*
        ];
    };
}

runbooks! {
    "README",
    "alert-CountersignAnswersWithheld",
    "alert-CountersignAuditFailing",
    "alert-CountersignCertificateEnds",
    "alert-CountersignCertificateEndsSoon",
    "alert-CountersignConsentsEnd",
    "alert-CountersignCredentialsPromoted",
    "alert-CountersignCredentialsRejected",
    "alert-CountersignErrors",
    "alert-CountersignGone",
    "alert-CountersignKeyServiceGone",
    "alert-CountersignOverloaded",
    "alert-CountersignProviderSlow",
    "alert-CountersignReflection",
    "alert-CountersignReloadFailed",
    "alert-CountersignSecretsNotRead",
    "alert-CountersignTokenFetchesFail",
    "alert-CountersignTokenRunsOut",
    "alert-CountersignTokensRefusedTwice",
    "alert-CountersignUnknownRefusals",
    "alert-CountersignWebhooksUndelivered",
    "alert-CountersignWebhooksUnverified",
    "client-not-allowed",
    "client-unidentified",
    "consent-required",
    "destination-forbidden",
    "internal",
    "malformed-request",
    "misdirected-request",
    "overloaded",
    "provider-closed",
    "provider-credentials-rejected",
    "rate-limited",
    "route-not-found",
    "signer-unavailable",
    "token-unavailable",
    "upstream-protocol",
    "upstream-timeout",
    "upstream-tls",
    "upstream-unopened",
    "upstream-unreachable",
    "webhook-undelivered",
    "webhook-unverified",
}

#[derive(Template)]
#[template(path = "runbook.html")]
pub(super) struct Runbook {
    top: Top,
    /// HTML of our own manual.
    text: String,
}

/// Returns the address of the runbook of an error or an alert, if there is one.
pub(super) fn runbook_page(name: &str) -> Option<String> {
    RUNBOOKS.iter().any(|(known, _)| *known == name).then(|| format!("/ui/runbooks/{name}"))
}

pub(super) fn gather(top: Top, name: &str) -> Option<Runbook> {
    let (_, text) = RUNBOOKS.iter().find(|(known, _)| *known == name)?;
    Some(Runbook { top, text: to_html(text) })
}

/// Converts a page to HTML. Links lead to other runbooks; the manual's other pages are not here, so only their words stay.
fn to_html(text: &str) -> String {
    let mut follows = Vec::new();
    let events = Parser::new_ext(text, Options::ENABLE_TABLES).filter_map(|event| match event {
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            let name = dest_url.split('#').next().and_then(|path| path.strip_suffix(".md")).unwrap_or_default();
            let page = runbook_page(name);
            follows.push(page.is_some());
            let dest_url = CowStr::from(page?);
            Some(Event::Start(Tag::Link { link_type, dest_url, title, id }))
        }
        Event::End(TagEnd::Link) => follows.pop().unwrap_or_default().then_some(event),
        // A page of the manual has comments for tests, and nothing else that is HTML.
        Event::Html(_) | Event::InlineHtml(_) => None,
        event => Some(event),
    });
    let mut page = String::new();
    html::push_html(&mut page, events);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runbook_of_the_manual_is_here() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks");
        let pages = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> =
            pages.map(|name| name.to_string_lossy().trim_end_matches(".md").to_owned()).collect();
        names.sort();
        assert_eq!(RUNBOOKS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
    }

    #[test]
    fn links_lead_to_runbooks_and_to_nothing_else() {
        let page = to_html("[a](rate-limited.md) [b](../store.md#redis) `<x>`\n\n| a |\n|---|\n| 1 |\n<!-- c -->");
        assert!(
            page.starts_with("<p><a href=\"/ui/runbooks/rate-limited\">a</a> b <code>&lt;x&gt;</code></p>"),
            "{page}"
        );
        assert!(page.contains("<td>1</td>") && !page.contains("<!--"), "{page}");
        assert_eq!(runbook_page("../../Cargo"), None);
    }
}
