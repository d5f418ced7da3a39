//! The table of banks, and what each of them says about itself.

use std::time::Duration;

use crate::record::RecordedConversation;
use crate::sim::bank_file::BankFile;
use crate::sim::call::SimCall;
use crate::sim::credentials::Credentials;
use crate::sim::issued_tokens::Binding;
use crate::sim::sim_response::SimResponse;
use crate::sim::sim_state::SimState;
use crate::sim::{abbeycross, meed, oauth2, rakbank, scb};

/// A bank that can be simulated.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Bank {
    /// AbbeyCross, an FX platform with opening hours.
    AbbeyCross,
    /// A bank that a file describes.
    Described(&'static BankFile),
    /// Meed's partner API, with form-encoded token calls and signed tokens.
    Meed,
    /// A provider by the book: RFC 6749 and RFC 6750.
    OAuth2,
    /// RAKBANK, behind IBM API Connect.
    Rakbank,
    /// Siam Commercial Bank (SCB), with JSON token calls and a business code in every body.
    Scb,
}

impl Bank {
    /// The banks that are simulated by code of their own, in alphabetical order.
    pub const ALL: [Bank; 5] = [Bank::AbbeyCross, Bank::Meed, Bank::OAuth2, Bank::Rakbank, Bank::Scb];

    /// Its name on the command line, which is also its profile's.
    pub fn name(self) -> &'static str {
        self.member().name
    }

    /// The bank of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::known().find(|bank| bank.name() == name)
    }

    /// All banks that come with countersign: [`Bank::ALL`], then those that a file describes.
    pub fn known() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain(BankFile::all().iter().map(Bank::Described))
    }

    /// The bank that a file describes, under a name of its own. The error is for a person.
    pub fn of_file(name: &str, text: &str) -> Result<Self, String> {
        // It lives as long as the process, as its simulator does.
        BankFile::parse(name, text).map(|file| Bank::Described(Box::leak(Box::new(file))))
    }

    /// The bank that recordings of one profile tell of. The error is for a person.
    pub fn of_recordings(profile: &str, recordings: &[&RecordedConversation]) -> Result<Self, String> {
        BankFile::of_recordings(profile, recordings).map(|file| Bank::Described(Box::leak(Box::new(file))))
    }

    pub(super) fn member(self) -> &'static BankSpec {
        match self {
            Bank::AbbeyCross => &abbeycross::MEMBER,
            Bank::Described(file) => file.spec(),
            Bank::Meed => &meed::MEMBER,
            Bank::OAuth2 => &oauth2::MEMBER,
            Bank::Rakbank => &rakbank::MEMBER,
            Bank::Scb => &scb::MEMBER,
        }
    }
}

/// The properties and handlers of one bank.
pub(super) struct BankSpec {
    pub name: &'static str,
    /// The path below which its API lies: empty, or `/like/this`.
    pub base_path: &'static str,
    /// The token endpoint, as an absolute path.
    pub token_path: &'static str,
    /// `proxy.toml` must name the token endpoint, because it does not follow from the base URL.
    pub names_token_url: bool,
    pub settings: SettingLines,
    /// The usual lifetime of its tokens.
    pub life: Duration,
    /// Draws credentials of its shape.
    pub credentials: fn() -> Credentials,
    /// Answers a call of its token endpoint.
    pub token: fn(&SimState, &SimCall) -> SimResponse,
    /// Paths that ask for credentials of their own instead of a token.
    pub open: fn(&SimState, &SimCall) -> Option<SimResponse>,
    /// Checks what it checks on every other call, the token before all.
    pub admit: fn(&SimState, &SimCall) -> Result<Binding, SimResponse>,
    /// Answers an admitted call; `None` where it knows nothing of the kind.
    pub resource: fn(&SimState, &SimCall, &Binding) -> Option<SimResponse>,
    /// Says that there is nothing here.
    pub missing: fn(&SimCall) -> SimResponse,
}

/// The lines of a bank in `proxy.toml`.
pub(super) enum SettingLines {
    /// The names of the identifier and the secret, and further lines.
    Credentials([&'static str; 3]),
    /// Those that were drawn from a file.
    Drawn,
}

/// For banks where every path wants a token.
pub(super) const fn nothing_open(_: &SimState, _: &SimCall) -> Option<SimResponse> {
    None
}
