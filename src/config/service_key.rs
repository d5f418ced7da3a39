//! `pkcs11` and `kms` of a key setting: where a private key is that stays there.

use std::sync::Arc;
use std::time::Duration;

use crate::base::origin::BaseUrl;
use crate::base::secret::{ExposeSecret, SecretString, sha256};
use crate::base::time::Clock;
use crate::key_service::pkcs11::TokenKeyName;
use crate::key_service::{
    DeviceError, KeyName, KeyPart, KeyServices, KmsSettings, Pkcs11Settings, ServiceSettings, TokenName, UnwrappedKey,
};
use crate::provider::RemoteKind;
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::public_key::PublicKey;
use crate::signing::signer::Signer;
use crate::syntax::{Diagnostics, Fields, Kind, Node};
use crate::tls::{self, ClientTls};
use crate::upstream::{Destination, EgressPath};

use super::pooled_way::PooledWay;
use super::provider::{http_proxy, url};
use super::reader::Reader;
use super::schema::{MAY, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText};

/// The longest answer of a key management service that is read, in bytes.
const MOST_ANSWER: usize = 64 * 1024;
/// Connecting takes no longer; the caller bounds it closer.
const CONNECT: Duration = Duration::from_secs(10);

/// A key service as a config describes it, with the key that is wanted of it.
struct ServiceKey {
    settings: ServiceSettings,
    key: KeyName,
}

/// The keys of a table that names a key of a key service, for the schema.
pub(super) const KEYS: SchemaSection = (
    "service_key",
    &[
        ("kms", SchemaShape::Settings, MAY, "a key that stays in AWS KMS"),
        ("pkcs11", SchemaShape::Settings, MAY, "a key that stays in a PKCS#11 token"),
    ],
);

/// A key of a key service that signs by one algorithm of several at least.
pub(super) struct AnyKey {
    pub(super) signer: Arc<dyn Signer>,
    pub(super) public: PublicKey,
    /// The algorithms by which it signs.
    pub(super) algorithms: Vec<SigningAlgorithm>,
    /// Digest of the service's settings and of the public key.
    pub(super) digest: [u8; 32],
}

/// The words for the kinds of services.
const KINDS: [&str; 2] = ["pkcs11", "kms"];

/// Returns whether a table names a key service.
pub(super) fn is_named(node: &Node) -> bool {
    node.as_table().is_some_and(|table| KINDS.iter().any(|word| table.find(word).is_some()))
}

/// Finds out what the value of a key names, in the form `{ pkcs11 = { … } }`; reports what is wrong with it.
pub(super) fn place_of_key<'a>(node: &'a Node, key: &str, reader: &Reader<'_>) -> Option<(RemoteKind, &'a Node)> {
    let help = format!("write `{key} = \"path\"`, `{key} = {{ pkcs11 = {{ … }} }}` or `{key} = {{ kms = {{ … }} }}`");
    place(node, &format!("`{key}`"), &[], &help, reader)
}

/// The same for a table that may have more keys. `what` is its name in messages.
pub(super) fn place<'a>(
    node: &'a Node,
    what: &str,
    more: &[&str],
    help: &str,
    reader: &Reader<'_>,
) -> Option<(RemoteKind, &'a Node)> {
    let fields = Fields::new(node, what, reader.report);
    for word in KINDS.iter().chain(more) {
        fields.take(word);
    }
    fields.finish();
    let [token, kms] = KINDS.map(|word| node.as_table()?.find(word).map(|entry| &entry.value));
    let title = match (token, kms) {
        (Some(node), None) => return Some((RemoteKind::Pkcs11, node)),
        (None, Some(node)) => return Some((RemoteKind::Kms, node)),
        (Some(_), Some(_)) => "a key comes from one place".to_owned(),
        (None, None) => format!("{what} does not say where the key is"),
    };
    Position::of(node).error(reader.report, title, help);
    None
}

/// Reads where a key is, reaches it, and tries whether it signs by these algorithms. Mistakes and refusals are reported
/// at what they are about.
pub(super) fn read(
    kind: RemoteKind,
    node: &Node,
    algorithms: &[SigningAlgorithm],
    reader: &Reader<'_>,
    report: &Diagnostics,
) -> Option<Arc<dyn Signer>> {
    let open = |services: &KeyServices, named: ServiceKey| services.key(named.settings, &named.key, algorithms);
    let key: Arc<dyn Signer> = Arc::new(opened(kind, node, KeyTrial::BySigning, reader, report, open)?);
    Some(key)
}

/// Reads where a key is that decrypts, and has it decrypt a wrapped key, which stands at `place`.
pub(super) fn unwrap(
    kind: RemoteKind,
    node: &Node,
    (place, ciphertext): (&Node, &[u8]),
    reader: &Reader<'_>,
) -> Option<Arc<UnwrappedKey>> {
    opened(kind, node, KeyTrial::ByDecrypting(place), reader, reader.report, |services, named| {
        services.unwrap(named.settings, &named.key, ciphertext)
    })
}

