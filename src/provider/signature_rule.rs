//! Signatures that a profile asks for: `[[request.sign]]`, and `sign` in the requests of a login.
//!
//! ```text
//! [[request.sign]]
//! key       = "signing_key"    # a setting
//! algorithm = "HS512"
//! text      = "{method}:{path_and_query}:{token}:{body_digest}:{time.stamp}"
//! digest    = { algorithm = "sha-256", encoding = "hex", minified = true }
//! header    = "X-SIGNATURE"
//! ```

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::{AUTHORIZATION, HOST};
use serde_json::{Map, Value};

use crate::provider::client_auth::ClientAuth;
use crate::provider::exchange::{Field, object};
use crate::provider::key_use::KeyUse;
use crate::provider::setting::Setting;
use crate::provider::template::{MessagePart, Template, TemplateContext, TemplateScope};
use crate::provider::values::{FieldName, OneOrManyValues, choice};
use crate::signing::algorithm::{KeyType, SigningAlgorithm};
use crate::signing::cavage::CavageField;
use crate::signing::digest::DigestAlgorithm;
use crate::signing::encoding::TextEncoding;
use crate::signing::http_signature::CoveredComponent;
use crate::signing::jws::{JwsHeader, PayloadForm};
use crate::syntax::{Diagnostics, Fields, FromNode, Kind, Node, suggest};
use crate::token::grant::CallPlace;

/// The algorithms of OAuth 1.0a that are known here.
const OAUTH1: [SigningAlgorithm; 2] = [SigningAlgorithm::Hs256, SigningAlgorithm::Rs256];

/// The life of a token or signature that states its end, if none is specified.
const LIFE: Duration = Duration::from_secs(300);

/// An algorithm, or the setting that names it.
#[derive(Clone, Debug)]
pub(super) enum AlgorithmChoice {
    Fixed(SigningAlgorithm),
    Setting(Arc<str>),
}

/// The key of a signature, by its setting.
#[derive(Clone, Debug)]
pub(super) struct KeyChoice {
    pub setting: Arc<str>,
    pub algorithm: AlgorithmChoice,
    /// The encoding of a secret that is a text; `None`: its characters are the key.
    pub encoding: Option<TextEncoding>,
    is_key: bool,
}

/// The digest of a body.
#[derive(Clone, Debug)]
pub(super) struct DigestRule {
    pub algorithm: DigestAlgorithm,
    pub encoding: TextEncoding,
    /// True if whitespace between the tokens of JSON does not count.
    pub minified: bool,
    /// The header field that states it.
    pub field: Option<HeaderName>,
}

/// A JSON Web Token of one's own.
#[derive(Clone, Debug)]
pub(super) struct JwtTemplate {
    pub header: Vec<(String, Field)>,
    pub claims: Vec<(String, Field)>,
    /// The members that are numbers, whatever their templates are.
    pub numbers: Vec<String>,
    pub life: Duration,
}

/// A parameter of an HTTP message signature, as a profile has it.
#[derive(Clone, Debug)]
pub(super) enum ParameterRule {
    Alg,
    Created,
    Expires(Duration),
    KeyId(Template),
    Nonce,
    Tag(Template),
}

/// The dialect of a signature, with all that is its own.
#[derive(Clone, Debug)]
pub(super) enum SignatureForm {
    Cavage {
        key_id: Template,
        /// The algorithm as the bank names it.
        algorithm: Option<String>,
        fields: Vec<CavageField>,
        life: Duration,
    },
    Http {
        label: String,
        components: Vec<CoveredComponent>,
        parameters: Vec<ParameterRule>,
    },
    Jws {
        payload: PayloadForm,
        header: Vec<(String, Field)>,
        numbers: Vec<String>,
    },
    Jwt(JwtTemplate),
    OAuth1 {
        consumer_key: Template,
        token: Option<Template>,
        realm: Option<String>,
        body_hash: bool,
    },
    Text {
        text: Template,
        encoding: TextEncoding,
        /// True if an ECDSA signature is written in DER.
        der: bool,
    },
}

/// One signature of a message, as a profile has it.
#[derive(Clone, Debug)]
pub(super) struct SignatureRule {
    pub key: KeyChoice,
    pub place: CallPlace,
    /// The text that goes out, with the signature in it.
    pub value: Template,
    pub digest: Option<DigestRule>,
    pub form: SignatureForm,
    /// The methods of the requests that it is made for; empty: all.
    pub methods: Vec<String>,
}

