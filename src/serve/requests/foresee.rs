//! A prediction of the outcome of a request, without sending anything.
//!
//! The request goes through the same steps as in [`crate::serve::forward`]: the same listener, the same table, the same
//! dressing. Only the caller may be named instead of proved, and a stand-in takes the token's place.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use http::request::Parts;
use http::{HeaderMap, HeaderValue};

use crate::base::time::Clock;
use crate::base::vars::Vars;
use crate::config::{ListenerConfig, Route, Snapshot};
use crate::control::Issuers;
use crate::provider::{ForeseenContent, SampleCall, StandIn};
use crate::route::{Admission, Authority, Caller, ClientId, Denied, RequestTarget};
use crate::serve::fault::{Fault, Refusal, RefusalCause};
use crate::serve::modes::RoutingTarget;
use crate::serve::requests::admit::{Declined, admit};
use crate::serve::requests::caller::from_a_web_page;
use crate::serve::requests::dress::{RequestDress, dress, dressed_target};
use crate::serve::requests::hop_options::HopOptions;
use crate::serve::requests::identify::{IdentifyContext, IdentifyError, Peer, identify, let_in};
use crate::serve::requests::permit::within_bounds;
use crate::token::key::TokenKey;

/// What is shown in place of a signature: nothing is signed that is not sent.
static SIGNATURE: LazyLock<HeaderValue> = LazyLock::new(|| shown("‹signature›"));

/// The same for a proof of possession.
static PROOF: LazyLock<HeaderValue> = LazyLock::new(|| {
    shown("‹proof of possession: for this method, this address and this token, with the API's nonce›")
});

fn shown(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).expect("bytes above 127 are those of obs-text (RFC 9110)")
}

/// A hypothetical request, which is never sent.
pub struct SampleRequest<'a> {
    /// The listener it would come to.
    pub listener: &'a ListenerConfig,
    /// The caller, without proof; absent: the headers must prove it.
    pub client: Option<ClientId>,
    /// The address from which it would come.
    pub peer: IpAddr,
    /// The name that TLS would ask for.
    pub sni: Option<&'a str>,
    /// At a forward listener: where its tunnel would lead; absent: the target is in absolute form.
    pub to: Option<&'a Authority>,
    /// Its head. The target is in origin form, but for that.
    pub head: &'a Parts,
    /// True if a body would follow.
    pub body: bool,
    /// The body, as far as it is known.
    pub data: &'a [u8],
}

/// The request that would be forwarded.
#[derive(Debug)]
pub struct Foreseen<'a> {
    /// The caller, as named or identified.
    pub caller: Caller,
    /// The route that it takes.
    pub route: &'a Route,
    /// The token that it needs.
    pub key: TokenKey,
    /// The values of the route's variables in this request.
    pub vars: Vars,
    /// The request target that the provider would receive, with stand-ins by name.
    pub path_and_query: String,
    /// The header fields that the provider would receive, with stand-ins.
    pub headers: HeaderMap,
    /// The fields that are put into the body, and the signatures.
    pub content: ForeseenContent,
    /// The replacement for the token and the identifiers.
    pub stand_in: StandIn,
    /// The route's rules would refuse it, but are not enforced.
    pub tolerated: bool,
}

/// The reason the request would not be forwarded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rejected {
    /// The fault that the client would receive.
    pub fault: Fault,
    /// The caller, if it is known.
    pub caller: Option<Caller>,
    /// The route that was meant, where one was.
    pub route: Option<usize>,
    /// Not refused, but answered here: the provider's token endpoint, with a worthless token.
    pub stub: bool,
}

