//! Examples and exit codes: the text below the options in a command's help, and the last section of its manual page.
//!
//! Each example is a line of two blanks and a command that parses; a test holds them to that. docs/commands.md says more.

/// Help after the options of `audit verify`.
pub(super) const AUDIT_EXAMPLES: &str = "\
Examples:
  countersign audit verify -c proxy.toml
  countersign audit verify audit.log --key-file secrets/audit.key --json

Exit codes:
  0  the chain is whole
  1  it is broken; the first record that does not hold is named
  2  it cannot be judged: a file cannot be read, or the key is another one";

/// Help after the options of `check`.
pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  countersign check
  countersign check conf/proxy.toml --json
  countersign check --live --var account=4711
  countersign -c conf/proxy.toml check --quiet

Exit codes:
  0  fine, perhaps with warnings
  1  mistakes, or a failed trial of --live
  2  the file cannot be read";

/// Help after the options of `demo`.
pub(super) const DEMO_EXAMPLES: &str = "\
Examples:
  countersign demo
  countersign demo --once --provider oauth2

Exit codes:
  0  every step held, or it was stopped
  1  with --once: a step did not hold; or the demo could not start
  2  there is no such bank";

/// Help after the options of `env`.
pub(super) const ENV_EXAMPLES: &str = "\
Examples:
  countersign env --client erp
  countersign env -c conf/proxy.toml --client erp

Exit codes:
  0  printed; without a key the proxy's address has no credentials
  2  there is no forward listener, or the config cannot be read";

/// Help after the options of `events`.
pub(super) const EVENTS_EXAMPLES: &str = "\
Examples:
  countersign events
  countersign events --kind token-failed --kind token-refused --json
  countersign events --provider paypal -n 1

Exit codes:
  0  stopped, or as many were shown as were asked for
  1  refused by the instance
  2  no instance was reached";

/// Help after the options of `exec`.
pub(super) const EXEC_EXAMPLES: &str = "\
Examples:
  countersign exec -- curl https://api.bank.example/accounts
  countersign exec --client erp --key-file erp.key -- python3 pay.py
  countersign exec -c conf/proxy.toml -- mvn test

Exit codes:
  125      no proxy, no key, or a failure of countersign itself
  126      the command cannot be run
  127      there is no such command
  128 + N  it was ended by signal N
  Any other is the command's own.";

/// Help after the options of `explain`.
pub(super) const EXPLAIN_EXAMPLES: &str = "\
Examples:
  countersign explain --client erp /scb/v1/payment/qrcode/create
  countersign explain -m POST -d '{\"amount\":1}' --client erp https://localhost:8443/paypal/v2/payments
  countersign explain -H 'x-account-id: 1' --json /rakbank/accounts
  countersign explain --curl scb/v1/payment
  countersign explain --request 0198f3c2-6c1e-7d3a-9a51-3f6a0c7be001

Exit codes:
  0  the request would be forwarded
  1  it would be refused; the error is named
  2  there is no such request, client or listener, or the config cannot be used";

/// Help after the options of `health`.
pub(super) const HEALTH_EXAMPLES: &str = "\
Examples:
  countersign health
  countersign health --live --quiet
  countersign health --admin https://127.0.0.1:9901 --admin-ca admin-ca.crt

Exit codes:
  0  ready, or alive
  1  not, or no answer
  2  the config does not say where to ask";

/// Help after the options of `import`.
pub(super) const IMPORT_EXAMPLES: &str = "\
Examples:
  countersign import nginx /etc/nginx/nginx.conf
  countersign import envoy envoy.yaml

Exit codes:
  0  all was carried over
  1  something was not, though the config is written
  2  nothing could be read, or nothing is written";

/// Help after the options of `init`.
pub(super) const INIT_EXAMPLES: &str = "\
Examples:
  countersign init paypal --environment sandbox
  countersign init oauth2 --base-url https://api.bank.example --token-url https://api.bank.example/token --plain
  countersign init profiles/newbank.toml --dir newbank --live

Exit codes:
  0  written
  1  with --live: written, but the bank could not be reached as it should
  2  nothing was written";

/// Help after the options of `key`.
pub(super) const KEY_EXAMPLES: &str = "\
Examples:
  countersign key new erp
  countersign key new erp --json

Exit codes:
  0  printed: the key is shown this once
  1  it could not be printed
  2  no client can have this name";

/// Help after the options of `learn`.
pub(super) const LEARN_EXAMPLES: &str = "\
Examples:
  countersign learn notes.md
  countersign learn recording.har collection.json --name newbank --out newbank

Exit codes:
  0  written, played and checked
  1  what was learned does not hold
  2  the examples cannot be read, show no token call, or a file is there already: nothing is written";

/// Help after the options of `log-level`.
pub(super) const LOG_LEVEL_EXAMPLES: &str = "\
Examples:
  countersign log-level
  countersign log-level debug --for 15m
  countersign log-level --restore

Exit codes:
  0  done
  1  refused by the instance
  2  no instance was reached";

/// Help after the options of `profiles`.
pub(super) const PROFILES_EXAMPLES: &str = "\
Examples:
  countersign profiles
  countersign profiles scb
  countersign profiles test my-bank.toml
  countersign profiles diff scb my-scb.toml

Exit codes:
  0  printed, or all conversations went as written
  1  some did not, or profiles differ
  2  there is no such profile, or nothing to do";

/// Help after the options of `reload`.
pub(super) const RELOAD_EXAMPLES: &str = "\
Examples:
  countersign reload
  countersign reload -c conf/proxy.toml

Exit codes:
  0  the config is in force
  1  it has mistakes, and the old one stays; or it was refused
  2  no instance was reached";

/// Help after the options of `requests`.
pub(super) const REQUESTS_EXAMPLES: &str = "\
Examples:
  countersign requests
  countersign requests --follow --provider paypal
  countersign requests --since 15m --error rate-limited -n 1000 --json

Exit codes:
  0  printed, or stopped
  1  refused by the instance
  2  no instance was reached, or `--since` is no time";

/// Help after the options of `run`.
pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  countersign run
  countersign run -c /etc/countersign/proxy.toml

Signals:
  SIGTERM and SIGINT drain, then end; a second one ends at once. SIGHUP reads the config anew, SIGUSR2 puts a new
  process in the place of this one.

Exit codes:
  0    drained, or another process has taken over
  1    mistakes in the config, a failed start, or a part of the process failed
  2    the file cannot be read
  130  ended at once by a second signal";

/// Help after the options of `sim`.
pub(super) const SIM_EXAMPLES: &str = "\
Examples:
  countersign sim --write .
  countersign sim scb oauth2 --write sims --bind 127.0.0.1:8081
  countersign sim banks/newbank.toml

Exit codes:
  0  stopped by a signal
  1  it could not start
  2  there is no such simulator, or a proxy.toml of another origin is there";

/// Help after the options of `status`.
pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  countersign status
  countersign status --json
  countersign status --watch=5

Exit codes:
  0  printed
  1  refused by the instance
  2  no instance was reached";

/// Help after the options of `token`.
pub(super) const TOKEN_EXAMPLES: &str = "\
Examples:
  countersign token list
  countersign token refresh paypal
  countersign token purge 6b1206cd --admin https://proxy.example:9901 --admin-ca admin-ca.crt

Exit codes:
  0  done
  1  refused, not fetched, or there is no such token
  2  no instance was reached";