/// The surroundings of a list of signatures.
#[derive(Clone, Copy)]
pub(super) struct SignatureContext<'a> {
    /// The name of the list in messages.
    pub table: &'static str,
    pub scope: TemplateScope<'a>,
    /// The header fields that no client controls; `None`: there is no client.
    pub own: Option<&'a [HeaderName]>,
}

/// The words of `form`.
#[derive(Clone, Copy)]
enum FormWord {
    Cavage,
    Http,
    Jws(PayloadForm),
    Jwt,
    OAuth1,
    Text,
}

const FORMS: [(&str, FormWord); 8] = [
    ("cavage", FormWord::Cavage),
    ("http", FormWord::Http),
    ("jws", FormWord::Jws(PayloadForm::Attached)),
    ("jws-detached", FormWord::Jws(PayloadForm::Detached)),
    ("jws-unencoded", FormWord::Jws(PayloadForm::Unencoded)),
    ("jwt", FormWord::Jwt),
    ("oauth1", FormWord::OAuth1),
    ("text", FormWord::Text),
];

impl KeyChoice {
    /// Takes `key`, `algorithm` and `key_encoding`.
    pub(super) fn take(fields: &Fields<'_>, scope: TemplateScope<'_>) -> Option<Self> {
        let report = fields.report();
        let setting = match fields.take("key") {
            Some(node) => key_setting(node, scope.settings, report),
            None => {
                fields.missing("key", "\"signing_key\"");
                None
            }
        };
        let algorithm = match fields.take("algorithm") {
            Some(node) => algorithm(node, scope, report),
            None => {
                fields.missing("algorithm", "\"PS256\"");
                None
            }
        };
        let encoding = fields.take("key_encoding").and_then(|node| encoding(node, report));
        let (setting, algorithm) = (setting?, algorithm?);
        let is_key = setting.is_key();
        if let (true, Some(node)) = (is_key, fields.take("key_encoding")) {
            node.error(report, "the file of a key says itself how it is written", "take this out", None);
        }
        if let (AlgorithmChoice::Fixed(algorithm), false, Some(node)) = (&algorithm, is_key, fields.take("algorithm"))
            && algorithm.key_type() != KeyType::Secret
        {
            let help = format!("say `kind = \"key\"` in [settings.{}] instead of `secret = true`", setting.name);
            node.error(report, format!("{algorithm} needs {}", algorithm.key_type()), "", Some(help));
        }
        Some(Self { setting: setting.name.clone(), algorithm, encoding, is_key })
    }

    /// Returns whether it is the key of a file, and no text.
    pub(super) const fn is_key(&self) -> bool {
        self.is_key
    }

    /// Returns the key setting that has to fit an algorithm, with that.
    pub(super) fn use_of_key(&self) -> Option<(&Arc<str>, SigningAlgorithm)> {
        match self.algorithm {
            AlgorithmChoice::Fixed(algorithm) if self.is_key => Some((&self.setting, algorithm)),
            AlgorithmChoice::Fixed(_) | AlgorithmChoice::Setting(_) => None,
        }
    }

    /// Returns the algorithm, or one in its place until the settings are known.
    pub(super) fn supposed(&self) -> SigningAlgorithm {
        match self.algorithm {
            AlgorithmChoice::Fixed(algorithm) => algorithm,
            // All forms know it.
            AlgorithmChoice::Setting(_) => SigningAlgorithm::Rs256,
        }
    }
}

/// Finds a setting by its name at `node`; `kind` is the one that it would have.
pub(super) fn named_setting<'a>(
    name: &str,
    kind: &str,
    node: &Node,
    settings: &'a [Setting],
    report: &Diagnostics,
) -> Option<&'a Setting> {
    let found = settings.iter().find(|setting| *setting.name == *name);
    if found.is_none() {
        let help = match suggest(name, settings.iter().map(|setting| &*setting.name)) {
            Some(near) => format!("did you mean `\"{near}\"`?"),
            None => format!("declare it: `[settings.{name}]` with `kind = \"{kind}\"`"),
        };
        node.error(report, format!("no setting is called `{name}`"), "", Some(help));
    }
    found
}

/// Reads the name of a setting that holds a key.
fn key_setting<'a>(node: &Node, settings: &'a [Setting], report: &Diagnostics) -> Option<&'a Setting> {
    let name = String::from_node(node, report)?;
    let name = name.trim_start_matches('{').trim_end_matches('}');
    let setting = named_setting(name, "key", node, settings, report)?;
    if !setting.is_key() && !setting.secret {
        let help = format!("say `kind = \"key\"` in [settings.{name}], or `secret = true` for a shared secret");
        node.error(report, format!("`{name}` is no key"), "", Some(help));
        return None;
    }
    Some(setting)
}

