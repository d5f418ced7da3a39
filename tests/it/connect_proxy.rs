//! A proxy that wants credentials and knows where one name is: `CONNECT` to it leads to an address of the test's.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A running one. Its threads end with the connections that they serve, and the first with the test's process.
pub struct Switch {
    pub address: SocketAddr,
}

/// What it opens to whom.
#[derive(Clone)]
struct Rule {
    request: String,
    credentials: String,
    target: SocketAddr,
}

impl Switch {
    /// Starts one at which `name` (host and port) leads whoever has the credentials to `target`, and nothing else
    /// leads anywhere. As many clients expect, credentials are asked for with 407 first.
    pub fn start(name: &str, target: SocketAddr, (user, password): (&str, &str)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("an address");
        let credentials = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let rule = Rule { request: format!("CONNECT {name} HTTP/1."), credentials, target };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let rule = rule.clone();
                // A broken connection shows at its ends.
                thread::spawn(move || serve(stream, &rule));
            }
        });
        Self { address }
    }
}

fn serve(mut stream: TcpStream, rule: &Rule) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend_from_slice(&byte);
        }
        let head = String::from_utf8_lossy(&head);
        let shown = head.lines().filter_map(|line| line.split_once(": "));
        let known = shown
            .into_iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("proxy-authorization") && value == rule.credentials);
        if !head.starts_with(&rule.request) {
            return stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
        }
        if known {
            break;
        }
        stream.write_all(
            b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"countersign\"\r\n\
              content-length: 0\r\n\r\n",
        )?;
    }
    let onward = TcpStream::connect(rule.target)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (back_from, back_to) = (onward.try_clone()?, stream.try_clone()?);
    thread::spawn(move || copy(back_from, back_to));
    copy(stream, onward);
    Ok(())
}

/// One direction, to its end.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    // What breaks here, breaks there.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
