//! Bodies that a profile has signed and encrypted, and answers that it has decrypted and verified: `[[request.jose]]` and
//! `[[response.jose]]`.
//!
//! ```text
//! [[request.jose]]
//! form       = "jwe"               # or "jws"
//! key        = "bank_key"          # a setting
//! algorithm  = "RSA-OAEP-256"
//! encryption = "A256GCM"
//! from       = "/payment"          # default: all of the body
//! to         = "/sealed"           # default: the place of `from`
//!
//! [[response.jose]]
//! form       = "jwe"
//! key        = ["opening_key", "old_opening_key"]
//! algorithm  = "RSA-OAEP-256"
//! encryption = "A256GCM"
//! ```
//!
//! Steps are taken in their order: a request that is signed first and then encrypted has `jws` before `jwe`, and its
//! answer `jwe` before `jws`.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::provider::exchange::{Field, object};
use crate::provider::key_use::KeyUse;
use crate::provider::refusal::tables;
use crate::provider::setting::{Setting, SettingKind, Settings};
use crate::provider::signature_rule::{KeyChoice, encoding, jose_header, named_setting};
use crate::provider::template::{MessagePart, Template, TemplateContext, TemplateScope};
use crate::provider::values::{FieldName, OneOrManyValues, Pointer, choice};
use crate::provider::verification_rule::{VerificationRule, VerifiedMessage};
use crate::signing::algorithm::{KeyType, SigningAlgorithm};
use crate::signing::encoding::TextEncoding;
use crate::signing::jwe::{ContentEncryption, JweRecipe, KeyManagement};
use crate::syntax::{Diagnostics, Fields, FromNode, Node};

/// The members of a JOSE header.
#[derive(Clone, Debug)]
pub(super) struct HeaderRule {
    pub members: Vec<(String, Field)>,
    /// The members that are numbers, whatever their templates are.
    pub numbers: Vec<String>,
}

/// Keys by their settings, and the encoding of a secret that is a text; `None`: its characters are the key.
#[derive(Clone, Debug)]
pub(super) struct JoseKeys {
    pub settings: Vec<Arc<str>>,
    pub encoding: Option<TextEncoding>,
}

/// What is done to the body of a request.
#[derive(Clone, Debug)]
pub(super) enum ProtectForm {
    Encrypt { keys: JoseKeys, recipe: JweRecipe, header: HeaderRule },
    Sign { key: KeyChoice, header: HeaderRule },
}

/// One `[[request.jose]]`.
#[derive(Clone, Debug)]
pub(super) struct RequestJoseRule {
    pub form: ProtectForm,
    /// The JSON pointer to what is signed or encrypted; empty: all of the body.
    pub from: String,
    /// The JSON pointer to where the message goes; empty: it becomes all of the body.
    pub to: String,
    /// The content type of a body that is the message.
    pub content_type: HeaderValue,
}

/// What is done to the body of an answer.
#[derive(Clone, Debug)]
pub(super) enum OpenForm {
    Decrypt { keys: JoseKeys, recipe: JweRecipe },
    Verify { keys: JoseKeys, algorithm: SigningAlgorithm, understood: Vec<String>, detached: Option<HeaderName> },
}

/// One `[[response.jose]]`.
#[derive(Clone, Debug)]
pub(super) struct ResponseJoseRule {
    pub form: OpenForm,
    /// The JSON pointer to the message; empty: it is all of the body.
    pub from: String,
    /// The JSON pointer to where its content goes; empty: it becomes all of the body.
    pub to: String,
    /// True if the content is a text, though it may read like JSON.
    pub is_text: bool,
    /// The content type of a body that is the content.
    pub content_type: HeaderValue,
}

/// `[response]` or `[webhook]` of a profile: what the provider's messages are opened and verified by.
#[derive(Clone, Debug, Default)]
pub(super) struct OpeningRules {
    /// The signatures of a message as it came.
    pub signatures: Vec<VerificationRule>,
    /// The steps that are taken after that.
    pub jose: Vec<ResponseJoseRule>,
    /// True if answers with a status from 400 on are opened, too.
    pub opens_errors: bool,
}

