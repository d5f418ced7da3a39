//! A look into the memory of a process, for the numbers of a private key.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// So many bytes of a number in a row are no chance.
const WINDOW: usize = 16;
/// The memory that is looked through at once.
const PIECE: usize = 1 << 20;

/// Any piece of a private key that is as long as a window, in either order of its bytes.
pub struct KeyTraces(AhoCorasick);

impl KeyTraces {
    /// The secret numbers of an RSA key in PKCS#8 form (RFC 8017 appendix A.1.2): all but modulus and public exponent.
    pub fn of_rsa(pem: &str) -> Self {
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64_STANDARD.decode(text).expect("base64");
        let outer = elements(&elements(&der)[0].1);
        let key = elements(&elements(&outer[2].1)[0].1);
        let [_version, _modulus, _exponent, secrets @ ..] = key.as_slice() else { panic!("no RSA key") };
        assert_eq!(secrets.len(), 6, "d, p, q, dp, dq, qi");
        let mut windows = BTreeSet::new();
        for (_, number) in secrets {
            let reversed: Vec<u8> = number.iter().rev().copied().collect();
            windows.extend(number.windows(WINDOW).map(<[u8]>::to_vec));
            windows.extend(reversed.windows(WINDOW).map(<[u8]>::to_vec));
        }
        let built = AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(&windows);
        Self(built.expect("patterns"))
    }

    /// Counts the places in a process's memory where a piece of the key stands. Says also how much was looked through.
    pub fn in_process(&self, id: u32) -> (usize, usize) {
        let maps = fs::read_to_string(format!("/proc/{id}/maps")).expect("readable");
        let memory = File::open(format!("/proc/{id}/mem")).expect("readable");
        let (mut found, mut seen) = (0, 0);
        let mut piece = vec![0; PIECE + WINDOW];
        for line in maps.lines() {
            let mut words = line.split_ascii_whitespace();
            let (range, rights) = (words.next().expect("a range"), words.next().expect("rights"));
            let (from, to) = range.split_once('-').expect("a range");
            let number = |text: &str| u64::from_str_radix(text, 16).expect("a number");
            let (from, to) = (number(from), number(to));
            if !rights.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
                continue;
            }
            let mut at = from;
            while at < to {
                let most = usize::try_from(to - at).unwrap_or(usize::MAX).min(piece.len());
                let Ok(read) = memory.read_at(&mut piece[..most], at) else { break };
                if read == 0 {
                    break;
                }
                found += self.0.find_iter(&piece[..read]).count();
                seen += read.min(PIECE);
                at += PIECE as u64;
            }
        }
        (found, seen)
    }
}

/// The DER elements in a row: tag and content.
fn elements(mut der: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [tag, first, rest @ ..] = der {
        let (length, rest) = match first {
            0x81 => (usize::from(rest[0]), &rest[1..]),
            0x82 => (usize::from(rest[0]) << 8 | usize::from(rest[1]), &rest[2..]),
            short => (usize::from(*short), rest),
        };
        found.push((*tag, rest[..length].to_vec()));
        der = &rest[length..];
    }
    found
}