fn algorithm(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Option<AlgorithmChoice> {
    let word = String::from_node(node, report)?;
    if word.contains('{') {
        let template = Template::read(node, TemplateScope { place: TemplateContext::Build, ..scope }, report)?;
        let setting = template.sole_setting().cloned();
        if setting.is_none() {
            node.error(report, "an algorithm is a word, or one setting that says the word", "", None);
        }
        return setting.map(AlgorithmChoice::Setting);
    }
    match SigningAlgorithm::parse(&word) {
        Ok(algorithm) => Some(AlgorithmChoice::Fixed(algorithm)),
        Err(error) => {
            node.error(report, format!("`{word}` is no algorithm here"), "", Some(error.to_string()));
            None
        }
    }
}

pub(super) fn encoding(node: &Node, report: &Diagnostics) -> Option<TextEncoding> {
    let word = String::from_node(node, report)?;
    match TextEncoding::parse(&word) {
        Ok(encoding) => Some(encoding),
        Err(help) => {
            node.error(report, format!("`{word}` is no encoding here"), "", Some(help.to_owned()));
            None
        }
    }
}

impl DigestRule {
    pub(super) fn read(node: &Node, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, "`digest`", report);
        let algorithm = match fields.opt::<String>("algorithm").as_deref().map(DigestAlgorithm::parse) {
            None => Some(DigestAlgorithm::Sha256),
            Some(Ok(algorithm)) => Some(algorithm),
            Some(Err(help)) => {
                fields.take("algorithm").unwrap_or(node).error(report, "no digest here", "", Some(help.to_owned()));
                None
            }
        };
        let encoding = fields.take("encoding").map_or(Some(TextEncoding::Hex), |node| encoding(node, report));
        let minified = fields.or("minified", false);
        let field = fields.opt::<FieldName>("field").map(|name| name.0);
        fields.finish();
        Some(Self { algorithm: algorithm?, encoding: encoding?, minified, field })
    }
}

impl JwtTemplate {
    /// Takes the members of its header, `claims`, `numbers` and `life`.
    pub(super) fn take(
        fields: &Fields<'_>,
        header: &str,
        scope: TemplateScope<'_>,
        algorithm: SigningAlgorithm,
    ) -> Self {
        let report = fields.report();
        let header = match fields.take(header) {
            Some(node) => jose_header(node, scope, algorithm, report),
            None => vec![("typ".to_owned(), Field::literal("JWT"))],
        };
        let claims = fields.take("claims").map_or_else(Vec::new, |node| object(node, scope, report));
        let numbers = fields.or("numbers", OneOrManyValues::<String>(Vec::new())).0;
        Self { header, claims, numbers, life: life(fields) }
    }

    /// The templates of its header and claims.
    pub(super) fn templates<'a>(&'a self, found: &mut Vec<&'a Template>) {
        self.header.iter().chain(&self.claims).for_each(|(_, field)| field.templates(found));
    }
}

/// Reads `methods`, a list of methods in capitals (RFC 9110 section 9.1).
fn methods(node: &Node, report: &Diagnostics) -> Vec<String> {
    let words = OneOrManyValues::<String>::from_node(node, report).map_or_else(Vec::new, |words| words.0);
    let is_method =
        |word: &String| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if words.is_empty() || !words.iter().all(is_method) {
        node.error(report, "these are no methods", "write them in capitals, as in `[\"POST\", \"PUT\"]`", None);
    }
    words
}

fn life(fields: &Fields<'_>) -> Duration {
    let life = fields.or("life", LIFE);
    if let (true, Some(node)) = (life < Duration::from_secs(1), fields.take("life")) {
        node.error(fields.report(), "it would be over before it arrives", "", Some("write `life = \"5m\"`".to_owned()));
    }
    life
}

/// Reads the members of a JOSE header; what can be known to be wrong is reported.
pub(super) fn jose_header(
    node: &Node,
    scope: TemplateScope<'_>,
    algorithm: SigningAlgorithm,
    report: &Diagnostics,
) -> Vec<(String, Field)> {
    let members = object(node, scope, report);
    let shape = |(name, field): &(String, Field)| (name.clone(), field.shape());
    let shapes: Map<String, Value> = members.iter().map(shape).collect();
    if let Err(error) = JwsHeader::new(algorithm, shapes) {
        node.error(report, format!("this header is not usable: {error}"), "", None);
    }
    members
}

