//! Names that completions offer for an argument that takes others, too, such as the path of a file.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command, Error};

use crate::provider::Profile;
use crate::sim::Bank;

/// Parses any text, and tells completions which names are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownNames(fn() -> Vec<&'static str>);

impl KnownNames {
    /// The built-in profiles.
    pub(super) const PROFILES: Self = Self(Profile::builtin_names);
    /// The banks that are simulated.
    pub(super) const SIMULATORS: Self = Self(|| Bank::known().map(Bank::name).collect());
}

impl TypedValueParser for KnownNames {
    type Value = String;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.0)().into_iter().map(PossibleValue::new)))
    }
}
