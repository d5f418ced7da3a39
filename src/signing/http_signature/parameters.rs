//! Signature parameters (RFC 9421 section 2.3).

use super::super::structured_field;
use super::super::structured_field::{BareItem, FieldItem, ItemParameters};
use super::BaseError;
use super::CoveredComponent;

/// The largest integer of a structured field.
const LARGEST: u64 = 999_999_999_999_999;

/// A parameter of a signature. Moments are in seconds since 1970.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SignatureParameter {
    /// `alg`, a name of the registry of HTTP signature algorithms.
    Alg(String),
    Created(u64),
    Expires(u64),
    KeyId(String),
    Nonce(String),
    Tag(String),
}

/// The components that a signature covers and its parameters, both in the order in which they are written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignatureParameters {
    components: Vec<CoveredComponent>,
    parameters: Vec<SignatureParameter>,
}

impl SignatureParameters {
    /// Components and parameters in the order given.
    pub const fn new(components: Vec<CoveredComponent>, parameters: Vec<SignatureParameter>) -> Self {
        Self { components, parameters }
    }

    /// Reads an inner list of `Signature-Input`. `None` if it has components that are not supported, or parameters that
    /// are not known here: their meaning could forbid the signature.
    pub(super) fn read(items: Vec<FieldItem>, parameters: ItemParameters) -> Option<Self> {
        let components: Option<Vec<_>> = items.into_iter().map(CoveredComponent::from_item).collect();
        let moment = |number: i64| u64::try_from(number).ok();
        let parameters = parameters.into_iter().map(|(name, value)| match (name.as_str(), value) {
            ("alg", BareItem::Text(name)) => Some(SignatureParameter::Alg(name)),
            ("created", BareItem::Integer(at)) => moment(at).map(SignatureParameter::Created),
            ("expires", BareItem::Integer(at)) => moment(at).map(SignatureParameter::Expires),
            ("keyid", BareItem::Text(id)) => Some(SignatureParameter::KeyId(id)),
            ("nonce", BareItem::Text(nonce)) => Some(SignatureParameter::Nonce(nonce)),
            ("tag", BareItem::Text(tag)) => Some(SignatureParameter::Tag(tag)),
            _ => None,
        });
        Some(Self { components: components?, parameters: parameters.collect::<Option<_>>()? })
    }

    pub fn components(&self) -> &[CoveredComponent] {
        &self.components
    }

    /// Returns the algorithm that they name.
    pub fn algorithm(&self) -> Option<&str> {
        self.parameters.iter().find_map(|parameter| match parameter {
            SignatureParameter::Alg(name) => Some(name.as_str()),
            SignatureParameter::Created(_)
            | SignatureParameter::Expires(_)
            | SignatureParameter::KeyId(_)
            | SignatureParameter::Nonce(_)
            | SignatureParameter::Tag(_) => None,
        })
    }

    pub fn parameters(&self) -> &[SignatureParameter] {
        &self.parameters
    }

    /// Writes the inner list (section 2.3).
    pub(super) fn text(&self) -> Result<String, BaseError> {
        let identifiers: Vec<_> = self.components.iter().map(CoveredComponent::identifier).collect();
        let mut out = format!("({})", identifiers.join(" "));
        let parameters = self.parameters.iter().map(|parameter| {
            let (name, value) = match parameter {
                SignatureParameter::Alg(text) => ("alg", words(text)),
                SignatureParameter::Created(at) => ("created", seconds(*at)),
                SignatureParameter::Expires(at) => ("expires", seconds(*at)),
                SignatureParameter::KeyId(text) => ("keyid", words(text)),
                SignatureParameter::Nonce(text) => ("nonce", words(text)),
                SignatureParameter::Tag(text) => ("tag", words(text)),
            };
            value.map(|value| (name.to_owned(), value)).ok_or(BaseError::Parameter(name))
        });
        let parameters: ItemParameters = parameters.collect::<Result<_, _>>()?;
        structured_field::write_parameters(&mut out, &parameters);
        Ok(out)
    }
}

fn words(text: &str) -> Option<BareItem> {
    structured_field::is_text(text).then(|| BareItem::Text(text.to_owned()))
}

fn seconds(at: u64) -> Option<BareItem> {
    i64::try_from(at).ok().filter(|_| at <= LARGEST).map(BareItem::Integer)
}