impl SignatureForm {
    fn take(
        fields: &Fields<'_>,
        word: FormWord,
        key: Option<&KeyChoice>,
        scope: TemplateScope<'_>,
    ) -> Option<SignatureForm> {
        let report = fields.report();
        let template = |key: &str, example: &str| match fields.take(key) {
            Some(node) => Template::read(node, scope, report),
            None => {
                fields.missing(key, example);
                None
            }
        };
        let algorithm = key.map_or(SigningAlgorithm::Ps256, KeyChoice::supposed);
        let numbers = || fields.or("numbers", OneOrManyValues::<String>(Vec::new())).0;
        match word {
            FormWord::Cavage => {
                let key_id = template("key_id", "\"{signing_key.psd2_id}\"");
                let words = fields.take("fields");
                if words.is_none() {
                    fields.missing("fields", "[\"(request-target)\", \"date\", \"digest\"]");
                }
                let mut covered = Vec::new();
                for node in items(words) {
                    let Some(word) = String::from_node(node, report) else { continue };
                    match CavageField::parse(&word) {
                        Ok(field) => covered.push(field),
                        Err(error) => node.error(report, format!("`{word}` cannot be signed: {error}"), "", None),
                    }
                }
                let algorithm = fields.opt::<String>("algorithm_name");
                let life = life(fields);
                Some(SignatureForm::Cavage { key_id: key_id?, algorithm, fields: covered, life })
            }
            FormWord::Http => {
                let words = fields.take("components");
                if words.is_none() {
                    fields.missing("components", "[\"@method\", \"@target-uri\", \"content-digest\"]");
                }
                let mut components = Vec::new();
                for node in items(words) {
                    let Some(word) = String::from_node(node, report) else { continue };
                    match CoveredComponent::parse(&word) {
                        Ok(component) => components.push(component),
                        Err(error) => node.error(report, error.to_string(), "", None),
                    }
                }
                let label = fields.or("label", "sig1".to_owned());
                let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
                let begins = label.starts_with(|first: char| first.is_ascii_lowercase() || first == '*');
                if let (false, Some(node)) = (begins && label.bytes().all(is_inner), fields.take("label")) {
                    let help = "write lower-case letters and digits, as in `\"sig1\"`".to_owned();
                    node.error(report, "this is no label of a signature", "", Some(help));
                }
                let parameters = fields.take("params").map_or_else(Vec::new, |node| parameters(node, scope, report));
                let names_itself = parameters.iter().any(|parameter| matches!(parameter, ParameterRule::Alg));
                if let (true, None, Some(node)) = (names_itself, algorithm.http_name(), fields.take("params")) {
                    let title = format!("{algorithm} has no name among the algorithms of HTTP signatures");
                    node.error(report, title, "", Some("leave `alg` out".to_owned()));
                }
                Some(SignatureForm::Http { label, components, parameters })
            }
            FormWord::Jws(payload) => {
                let header = fields.take("jose_header");
                let header = header.map_or_else(Vec::new, |node| jose_header(node, scope, algorithm, report));
                Some(SignatureForm::Jws { payload, header, numbers: numbers() })
            }
            FormWord::Jwt => Some(SignatureForm::Jwt(JwtTemplate::take(fields, "jose_header", scope, algorithm))),
            FormWord::OAuth1 => {
                if let (false, Some(node)) = (OAUTH1.contains(&algorithm), fields.take("algorithm")) {
                    node.error(report, "OAuth 1.0a is signed by RS256 or HS256 here", "", None);
                }
                let consumer_key = template("consumer_key", "\"{consumer_key}\"");
                let token = fields.take("token").and_then(|node| Template::read(node, scope, report));
                let realm = fields.opt::<String>("realm");
                let body_hash = fields.or("body_hash", true);
                Some(SignatureForm::OAuth1 { consumer_key: consumer_key?, token, realm, body_hash })
            }
            FormWord::Text => {
                let text = template("text", "\"{method}:{path_and_query}:{body_digest}\"");
                let encoding =
                    fields.take("encoding").map_or(Some(TextEncoding::Base64), |node| encoding(node, report));
                let der = fields.or("der", false);
                Some(SignatureForm::Text { text: text?, encoding: encoding?, der })
            }
        }
    }

