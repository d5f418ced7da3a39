//! What may be written as it came: names, words of paths, and the values of members that tell how a call went.

use crate::learn::{is_plain_text, name_words, squashed};

/// How much of a message is believed to be harmless.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ScrubTrust {
    /// An answer of a token endpoint: the times of a token's life are kept.
    Token,
    /// Everything else.
    Resource,
}

/// Members whose plain texts and short numbers are kept: they say how a call went, not about whom.
const MEMBERS: [&str; 37] = [
    "code",
    "count",
    "currency",
    "currencycode",
    "ccy",
    "errcode",
    "error",
    "errorcode",
    "errortype",
    "expiresin",
    "expirein",
    "expires",
    "faultcode",
    "granttype",
    "httpcode",
    "httpstatus",
    "httpstatuscode",
    "offset",
    "page",
    "pagesize",
    "reasoncode",
    "refreshexpiresin",
    "refreshtokenexpiresin",
    "responsecode",
    "respcode",
    "resultcode",
    "returncode",
    "rc",
    "scope",
    "severity",
    "size",
    "status",
    "statuscode",
    "success",
    "tokentype",
    "ttl",
    "type",
];

/// Members whose values are codes of errors and outcomes, whatever else a number there may look like.
const CODES: [&str; 8] =
    ["errcode", "errorcode", "faultcode", "reasoncode", "respcode", "responsecode", "resultcode", "returncode"];

/// Words of paths that name a kind of thing, in the singular. Whatever is no such word may be somebody's.
const PATH_WORDS: [&str; 158] = [
    "access",
    "account",
    "address",
    "adjustment",
    "admin",
    "aggregate",
    "aisp",
    "api",
    "application",
    "approval",
    "auth",
    "authentication",
    "authorisation",
    "authority",
    "authorization",
    "authorize",
    "balance",
    "bank",
    "banking",
    "batch",
    "beneficiary",
    "bill",
    "billing",
    "bulk",
    "business",
    "callback",
    "cancel",
    "capture",
    "card",
    "cash",
    "cbpii",
    "channel",
    "charge",
    "check",
    "client",
    "collection",
    "company",
    "confirm",
    "confirmation",
    "connect",
    "consent",
    "contact",
    "corporate",
    "counterparty",
    "country",
    "create",
    "credential",
    "credit",
    "currency",
    "customer",
    "data",
    "debit",
    "deposit",
    "detail",
    "direct",
    "disbursement",
    "dispute",
    "document",
    "domestic",
    "echo",
    "entity",
    "event",
    "exchange",
    "external",
    "fee",
    "file",
    "filter",
    "forex",
    "form",
    "fund",
    "fx",
    "gateway",
    "generate",
    "health",
    "history",
    "holder",
    "hook",
    "identity",
    "info",
    "information",
    "initiate",
    "initiation",
    "inquiry",
    "instant",
    "instruction",
    "interbank",
    "international",
    "intrabank",
    "invoice",
    "issue",
    "item",
    "key",
    "ledger",
    "limit",
    "line",
    "link",
    "list",
    "loan",
    "location",
    "login",
    "lookup",
    "mandate",
    "me",
    "merchant",
    "message",
    "method",
    "mobile",
    "money",
    "notification",
    "oauth",
    "oauth2",
    "open",
    "order",
    "organization",
    "outgoing",
    "owner",
    "party",
    "pay",
    "payee",
    "payer",
    "payment",
    "payout",
    "ping",
    "pisp",
    "portfolio",
    "product",
    "profile",
    "public",
    "qr",
    "query",
    "quote",
    "rate",
    "read",
    "receipt",
    "recipient",
    "recurring",
    "refund",
    "remittance",
    "report",
    "request",
    "reversal",
    "scheduled",
    "search",
    "service",
    "session",
    "settlement",
    "simulate",
    "standing",
    "statement",
    "status",
    "submit",
    "summary",
    "token",
    "transaction",
    "transfer",
    "user",
    "validation",
    "wallet",
];

/// Names and words that are kept, beside those of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct HarmlessNames {
    kept: Vec<String>,
}

impl HarmlessNames {
    pub(super) fn with(kept: &[String]) -> Self {
        Self { kept: kept.iter().map(|name| squashed(name)).filter(|name| !name.is_empty()).collect() }
    }

    fn is_kept(&self, squashed: &str) -> bool {
        self.kept.iter().any(|kept| kept == squashed)
    }

