//! A key as a profile uses it: its signer, its name at the bank, its certificate.

use std::sync::Arc;

use super::algorithm::KeyType;
use super::algorithm::SigningAlgorithm;
use super::certificate::CertificateChain;
use super::encoding::base64;
use super::jwk_thumbprint::jwk_thumbprint;
use super::key::SigningKey;
use super::private_key_pool::PrivateKeyPool;
use super::public_key::PublicKey;
use super::signer::Signer;
use super::signer::SigningError;
use crate::base::secret::sha256;

/// A statement about a key that messages contain: its name, or something of its certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyStatement {
    /// The certificate in DER, in base64.
    Certificate,
    Id,
    Issuer,
    /// The key identifier of PSD2.
    Psd2Id,
    Serial,
    SerialDecimal,
    /// The SHA-256 of the certificate in hexadecimal digits.
    Sha256Hex,
    Subject,
    /// The JWK thumbprint (RFC 7638).
    Thumbprint,
    /// The certificates in base64; a list in JSON.
    X5c,
    /// The SHA-1 of the certificate in base64url.
    X5t,
    /// The SHA-256 of the certificate in base64url.
    X5tS256,
}

impl KeyStatement {
    /// Every statement with its word.
    pub const WORDS: [(&'static str, KeyStatement); 12] = [
        ("certificate", KeyStatement::Certificate),
        ("id", KeyStatement::Id),
        ("issuer", KeyStatement::Issuer),
        ("psd2_id", KeyStatement::Psd2Id),
        ("serial", KeyStatement::Serial),
        ("serial_decimal", KeyStatement::SerialDecimal),
        ("sha256_hex", KeyStatement::Sha256Hex),
        ("subject", KeyStatement::Subject),
        ("thumbprint", KeyStatement::Thumbprint),
        ("x5c", KeyStatement::X5c),
        ("x5t", KeyStatement::X5t),
        ("x5t_s256", KeyStatement::X5tS256),
    ];

    /// Returns the key that has to stand beside the private key for it; `None` if that alone is enough.
    pub const fn needs(self) -> Option<&'static str> {
        match self {
            KeyStatement::Id => Some("id"),
            KeyStatement::Thumbprint => None,
            KeyStatement::Certificate
            | KeyStatement::Issuer
            | KeyStatement::Psd2Id
            | KeyStatement::Serial
            | KeyStatement::SerialDecimal
            | KeyStatement::Sha256Hex
            | KeyStatement::Subject
            | KeyStatement::X5c
            | KeyStatement::X5t
            | KeyStatement::X5tS256 => Some("certificate"),
        }
    }
}

/// A key with all that is known of it.
#[derive(Debug)]
pub struct KeyMaterial {
    known: KnownPart,
    signer: Arc<dyn Signer>,
    certificate: Option<CertificateChain>,
    id: Option<String>,
}

/// The part of a key that is at hand, wherever it signs.
#[derive(Debug)]
enum KnownPart {
    /// A private key or a shared secret.
    InMemory(Arc<SigningKey>),
    /// The public key of a private key that stays elsewhere.
    Public(PublicKey),
}

impl KeyMaterial {
    /// A key in memory. A private key signs in `pool`, a shared secret at once.
    pub fn new(
        key: SigningKey,
        certificate: Option<CertificateChain>,
        id: Option<String>,
        pool: &PrivateKeyPool,
    ) -> Self {
        let key = Arc::new(key);
        let signer: Arc<dyn Signer> = match &*key {
            SigningKey::Private(_) => pool.signer(key.clone()),
            SigningKey::Secret(_) => key.clone(),
        };
        Self { known: KnownPart::InMemory(key), signer, certificate, id }
    }

    /// A private key that `signer` holds, with its public key.
    pub const fn elsewhere(
        public: PublicKey,
        signer: Arc<dyn Signer>,
        certificate: Option<CertificateChain>,
        id: Option<String>,
    ) -> Self {
        Self { known: KnownPart::Public(public), signer, certificate, id }
    }

    pub const fn signer(&self) -> &Arc<dyn Signer> {
        &self.signer
    }

    /// Returns the key itself, to decrypt with it; `None`: it stays elsewhere.
    pub const fn in_memory(&self) -> Option<&Arc<SigningKey>> {
        match &self.known {
            KnownPart::InMemory(key) => Some(key),
            KnownPart::Public(_) => None,
        }
    }

    /// Returns the name of the key at the bank.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the public key; a shared secret has none.
    pub fn public(&self) -> Option<&PublicKey> {
        match &self.known {
            KnownPart::InMemory(key) => key.public(),
            KnownPart::Public(public) => Some(public),
        }
    }

    pub fn key_type(&self) -> KeyType {
        match &self.known {
            KnownPart::InMemory(key) => key.key_type(),
            KnownPart::Public(public) => public.key_type(),
        }
    }

    /// Checks whether the key fits an algorithm.
    pub fn check(&self, algorithm: SigningAlgorithm) -> Result<(), SigningError> {
        let key = self.key_type();
        if algorithm.key_type() != key {
            return Err(SigningError::WrongKey { algorithm, key });
        }
        match self.in_memory().map(|key| &**key) {
            // Its length counts, too.
            Some(SigningKey::Secret(secret)) => secret.sign(algorithm, b"").map(drop),
            Some(SigningKey::Private(_)) | None => Ok(()),
        }
    }

    /// Returns what tells the key from others, for digests of settings: another key, name or certificate, other bytes.
    pub fn mark(&self) -> [u8; 32] {
        let key = match &self.known {
            KnownPart::InMemory(key) => key.mark(),
            KnownPart::Public(public) => public.mark(),
        };
        let certificate = self.certificate.as_ref().map_or([0; 32], |chain| sha256(chain.x5c().join(",").as_bytes()));
        let id = self.id.as_ref().map_or([0; 32], |id| sha256(id.as_bytes()));
        sha256(&[key, certificate, id].concat())
    }

    /// Returns a statement about it; `None` if it has no such thing.
    pub fn statement(&self, statement: KeyStatement) -> Option<String> {
        let chain = || self.certificate.as_ref();
        match statement {
            KeyStatement::Certificate => chain().map(|chain| base64(chain.own())),
            KeyStatement::Id => self.id.clone(),
            KeyStatement::Issuer => chain().map(CertificateChain::issuer),
            KeyStatement::Psd2Id => chain().map(CertificateChain::psd2_key_id),
            KeyStatement::Serial => chain().map(CertificateChain::serial),
            KeyStatement::SerialDecimal => chain().map(CertificateChain::serial_decimal),
            KeyStatement::Sha256Hex => chain().map(CertificateChain::sha256_hex),
            KeyStatement::Subject => chain().map(CertificateChain::subject),
            KeyStatement::Thumbprint => self.public().map(jwk_thumbprint),
            KeyStatement::X5c => chain().map(|chain| chain.x5c().join(",")),
            KeyStatement::X5t => chain().map(CertificateChain::x5t),
            KeyStatement::X5tS256 => chain().map(CertificateChain::x5t_s256),
        }
    }

    /// Returns the values of `x5c`; `None` without a certificate.
    pub fn x5c(&self) -> Option<Vec<String>> {
        self.certificate.as_ref().map(CertificateChain::x5c)
    }
}