    /// The templates of what is signed.
    fn templates<'a>(&'a self, found: &mut Vec<&'a Template>) {
        match self {
            SignatureForm::Cavage { key_id, .. } => found.push(key_id),
            SignatureForm::Http { parameters, .. } => found.extend(parameters.iter().filter_map(|one| match one {
                ParameterRule::KeyId(template) | ParameterRule::Tag(template) => Some(template),
                ParameterRule::Alg | ParameterRule::Created | ParameterRule::Expires(_) | ParameterRule::Nonce => None,
            })),
            SignatureForm::Jws { header, .. } => header.iter().for_each(|(_, field)| field.templates(found)),
            SignatureForm::Jwt(jwt) => jwt.templates(found),
            SignatureForm::OAuth1 { consumer_key, token, .. } => found.extend([consumer_key].into_iter().chain(token)),
            SignatureForm::Text { text, .. } => found.push(text),
        }
    }

    /// The header fields that it covers by their names.
    fn covered_fields(&self) -> Vec<HeaderName> {
        match self {
            SignatureForm::Cavage { fields, .. } => fields
                .iter()
                .filter_map(|field| match field {
                    CavageField::Field(name) => Some(name.clone()),
                    CavageField::Created | CavageField::Expires | CavageField::RequestTarget => None,
                })
                .collect(),
            SignatureForm::Http { components, .. } => components
                .iter()
                .filter_map(|component| {
                    let identifier = component.identifier();
                    let name = identifier.trim_start_matches('"').split('"').next()?.to_owned();
                    if name.starts_with('@') { None } else { HeaderName::try_from(name).ok() }
                })
                .collect(),
            SignatureForm::Jws { .. }
            | SignatureForm::Jwt(_)
            | SignatureForm::OAuth1 { .. }
            | SignatureForm::Text { .. } => Vec::new(),
        }
    }

    /// Returns whether it covers the body whatever its templates name.
    const fn takes_body(&self) -> bool {
        match self {
            SignatureForm::Jws { .. } | SignatureForm::OAuth1 { .. } => true,
            SignatureForm::Cavage { .. }
            | SignatureForm::Http { .. }
            | SignatureForm::Jwt(_)
            | SignatureForm::Text { .. } => false,
        }
    }

    /// Checks whether an algorithm that a setting names goes with the form. The error is for a person.
    pub(super) fn check(&self, algorithm: SigningAlgorithm) -> Result<(), String> {
        let fits = match self {
            SignatureForm::Http { parameters, .. } => {
                let names_itself = parameters.iter().any(|parameter| matches!(parameter, ParameterRule::Alg));
                !names_itself || algorithm.http_name().is_some()
            }
            SignatureForm::OAuth1 { .. } => OAUTH1.contains(&algorithm),
            SignatureForm::Cavage { .. }
            | SignatureForm::Jws { .. }
            | SignatureForm::Jwt(_)
            | SignatureForm::Text { .. } => true,
        };
        if fits { Ok(()) } else { Err(format!("{algorithm} does not go with this form of signature")) }
    }

    /// The header that holds it, if a profile does not say.
    const fn usual_header(&self) -> Option<HeaderName> {
        match self {
            SignatureForm::Cavage { .. } | SignatureForm::Http { .. } => Some(HeaderName::from_static("signature")),
            SignatureForm::OAuth1 { .. } => Some(AUTHORIZATION),
            SignatureForm::Jws { .. } | SignatureForm::Jwt(_) | SignatureForm::Text { .. } => None,
        }
    }
}

/// The items of a list; one value alone is a list of one.
pub(super) fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.kind) {
        Some(Kind::Array(items)) => items,
        Some(Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_)) => {
            node.map(std::slice::from_ref).unwrap_or_default()
        }
        None => &[],
    }
}

