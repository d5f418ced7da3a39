//! Identification of the caller of a request: by its own credentials, or by those that opened its tunnel.

use http::HeaderMap;

use crate::route::Caller;
use crate::serve::connections::connection_context::ConnectionContext;
use crate::serve::fault::{Fault, Refusal, RefusalCause};
use crate::serve::modes::Tunnel;
use crate::serve::reports::request_log::RequestLog;
use crate::serve::requests::identify::{IdentifyContext, IdentifyError, Peer, Proven, prove};
use crate::serve::worker_state::WorkerState;

/// The limit that a 429 stands for, as the operator is told.
const WRONG_CREDENTIALS: &str = "too many wrong credentials have come from this address";

/// Returns the caller, or a refusal without details. In a tunnel, it is the caller that opened it.
pub(in crate::serve) async fn caller(
    worker: &WorkerState,
    conn: &ConnectionContext,
    headers: &HeaderMap,
    log: &mut RequestLog,
) -> Result<Proven, Fault> {
    let listener = worker.listener(conn.listener).ok_or(Fault::Misdirected)?;
    if listener.footing != conn.footing {
        // The proof of this connection may no longer hold: on a new one the client can be asked for it again.
        return Err(Fault::Misdirected);
    }
    let clients = &worker.shared.snapshot.clients;
    let now = log.record().start;
    let as_proxy = conn.entry.is_proxy();
    let context = IdentifyContext { access: &listener.access, clients, issuers: &worker.shared.issuers, now, as_proxy };
    let known = match conn.entry.tunnel() {
        Some(tunnel) => opener(worker, tunnel, context, &conn.peer).await,
        None => prove(context, &conn.peer, headers).await,
    };
    let unidentified = if as_proxy { Fault::ClientUnidentifiedToProxy } else { Fault::ClientUnidentified };
    match known {
        Ok(known @ Proven { caller: Caller::Client(_), .. }) => {
            log.record().client = worker.name_of(known.caller);
            Ok(known)
        }
        Ok(Proven { caller: Caller::Anyone, .. }) if from_a_web_page(headers) => {
            Err(Fault::ClientNotAllowed(Refusal::of(RefusalCause::WebPage)))
        }
        Ok(anyone @ Proven { caller: Caller::Anyone, .. }) => Ok(anyone),
        Err(IdentifyError::NotLetIn(id)) => {
            log.record().client = worker.name_of(Caller::Client(id));
            Err(Fault::ClientNotAllowed(Refusal::of(RefusalCause::Listener)))
        }
        Err(IdentifyError::Unknown) => Err(unidentified),
        // Wrong guesses are slowed; right credentials were accepted above, so no client is locked out by a neighbour's
        // guesses.
        Err(IdentifyError::Wrong) => match worker.shared.connection_limits.failed(conn.peer.address, now) {
            Ok(()) => Err(unidentified),
            Err(after) => {
                log.exceeds(WRONG_CREDENTIALS);
                Err(Fault::RateLimited(after))
            }
        },
    }
}

/// Returns the caller that opened a tunnel. Under a new config, and once the proof has ended, the same evidence has to
/// identify the caller again.
async fn opener(
    worker: &WorkerState,
    tunnel: &Tunnel,
    context: IdentifyContext<'_>,
    peer: &Peer,
) -> Result<Proven, IdentifyError> {
    let (serial, opener) = tunnel.opener.get();
    if serial == worker.shared.serial && opener.until.is_none_or(|until| !until.passed(context.now)) {
        return Ok(opener);
    }
    let opener = Box::pin(prove(IdentifyContext { as_proxy: true, ..context }, peer, &tunnel.claim)).await?;
    tunnel.opener.set((worker.shared.serial, opener));
    Ok(opener)
}

/// Returns whether a request comes from a web page. If callers are not identified, a page in a browser on this machine
/// must not be able to call.
pub(in crate::serve) fn from_a_web_page(headers: &HeaderMap) -> bool {
    headers.contains_key(http::header::ORIGIN)
        || headers.get_all("sec-fetch-site").iter().any(|worker| worker != "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_web_pages_are_recognised() {
        let with = |name: &str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            from_a_web_page(&headers)
        };
        assert!(with("origin", "https://evil.example"));
        assert!(with("origin", "null"));
        assert!(with("sec-fetch-site", "cross-site"));
        assert!(!with("sec-fetch-site", "none"), "typed into the address bar");
        assert!(!with("accept", "*/*"));
    }
}
