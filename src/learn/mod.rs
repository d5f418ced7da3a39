//! From examples of a bank's calls to a profile, a conversation and the settings of a config.
//!
//! The examples are curl command lines with their answers, HAR 1.2, Postman collections 2.1 or OpenAPI 3. This module is
//! pure: it reads bytes that it was given, and fetches, opens and runs nothing that they name. It knows no files, no
//! terminal and no config; `cli/learn` does.
//!
//! ```text
//! example_format   the form of an example: curl_notes, har, postman, open_api
//!        │         bounded_json: size, depth and number of values, before anything is parsed
//! observed         exchanges: requests with their answers
//!        │
//! sorted_exchanges the request that brings a token, and the answers to it
//! value_meaning    each value of it: a constant, a setting, something fresh
//! learned_*        what goes into a profile
//!        │
//! profile_text, conversation_text
//! ```
//!
//! **No secret leaves.** Texts are made of names and words that are plain ([`plain_text`]), and of stand-ins for
//! everything else. Nothing of an answer is copied but codes that are plain. At the end [`leak_check`] looks for every
//! value of the examples that must not be there.

mod bounded_json;
mod conversation_text;
mod curl_notes;
mod example_format;
mod har;
mod leak_check;
mod learned_answer;
mod learned_bank;
mod learned_call;
mod learned_failure;
mod learned_refusal;
mod learned_request;
mod learned_text;
mod observed;
mod open_api;
mod plain_text;
mod postman;
mod profile_text;
mod setting_book;
mod shell_words;
mod sorted_exchanges;
mod toml_value;
mod value_meaning;

pub use example_format::{LONGEST_EXAMPLE, MOST_EXAMPLES};
pub use learned_bank::{Guess, LearnedBank, learn};
pub use plain_text::{is_plain_name, is_plain_text, name_words, squashed};
pub use setting_book::LearnedSetting;
pub use toml_value::{one_or_many, quoted, table, toml_value};

#[cfg(test)]
mod tests;
