//! The lifetime of a token, computed from the claims of the token response, which are not trusted.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::DATE;
use serde_json::Value;

use crate::base::time::{Deadline, Now, of_rfc3339};
use crate::provider::json;
use crate::token::grant::LIFE_CAP;

/// A "lifetime" of more than ten years, in seconds, is a date: some banks put an epoch there.
const LONGEST_RELATIVE: f64 = 315_360_000.0;

/// From here on an epoch counts milliseconds: as seconds it would lie 30 000 years ahead.
const MILLIS_FROM: f64 = 1e12;

/// By how much the clock of a provider may be off and still be believed to be the one behind its dates, in milliseconds.
const BELIEVED_OFFSET: u64 = 24 * 3600 * 1000;

/// With less between the clocks than this, in milliseconds, ours tells as much as a `Date`, which counts whole seconds.
const SAME_CLOCK: u64 = 2_000;

/// The part of a second that a `Date` field may omit, in milliseconds.
const FRACTION: f64 = 999.0;

/// The life when neither bank, profile nor config says one.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// The unit of a relative lifetime: `expires_in_unit` of `[token.response]`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Unit {
    Milliseconds,
    #[default]
    Seconds,
}

impl Unit {
    /// The words for it in a profile.
    pub(super) const WORDS: [(&'static str, Self); 2] = [("ms", Unit::Milliseconds), ("s", Unit::Seconds)];

    /// So many of them are a second.
    pub(super) const fn per_second(self) -> u32 {
        match self {
            Unit::Milliseconds => 1000,
            Unit::Seconds => 1,
        }
    }
}

/// Everything that says something about a token's life. A value of -1 says nothing.
pub(super) struct LifeClaims<'a> {
    /// A time from the answer on; or, beyond ten years, a date. A date in RFC 3339, too.
    pub expires_in: Option<&'a Value>,
    /// A date: seconds or milliseconds since 1970, or RFC 3339.
    pub expires_at: Option<&'a Value>,
    /// The unit of a relative `expires_in` value.
    pub unit: Unit,
    /// The token itself: a JWT may name its own end (RFC 7519 section 4.1.4). It is read, never verified.
    pub token: &'a str,
    /// The life to assume otherwise.
    pub default_ttl: Option<Duration>,
    /// When the answer was made by the provider's clock, in milliseconds since 1970: its `Date` (RFC 9110 section 6.6.1).
    /// The dates in it are read by that clock.
    pub date: Option<u64>,
}

/// The reason a token response leaves no remaining lifetime.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lifeless {
    /// A description of the problem, without quoting the response.
    pub why: &'static str,
    /// The life makes sense, but it is over.
    pub ended: bool,
}

impl Lifeless {
    const fn ended(why: &'static str) -> Self {
        Self { why, ended: true }
    }

    const fn odd(why: &'static str) -> Self {
        Self { why, ended: false }
    }
}

