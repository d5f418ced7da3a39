//! Made-up users, each always the same: SCB's sizes, a token of 620 bytes, one of 36, a `resourceOwnerId`.

use std::time::Duration;

use countersign::base::secret::{ExposeSecret, SecretBox, SecretString};
use countersign::base::time::Now;
use countersign::store::RecordKey;
use countersign::token::consent::{ConsentOwner, ConsentRealm, UserKey, UserName, UserTokens};
use countersign::token::grant::{Grant, RefreshGrant, UserGrant};
use hyper::header::HeaderValue;

use crate::Failure;

/// A record is kept for a day after its last token has died, in milliseconds: as the control thread does.
const AFTERLIFE: u64 = 24 * 3600 * 1000;

/// Numbers that look random and are the same in each run (xorshift64*).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn text(&mut self, length: usize) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..length).map(|_| char::from(LETTERS[(self.roll() >> 58) as usize])).collect()
    }

    fn uuid(&mut self) -> String {
        let (a, b) = (self.roll(), self.roll());
        let (group1, group2, group3) = (a >> 32, a >> 16 & 0xffff, a & 0xffff);
        format!("{group1:08x}-{group2:04x}-{group3:04x}-{:04x}-{:012x}", b >> 48, b & 0xffff_ffff_ffff)
    }
}

/// The user of this number.
pub fn user(number: u64) -> Result<UserKey, Failure> {
    let name = format!("customer-{number:08}@app.example");
    let user = UserName::parse(&name).map_err(|error| error.to_string())?;
    Ok(UserKey { owner: ConsentOwner::Client("wallet".into()), provider: "scb".into(), user })
}

/// Where a user's tokens are.
pub fn place(user: &UserKey) -> RecordKey {
    RecordKey::from(&user.record_key())
}

/// What the bank would answer.
pub fn answer(dice: &mut Dice) -> Result<UserGrant, Failure> {
    let owner = HeaderValue::from_str(&dice.uuid())?;
    let grant = Grant {
        access_token: SecretString::from(dice.text(620)),
        life: Duration::from_secs(1800),
        captured: vec![("resourceOwnerId".into(), owner)],
        odd_type: None,
    };
    let refresh = RefreshGrant { token: SecretString::from(dice.uuid()), life: Some(Duration::from_secs(3600)) };
    Ok(UserGrant { grant, refresh: Some(refresh) })
}

/// The tokens of a user who has just consented.
pub fn tokens(number: u64, now: Now) -> Result<UserTokens, Failure> {
    let fresh = answer(&mut Dice::new(number))?;
    let mut realm = Dice::new(u64::MAX / 2);
    let realm = ConsentRealm(std::array::from_fn(|_| (realm.roll() >> 56) as u8));
    Ok(UserTokens::consented(user(number)?, realm, fresh, now, None))
}

/// For the store to seal, and until when it is kept.
pub fn record(tokens: &UserTokens) -> (SecretBox<[u8]>, Option<u64>) {
    let value = SecretBox::new(tokens.seal().expose_secret().clone().into_boxed_slice());
    let dies = tokens.refresh.as_ref().and_then(|refresh| refresh.expires).unwrap_or_default();
    (value, Some(dies.max(tokens.access.expires) + AFTERLIFE))
}
