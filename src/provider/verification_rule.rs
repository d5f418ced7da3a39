//! Signatures of the provider's that a profile has verified: `[[response.signature]]` and `[[webhook.signature]]`.
//!
//! ```text
//! [[response.signature]]
//! form       = "http"
//! key        = "bank_key"             # a setting, or several
//! algorithm  = "ES256"
//! components = ["@status", "content-digest"]
//! max_age    = "5m"
//!
//! [[webhook.signature]]
//! key       = "webhook_secret"
//! algorithm = "HS256"
//! text      = "{header.x-timestamp}.{body}"
//! header    = "x-signature"
//! encoding  = "hex"
//! time      = { header = "x-timestamp", format = "epoch" }
//! ```

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::base::time::of_rfc3339;
use crate::provider::jose_rule::{JoseKeys, verifying_keys};
use crate::provider::key_use::KeyUse;
use crate::provider::refusal::tables;
use crate::provider::setting::Setting;
use crate::provider::signature_rule::{DigestRule, encoding, items};
use crate::provider::template::{Generators, MessagePart, Template, TemplateContext, TemplateScope};
use crate::provider::values::{FieldName, choice};
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::cavage::CavageField;
use crate::signing::encoding::TextEncoding;
use crate::signing::http_signature::CoveredComponent;
use crate::syntax::{Diagnostics, Fields, FromNode, Node};

/// The age beyond which a dated message is refused, unless the profile says another.
const MAX_AGE: Duration = Duration::from_secs(300);

/// The header fields that state a digest of the body (RFC 9530, RFC 3230).
pub(super) const DIGESTS: [&str; 3] = ["content-digest", "digest", "repr-digest"];

/// The place of a signature in the value of a header field.
const SIGNATURE: &str = "{signature}";

/// The written form of a moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum MomentFormat {
    /// Seconds since 1970.
    Epoch,
    /// Milliseconds since 1970.
    EpochMs,
    /// RFC 9110 section 5.6.7.
    HttpDate,
    Rfc3339,
}

impl MomentFormat {
    const WORDS: [(&'static str, MomentFormat); 4] = [
        ("epoch", MomentFormat::Epoch),
        ("epoch-ms", MomentFormat::EpochMs),
        ("http-date", MomentFormat::HttpDate),
        ("rfc3339", MomentFormat::Rfc3339),
    ];

    /// Reads a moment, in milliseconds since 1970.
    pub(super) fn read(self, text: &str) -> Option<u64> {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = || text.parse::<u64>().ok().filter(|_| is_number);
        match self {
            MomentFormat::Epoch => number()?.checked_mul(1000),
            MomentFormat::EpochMs => number(),
            MomentFormat::HttpDate => {
                let moment = httpdate::parse_http_date(text).ok()?;
                u64::try_from(moment.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()
            }
            MomentFormat::Rfc3339 => of_rfc3339(text),
        }
    }
}

/// The header field that says when a message was made.
#[derive(Clone, Debug)]
pub(super) struct TimeField {
    pub name: HeaderName,
    pub format: MomentFormat,
}

/// The dialect of a signature that is verified, with all that is its own.
#[derive(Clone, Debug)]
pub(super) enum VerifiedForm {
    Cavage {
        /// The fields that it must cover.
        fields: Vec<CavageField>,
        /// The `keyId` that it must state.
        key_id: Option<Template>,
    },
    Http {
        label: Option<String>,
        /// The components that it must cover.
        components: Vec<CoveredComponent>,
        tag: Option<String>,
        /// The `keyid` that it must state.
        key_id: Option<Template>,
        /// True if it need not state `created`.
        undated: bool,
    },
    Text {
        text: Template,
        digest: Option<DigestRule>,
        header: HeaderName,
        /// What stands before and behind the signature in that field.
        around: (String, String),
        encoding: TextEncoding,
        /// True if an ECDSA signature is written in DER.
        der: bool,
    },
}

/// One signature of the provider's, as a profile has it.
#[derive(Clone, Debug)]
pub(super) struct VerificationRule {
    pub keys: JoseKeys,
    pub algorithm: SigningAlgorithm,
    pub form: VerifiedForm,
    pub time: Option<TimeField>,
    pub max_age: Duration,
}

/// The messages that are verified.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum VerifiedMessage {
    Answer,
    Webhook,
}

impl VerifiedMessage {
    const fn table(self) -> &'static str {
        match self {
            VerifiedMessage::Answer => "[[response.signature]]",
            VerifiedMessage::Webhook => "[[webhook.signature]]",
        }
    }

