//! Exchanges with a provider: bodies, the call with its replay, the response.
//!
//! | file | subject |
//! |---|---|
//! | `cleared_request` | the last check of the token before a request is sent |
//! | `credential_scanner` | the search for credentials in responses |
//! | `kept` | the kept part of a request body |
//! | `open_response` | the opening of a response that is decrypted and verified |
//! | `pace` | the slowest pace of a body |
//! | `peek` | the beginning of a response body, for the judge |
//! | `replay_body` | a request body that can be sent again |
//! | `response_body` | a response body on its way to the client |
//! | `upgrade` | connections that stop speaking HTTP |
//! | `upstream_call` | send, judge, at most one replay |
//! | `upstream_response` | a response that was accepted |

pub(super) mod cleared_request;
pub(super) mod credential_scanner;
pub(super) mod kept;
pub(super) mod open_response;
mod pace;
pub(super) mod peek;
pub(super) mod replay_body;
pub(super) mod response_body;
pub(super) mod upgrade;
pub(super) mod upstream_call;
pub(super) mod upstream_response;