/// Reads `params` of an HTTP message signature, in their order.
fn parameters(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Vec<ParameterRule> {
    let fields = Fields::new(node, "`params`", report);
    let mut read = Vec::new();
    for entry in node.as_table().into_iter().flat_map(|table| &table.entries) {
        let Some(node) = fields.take(&entry.key) else { continue };
        let flag = |rule: ParameterRule| bool::from_node(node, report).filter(|yes| *yes).map(|_| rule);
        let text = |rule: fn(Template) -> ParameterRule| Template::read(node, scope, report).map(rule);
        read.extend(match entry.key.as_str() {
            "alg" => flag(ParameterRule::Alg),
            "created" => flag(ParameterRule::Created),
            "expires" => Duration::from_node(node, report).map(ParameterRule::Expires),
            "keyid" => text(ParameterRule::KeyId),
            "nonce" => flag(ParameterRule::Nonce),
            "tag" => text(ParameterRule::Tag),
            other => {
                let help = "known are alg, created, expires, keyid, nonce and tag (RFC 9421 section 2.3)".to_owned();
                node.error(report, format!("`{other}` is no parameter of a signature"), "", Some(help));
                None
            }
        });
    }
    fields.finish();
    read
}

impl SignatureRule {
    /// Reads a list of signatures. Each may cover the header fields of those before it.
    pub(super) fn read_all(node: Option<&Node>, context: SignatureContext<'_>, report: &Diagnostics) -> Vec<Self> {
        let mut rules: Vec<Self> = Vec::new();
        let mut own = context.own.map(|own| own.to_vec());
        for node in super::refusal::tables(node, context.table, report) {
            let Some(rule) = Self::read(node, context, own.as_mut(), report) else { continue };
            if rules.iter().any(|known| known.place == rule.place && known.meets(&rule)) {
                let label = "give each its own place, or `methods` that differ";
                node.error(report, format!("`{}` is signed twice", rule.place), label, None);
            }
            rules.push(rule);
        }
        rules
    }

    fn read(
        node: &Node,
        context: SignatureContext<'_>,
        own: Option<&mut Vec<HeaderName>>,
        report: &Diagnostics,
    ) -> Option<Self> {
        let SignatureContext { table, scope, .. } = context;
        let fields = Fields::new(node, table, report);
        let key = KeyChoice::take(&fields, scope);
        let word = fields.take("form").map_or(Some(FormWord::Text), |node| choice(node, report, &FORMS));
        let form = word.and_then(|word| SignatureForm::take(&fields, word, key.as_ref(), scope));
        let digest = fields.take("digest").map(|node| DigestRule::read(node, report));
        let client_headers = fields.or("client_headers", OneOrManyValues::<FieldName>(Vec::new())).0;
        // The method of a token request is the profile's.
        let methods_node = context.own.is_some().then(|| fields.take("methods")).flatten();
        let methods = methods_node.map_or_else(Vec::new, |node| methods(node, report));
        let (header, query) = (fields.opt::<FieldName>("header"), fields.opt::<String>("query"));
        let (has_header, query_node) = (fields.take("header").is_some(), fields.take("query"));
        // A call's own body is the client's.
        let field_node = context.own.is_none().then(|| fields.take("field")).flatten();
        let field = field_node.and_then(|node| String::from_node(node, report)).filter(|name| !name.is_empty());
        let place = match (header, query, field) {
            (Some(name), None, None) => Some(CallPlace::Header(name.0)),
            (None, Some(name), None) if !name.is_empty() => Some(CallPlace::Query(name.into())),
            (None, None, Some(name)) => Some(CallPlace::Body(name.into())),
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                node.error(report, "a signature has one place", "keep `header` or `query`", None);
                None
            }
            (None, _, None) => {
                let usual = form.as_ref().and_then(SignatureForm::usual_header);
                let has_none = !has_header && query_node.is_none() && field_node.is_none();
                if usual.is_none() && has_none && form.is_some() {
                    fields.missing("header", "\"x-signature\"");
                }
                usual.map(CallPlace::Header)
            }
        };
        let value = match fields.take("value") {
            Some(node) => Template::read(node, scope, report),
            None => Template::parse("{signature}", scope).ok(),
        };
        if let (Some(value), Some(node)) = (&value, fields.take("value"))
            && !value.parts().any(|part| *part == MessagePart::Signature)
        {
            node.error(report, "the signature is put nowhere", "", Some("write `{signature}` into it".to_owned()));
        }
        fields.finish();
        let (key, form, place, value) = (key?, form?, place?, value?);
        let digest = match digest {
            None => None,
            Some(digest) => Some(digest?),
        };
        if let (Some(query_node), false) = (
            query_node.or(field_node),
            matches!(form, SignatureForm::Text { .. } | SignatureForm::Jwt(_) | SignatureForm::Jws { .. }),
        ) {
            query_node.error(report, "this form of signature stands in a header", "", None);
        }
        let rule = Self { key, place, value, digest, form, methods };
        let mut signed = Vec::new();
        rule.form.templates(&mut signed);
        if signed.iter().any(|template| template.parts().any(|part| *part == MessagePart::Signature)) {
            node.error(report, "a signature cannot cover itself", "`{signature}` stands in `value` only", None);
        }
        let names_digest = rule.templates().iter().any(|one| one.parts().any(|part| *part == MessagePart::BodyDigest));
        if names_digest && rule.digest.is_none() {
            let help = "add `digest = { algorithm = \"sha-256\", encoding = \"hex\" }`".to_owned();
            node.error(report, "nothing says what `{body_digest}` is", "", Some(help));
        }
        if let Some(own) = own {
            own.extend(rule.digest.iter().filter_map(|digest| digest.field.clone()));
            rule.judge_covered(node, own, &client_headers, report);
            own.extend(rule.headers());
        }
        Some(rule)
    }

    /// Returns whether a request can have this signature and `other`.
    fn meets(&self, other: &Self) -> bool {
        let any = self.methods.is_empty() || other.methods.is_empty();
        any || self.methods.iter().any(|method| other.methods.contains(method))
    }

    /// The header fields that it covers.
    fn covered_headers(&self) -> Vec<HeaderName> {
        let mut covered = self.form.covered_fields();
        for template in self.templates() {
            covered.extend(template.parts().filter_map(|part| match part {
                MessagePart::Header(name) => Some(name.clone()),
                MessagePart::Authority
                | MessagePart::Body
                | MessagePart::BodyDigest
                | MessagePart::Method
                | MessagePart::Path
                | MessagePart::PathAndQuery
                | MessagePart::Query
                | MessagePart::Signature
                | MessagePart::Status => None,
            }));
        }
        covered
    }

    /// Returns whether it covers a header field.
    pub(super) fn covers_header(&self, name: &HeaderName) -> bool {
        self.covered_headers().contains(name)
    }

    /// Reports header fields that it covers, that a client controls, and that are not named as such.
    fn judge_covered(&self, node: &Node, own: &[HeaderName], named: &[FieldName], report: &Diagnostics) {
        for name in self.covered_headers() {
            let is_known = name == HOST || own.contains(&name) || named.iter().any(|named| named.0 == name);
            if !is_known {
                let help = format!(
                    "put it on with `inject`, or say `client_headers = [\"{name}\"]`: it is signed as it comes"
                );
                node.error(report, format!("the signature covers `{name}`, which a client controls"), "", Some(help));
            }
        }
    }

    /// All of its templates.
    pub(super) fn templates(&self) -> Vec<&Template> {
        let mut found = vec![&self.value];
        self.form.templates(&mut found);
        found
    }

    /// Returns whether it becomes a field of the body.
    pub(super) const fn is_field(&self) -> bool {
        matches!(self.place, CallPlace::Body(_))
    }

    /// The header fields that it sets.
    pub(super) fn headers(&self) -> Vec<HeaderName> {
        let mut names = Vec::new();
        if let CallPlace::Header(name) = &self.place {
            names.push(name.clone());
        }
        if let SignatureForm::Http { .. } = self.form {
            names.push(HeaderName::from_static("signature-input"));
        }
        names.extend(self.digest.iter().filter_map(|digest| digest.field.clone()));
        names
    }

    /// Where it puts anything.
    pub(super) fn places(&self) -> Vec<CallPlace> {
        let mut places: Vec<CallPlace> = self.headers().into_iter().map(CallPlace::Header).collect();
        if let CallPlace::Query(_) = &self.place {
            places.push(self.place.clone());
        }
        places
    }

    /// Returns whether it covers the body.
    pub(super) fn covers_body(&self) -> bool {
        let names_body = |template: &&Template| {
            template.parts().any(|part| matches!(part, MessagePart::Body | MessagePart::BodyDigest))
        };
        let states_digest = self.digest.as_ref().is_some_and(|digest| digest.field.is_some());
        self.form.takes_body() || states_digest || self.templates().iter().any(names_body)
    }

    /// Returns whether it covers the token.
    pub(super) fn covers_token(&self) -> bool {
        self.templates().iter().any(|template| template.has_token())
    }
}

