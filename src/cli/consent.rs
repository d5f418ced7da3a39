//! `countersign consent start|list|revoke`: users' consents, through the admin API of a running instance.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use qrcode::render::unicode::Dense1x2;
use serde_json::{Value, json};

use super::{complain, health, print};

/// A bank is asked meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
/// More of an answer is not read.
const MOST: u64 = 16 << 20;

/// What `countersign consent` is told.
#[derive(Debug, Subcommand)]
pub enum ConsentCommand {
    /// Start a user's consent: print the URL that the user opens, and show it as a QR code on a terminal
    Start {
        #[command(flatten)]
        whose: Whose,
        /// Where the browser goes in the end
        #[arg(long, value_name = "URL")]
        return_to: Option<String>,
    },
    /// List all consents
    List {
        #[command(flatten)]
        door: Door,
    },
    /// Forget a user's tokens
    Revoke {
        #[command(flatten)]
        whose: Whose,
    },
}

/// Where the admin API is.
#[derive(Args, Debug)]
pub struct Door {
    /// Its admin door, as in http://127.0.0.1:9901; default: where the config says
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    admin: Option<String>,
    /// The config file
    #[arg(short, long, value_name = "FILE", default_value = "proxy.toml")]
    config: PathBuf,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Whose consent.
#[derive(Args, Debug)]
pub struct Whose {
    /// The provider's name in the config
    provider: String,
    /// The user, as the application calls it
    user: String,
    /// The client that will call for the user
    #[arg(long, value_name = "NAME")]
    client: String,
    #[command(flatten)]
    door: Door,
}

/// 0: done. 1: the instance refused, or there was nothing to revoke. 2: nobody was reached.
pub fn run(command: &ConsentCommand) -> ExitCode {
    let done = match command {
        ConsentCommand::Start { whose, return_to } => start(whose, return_to.as_deref()),
        ConsentCommand::List { door } => list(door),
        ConsentCommand::Revoke { whose } => revoke(whose),
    };
    match done {
        Ok(code) => code,
        Err((code, why)) => {
            complain(&why);
            ExitCode::from(code)
        }
    }
}

type Failed = (u8, String);

fn start(whose: &Whose, return_to: Option<&str>) -> Result<ExitCode, Failed> {
    let mut asked = whose.asked();
    if let Some(url) = return_to {
        asked["return_to"] = url.into();
    }
    let started = whose.door.ask("POST", "/api/v1/consents/start", Some(&asked))?;
    if whose.door.json {
        print(&format!("{started:#}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let text = |key: &str| started.get(key).and_then(Value::as_str).unwrap_or_default();
    print(&format!("{}\n\nstate      {}\nexpires    {}\n", text("consent_url"), text("state"), text("expires_at")));
    if io::stdout().is_terminal()
        && let Ok(code) = qrcode::QrCode::new(text("consent_url"))
    {
        print(&format!("\n{}\n", code.render::<Dense1x2>().build()));
    }
    Ok(ExitCode::SUCCESS)
}

fn list(door: &Door) -> Result<ExitCode, Failed> {
    let answer = door.ask("GET", "/api/v1/consents", None)?;
    if door.json {
        print(&format!("{answer:#}\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let lines = answer.get("consents").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for line in lines {
        let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or("-");
        // A user's name is whatever the application made it.
        let user = text("user").escape_debug().to_string();
        print(&format!(
            "{}  {} {}  {user}  {}  until {}\n",
            text("provider"),
            text("owner_kind"),
            text("owner"),
            text("state"),
            text("refresh_expires_at")
        ));
    }
    if lines.is_empty() {
        print("nobody has consented\n");
    }
    Ok(ExitCode::SUCCESS)
}

fn revoke(whose: &Whose) -> Result<ExitCode, Failed> {
    let answer = whose.door.ask("POST", "/api/v1/consents/revoke", Some(&whose.asked()))?;
    let revoked = answer.get("revoked").and_then(Value::as_bool).unwrap_or(false);
    match (whose.door.json, revoked) {
        (true, _) => print(&format!("{answer:#}\n")),
        (false, true) => print("revoked here; tell the bank, too, if it shall know\n"),
        (false, false) => print("there was no such consent\n"),
    }
    Ok(ExitCode::from(u8::from(!revoked)))
}

impl Whose {
    fn asked(&self) -> Value {
        json!({ "provider": self.provider, "client": self.client, "user": self.user })
    }
}

impl Door {
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
        let address = health::address(self.admin.as_deref(), &self.config).map_err(|why| (2, why))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let (status, answer) = exchange(address, method, path, &body)
            .map_err(|error| (2, format!("{address} does not answer: {error}; is it running?")))?;
        if status != 200 {
            return Err((1, answer.trim().to_owned()));
        }
        serde_json::from_str(&answer).map_err(|_| (2, format!("{address} answers no JSON; is it the admin door?")))
    }
}

fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MOST).read_to_string(&mut answer)?;
    let wrong = || io::Error::other("that is not HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(wrong)?;
    Ok((status, body.to_owned()))
}
