//! Private keys of TLS and of certificates that a signer elsewhere holds.
//!
//! TLS and the maker of certificates want signatures at once, so they wait for them. They may do so on threads without
//! an event loop alone: see [`crate::signing::blocking_signature`].

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, Signer as TlsSigner, SigningKey as TlsSigningKey};
use rustls::{Error, OtherError, SignatureAlgorithm, SignatureScheme};

use crate::signing::algorithm::{KeyType, SigningAlgorithm};
use crate::signing::blocking_signature::sign_blocking;
use crate::signing::signer::Signer;

/// The algorithms of TLS that keys elsewhere sign by, in the order of preference; TLS 1.3 has all but the last (RFC 8446
/// section 4.2.3).
pub const SIGNER_ALGORITHMS: [SigningAlgorithm; 5] = [
    SigningAlgorithm::Es256,
    SigningAlgorithm::Es384,
    SigningAlgorithm::EdDsa,
    SigningAlgorithm::Ps256,
    SigningAlgorithm::Rs256,
];

/// A private key that a signer holds, with the algorithms by which it signs.
#[derive(Clone, Debug)]
pub struct SignerKey {
    signer: Arc<dyn Signer>,
    algorithms: Vec<SigningAlgorithm>,
}

impl SignerKey {
    pub const fn new(signer: Arc<dyn Signer>, algorithms: Vec<SigningAlgorithm>) -> Self {
        Self { signer, algorithms }
    }

    /// Returns whether it can sign in TLS 1.3, which has no signatures of PKCS#1 v1.5.
    pub fn signs_tls13(&self) -> bool {
        self.algorithms.iter().any(|algorithm| *algorithm != SigningAlgorithm::Rs256)
    }

    /// Joins it with its certificate chain, leaf first.
    pub(super) fn certified(self, chain: Vec<CertificateDer<'static>>) -> Arc<CertifiedKey> {
        Arc::new(CertifiedKey::new(chain, Arc::new(self)))
    }
}

/// Returns the name of an algorithm in TLS; `None` for those that are not used there.
const fn scheme(algorithm: SigningAlgorithm) -> Option<SignatureScheme> {
    match algorithm {
        SigningAlgorithm::EdDsa => Some(SignatureScheme::ED25519),
        SigningAlgorithm::Es256 => Some(SignatureScheme::ECDSA_NISTP256_SHA256),
        SigningAlgorithm::Es384 => Some(SignatureScheme::ECDSA_NISTP384_SHA384),
        SigningAlgorithm::Ps256 => Some(SignatureScheme::RSA_PSS_SHA256),
        SigningAlgorithm::Rs256 => Some(SignatureScheme::RSA_PKCS1_SHA256),
        SigningAlgorithm::Hs256
        | SigningAlgorithm::Hs384
        | SigningAlgorithm::Hs512
        | SigningAlgorithm::Ps384
        | SigningAlgorithm::Ps512
        | SigningAlgorithm::Rs384
        | SigningAlgorithm::Rs512 => None,
    }
}

impl TlsSigningKey for SignerKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn TlsSigner>> {
        let known = SIGNER_ALGORITHMS.into_iter().filter(|algorithm| self.algorithms.contains(algorithm));
        let mut named = known.filter_map(|algorithm| Some((algorithm, scheme(algorithm)?)));
        let (algorithm, scheme) = named.find(|(_, scheme)| offered.contains(scheme))?;
        Some(Box::new(SchemeSigner { signer: self.signer.clone(), algorithm, scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.signer.key_type() {
            KeyType::Ed25519 => SignatureAlgorithm::ED25519,
            KeyType::P256 | KeyType::P384 => SignatureAlgorithm::ECDSA,
            KeyType::Rsa | KeyType::Secret => SignatureAlgorithm::RSA,
        }
    }
}

/// A signer for one handshake, by the algorithm that both sides have.
#[derive(Debug)]
struct SchemeSigner {
    signer: Arc<dyn Signer>,
    algorithm: SigningAlgorithm,
    scheme: SignatureScheme,
}

impl TlsSigner for SchemeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match sign_blocking(&*self.signer, self.algorithm, message) {
            Ok(made) => Ok(made.to_der()),
            Err(error) => Err(Error::Other(OtherError(Arc::new(error)))),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::blocking_signature::may_block;
    use crate::signing::key::SigningKey;
    use crate::signing::pkcs;
    use crate::signing::signer::SigningError;

    fn key(pem: &[u8], algorithms: &[SigningAlgorithm]) -> SignerKey {
        let key = SigningKey::Private(pkcs::private_key(pem, None).expect("a key"));
        SignerKey::new(Arc::new(key), algorithms.to_vec())
    }

    const RSA: &[u8] = include_bytes!("../../tests/fixtures/signing/rsa-pkcs8.pem");
    const P384: &[u8] = include_bytes!("../../tests/fixtures/signing/p384-pkcs8.pem");

    #[test]
    fn the_scheme_is_one_that_the_key_has_and_the_other_side_offers() {
        use SignatureScheme as Scheme;
        let chosen = |key: &SignerKey, offered: &[Scheme]| key.choose_scheme(offered).map(|signer| signer.scheme());
        let both = key(RSA, &[SigningAlgorithm::Rs256, SigningAlgorithm::Ps256]);
        let all = [Scheme::RSA_PKCS1_SHA256, Scheme::RSA_PSS_SHA256, Scheme::ECDSA_NISTP384_SHA384];
        assert_eq!(chosen(&both, &all), Some(Scheme::RSA_PSS_SHA256));
        assert_eq!(chosen(&both, &all[..1]), Some(Scheme::RSA_PKCS1_SHA256));
        assert_eq!(chosen(&both, &all[2..]), None);
        let old = key(RSA, &[SigningAlgorithm::Rs256]);
        assert_eq!(chosen(&old, &all), Some(Scheme::RSA_PKCS1_SHA256));
        assert_eq!((both.signs_tls13(), old.signs_tls13()), (true, false));
        let curve = key(P384, &[SigningAlgorithm::Es384]);
        assert_eq!(chosen(&curve, &all), Some(Scheme::ECDSA_NISTP384_SHA384));
        assert_eq!((curve.algorithm(), both.algorithm()), (SignatureAlgorithm::ECDSA, SignatureAlgorithm::RSA));
    }

    #[test]
    fn a_thread_with_an_event_loop_is_never_blocked() {
        let signer = key(P384, &[SigningAlgorithm::Es384]).choose_scheme(&[SignatureScheme::ECDSA_NISTP384_SHA384]);
        let signer = signer.expect("a scheme");
        let Err(Error::Other(OtherError(error))) = signer.sign(b"m") else { panic!("it has signed") };
        assert!(matches!(error.downcast_ref(), Some(SigningError::Unavailable(_))), "{error}");
        // An ECDSA signature is a DER sequence there.
        assert_eq!(may_block(|| signer.sign(b"m")).expect("signed").first(), Some(&0x30));
    }
}
