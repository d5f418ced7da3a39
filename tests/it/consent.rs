//! Users consent: what profiles say about it, held against the simulated banks over real TLS.
//!
//! The requests are made and the answers read by the provider's module; the browser, the store and the clock are
//! played here.

use std::sync::Arc;
use std::time::Duration;

use countersign::base::id::RandomIds;
use countersign::base::origin::BaseUrl;
use countersign::base::secret::{ExposeSecret, SecretString};
use countersign::base::time::{Deadline, ManualClock};
use countersign::base::vars::Vars;
use countersign::provider::{
    Authorize, CallAs, CallInputs, CompiledConsent, ConsentWiring, Module, Profile, TokenRequest, Wiring,
};
use countersign::sim::{Bank, SimHandle};
use countersign::syntax::{Diagnostics, Fields, FromNode, Node, SourceText};
use countersign::token::consent::{
    CodeVerifier, ConsentOrigin, ConsentOwner, Consenting, NotExchanged, PendingConsent, PendingEntry, RotationRefusal,
    State, UserKey, UserName, UserTokens,
};
use countersign::token::grant::UserGrant;
use countersign::token::lease::{Lease, LeaseTrial};
use http::{HeaderMap, StatusCode};

use super::sim::{Ask, Reply, run, send, start};

/// A bank, and the module of a route that calls it for its users.
struct Harness {
    sim: SimHandle,
    clock: Arc<ManualClock>,
    module: Module,
    drawn: u8,
}

fn stage(bank: Bank, id: &str, secret: &str, params: &str) -> Harness {
    let (sim, clock) = start(bank);
    let report = Diagnostics::new();
    let profile = Profile::builtin(bank.name()).expect("a profile");
    let text = format!("{id} = {:?}\n{secret} = 'secret'\n", sim.credentials().id());
    let node = Node::parse(&SourceText::new("settings", text), &report);
    let fields = Fields::new(&node, "settings", &report);
    let own = sim.credentials().secret().expose_secret().to_owned();
    let read = |node: &Node, report: &Diagnostics| {
        let text = String::from_node(node, report)?;
        Some((SecretString::from(if text == "secret" { own.clone() } else { text }), false))
    };
    let settings = profile.read_settings(&fields, &read).expect("good settings");
    fields.finish();
    let params = Node::parse(&SourceText::new("params", params), &report);
    let params = profile.read_consent_params(Some(&params), &report).expect("good parameters");
    let url = |text: &str| BaseUrl::parse(text).expect("a URL");
    let wiring = Wiring {
        name: bank.name(),
        base_url: url(&sim.base_url()),
        token_url: Some(url(&sim.token_url()).into()),
        default_ttl: None,
        consent: Some(ConsentWiring {
            public_url: url("https://gateway.example"),
            authorize_url: profile.wants_authorize_url().then(|| url(&sim.authorize_url())),
            par_url: None,
            params,
        }),
        caller: CallAs::User,
    };
    let module = Module::build(&profile, settings, wiring).expect("a good module");
    let callback_url = module.consent().expect("a consent").redirect_uri().to_owned();
    sim.change(|faults| {
        faults.scb.callback_url = Some(callback_url.clone());
        faults.scb.page = true;
        faults.oauth2.redirect_uris = vec![callback_url];
    });
    Harness { sim, clock, module, drawn: 0 }
}

/// Path and query of a URL of the simulator.
fn below(url: &str) -> String {
    let rest = url.strip_prefix("https://").expect("https");
    rest.get(rest.find('/').expect("a path")..).expect("the rest").to_owned()
}

fn key(provider: &str, user: &str) -> UserKey {
    UserKey {
        owner: ConsentOwner::Client("erp".into()),
        provider: provider.into(),
        user: UserName::parse(user).expect("a name"),
    }
}

impl Harness {
    fn consent(&self) -> &CompiledConsent {
        self.module.consent().expect("a consent")
    }

    async fn ask(&self, request: TokenRequest) -> Reply {
        let query = request.query.as_ref().map_or(String::new(), |query| format!("?{}", query.expose_secret()));
        let mut ask = Ask::new(request.method.as_str(), format!("{}{query}", request.url.path()));
        for (name, value) in &request.headers {
            ask.headers.push((name.to_string(), value.to_str().expect("text").to_owned()));
        }
        ask.body = request.body.expose_secret().clone();
        send(&self.sim, ask).await
    }