/// The uses of keys by the signatures of requests, the client authentication and `others`.
pub(super) fn uses_of_keys<'a>(
    rules: impl Iterator<Item = &'a SignatureRule>,
    auths: impl Iterator<Item = &'a ClientAuth>,
    others: impl Iterator<Item = &'a KeyChoice>,
) -> Vec<(Arc<str>, KeyUse)> {
    let keys = rules.map(|rule| &rule.key).chain(auths.filter_map(ClientAuth::key)).chain(others);
    keys.filter_map(KeyChoice::use_of_key).map(|(name, algorithm)| (name.clone(), KeyUse::Sign(algorithm))).collect()
}

#[cfg(test)]
mod tests {
    use crate::provider::Profile;
    use crate::syntax::{Diagnostic, Diagnostics, SourceText};

    fn mistakes(entry: &str) -> Vec<String> {
        let text = format!(
            "name = \"a\"\n[settings.id]\n[settings.key]\nkind = \"key\"\n[settings.secret_key]\nsecret = true\n\
             [ids.nonce]\nkind = \"uuid\"\n[token]\nrequest = {{ path = \"/t\", encoding = \"none\" }}\n\
             response = {{ access_token = \"/t\" }}\n[request]\n\
             inject = [{{ header = \"authorization\", value = \"Bearer {{token}}\" }}]\n[[request.sign]]\n{entry}\n"
        );
        let report = Diagnostics::new();
        let profile = Profile::parse(&SourceText::new("bank.toml", text), &report);
        let found: Vec<String> = report.into_diagnostics().iter().map(Diagnostic::one_line).collect();
        assert_eq!(profile.is_none(), !found.is_empty(), "{found:?}");
        found
    }