    const fn place(self) -> TemplateContext {
        match self {
            VerifiedMessage::Answer => TemplateContext::Answer,
            VerifiedMessage::Webhook => TemplateContext::Webhook,
        }
    }
}

/// The words of `form`.
#[derive(Clone, Copy)]
enum VerifiedWord {
    Cavage,
    Http,
    Text,
}

const FORMS: [(&str, VerifiedWord); 3] =
    [("cavage", VerifiedWord::Cavage), ("http", VerifiedWord::Http), ("text", VerifiedWord::Text)];

impl VerificationRule {
    /// Reads the list of signatures. Every mistake is reported.
    pub(super) fn read_all(
        node: Option<&Node>,
        message: VerifiedMessage,
        settings: &[Setting],
        report: &Diagnostics,
    ) -> Vec<Self> {
        tables(node, message.table(), report).filter_map(|node| Self::read(node, message, settings, report)).collect()
    }

    fn read(node: &Node, message: VerifiedMessage, settings: &[Setting], report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, message.table(), report);
        let generated = Generators::default();
        let scope =
            TemplateScope { settings, captures: &[], steps: &[], generated: &generated, place: message.place() };
        let algorithm_and_keys = verifying_keys(&fields, settings);
        let word = fields.take("form").map_or(Some(VerifiedWord::Text), |node| choice(node, report, &FORMS));
        let form = word.and_then(|word| VerifiedForm::take(&fields, word, message, scope));
        let time_node = fields.take("time");
        let time = time_node.map(|node| TimeField::read(node, report));
        let max_age = fields.or("max_age", MAX_AGE);
        if let (true, Some(node)) = (max_age < Duration::from_secs(1), fields.take("max_age")) {
            node.error(report, "it would be over before it arrives", "", Some("write `max_age = \"5m\"`".to_owned()));
        }
        let age_node = fields.take("max_age");
        fields.finish();
        let (form, (algorithm, keys)) = (form?, algorithm_and_keys?);
        let time = match time {
            Some(time) => Some(time?),
            None => None,
        };
        if let (Some(time), Some(node)) = (&time, time_node)
            && !form.covers(&time.name)
        {
            let title = format!("the signature does not cover `{}`, so anybody could write another time", time.name);
            node.error(report, title, "", None);
        }
        if let (Some(node), None, false) = (age_node, &time, form.is_dated()) {
            let help = "say where it is: `time = { header = \"x-timestamp\", format = \"epoch\" }`".to_owned();
            node.error(report, "nothing here states when a message was made", "", Some(help));
        }
        if !form.covers_body() {
            let help = match form {
                VerifiedForm::Text { .. } => "name `{body}` or `{body_digest}` in `text`".to_owned(),
                VerifiedForm::Cavage { .. } => "require `digest` in `fields`".to_owned(),
                VerifiedForm::Http { .. } => "require `content-digest` in `components`".to_owned(),
            };
            node.error(report, "the signature does not cover the body", "", Some(help));
        }
        Some(Self { keys, algorithm, form, time, max_age })
    }

    /// Its uses of keys.
    pub(super) fn uses(&self) -> Vec<(Arc<str>, KeyUse)> {
        self.keys.uses(KeyUse::Verify(self.algorithm))
    }
}

impl TimeField {
    fn read(node: &Node, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, "`time`", report);
        let name = fields.req::<FieldName>("header", "\"x-timestamp\"");
        let format = match fields.take("format") {
            Some(node) => choice(node, report, &MomentFormat::WORDS),
            None => {
                fields.missing("format", "\"epoch\"");
                None
            }
        };
        fields.finish();
        Some(Self { name: name?.0, format: format? })
    }
}

