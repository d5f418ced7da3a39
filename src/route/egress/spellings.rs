//! Every way that we know to write an address so that somebody misreads it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::fuzzing::embedded;

/// The lines of a fixture without comments, with `\xNN`, `\u{N}` and `\\` undone.
pub(in super::super) fn spelling_lines(fixture: &str) -> Vec<String> {
    let written = fixture.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    written.map(unescaped).collect()
}

fn unescaped(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let (code, behind) = if let Some(digits) = after.strip_prefix('x') {
            digits.split_at(2)
        } else if let Some(braced) = after.strip_prefix("u{") {
            braced.split_once('}').expect("a closed brace in the fixture")
        } else {
            out.push('\\');
            rest = after.strip_prefix('\\').expect("a known escape in the fixture");
            continue;
        };
        out.push(u32::from_str_radix(code, 16).ok().and_then(char::from_u32).expect("a character in the fixture"));
        rest = behind;
    }
    out + rest
}

/// Spellings of an IPv4 address, the plain one among them. A `:` within is part of the host.
pub(super) fn v4(address: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = address.octets();
    let bits = u32::from(address);
    let (low24, low16) = (bits & 0x00ff_ffff, bits & 0xffff);
    let plain = address.to_string();
    let shifted = |digit: char, zero: u32| match digit.to_digit(10) {
        Some(value) => char::from_u32(zero + value).expect("a digit"),
        None => digit,
    };
    let digits = |zero: u32| plain.chars().map(|c| shifted(c, zero)).collect::<String>();
    let escaped = |byte: u8| format!("%{byte:02x}");
    let mut all = vec![
        plain.clone(),
        // Other radices and fewer parts.
        format!("{bits}"),
        format!("{bits:#x}"),
        format!("0X{bits:X}"),
        format!("0x{bits:016x}"),
        format!("0{bits:o}"),
        format!("00{bits:o}"),
        format!("{}", u64::from(bits) + (1 << 32)),
        format!("{:#x}", u64::from(bits) + (1 << 32)),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0X{a:X}.0X{b:X}.0X{c:X}.0X{d:X}"),
        format!("0x{a:08x}.0x{b:08x}.0x{c:08x}.0x{d:08x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a:04o}.{b:04o}.{c:04o}.{d:04o}"),
        format!("{a:#o}.{b:#o}.{c:#o}.{d:#o}"),
        format!("{a}.{low24}"),
        format!("{a}.{b}.{low16}"),
        format!("{a:#x}.{low24}"),
        format!("{a:#x}.{low24:#x}"),
        format!("0{a:o}.{low24}"),
        format!("0{a:o}.0{low24:o}"),
        format!("{a}.{b:#x}.{low16}"),
        format!("0{a:o}.{b}.{low16:#x}"),
        format!("{a:#x}.{b}.{c}.{d}"),
        format!("{a}.{b}.{c}.{d:#x}"),
        format!("{a}.{b}.{c}.0{d:o}"),
        format!("0{a:o}.{b}.{c}.{d}"),
        format!("{a:#x}.0{b:o}.{c}.{d}"),
        format!("{a:03}.{b:03}.{c:03}.{d:03}0"),
        format!("0{a}.0{b}.0{c}.0{d}"),
        format!("{a}.{b}.{c}.00{d}"),
        format!("{}.{b}.{c}.{d}", u16::from(a) + 256),
        format!("{a}.{b}.{c}.{}", u16::from(d) + 256),
        // Dots.
        format!("{plain}."),
        format!("{plain}.."),
        format!(".{plain}"),
        format!("{a}..{b}.{c}.{d}"),
        format!("{bits}."),
        format!("{bits:#x}."),
        format!("{plain}.0"),
        format!("{plain}.0x"),
        plain.replace('.', "\u{ff0e}"),
        plain.replace('.', "\u{3002}"),
        plain.replace('.', "\u{ff61}"),
        plain.replacen('.', "\u{2024}", 1),
        // Other digits: full-width, mathematical, Arabic, Devanagari; and what normalisation takes away.
        digits(0xff10),
        digits(0xff10).replace('.', "\u{ff0e}"),
        digits(0x1d7ce),
        digits(0x1d7f6),
        digits(0x0660),
        digits(0x0966),
        plain.replace('1', "\u{2460}").replace('0', "\u{24ea}") + "\u{200b}",
        format!("\u{feff}{plain}"),
        format!("{a}\u{ad}.{b}.{c}.{d}"),
        format!("{plain}\u{200b}"),
        format!("{a}\u{200d}.{b}.{c}.{d}"),
        // Encodings.
        plain.replace('.', "%2e"),
        plain.replacen('.', "%2E", 1),
        plain.bytes().map(escaped).collect(),
        plain.bytes().map(escaped).collect::<String>().replace('%', "%25"),
        format!("{plain}%00"),
        format!("{plain}%20"),
        format!("{plain}%0d%0a"),
        format!("{plain}%2f"),
        format!("{plain}%23"),
        format!("%EF%BB%BF{plain}"),
        // The intended host is ambiguous: user information, backslashes, white space, control characters.
        format!("bank.example@{plain}"),
        format!("bank.example:443@{plain}"),
        format!("user:word@{plain}"),
        format!("@{plain}"),
        format!("{plain}@"),
        format!("bank.example%40{plain}"),
        format!("bank.example\\@{plain}"),
        format!("{plain}\\"),
        format!("{plain}\\.bank.example"),
        format!("{plain}\0"),
        format!("{plain}\0.bank.example"),
        format!("bank.example\0{plain}"),
        format!("{plain} "),
        format!(" {plain}"),
        format!("{plain}\t"),
        format!("{plain} bank.example"),
        format!("{plain}\r\nHost: bank.example"),
        format!("{plain}\n"),
        format!("{plain}\x0b"),
        format!("{plain}\x7f"),
        format!("{plain},bank.example"),
        format!("{plain};bank.example"),
        format!("{plain}&bank.example"),
        format!("+{plain}"),
        format!("-{plain}"),
        format!("'{plain}'"),
        format!("\"{plain}\""),
        format!("({plain})"),
        format!("{{{plain}}}"),
        format!("{plain}:443"),
        format!("{plain}:"),
        format!("::{plain}"),
        format!(":{plain}"),
        format!("//{plain}"),
        // Brackets and zones.
        format!("[{plain}]"),
        format!("[[{plain}]]"),
        format!("[{plain}"),
        format!("{plain}]"),
        format!("[{bits}]"),
        format!("[{bits:#x}]"),
        format!("[bank.example]{plain}"),
        format!("[]{plain}"),
        format!("{plain}%lo"),
        format!("{plain}%25lo"),
    ];
    all.extend(embedded(address).into_iter().flat_map(v6));
    all
}

