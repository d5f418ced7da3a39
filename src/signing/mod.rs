//! Signatures and encryption of single messages, as data describes them.
//!
//! Banks ask for signed requests in many dialects: JSON Web Signatures, HTTP message signatures, OAuth 1.0a, canonical
//! texts of their own. This module owns the keys and the exact bytes of each dialect. It is pure: moments, identifiers
//! and nonces are arguments, and no code here performs I/O. A signature takes two steps: a builder returns an unsigned
//! text with the bytes to sign, and a [`signer::Signer`], which may be a device elsewhere, returns the signature that
//! completes it.
//!
//! It must not know profiles, providers, tokens' lives or connections. An algorithm is always the caller's choice and
//! never taken from a message, secrets are never shown, and every refusal of a foreign message has one opaque error.

pub mod algorithm;
pub mod blocking_signature;
pub mod cavage;
pub mod cavage_check;
pub mod certificate;
pub mod claims;
pub mod device_input;
pub mod digest;
pub mod dpop;
pub mod encoding;
pub mod http_signature;
pub mod jwe;
pub mod jwk;
pub mod jwk_thumbprint;
pub mod jws;
pub mod key;
pub mod key_material;
pub mod minified_json;
pub mod oauth1;
pub mod pkcs;
pub mod private_key_pool;
pub mod public_key;
pub mod public_key_set;
pub mod request_parts;
pub mod shared_secret;
pub mod signature;
pub mod signer;
pub mod signing_scope;
mod structured_field;
pub mod verify;

#[cfg(test)]
mod tests;
