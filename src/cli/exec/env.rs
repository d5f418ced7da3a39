//! The variables by which a program comes to use the proxy and to trust its CA; `countersign env` prints them.
//!
//! Clients look at many different ones, in upper or lower case, so all are set. A file that a variable names holds the
//! public roots and the certificates that such variables named before, because most clients read it instead of those.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, ValueEnum, ValueHint};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};

use super::bypass::Bypass;
use super::gateway::{ForwardArguments, Gateway};
use crate::cli::{complain, print};
use crate::config::{Files, MachineFiles};
use crate::tls::certificates;
use crate::tls::trust_store::{STORE_PASSWORD, Wrapping, pem, public_roots, trust_store};

/// Characters that are percent-encoded in the user information of a URL: all but the unreserved ones (RFC 3986 section
/// 3.2.1, without the sub-delimiters).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Variables that name a file of CAs *instead of* the public roots.
const BUNDLES: [&str; 5] = ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE"];

/// In whose notation to print.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ShellNotation {
    /// export NAME='value' (sh, zsh and others too)
    Bash,
    /// NAME=value lines for docker run --env-file
    Docker,
    /// NAME="value" lines for a .env file
    Dotenv,
    /// set -gx NAME 'value' lines for fish
    Fish,
    /// The options of JAVA_TOOL_OPTIONS alone
    Java,
    /// $env:NAME = 'value' lines for PowerShell
    Pwsh,
}

/// The arguments of `countersign env`.
#[derive(Args, Debug)]
pub struct EnvArguments {
    #[command(flatten)]
    through: ForwardArguments,
    /// Notation in which the variables are printed
    #[arg(long, value_enum, value_name = "SHELL", default_value = "bash")]
    shell: ShellNotation,
    /// Directory for the CA files that the variables name
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, default_value = "certs/trust")]
    dir: PathBuf,
}

/// Writes the CA files and prints the variables.
pub fn run(arguments: &EnvArguments) -> ExitCode {
    let made = Gateway::find(&arguments.through).and_then(|gateway| {
        let named = |error: io::Error| format!("{} cannot be written: {error}", arguments.dir.display());
        fs::create_dir_all(&arguments.dir).map_err(named)?;
        let folder = fs::canonicalize(&arguments.dir).map_err(named)?;
        let files = TrustFiles::write(&folder, &gateway, &arguments.through)?;
        if gateway.credentials.is_none() && arguments.shell != ShellNotation::Java {
            arguments.through.remark(
                "the proxy's URL has no credentials, because no key was given: set COUNTERSIGN_KEY, or name the client \
                 with `--client NAME` to be asked for its key. A client that is known by its network or certificate \
                 needs none",
            );
        }
        Ok(Variables::new(&gateway, &files, &|name| MachineFiles.env(name)))
    });
    match made {
        Ok(variables) => {
            print(&format!("{}\n", variables.printed(arguments.shell)));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(2)
        }
    }
}

/// The files that the variables name.
#[derive(Debug)]
pub struct TrustFiles {
    ca: PathBuf,
    bundle: PathBuf,
    store: PathBuf,
}

impl TrustFiles {
    /// Writes them into a folder that exists. The error is for a person.
    pub fn write(folder: &Path, gateway: &Gateway, wanted: &ForwardArguments) -> Result<Self, String> {
        let own = gateway.ca.first().ok_or_else(|| "the CA file is empty".to_owned())?;
        let roots = public_roots();
        if roots.is_empty() {
            wanted.remark(
                "this system has no public roots, so programs will trust countersign's CA alone (install ca-certificates)",
            );
        }
        let mut others = roots;
        others.extend(listed_before());
        let files =
            Self { ca: folder.join("ca.pem"), bundle: folder.join("bundle.pem"), store: folder.join("truststore.p12") };
        let written = |path: &Path, bytes: &[u8]| {
            fs::write(path, bytes).map_err(|error| format!("{} cannot be written: {error}", path.display()))
        };
        written(&files.ca, pem(&gateway.ca).as_bytes())?;
        written(&files.bundle, pem(gateway.ca.iter().chain(&others)).as_bytes())?;
        // Whichever Java the program brings should be able to read it.
        let store = trust_store(own, &others, Wrapping::TripleDes).map_err(|error| error.to_string())?;
        written(&files.store, &store)?;
        Ok(files)
    }
}

/// Reads the certificates that the variables named so far, so that no CA that was trusted before is lost.
fn listed_before() -> Vec<CertificateDer<'static>> {
    let named = BUNDLES.iter().chain(&["NODE_EXTRA_CA_CERTS"]).filter_map(|name| MachineFiles.env(name));
    let read = named.filter_map(|path| certificates(&MachineFiles.read(Path::new(&path)).ok()?).ok());
    read.flatten().collect()
}

