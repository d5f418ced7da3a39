//! Settings that are keys: `signing_key = { file = "sign.pem", password = { env = "P" } }`, or keys of a key service.

use std::ops::Range;
use std::sync::Arc;

use crate::base::secret::{ExposeSecret, SecretString};
use crate::provider::key_use::KeyUse;
use crate::provider::setting::{FileContent, ReadValue, RemoteKind};
use crate::signing::algorithm::{KeyType, SigningAlgorithm};
use crate::signing::certificate::CertificateChain;
use crate::signing::jwk;
use crate::signing::key::{KeyError, SigningKey};
use crate::signing::key_material::KeyMaterial;
use crate::signing::pkcs;
use crate::signing::private_key_pool::PrivateKeyPool;
use crate::signing::public_key::PublicKey;
use crate::signing::signer::Signer;
use crate::syntax::{Diagnostic, Diagnostics, Fields, Node, Severity, SourceText};

/// The place of a key: a file, by its form, or a key service.
enum KeyOrigin<'a> {
    File(KeyFile<'a>),
    Remote(RemoteKind, &'a Node),
}

/// The file of a key, by its form.
enum KeyFile<'a> {
    Jwk(&'a Node),
    Pem(&'a Node),
    Pkcs12(&'a Node),
}

/// The place of a setting in a config, with its password redacted out of what messages show.
struct KeyPlace<'a> {
    source: Arc<SourceText>,
    report: &'a Diagnostics,
}

impl KeyPlace<'_> {
    fn error(&self, span: &Range<usize>, title: String, help: &str) {
        self.push(Severity::Error, span, title, help);
    }

    fn push(&self, severity: Severity, span: &Range<usize>, title: String, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        let (source, span) = (self.source.clone(), span.clone());
        self.report.push(Diagnostic { severity, source, span, title, label: String::new(), help });
    }
}

/// A key as it was read, before its name and certificate are known.
enum FoundKey {
    /// With the certificates that stood beside it.
    InMemory(SigningKey, Option<CertificateChain>),
    Remote(Arc<dyn Signer>, PublicKey),
}

/// Reads the value of a key setting. All mistakes are reported.
pub(super) fn read_key(
    name: &str,
    uses: &[KeyUse],
    node: &Node,
    read: &dyn ReadValue,
    report: &Diagnostics,
) -> Option<Arc<KeyMaterial>> {
    if node.as_table().is_none() {
        let help = format!(
            "write `{name} = {{ file = \"sign.pem\" }}`, `{{ pkcs12 = \"sign.p12\" }}` or `{{ jwk = \"sign.jwk\" }}`; \
             `pkcs11` and `kms` name a key of a key service"
        );
        node.error(report, format!("`{name}` is a key, which is read from a file"), "", Some(help));
        return None;
    }
    let fields = Fields::new(node, format!("`{name}`"), report);
    let (pem, container, jwk) = (fields.take("file"), fields.take("pkcs12"), fields.take("jwk"));
    let (token, kms) = (fields.take("pkcs11"), fields.take("kms"));
    let (password_node, certificate_node) = (fields.take("password"), fields.take("certificate"));
    let id = fields.opt::<String>("id");
    fields.finish();
    let source = match password_node {
        Some(node) => super::setting::redacted(&node.source, &node.span),
        None => node.source.clone(),
    };
    let place = KeyPlace { source, report };
    let mut password = None;
    if let Some(node) = password_node {
        let (text, literal) = read.value(node, report)?;
        if literal {
            let title = "a password stands in the config file".to_owned();
            place.push(
                Severity::Warning,
                &node.span,
                title,
                "write `password = { env = \"NAME\" }` or `{ file = \"path\" }`",
            );
        }
        password = Some(text);
    }
    let files = [pem.map(KeyFile::Pem), container.map(KeyFile::Pkcs12), jwk.map(KeyFile::Jwk)];
    let remote = [token.map(|node| (RemoteKind::Pkcs11, node)), kms.map(|node| (RemoteKind::Kms, node))];
    let mut origins = files.into_iter().flatten().map(KeyOrigin::File).collect::<Vec<_>>();
    origins.extend(remote.into_iter().flatten().map(|(kind, node)| KeyOrigin::Remote(kind, node)));
    let origin = match (origins.pop(), origins.is_empty()) {
        (Some(origin), true) => origin,
        (None, _) => {
            let help = "write `file = \"sign.pem\"`, `pkcs12 = \"sign.p12\"` or `jwk = \"sign.jwk\"`";
            place.error(&node.span, format!("`{name}` names no file"), help);
            return None;
        }
        (Some(_), false) => {
            let help = "keep one of `file`, `pkcs12`, `jwk`, `pkcs11` and `kms`";
            place.error(&node.span, "a key comes from one place".to_owned(), help);
            return None;
        }
    };
    if let (KeyOrigin::Remote(..), Some(node)) = (&origin, password_node) {
        place.error(&node.span, "a key of a key service has no password".to_owned(), "a token's is its `pin`");
        return None;
    }
    let found = match &origin {
        KeyOrigin::File(file) => key(file, password.as_ref(), &place, read)?,
        KeyOrigin::Remote(kind, node) => {
            if let Some(decryption) = uses.iter().find(|key_use| matches!(key_use, KeyUse::Decrypt(_))) {
                let title = format!("a key of a key service signs, and `{name}` decrypts ({})", decryption.algorithm());
                place.error(&node.span, title, "give it a key from a file");
                return None;
            }
            let algorithms: Vec<SigningAlgorithm> = uses.iter().filter_map(|key_use| key_use.signs()).collect();
            let signer = read.remote_key(*kind, node, &algorithms, report)?;
            let public = signer.public_key()?;
            FoundKey::Remote(signer, public)
        }
    };
    let at = origin.node();
    for key_use in uses {
        if !key_use.takes(found.key_type()) {
            let title = format!("{} needs {}, and this is {}", key_use.algorithm(), key_use.key(), found.key_type());
            place.error(&at.span, title, "the profile says for which algorithm; ask the bank for its kind of key");
            return None;
        }
    }
    let chain = match certificate_node {
        Some(node) => Some(certificate(node, found.public(), &place, read)?),
        None => found.certificates().cloned(),
    };
    if chain.as_ref().is_some_and(|chain| chain.has_expired(read.unix_seconds())) {
        let node = certificate_node.unwrap_or(at);
        let title = format!("the certificate in `{}` has expired", node.as_str().unwrap_or_default());
        place.error(&node.span, title, "ask its issuer for a new one");
        return None;
    }
    Some(Arc::new(match found {
        FoundKey::InMemory(key, _) => KeyMaterial::new(key, chain, id, &PrivateKeyPool::of_process()),
        FoundKey::Remote(signer, public) => KeyMaterial::elsewhere(public, signer, chain, id),
    }))
}

impl FoundKey {
    fn key_type(&self) -> KeyType {
        match self {
            FoundKey::InMemory(key, _) => key.key_type(),
            FoundKey::Remote(_, public) => public.key_type(),
        }
    }

    const fn public(&self) -> Option<&PublicKey> {
        match self {
            FoundKey::InMemory(key, _) => key.public(),
            FoundKey::Remote(_, public) => Some(public),
        }
    }

    const fn certificates(&self) -> Option<&CertificateChain> {
        match self {
            FoundKey::InMemory(_, chain) => chain.as_ref(),
            FoundKey::Remote(..) => None,
        }
    }
}

impl<'a> KeyOrigin<'a> {
    const fn node(&self) -> &'a Node {
        match self {
            KeyOrigin::File(file) => file.node(),
            KeyOrigin::Remote(_, node) => node,
        }
    }
}

