//! The devices behind key services, and the words in which they fail.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::kms::KmsDevice;
use super::pkcs11::ModuleDevice;
use super::service::{KeyName, ServiceSettings};
use crate::base::secret::SecretBox;
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::device_input::DeviceInput;
use crate::signing::public_key::PublicKey;
use crate::signing::signature::DigitalSignature;

/// The setting of a key that a problem is about.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPart {
    /// The ciphertext of a wrapped key.
    Ciphertext,
    /// Access key, secret and session token of an account.
    Credentials,
    /// The key's own name: its label, its id, its ARN.
    Key,
    /// The file of a PKCS#11 module.
    Module,
    Pin,
    /// The service as a whole: its address, its answers.
    Service,
    /// The token or slot.
    Token,
}

/// A refusal: what is wrong, and what to do about it. Neither text holds a secret.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeyProblem {
    pub part: KeyPart,
    pub what: String,
    pub cure: String,
}

impl KeyProblem {
    pub(super) fn new(part: KeyPart, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { part, what: what.into(), cure: cure.into() }
    }

    /// Returns whether trying again could only make it worse: a token locks itself after a few wrong PINs.
    pub(super) const fn is_final(&self) -> bool {
        match self.part {
            KeyPart::Pin => true,
            KeyPart::Ciphertext
            | KeyPart::Credentials
            | KeyPart::Key
            | KeyPart::Module
            | KeyPart::Service
            | KeyPart::Token => false,
        }
    }
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.cure)
    }
}

/// The reason for which a device did not do what it was asked to do.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum DeviceError {
    /// Its process or connection is gone for certain.
    #[error("{0}")]
    Ended(String),
    /// It did not answer as it should, or not in time.
    #[error("{0}")]
    Failed(String),
    /// It answered, with a refusal.
    #[error("{0}")]
    Refused(KeyProblem),
}

impl DeviceError {
    pub(super) fn refused(part: KeyPart, what: impl Into<String>, cure: impl Into<String>) -> Self {
        DeviceError::Refused(KeyProblem::new(part, what, cure))
    }
}

/// A device, as its service drives it. It lives on the thread of the services. Callers bound the time of each call.
pub enum KeyDevice {
    Kms(KmsDevice),
    Pkcs11(ModuleDevice),
    #[cfg(test)]
    Scripted(super::service::tests::ScriptedDevice),
}

impl KeyDevice {
    pub(super) fn new(settings: ServiceSettings) -> Self {
        match settings {
            ServiceSettings::Kms(settings) => KeyDevice::Kms(KmsDevice::new(settings)),
            ServiceSettings::Pkcs11(settings) => KeyDevice::Pkcs11(ModuleDevice::new(settings)),
            #[cfg(test)]
            ServiceSettings::Scripted(device) => KeyDevice::Scripted(device),
        }
    }

    /// Reaches the device, and reads the public half of a key.
    pub(super) async fn public_key(&self, name: &KeyName) -> Result<PublicKey, DeviceError> {
        match self {
            KeyDevice::Kms(kms) => kms.public_key(name).await,
            KeyDevice::Pkcs11(module) => module.public_key(name).await,
            #[cfg(test)]
            KeyDevice::Scripted(device) => device.public_key().await,
        }
    }

    pub(super) async fn sign(
        &self,
        name: &KeyName,
        algorithm: SigningAlgorithm,
        input: &DeviceInput,
    ) -> Result<DigitalSignature, DeviceError> {
        match self {
            KeyDevice::Kms(kms) => kms.sign(name, algorithm, input).await,
            KeyDevice::Pkcs11(module) => module.sign(name, algorithm, input).await,
            #[cfg(test)]
            KeyDevice::Scripted(device) => device.sign(algorithm, input).await,
        }
    }

    /// Reaches the device, and decrypts a wrapped key.
    pub(super) async fn unwrap(&self, name: &KeyName, ciphertext: &[u8]) -> Result<SecretBox<[u8]>, DeviceError> {
        match self {
            KeyDevice::Kms(kms) => kms.unwrap(name, ciphertext).await,
            KeyDevice::Pkcs11(module) => module.unwrap(name, ciphertext).await,
            #[cfg(test)]
            KeyDevice::Scripted(device) => device.unwrap(ciphertext).await,
        }
    }

    /// Tries whether the device is there again, with the key that was read last.
    pub(super) async fn try_again(&self, name: &KeyName) -> Result<(), DeviceError> {
        match self.public_key(name).await {
            // The service lives; a refusal of this key is told to those who use it.
            Err(DeviceError::Refused(problem)) => match (self, problem.part) {
                (KeyDevice::Kms(_), KeyPart::Credentials | KeyPart::Key) => Ok(()),
                (..) => Err(DeviceError::Refused(problem)),
            },
            tried => tried.map(drop),
        }
    }

    /// Gives up what is under way, and ends what does not answer.
    pub(super) fn abandon(&self) {
        match self {
            // A call that is given up takes its connection along.
            KeyDevice::Kms(_) => {}
            KeyDevice::Pkcs11(module) => module.end(),
            #[cfg(test)]
            KeyDevice::Scripted(_) => {}
        }
    }
}
