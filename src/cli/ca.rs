//! `countersign ca`: makes the interception CA, shows it, exports it, and explains the steps by which clients come to
//! trust it.
//!
//! The key is written once, readable for its owner alone, and never shown. No subcommand changes a trust store.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::complain;
use super::config_path;
use super::exec::{ConfigSketch, ForwardSketch, ca_file};
use crate::base::time::{Clock, Now, rfc3339};
use crate::tls::mint::{Constraints, Facts, KeyKind, MintAuthority, NameConstraint};
use crate::tls::trust::{TrustWords, steps, text};
use crate::tls::trust_store::{Wrapping, pem, public_roots, trust_store};

/// The subcommands of `countersign ca`.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Write the CA's certificate in a form that a client or a system reads
    Export {
        #[command(flatten)]
        place: CertPlace,
        /// Format of the exported certificate
        #[arg(long, value_enum, value_name = "FORM", default_value = "pem")]
        format: CertificateFormat,
        /// Write here instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// For p12: wrap it so that Java before 8u301 reads it
        #[arg(long)]
        legacy: bool,
    },
    /// Make a CA; overwrites nothing
    New(NewArguments),
    /// Show subject, fingerprint, validity and what the CA may vouch for
    Show {
        #[command(flatten)]
        place: CertPlace,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell how clients and systems come to trust the CA; changes nothing
    Trust {
        #[command(flatten)]
        place: CertPlace,
        /// The forward listener's address, for the lines to paste; by default the config's
        #[arg(long, value_name = "URL")]
        proxy: Option<String>,
    },
}

/// The arguments that locate the CA's certificate.
#[derive(Args, Debug)]
pub struct CertPlace {
    /// The CA's certificate; by default the one that the config's forward listener shows, or certs/ca.crt
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Path of the config file; COUNTERSIGN_CONFIG names another default
    #[arg(short, long, value_name = "FILE", default_value_os_t = config_path::usual())]
    config: PathBuf,
}

impl CertPlace {
    fn path(&self) -> PathBuf {
        let configured = || forward(&self.config)?.ca_cert;
        self.cert.clone().or_else(configured).unwrap_or_else(|| PathBuf::from("certs/ca.crt"))
    }
}

/// The config's forward listener, where there is a config and it has one.
fn forward(config: &Path) -> Option<ForwardSketch> {
    ConfigSketch::read(config).ok()?.forward
}

/// A form of the CA's certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum CertificateFormat {
    /// The CA and the public roots of this system, PEM
    Bundle,
    /// The certificate of the CA alone, DER
    Der,
    /// A Kubernetes ConfigMap with ca.crt and bundle.pem
    K8sConfigmap,
    /// The CA and the public roots of this system, PKCS#12 with the password `changeit`
    P12,
    /// The certificate of the CA alone, PEM
    Pem,
}

/// The arguments of `countersign ca new`.
#[derive(Args, Debug)]
pub struct NewArguments {
    /// The folder for ca.crt and ca.key; by default where the config's forward listener expects them, or certs
    #[arg(long, value_name = "DIR", conflicts_with_all = ["cert", "key"])]
    out: Option<PathBuf>,
    /// The file for the certificate
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The file for the key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// A domain (with all below it), an address or a network that the CA may vouch for; by default what the config routes to
    #[arg(long, value_name = "DOMAIN", conflicts_with = "unconstrained")]
    permit: Vec<String>,
    /// Let the CA vouch for any host
    #[arg(long)]
    unconstrained: bool,
    /// An RSA key with 2048 bits instead of ECDSA P-256, for very old clients
    #[arg(long)]
    rsa: bool,
    /// Years until the certificate of the CA expires
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=30))]
    years: u32,
    /// Path of the config file; COUNTERSIGN_CONFIG names another default
    #[arg(short, long, value_name = "FILE", default_value_os_t = config_path::usual())]
    config: PathBuf,
}

/// Runs the subcommand. Exit code 0: done; 2: it failed.
pub fn run(command: &CaCommand) -> ExitCode {
    let now = Clock::System.now();
    let done = match command {
        CaCommand::Export { place, format, out, legacy } => export(&place.path(), *format, out.as_deref(), *legacy),
        CaCommand::New(arguments) => new(arguments, now).and_then(|told| say(told.as_bytes())),
        CaCommand::Show { place, json } => show(&place.path(), *json, now).and_then(|shown| say(shown.as_bytes())),
        CaCommand::Trust { place, proxy } => {
            let configured = || forward(&place.config).map(|forward| forward.url);
            let proxy = proxy.clone().or_else(configured).unwrap_or_else(|| "http://127.0.0.1:3128".to_owned());
            trust(&place.path(), &proxy, now).and_then(|told| say(told.as_bytes()))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(2)
        }
    }
}