#[derive(Clone, Copy)]
enum ProtectWord {
    Jwe,
    Jws,
}

#[derive(Clone, Copy)]
enum OpenWord {
    Jwe,
    Jws,
    JwsDetached,
}

impl RequestJoseRule {
    /// Reads `[[request.jose]]`. Every mistake is reported.
    pub(super) fn read_all(node: Option<&Node>, scope: TemplateScope<'_>, report: &Diagnostics) -> Vec<Self> {
        let is_standing = matches!(scope.place, TemplateContext::Standing | TemplateContext::StandingSign);
        let place = if is_standing { TemplateContext::StandingSign } else { TemplateContext::Sign };
        let scope = TemplateScope { place, ..scope };
        let read = |node: &Node| Self::read(node, scope, report);
        tables(node, "[[request.jose]]", report).filter_map(read).collect()
    }

    fn read(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, "[[request.jose]]", report);
        let words = [("jwe", ProtectWord::Jwe), ("jws", ProtectWord::Jws)];
        let form = match form(&fields, &words) {
            Some(ProtectWord::Jwe) => {
                let recipe = recipe(&fields);
                let kinds = KeyKinds { kind: SettingKind::PublicKey, shared: is_shared(recipe) };
                let keys = keys(&fields, kinds, scope.settings);
                let header = header(&fields, scope, None);
                if let (Some(keys), Some(node)) = (&keys, fields.take("key"))
                    && keys.settings.len() > 1
                {
                    node.error(report, "a message is encrypted for one key", "name one setting", None);
                }
                keys.zip(recipe).map(|(keys, recipe)| ProtectForm::Encrypt { keys, recipe, header })
            }
            Some(ProtectWord::Jws) => {
                let key = KeyChoice::take(&fields, scope);
                let header = header(&fields, scope, key.as_ref().map(KeyChoice::supposed));
                key.map(|key| ProtectForm::Sign { key, header })
            }
            None => None,
        };
        let (from, to) = places(&fields);
        let content_type = content_type(&fields, &to, "application/jose");
        fields.finish();
        Some(Self { form: form?, from, to, content_type: content_type? })
    }

    /// All of its templates.
    pub(super) fn templates(&self) -> Vec<&Template> {
        let mut found = Vec::new();
        let (ProtectForm::Encrypt { header, .. } | ProtectForm::Sign { header, .. }) = &self.form;
        header.members.iter().for_each(|(_, field)| field.templates(&mut found));
        found
    }

    /// Its uses of keys.
    pub(super) fn uses(&self) -> Vec<(Arc<str>, KeyUse)> {
        match &self.form {
            ProtectForm::Encrypt { keys, recipe, .. } => keys.uses(KeyUse::Encrypt(recipe.management)),
            ProtectForm::Sign { key, .. } => {
                key.use_of_key().map(|(name, algorithm)| (name.clone(), KeyUse::Sign(algorithm))).into_iter().collect()
            }
        }
    }
}

impl OpeningRules {
    /// Reads `[response]`. Every mistake is reported.
    pub(super) fn read_response(node: &Node, settings: &[Setting], report: &Diagnostics) -> Self {
        let fields = Fields::new(node, "[response]", report);
        let words = [("open", true), ("pass", false)];
        let opens_errors = fields.take("errors").and_then(|node| choice(node, report, &words)).unwrap_or(false);
        if fields.take("jose").is_none() && fields.take("signature").is_none() {
            fields.missing("jose", "[{ form = \"jwe\", key = \"opening_key\", algorithm = \"RSA-OAEP-256\", … }]");
        }
        let rules = Self::take(&fields, "[[response.jose]]", VerifiedMessage::Answer, settings);
        fields.finish();
        Self { opens_errors, ..rules }
    }

