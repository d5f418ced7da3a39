//! The host that a request names, brought into the one form that the table knows.

/// Longer than any name that DNS can hold (RFC 1035 section 2.3.4); no configured host is longer.
const LONGEST: usize = 255;

/// Room for a host in lower case, so that matching needs no heap.
pub(super) struct Buffer([u8; LONGEST]);

impl Buffer {
    pub(super) const fn new() -> Self {
        Self([0; LONGEST])
    }

    /// The host in lower case and without its port; the empty string when it is too long to be known.
    ///
    /// The error is the reason to refuse it: a name that another reader could take for a different one.
    pub(super) fn read(&mut self, host: &str) -> Result<&str, &'static str> {
        let name = host_name(host)?;
        let Some(room) = self.0.get_mut(..name.len()) else { return Ok("") };
        room.copy_from_slice(name.as_bytes());
        room.make_ascii_lowercase();
        std::str::from_utf8(room).map_err(|_| "the host has characters that no name has")
    }
}

/// The host that a `Host` field or an authority names, without its port, in the client's own spelling. The error is the
/// reason to refuse it.
pub fn host_name(host: &str) -> Result<&str, &'static str> {
    let name = without_port(host)?;
    if name.is_empty() {
        return Err("the host is empty");
    }
    if name.ends_with('.') {
        return Err("the host ends in a dot");
    }
    if name.bytes().all(|byte| IN_NAMES[usize::from(byte)]) {
        Ok(name)
    } else {
        Err("the host has characters that no name has")
    }
}

/// The bytes of names and addresses.
static IN_NAMES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let at = byte as u8;
        table[byte] = at.is_ascii_alphanumeric() || matches!(at, b'-' | b'.' | b'_' | b'[' | b']' | b':');
        byte += 1;
    }
    table
};

fn without_port(host: &str) -> Result<&str, &'static str> {
    let end = if host.starts_with('[') {
        host.find(']').ok_or("the host's bracket is not closed")? + 1
    } else {
        memchr::memchr(b':', host.as_bytes()).unwrap_or(host.len())
    };
    let (name, port) = host.split_at_checked(end).ok_or("the host cannot be read")?;
    match port.strip_prefix(':') {
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|digit| digit.is_ascii_digit()) => Ok(name),
        None if port.is_empty() => Ok(name),
        Some(_) | None => Err("the host's port is not a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(host: &str) -> Result<String, &'static str> {
        Buffer::new().read(host).map(str::to_owned)
    }

    // T8
    #[test]
    fn case_and_port_do_not_count_and_doubtful_hosts_are_refused() {
        for (host, name) in [
            ("Bank.Example", "bank.example"),
            ("bank.example:8443", "bank.example"),
            ("bank.example:", "bank.example"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:8443", "[::1]"),
            ("[FE80::1]", "[fe80::1]"),
        ] {
            assert_eq!(read(host).as_deref(), Ok(name));
        }
        for host in [
            "",
            ":443",
            "bank.",
            "bank.:443",
            "a@bank",
            "bank/x",
            "a b",
            "ba\0nk",
            "bänk",
            "bank:44x",
            "[::1",
            "[::1]x",
            "::1",
            "a,b",
            "a:123456",
        ] {
            assert!(read(host).is_err(), "{host:?} passed");
        }
        assert_eq!(read(&"a".repeat(300)).as_deref(), Ok(""), "too long to be known");
    }
}
