//! The environment variables of OpenTelemetry (`OTEL_*`), under the names of its specification.
//!
//! They are read where `[otlp]` says `env = true`, and nowhere else. Platforms set them for every process at once; a proxy
//! that carries payments must not begin to send anything because of that.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::otlp_target::{OtlpProtocol, OtlpSignal, OtlpText, PROTOCOLS, header_name, header_value};
use super::reader::Reader;
use super::spanned_text::Position;

/// The variables of this process, or none at all.
pub(super) struct OtelVariables<'a> {
    reader: &'a Reader<'a>,
    /// Where the config has them read; `None`: it does not.
    place: Option<Position>,
}

impl<'a> OtelVariables<'a> {
    pub(super) fn new(reader: &'a Reader<'a>, place: Option<Position>) -> Self {
        Self { reader, place }
    }

    /// A variable with its value, if it is set and not empty.
    fn get(&self, name: &str) -> Option<OtlpText> {
        let place = self.place.clone()?;
        let text = self.reader.variable(name)?.trim().to_owned();
        Some(OtlpText { text, place, variable: Some(name.to_owned()) })
    }

    /// The variable of one kind of telemetry, or else the common one. The flag says whether it was the first.
    fn of_signal(&self, signal: OtlpSignal, word: &str) -> Option<(OtlpText, bool)> {
        let own = self.get(&format!("OTEL_EXPORTER_OTLP_{}_{word}", signal.as_str().to_ascii_uppercase()));
        match own {
            Some(own) => Some((own, true)),
            None => Some((self.get(&format!("OTEL_EXPORTER_OTLP_{word}"))?, false)),
        }
    }

    /// `OTEL_SDK_DISABLED`: nothing is exported. The error was reported.
    pub(super) fn is_disabled(&self) -> bool {
        let Some(word) = self.get("OTEL_SDK_DISABLED") else { return false };
        match word.text.to_ascii_lowercase().as_str() {
            "true" => true,
            "false" => false,
            _ => {
                self.refuse(&word, "it is neither `true` nor `false`", "set it to one of them, or unset it");
                true
            }
        }
    }

    /// `OTEL_TRACES_EXPORTER` and the like: whether this kind is exported, if that is said.
    pub(super) fn is_exported(&self, signal: OtlpSignal) -> Option<bool> {
        let word = self.get(&format!("OTEL_{}_EXPORTER", signal.as_str().to_ascii_uppercase()))?;
        match word.text.as_str() {
            "otlp" => Some(true),
            "none" => Some(false),
            _ => {
                self.refuse(&word, "there is no exporter of this name here", "set it to `otlp` or `none`, or unset it");
                None
            }
        }
    }

    /// The URL of the collector. The flag says whether it is for this kind alone, and then taken as it is.
    pub(super) fn endpoint(&self, signal: OtlpSignal) -> Option<(OtlpText, bool)> {
        self.of_signal(signal, "ENDPOINT")
    }

    pub(super) fn protocol(&self, signal: OtlpSignal) -> Option<OtlpProtocol> {
        let (word, _) = self.of_signal(signal, "PROTOCOL")?;
        let found = PROTOCOLS.into_iter().find(|(name, _)| *name == word.text).map(|(_, protocol)| protocol);
        if found.is_none() {
            self.refuse(&word, "this protocol is not spoken", "set it to `grpc` or `http/protobuf`, or unset it");
        }
        found
    }

