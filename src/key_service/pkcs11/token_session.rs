//! A session with a PKCS#11 token, opened anew when the token has ended it.

use std::collections::HashMap;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use zeroize::Zeroizing;

use super::module_call::{SignMechanism, TokenKeyName, TokenName, TokenPublicKey};
use crate::base::secret::{SecretString, hex};
use crate::key_service::device::{DeviceError, KeyPart};

/// Names of tokens or keys that a message lists.
const MOST_LISTED: usize = 8;

/// A module with the token that is used of it.
pub(super) struct LoadedToken {
    module: Pkcs11,
    token: TokenName,
    pin: Option<SecretString>,
}

/// A session with its key handles.
pub(super) struct TokenSession<'a> {
    token: &'a LoadedToken,
    open: Option<Session>,
    handles: HashMap<TokenKeyName, ObjectHandle>,
}

impl LoadedToken {
    /// Loads a module and starts it.
    pub(super) fn load(path: &str, token: TokenName, pin: Option<SecretString>) -> Result<Self, DeviceError> {
        let refused = |why: &str| {
            let cure = if cfg!(target_feature = "crt-static") {
                "name the module's shared library; this program is linked statically, and loads modules only where the \
                 C library is of the version that it was built with: use a build that is not static"
            } else {
                "name the module's shared library, as in `module = \"/usr/lib/softhsm/libsofthsm2.so\"`"
            };
            DeviceError::refused(KeyPart::Module, format!("the PKCS#11 module cannot be loaded: {why}"), cure)
        };
        if !std::path::Path::new(path).is_file() {
            return Err(refused("there is no such file"));
        }
        let module = Pkcs11::new(path).map_err(|error| refused(&reason(&error)))?;
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => {
                return Err(DeviceError::Failed(format!("the PKCS#11 module does not start: {}", reason(&error))));
            }
        }
        Ok(Self { module, token, pin })
    }

    /// A session that is opened when it is first used.
    pub(super) fn session(&self) -> TokenSession<'_> {
        TokenSession { token: self, open: None, handles: HashMap::new() }
    }

    fn slot(&self) -> Result<Slot, DeviceError> {
        let slots = self.module.get_slots_with_token().map_err(|error| failed(&error))?;
        let label = |slot: &Slot| self.module.get_token_info(*slot).ok().map(|info| info.label().to_owned());
        let found = slots.iter().find(|slot| match &self.token {
            TokenName::Label(wanted) => label(slot).as_deref() == Some(wanted),
            TokenName::Slot(number) => slot.id() == *number,
        });
        if let Some(slot) = found {
            return Ok(*slot);
        }
        let what = match &self.token {
            TokenName::Label(label) => format!("the module has no token called `{label}`"),
            TokenName::Slot(number) => format!("the module has no token in slot {number}"),
        };
        let known = slots.iter().filter_map(|slot| Some(format!("`{}` in slot {}", label(slot)?, slot.id())));
        let known = listed(known.collect(), "it has no token at all: insert or initialise it, for this user");
        Err(DeviceError::refused(KeyPart::Token, what, known))
    }

    fn open(&self) -> Result<Session, DeviceError> {
        let session = self.module.open_ro_session(self.slot()?).map_err(|error| failed(&error))?;
        let Some(pin) = &self.pin else { return Ok(session) };
        let refused = |what: &str, cure: &str| Err(DeviceError::refused(KeyPart::Pin, what, cure));
        match session.login(UserType::User, Some(pin)) {
            // Logging in holds for all sessions of a process.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
                refused("the token refuses the PIN", "correct it: a token locks itself after a few wrong ones")
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => {
                refused("the token has locked the PIN", "unlock it with the token's own tool")
            }
            Err(Error::Pkcs11(RvError::PinExpired | RvError::UserPinNotInitialized, _)) => {
                refused("the token has no valid user PIN", "set one with the token's own tool")
            }
            Err(error) => Err(failed(&error)),
        }
    }
}