    #[test]
    fn mistakes_in_signatures_are_told() {
        let key = "key = \"key\"\nalgorithm = \"RS256\"\n";
        let good = format!("{key}header = \"x-s\"\ntext = \"{{method}}{{token}}\"\n");
        let bare = format!("{key}header = \"x-s\"\n");
        assert_eq!(mistakes(&good), Vec::<String>::new());
        assert_eq!(mistakes(&good.replace("\"key\"", "\"secret_key\"").replace("RS", "HS")), Vec::<String>::new());
        for (entry, title) in [
            (good.replace("RS256", "none"), "`none` is no algorithm here"),
            (good.replace("RS256", "rs256"), "`rs256` is no algorithm here"),
            (good.replace("\"key\"", "\"kye\""), "no setting is called `kye`"),
            (good.replace("\"key\"", "\"id\""), "`id` is no key"),
            (good.replace("\"key\"", "\"secret_key\""), "RS256 needs an RSA key"),
            (good.replace("header = \"x-s\"", ""), "has no `header`"),
            (good.replace("x-s", "authorization"), "is injected already"),
            (good.replace("x-s", "host"), "belongs to the connection"),
            (good.replace("{method}", "{body_digest}"), "nothing says what `{body_digest}` is"),
            (good.replace("{method}", "{signature}"), "a signature cannot cover itself"),
            (good.replace("{method}", "{key}"), "`key` is a key, which is shown nowhere"),
            (good.replace("{method}", "{key.kid}"), "unknown placeholder `{key.kid}`"),
            (good.replace("{method}", "{header.psu-id}"), "the signature covers `psu-id`, which a client controls"),
            (format!("{good}value = \"v1\""), "the signature is put nowhere"),
            (format!("{good}query = \"s\""), "a signature has one place"),
            (format!("{good}field = \"request\""), "unknown key `field`"),
            (format!("{good}key_encoding = \"hex\""), "the file of a key says itself how it is written"),
            (format!("{good}encoding = \"base65\""), "`base65` is no encoding here"),
            (format!("{good}form = \"jsw\""), "`jsw` is not known here"),
            (format!("{good}claims = {{}}"), "unknown key `claims`"),
            (format!("{bare}form = \"jws\"\njose_header = {{ alg = \"ES256\" }}"), "names another algorithm"),
            (format!("{bare}form = \"jws\"\njose_header = {{ crit = [\"x\"] }}"), "the member crit lists names"),
            (format!("{key}form = \"http\"\ncomponents = [\"@metod\"]"), "is not a component that is read here"),
            (format!("{key}form = \"http\"\ncomponents = \"psu-id\""), "covers `psu-id`, which a client controls"),
            (format!("{key}form = \"http\"\ncomponents = []\nlabel = \"A b\""), "this is no label"),
            (format!("{key}form = \"http\"\ncomponents = []\nparams = {{ kid = \"x\" }}"), "is no parameter"),
            (format!("{key}form = \"cavage\"\nkey_id = \"k\"\nfields = [\"a b\"]"), "`a b` cannot be signed"),
            (format!("{bare}form = \"jwt\"\nlife = \"0s\""), "it would be over before it arrives"),
            (format!("{key}form = \"oauth1\"\nconsumer_key = \"c\"").replace("RS256", "PS256"), "RS256 or HS256"),
        ] {
            let found = mistakes(&entry);
            assert!(found.iter().any(|line| line.contains(title)), "{title}\nin\n{}", found.join("\n"));
        }
        let stated = format!("{good}client_headers = \"psu-id\"").replace("{method}", "{header.psu-id}{id.nonce}");
        assert_eq!(mistakes(&stated), Vec::<String>::new());
    }
}
