//! The authorization response, which a browser carries back from the provider.

use std::borrow::Cow;

use thiserror::Error;

use crate::base::secret::{SecretString, is_wordy_secret};
use crate::base::time::Now;
use crate::provider::template::{Template, TemplateContext, TemplateScope};
use crate::provider::values::OneOrManyValues;
use crate::syntax::{Diagnostics, Fields, Node};
use crate::token::consent::{AuthorizationCode, CallbackAnswer, State};

/// The longest query and the longest code that are looked at, in bytes.
const LONGEST: usize = 8 * 1024;

/// The longest issuer that is looked at, in bytes.
const LONGEST_ISSUER: usize = 2048;

/// The keys of the query that hold state, code, error and issuer.
#[derive(Clone, Debug)]
pub(super) struct CallbackKeys {
    state: String,
    code: String,
    error: Vec<String>,
    /// The issuer that must stand in `iss` (RFC 9207); `None`: it is not looked at.
    pub issuer: Option<Template>,
}

/// The reason for which a callback is rejected before any lookup.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum BadCallback {
    /// The code is empty, too long, or holds what no code holds.
    #[error("the code in the callback is malformed")]
    Code,
    /// A key that matters stands there twice: two readers would read two things.
    #[error("the callback says the same thing twice")]
    Repeated,
    /// The query is too long.
    #[error("the callback is too long")]
    TooLong,
}

impl CallbackKeys {
    /// Reads `[consent.callback]`; absent: the names of RFC 6749 section 4.1.2.
    pub(super) fn read(node: Option<&Node>, scope: TemplateScope<'_>, report: &Diagnostics) -> Self {
        let usual = || Self {
            state: "state".to_owned(),
            code: "code".to_owned(),
            error: vec!["error".to_owned()],
            issuer: None,
        };
        let Some(node) = node else { return usual() };
        let fields = Fields::new(node, "[consent.callback]", report);
        let usual = usual();
        let keys = Self {
            state: fields.or("state", usual.state),
            code: fields.or("code", usual.code),
            error: fields.or("error", OneOrManyValues(usual.error)).0,
            issuer: fields.take("issuer").and_then(|node| {
                Template::read(node, TemplateScope { place: TemplateContext::Build, ..scope }, report)
            }),
        };
        fields.finish();
        keys
    }

    /// Reads a query, without its `?`.
    pub(super) fn callback(&self, query: &str, now: Now) -> Result<CallbackAnswer, BadCallback> {
        if query.len() > LONGEST {
            return Err(BadCallback::TooLong);
        }
        let find = |wanted: &str| {
            let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == wanted);
            match (found.next(), found.next()) {
                (Some(_), Some(_)) => Err(BadCallback::Repeated),
                (one, _) => Ok(one.map(|(_, value)| value)),
            }
        };
        let state = find(&self.state)?.and_then(|text| State::parse(&text));
        let code = find(&self.code)?.map(|text| code(&text, now)).transpose()?;
        let mut error = None;
        for key in &self.error {
            if let Some(text) = find(key)?
                && error.is_none()
            {
                // Text that is not a word comes from a stranger and is never shown.
                error = Some(if is_wordy_secret(&text) { text.into_owned() } else { String::new() });
            }
        }
        let issuer = find("iss")?.filter(|text| text.len() <= LONGEST_ISSUER).map(Cow::into_owned);
        Ok(CallbackAnswer { state, code, error, issuer })
    }
}

/// A code that reached us at `now`. RFC 6749 appendix A.11: visible ASCII and spaces; no provider uses spaces.
pub(super) fn code(text: &str, now: Now) -> Result<AuthorizationCode, BadCallback> {
    let plain = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if plain { Ok(AuthorizationCode::new(SecretString::from(text), now)) } else { Err(BadCallback::Code) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::provider::template::Generators;

    const NOW: Now = Now::at(0, 0);

    fn read(query: &str) -> Result<(bool, bool, Option<String>), BadCallback> {
        let generated = Generators::default();
        let place = TemplateContext::Authorize;
        let scope = TemplateScope { settings: &[], captures: &[], steps: &[], generated: &generated, place };
        let callback = CallbackKeys::read(None, scope, &Diagnostics::new()).callback(query, NOW)?;
        Ok((callback.state.is_some(), callback.code.is_some(), callback.error))
    }

    #[test]
    fn a_callback_is_read_once_or_not_at_all() {
        let state = "A".repeat(43);
        assert_eq!(read(&format!("code=a-b&state={state}")), Ok((true, true, None)));
        assert_eq!(
            read(&format!("state={state}&error=access_denied")),
            Ok((true, false, Some("access_denied".into())))
        );
        assert_eq!(read("error=%3Cscript%3E"), Ok((false, false, Some(String::new()))));
        assert_eq!(read("code=x&state=short"), Ok((false, true, None)));
        assert_eq!(read(""), Ok((false, false, None)));
        for (query, wrong) in [
            ("code=a&code=b", BadCallback::Repeated),
            ("state=a&st%61te=b", BadCallback::Repeated),
            ("error=a&error=a", BadCallback::Repeated),
            ("code=", BadCallback::Code),
            ("code=a%0d%0ab", BadCallback::Code),
            ("code=%ff", BadCallback::Code),
        ] {
            assert_eq!(read(query).err(), Some(wrong), "{query}");
        }
        assert_eq!(read(&"x".repeat(LONGEST + 1)).err(), Some(BadCallback::TooLong));
    }

    proptest! {
        #[test]
        fn arbitrary_queries_never_panic(query in any::<String>()) {
            let _ = read(&query);
        }
    }
}
