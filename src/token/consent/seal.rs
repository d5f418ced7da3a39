//! Records as bytes, for a store that encrypts them.
//!
//! JSON with a version in front. Older versions stay readable; a newer one is refused as such, so that a downgrade is
//! noticed and destroys nothing. The bytes hold secrets in the clear: they are wiped when dropped, and the store seals
//! them before they leave the process.

use std::sync::Arc;

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::base::secret::{ExposeSecret, SecretBox, SecretString};
use crate::token::consent::ConsentRealm;
use crate::token::consent::pending::{CodeVerifier, PendingConsent, PendingEntry};
use crate::token::consent::tokens::{UserAccess, UserRefresh, UserTokens};
use crate::token::consent::user::{ConsentOwner, UserKey, UserName};

/// Record version that this program writes; also the highest version that it reads.
const VERSION: u32 = 1;

/// A record as bytes, secrets in the clear.
pub type PlainRecord = SecretBox<Vec<u8>>;

/// The reason for which bytes are not a valid record. It never contains any of those bytes.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SealError {
    /// Not a record of this kind.
    #[error("the record is damaged")]
    Malformed,
    /// A record of a version that this program does not know.
    #[error("the record has version {0}; this program reads up to {VERSION}")]
    Version(u32),
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct KeyForm<'a> {
    group: bool,
    owner: RecordText<'a>,
    provider: RecordText<'a>,
    user: RecordText<'a>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct EntryForm<'a> {
    v: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spent: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pending: Option<PendingForm<'a>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PendingForm<'a> {
    #[serde(borrow)]
    key: KeyForm<'a>,
    client: RecordText<'a>,
    realm: [u8; 32],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    return_to: Option<RecordText<'a>>,
    #[serde(borrow)]
    verifier: RecordText<'a>,
    started: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TokensForm<'a> {
    v: u32,
    #[serde(borrow)]
    key: KeyForm<'a>,
    realm: [u8; 32],
    generation: u64,
    #[serde(borrow)]
    access: TokenForm<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    refresh: Option<TokenForm<'a>>,
    captured: Vec<(RecordText<'a>, RecordText<'a>)>,
    consented: u64,
    last_call: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TokenForm<'a> {
    #[serde(borrow)]
    token: RecordText<'a>,
    issued: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

/// Borrowed where it is a secret, so that reading leaves no copy of it behind.
type RecordText<'a> = std::borrow::Cow<'a, str>;

impl<'a> KeyForm<'a> {
    fn of(key: &'a UserKey) -> Self {
        Self {
            group: matches!(key.owner, ConsentOwner::Group(_)),
            owner: key.owner.name().into(),
            provider: (&*key.provider).into(),
            user: key.user.as_str().into(),
        }
    }

    fn read(&self) -> Result<UserKey, SealError> {
        let name: Arc<str> = (&*self.owner).into();
        Ok(UserKey {
            owner: if self.group { ConsentOwner::Group(name) } else { ConsentOwner::Client(name) },
            provider: (&*self.provider).into(),
            user: UserName::parse(&self.user).map_err(|_| SealError::Malformed)?,
        })
    }
}

impl PendingEntry {
    /// Serializes the entry, secrets in the clear.
    pub fn seal(&self) -> PlainRecord {
        let (spent, pending) = match self {
            PendingEntry::Pending(pending) => {
                let form = PendingForm {
                    key: KeyForm::of(&pending.key),
                    client: (&*pending.client).into(),
                    realm: pending.realm.0,
                    return_to: pending.return_to.as_deref().map(Into::into),
                    verifier: pending.verifier.secret().expose_secret().into(),
                    started: pending.started,
                };
                (None, Some(form))
            }
            PendingEntry::Spent { at } => (Some(*at), None),
        };
        write(&EntryForm { v: VERSION, spent, pending })
    }

    /// Parses an entry that [`seal`](Self::seal) wrote.
    pub fn open(bytes: &[u8]) -> Result<Self, SealError> {
        let form: EntryForm<'_> = read(bytes)?;
        match (form.spent, form.pending) {
            (Some(at), None) => Ok(PendingEntry::Spent { at }),
            (None, Some(form)) => Ok(PendingEntry::Pending(PendingConsent {
                key: form.key.read()?,
                client: (&*form.client).into(),
                realm: ConsentRealm(form.realm),
                return_to: form.return_to.map(RecordText::into_owned),
                verifier: CodeVerifier::from_text(SecretString::from(&*form.verifier)),
                started: form.started,
            })),
            (Some(_), Some(_)) | (None, None) => Err(SealError::Malformed),
        }
    }
}

impl UserTokens {
    /// As bytes. A captured header that is no text is left out.
    pub fn seal(&self) -> PlainRecord {
        let captured = self.captured.iter().filter_map(|(name, value)| {
            let value = value.to_str().ok()?;
            Some((RecordText::from(&**name), RecordText::from(value)))
        });
        write(&TokensForm {
            v: VERSION,
            key: KeyForm::of(&self.key),
            realm: self.realm.0,
            generation: self.generation,
            access: TokenForm {
                token: self.access.token.expose_secret().into(),
                issued: self.access.issued,
                expires: Some(self.access.expires),
            },
            refresh: self.refresh.as_ref().map(|refresh| TokenForm {
                token: refresh.token.expose_secret().into(),
                issued: refresh.issued,
                expires: refresh.expires,
            }),
            captured: captured.collect(),
            consented: self.consented,
            last_call: self.last_call,
        })
    }

    /// Parses a record that [`seal`](Self::seal) wrote. The record contains its key: compare it with the requested key.
    pub fn open(bytes: &[u8]) -> Result<Self, SealError> {
        let form: TokensForm<'_> = read(bytes)?;
        let mut captured = Vec::with_capacity(form.captured.len());
        for (name, value) in &form.captured {
            let mut value = HeaderValue::from_str(value).map_err(|_| SealError::Malformed)?;
            value.set_sensitive(true);
            captured.push((Arc::from(&**name), value));
        }
        let header_safe = form.access.token.bytes().all(|b| b.is_ascii_graphic()) && !form.access.token.is_empty();
        if !header_safe {
            return Err(SealError::Malformed);
        }
        Ok(Self {
            key: form.key.read()?,
            realm: ConsentRealm(form.realm),
            generation: form.generation,
            access: UserAccess {
                token: SecretString::from(&*form.access.token),
                issued: form.access.issued,
                expires: form.access.expires.ok_or(SealError::Malformed)?,
            },
            refresh: form.refresh.map(|refresh| UserRefresh {
                token: SecretString::from(&*refresh.token),
                issued: refresh.issued,
                expires: refresh.expires,
            }),
            captured,
            consented: form.consented,
            last_call: form.last_call,
        })
    }
}

fn write<T: Serialize>(form: &T) -> PlainRecord {
    /// Counts, so that the real buffer never grows and leaves no copy behind.
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, form).expect("texts and numbers always serialise, and a count takes all bytes");
    let mut bytes = Vec::with_capacity(count.0);
    serde_json::to_writer(&mut bytes, form).expect("texts and numbers always serialise, and a Vec takes all bytes");
    SecretBox::new(Box::new(bytes))
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, SealError> {
    let version: Versioned = serde_json::from_slice(bytes).map_err(|_| SealError::Malformed)?;
    if version.v != VERSION {
        return Err(SealError::Version(version.v));
    }
    serde_json::from_slice(bytes).map_err(|_| SealError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::consent::tokens::tests::{START, fresh, key};

    fn tokens(user: &str, refresh: Option<&str>, owner: Option<&str>) -> UserTokens {
        UserTokens::consented(key(user), ConsentRealm([7; 32]), fresh("acc\"ess", refresh, owner), START, None)
    }

    fn pending(user: &str) -> PendingConsent {
        PendingConsent {
            key: UserKey { owner: ConsentOwner::Group("mobile".into()), ..key(user) },
            client: "erp".into(),
            realm: ConsentRealm([9; 32]),
            return_to: Some("https://app.example/".to_owned()),
            verifier: CodeVerifier::from_random([3; 32]),
            started: START.wall,
        }
    }

    #[test]
    fn what_is_sealed_comes_back_whole() {
        for (refresh, owner) in [(None, None), (Some("r"), Some("owner \" 1"))] {
            let one = tokens("ส้ม \"x\"", refresh, owner);
            let bytes = one.seal();
            let again = UserTokens::open(bytes.expose_secret()).expect("a record");
            assert_eq!(again.seal().expose_secret(), bytes.expose_secret());
            assert_eq!((&again.key, again.realm, again.generation), (&one.key, one.realm, one.generation));
            assert_eq!(again.captured, one.captured);
            assert_eq!(again.access.token.expose_secret(), "acc\"ess");
        }
        let entry = PendingEntry::Pending(pending("alice"));
        let again = PendingEntry::open(entry.seal().expose_secret()).expect("an entry");
        assert_eq!(again.seal().expose_secret(), entry.seal().expose_secret());
        let spent = PendingEntry::open(PendingEntry::Spent { at: 5 }.seal().expose_secret()).expect("an entry");
        assert!(matches!(spent, PendingEntry::Spent { at: 5 }));
    }

    /// The first version's bytes, to the letter: they must stay readable.
    #[test]
    fn version_one_stays_readable() {
        let text = format!(
            r#"{{"v":1,"key":{{"group":false,"owner":"erp","provider":"scb","user":"alice"}},"realm":{:?},"generation":7,"access":{{"token":"a","issued":1,"expires":2}},"refresh":{{"token":"r","issued":1}},"captured":[["owner","o"]],"consented":1,"last_call":2}}"#,
            [0_u8; 32]
        );
        let tokens = UserTokens::open(text.as_bytes()).expect("a record");
        assert_eq!((tokens.key, tokens.generation), (key("alice"), 7));
        assert_eq!(tokens.refresh.map(|refresh| refresh.expires), Some(None));
        let newer = text.replace(r#""v":1"#, r#""v":2"#);
        assert_eq!(UserTokens::open(newer.as_bytes()).err(), Some(SealError::Version(2)));
        assert_eq!(PendingEntry::open(text.as_bytes()).err(), Some(SealError::Malformed), "another kind");
        let split = text.replace(r#""token":"a""#, r#""token":"a\r\nb""#);
        assert_eq!(UserTokens::open(split.as_bytes()).err(), Some(SealError::Malformed), "no header carries it");
    }

    proptest! {
        /// T32: no byte that is changed, cut off or made up brings a panic, or the record of another.
        #[test]
        fn damaged_records_never_panic(at in 0_usize..600, byte in any::<u8>(), noise in proptest::collection::vec(any::<u8>(), 0..60)) {
            for sealed in [tokens("alice", Some("r"), Some("o")).seal(), PendingEntry::Pending(pending("alice")).seal()] {
                let mut bytes = sealed.expose_secret().clone();
                let cut = bytes.get(..at.min(bytes.len())).unwrap_or_default().to_vec();
                if let Some(one) = bytes.get_mut(at) {
                    *one = byte;
                }
                for bytes in [&bytes, &cut, &noise] {
                    let _ = (PendingEntry::open(bytes), UserTokens::open(bytes));
                }
            }
        }
    }
}