    /// Reads `[webhook]`. Every mistake is reported.
    pub(super) fn read_webhook(node: &Node, settings: &[Setting], report: &Diagnostics) -> Self {
        let fields = Fields::new(node, "[webhook]", report);
        if fields.take("jose").is_none() && fields.take("signature").is_none() {
            fields.missing("signature", "[{ form = \"http\", key = \"bank_key\", algorithm = \"ES256\", … }]");
        }
        let errors = report.errors();
        let rules = Self::take(&fields, "[[webhook.jose]]", VerifiedMessage::Webhook, settings);
        if report.errors() == errors && !rules.verifies() {
            let help = "anybody can encrypt for our key: add `[[webhook.signature]]`, or `form = \"jws\"` without `to`";
            node.error(report, "nothing here proves that the provider wrote the whole body", "", Some(help.to_owned()));
        }
        fields.finish();
        rules
    }

    fn take(fields: &Fields<'_>, jose_table: &'static str, message: VerifiedMessage, settings: &[Setting]) -> Self {
        let report = fields.report();
        let read = |node: &Node| ResponseJoseRule::read(node, jose_table, settings, report);
        let jose = tables(fields.take("jose"), jose_table, report).filter_map(read).collect();
        let signatures = VerificationRule::read_all(fields.take("signature"), message, settings, report);
        Self { signatures, jose, opens_errors: false }
    }

    /// Returns whether they prove that the provider wrote all of a body.
    pub(super) fn verifies(&self) -> bool {
        let proves = |rule: &ResponseJoseRule| match &rule.form {
            OpenForm::Decrypt { .. } => false,
            // What stands beside a message in the body is not signed.
            OpenForm::Verify { .. } => rule.to.is_empty(),
        };
        !self.signatures.is_empty() || self.jose.iter().any(proves)
    }

    /// Returns whether each of them has a key that is set.
    pub(super) fn has_keys(&self, settings: &Settings) -> bool {
        let is_set = |keys: &JoseKeys| keys.settings.iter().any(|name| settings.find(name).is_some());
        let jose = self.jose.iter().map(|rule| match &rule.form {
            OpenForm::Decrypt { keys, .. } | OpenForm::Verify { keys, .. } => keys,
        });
        jose.chain(self.signatures.iter().map(|rule| &rule.keys)).all(is_set)
    }

    /// Its uses of keys.
    pub(super) fn uses(&self) -> impl Iterator<Item = (Arc<str>, KeyUse)> {
        let jose = self.jose.iter().flat_map(|rule| match &rule.form {
            OpenForm::Decrypt { keys, recipe } => keys.uses(KeyUse::Decrypt(recipe.management)),
            OpenForm::Verify { keys, algorithm, .. } => keys.uses(KeyUse::Verify(*algorithm)),
        });
        jose.chain(self.signatures.iter().flat_map(VerificationRule::uses))
    }
}

/// Takes `algorithm`, `key` and `key_encoding` of a signature that is verified: a shared secret for authentication codes,
/// public keys for everything else, so that no public key is ever taken for a secret.
pub(super) fn verifying_keys(fields: &Fields<'_>, settings: &[Setting]) -> Option<(SigningAlgorithm, JoseKeys)> {
    let parse = |word: &str| SigningAlgorithm::parse(word).map_err(|error| error.to_string());
    let algorithm = algorithm(fields, "\"PS256\"", parse);
    let shared = algorithm.is_some_and(|algorithm| algorithm.key_type() == KeyType::Secret);
    let keys = keys(fields, KeyKinds { kind: SettingKind::PublicKey, shared }, settings);
    algorithm.zip(keys)
}