/// The `Date` of an answer, in milliseconds since 1970.
pub fn date(headers: &HeaderMap) -> Option<u64> {
    let told = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    u64::try_from(told.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()
}

impl LifeClaims<'_> {
    /// The life, counted from `sent`, at most [`LIFE_CAP`].
    pub(super) fn life(&self, sent: Now, now: Now) -> Result<Duration, Lifeless> {
        self.life_within(LIFE_CAP, sent, now)
    }

    /// The life of a refresh token, at most ten years; `None` when the answer names none, or none that makes sense:
    /// some providers write 0 for "does not end".
    pub(super) fn refresh_life(&self, sent: Now, now: Now) -> Option<Duration> {
        if said(self.expires_in).is_none() && said(self.expires_at).is_none() {
            return self.default_ttl;
        }
        self.life_within(Duration::from_secs(315_360_000), sent, now).ok()
    }

    fn life_within(&self, cap: Duration, sent: Now, now: Now) -> Result<Duration, Lifeless> {
        let until = |epoch| self.until(epoch, sent, now);
        let millis = if let Some(value) = said(self.expires_in) {
            match (moment(value), number(value)) {
                (Some(date), _) => until(date),
                (None, Some(number)) => {
                    let seconds = number / f64::from(self.unit.per_second());
                    if seconds > LONGEST_RELATIVE { until(number) } else { seconds * 1000.0 }
                }
                (None, None) => return Err(Lifeless::odd("the token's lifetime is neither a number nor a date")),
            }
        } else if let Some(value) = said(self.expires_at) {
            let date = moment(value).or_else(|| number(value));
            let odd = Lifeless::odd("the token's expiry date is neither a number nor a date in RFC 3339");
            until(date.ok_or(odd)?)
        } else if let Some(exp) = jwt_expiry(self.token) {
            until(exp)
        } else {
            let life = self.default_ttl.unwrap_or(DEFAULT_LIFE).min(cap);
            return Self::alive(life, sent, now);
        };
        if millis.is_nan() || millis < 1.0 {
            return Err(Lifeless::ended("the token's life is over, or was never more than zero"));
        }
        // Bounded before it is narrowed, so the conversion neither saturates nor loses a millisecond.
        let millis = millis.min(cap.as_secs_f64() * 1000.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 <= millis <= ten years")]
        let life = Duration::from_millis(millis as u64);
        Self::alive(life, sent, now)
    }

    fn alive(life: Duration, sent: Now, now: Now) -> Result<Duration, Lifeless> {
        if life.is_zero() || Deadline::after(sent, life).passed(now) {
            return Err(Lifeless::ended("the token was dead before it arrived"));
        }
        Ok(life)
    }

    /// Returns the milliseconds from `sent` to an epoch.
    ///
    /// An epoch is read by the clock that wrote it, which the `Date` field of the response shows. The time left at the
    /// `Date` counts from `sent`, which is no later than the `Date`, minus [`FRACTION`], since the `Date` may omit a
    /// fraction of a second. If both clocks agree to within two seconds, the earlier end counts. A `Date` that is more
    /// than a day off is ignored, and the local clock counts.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 need 41 bits of a float's 53")]
    fn until(&self, epoch: f64, sent: Now, now: Now) -> f64 {
        let end = if epoch >= MILLIS_FROM { epoch } else { epoch * 1000.0 };
        let by_ours = end - sent.wall as f64;
        let Some(date) = self.date else { return by_ours };
        let by_theirs = end - date as f64;
        let off = match date.checked_sub(now.wall) {
            Some(ahead) => ahead,
            // While the answer was on its way, no clock was behind.
            None => sent.wall.saturating_sub(date),
        };
        match off {
            0..=SAME_CLOCK => by_ours.min(by_theirs),
            _ if off <= BELIEVED_OFFSET => by_theirs - FRACTION,
            _ => by_ours,
        }
    }
}

/// The value, if it says something: several servers write -1 for a life that they do not know, or that has no end.
fn said(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| number(value) != Some(-1.0))
}

/// A date in RFC 3339, in milliseconds since 1970.
#[expect(clippy::cast_precision_loss, reason = "milliseconds up to the year 9999 need 48 bits of a float's 53")]
fn moment(value: &Value) -> Option<f64> {
    of_rfc3339(value.as_str()?.trim()).map(|millis| (millis as f64).max(MILLIS_FROM))
}

/// A finite number, or a string that is one.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            let text = text.trim();
            // `f64::from_str` also reads "inf" and "nan".
            text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)).then(|| text.parse().ok()).flatten()
        }
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Object(_) => None,
    };
    number.filter(|number| number.is_finite())
}