/// Names and values. The values can hold the client's key.
#[derive(Debug)]
pub struct Variables {
    all: Vec<(&'static str, SecretString)>,
    java: String,
    /// Entries of the former `NO_PROXY` that had to go, because they cover a routed host.
    pub dropped: Vec<String>,
}

impl Variables {
    /// `before` reads the environment that they are added to.
    pub fn new(gateway: &Gateway, files: &TrustFiles, before: &dyn Fn(&str) -> Option<String>) -> Self {
        let former = before("no_proxy").or_else(|| before("NO_PROXY")).unwrap_or_default();
        let bypass = Bypass::new(&former, &gateway.routed);
        let java = java_options(gateway, files, &bypass);
        let mut all: Vec<(&'static str, SecretString)> = Vec::new();
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            all.push((name, url_with_key(gateway)));
        }
        let mut set = |name, value: &str| all.push((name, SecretString::from(value.to_owned())));
        for name in ["NO_PROXY", "no_proxy"] {
            set(name, &bypass.no_proxy());
        }
        let bundle = files.bundle.to_string_lossy();
        for name in BUNDLES {
            set(name, &bundle);
        }
        // Node adds this file to its own roots. If the variable named a file before, the bundle is used, which has that
        // file's certificates, too.
        let extra = before("NODE_EXTRA_CA_CERTS").is_some_and(|path| !path.is_empty());
        set("NODE_EXTRA_CA_CERTS", &if extra { bundle } else { files.ca.to_string_lossy() });
        set("NODE_USE_ENV_PROXY", "1");
        let joined = match before("JAVA_TOOL_OPTIONS").filter(|options| !options.trim().is_empty()) {
            Some(options) => format!("{} {java}", options.trim()),
            None => java.clone(),
        };
        set("JAVA_TOOL_OPTIONS", &joined);
        Self { all, java, dropped: bypass.dropped }
    }

    /// Sets them for a command.
    pub fn apply(&self, command: &mut Command) {
        for (name, value) in &self.all {
            command.env(name, OsString::from(value.expose_secret()));
        }
        // It is in the proxy's address already, and nothing else that the command starts should ask for it.
        command.env_remove("COUNTERSIGN_KEY");
    }

    /// In a shell's notation, one a line.
    pub fn printed(&self, shell: ShellNotation) -> String {
        if shell == ShellNotation::Java {
            return self.java.clone();
        }
        let line = |(name, value): &(&str, SecretString)| {
            let value = value.expose_secret();
            match shell {
                ShellNotation::Bash => format!("export {name}='{}'", value.replace('\'', r"'\''")),
                ShellNotation::Docker | ShellNotation::Java => format!("{name}={value}"),
                ShellNotation::Dotenv => {
                    let escaped: String = value
                        .chars()
                        .flat_map(|c| matches!(c, '\\' | '"' | '$' | '`').then_some('\\').into_iter().chain([c]))
                        .collect();
                    format!("{name}=\"{escaped}\"")
                }
                ShellNotation::Fish => format!("set -gx {name} '{}'", value.replace('\\', r"\\").replace('\'', r"\'")),
                ShellNotation::Pwsh => format!("$env:{name} = '{}'", value.replace('\'', "''")),
            }
        };
        // Windows knows no case in these names, so PowerShell's would be said twice.
        let said =
            |(name, _): &&(&str, SecretString)| shell != ShellNotation::Pwsh || !name.starts_with(char::is_lowercase);
        self.all.iter().filter(said).map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Builds the proxy URL: `http://NAME:KEY@host:port`, or without credentials if there are none.
fn url_with_key(gateway: &Gateway) -> SecretString {
    let user = gateway.credentials.as_ref().map_or_else(String::new, |(name, key)| {
        let encoded = |text| utf8_percent_encode(text, ENCODED);
        format!("{}:{}@", encoded(name), encoded(key.expose_secret()))
    });
    SecretString::from(format!("{}://{user}{}:{}", gateway.scheme, gateway.host, gateway.port))
}

/// Java reads no proxy variable, but these options. The JVM prints them at its start, so no key is among them.
fn java_options(gateway: &Gateway, files: &TrustFiles, bypass: &Bypass) -> String {
    let host = gateway.host.trim_start_matches('[').trim_end_matches(']');
    let port = gateway.port;
    let mut options = Vec::new();
    for scheme in ["https", "http"] {
        options.push(format!("-D{scheme}.proxyHost={host}"));
        options.push(format!("-D{scheme}.proxyPort={port}"));
    }
    options.push(format!("-Dhttp.nonProxyHosts={}", bypass.java()));
    options.push(quoted(&format!("-Djavax.net.ssl.trustStore={}", files.store.display())));
    options.push("-Djavax.net.ssl.trustStoreType=PKCS12".to_owned());
    options.push(format!("-Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}"));
    // Without this Java sends no Basic credentials for a tunnel.
    options.push("-Djdk.http.auth.tunneling.disabledSchemes=".to_owned());
    options.join(" ")
}

/// The JVM splits its variable at white space, but for what is quoted.
fn quoted(option: &str) -> String {
    if !option.contains(char::is_whitespace) {
        return option.to_owned();
    }
    let mark = if option.contains('"') { '\'' } else { '"' };
    format!("{mark}{option}{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(key: &str, before: &[(&str, &str)]) -> Variables {
        let gateway = Gateway {
            scheme: "http",
            host: "127.0.0.1".to_owned(),
            port: 3128,
            ca: Vec::new(),
            routed: vec!["api.bank.example".to_owned()],
            credentials: (!key.is_empty()).then(|| ("erp".to_owned(), SecretString::from(key.to_owned()))),
        };
        let files = TrustFiles { ca: "/t/ca.pem".into(), bundle: "/t/bundle.pem".into(), store: "/t x/s.p12".into() };
        let read = |name: &str| before.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Variables::new(&gateway, &files, &read)
    }

    fn value(variables: &Variables, name: &str) -> String {
        let found = variables.all.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| value.expose_secret().to_owned()).expect(name)
    }

    #[test]
    fn every_variable_of_the_contract_is_set() {
        let all = variables("", &[]);
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            assert_eq!(value(&all, name), "http://127.0.0.1:3128");
        }
        for name in ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE"] {
            assert_eq!(value(&all, name), "/t/bundle.pem");
        }
        assert_eq!(value(&all, "NO_PROXY"), "localhost,127.0.0.1,::1");
        assert_eq!(value(&all, "no_proxy"), value(&all, "NO_PROXY"));
        assert_eq!(value(&all, "NODE_EXTRA_CA_CERTS"), "/t/ca.pem");
        assert_eq!(value(&all, "NODE_USE_ENV_PROXY"), "1");
        assert_eq!(all.all.len(), 14);
    }