impl<'a> KeyFile<'a> {
    const fn node(&self) -> &'a Node {
        match self {
            KeyFile::Jwk(node) | KeyFile::Pem(node) | KeyFile::Pkcs12(node) => node,
        }
    }
}

fn key(
    file: &KeyFile<'_>,
    password: Option<&SecretString>,
    place: &KeyPlace<'_>,
    read: &dyn ReadValue,
) -> Option<FoundKey> {
    let node = file.node();
    let bytes = read.file(node, FileContent::Secret, place.report)?;
    let password = password.map(ExposeSecret::expose_secret);
    let made = match file {
        KeyFile::Jwk(_) => jwk::signing_key(&bytes).map(|key| (key, None)),
        KeyFile::Pem(_) => {
            pkcs::private_key(&bytes, password.map(str::as_bytes)).map(|key| (SigningKey::Private(key), None))
        }
        KeyFile::Pkcs12(_) => match password {
            Some(password) => {
                pkcs::pkcs12(&bytes, password).map(|(key, chain)| (SigningKey::Private(key), Some(chain)))
            }
            None => Err(KeyError::PasswordMissing),
        },
    };
    let error = match made {
        Ok((key, chain)) => return Some(FoundKey::InMemory(key, chain)),
        Err(error) => error,
    };
    let help = match error {
        KeyError::PasswordMissing => "add `password = { env = \"NAME\" }`",
        KeyError::PasswordWrong => "see the value that `password` names",
        KeyError::NoPrivateKey | KeyError::Public => "name the file of the private key; the bank has the public one",
        KeyError::Broken
        | KeyError::Curve
        | KeyError::Factors
        | KeyError::Jwk
        | KeyError::NoPublicKey
        | KeyError::OldEncryption
        | KeyError::Pem
        | KeyError::Short
        | KeyError::Secret(_) => "",
    };
    place.error(&node.span, format!("`{}`: {error}", node.as_str().unwrap_or_default()), help);
    None
}

/// Reads the certificates that belong to a key, and checks that they do.
fn certificate(
    node: &Node,
    key: Option<&PublicKey>,
    place: &KeyPlace<'_>,
    read: &dyn ReadValue,
) -> Option<CertificateChain> {
    let bytes = read.file(node, FileContent::Public, place.report)?;
    let shown = node.as_str().unwrap_or_default();
    let chain = match CertificateChain::from_pem(&bytes) {
        Ok(chain) => chain,
        Err(error) => {
            let help = "it must hold the key's certificate, and may hold those of its issuers behind it, as PEM";
            place.error(&node.span, format!("`{shown}`: {error}"), help);
            return None;
        }
    };
    if chain.public_key().ok().as_ref() != key || key.is_none() {
        let title = format!("the certificate in `{shown}` does not belong to the key");
        place.error(
            &node.span,
            title,
            "name the certificate that was issued for this key; its own stands first in the file",
        );
        return None;
    }
    Some(chain)
}
