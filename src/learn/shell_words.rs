//! The words of a shell's command line, as far as they can be known without a shell.

/// Reads one command from the beginning of a text. Returns its words, and the length of the command in bytes.
///
/// Quotes, backslashes and continued lines count. Nothing is expanded and nothing is run: `$NAME`, `$(command)` and
/// `` `command` `` stay in the words as they are written.
pub(super) fn shell_words(text: &str) -> (Vec<String>, usize) {
    let (mut words, mut word, mut has_word) = (Vec::new(), String::new(), false);
    let mut quote: Option<char> = None;
    let mut open_commands = 0_usize;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, next)| *next);
        match (quote, c) {
            // `\r\n` ends a line, too.
            (None, '\\' | '^' | '`') if matches!(next, Some('\n' | '\r')) => {
                while chars.next_if(|(_, next)| *next == '\r').is_some() {}
                let _ = chars.next_if(|(_, next)| *next == '\n');
            }
            (_, '(') if open_commands > 0 || word.ends_with('$') => {
                open_commands += 1;
                word.push(c);
            }
            (_, ')') if open_commands > 0 => {
                open_commands -= 1;
                word.push(c);
            }
            _ if open_commands > 0 && c != '\n' => word.push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                has_word = true;
                // `$'…'` is quoted, too.
                if c == '\'' && word == "$" {
                    word.clear();
                }
            }
            (Some(open), _) if open == c => quote = None,
            (Some('"'), '\\') => match next {
                Some('\n') => drop(chars.next()),
                Some(escaped @ ('"' | '\\' | '$' | '`')) => {
                    word.push(escaped);
                    chars.next();
                }
                Some(_) | None => word.push(c),
            },
            (Some(_), _) => word.push(c),
            (None, '\\') => {
                if let Some((_, escaped)) = chars.next() {
                    word.push(escaped);
                    has_word = true;
                }
            }
            (None, '\n') => {
                push(&mut words, &mut word, &mut has_word);
                return (words, at + 1);
            }
            (None, '|' | ';') => {
                push(&mut words, &mut word, &mut has_word);
                let end = text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |line| at + line + 1);
                return (words, end);
            }
            (None, _) if c.is_whitespace() => push(&mut words, &mut word, &mut has_word),
            (None, _) => {
                word.push(c);
                has_word = true;
            }
        }
    }
    push(&mut words, &mut word, &mut has_word);
    (words, text.len())
}

fn push(words: &mut Vec<String>, word: &mut String, has_word: &mut bool) {
    if *has_word || !word.is_empty() {
        words.push(std::mem::take(word));
    }
    *has_word = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell_and_nothing_is_expanded() {
        let text = "curl -X POST \\\n  'https://b.example/a b' -H \"x: \\\"q\\\" $(date +%s)\" -d $'{\"a\":\n1}' ''\n{\"b\":2}";
        let (words, end) = shell_words(text);
        let want =
            ["curl", "-X", "POST", "https://b.example/a b", "-H", "x: \"q\" $(date +%s)", "-d", "{\"a\":\n1}", ""];
        assert_eq!(words, want);
        assert_eq!(text.get(end..), Some("{\"b\":2}"));
        assert_eq!(shell_words("curl a | jq .x\nnext"), (vec!["curl".to_owned(), "a".to_owned()], 15));
        assert_eq!(shell_words("curl 'open"), (vec!["curl".to_owned(), "open".to_owned()], 10));
    }
}
