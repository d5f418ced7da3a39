//! Private keys that stay elsewhere: in a PKCS#11 token or in a key management service.
//!
//! A [`KeyServices`] holds a [`KeyService`] for each token and account that a config names. A key of one is a
//! [`RemoteKey`], which is a [`crate::signing::signer::Signer`] like a key in memory: a worker hands a message over and
//! goes on with other requests. All services live on one thread, `key-services`, in a task each; none waits for another.
//! A service asks at most [`SERVICE_PARALLEL`] signatures at once, keeps a bounded queue, and stops asking when its
//! [`Breaker`] has opened: signatures are then refused at once, and the service is tried again in the background.
//!
//! A PKCS#11 module is foreign code that runs in the process that loads it, keys included when the token is software.
//! So it is loaded by a process of its own ([`pkcs11`]), which can also be ended when it hangs.
//!
//! It must not know profiles, routes or how a request reaches a key management service: [`HttpWay`](crate::base::http_call::HttpWay) is built by
//! the config, with the TLS roots and the proxy that it names.

mod breaker;
mod device;
mod key_services;
pub mod kms;
pub mod pkcs11;
mod remote_key;
mod service;
mod service_task;

pub use breaker::{Breaker, BreakerEvent};
pub use device::{DeviceError, KeyDevice, KeyPart, KeyProblem};
pub use key_services::{KeyServices, UnwrappedKey};
pub use kms::KmsSettings;
pub use pkcs11::{Pkcs11Settings, TokenName};
pub use remote_key::RemoteKey;
pub use service::{KeyName, KeyService, SERVICE_PARALLEL, ServiceReport, ServiceSettings};
