//! Auth modules as data.
//!
//! A [`Profile`] is a TOML file that says how one bank speaks: where its token comes from, how to read the answer, what
//! to put on a call, which answers prove that a token was refused. With the settings of one `[provider.NAME]` it
//! becomes a [`Module`]: everything compiled, so that a request only clones. This room knows no sockets: it makes
//! requests and reads answers; `control/` and `serve/` carry them. It knows no bank either: what is special about one
//! stands in its profile, and what no profile can say becomes a mechanism for all.
//!
//! Pure, and shared by all threads: the keeper makes token requests with it, the workers dress and judge.

mod body_fields;
mod capture;
mod challenge;
mod challenge_rule;
mod client_auth;
mod coexistence;
mod compiled_jose;
mod compiled_signature;
mod compiled_verification;
mod condition;
mod consent;
mod describe;
mod document;
mod document_error;
mod dpop;
mod dpop_nonces;
mod exchange;
mod extends;
pub mod fixture;
mod foreseen_signature;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod guard;
mod id_rule;
mod injection;
mod jose_rule;
mod json;
mod json_members;
mod key_setting;
mod key_use;
mod life;
mod login;
mod message_values;
mod module;
mod pack;
mod pack_manifest;
mod parameters;
mod profile;
mod profile_change;
mod provenance;
mod public_key_setting;
mod recording;
mod refusal;
mod setting;
mod shadow;
mod signature_rule;
mod stub;
mod template;
mod time_rule;
mod token_response_rules;
mod values;
mod verification_rule;
mod xml;

pub use body_fields::UnfitBody;
pub use coexistence::Coexistence;
pub use compiled_jose::{JoseBody, MessageOpener, OpenFailure, OpenedMessage};
pub use compiled_signature::SignatureFailure;
pub use compiled_verification::{SignedHead, SignedRequestHead, VerificationFailure};
pub use consent::{Authorize, BadCallback, CodeExchange, CompiledConsent, ConsentParams, ConsentWiring, Stale};
pub use describe::{DeclaredSetting, SigningKeyFacts, StandIn};
pub use document::is_whole;
pub use dpop::lacks_nonce;
pub use dpop_nonces::{DpopNonces, DpopServer};
pub use exchange::{RepeatableRequest, TokenRequest};
pub use foreseen_signature::{ForeseenContent, ForeseenMessage, ForeseenSignature, SampleCall};
pub use injection::{CallInputs, SentIds};
pub use life::date;
pub use login::LoginProgress;
pub use module::{CallAs, Module, UnsignedCall, Wiring};
pub use pack::{
    PackDemand, PackFault, PackFolder, PackKey, PackTrust, ProfilePack, SIGNATURE_FILE, describe_folder, sign_manifest,
};
pub use pack_manifest::{MANIFEST_FILE, PackManifest, PackVersion};
pub use profile::{LintFinding, Profile};
pub use profile_change::{ChangeKind, ProfileChange, ProfileText, profile_changes};
pub use provenance::{Basis, Provenance};
pub use recording::{
    MOST_RECORDED_BODY, RecordSettings, RecordedExchange, RecordedKind, RecordedSetting, RecordedValue, Recording,
    RecordingChannel, RecordingCopy, RecordingTurn, credentials_of,
};
pub use refusal::Verdict;
pub use setting::{FileContent, PROVIDER_KEYS, ReadValue, RemoteKind, Settings};
pub use shadow::{DressedBody, DressedCall, SameId, Shadow, ShadowCounts, call_differences};
pub use stub::STUB_TOKEN;
