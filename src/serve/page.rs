//! The proxy's own page, shown to a person who opens a forward listener's address in a browser.
//!
//! It offers the CA for download and explains how each client is made to trust it. All of it is public, so no
//! identification is required. All parts are built once, together with the listener; a response copies none of them. No
//! script, no foreign resource.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use crate::base::time::rfc3339;
use crate::tls::mint::{CaError, Facts};
use crate::tls::trust::{TrustWords, steps};
use crate::tls::trust_store::{TrustStoreError, Wrapping, pem, trust_store};

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const PEM: &str = "application/x-pem-file";

/// The page of one forward listener, with its downloads.
#[derive(Debug)]
pub struct ForwardPage {
    parts: Vec<PagePart>,
}

#[derive(Debug)]
struct PagePart {
    path: &'static str,
    kind: &'static str,
    body: Bytes,
}

/// The reason for which a listener has no page of its own.
#[derive(Debug, Error)]
pub enum ForwardPageError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("the CA file is empty")]
    NoCa,
    #[error(transparent)]
    TrustStore(#[from] TrustStoreError),
}

impl ForwardPage {
    /// The page of the listener at `proxy` (`http://host:port`), whose CA's chain is `ca`. `roots` are the public roots
    /// for the combined files; where there are none, those files are left out.
    pub fn new(
        ca: &[CertificateDer<'static>],
        roots: &[CertificateDer<'static>],
        proxy: &str,
    ) -> Result<Self, ForwardPageError> {
        let own = ca.first().ok_or(ForwardPageError::NoCa)?;
        let alone = pem(ca);
        let facts = Facts::read(alone.as_bytes())?;
        let mut parts = vec![
            PagePart { path: "/ca.crt", kind: PEM, body: alone.into() },
            PagePart { path: "/ca.der", kind: "application/x-x509-ca-cert", body: own.to_vec().into() },
        ];
        if !roots.is_empty() {
            let store = trust_store(own, roots, Wrapping::TripleDes)?;
            parts.push(PagePart { path: "/bundle.pem", kind: PEM, body: pem(ca.iter().chain(roots)).into() });
            parts.push(PagePart { path: "/truststore.p12", kind: "application/x-pkcs12", body: store.into() });
        }
        let html = html(&facts, &parts, proxy);
        parts.push(PagePart { path: "/", kind: HTML, body: html.into() });
        Ok(Self { parts })
    }

    /// Returns the response to a request in origin form. The response to `HEAD` has the body, too; the code that writes
    /// the message drops it.
    pub fn answer(&self, method: &Method, path: &str) -> Response<Bytes> {
        let Some(part) = self.parts.iter().find(|part| part.path == path) else {
            let text = "This is a forward proxy. Its own page is at /.\n";
            return response(StatusCode::NOT_FOUND, TEXT, Bytes::from_static(text.as_bytes()));
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            let text = "This page can only be read.\n";
            let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, Bytes::from_static(text.as_bytes()));
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let mut found = response(StatusCode::OK, part.kind, part.body.clone());
        if part.kind != HTML {
            found.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
        }
        found
    }
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy),
        (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn html(facts: &Facts, parts: &[PagePart], proxy: &str) -> String {
    let until = rfc3339(facts.until.saturating_mul(1000));
    let until = until.split('T').next().unwrap_or_default();
    let names = TrustWords { ca: "ca.crt", bundle: "bundle.pem", store: "truststore.p12", proxy };
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>countersign</title><style>\
         :root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}\
         pre{overflow-x:auto;border:1px solid;border-radius:.3rem;padding:.5rem}dd{overflow-wrap:anywhere}</style></head>\
         <body><main><h1>countersign</h1>\n",
    );
    let _ = write!(
        page,
        "<p>This is a forward proxy at <code>{}</code>. Programs that use it have to trust its CA:</p>\n<dl>\
         <dt>Subject</dt><dd>{}</dd><dt>SHA-256</dt><dd><code>{}</code></dd><dt>Valid until</dt><dd>{until}</dd>\
         <dt>Vouches for</dt><dd>{}</dd></dl>\n<ul>",
        escaped(proxy),
        escaped(&facts.subject),
        facts.fingerprint,
        escaped(&facts.constraints.to_string()),
    );
    for part in parts {
        let name = part.path.trim_start_matches('/');
        let _ = write!(page, "<li><a href=\"{}\">{name}</a></li>", part.path);
    }
    page.push_str(
        "</ul>\n<p>Compare the fingerprint with what <code>countersign ca show</code> prints before you trust it: this page \
         came without proof of who sent it.</p>\n",
    );
    for step in steps(names) {
        let _ = write!(page, "<h2>{}</h2>\n<pre>{}</pre>\n", escaped(step.title), escaped(&step.lines.join("\n")));
    }
    page.push_str("</main></body></html>\n");
    page
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Now;
    use crate::tls::certificates;
    use crate::tls::mint::{Constraints, KeyKind, MintAuthority, NameConstraint};

    fn authority() -> MintAuthority {
        let permits = [NameConstraint::parse("bank.example").expect("a domain")];
        let constraints = Constraints::only(&permits).expect("something");
        let now = Now::at(0, 1_790_000_000_000);
        MintAuthority::new(KeyKind::EcdsaP256, &constraints, now, 1).expect("a CA").0
    }

    fn kind(response: &Response<Bytes>) -> &str {
        response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("")
    }

    #[test]
    fn it_tells_who_the_ca_is_and_gives_it() {
        let (own, root) = (authority(), authority());
        let page = ForwardPage::new(own.chain(), root.chain(), "http://<proxy>:3128").expect("a page");
        let front = page.answer(&Method::GET, "/");
        assert_eq!((front.status(), kind(&front)), (StatusCode::OK, HTML));
        let html = String::from_utf8(front.body().to_vec()).expect("text");
        let facts = Facts::read(pem(own.chain()).as_bytes()).expect("facts");
        for said in
            [&*facts.fingerprint, "bank.example", "REQUESTS_CA_BUNDLE", "http://&lt;proxy&gt;:3128", "/bundle.pem"]
        {
            assert!(html.contains(said), "{said} is missing");
        }
        assert!(!html.contains("<proxy>") && !html.contains("<script"));
        let downloads = ["/ca.crt", "/bundle.pem"].map(|path| certificates(page.answer(&Method::GET, path).body()));
        assert_eq!(downloads[0].as_ref().expect("PEM"), own.chain());
        assert_eq!(downloads[1].as_ref().expect("PEM").len(), 2);
        assert_eq!(page.answer(&Method::GET, "/ca.der").body(), own.chain()[0].as_ref());
        assert_eq!(page.answer(&Method::GET, "/truststore.p12").status(), StatusCode::OK);
    }

    #[test]
    fn it_offers_no_bundle_without_public_roots_and_nothing_else_at_all() {
        let page = ForwardPage::new(authority().chain(), &[], "http://127.0.0.1:3128").expect("a page");
        for path in ["/bundle.pem", "/truststore.p12", "/ca.key", "//", ""] {
            assert_eq!(page.answer(&Method::GET, path).status(), StatusCode::NOT_FOUND, "{path}");
        }
        let refused = page.answer(&Method::POST, "/");
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert!(refused.headers().contains_key(ALLOW));
        assert!(ForwardPage::new(&[], &[], "x").is_err());
    }
}