/// The use that is made of a key when the config is read.
#[derive(Clone, Copy)]
enum KeyTrial<'a> {
    /// A wrapped key is decrypted, which stands there.
    ByDecrypting(&'a Node),
    BySigning,
}

/// The same for a key that has to sign by one of these algorithms.
pub(super) fn read_any(
    kind: RemoteKind,
    node: &Node,
    algorithms: &[SigningAlgorithm],
    reader: &Reader<'_>,
) -> Option<AnyKey> {
    let (key, algorithms, settings) =
        opened(kind, node, KeyTrial::BySigning, reader, reader.report, |services, named| {
            let digest = named.settings.digest();
            let (key, algorithms) = services.key_by_any(named.settings, &named.key, algorithms)?;
            Ok((key, algorithms, digest))
        })?;
    let public = key.public_key()?;
    if algorithms.is_empty() {
        let title = format!("{} is of no use here", public.key_type());
        Position::of(node).error(reader.report, title, "use an RSA key, or one on P-256 or P-384");
        return None;
    }
    let digest = sha256(&[settings, public.mark()].concat());
    Some(AnyKey { signer: Arc::new(key), public, algorithms, digest })
}

/// Reads where a key is, and opens it. Mistakes and refusals are reported at what they are about.
fn opened<T>(
    kind: RemoteKind,
    node: &Node,
    proven: KeyTrial<'_>,
    reader: &Reader<'_>,
    report: &Diagnostics,
    open: impl FnOnce(&KeyServices, ServiceKey) -> Result<T, DeviceError>,
) -> Option<T> {
    let word = match kind {
        RemoteKind::Kms => "kms",
        RemoteKind::Pkcs11 => "pkcs11",
    };
    let fields = Fields::new(node, format!("`{word}` of a key"), report);
    let errors = report.errors();
    let named = match kind {
        RemoteKind::Kms => kms(&fields, reader),
        RemoteKind::Pkcs11 => pkcs11(&fields, reader),
    };
    let place = |part: KeyPart| {
        let keys: &[&str] = match (part, kind) {
            (KeyPart::Ciphertext, _) => &[],
            (KeyPart::Credentials, _) => &["access_key_id"],
            (KeyPart::Key, RemoteKind::Kms) => &["key"],
            (KeyPart::Key, RemoteKind::Pkcs11) => &["label", "id"],
            (KeyPart::Module, _) => &["module"],
            (KeyPart::Pin, _) => &["pin"],
            (KeyPart::Service, _) => &["endpoint", "region"],
            (KeyPart::Token, _) => &["token", "slot"],
        };
        let own = keys.iter().find_map(|key| node.as_table()?.find(key)).map_or(node, |entry| &entry.value);
        let found = match (part, proven) {
            (KeyPart::Ciphertext, KeyTrial::ByDecrypting(place)) => place,
            (..) => own,
        };
        let position = Position::of(found);
        if matches!(part, KeyPart::Credentials | KeyPart::Pin) { position.redacted() } else { position }
    };
    fields.finish();
    let named = named.filter(|_| report.errors() == errors)?;
    let Some(services) = reader.key_services() else {
        Position::of(node).error(report, "no key service is reached here", "");
        return None;
    };
    let title = named.settings.title();
    match open(services, named) {
        Ok(opened) => Some(opened),
        Err(DeviceError::Refused(problem)) => {
            place(problem.part).error(report, problem.what, problem.cure);
            None
        }
        Err(DeviceError::Ended(why) | DeviceError::Failed(why)) => {
            let help = match proven {
                KeyTrial::ByDecrypting(_) => "the key of the store is decrypted there before any request is served",
                KeyTrial::BySigning => {
                    "the key's public half is read and a signature is tried before any request is served"
                }
            };
            place(KeyPart::Service).error(report, format!("the key service `{title}` does not answer: {why}"), help);
            None
        }
    }
}