    /// From the start to the moment at which a browser comes back: the pending consent, the query of the callback.
    async fn go(&mut self, user: &str, how: &str) -> (PendingConsent, String) {
        self.drawn += 1;
        let (state, verifier) =
            (State::from_random([self.drawn; 32]), CodeVerifier::from_random([self.drawn + 100; 32]));
        let now = self.clock.now();
        let key = key(self.sim.bank().name(), user);
        let pending = PendingConsent::start(key, "erp".into(), self.consent().realm(), None, verifier, now);
        let url = match self.consent().authorize(&pending, &state, None, &mut RandomIds, now) {
            Authorize::Open(url) => url,
            Authorize::Ask(request) => {
                let reply = self.ask(request).await;
                let status = StatusCode::from_u16(reply.status).expect("a status");
                let read = self.consent().authorize_answer(status, &reply.headers, &reply.body, now, now);
                read.expect("a URL for the user")
            }
        };
        let joint = if url.contains('?') { '&' } else { '?' };
        let reply = send(&self.sim, Ask::new("GET", format!("{}{joint}{how}", below(&url)))).await;
        assert_eq!(reply.status, 302, "{:?}", reply.body);
        let (callback, query) = reply.header("location").split_once('?').expect("a query");
        assert_eq!(callback, self.consent().redirect_uri());
        (pending, query.to_owned())
    }

    fn judge(&self, pending: PendingConsent, query: &str) -> Result<Consenting, NotExchanged> {
        let callback = self.consent().callback(query, self.clock.now()).expect("a good callback");
        assert_eq!(callback.state, Some(State::from_random([self.drawn; 32])), "our state comes back untouched");
        let judged = self.consent().judge(
            Some(PendingEntry::Pending(pending)),
            ConsentOrigin::Browser,
            callback,
            self.clock.now(),
        );
        judged.map_err(|rejection| rejection.why)
    }

    async fn exchange(&self, consenting: Consenting) -> Result<UserTokens, RotationRefusal> {
        let now = self.clock.now();
        let exchanged = self.consent().exchange(None, consenting, &mut RandomIds, now);
        let Ok((requests, pending)) = exchanged else { panic!("the code is fresh") };
        let reply = self.ask(requests.first).await;
        let status = StatusCode::from_u16(reply.status).expect("a status");
        let grant = self.consent().exchange_answer(status, &reply.headers, &reply.body, now, now)?;
        Ok(UserTokens::consented(pending.key, self.consent().realm(), grant, now, None))
    }

    async fn agree(&mut self, user: &str, how: &str) -> UserTokens {
        let (pending, query) = self.go(user, how).await;
        let consenting = self.judge(pending, &query).expect("the user agreed");
        self.exchange(consenting).await.expect("tokens")
    }

    async fn refresh(&self, tokens: &UserTokens) -> Result<UserGrant, RotationRefusal> {
        let now = self.clock.now();
        let reply = self.ask(self.consent().refresh(tokens, &mut RandomIds, now).expect("something to ask with")).await;
        let status = StatusCode::from_u16(reply.status).expect("a status");
        self.consent().refresh_answer(status, &reply.headers, &reply.body, now, now)
    }

    /// A call for the user, dressed by the module.
    async fn call(&self, tokens: &UserTokens, path: &str) -> Reply {
        let now = self.clock.now();
        let grant = tokens.grant(now).expect("a live token");
        let lease = Lease {
            key: tokens.key.record_key(),
            generation: tokens.generation,
            credentials: self.module.credentials(&grant),
            issued: now,
            expires: Deadline::after(now, grant.life),
            fingerprint: grant.fingerprint(),
            trial: LeaseTrial::default(),
        };
        let mut headers = HeaderMap::new();
        let with = CallInputs { lease: &lease, vars: &Vars::none(), now };
        self.module.dress(&mut headers, with, &mut RandomIds);
        let base = self.sim.base_url();
        let mut ask = Ask::new("GET", format!("{}{path}", below(&base)));
        for (name, value) in &headers {
            ask.headers.push((name.to_string(), value.to_str().expect("text").to_owned()));
        }
        send(&self.sim, ask).await
    }
}

fn dead<T: std::fmt::Debug>(answer: Result<T, RotationRefusal>) {
    assert!(matches!(answer, Err(RotationRefusal::Dead(_))), "{answer:?}");
}