    #[test]
    fn java_is_told_in_its_own_words_and_keeps_what_it_was_told() {
        let all = variables("secret-key", &[("JAVA_TOOL_OPTIONS", "-Xmx64m ")]);
        let expected = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=3128 -Dhttp.proxyHost=127.0.0.1 \
                        -Dhttp.proxyPort=3128 -Dhttp.nonProxyHosts=localhost|127.0.0.1|[::1] \
                        \"-Djavax.net.ssl.trustStore=/t x/s.p12\" -Djavax.net.ssl.trustStoreType=PKCS12 \
                        -Djavax.net.ssl.trustStorePassword=changeit -Djdk.http.auth.tunneling.disabledSchemes=";
        assert_eq!(all.printed(ShellNotation::Java), expected);
        assert_eq!(value(&all, "JAVA_TOOL_OPTIONS"), format!("-Xmx64m {expected}"));
        assert!(!value(&all, "JAVA_TOOL_OPTIONS").contains("secret-key"), "the JVM prints its options");
    }

    #[test]
    fn a_key_is_encoded_into_the_url_and_kept_out_of_debug() {
        let all = variables("k/y:@ \u{e4}%", &[]);
        assert_eq!(value(&all, "https_proxy"), "http://erp:k%2Fy%3A%40%20%C3%A4%25@127.0.0.1:3128");
        assert!(!format!("{all:?}").contains("k%2Fy"));
    }

    #[test]
    fn former_settings_count() {
        let before = [("NO_PROXY", "corp.example,bank.example"), ("NODE_EXTRA_CA_CERTS", "/etc/corp.pem")];
        let all = variables("", &before);
        assert_eq!(value(&all, "NO_PROXY"), "localhost,127.0.0.1,::1,corp.example,.corp.example");
        assert_eq!(all.dropped, ["bank.example"]);
        assert_eq!(value(&all, "NODE_EXTRA_CA_CERTS"), "/t/bundle.pem");
    }

    #[test]
    fn each_shell_has_its_notation() {
        let mut all = variables("", &[]);
        all.all = vec![
            ("NO_PROXY", SecretString::from(r#"a'b"c$d\e"#.to_owned())),
            ("no_proxy", SecretString::from("x".to_owned())),
        ];
        assert_eq!(all.printed(ShellNotation::Bash), "export NO_PROXY='a'\\''b\"c$d\\e'\nexport no_proxy='x'");
        assert_eq!(all.printed(ShellNotation::Fish), "set -gx NO_PROXY 'a\\'b\"c$d\\\\e'\nset -gx no_proxy 'x'");
        assert_eq!(all.printed(ShellNotation::Pwsh), "$env:NO_PROXY = 'a''b\"c$d\\e'");
        assert_eq!(all.printed(ShellNotation::Dotenv), "NO_PROXY=\"a'b\\\"c\\$d\\\\e\"\nno_proxy=\"x\"");
        assert_eq!(all.printed(ShellNotation::Docker), "NO_PROXY=a'b\"c$d\\e\nno_proxy=x");
    }
}