/// Spellings of an IPv6 address, the plain one among them.
pub(super) fn v6(address: Ipv6Addr) -> Vec<String> {
    let plain = address.to_string();
    let groups = address.segments();
    let whole = groups.map(|group| format!("{group:04x}")).join(":");
    let short = groups.map(|group| format!("{group:x}")).join(":");
    let [.., high, low] = groups;
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    let head = short.rsplitn(3, ':').last().unwrap_or_default().to_owned();
    vec![
        format!("[{plain}]"),
        format!("[{}]", plain.to_uppercase()),
        format!("[{whole}]"),
        format!("[{short}]"),
        format!("[{head}:{a}.{b}.{c}.{d}]"),
        format!("[{head}:0{a:o}.{b}.{c}.{d}]"),
        format!("[{head}:{a:#x}.{b}.{c}.{d}]"),
        format!("[{head}:{}]", u32::from_be_bytes([a, b, c, d])),
        format!("[{plain}%lo]"),
        format!("[{plain}%25lo]"),
        format!("[{plain}%1]"),
        format!("[{plain}%]"),
        format!("[{plain}/128]"),
        format!("[{plain}.]"),
        format!("[{plain}]."),
        format!("[{plain}\0]"),
        format!("[{plain} ]"),
        format!("[0{whole}]"),
        format!("[v1.{plain}]"),
        format!("[v6.{plain}]"),
        format!("[[{plain}]]"),
        format!("[{plain}"),
        format!("{plain}]"),
        plain.clone(),
        whole,
        format!("user@[{plain}]"),
        format!("[{plain}]@bank.example"),
        format!("[{plain}]bank.example"),
        format!("bank.example[{plain}]"),
        format!("%5b{plain}%5d"),
        format!("\u{ff3b}{plain}\u{ff3d}"),
        plain.replace(':', "\u{ff1a}"),
        format!("{}.ipv6-literal.net", plain.replace(':', "-")),
        format!("{}.IPv6-Literal.NET", short.replace(':', "-")),
    ]
}