impl TokenSession<'_> {
    /// Opens the session, and logs in.
    pub(super) fn open_now(&mut self) -> Result<(), DeviceError> {
        self.open = Some(self.token.open()?);
        Ok(())
    }

    /// Reads the public half of a key.
    pub(super) fn public_key(&mut self, key: &TokenKeyName) -> Result<TokenPublicKey, DeviceError> {
        self.with_session(key, |session, handle| read_public(session, handle, key))
    }

    pub(super) fn sign(
        &mut self,
        key: &TokenKeyName,
        mechanism: SignMechanism,
        input: &[u8],
    ) -> Result<Vec<u8>, DeviceError> {
        self.with_session(key, |session, handle| {
            session.sign(&mechanism.of_module(), handle, input).map_err(|error| signing(&error, mechanism))
        })
    }

    /// Decrypts by RSAES-OAEP with SHA-256, or SHA-1 if it was that: some tokens have no other (RFC 8017 section 7.1).
    pub(super) fn decrypt(&mut self, key: &TokenKeyName, input: &[u8]) -> Result<Zeroizing<Vec<u8>>, DeviceError> {
        self.with_session(key, |session, handle| {
            let mut tried = Err(DeviceError::Failed("the token decrypts nothing".to_owned()));
            for (hash, mask) in
                [(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256), (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1)]
            {
                let parameters = PkcsOaepParams::new(hash, mask, PkcsOaepSource::empty());
                tried = match session.decrypt(&Mechanism::RsaPkcsOaep(parameters), handle, input) {
                    Ok(plaintext) => return Ok(Zeroizing::new(plaintext)),
                    Err(error) => Err(decrypting(&error)),
                };
                if matches!(tried, Err(DeviceError::Failed(_))) {
                    break;
                }
            }
            tried
        })
    }

    /// Opens the session if there is none, and once more if it turns out to have ended.
    fn with_session<T>(
        &mut self,
        key: &TokenKeyName,
        mut work: impl FnMut(&Session, ObjectHandle) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let is_used = self.open.is_some();
        match self.attempt(key, &mut work) {
            Err(DeviceError::Ended(_) | DeviceError::Failed(_)) if is_used => {
                self.open = None;
                self.handles.clear();
                self.attempt(key, &mut work)
            }
            done => done,
        }
    }

    fn attempt<T>(
        &mut self,
        key: &TokenKeyName,
        work: &mut impl FnMut(&Session, ObjectHandle) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let session = match self.open.take() {
            Some(session) => session,
            None => self.token.open()?,
        };
        let session = self.open.insert(session);
        let handle = match self.handles.get(key) {
            Some(handle) => *handle,
            None => {
                let found = find(session, ObjectClass::PRIVATE_KEY, key)?;
                self.handles.insert(key.clone(), found);
                found
            }
        };
        work(session, handle)
    }
}

impl SignMechanism {
    fn of_module(self) -> Mechanism<'static> {
        match self {
            SignMechanism::Ecdsa => Mechanism::Ecdsa,
            SignMechanism::Eddsa => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)),
            SignMechanism::RsaPkcs => Mechanism::RsaPkcs,
            SignMechanism::RsaPss(bits) => {
                let (hash_alg, mgf) = match bits {
                    512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512),
                    384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384),
                    _ => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
                };
                Mechanism::RsaPkcsPss(PkcsPssParams { hash_alg, mgf, s_len: u64::from(bits / 8).into() })
            }
        }
    }
}

/// Finds the one object of a class with this name.
fn find(session: &Session, class: ObjectClass, key: &TokenKeyName) -> Result<ObjectHandle, DeviceError> {
    let mut wanted = vec![Attribute::Class(class)];
    wanted.extend(key.label.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
    wanted.extend(key.id.clone().map(Attribute::Id));
    let found = session.find_objects(&wanted).map_err(|error| failed(&error))?;
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let all = session.find_objects(&[Attribute::Class(class)]).unwrap_or_default();
            let known = all.iter().map(|object| name_of(session, *object)).collect();
            let none = "it has no private key at all that this user may see: see `pin`, and the token";
            let what = format!("the token has no private key with {}", named(key));
            Err(DeviceError::refused(KeyPart::Key, what, listed(known, none)))
        }
        several => {
            let what = format!("the token has {} private keys with {}", several.len(), named(key));
            let known = several.iter().map(|object| name_of(session, *object)).collect();
            Err(DeviceError::refused(KeyPart::Key, what, listed(known, "name its `id`")))
        }
    }
}

