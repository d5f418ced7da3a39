//! Instructions for making clients trust the interception CA, by programming language, tool and system.
//!
//! Plain text, for the command line and for the proxy's own page. The text only instructs: this module changes nothing
//! on a machine.

use std::fmt::Write as _;

/// Files and the address that the steps speak of, as their reader should write them.
#[derive(Clone, Copy, Debug)]
pub struct TrustWords<'a> {
    /// Path of the CA's certificate (PEM).
    pub ca: &'a str,
    /// The CA and the public roots, PEM.
    pub bundle: &'a str,
    /// The CA and the public roots, PKCS#12.
    pub store: &'a str,
    /// The forward listener, as `http://host:port`.
    pub proxy: &'a str,
}

/// One client or system and what to do there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Steps {
    /// The client or system that the lines are for: `curl`, `Debian, Ubuntu`.
    pub title: &'static str,
    /// One command, setting or remark a line. A remark starts with `# `.
    pub lines: Vec<String>,
}

/// The steps for each language and tool, then for each system. Shorter is better: `countersign exec` does most of them.
pub fn steps(names: TrustWords<'_>) -> Vec<Steps> {
    let TrustWords { ca, bundle, store, proxy } = names;
    let (host, port) = address(proxy);
    let mut all = Vec::new();
    let mut about = |title, lines: &[String]| all.push(Steps { title, lines: lines.to_vec() });
    about(
        "curl and libcurl",
        &[
            format!("export https_proxy={proxy} CURL_CA_BUNDLE={bundle}"),
            format!("curl --proxy {proxy} --cacert {ca} https://…"),
        ],
    );
    about(
        "Python: requests",
        &[
            format!("export HTTPS_PROXY={proxy} REQUESTS_CA_BUNDLE={bundle}"),
            "# The file replaces the public roots, so it must be the bundle.".to_owned(),
        ],
    );
    about(
        "Python: httpx, urllib",
        &[
            format!("export HTTPS_PROXY={proxy} SSL_CERT_FILE={bundle}"),
            "# Python 3.13 checks certificates strictly; ours pass.".to_owned(),
        ],
    );
    about(
        "Python: aiohttp",
        &[
            format!("export HTTPS_PROXY={proxy} SSL_CERT_FILE={bundle}"),
            "# aiohttp reads the proxy variables with ClientSession(trust_env=True) only.".to_owned(),
        ],
    );
    about(
        "Node.js",
        &[
            format!("export HTTPS_PROXY={proxy} NODE_EXTRA_CA_CERTS={ca} NODE_USE_ENV_PROXY=1"),
            "# fetch: Node 22.21 or 24.0 and later; http and https: 22.21 or 24.5 and later.".to_owned(),
            "# Before that Node ignores the variables: give undici or global-agent the proxy.".to_owned(),
        ],
    );
    about(
        "Java",
        &[
            format!("java -Dhttps.proxyHost={host} -Dhttps.proxyPort={port} \\"),
            format!("     -Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStoreType=PKCS12 \\"),
            "     -Djavax.net.ssl.trustStorePassword=changeit -Djdk.http.auth.tunneling.disabledSchemes= …".to_owned(),
            "# The store replaces the JDK's own. Or import the CA into a copy of that:".to_owned(),
            format!(
                "keytool -importcert -noprompt -alias countersign -file {ca} -keystore cacerts -storepass changeit"
            ),
            "# Java ignores the proxy variables. Apache HttpClient wants useSystemProperties().".to_owned(),
            "# Java sends a key to a proxy only if the program sets an Authenticator.".to_owned(),
        ],
    );
    about(
        ".NET",
        &[
            format!("export HTTPS_PROXY={proxy} SSL_CERT_FILE={bundle}"),
            "# On Windows and macOS .NET uses the system's store instead of the variable.".to_owned(),
        ],
    );
    about(
        "Go",
        &[
            format!("export HTTPS_PROXY={proxy} SSL_CERT_FILE={bundle}"),
            "# On Windows and macOS Go uses the system's store. Go never sends localhost through a proxy.".to_owned(),
        ],
    );
    about(
        "PHP",
        &[
            format!("export HTTPS_PROXY={proxy}"),
            format!("php -d curl.cainfo={bundle} -d openssl.cafile={bundle} …"),
            "# Streams (file_get_contents) take the proxy from their context only.".to_owned(),
        ],
    );
    about("Ruby", &[format!("export https_proxy={proxy} SSL_CERT_FILE={bundle}")]);
    about(
        "Debian, Ubuntu",
        &[
            format!("sudo cp {ca} /usr/local/share/ca-certificates/countersign.crt"),
            "sudo update-ca-certificates".to_owned(),
        ],
    );
    about(
        "RHEL, Fedora",
        &[format!("sudo cp {ca} /etc/pki/ca-trust/source/anchors/countersign.crt"), "sudo update-ca-trust".to_owned()],
    );
    about(
        "Alpine",
        &[
            "apk add ca-certificates".to_owned(),
            format!("cp {ca} /usr/local/share/ca-certificates/countersign.crt"),
            "update-ca-certificates".to_owned(),
        ],
    );
    about(
        "macOS",
        &[
            "sudo security add-trusted-cert -d -r trustRoot \\".to_owned(),
            format!("     -k /Library/Keychains/System.keychain {ca}"),
        ],
    );
    about("Windows (as administrator)", &[format!("certutil -addstore -f Root {ca}")]);
    about(
        "Docker",
        &[
            "# Debian or Ubuntu image:".to_owned(),
            format!("COPY {ca} /usr/local/share/ca-certificates/countersign.crt"),
            "RUN update-ca-certificates".to_owned(),
            "# Any image: mount the bundle and name it.".to_owned(),
            format!("docker run -v {bundle}:/countersign/bundle.pem:ro -e SSL_CERT_FILE=/countersign/bundle.pem \\"),
            format!("     -e HTTPS_PROXY={proxy} …"),
            "# Inside a container 127.0.0.1 is the container: use an address that it can reach.".to_owned(),
        ],
    );
    about(
        "Kubernetes",
        &[
            "countersign ca export --format k8s-configmap | kubectl apply -f -".to_owned(),
            "# Mount the ConfigMap `countersign-ca` at /countersign and set on the container:".to_owned(),
            "# SSL_CERT_FILE and REQUESTS_CA_BUNDLE=/countersign/bundle.pem,".to_owned(),
            "# NODE_EXTRA_CA_CERTS=/countersign/ca.crt, HTTPS_PROXY=http://countersign:3128".to_owned(),
        ],
    );
    all
}

/// The steps as text for a terminal.
pub fn text(steps: &[Steps]) -> String {
    let mut text = String::new();
    for Steps { title, lines } in steps {
        let _ = writeln!(text, "{title}");
        for line in lines {
            let _ = writeln!(text, "    {line}");
        }
        text.push('\n');
    }
    text
}

/// The host and the port of `http://host:port`; what is missing is left to the reader.
fn address(proxy: &str) -> (&str, &str) {
    let rest = proxy.split_once("://").map_or(proxy, |(_, rest)| rest);
    rest.rsplit_once(':').unwrap_or((rest, "3128"))
}
