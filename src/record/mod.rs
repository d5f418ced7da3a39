//! Recordings: from live traffic to conversations without a secret.
//!
//! ```text
//! provider/recording   the tap: copies an exchange within bounds, and never waits
//!        │             a bounded channel; what finds no room is counted
//! recording_thread     one thread a provider: takes, writes, reports
//!        │
//! recording_book       which exchanges are kept, and the text of the conversation
//!        │
//! scrubber             harmless: what may be written as it came · stand_in: the rest, by shape · xml_leaves
//!
//! recorded_call        a call as it is written and read
//! answer_shape, drift    what answers have in common, and what has changed
//! ```
//!
//! **Only shapes are trusted.** Whatever is not on a list of harmless names is replaced by a stand-in of its shape, under a
//! key that is drawn for the recording and kept nowhere. Before a text is written, every secret that the process knows and
//! every replaced value is looked for in it.

mod answer_shape;
mod conversation_files;
mod drift;
mod harmless;
mod recorded_call;
mod recording_book;
mod recording_thread;
mod scrubber;
mod stand_in;
mod stand_in_key;
mod xml_leaves;

pub use conversation_files::conversation_files;
pub use drift::{DriftReport, drift};
pub use recorded_call::{AskedCall, CallPurpose, RecordedCall, RecordedConversation, RecordedKey};
pub use recording_thread::start_recording;
