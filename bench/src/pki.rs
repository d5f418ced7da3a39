//! Throwaway certificates: one CA that is trusted, one that is not, and one that forward proxies sign with.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
    PKCS_ED25519,
};

use crate::Failure;

/// Writes `ca.crt`, and certificates with keys: `proxy` and `origin` (good), `stranger` (of a CA that nobody trusts),
/// `other` (of the good CA, for another name). `proxy.pem` is both parts in one file, as HAProxy wants it.
/// `intercept.crt` and `intercept.key` are the CA of the forward proxies, for `localhost` alone; mitmproxy wants both in one.
/// `ed25519.key` and `secret.jwk` sign calls.
pub fn make(work: &Path) -> Result<(), Failure> {
    let good = Authority::new("bench CA", None)?;
    let evil = Authority::new("stranger CA", None)?;
    let intercept = Authority::new("interception CA", Some("localhost"))?;
    let key = intercept.issuer.key().serialize_pem();
    fs::write(work.join("intercept.crt"), &intercept.pem)?;
    fs::write(work.join("intercept.key"), &key)?;
    fs::write(work.join("intercept.pem"), key + &intercept.pem)?;
    fs::write(work.join("ca.crt"), &good.pem)?;
    fs::write(work.join("ed25519.key"), KeyPair::generate_for(&PKCS_ED25519)?.serialize_pem())?;
    // 64 bytes of `k`: the secret of HS512, in base64url.
    let secret = format!("{{\"kty\":\"oct\",\"k\":\"{}\"}}", "a2tr".repeat(21) + "aw");
    fs::write(work.join("secret.jwk"), secret)?;
    good.leaf(work, "proxy", "localhost")?;
    good.leaf(work, "origin", "localhost")?;
    good.leaf(work, "other", "elsewhere.test")?;
    evil.leaf(work, "stranger", "localhost")
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str, permitted: Option<&str>) -> Result<Self, Failure> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = permitted.map(|domain| NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(domain.to_owned())],
            excluded_subtrees: Vec::new(),
        });
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    fn leaf(&self, work: &Path, file: &str, host: &str) -> Result<(), Failure> {
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name.push(rcgen::DnType::CommonName, host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        fs::write(work.join(format!("{file}.crt")), &certificate)?;
        fs::write(work.join(format!("{file}.key")), key.serialize_pem())?;
        fs::write(work.join(format!("{file}.pem")), certificate + &key.serialize_pem())?;
        Ok(())
    }
}
