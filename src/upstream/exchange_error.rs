//! The reason for which an exchange broke off, in words for a log.

use std::error::Error as _;
use std::{fmt, io};

use rustls::{AlertDescription, Error as TlsError};
use thiserror::Error;

use super::h1_client::H1ClientError;

/// The reason for which an exchange broke off. Its `Display` names every cause, and contains no part of the request or
/// the response.
#[derive(Debug, Error)]
pub struct ExchangeError {
    #[source]
    error: Cause,
    renegotiated: bool,
    is_of_certificate: bool,
}

/// The error of the client that carried the exchange.
#[derive(Debug, Error)]
pub(super) enum Cause {
    #[error(transparent)]
    H1(#[from] H1ClientError),
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
}

/// The text that is added if the other side began a second TLS handshake.
const RENEGOTIATION: &str = "; the provider asked for a renegotiation (a second handshake inside TLS 1.2, often for a \
                             client certificate), which is not supported: let it ask for the certificate in the first \
                             handshake, for the whole site";

impl ExchangeError {
    /// `renegotiated`: whether the other side had begun a second handshake.
    pub(super) fn new(error: impl Into<Cause>, renegotiated: bool) -> Self {
        Self { error: error.into(), renegotiated, is_of_certificate: false }
    }

    /// The same error, with the knowledge whether the other side had refused our certificate before: HTTP/2 keeps no more
    /// than a text of the errors below it.
    pub(super) fn of_certificate(self, is_of_certificate: bool) -> Self {
        Self { is_of_certificate, ..self }
    }

    /// Returns whether the other side refused our certificate, or wants one.
    pub fn refuses_certificate(&self) -> bool {
        self.is_of_certificate || is_of_certificate(self)
    }

    /// Returns whether the other side had begun a second TLS handshake, which is not supported.
    pub const fn is_renegotiation(&self) -> bool {
        self.renegotiated
    }
}

impl From<hyper::Error> for ExchangeError {
    fn from(error: hyper::Error) -> Self {
        Self::new(error, false)
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reported = self.error.to_string();
        f.write_str(&reported)?;
        let mut next = self.error.source();
        while let Some(cause) = next {
            let text = match cause.downcast_ref::<h2::Error>() {
                // The debug data of GOAWAY is free text of the other side.
                Some(error) => match error.reason() {
                    Some(reason) if error.is_go_away() => format!("GOAWAY, {reason}"),
                    Some(reason) => format!("stream error, {reason}"),
                    None => error.to_string(),
                },
                None => cause.to_string(),
            };
            // Some layers repeat the text of the one below them.
            if !reported.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            reported = text;
            next = cause.source();
        }
        if self.renegotiated { f.write_str(RENEGOTIATION) } else { Ok(()) }
    }
}

/// Returns whether an error comes from an alert of TLS by which the other side refuses our certificate, or wants one (RFC
/// 8446 section 6.2). Over TLS 1.3 it comes only after the handshake.
pub(super) fn is_of_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(TlsError::AlertReceived(alert)) = error.downcast_ref::<TlsError>() {
            return matches!(
                alert,
                AlertDescription::AccessDenied
                    | AlertDescription::BadCertificate
                    | AlertDescription::CertificateExpired
                    | AlertDescription::CertificateRequired
                    | AlertDescription::CertificateRevoked
                    | AlertDescription::CertificateUnknown
                    | AlertDescription::UnknownCA
                    | AlertDescription::UnsupportedCertificate
            );
        }
        // An `io::Error` is not the source of what it holds.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = held.map(|held| held as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    false
}