/// Follows a request through the data plane.
pub fn foresee<'a>(snapshot: &'a Snapshot, asked: &SampleRequest<'_>) -> Result<Foreseen<'a>, Rejected> {
    let caller = caller(snapshot, asked)?;
    let known = |fault, route| Rejected { fault, caller: Some(caller), route, stub: false };
    let ground = RoutingTarget::sample(&asked.listener.mode, asked.sni, asked.to);
    let ground = ground.ok_or_else(|| known(Fault::RouteNotFound, None))?;
    let admission = admit(ground, &snapshot.limits, caller, asked.head).map_err(|declined| match declined {
        Declined::Fault(fault) => known(fault, meant(ground, asked, caller)),
        Declined::Stub(route) => Rejected { stub: true, ..known(Fault::ReservedEndpoint, Some(route)) },
    })?;
    let index = admission.route();
    let admitted = match admission {
        Admission::Admitted(admitted) => Ok(admitted),
        Admission::AwaitsBody(draft) => draft.complete(asked.data).map_err(Declined::from),
    };
    let admitted = admitted.map_err(|declined| match declined {
        Declined::Fault(fault) => known(fault, Some(index)),
        Declined::Stub(_) => known(Fault::Internal, Some(index)),
    })?;
    let route = snapshot.routes.get(index).ok_or(known(Fault::Internal, None))?;
    let bounds = within_bounds(&snapshot.clients, caller, &admitted);
    let mut tolerated = admitted.tolerated();
    match bounds {
        Err(_) if !route.enforce => tolerated = true,
        done => done.map_err(|fault| known(fault, Some(index)))?,
    }
    let key = route.module.key_for(admitted.vars());
    let (mut stand_in, lease) = StandIn::of(&route.module, key);
    let now = Clock::System.now();
    let host = HeaderValue::try_from(route.upstream.authority()).map_err(|_| known(Fault::Internal, Some(index)))?;
    let mut head = asked.head.clone();
    let hop = HopOptions::of(&head, route.websocket);
    let with = RequestDress { host: &host, lease: &lease, vars: admitted.vars(), now, body: asked.body, hop };
    let inputs = with.inputs();
    let sent = dress(&mut head, route, with, &mut stand_in).map_err(|fault| known(fault, Some(index)))?;
    let target = admitted.path_and_query().parse().map_err(|_| known(Fault::Internal, Some(index)))?;
    let dressed = dressed_target(&target, route, inputs, &sent, &mut stand_in);
    let dressed = dressed.map_err(|fault| known(fault, Some(index)))?;
    stand_in.note(&sent);
    let mut headers = head.headers.clone();
    for (name, _) in route.headers.iter().filter(|(_, value)| value.is_sensitive()) {
        let mark = HeaderValue::try_from(stand_in.mark(format!("‹secret: headers.{name}›")));
        headers.insert(name.clone(), mark.map_err(|_| known(Fault::Internal, Some(index)))?);
    }
    let call = SampleCall {
        method: &head.method,
        authority: &route.upstream.authority(),
        path_and_query: admitted.path_and_query(),
        headers,
        body: asked.data,
    };
    let content = route.module.foresee(call, inputs, &sent, &mut stand_in);
    let content = content.map_err(|failure| known(Fault::from(&failure), Some(index)))?;
    if let Some(name) = route.module.proof_header() {
        head.headers.insert(name, PROOF.clone());
    }
    for name in route.module.signature_headers() {
        head.headers.insert(name.clone(), SIGNATURE.clone());
    }
    let path_and_query = match dressed {
        Some(dressed) => stand_in.describe_target(&route.module, &dressed.to_string()),
        None => admitted.path_and_query().to_owned(),
    };
    Ok(Foreseen {
        caller,
        route,
        key,
        vars: admitted.vars().clone(),
        path_and_query,
        headers: head.headers,
        content,
        stand_in,
        tolerated,
    })
}

fn caller(snapshot: &Snapshot, asked: &SampleRequest<'_>) -> Result<Caller, Rejected> {
    let SampleRequest { listener, head, .. } = asked;
    let found = match asked.client {
        Some(id) => let_in(&listener.access, id),
        None => identify_at_once(snapshot, asked),
    };
    let refused = |fault, caller| Rejected { fault, caller, route: None, stub: false };
    match found {
        Ok(Caller::Anyone) if from_a_web_page(&head.headers) => {
            let fault = Fault::ClientNotAllowed(Refusal::of(RefusalCause::WebPage));
            Err(refused(fault, Some(Caller::Anyone)))
        }
        Ok(Caller::Anyone) => Ok(Caller::Anyone),
        Ok(Caller::Client(id)) => Ok(Caller::Client(id)),
        Err(IdentifyError::NotLetIn(id)) => {
            let fault = Fault::ClientNotAllowed(Refusal::of(RefusalCause::Listener));
            Err(refused(fault, Some(Caller::Client(id))))
        }
        Err(IdentifyError::Unknown | IdentifyError::Wrong) if listener.forward().is_some() => {
            Err(refused(Fault::ClientUnidentifiedToProxy, None))
        }
        Err(IdentifyError::Unknown | IdentifyError::Wrong) => Err(refused(Fault::ClientUnidentified, None)),
    }
}

/// Identifies the caller without waiting. No keys are fetched here, so a signed token identifies no client.
fn identify_at_once(snapshot: &Snapshot, asked: &SampleRequest<'_>) -> Result<Caller, IdentifyError> {
    let clock = Clock::System;
    // Without its fetcher this asks no issuer.
    let (issuers, _) = Issuers::open(clock.clone());
    let (access, clients) = (&asked.listener.access, &snapshot.clients);
    let context = IdentifyContext {
        access,
        clients,
        issuers: &issuers,
        now: clock.now(),
        as_proxy: asked.listener.forward().is_some(),
    };
    let peer = Peer { address: Some(asked.peer), ..Peer::default() };
    let identifying = pin!(identify(context, &peer, &asked.head.headers));
    match identifying.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(found) => found,
        Poll::Pending => Err(IdentifyError::Unknown),
    }
}

/// The one route that a refused request meant, where its refusal names one.
fn meant(ground: RoutingTarget<'_>, asked: &SampleRequest<'_>, caller: Caller) -> Option<usize> {
    let head = asked.head;
    let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let path_and_query = head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let target = RequestTarget { method: &head.method, host, path_and_query, headers: &head.headers };
    match ground.admit(caller, None, target) {
        Err(Denied::NotAllowed(route)) => route,
        Err(
            Denied::MethodNotListed(route) | Denied::NotListed(route) | Denied::Reserved(route) | Denied::Stub(route),
        ) => Some(route),
        Ok(_) | Err(Denied::Malformed(_) | Denied::MethodRefused | Denied::NotFound) => None,
    }
}