/// The numbers of an RSA key stand in the private key itself, the point of another one in its public key.
fn read_public(session: &Session, private: ObjectHandle, key: &TokenKeyName) -> Result<TokenPublicKey, DeviceError> {
    let read =
        |object, wanted: &[AttributeType]| session.get_attributes(object, wanted).map_err(|error| failed(&error));
    let kind = read(private, &[AttributeType::KeyType])?;
    if kind.contains(&Attribute::KeyType(KeyType::RSA)) {
        let numbers = read(private, &[AttributeType::Modulus, AttributeType::PublicExponent])?;
        let mut found = (Vec::new(), Vec::new());
        for attribute in numbers {
            match attribute {
                Attribute::Modulus(number) => found.0 = number,
                Attribute::PublicExponent(number) => found.1 = number,
                _ => {}
            }
        }
        return Ok(TokenPublicKey::Rsa { modulus: found.0, exponent: found.1 });
    }
    let id = read(private, &[AttributeType::Id])?.into_iter().find_map(|attribute| match attribute {
        Attribute::Id(id) if !id.is_empty() => Some(id),
        _ => None,
    });
    let same = TokenKeyName { label: if id.is_some() { None } else { key.label.clone() }, id };
    let public = find(session, ObjectClass::PUBLIC_KEY, &same).map_err(|error| match error {
        DeviceError::Refused(_) => DeviceError::refused(
            KeyPart::Key,
            format!("the token has no public key beside the private key with {}", named(key)),
            "import the public key under the same id",
        ),
        other => other,
    })?;
    let mut found = (Vec::new(), Vec::new());
    for attribute in read(public, &[AttributeType::EcParams, AttributeType::EcPoint])? {
        match attribute {
            Attribute::EcParams(curve) => found.0 = curve,
            Attribute::EcPoint(point) => found.1 = point,
            _ => {}
        }
    }
    Ok(TokenPublicKey::Ec { curve: found.0, point: found.1 })
}

fn named(key: &TokenKeyName) -> String {
    let label = key.label.as_ref().map(|label| format!("label `{label}`"));
    let id = key.id.as_ref().map(|id| format!("id `{}`", hex(id)));
    [label, id].into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

fn name_of(session: &Session, object: ObjectHandle) -> String {
    let mut name = TokenKeyName { label: None, id: None };
    for attribute in session.get_attributes(object, &[AttributeType::Label, AttributeType::Id]).unwrap_or_default() {
        match attribute {
            Attribute::Label(label) => name.label = Some(String::from_utf8_lossy(&label).into_owned()),
            Attribute::Id(id) => name.id = Some(id),
            _ => {}
        }
    }
    named(&name)
}

/// Lists what there is, or says that there is nothing.
fn listed(known: Vec<String>, otherwise: &str) -> String {
    if known.is_empty() {
        return otherwise.to_owned();
    }
    let more = if known.len() > MOST_LISTED { ", and more" } else { "" };
    let known: Vec<String> = known.into_iter().take(MOST_LISTED).collect();
    format!("there are: {}{more}", known.join(", "))
}

/// What the module said, in the words of PKCS#11 or of the loader.
fn reason(error: &Error) -> String {
    match error {
        Error::LibraryLoading(error) => error.to_string(),
        Error::Pkcs11(code, function) => format!("{function:?} returned {code:?}"),
        Error::MissingSymbol(_) => "it is no PKCS#11 module: it has no C_GetFunctionList".to_owned(),
        other => other.to_string(),
    }
}

fn failed(error: &Error) -> DeviceError {
    DeviceError::Failed(format!("the PKCS#11 token: {}", reason(error)))
}

/// An error of a decryption: a refusal if it is about the key or the ciphertext.
fn decrypting(error: &Error) -> DeviceError {
    let what = format!("the token does not decrypt: {}", reason(error));
    match error {
        Error::Pkcs11(RvError::KeyFunctionNotPermitted | RvError::KeyTypeInconsistent, _) => {
            DeviceError::refused(KeyPart::Key, what, "the key must be an RSA key that may decrypt (CKA_DECRYPT)")
        }
        Error::Pkcs11(
            RvError::ArgumentsBad
            | RvError::DataInvalid
            | RvError::DataLenRange
            | RvError::EncryptedDataInvalid
            | RvError::EncryptedDataLenRange
            | RvError::GeneralError
            | RvError::MechanismInvalid
            | RvError::MechanismParamInvalid,
            _,
        ) => {
            let cure = "it must be what RSA-OAEP with SHA-256 or SHA-1 made under the public key of this very key";
            DeviceError::refused(KeyPart::Ciphertext, what, cure)
        }
        other => failed(other),
    }
}

/// An error of a signature: a refusal if it is about the key or the mechanism, which stay what they are.
fn signing(error: &Error, mechanism: SignMechanism) -> DeviceError {
    let refused = |cure: &str| {
        let what = format!("the token does not sign with this key by {mechanism:?}: {}", reason(error));
        DeviceError::refused(KeyPart::Key, what, cure)
    };
    match error {
        Error::Pkcs11(RvError::MechanismInvalid | RvError::MechanismParamInvalid, _) => {
            refused("the token does not know this mechanism: ask its maker, or the bank for another algorithm")
        }
        Error::Pkcs11(RvError::KeyFunctionNotPermitted | RvError::KeyTypeInconsistent, _) => {
            refused("the key must be one that may sign (CKA_SIGN)")
        }
        other => failed(other),
    }
}