#[test]
fn an_scb_user_consents_is_called_for_and_stays_consented() {
    run(async {
        let mut stage = stage(Bank::Scb, "application_key", "application_secret", "endState = \"mobile_web\"");
        let alice = stage.agree("alice", "user=alice").await;
        let bob = stage.agree("bob", "user=bob").await;
        for tokens in [&alice, &bob] {
            let reply = stage.call(tokens, "/v2/customers/profile").await;
            assert_eq!((reply.status, &reply.json()["status"]["code"]), (200, &1000.into()));
        }
        // A user's token with another user's resourceOwnerId is worth nothing: the two travel together.
        let mixed = UserTokens { captured: bob.captured.clone(), ..alice.clone() };
        assert_eq!(stage.call(&mixed, "/v2/customers/profile").await.status, 403);
        let owner = alice.captured.first().map(|(_, value)| value.to_str().expect("text").to_owned());
        assert_eq!(owner, Some(stage.sim.known_as("alice")));

        // Twelve hours, an access token and a refresh token at a time.
        let mut tokens = alice;
        for _ in 0..24 {
            stage.clock.advance(Duration::from_secs(1799));
            let fresh = stage.refresh(&tokens).await.expect("it is alive");
            tokens = tokens.rotated(fresh, stage.clock.now());
        }
        assert_eq!(stage.call(&tokens, "/v2/customers/profile").await.status, 200);
        assert!(bob.spent(stage.clock.now()), "nobody looked after bob");

        assert_eq!(stage.sim.withdraw("alice"), 2, "her newest, and the one before, which has a second left");
        dead(stage.refresh(&tokens).await);
        assert_eq!(stage.sim.violations(), Vec::<String>::new());
    });
}

#[test]
fn an_scb_users_no_is_heard_and_a_late_code_is_never_sent() {
    run(async {
        let mut stage = stage(Bank::Scb, "application_key", "application_secret", "");
        let (pending, query) = stage.go("alice", "deny=1").await;
        assert_eq!(stage.judge(pending, &query).err(), Some(NotExchanged::NoCode));

        let (pending, query) = stage.go("alice", "user=alice").await;
        let consenting = stage.judge(pending, &query).expect("the user agreed");
        stage.clock.advance(Duration::from_secs(60));
        let calls = stage.sim.token_calls();
        assert!(stage.consent().exchange(None, consenting, &mut RandomIds, stage.clock.now()).is_err());
        assert_eq!((stage.sim.token_calls(), stage.sim.tokens_issued()), (calls, 0));

        let (pending, query) = stage.go("alice", "user=alice").await;
        let again = pending.clone();
        let tokens = stage.exchange(stage.judge(pending, &query).expect("agreed")).await.expect("tokens");
        dead(stage.exchange(stage.judge(again, &query).expect("agreed")).await);
        assert_eq!(stage.sim.violations(), ["an authorization code was sent twice"], "the simulator notices");

        stage.sim.change(|faults| faults.scb.refuse_refresh = true);
        dead(stage.refresh(&tokens).await);
        stage.sim.change(|faults| faults.scb.refuse_refresh = false);
        let fresh = stage.refresh(&tokens).await.expect("it is alive");
        dead(stage.refresh(&tokens).await);
        stage.clock.advance(Duration::from_secs(3600));
        let late = tokens.rotated(fresh, stage.clock.now());
        dead(stage.refresh(&late).await);
    });
}

#[test]
fn a_user_consents_by_the_book() {
    run(async {
        let mut stage = stage(Bank::OAuth2, "client_id", "client_secret", "prompt = \"consent\"");
        let alice = stage.agree("alice", "login_hint=alice").await;
        assert_eq!(stage.call(&alice, "/v1/me").await.json()["user"], "alice");
        let fresh = stage.refresh(&alice).await.expect("it is alive");
        let renewed = alice.rotated(fresh, stage.clock.now());
        assert_eq!(stage.call(&renewed, "/v1/me").await.json()["user"], "alice");

        stage.sim.change(|faults| faults.oauth2.lasting_refresh = true);
        let fresh = stage.refresh(&renewed).await.expect("it is alive");
        let same = renewed.rotated(fresh, stage.clock.now());
        assert!(stage.refresh(&same).await.is_ok(), "the old refresh token stands");

        // Used up once rotated; shown again, everything of the user is revoked.
        dead(stage.refresh(&alice).await);
        dead(stage.refresh(&same).await);
        assert_eq!(stage.call(&same, "/v1/me").await.status, 401);

        stage.sim.change(|faults| faults.oauth2.deny = true);
        let (pending, query) = stage.go("alice", "").await;
        assert_eq!(stage.judge(pending, &query).err(), Some(NotExchanged::Refused(Some("access_denied".to_owned()))));
    });
}

