//! The login of an application: the requests that come before the token request, and that one.
//!
//! ```text
//! [[token.steps]]        a request, and what is captured of its answer: `{step.NAME}` in the requests behind it
//! [token.request]        the last request, whose answer has the token
//! ```
//!
//! [`LoginProgress`] is sans-io: it makes the next request, and reads its answer. The caller carries both within one deadline.
//! Everything that a step captures is a secret.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use crate::base::id::Ids;
use crate::base::origin::BaseUrl;
use crate::base::secret::SecretString;
use crate::base::time::Now;
use crate::base::vars::Vars;
use crate::provider::capture::{Capture, captures};
use crate::provider::document::DocumentFormat;
use crate::provider::exchange::{CompiledTokenRequest, RequestInputs, RequestKind, RequestTemplate, TokenRequest};
use crate::provider::message_values::{Fresh, MessageValues};
use crate::provider::module::Module;
use crate::provider::setting::Settings;
use crate::provider::template::{ConsentVariables, TemplateScope};
use crate::provider::token_response_rules::{ResponseContext, TokenResponseRules, transient};
use crate::provider::values::{OneOrManyValues, choice};
use crate::syntax::{Diagnostics, Fields, Node};
use crate::token::failure::Failure;
use crate::token::grant::Grant;

/// The most steps of a login: each is a call that the bank counts.
const MOST_STEPS: usize = 4;

/// One `[[token.steps]]` of a profile.
#[derive(Clone, Debug)]
pub(super) struct LoginStep {
    pub request: RequestTemplate,
    answer: TokenResponseRules,
    captures: Vec<Capture>,
}

/// A step with the settings of one provider put in.
#[derive(Debug)]
pub(super) struct CompiledStep {
    pub request: Arc<CompiledTokenRequest>,
    answer: TokenResponseRules,
    captures: Vec<Capture>,
}

impl LoginStep {
    /// Reads all steps; each may name what those before it capture. Answers the names that the token request may use, too.
    pub(super) fn read_all(
        node: Option<&Node>,
        scope: TemplateScope<'_>,
        token: &TokenResponseRules,
        report: &Diagnostics,
    ) -> (Vec<Self>, Vec<Arc<str>>) {
        let (mut steps, mut names) = (Vec::new(), Vec::<Arc<str>>::new());
        for node in super::refusal::tables(node, "[[token.steps]]", report) {
            let fields = Fields::new(node, "[[token.steps]]", report);
            let request = RequestTemplate::take(&fields, RequestKind::STEP, TemplateScope { steps: &names, ..scope });
            let success = fields.or("success", OneOrManyValues(Vec::new())).0;
            let format = fields.take("format").and_then(|node| choice(node, report, &DocumentFormat::WORDS));
            let captures = captures(&fields);
            if fields.take("captures").is_none() {
                fields.missing("captures", "{ ticket = \"/ticket\" }");
            }
            for capture in &captures {
                if names.contains(&capture.name) {
                    let title = format!("a step before captures something as `{}` already", capture.name);
                    node.error(report, title, "", Some("give it another name".to_owned()));
                }
                names.push(capture.name.clone());
            }
            fields.finish();
            let answer = token.of_step(success, format.unwrap_or_default());
            steps.extend(request.map(|request| Self { request, answer, captures }));
            if steps.len() > MOST_STEPS {
                node.error(report, format!("a login has {MOST_STEPS} steps at most"), "", None);
                break;
            }
        }
        (steps, names)
    }

    /// With settings and URLs put in. Without a path of its own it goes to the token endpoint.
    pub(super) fn compile(
        &self,
        settings: &Settings,
        base_url: &BaseUrl,
        token: &CompiledTokenRequest,
    ) -> Result<CompiledStep, String> {
        let token_url = (!self.request.has_path()).then(|| token.endpoint());
        let mut request = self.request.compile(settings, base_url, token_url)?;
        request.accept = self.answer.format.accept();
        Ok(CompiledStep { request: Arc::new(request), answer: self.answer.clone(), captures: self.captures.clone() })
    }
}

/// The requests of a login, each made as if those before it had been answered: with a stand-in for what is captured.
pub(super) fn sample_requests(module: &Module, vars: &Vars, ids: &mut dyn Ids, now: Now) -> Vec<TokenRequest> {
    let names = module.steps.iter().flat_map(|step| &step.captures).map(|capture| capture.name.clone());
    let captured = names.map(|name| (name.clone(), SecretString::from(format!("captured-{name}"))));
    let mut login = LoginProgress { captured: captured.collect(), ..LoginProgress::default() };
    let mut requests = Vec::new();
    while login.done <= module.steps.len() {
        requests.extend(login.request(module, vars, ids, now));
        login.done += 1;
    }
    requests
}

/// A login under way.
#[derive(Default)]
pub struct LoginProgress {
    /// The number of steps that were answered.
    done: usize,
    captured: Vec<(Arc<str>, SecretString)>,
    /// The values of the latest request.
    values: Option<MessageValues>,
}

impl fmt::Debug for LoginProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginProgress").field("done", &self.done).finish_non_exhaustive()
    }
}

impl LoginProgress {
    /// Makes the next request; `None` for a provider with a static credential, which has none to make.
    pub fn request(&mut self, module: &Module, vars: &Vars, ids: &mut dyn Ids, now: Now) -> Option<TokenRequest> {
        let request = match module.steps.get(self.done) {
            Some(step) => &step.request,
            None => module.exchange.as_ref()?,
        };
        // What belongs to the call is the same in all requests of one login.
        let values = match &self.values {
            None => MessageValues::first(&request.ids, ids, now),
            Some(before) => before.again(&request.ids, Fresh::Attempt, ids, now),
        };
        let consent = ConsentVariables::default();
        let made = request.request(RequestInputs { vars, ids, values: &values, consent, steps: &self.captured });
        self.values = Some(values);
        Some(made)
    }

    /// Reads the answer to the request that was made last, and went out at `sent`. `None`: another request is due. The
    /// failure's text names shapes, never what was said.
    pub fn answer(
        &mut self,
        module: &Module,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        sent: Now,
        now: Now,
    ) -> Result<Option<Grant>, Failure> {
        let secrets: Vec<SecretString> =
            self.captured.iter().map(|(_, value)| value).chain(&module.secrets).cloned().collect();
        let moment =
            |endpoint| ResponseContext { endpoint, sent, now, default_ttl: module.default_ttl, secrets: &secrets };
        let Some(step) = module.steps.get(self.done) else {
            return module.profile.answer.grant(status, headers, body, moment("token endpoint")).map(Some);
        };
        let moment = moment("login step's endpoint");
        let value = step.answer.success(step.answer.format, status, headers, body, moment)?;
        for capture in &step.captures {
            let wrong = |what: &str| Err(transient(status, headers, &format!("but {what}"), moment));
            let found = match capture.find(headers, &value) {
                Ok(Some(found)) => found,
                Ok(None) => return wrong(&format!("{} is not there", capture.place())),
                Err(odd) => return wrong(&odd),
            };
            let Ok(text) = found.to_str() else {
                return wrong(&format!("{} holds what no text can", capture.place()));
            };
            self.captured.push((capture.name.clone(), SecretString::from(text)));
        }
        self.done += 1;
        Ok(None)
    }
}
