//! Replaces texts and attributes of an XML document, and leaves its elements.

/// The document with `replace(name, value)` in the place of each text and attribute; the name is the element's or the
/// attribute's. Comments are left out. `None`: it is no document that is understood here.
pub(super) fn with_xml_leaves(text: &str, mut replace: impl FnMut(&str, &str) -> String) -> Option<String> {
    let mut written = String::new();
    let mut open: Vec<String> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (before, behind) = match rest.split_once('<') {
            Some((before, behind)) => (before, Some(behind)),
            None => (rest, None),
        };
        let name = open.last().cloned().unwrap_or_default();
        if before.trim().is_empty() {
            written.extend(before.chars().filter(char::is_ascii_whitespace));
        } else {
            written += &escaped(&replace(&name, &unescaped(before.trim())?));
        }
        let Some(behind) = behind else { break };
        rest = if let Some(comment) = behind.strip_prefix("!--") {
            comment.split_once("-->")?.1
        } else if let Some(text) = behind.strip_prefix("![CDATA[") {
            let (text, after) = text.split_once("]]>")?;
            written += &escaped(&replace(&name, text));
            after
        } else if let Some(instruction) = behind.strip_prefix('?') {
            let (instruction, after) = instruction.split_once("?>")?;
            if instruction.starts_with("xml ") {
                written += "<?xml version=\"1.0\"?>";
            }
            after
        } else if behind.starts_with('!') {
            // A document type may say anything.
            return None;
        } else {
            let (tag, after) = tag_end(behind)?;
            if let Some(closed) = tag.strip_prefix('/') {
                (open.pop()? == closed.trim()).then_some(())?;
                written += &format!("</{}>", closed.trim());
            } else {
                let is_empty = tag.ends_with('/');
                let tag = tag.strip_suffix('/').unwrap_or(tag);
                let (name, attributes) = tag.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((tag, ""));
                is_name(name).then_some(())?;
                written += &format!("<{name}");
                let mut left = attributes.trim();
                while !left.is_empty() {
                    let (attribute, value) = left.split_once('=')?;
                    let attribute = attribute.trim();
                    is_name(attribute).then_some(())?;
                    let value = value.trim_start();
                    let quote = value.chars().next().filter(|c| ['"', '\''].contains(c))?;
                    let (value, behind) = value.get(1..)?.split_once(quote)?;
                    written += &format!(" {attribute}=\"{}\"", escaped(&replace(attribute, &unescaped(value)?)));
                    left = behind.trim_start();
                }
                written += if is_empty { "/>" } else { ">" };
                if !is_empty {
                    open.push(name.to_owned());
                }
            }
            after
        };
    }
    open.is_empty().then_some(written)
}

/// The tag up to its `>`, which does not stand in quotes, and what follows.
fn tag_end(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let end = text.find(|c| match (quote, c) {
        (None, '>') => true,
        (None, '"' | '\'') => {
            quote = Some(c);
            false
        }
        (Some(open), _) if open == c => {
            quote = None;
            false
        }
        (None | Some(_), _) => false,
    })?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

/// Names with long numbers in them, or very long ones, may be values.
fn is_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b":_.-".contains(&b));
    plain && !name.is_empty() && name.len() <= 64 && crate::learn::is_plain_name(name)
}

fn unescaped(text: &str) -> Option<String> {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        plain += before;
        let (entity, after) = behind.split_once(';')?;
        plain.push(match entity {
            "amp" => '&',
            "apos" => '\'',
            "gt" => '>',
            "lt" => '<',
            "quot" => '"',
            _ => {
                let number = entity.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        });
        rest = after;
    }
    Some(plain + rest)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starred(text: &str) -> Option<String> {
        with_xml_leaves(text, |name, value| format!("{name}:{}", value.len()))
    }

    #[test]
    fn texts_and_attributes_are_replaced_and_elements_stay() {
        let text = "<?xml version='1.0' encoding=\"UTF-8\"?><!-- Jane --><a:Doc k='v>1' xmlns:a=\"urn:x\"><N>J&amp;e</N>\n<E/><![CDATA[<x>]]></a:Doc>";
        assert_eq!(
            starred(text).as_deref(),
            Some("<?xml version=\"1.0\"?><a:Doc k=\"k:3\" xmlns:a=\"xmlns:a:5\"><N>N:3</N>\n<E/>a:Doc:3</a:Doc>")
        );
    }

    #[test]
    fn what_is_no_document_is_none() {
        for text in
            ["<a>", "<a></b>", "<!DOCTYPE x><a/>", "<a b=c/>", "<a>&x;</a>", "<a0188000049916/>", "<a", "<!-- a"]
        {
            assert_eq!(starred(text), None, "{text}");
        }
    }
}