#[test]
fn a_code_is_worth_nothing_without_its_verifier() {
    run(async {
        let mut stage = stage(Bank::OAuth2, "client_id", "client_secret", "");
        let (mut pending, query) = stage.go("alice", "").await;
        // Somebody slips a code of another session under ours.
        pending.verifier = CodeVerifier::from_random([7; 32]);
        dead(stage.exchange(stage.judge(pending, &query).expect("agreed")).await);
        assert_eq!(stage.sim.tokens_issued(), 0);
        let (pending, query) = stage.go("alice", "").await;
        assert!(stage.exchange(stage.judge(pending, &query).expect("agreed")).await.is_ok());
        let plain = format!(
            "{}?response_type=code&client_id={}&redirect_uri={}",
            below(&stage.sim.authorize_url()),
            form_urlencoded::byte_serialize(stage.sim.credentials().id().as_bytes()).collect::<String>(),
            form_urlencoded::byte_serialize(stage.consent().redirect_uri().as_bytes()).collect::<String>()
        );
        let reply = send(&stage.sim, Ask::new("GET", plain.clone())).await;
        assert!(reply.header("location").contains("error=invalid_request"), "no challenge, no code");
        let elsewhere = plain.replace("gateway.example", "evil.example");
        assert_eq!(send(&stage.sim, Ask::new("GET", elsewhere)).await.status, 400, "told to the user, sent nowhere");
    });
}

fn built(
    profile: &str,
    settings: &str,
    consent: Option<(&str, Option<&str>)>,
    caller: CallAs,
) -> Result<Module, String> {
    let report = Diagnostics::new();
    let profile = Profile::builtin(profile).expect("a profile");
    let node = Node::parse(&SourceText::new("settings", settings), &report);
    let fields = Fields::new(&node, "settings", &report);
    let read = |node: &Node, report: &Diagnostics| {
        String::from_node(node, report).map(|text| (SecretString::from(text), false))
    };
    let settings = profile.read_settings(&fields, &read).expect("good settings");
    fields.finish();
    let url = |text: &str| BaseUrl::parse(text).expect("a URL");
    let consent = consent.map(|(params, authorize_url)| {
        let node = Node::parse(&SourceText::new("params", params), &report);
        ConsentWiring {
            public_url: url("https://gateway.example"),
            authorize_url: authorize_url.map(url),
            par_url: None,
            params: profile.read_consent_params(Some(&node), &report).unwrap_or_default(),
        }
    });
    let wiring = Wiring {
        name: "bank",
        base_url: url("https://bank.example/api"),
        token_url: Some(url("https://login.example/token").into()),
        default_ttl: None,
        consent,
        caller,
    };
    Module::build(&profile, settings, wiring)
}

#[test]
fn what_could_never_work_for_users_is_said() {
    let meed = "client_id = 'meed_1'\nclient_secret = 's'";
    let other = "client_id = 'a'\nclient_secret = 's'";
    let scb = "application_key = 'k'\napplication_secret = 's'";
    for (profile, settings, consent, caller, reason) in [
        ("meed", meed, None, CallAs::User, "knows no users"),
        ("meed", meed, Some(("", None)), CallAs::Application, "[provider.bank.consent] out"),
        ("scb", scb, None, CallAs::User, "needs [provider.NAME.consent]"),
        ("oauth2", other, Some(("", None)), CallAs::User, "authorize_url"),
    ] {
        let error = built(profile, settings, consent, caller).expect_err(reason);
        assert!(error.contains(reason), "{error}");
    }
    let (application, user) = (
        built("scb", scb, Some(("", None)), CallAs::Application).expect("a module"),
        built("scb", scb, Some(("", None)), CallAs::User).expect("a module"),
    );
    assert_ne!(application.key(), user.key(), "an application's token is never a user's");
    assert_ne!(application.key(), key("bank", "alice").record_key());
}

/// What a user agreed to, and what is a matter of taste or a secret that was rotated.
#[test]
fn a_consent_outlives_a_new_secret_and_no_new_application() {
    let realm = |settings: &str, params: &str| {
        let module = built("scb", settings, Some((params, None)), CallAs::User).expect("a module");
        module.consent().expect("a consent").realm()
    };
    let base = realm("application_key = 'k'\napplication_secret = 's'", "");
    assert_eq!(base, realm("application_key = 'k'\napplication_secret = 'rotated'", ""));
    assert_eq!(base, realm("application_key = 'k'\napplication_secret = 's'", "endState = 'mobile_web'"));
    assert_ne!(base, realm("application_key = 'another'\napplication_secret = 's'", ""));
    let realm = |scope: &str, authorize: &str| {
        let settings = format!("client_id = 'a'\nclient_secret = 's'\nscope = '{scope}'");
        let module = built("oauth2", &settings, Some(("", Some(authorize))), CallAs::User).expect("a module");
        module.consent().expect("a consent").realm()
    };
    let base = realm("payments", "https://login.example/authorize");
    assert_ne!(base, realm("payments accounts", "https://login.example/authorize"));
    assert_ne!(base, realm("payments", "https://other.example/authorize"));
}
