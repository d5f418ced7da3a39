//! The resource that exports: a service, its instance, and attributes of the operator's choice.

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;

const SCOPE: &str = env!("CARGO_PKG_NAME");
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The resource of an export.
#[derive(Clone, Copy, Debug)]
pub struct OtlpResource<'a> {
    /// Value of the attribute `service.name`.
    pub service: &'a str,
    /// `service.instance.id`: this process among replicas.
    pub instance: &'a str,
    /// More attributes; one with the name of another replaces it.
    pub attributes: &'a [(String, String)],
}

impl OtlpResource<'_> {
    pub(super) fn message(self) -> Resource {
        let own =
            [("service.name", self.service), ("service.version", VERSION), ("service.instance.id", self.instance)];
        let is_replaced = |key: &str| self.attributes.iter().any(|(name, _)| name == key);
        let own = own.into_iter().filter(|(key, _)| !is_replaced(key));
        let more = self.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let attributes = own.chain(more).map(|(key, value)| attribute(key, value.to_owned()));
        Resource { attributes: attributes.collect(), ..Default::default() }
    }
}

/// The scope of all that is exported: this program.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope { name: SCOPE.to_owned(), version: VERSION.to_owned(), ..Default::default() }
}

/// An attribute whose value is a text.
pub(super) fn attribute(key: &str, value: String) -> KeyValue {
    pair(key, any_value::Value::StringValue(value))
}

pub(super) fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operators_attribute_replaces_ours_of_the_same_name() {
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let attributes = [own("deployment.environment.name", "prod"), own("service.instance.id", "pod-7")];
        let resource = OtlpResource { service: "gate", instance: "one", attributes: &attributes }.message();
        let expected = [
            ("service.name", "gate"),
            ("service.version", VERSION),
            ("deployment.environment.name", "prod"),
            ("service.instance.id", "pod-7"),
        ];
        assert_eq!(resource.attributes, expected.map(|(key, value)| attribute(key, value.to_owned())));
    }
}
