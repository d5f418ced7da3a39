//! Throwaway certificates: one CA that is trusted, one that is not.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::Failure;

/// Writes `ca.crt`, and certificates with keys: `proxy` and `origin` (good), `stranger` (of a CA that nobody trusts),
/// `other` (of the good CA, for another name). `proxy.pem` is both parts in one file, as HAProxy wants it.
pub fn make(work: &Path) -> Result<(), Failure> {
    let good = Authority::new("bench CA")?;
    let evil = Authority::new("stranger CA")?;
    fs::write(work.join("ca.crt"), &good.pem)?;
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
    fn new(name: &str) -> Result<Self, Failure> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
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