fn new(arguments: &NewArguments, now: Now) -> Result<String, String> {
    let in_folder = |folder: &Path| (folder.join("ca.crt"), folder.join("ca.key"));
    let (cert, key) = match (&arguments.out, &arguments.cert, &arguments.key) {
        (Some(folder), ..) => in_folder(folder),
        (None, Some(cert), Some(key)) => (cert.clone(), key.clone()),
        (None, ..) => {
            let configured = forward(&arguments.config).and_then(|forward| forward.ca_cert.zip(forward.ca_key));
            configured.unwrap_or_else(|| in_folder(Path::new("certs")))
        }
    };
    let kind = if arguments.rsa { KeyKind::Rsa2048 } else { KeyKind::EcdsaP256 };
    let constraints = if arguments.unconstrained {
        Constraints::NONE
    } else if arguments.permit.is_empty() {
        from_config(&arguments.config)?
    } else {
        let permits: Result<Vec<_>, _> = arguments.permit.iter().map(|text| NameConstraint::parse(text)).collect();
        permits.and_then(|permits| Constraints::only(&permits)).map_err(|error| error.to_string())?
    };
    let (_, certificate, private) =
        MintAuthority::new(kind, &constraints, now, arguments.years).map_err(|error| error.to_string())?;
    write_pair(&cert, &certificate, &key, &private)?;
    let facts = Facts::read(certificate.as_bytes()).map_err(|error| error.to_string())?;
    let (cert, key) = (cert.display(), key.display());
    let mut told = format!("{cert}  the certificate; clients have to trust it: countersign ca trust --cert {cert}\n");
    let _ = writeln!(told, "{key}  the key, for countersign alone\n");
    told += &described(&facts, now);
    if constraints.is_empty() {
        told += "\nWhoever has the key can pose as any host to clients that trust this CA. Guard it well.\n";
    }
    Ok(told)
}

/// Derives the name constraints from the hosts that have a route.
fn from_config(config: &Path) -> Result<Constraints, String> {
    let cure = "name what it may vouch for with `--permit DOMAIN`, or `--unconstrained`";
    let sketch = ConfigSketch::read(config).map_err(|error| format!("{error}; or {cure}"))?;
    let permits: BTreeSet<NameConstraint> = sketch.routed.iter().filter_map(|host| domain_of(host)).collect();
    let permits: Vec<NameConstraint> = permits.into_iter().collect();
    Constraints::only(&permits).map_err(|_| format!("{} has no route; {cure}", config.display()))
}

/// Returns the name to permit for a host: the domain above it if that belongs to the host's owner, else the host
/// itself. `api.bank.example` gives `bank.example`; `bank.example`, `bank.co.th` and an address give themselves. Under
/// a public suffix anyone may have a name: `mybank.azurewebsites.net` gives itself (publicsuffix.org, private domains
/// too).
fn domain_of(host: &str) -> Option<NameConstraint> {
    let lower = host.to_ascii_lowercase();
    let own = if host.parse::<IpAddr>().is_ok() { None } else { psl::domain_str(&lower) };
    let parent = lower.split_once('.').map(|(_, parent)| parent).filter(|parent| {
        let below = |own: &str| parent.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        own.is_some_and(below)
    });
    NameConstraint::parse(parent.unwrap_or(host)).ok()
}

/// Both files or none. The key is never readable for others, not for a moment.
fn write_pair(cert: &Path, certificate: &str, key: &Path, private: &SecretString) -> Result<(), String> {
    let written = |path: &Path, mode: u32, bytes: &[u8]| {
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::AlreadyExists => {
                format!("{} exists and is not overwritten: name others with `--cert` and `--key`", path.display())
            }
            _ => format!("{} cannot be written: {error}", path.display()),
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| {
            // It is ours and of no use; the mistake that is told is the first one.
            let _ = fs::remove_file(path);
            failed(error)
        })
    };
    if cert.exists() {
        return Err(format!("{} exists and is not overwritten: name others with `--cert` and `--key`", cert.display()));
    }
    written(key, 0o600, private.expose_secret().as_bytes())?;
    written(cert, 0o644, certificate.as_bytes()).inspect_err(|_| {
        // A key without its certificate is of no use.
        let _ = fs::remove_file(key);
    })
}

fn facts(cert: &Path) -> Result<Facts, String> {
    Facts::read(pem(&ca_file(cert)?).as_bytes()).map_err(|error| format!("{}: {error}", cert.display()))
}

fn show(cert: &Path, as_json: bool, now: Now) -> Result<String, String> {
    let facts = facts(cert)?;
    if !as_json {
        return Ok(described(&facts, now));
    }
    let texts = |permits: &[NameConstraint]| permits.iter().map(NameConstraint::to_string).collect::<Vec<_>>();
    let (permitted, excluded) = facts.constraints.subtrees();
    let shown = json!({
        "subject": facts.subject,
        "fingerprint_sha256": facts.fingerprint,
        "not_before": instant(facts.from),
        "not_after": instant(facts.until),
        "days_left": facts.days_left(now),
        "key": facts.key,
        "constrained": !facts.constraints.is_empty(),
        "permitted": texts(permitted),
        "excluded": texts(excluded),
    });
    Ok(format!("{shown}\n"))
}