impl VerifiedForm {
    fn take(
        fields: &Fields<'_>,
        word: VerifiedWord,
        message: VerifiedMessage,
        scope: TemplateScope<'_>,
    ) -> Option<VerifiedForm> {
        let report = fields.report();
        let key_id = || {
            let scope = TemplateScope { place: TemplateContext::Build, ..scope };
            fields.take("key_id").map(|node| Template::read(node, scope, report))
        };
        // A template that was there and could not be read was reported.
        let read = |template: Option<Option<Template>>| template.flatten();
        match word {
            VerifiedWord::Cavage => {
                let node = fields.take("fields");
                if node.is_none() {
                    fields.missing("fields", "[\"date\", \"digest\"]");
                }
                let mut required = Vec::new();
                for node in items(node) {
                    let Some(word) = String::from_node(node, report) else { continue };
                    match CavageField::parse(&word) {
                        Ok(CavageField::RequestTarget) if message == VerifiedMessage::Answer => {
                            node.error(report, "an answer has no request target", "take it out", None);
                        }
                        Ok(field) => required.push(field),
                        Err(error) => node.error(report, format!("`{word}` cannot be signed: {error}"), "", None),
                    }
                }
                node.map(|_| VerifiedForm::Cavage { fields: required, key_id: read(key_id()) })
            }
            VerifiedWord::Http => {
                let node = fields.take("components");
                if node.is_none() {
                    fields.missing("components", "[\"@status\", \"content-digest\"]");
                }
                let mut components = Vec::new();
                for node in items(node) {
                    let Some(word) = String::from_node(node, report) else { continue };
                    match CoveredComponent::parse(&word) {
                        Ok(component) if component.is_of(message == VerifiedMessage::Answer) => {
                            components.push(component);
                        }
                        Ok(_) => {
                            let help = match message {
                                VerifiedMessage::Answer => "a part of the request is written with `;req`",
                                VerifiedMessage::Webhook => "a webhook is a request, and answers none",
                            };
                            node.error(report, format!("the message has no `{word}`"), "", Some(help.to_owned()));
                        }
                        Err(error) => node.error(report, error.to_string(), "", None),
                    }
                }
                let (label, tag) = (fields.opt::<String>("label"), fields.opt::<String>("tag"));
                let (key_id, undated) = (read(key_id()), fields.or("undated", false));
                node.map(|_| VerifiedForm::Http { label, components, tag, key_id, undated })
            }
            VerifiedWord::Text => {
                let text = match fields.take("text") {
                    Some(node) => Template::read(node, scope, report),
                    None => {
                        fields.missing("text", "\"{header.x-timestamp}.{body}\"");
                        None
                    }
                };
                let digest_node = fields.take("digest");
                let digest = digest_node.and_then(|node| DigestRule::read(node, report));
                if let (Some(node), Some(DigestRule { field: Some(name), .. })) = (digest_node, &digest) {
                    let help = format!("name the field in `text`: `{{header.{name}}}`, and the body beside it");
                    node.error(report, "the provider writes its own header fields", "take `field` out", Some(help));
                }
                let names_digest =
                    text.as_ref().is_some_and(|text| text.parts().any(|part| *part == MessagePart::BodyDigest));
                if let (true, None, Some(node)) = (names_digest, digest_node, fields.take("text")) {
                    let help = "add `digest = { algorithm = \"sha-256\", encoding = \"hex\" }`".to_owned();
                    node.error(report, "nothing says what `{body_digest}` is", "", Some(help));
                }
                let header = fields.req::<FieldName>("header", "\"x-signature\"");
                let encoding =
                    fields.take("encoding").map_or(Some(TextEncoding::Base64), |node| encoding(node, report));
                let der = fields.or("der", false);
                let around = around(fields);
                Some(VerifiedForm::Text {
                    text: text?,
                    digest,
                    header: header?.0,
                    around: around?,
                    encoding: encoding?,
                    der,
                })
            }
        }
    }