impl ResponseJoseRule {
    fn read(node: &Node, table: &'static str, settings: &[Setting], report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, table, report);
        let words = [("jwe", OpenWord::Jwe), ("jws", OpenWord::Jws), ("jws-detached", OpenWord::JwsDetached)];
        let word = form(&fields, &words);
        let form = match word {
            Some(OpenWord::Jwe) => {
                let recipe = recipe(&fields);
                let kinds = KeyKinds { kind: SettingKind::Key, shared: is_shared(recipe) };
                let keys = keys(&fields, kinds, settings);
                keys.zip(recipe).map(|(keys, recipe)| OpenForm::Decrypt { keys, recipe })
            }
            Some(OpenWord::Jws | OpenWord::JwsDetached) => {
                let verifying = verifying_keys(&fields, settings);
                let understood = fields.or("crit", OneOrManyValues::<String>(Vec::new())).0;
                let header = matches!(word, Some(OpenWord::JwsDetached))
                    .then(|| fields.req::<FieldName>("header", "\"x-jws-signature\"").map(|name| name.0));
                match (verifying, header) {
                    (Some((algorithm, keys)), None) => {
                        Some(OpenForm::Verify { keys, algorithm, understood, detached: None })
                    }
                    (Some((algorithm, keys)), Some(Some(name))) => {
                        Some(OpenForm::Verify { keys, algorithm, understood, detached: Some(name) })
                    }
                    (_, _) => None,
                }
            }
            None => None,
        };
        let is_detached = matches!(word, Some(OpenWord::JwsDetached));
        let (from, to) = if is_detached { Default::default() } else { places(&fields) };
        let is_text = !is_detached && fields.or("text", false);
        let content_type = if is_detached {
            Some(HeaderValue::from_static("application/json"))
        } else {
            content_type(&fields, &to, "application/json")
        };
        if let (true, true, Some(node)) = (is_text, to.is_empty(), fields.take("text")) {
            node.error(report, "a text has a place in JSON", "", Some("say where: `to = \"/…\"`".to_owned()));
        }
        fields.finish();
        Some(Self { form: form?, from, to, is_text, content_type: content_type? })
    }
}

impl JoseKeys {
    pub(super) fn uses(&self, key_use: KeyUse) -> Vec<(Arc<str>, KeyUse)> {
        self.settings.iter().map(|name| (name.clone(), key_use)).collect()
    }
}

fn is_shared(recipe: Option<JweRecipe>) -> bool {
    recipe.is_some_and(|recipe| recipe.management.takes(KeyType::Secret))
}

fn form<T: Copy>(fields: &Fields<'_>, words: &[(&str, T)]) -> Option<T> {
    match fields.take("form") {
        Some(node) => choice(node, fields.report(), words),
        None => {
            fields.missing("form", "\"jwe\"");
            None
        }
    }
}

/// The kinds of settings that a key may be.
#[derive(Clone, Copy)]
struct KeyKinds {
    kind: SettingKind,
    /// True if the algorithm needs a secret that both sides know.
    shared: bool,
}

impl KeyKinds {
    fn has(self, setting: &Setting) -> bool {
        match (self.kind, self.shared) {
            // A file may hold a secret, too.
            (SettingKind::Key, true) => setting.kind == SettingKind::Key || setting.secret,
            (SettingKind::PublicKey | SettingKind::Table | SettingKind::Text, true) => setting.secret,
            (kind, false) => setting.kind == kind,
        }
    }

    fn help(self, name: &str) -> String {
        match (self.kind, self.shared) {
            (SettingKind::Key, _) => format!("say `kind = \"key\"` in [settings.{name}]"),
            (_, true) => format!("say `secret = true` in [settings.{name}]: both sides know it"),
            (_, false) => format!("say `kind = \"public-key\"` in [settings.{name}]"),
        }
    }
}

/// Takes `key` and `key_encoding`.
fn keys(fields: &Fields<'_>, kinds: KeyKinds, settings: &[Setting]) -> Option<JoseKeys> {
    let report = fields.report();
    let encoding = fields.take("key_encoding").and_then(|node| encoding(node, report));
    let Some(node) = fields.take("key") else {
        fields.missing("key", "\"bank_key\"");
        return None;
    };
    let mut found = Vec::new();
    for name in OneOrManyValues::<String>::from_node(node, report)?.0 {
        let kind = if kinds.kind == SettingKind::Key { "key" } else { "public-key" };
        let setting = named_setting(&name, kind, node, settings, report)?;
        if !kinds.has(setting) {
            let title = format!("`{name}` is not the kind of key that is needed here");
            node.error(report, title, "", Some(kinds.help(&name)));
            return None;
        }
        found.push(setting.name.clone());
    }
    if found.is_empty() {
        node.error(report, "no key is named", "", None);
        return None;
    }
    Some(JoseKeys { settings: found, encoding })
}