fn described(facts: &Facts, now: Now) -> String {
    let Facts { subject, fingerprint, from, until, constraints, key } = facts;
    let digits: Vec<String> =
        fingerprint.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
    let left = match facts.days_left(now) {
        0 if now.unix_seconds() >= *until => "it has ended: make a new one".to_owned(),
        1 => "1 day left".to_owned(),
        days => format!("{days} days left"),
    };
    let (from, until, digits) = (instant(*from), instant(*until), digits.join(":"));
    format!(
        "subject    {subject}\nSHA-256    {digits}\nvalid      from {from} until {until} ({left})\n\
         key        {key}\nvouches for {constraints}\n"
    )
}

fn instant(seconds: u64) -> String {
    rfc3339(seconds.saturating_mul(1000)).replace(".000Z", "Z")
}

fn export(cert: &Path, format: CertificateFormat, out: Option<&Path>, legacy: bool) -> Result<(), String> {
    let chain = ca_file(cert)?;
    let own = chain.first().ok_or_else(|| "the CA file is empty".to_owned())?;
    let with_roots = || {
        let roots = public_roots();
        if roots.is_empty() {
            return Err("this system has no public roots to put beside the CA: install `ca-certificates`, or name a \
                        PEM file of roots in SSL_CERT_FILE"
                .to_owned());
        }
        Ok(roots)
    };
    let bytes = match format {
        CertificateFormat::Bundle => pem(chain.iter().chain(&with_roots()?)).into_bytes(),
        CertificateFormat::Der => own.to_vec(),
        CertificateFormat::K8sConfigmap => {
            config_map(&pem(&chain), &pem(chain.iter().chain(&with_roots()?))).into_bytes()
        }
        CertificateFormat::P12 => {
            let wrapping = if legacy { Wrapping::TripleDes } else { Wrapping::Aes256 };
            trust_store(own, &with_roots()?, wrapping).map_err(|error| error.to_string())?
        }
        CertificateFormat::Pem => pem(&chain).into_bytes(),
    };
    match out {
        Some(path) => fs::write(path, bytes).map_err(|error| format!("{} cannot be written: {error}", path.display())),
        None if matches!(format, CertificateFormat::Der | CertificateFormat::P12) && io::stdout().is_terminal() => {
            Err("this form is not for a terminal: use `--out FILE`".to_owned())
        }
        None => say(&bytes),
    }
}

/// A manifest for `kubectl apply`.
fn config_map(ca: &str, bundle: &str) -> String {
    let mut text = String::from(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: countersign-ca\n  labels:\n    \
         app.kubernetes.io/name: countersign\ndata:\n",
    );
    for (name, pem) in [("ca.crt", ca), ("bundle.pem", bundle)] {
        let _ = writeln!(text, "  {name}: |");
        for line in pem.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

fn trust(cert: &Path, proxy: &str, now: Now) -> Result<String, String> {
    let facts = facts(cert)?;
    let ca = cert.to_string_lossy();
    let names = TrustWords { ca: &ca, bundle: "bundle.pem", store: "truststore.p12", proxy };
    let mut told = described(&facts, now);
    let _ = write!(
        told,
        "\nThis changes nothing; it tells what to do. Easiest: countersign exec -- CMD, which does it for one command.\n\n\
         The files that are named below:\n    \
         countersign ca export --cert {ca} --format bundle --out bundle.pem\n    \
         countersign ca export --cert {ca} --format p12 --out truststore.p12\n\n"
    );
    told += &text(&steps(names));
    Ok(told)
}

/// Writes a result to standard output. A reader that left early is no mistake.
fn say(bytes: &[u8]) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("standard output: {error}")),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_above_a_host_is_permitted_where_it_is_the_banks_own() {
        for (host, domain) in [
            ("api-sandbox.partners.scb", "partners.scb"),
            ("sandboxapi.rakbank.ae", "rakbank.ae"),
            ("a.b.bank.example", "b.bank.example"),
            ("partner.example", "partner.example"),
            ("bank.co.th", "bank.co.th"),
            ("api.bank.co.th", "bank.co.th"),
            ("mybank.azurewebsites.net", "mybank.azurewebsites.net"),
            ("api.mybank.azurewebsites.net", "mybank.azurewebsites.net"),
            ("x1.execute-api.eu-west-1.amazonaws.com", "x1.execute-api.eu-west-1.amazonaws.com"),
            ("bank.appspot.com", "bank.appspot.com"),
            ("Bank.GOV.ae", "bank.gov.ae"),
            ("localhost", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
        ] {
            assert_eq!(domain_of(host).expect(host).to_string(), domain);
        }
    }

    #[test]
    fn a_config_map_indents_what_it_holds() {
        let text = config_map("a\nb\n", "c\n");
        assert!(text.ends_with("data:\n  ca.crt: |\n    a\n    b\n  bundle.pem: |\n    c\n"), "{text}");
    }
}