    /// Returns whether a valid signature covers this header field.
    fn covers(&self, name: &HeaderName) -> bool {
        match self {
            VerifiedForm::Cavage { fields, .. } => fields.contains(&CavageField::Field(name.clone())),
            VerifiedForm::Http { components, .. } => components.iter().any(|one| one.own_field() == Some(name)),
            VerifiedForm::Text { text, .. } => text.parts().any(|part| *part == MessagePart::Header(name.clone())),
        }
    }

    /// Returns whether a valid signature covers the body.
    fn covers_body(&self) -> bool {
        match self {
            VerifiedForm::Cavage { .. } | VerifiedForm::Http { .. } => {
                DIGESTS.iter().any(|name| self.covers(&HeaderName::from_static(name)))
            }
            VerifiedForm::Text { text, .. } => {
                text.parts().any(|part| matches!(part, MessagePart::Body | MessagePart::BodyDigest))
            }
        }
    }

    /// Returns whether it states itself when it was made.
    fn is_dated(&self) -> bool {
        match self {
            VerifiedForm::Cavage { fields, .. } => fields.contains(&CavageField::Created),
            VerifiedForm::Http { .. } => true,
            VerifiedForm::Text { .. } => false,
        }
    }
}

/// Takes `value`: the text of the header field, with the signature in it.
fn around(fields: &Fields<'_>) -> Option<(String, String)> {
    let Some(node) = fields.take("value") else { return Some(Default::default()) };
    let text = String::from_node(node, fields.report())?;
    let found = text.split_once(SIGNATURE).map(|(before, behind)| (before.to_owned(), behind.to_owned()));
    let is_plain = |text: &String| !text.contains(['{', '}']);
    let found = found.filter(|(before, behind)| is_plain(before) && is_plain(behind));
    if found.is_none() {
        let help = "write what stands before and behind it, as in `\"sha256={signature}\"`".to_owned();
        node.error(fields.report(), "a value has `{signature}` in it once, and no other placeholder", "", Some(help));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Profile;
    use crate::syntax::{Diagnostic, SourceText};

    fn mistakes(entry: &str) -> Vec<String> {
        let text = format!(
            "name = \"a\"\n[settings.id]\n[settings.own]\nkind = \"key\"\n[settings.bank]\nkind = \"public-key\"\n\
             [settings.shared]\nsecret = true\n[request]\n\
             inject = [{{ header = \"x-key\", value = \"{{shared}}\" }}]\n{entry}\n"
        );
        let report = Diagnostics::new();
        let profile = Profile::parse(&SourceText::new("bank.toml", text), &report);
        let found: Vec<String> = report.into_diagnostics().iter().map(Diagnostic::one_line).collect();
        assert_eq!(profile.is_none(), !found.is_empty(), "{found:?}");
        found
    }

    #[test]
    fn mistakes_in_signatures_of_the_bank_are_told() {
        let http = "[[response.signature]]\nform = \"http\"\nkey = \"bank\"\nalgorithm = \"ES256\"\n\
                    components = [\"@status\", \"content-digest\", \"@method;req\"]\nkey_id = \"{id}\"\n";
        let cavage = "[[webhook.signature]]\nform = \"cavage\"\nkey = [\"bank\"]\nalgorithm = \"RS256\"\n\
                      fields = [\"(request-target)\", \"date\", \"digest\"]\n\
                      time = { header = \"date\", format = \"http-date\" }\n";
        let text = "[[webhook.signature]]\nkey = \"shared\"\nalgorithm = \"HS256\"\nheader = \"x-sig\"\n\
                    text = \"{header.x-time}.{path}.{body}\"\nvalue = \"sha256={signature}\"\nencoding = \"hex\"\n\
                    time = { header = \"x-time\", format = \"epoch\" }\nmax_age = \"1m\"\n";
        let all = format!("{http}{cavage}{text}");
        assert_eq!(mistakes(&all), Vec::<String>::new());
        for (wrong, right, title) in [
            ("\"shared\"\nalgorithm = \"HS256\"", "\"bank\"\nalgorithm = \"HS256\"", "`bank` is not the kind of key"),
            ("\"bank\"\nalgorithm = \"ES256\"", "\"shared\"\nalgorithm = \"ES256\"", "`shared` is not the kind of key"),
            ("\"bank\"\nalgorithm = \"ES256\"", "\"own\"\nalgorithm = \"ES256\"", "`own` is not the kind of key"),
            ("\"ES256\"", "\"none\"", "`none` is no algorithm here"),
            ("\"bank\"\nalgorithm", "\"bnak\"\nalgorithm", "no setting is called `bnak`"),
            ("algorithm = \"RS256\"\n", "", "has no `algorithm`"),
            ("\"http\"", "\"htpp\"", "`htpp` is not known here"),
            (", \"content-digest\"", "", "the signature does not cover the body"),
            ("\"content-digest\"", "\"content-digest;req\"", "the signature does not cover the body"),
            ("@method;req", "@method", "the message has no `@method`"),
            ("\"@status\"", "\"@statsu\"", "is not a component"),
            (", \"digest\"]", "]", "the signature does not cover the body"),
            ("\"date\", ", "", "the signature does not cover `date`"),
            ("{header.x-time}.{path}", "{path}", "the signature does not cover `x-time`"),
            (".{body}", "", "the signature does not cover the body"),
            (".{body}", ".{body_digest}", "nothing says what `{body_digest}` is"),
            (".{body}", ".{body}{uuid}", "`{uuid}` cannot stand here"),
            (".{body}", ".{body}{signature}", "unknown placeholder `{signature}`"),
            (".{body}", ".{body}{status}", "unknown placeholder `{status}`"),
            (".{body}", ".{body}{token}", "`{token}` cannot stand here"),
            (".{body}", ".{body}{var.a}", "`{var.a}` cannot stand here"),
            ("sha256={signature}", "sha256=", "a value has `{signature}` in it once"),
            ("\"epoch\"", "\"unix\"", "`unix` is not known here"),
            ("max_age = \"1m\"", "max_age = \"0s\"", "it would be over before it arrives"),
            ("time = { header = \"x-time\", format = \"epoch\" }\n", "", "nothing here states when a message was made"),
            ("header = \"x-sig\"\n", "", "has no `header`"),
            ("encoding = \"hex\"", "encoding = \"hxe\"", "`hxe` is no encoding here"),
            ("encoding = \"hex\"", "digets = 1", "unknown key `digets`"),
        ] {
            assert!(all.contains(wrong), "{wrong}");
            let found = mistakes(&all.replacen(wrong, right, 1));
            assert!(found.join("\n").contains(title), "{right}: {title}\nin\n{found:#?}");
        }
        let in_answer = cavage.replace("webhook", "response");
        assert!(mistakes(&in_answer).join("\n").contains("an answer has no request target"));
        assert!(mistakes("[webhook]\n").join("\n").contains("has no `signature`"));
        assert!(mistakes("[response]\n").join("\n").contains("has no `jose`"));
    }

    #[test]
    fn moments_are_read_in_each_form_and_in_no_other() {
        for (format, text, moment) in [
            (MomentFormat::Epoch, "1700000000", Some(1_700_000_000_000)),
            (MomentFormat::Epoch, "+1700000000", None),
            (MomentFormat::Epoch, "18446744073709551615", None),
            (MomentFormat::EpochMs, "1700000000123", Some(1_700_000_000_123)),
            (MomentFormat::HttpDate, "Tue, 14 Nov 2023 22:13:20 GMT", Some(1_700_000_000_000)),
            (MomentFormat::HttpDate, "yesterday", None),
            (MomentFormat::Rfc3339, "2023-11-14T22:13:20Z", Some(1_700_000_000_000)),
            (MomentFormat::Rfc3339, "1700000000", None),
        ] {
            assert_eq!(format.read(text), moment, "{text}");
        }
    }
}
