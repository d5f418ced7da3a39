//! PKCS#11 tokens: hardware security modules, smart cards, and SoftHSM.
//!
//! A module is loaded by a process of its own, a copy of this program with the command `pkcs11-module`
//! ([`run_module_process`]), which is started and asked by [`ModuleDevice`] over a socket. So neither keys of a token
//! that is software nor faults of foreign code are in the process that holds tokens and speaks with clients; a module
//! that hangs is ended with its process, and one that has lost its token starts from scratch.

mod module_call;
mod module_device;
mod module_process;
mod token_session;

use std::path::PathBuf;

pub use module_call::{TokenKeyName, TokenName};
pub use module_device::ModuleDevice;
pub use module_process::run_module_process;

use crate::base::secret::{ExposeSecret, SecretString, sha256};

/// The sessions of a module: so many signatures are made at once.
const MODULE_SESSIONS: usize = 4;

/// The settings of a token.
#[derive(Clone, Debug)]
pub struct Pkcs11Settings {
    pub module: PathBuf,
    pub token: TokenName,
    /// The PIN of the user; absent: nobody logs in.
    pub pin: Option<SecretString>,
}

impl Pkcs11Settings {
    /// Returns its name in logs, metrics and the status.
    pub fn title(&self) -> String {
        match &self.token {
            TokenName::Label(label) => format!("pkcs11:{label}"),
            TokenName::Slot(slot) => format!("pkcs11:slot-{slot}"),
        }
    }

    /// Returns a digest of all of it.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut inputs = sha256(self.module.as_os_str().as_encoded_bytes()).to_vec();
        inputs.extend(self.title().into_bytes());
        if let Some(pin) = &self.pin {
            inputs.extend(sha256(pin.expose_secret().as_bytes()));
        }
        sha256(&inputs)
    }
}