    /// Returns whether the value of a member may be written. `depth`: 0 for a member of the outermost object.
    pub(super) fn member(&self, name: &str, value: &str, depth: usize, trust: ScrubTrust) -> bool {
        let squashed = squashed(name);
        let name = squashed.strip_prefix('x').filter(|rest| MEMBERS.contains(rest)).unwrap_or(&squashed);
        if trust == ScrubTrust::Token && names_time(name) && is_time(value) {
            return true;
        }
        let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        // Codes of national standards are numbers of seven digits.
        if CODES.contains(&name) && is_number && value.len() <= 8 {
            return true;
        }
        let is_known = MEMBERS.contains(&name) || self.is_kept(name);
        // A number under `code` may be a postcode or a one-time code, unless the answer as a whole has it.
        let is_place = name == "code" && is_number && depth > 1;
        is_known && is_plain_text(value) && value.len() <= 64 && !is_place
            || is_number && value.len() <= 10 && ["expiresin", "expirein", "ttl"].contains(&name)
    }

    /// Returns whether a segment of a path names a kind of thing.
    pub(super) fn path_segment(&self, segment: &str) -> bool {
        if segment.is_empty() || is_version(segment) || self.is_kept(&squashed(segment)) {
            return true;
        }
        let is_word = |word: &String| {
            let singular = word.strip_suffix("ies").map(|stem| format!("{stem}y"));
            let bare = word.strip_suffix('s').unwrap_or(word);
            let is_known = |word: &str| PATH_WORDS.contains(&word) || self.is_kept(word);
            is_known(word) || is_known(bare) || singular.is_some_and(|word| is_known(&word))
        };
        let words = name_words(segment);
        let plain = segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        plain && !words.is_empty() && (is_word(&segment.to_ascii_lowercase()) || words.iter().all(is_word))
    }
}

/// `v1`, `v2.0`, `2.1`.
fn is_version(segment: &str) -> bool {
    let number = segment.strip_prefix(['v', 'V']).unwrap_or(segment);
    let shape = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    !number.is_empty() && number.len() <= 4 && shape && (number.len() < segment.len() || number.contains('.'))
}

/// Members of a token answer that say when something begins or ends.
fn names_time(squashed: &str) -> bool {
    ["expir", "issued", "valid", "lifetime", "createdat"].iter().any(|part| squashed.contains(part))
}

fn is_time(value: &str) -> bool {
    let is_count = (1..=13).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    let is_date = value.len() >= 10
        && value.len() <= 35
        && value.get(4..5) == Some("-")
        && value.bytes().all(|b| b.is_ascii_digit() || b"-:.+TZz ".contains(&b));
    is_count || is_date
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_an_api_are_kept_and_whatever_may_be_a_persons_is_not() {
        let names = HarmlessNames::with(&["swap".to_owned()]);
        for segment in
            ["accounts", "v1", "v2.0", "standing-orders", "oauth2", "currencies", "paymentInitiations", "swaps", "2.1"]
        {
            assert!(names.path_segment(segment), "{segment}");
        }
        for segment in ["jane", "42", "2024", "DE89370400440532013000", "accounts%20", "acc-1", "jane.doe@bank"] {
            assert!(!names.path_segment(segment), "{segment}");
        }
    }

    #[test]
    fn values_of_few_members_are_kept() {
        let names = HarmlessNames::with(&["product".to_owned()]);
        let keeps = |name, value, depth| names.member(name, value, depth, ScrubTrust::Resource);
        assert!(
            keeps("error", "invalid_token", 0) && keeps("errorCode", "E101", 2) && keeps("X-Error-Code", "E101", 0)
        );
        assert!(keeps("currency", "EUR", 5) && keeps("expires_in", "86400", 0) && keeps("Product", "GOLD", 3));
        assert!(keeps("responseCode", "2007300", 0) && !keeps("responseCode", "200730012", 0));
        assert!(keeps("code", "401", 1) && !keeps("code", "9041", 2), "a postcode");
        assert!(!keeps("code", "123456", 0), "a one-time code");
        assert!(!keeps("name", "Jane", 0) && !keeps("error_description", "invalid", 0));
        assert!(!keeps("status", "b47f8cb732a93dd3", 0) && !keeps("expires_at", "1700000000", 0));
        assert!(names.member("expires_at", "1700000000", 0, ScrubTrust::Token));
        assert!(names.member("expiresAt", "2026-01-01T00:00:00Z", 0, ScrubTrust::Token));
        assert!(!names.member("access_token", "12345678", 0, ScrubTrust::Token));
    }
}
