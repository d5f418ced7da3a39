//! `countersign consent start|list|revoke`: users' consents, through the admin API of a running instance.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use qrcode::render::unicode::Dense1x2;
use serde_json::{Value, json};

use super::admin_client::{AdminCallError, AdminClient};
use super::print;
use super::status::{ended, list, word};
use super::table::{moment, table};
use crate::base::time::Clock;

/// The subcommands of `countersign consent`.
#[derive(Debug, Subcommand)]
pub enum ConsentCommand {
    /// Start a user's consent: print the URL that the user opens, and show it as a QR code on a terminal
    Start {
        #[command(flatten)]
        whose: ConsentArguments,
        /// URL that the browser is sent to in the end
        #[arg(long, value_name = "URL")]
        return_to: Option<String>,
    },
    /// List the consents of all users
    List {
        #[command(flatten)]
        admin_listener: AdminClient,
    },
    /// Revoke a consent: forget the user's tokens
    Revoke {
        #[command(flatten)]
        whose: ConsentArguments,
    },
}

/// The arguments that identify a consent.
#[derive(Args, Debug)]
pub struct ConsentArguments {
    /// The provider's name in the config
    provider: String,
    /// The user, as the application calls it
    user: String,
    /// The client that will call for the user
    #[arg(long, value_name = "NAME")]
    client: String,
    #[command(flatten)]
    admin_listener: AdminClient,
}

/// Runs the subcommand. Exit code 0: done. 1: the instance refused, or there was nothing to revoke. 2: no instance was
/// reached.
pub fn run(command: &ConsentCommand) -> ExitCode {
    ended(match command {
        ConsentCommand::Start { whose, return_to } => start(whose, return_to.as_deref()),
        ConsentCommand::List { admin_listener } => show(admin_listener),
        ConsentCommand::Revoke { whose } => revoke(whose),
    })
}

fn start(whose: &ConsentArguments, return_to: Option<&str>) -> Result<ExitCode, AdminCallError> {
    let mut asked = whose.asked();
    if let Some(url) = return_to {
        asked["return_to"] = url.into();
    }
    let started = whose.admin_listener.ask("POST", "/api/v1/consents/start", Some(&asked))?;
    if whose.admin_listener.json {
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

fn show(admin_listener: &AdminClient) -> Result<ExitCode, AdminCallError> {
    let answer = admin_listener.ask("GET", "/api/v1/consents", None)?;
    let now = Clock::System.now();
    let row = |line: &Value| {
        // The application chooses the name of a user, so it may hold any text.
        let user = word(line, "user").escape_debug().to_string();
        let owner = format!("{} {}", word(line, "owner_kind"), word(line, "owner"));
        let [given, until] = ["consented_at", "refresh_expires_at"].map(|key| moment(word(line, key), now));
        vec![word(line, "provider").to_owned(), owner, user, word(line, "state").to_owned(), given, until]
    };
    let rows: Vec<Vec<String>> = list(&answer, "consents").iter().map(row).collect();
    if admin_listener.json {
        print(&format!("{answer:#}\n"));
    } else if rows.is_empty() {
        print("nobody has consented\n");
    } else {
        print(&table(&["PROVIDER", "GIVEN TO", "USER", "STATE", "CONSENTED", "UNTIL"], &rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn revoke(whose: &ConsentArguments) -> Result<ExitCode, AdminCallError> {
    let answer = whose.admin_listener.ask("POST", "/api/v1/consents/revoke", Some(&whose.asked()))?;
    let revoked = answer.get("revoked").and_then(Value::as_bool).unwrap_or(false);
    match (whose.admin_listener.json, revoked) {
        (true, _) => print(&format!("{answer:#}\n")),
        (false, true) => print("revoked here; tell the bank, too, if it shall know\n"),
        (false, false) => print("there was no such consent\n"),
    }
    Ok(ExitCode::from(u8::from(!revoked)))
}

impl ConsentArguments {
    fn asked(&self) -> Value {
        json!({ "provider": self.provider, "client": self.client, "user": self.user })
    }
}