    /// The fields of every export request. The values are secrets.
    pub(super) fn headers(&self, signal: OtlpSignal) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let (word, _) = self.of_signal(signal, "HEADERS")?;
        let mut headers = Vec::new();
        for (key, value) in self.pairs(&word)? {
            match (header_name(&key, &headers), header_value(&value)) {
                (Ok(name), Some(value)) => headers.push((name, value)),
                (Err((title, help)), _) => {
                    self.refuse(&word, &title, help);
                    return None;
                }
                (Ok(name), None) => {
                    let help = "a value is one line of visible ASCII";
                    self.refuse(&word, &format!("the value of `{name}` cannot be sent"), help);
                    return None;
                }
            }
        }
        Some(headers)
    }

    /// The only CAs to trust, as a path.
    pub(super) fn certificate(&self, signal: OtlpSignal) -> Option<OtlpText> {
        self.of_signal(signal, "CERTIFICATE").map(|(word, _)| word)
    }

    pub(super) fn timeout(&self, signal: OtlpSignal) -> Option<Duration> {
        let (word, _) = self.of_signal(signal, "TIMEOUT")?;
        self.millis(&word, 1)
    }

    /// `OTEL_METRIC_EXPORT_INTERVAL`, at least `least` milliseconds.
    pub(super) fn interval(&self, least: u64) -> Option<Duration> {
        self.millis(&self.get("OTEL_METRIC_EXPORT_INTERVAL")?, least)
    }

    pub(super) fn service_name(&self) -> Option<String> {
        self.get("OTEL_SERVICE_NAME").map(|word| word.text)
    }

    pub(super) fn resource_attributes(&self) -> Vec<(String, String)> {
        self.get("OTEL_RESOURCE_ATTRIBUTES").and_then(|word| self.pairs(&word)).unwrap_or_default()
    }

    /// The share of new traces that is recorded, by `OTEL_TRACES_SAMPLER` and its argument.
    pub(super) fn sample(&self) -> Option<f64> {
        let word = self.get("OTEL_TRACES_SAMPLER")?;
        match word.text.as_str() {
            "parentbased_always_on" => Some(1.0),
            "parentbased_always_off" => Some(0.0),
            "parentbased_traceidratio" => {
                let Some(argument) = self.get("OTEL_TRACES_SAMPLER_ARG") else { return Some(1.0) };
                let share = argument.text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
                if share.is_none() {
                    self.refuse(&argument, "this is not a share of all traces", "set it to a number from 0 to 1");
                }
                share
            }
            name @ ("always_on" | "always_off" | "traceidratio") => {
                // A caller that records its trace would find a hole in it.
                let help = format!("set it to `parentbased_{name}`");
                self.refuse(&word, "a caller's decision on its trace is always followed here", &help);
                None
            }
            _ => {
                let help = "set it to `parentbased_always_on`, `parentbased_always_off` or `parentbased_traceidratio`";
                self.refuse(&word, "there is no sampler of this name here", help);
                None
            }
        }
    }

    fn millis(&self, word: &OtlpText, least: u64) -> Option<Duration> {
        let millis = word.text.parse().ok().filter(|millis| *millis >= least);
        if millis.is_none() {
            self.refuse(word, &format!("this is no number of milliseconds from {least} on"), "write digits alone");
        }
        millis.map(Duration::from_millis)
    }

    /// Reads `key=value,key=value`, the values with percent-encoding. The error shows no value.
    fn pairs(&self, word: &OtlpText) -> Option<Vec<(String, String)>> {
        let pairs = pairs(&word.text);
        if pairs.is_none() {
            let help =
                "write `key=value,key=value`; a comma, a percent sign and whatever is not ASCII are percent-encoded";
            self.refuse(word, "this is no list of keys with values", help);
        }
        pairs
    }

    fn refuse(&self, word: &OtlpText, title: &str, help: &str) {
        word.error(self.reader.report, title, help);
    }
}

fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        if key.is_empty() {
            return None;
        }
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        pairs.push((key.to_owned(), value.into_owned()));
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_keys_with_values_are_read_as_the_specification_has_them() {
        let read =
            |text| pairs(text).map(|found| found.into_iter().map(|(key, value)| format!("{key}:{value}")).collect());
        let some = |found: &[&str]| Some(found.iter().map(|&pair| pair.to_owned()).collect::<Vec<_>>());
        assert_eq!(read("a=1,b=2"), some(&["a:1", "b:2"]));
        assert_eq!(read(" api-key = x%2Cy%20z , b==%3D,"), some(&["api-key:x,y z", "b:=="]));
        assert_eq!(read("a="), some(&["a:"]));
        assert_eq!(read(""), some(&[]));
        for bad in ["a", "=1", "a=1,b", "a=%ff"] {
            assert_eq!(read(bad), None::<Vec<String>>, "{bad}");
        }
    }
}
