//! `token_budget` of a `[provider.NAME]`: how many token calls it gets.

use std::time::Duration;

use crate::syntax::Fields;
use crate::token::call_budget::CallBudget;

use super::schema::{DURATION, MUST, SchemaSection, SchemaShape};
use super::spanned_text::Position;

/// Each call of the span is remembered.
const MOST_CALLS: u64 = 100_000;
/// The longest span: 31 days.
const MOST_PER: Duration = Duration::from_secs(31 * 86_400);

pub(super) const KEYS: SchemaSection = (
    "token_budget",
    &[
        ("calls", SchemaShape::Count(1), MUST, "so many token calls"),
        ("per", DURATION, MUST, "in any span of this length"),
    ],
);

/// Reads `token_budget`; `None` if it is absent or has a mistake, which is reported.
pub(super) fn read_token_budget(fields: &Fields<'_>) -> Option<CallBudget> {
    let node = fields.take("token_budget")?;
    let report = fields.report();
    let own = Fields::new(node, format!("token_budget of {}", fields.what()), report);
    let calls = own.req::<u64>("calls", "100").filter(|calls| {
        let fits = (1..=MOST_CALLS).contains(calls);
        if let (false, Some(node)) = (fits, own.take("calls")) {
            let help = "write how many the provider allows, or leave out `token_budget`";
            Position::of(node).error(report, "a budget has from 1 to 100000 calls", help);
        }
        fits
    });
    let per = own.req::<Duration>("per", "\"1h\"").filter(|per| {
        let fits = !per.is_zero() && *per <= MOST_PER;
        if let (false, Some(node)) = (fits, own.take("per")) {
            Position::of(node).error(report, "a budget is for a span of up to 31 days", "write it as in `\"1h\"`");
        }
        fits
    });
    own.finish();
    Some(CallBudget { calls: usize::try_from(calls?).ok()?, per: per? })
}
