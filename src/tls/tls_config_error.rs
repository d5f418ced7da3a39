//! The reasons for which there are no TLS settings.

use rustls::server::VerifierBuilderError;
use thiserror::Error;

use super::mint::MintError;
use super::pem::PemError;

/// The reason for which TLS settings cannot be made. It quotes no input.
#[derive(Debug, Error)]
pub enum TlsConfigError {
    /// A certificate of the file with the trusted CAs cannot be added.
    #[error("a certificate in it cannot serve as a CA")]
    Ca(#[source] rustls::Error),
    /// The trusted CAs make no verifier of servers.
    #[error("a certificate in it cannot serve as a CA")]
    CaVerifier(#[source] VerifierBuilderError),
    /// The certificate of a listener is refused.
    #[error("the certificate cannot be used")]
    Certificate(#[source] rustls::Error),
    /// The trusted CAs make no verifier of clients.
    #[error("no client could be verified with it")]
    ClientCa(#[source] VerifierBuilderError),
    #[error("the client certificate cannot be used")]
    ClientCertificate(#[source] rustls::Error),
    #[error("the private key does not belong to the certificate")]
    ForeignKey(#[source] rustls::Error),
    #[error("the private key is of a kind that TLS cannot use")]
    KeyKind(#[source] rustls::Error),
    #[error(transparent)]
    Mint(#[from] MintError),
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("no session tickets")]
    Tickets(#[source] rustls::Error),
    #[error("no common TLS version")]
    Versions(#[source] rustls::Error),
}

impl TlsConfigError {
    /// Returns whether the file of trusted CAs is at fault.
    pub const fn is_about_ca(&self) -> bool {
        matches!(self, Self::Ca(_) | Self::CaVerifier(_) | Self::ClientCa(_))
    }
}