/// The `exp` of a JWT, in seconds since 1970.
fn jwt_expiry(token: &str) -> Option<f64> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    json::read(&payload).ok()?.get("exp").filter(|exp| exp.is_number()).and_then(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// 2019-02-14T08:03:05Z, half an hour before the expiry in SCB's own sample.
    const SENT: Now = Now::at(50_000, 1_550_131_385_000);

    fn life(expires_in: Option<Value>, expires_at: Option<Value>, token: &str) -> Result<u64, Lifeless> {
        let claims = LifeClaims {
            expires_in: expires_in.as_ref(),
            expires_at: expires_at.as_ref(),
            unit: Unit::Seconds,
            token,
            default_ttl: Some(Duration::from_secs(120)),
            date: None,
        };
        claims.life(SENT, SENT).map(|life| life.as_secs())
    }

    /// T21: lifetimes of every kind.
    #[test]
    fn a_life_is_read_in_every_form_that_banks_use() {
        for (value, seconds) in [
            (json!(1800), 1800),
            (json!("3599"), 3599),
            (json!(1800.9), 1800),
            (json!("1.8e3"), 1800),
            (json!(1_550_133_185), 1800),
            (json!("1550133185"), 1800),
            (json!(1_550_133_185_000_u64), 1800),
            (json!(315_360_000), 86_400),
            (json!(1e18), 86_400),
        ] {
            assert_eq!(life(Some(value.clone()), None, "t"), Ok(seconds), "{value}");
        }
        assert_eq!(life(Some(json!(60)), Some(json!(1_550_133_185)), "t"), Ok(60), "relative beats absolute");
        assert_eq!(life(None, Some(json!(1_550_133_185)), "t"), Ok(1800));
        assert_eq!(life(None, Some(json!("1550133185000")), "t"), Ok(1800));
        assert_eq!(life(None, None, "t"), Ok(120));
    }

    #[test]
    fn what_is_over_or_senseless_is_refused() {
        for value in [
            json!(0),
            json!(-2),
            json!("0"),
            json!("-5"),
            json!(0.0001),
            json!(1_550_131_385),
            json!(true),
            json!([]),
            json!({}),
            json!("NaN"),
            json!("inf"),
            json!("soon"),
            json!(""),
            json!("1e999"),
            json!("0x10"),
            json!("2019-02-14T08:03:05Z"),
            json!("2019-02-14T08:33:05"),
            json!("2019-02-30T08:33:05Z"),
        ] {
            assert!(life(Some(value.clone()), None, "t").is_err(), "{value}");
        }
        assert!(life(None, Some(json!(1_550_131_000)), "t").is_err(), "an epoch that is past");
        assert!(life(None, Some(json!(60)), "t").is_err(), "1970 is past");
    }

    #[test]
    fn a_life_may_be_a_date_in_words() {
        for text in [
            "2019-02-14T08:33:05Z",
            "2019-02-14t08:33:05.000z",
            "2019-02-14 15:33:05+07:00",
            "2019-02-14T15:33:05+0700",
            " 2019-02-14T03:03:05.0000000-05:30 ",
        ] {
            assert_eq!(life(Some(json!(text)), None, "t"), Ok(1800), "{text} in expires_in");
            assert_eq!(life(None, Some(json!(text)), "t"), Ok(1800), "{text} in expires_at");
        }
    }

    #[test]
    fn minus_one_says_nothing() {
        for value in [json!(-1), json!("-1"), json!(-1.0)] {
            assert_eq!(life(Some(value.clone()), None, "t"), Ok(120), "{value}: the default");
            assert_eq!(life(Some(value.clone()), Some(json!(1_550_133_185)), "t"), Ok(1800), "{value}: another field");
            assert_eq!(life(None, Some(value.clone()), "t"), Ok(120), "{value}");
        }
        let value = json!(-1);
        let (unit, default_ttl) = (Unit::Seconds, Some(Duration::from_secs(7)));
        let claims =
            LifeClaims { expires_in: Some(&value), expires_at: None, unit, token: "", default_ttl, date: None };
        assert_eq!(claims.refresh_life(SENT, SENT), default_ttl);
    }

    #[test]
    fn a_life_may_count_milliseconds() {
        for (value, seconds) in [
            (json!(3_600_000), 3600),
            (json!("1500"), 1),
            (json!(1_550_133_185_000_u64), 1800),
            (json!("2019-02-14T08:33:05Z"), 1800),
        ] {
            let unit = Unit::Milliseconds;
            let claims = LifeClaims {
                expires_in: Some(&value),
                expires_at: None,
                unit,
                token: "t",
                default_ttl: None,
                date: None,
            };
            assert_eq!(claims.life(SENT, SENT).map(|life| life.as_secs()), Ok(seconds), "{value}");
        }
    }

    #[test]
    fn a_token_that_died_on_its_way_is_refused() {
        let value = json!(5);
        let claims = LifeClaims {
            expires_in: Some(&value),
            expires_at: None,
            unit: Unit::Seconds,
            token: "t",
            default_ttl: None,
            date: None,
        };
        assert!(claims.life(SENT, SENT.plus(Duration::from_secs(4))).is_ok());
        assert!(claims.life(SENT, SENT.plus(Duration::from_secs(5))).is_err());
    }

    #[test]
    fn a_jwt_names_its_own_end() {
        let jwt = |claims: &str| format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(life(None, None, &jwt(r#"{"exp":1550131985}"#)), Ok(600));
        assert_eq!(life(Some(json!(60)), None, &jwt(r#"{"exp":1550131985}"#)), Ok(60), "only where nothing else does");
        assert!(life(None, None, &jwt(r#"{"exp":1550131000}"#)).is_err());
        for odd in [r#"{"exp":"x"}"#, "{}", "no json", "[]"] {
            assert_eq!(life(None, None, &jwt(odd)), Ok(120), "{odd}");
        }
        for odd in ["a.b", "a.%.c", "a.e30.c.d", ".."] {
            assert_eq!(life(None, None, odd), Ok(120), "{odd}");
        }
    }

    /// The provider's clock is off by so many seconds, and the token ends a minute after the answer by it.
    #[test]
    fn a_date_is_read_by_the_clock_of_the_answer() {
        let received = SENT.plus(Duration::from_secs(1));
        let life = |off: i64, end: &Value, date: Option<i64>| {
            let at = |seconds: i64| SENT.wall.saturating_add_signed(seconds * 1000);
            let token = format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{end}}}"#)));
            let date = date.map(|date| at(off + date));
            let named = LifeClaims {
                expires_in: None,
                expires_at: Some(end),
                unit: Unit::Seconds,
                token: "t",
                default_ttl: None,
                date,
            };
            let jwt = LifeClaims { expires_at: None, token: &token, ..named };
            let life = jwt.life(SENT, received).map(|life| life.as_secs());
            assert_eq!(named.life(SENT, received).map(|life| life.as_secs()), life, "both are read alike");
            life.map_err(|lifeless| lifeless.ended)
        };
        let end = |off: i64, left: i64| json!((SENT.wall / 1000).saturating_add_signed(off + left));
        for off in [3600, -3600, 300, -300, 86_000, -86_000] {
            assert_eq!(life(off, &end(off, 60), Some(0)), Ok(59), "{off}: what is left at the answer is what is left");
            assert_eq!(life(off, &end(off, 60), Some(1)), Ok(58), "{off}: counted from when the request was sent");
            assert_eq!(life(off, &end(off, 0), Some(0)), Err(true), "{off}: over is over");
        }
        assert_eq!(life(3600, &end(3600, 60), None), Ok(3660), "without a Date, by our clock");
        assert_eq!(life(0, &end(0, 60), Some(-1)), Ok(60), "clocks that agree: the earlier end");
        assert_eq!(life(0, &end(0, 60), Some(2)), Ok(58));
        assert_eq!(life(200_000, &end(0, 60), Some(0)), Ok(60), "a Date that is days off is no clock");
        let relative = json!(60);
        let claims = LifeClaims {
            expires_in: Some(&relative),
            expires_at: None,
            unit: Unit::Seconds,
            token: "t",
            default_ttl: None,
            date: Some(0),
        };
        assert_eq!(claims.life(SENT, SENT), Ok(Duration::from_secs(60)), "seconds need no clock");
    }

    proptest! {
        #[test]
        fn a_life_is_always_within_its_bounds(seconds in any::<f64>(), digits in "[-+0-9.eE]{0,30}", token in any::<String>(), date in any::<Option<u64>>()) {
            for value in [json!(seconds), json!(digits), Value::Null] {
                for (relative, absolute) in [(Some(&value), None), (None, Some(&value))] {
                    let (unit, token) = (Unit::Seconds, token.as_str());
                    let claims =
                        LifeClaims { expires_in: relative, expires_at: absolute, unit, token, default_ttl: None, date };
                    if let Ok(life) = claims.life(SENT, SENT) {
                        prop_assert!(!life.is_zero() && life <= LIFE_CAP);
                    }
                }
            }
        }
    }
}
