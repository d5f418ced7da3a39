//! The settings of a described bank, drawn afresh at each start unless they are remembered.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde::Deserialize;
use uuid::Uuid;

use crate::base::secret::{ExposeSecret, Fingerprint, SecretString, hex};
use crate::record::RecordedKey;
use crate::sim::sim_memory::SimMemory;

/// A setting as a file says it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum SettingText {
    Plain(String),
    Secret(SecretText),
    Key(KeyText),
}

impl SettingText {
    /// A setting with this value.
    pub(super) fn of(value: &str, is_secret: bool) -> Self {
        if is_secret { Self::Secret(SecretText { secret: value.to_owned() }) } else { Self::Plain(value.to_owned()) }
    }

    /// A key of a recording; `None`: such keys are not drawn here.
    pub(super) fn key(key: &RecordedKey) -> Option<Self> {
        let RecordedKey { kind, id, certificate } = key;
        let drawn = match kind.as_str() {
            "ed25519" => DrawnKeyType::Ed25519,
            "p256" => DrawnKeyType::P256,
            "rsa" => DrawnKeyType::Rsa,
            _ => return None,
        };
        Some(Self::Key(KeyText { key: drawn, id: id.clone(), certificate: *certificate }))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretText {
    secret: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyText {
    key: DrawnKeyType,
    /// The name under which the bank knows the key.
    id: Option<String>,
    /// The key has a certificate.
    #[serde(default)]
    certificate: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DrawnKeyType {
    Ed25519,
    P256,
    Rsa,
}

/// A private key that the bank's client has; the bank uses its public half alone.
struct DrawnKey {
    pem: SecretString,
    public: Vec<u8>,
    id: Option<String>,
    certificate: Option<String>,
}

/// Where the lines of a config have a bank's secrets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::sim) enum SimSecretPlace {
    /// In files beside the config, which the lines name.
    File,
    /// In the lines.
    Line,
}

/// The values of a bank's settings in one run.
#[derive(Default)]
pub(in crate::sim) struct DrawnSettings {
    /// Each with whether it is secret.
    texts: BTreeMap<String, (SecretString, bool)>,
    keys: BTreeMap<String, DrawnKey>,
}

impl DrawnSettings {
    pub(super) fn draw(
        settings: &BTreeMap<String, SettingText>,
        bank: &str,
        memory: &SimMemory,
    ) -> Result<Self, String> {
        let mut drawn = Self::default();
        for (name, setting) in settings {
            let place = format!("{bank}/{name}");
            match setting {
                SettingText::Plain(text) => {
                    drawn.texts.insert(name.clone(), (memory.recall(&place, || draw(text)), false));
                }
                SettingText::Secret(text) => {
                    drawn.texts.insert(name.clone(), (memory.recall(&place, || draw(&text.secret)), true));
                }
                SettingText::Key(key) => {
                    let key = DrawnKey::draw(key, &place, memory).map_err(|error| format!("{place}: {error}"))?;
                    drawn.keys.insert(name.clone(), key);
                }
            }
        }
        Ok(drawn)
    }

    pub(super) fn text(&self, name: &str) -> Option<&SecretString> {
        self.texts.get(name).map(|(text, _)| text)
    }

    /// The lines of `[provider.NAME]`, with keys in files of these names: see [`DrawnSettings::files`].
    pub(in crate::sim) fn lines(&self, bank: &str, secrets: SimSecretPlace) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut lines = String::new();
        for (name, (text, is_secret)) in &self.texts {
            let _ = match secrets {
                SimSecretPlace::File if *is_secret => {
                    writeln!(lines, "{name} = {{ file = {} }}", quoted(&format!("{bank}-{name}")))
                }
                SimSecretPlace::File | SimSecretPlace::Line => {
                    writeln!(lines, "{name} = {}", quoted(text.expose_secret()))
                }
            };
        }
        for (name, key) in &self.keys {
            let _ = write!(lines, "{name} = {{ file = {}", quoted(&format!("{bank}-{name}.pem")));
            if key.certificate.is_some() {
                let _ = write!(lines, ", certificate = {}", quoted(&format!("{bank}-{name}.crt")));
            }
            if let Some(id) = &key.id {
                let _ = write!(lines, ", id = {}", quoted(id));
            }
            lines += " }\n";
        }
        lines
    }

    /// The files that those lines name: names and contents.
    pub(in crate::sim) fn files(&self, bank: &str, secrets: SimSecretPlace) -> Vec<(String, SecretString)> {
        let mut files = Vec::new();
        if secrets == SimSecretPlace::File {
            let secret = self.texts.iter().filter(|(_, (_, is_secret))| *is_secret);
            files.extend(secret.map(|(name, (text, _))| (format!("{bank}-{name}"), text.clone())));
        }
        for (name, key) in &self.keys {
            files.push((format!("{bank}-{name}.pem"), key.pem.clone()));
            if let Some(certificate) = &key.certificate {
                files.push((format!("{bank}-{name}.crt"), SecretString::from(certificate.clone())));
            }
        }
        files
    }

    /// `text` with every secret in it replaced by its fingerprint.
    pub(in crate::sim) fn mask(&self, text: &str) -> String {
        let secrets = self.texts.values().filter(|(text, is_secret)| *is_secret && !text.expose_secret().is_empty());
        secrets.fold(text.to_owned(), |text, (secret, _)| {
            let secret = secret.expose_secret();
            text.replace(secret, &format!("‹secret {}›", Fingerprint::of(secret.as_bytes())))
        })
    }

    /// Returns whether a signature by the key of this name, under a JOSE algorithm, is valid.
    pub(super) fn is_signed(&self, key: &str, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let Some(key) = self.keys.get(key) else { return false };
        let algorithms: &[&'static dyn VerificationAlgorithm] = match algorithm {
            "RS256" => &[&RSA_PKCS1_2048_8192_SHA256],
            "RS384" => &[&RSA_PKCS1_2048_8192_SHA384],
            "RS512" => &[&RSA_PKCS1_2048_8192_SHA512],
            "PS256" => &[&RSA_PSS_2048_8192_SHA256],
            "PS384" => &[&RSA_PSS_2048_8192_SHA384],
            "PS512" => &[&RSA_PSS_2048_8192_SHA512],
            // In JOSE two numbers of fixed size, elsewhere in ASN.1.
            "ES256" => &[&ECDSA_P256_SHA256_FIXED, &ECDSA_P256_SHA256_ASN1],
            "EdDSA" => &[&ED25519],
            _ => &[],
        };
        algorithms
            .iter()
            .any(|algorithm| UnparsedPublicKey::new(*algorithm, &key.public).verify(message, signature).is_ok())
    }
}

impl DrawnKey {
    fn draw(text: &KeyText, place: &str, memory: &SimMemory) -> Result<Self, rcgen::Error> {
        let algorithm = match text.key {
            DrawnKeyType::Ed25519 => &PKCS_ED25519,
            DrawnKeyType::P256 => &PKCS_ECDSA_P256_SHA256,
            DrawnKeyType::Rsa => &PKCS_RSA_SHA256,
        };
        let pem = memory.try_recall(place, || KeyPair::generate_for(algorithm).map(|pair| pair.serialize_pem()))?;
        let pair = KeyPair::from_pem(pem.expose_secret())?;
        let self_signed = || Ok(CertificateParams::new(Vec::new())?.self_signed(&pair)?.pem());
        let certificate = match text.certificate {
            true => Some(memory.try_recall(&format!("{place}/certificate"), self_signed)?.expose_secret().to_owned()),
            false => None,
        };
        let id = |id: &str| memory.recall(&format!("{place}/id"), || draw(id)).expose_secret().to_owned();
        let id = text.id.as_deref().map(id);
        Ok(Self { pem, public: pair.public_key_raw().to_vec(), id, certificate })
    }
}

/// `text` with `{hex32}`, `{uuid}` and `{digits:N}` drawn.
fn draw(text: &str) -> String {
    let mut drawn = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        drawn.push_str(before);
        let found = behind.split_once('}').and_then(|(name, after)| Some((one(name)?, after)));
        match found {
            Some((value, after)) => {
                drawn.push_str(&value);
                rest = after;
            }
            None => {
                drawn.push('{');
                rest = behind;
            }
        }
    }
    drawn + rest
}

fn one(name: &str) -> Option<String> {
    match name {
        "hex32" => Some(hex(&rand::random::<[u8; 16]>())),
        "hex64" => Some(hex(&rand::random::<[u8; 32]>())),
        "uuid" => Some(Uuid::new_v4().to_string()),
        _ => {
            let digits: usize = name.strip_prefix("digits:")?.parse().ok()?;
            Some((0..digits.min(64)).map(|_| char::from(b'0' + rand::random::<u8>() % 10)).collect())
        }
    }
}