fn pkcs11(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<ServiceKey> {
    let report = fields.report();
    let module = fields.req::<SpannedText>("module", "\"/usr/lib/softhsm/libsofthsm2.so\"");
    let (token, slot) = (fields.opt::<SpannedText>("token"), fields.opt::<u64>("slot"));
    let (label, id) = (fields.opt::<SpannedText>("label"), fields.opt::<SpannedText>("id"));
    let has = |key: &str| fields.node().as_table().is_some_and(|table| table.find(key).is_some());
    let pin = fields.take("pin").and_then(|node| secret(node, "pin", "the PIN", reader));
    let token = match (token, slot) {
        (Some(label), None) => Some(TokenName::Label(label.text)),
        (None, Some(slot)) => Some(TokenName::Slot(slot)),
        (Some(label), Some(_)) => {
            label.place.error(report, "`token` and `slot` say the same thing twice", "keep one of them");
            None
        }
        (None, None) if has("token") || has("slot") => None,
        (None, None) => {
            fields.missing("token", "\"the token's label\"` or `slot = 0");
            None
        }
    };
    let id = match id {
        Some(word) => match octets(&word.text) {
            Some(id) => Some(Some(id)),
            None => {
                let help = "write the id in hexadecimal digits, as in `\"01a2\"`";
                word.place.error(report, format!("`{}` is no id of a key", word.text), help);
                None
            }
        },
        None => Some(None),
    };
    let label = label.map(|word| word.text);
    if !has("label") && !has("id") {
        fields.missing("label", "\"the key's label\"` or `id = \"01");
    }
    let settings = Pkcs11Settings { module: reader.resolve(&module?.text), token: token?, pin };
    Some(ServiceKey {
        settings: ServiceSettings::Pkcs11(settings),
        key: KeyName::Token(TokenKeyName { label, id: id? }),
    })
}

fn kms(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<ServiceKey> {
    let report = fields.report();
    let provider = fields.req::<SpannedText>("provider", "\"aws\"");
    if let Some(word) = &provider {
        word.find("key management service", ["aws"].into_iter(), report)?;
    }
    let key = fields.req::<SpannedText>("key", "\"alias/bank\"` or `key = \"arn:aws:kms:…");
    let region = fields.req::<SpannedText>("region", "\"eu-central-1\"");
    let access = fields.take("access_key_id");
    let secret_node = fields.take("secret_access_key");
    for (name, node) in [("access_key_id", access), ("secret_access_key", secret_node)] {
        if node.is_none() {
            fields.missing(name, &format!("{{ env = \"AWS_{}\" }}", name.to_ascii_uppercase()));
        }
    }
    let access = access.and_then(|node| reader.value(node, report));
    let secret_key = secret_node.and_then(|node| secret(node, "secret_access_key", "the secret access key", reader));
    let session = fields.take("session_token");
    let session_token = session.and_then(|node| secret(node, "session_token", "the session token", reader));
    let endpoint = fields.opt::<SpannedText>("endpoint").map(|word| url(&word, report));
    let proxy = http_proxy(fields, reader);
    let ca = fields.opt::<SpannedText>("ca");
    let pem = ca.as_ref().map(|word| reader.ca_file(word));
    let region = region?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !plain(&region.text) {
        region.place.error(report, format!("`{}` is no region", region.text), "write it as in `\"eu-central-1\"`");
        return None;
    }
    let endpoint = match endpoint {
        Some(url) => url?,
        None => BaseUrl::parse(&format!("https://kms.{}.amazonaws.com", region.text)).ok()?,
    };
    let pem = match pem {
        Some(read) => Some(read?),
        None => None,
    };
    let mut inputs = endpoint.to_string().into_bytes();
    inputs.extend(sha256(pem.as_deref().unwrap_or_default()));
    inputs.extend(proxy.as_ref().map_or([0; 32], |(_, digest)| *digest));
    let transport = sha256(&[b"kms".as_slice(), pem.as_deref().unwrap_or_default()].concat());
    let tls = reader.client_tls(transport, || tls::client(ClientTls { ca: pem.as_deref(), ..ClientTls::default() }));
    let tls = match tls {
        Ok(tls) => tls,
        Err(error) => {
            reader.tls_mistake(&error, ca.as_ref(), &region.place);
            return None;
        }
    };
    let destination = Destination {
        host: endpoint.bare_host().into(),
        port: endpoint.port(),
        tls,
        server_name: endpoint.server_name().clone(),
        path: EgressPath { proxy: proxy.map(|(proxy, _)| proxy), ..EgressPath::default() },
        connect_timeout: CONNECT,
    };
    let settings = KmsSettings {
        region: region.text,
        host: endpoint.authority(),
        access_key_id: access?.0.expose_secret().to_owned(),
        secret_access_key: secret_key?,
        session_token,
        http: Arc::new(PooledWay { destination, most: MOST_ANSWER }),
        http_digest: sha256(&inputs),
        clock: Clock::System,
    };
    Some(ServiceKey { settings: ServiceSettings::Kms(settings), key: KeyName::Kms(key?.text) })
}

/// Reads a secret, and warns of one that stands in the file.
fn secret(node: &Node, key: &str, what: &str, reader: &Reader<'_>) -> Option<SecretString> {
    let (text, literal) = reader.value(node, reader.report)?;
    if literal && matches!(node.kind, Kind::String(_)) {
        let help = format!("write `{key} = {{ env = \"NAME\" }}` or `{{ file = \"path\" }}`");
        Position::of(node).redacted().warning(reader.report, format!("{what} stands in the config file"), help);
    }
    Some(text)
}

/// Reads hexadecimal digits.
fn octets(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_hex = !text.is_empty() && text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { text.as_bytes().chunks(2).map(pair).collect() } else { None }
}