/// Takes `algorithm` and `encryption` of an encrypted message.
fn recipe(fields: &Fields<'_>) -> Option<JweRecipe> {
    let management =
        algorithm(fields, "\"RSA-OAEP-256\"", |word| KeyManagement::parse(word).map_err(ToOwned::to_owned));
    let encryption = match fields.take("encryption") {
        None => {
            fields.missing("encryption", "\"A256GCM\"");
            None
        }
        Some(node) => String::from_node(node, fields.report()).and_then(|word| {
            let parsed = ContentEncryption::parse(&word);
            let told = |help: &str| {
                let title = format!("`{word}` is no encryption here");
                node.error(fields.report(), title, "", Some(help.to_owned()));
            };
            parsed.map_err(told).ok()
        }),
    };
    Some(JweRecipe { management: management?, encryption: encryption? })
}

fn algorithm<T>(fields: &Fields<'_>, example: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    let Some(node) = fields.take("algorithm") else {
        fields.missing("algorithm", example);
        return None;
    };
    let word = String::from_node(node, fields.report())?;
    let told = |help: String| node.error(fields.report(), format!("`{word}` is no algorithm here"), "", Some(help));
    parse(&word).map_err(told).ok()
}

/// Takes `jose_header` and `numbers`. `algorithm`: that of a signature.
fn header(fields: &Fields<'_>, scope: TemplateScope<'_>, algorithm: Option<SigningAlgorithm>) -> HeaderRule {
    let report = fields.report();
    let node = fields.take("jose_header");
    let members = match (node, algorithm) {
        (Some(node), Some(algorithm)) => jose_header(node, scope, algorithm, report),
        (Some(node), None) => object(node, scope, report),
        (None, _) => Vec::new(),
    };
    let mut templates = Vec::new();
    members.iter().for_each(|(_, field)| field.templates(&mut templates));
    let names_body =
        |part: &MessagePart| matches!(part, MessagePart::Body | MessagePart::BodyDigest | MessagePart::Signature);
    if let Some(node) = node
        && templates.iter().any(|template| template.parts().any(names_body))
    {
        node.error(report, "the header of a message does not repeat its content", "", None);
    }
    if let (Some(node), None) = (node, algorithm)
        && let Some((name, _)) = members.iter().find(|(name, _)| matches!(name.as_str(), "zip" | "crit"))
    {
        node.error(report, format!("the member `{name}` cannot be chosen"), "", None);
    }
    let numbers = fields.or("numbers", OneOrManyValues::<String>(Vec::new())).0;
    HeaderRule { members, numbers }
}

/// Takes `from` and `to`, which is the place of `from` unless it is said.
fn places(fields: &Fields<'_>) -> (String, String) {
    let from = fields.opt::<Pointer>("from").map_or_else(String::new, |pointer| pointer.0);
    let to = fields.opt::<Pointer>("to").map_or_else(|| from.clone(), |pointer| pointer.0);
    let leads_into = !from.is_empty() && to.starts_with(&format!("{from}/"));
    if let (true, Some(node)) = (leads_into, fields.take("to")) {
        let help = "put it beside, or in its place".to_owned();
        node.error(fields.report(), "it lies inside of what `from` names", "", Some(help));
    }
    (from, to)
}

/// Takes `content_type`, which a body has that is a message, or the content of one, as a whole.
fn content_type(fields: &Fields<'_>, to: &str, usual: &'static str) -> Option<HeaderValue> {
    let Some(node) = fields.take("content_type") else { return Some(HeaderValue::from_static(usual)) };
    if !to.is_empty() {
        node.error(fields.report(), "the body stays JSON", "take this out", None);
    }
    let text = String::from_node(node, fields.report())?;
    let value = HeaderValue::from_str(&text).ok().filter(|_| text.contains('/'));
    if value.is_none() {
        node.error(fields.report(), format!("`{text}` is no content type"), "", None);
    }
    value
}

#[cfg(test)]
mod tests {
    use crate::provider::Profile;
    use crate::syntax::{Diagnostic, Diagnostics, SourceText};

    fn mistakes(request: &str, response: &str) -> Vec<String> {
        let text = format!(
            "name = \"a\"\n[settings.api_key]\nsecret = true\n[settings.own]\nkind = \"key\"\n[settings.bank]\n\
             kind = \"public-key\"\n[settings.id]\n[request]\n\
             inject = [{{ header = \"x-key\", value = \"{{api_key}}\" }}]\n{request}\n{response}\n"
        );
        let report = Diagnostics::new();
        let profile = Profile::parse(&SourceText::new("bank.toml", text), &report);
        let found: Vec<String> = report.into_diagnostics().iter().map(Diagnostic::one_line).collect();
        assert_eq!(profile.is_none(), !found.is_empty(), "{found:?}");
        found
    }

    #[test]
    fn mistakes_in_messages_of_bodies_are_told() {
        let encrypt = "[[request.jose]]\nform = \"jwe\"\nkey = \"bank\"\nalgorithm = \"RSA-OAEP-256\"\n\
                       encryption = \"A256GCM\"\nfrom = \"/a\"\nto = \"/b\"\njose_header = { cty = \"JWT\" }\n";
        let sign = "[[request.jose]]\nform = \"jws\"\nkey = \"own\"\nalgorithm = \"PS256\"\n";
        let decrypt = "[[response.jose]]\nform = \"jwe\"\nkey = [\"own\"]\nalgorithm = \"ECDH-ES\"\n\
                       encryption = \"A128CBC-HS256\"\n";
        let verify = "[[response.jose]]\nform = \"jws-detached\"\nkey = \"bank\"\nalgorithm = \"ES256\"\n\
                      header = \"x-jws-signature\"\n";
        assert_eq!(mistakes(&format!("{sign}{encrypt}"), &format!("{decrypt}{verify}")), Vec::<String>::new());
        for (wrong, text, title) in [
            ("\"jwe\"\nkey = \"bank\"", "\"jwt\"\nkey = \"bank\"", "`jwt` is not known here"),
            ("\"bank\"\nalgorithm = \"RSA", "\"bnak\"\nalgorithm = \"RSA", "no setting is called `bnak`"),
            ("\"bank\"\nalgorithm = \"RSA", "\"id\"\nalgorithm = \"RSA", "`id` is not the kind of key"),
            ("\"bank\"\nalgorithm = \"RSA", "\"own\"\nalgorithm = \"RSA", "say `kind = \"public-key\"` in"),
            ("RSA-OAEP-256", "RSA1_5", "`RSA1_5` is no algorithm here"),
            ("A256GCM", "A512GCM", "`A512GCM` is no encryption here"),
            ("encryption = \"A256GCM\"\n", "", "has no `encryption`"),
            ("to = \"/b\"", "to = \"/a/b\"", "it lies inside of what `from` names"),
            ("to = \"/b\"", "to = \"b\"", "a JSON pointer starts with `/`"),
            ("to = \"/b\"", "to = \"/b\"\ncontent_type = \"a/b\"", "the body stays JSON"),
            ("cty = \"JWT\"", "zip = \"DEF\"", "the member `zip` cannot be chosen"),
            ("\"JWT\"", "\"{body}\"", "the header of a message does not repeat its content"),
            ("\"own\"\nalgorithm = \"PS256\"", "\"bank\"\nalgorithm = \"PS256\"", "`bank` is no key"),
            ("[\"own\"]", "[]", "no key is named"),
            ("[\"own\"]", "\"bank\"", "say `kind = \"key\"` in [settings.bank]"),
            ("\"ES256\"", "\"none\"", "`none` is no algorithm here"),
            ("\"ES256\"", "\"HS256\"", "`bank` is not the kind of key"),
            ("\"ES256\"", "\"HS256\"\nkey_encoding = \"hxe\"", "`hxe` is no encoding here"),
            ("header = \"x-jws-signature\"\n", "", "has no `header`"),
            ("x-jws-signature\"\n", "x-jws-signature\"\nfrom = \"/a\"\n", "unknown key `from`"),
        ] {
            let found = mistakes(
                &format!("{sign}{encrypt}").replacen(wrong, text, 1),
                &format!("{decrypt}{verify}").replacen(wrong, text, 1),
            );
            assert!(found.join("\n").contains(title), "{text}: {title}\nin\n{found:#?}");
        }
    }
}
