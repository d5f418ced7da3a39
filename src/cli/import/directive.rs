//! Files of directives, as nginx and Apache httpd have them: words in lines or before semicolons, and blocks of them.

/// The most directives of one import.
const MAX_DIRECTIVES: usize = 10_000;
/// The most words of a directive.
const MAX_WORDS: usize = 1000;
/// The deepest block.
const MAX_DEPTH: usize = 32;

/// A directive with its words, and its block if it has one.
#[derive(Clone, Debug, Default)]
pub struct Directive {
    pub file: String,
    pub line: usize,
    pub name: String,
    pub words: Vec<String>,
    pub block: Option<Vec<Directive>>,
}

impl Directive {
    /// The word at this place, or an empty one.
    pub fn word(&self, at: usize) -> &str {
        self.words.get(at).map(String::as_str).unwrap_or_default()
    }

    /// The directives of its block.
    pub fn inside(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// Characters with their line.
struct Scanner<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<char> {
        let found = self.rest.next();
        if found == Some('\n') {
            self.line += 1;
        }
        found
    }

    /// Passes over a script between braces; the opening one is behind us.
    fn skip_script(&mut self) {
        let (mut depth, mut quote) = (1usize, None);
        while let Some(c) = self.next() {
            match (c, quote) {
                ('\\', Some(_)) => _ = self.next(),
                (c, Some(mark)) if c == mark || c == '\n' => quote = None,
                (_, Some(_)) => {}
                ('"' | '\'', None) => quote = Some(c),
                ('{', None) => depth += 1,
                ('}', None) => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }
}

/// Reads nginx's syntax.
pub fn read_nginx_syntax(file: &str, text: &str) -> Result<Vec<Directive>, String> {
    let mut scanner = Scanner { rest: text.chars().peekable(), line: 1 };
    let mut open: Vec<(Directive, Vec<Directive>)> = Vec::new();
    let mut done: Vec<Directive> = Vec::new();
    let mut current = Directive { file: file.to_owned(), ..Directive::default() };
    let mut word: Option<String> = None;
    let mut count = 0usize;
    let finish = |word: &mut Option<String>, current: &mut Directive, line: usize| {
        let Some(word) = word.take() else { return };
        if current.name.is_empty() {
            current.name = word;
            current.line = line;
        } else {
            current.words.push(word);
        }
    };
    while let Some(c) = scanner.next() {
        match c {
            '#' if word.is_none() => {
                while scanner.rest.peek().is_some_and(|c| *c != '\n') {
                    scanner.next();
                }
            }
            '"' | '\'' if word.is_none() => {
                let begin = scanner.line;
                let mut text = String::new();
                loop {
                    match scanner.next() {
                        Some('\\') => match scanner.next() {
                            Some(escaped) if escaped == c || escaped == '\\' => text.push(escaped),
                            Some(other) => text.extend(['\\', other]),
                            None => {}
                        },
                        Some(end) if end == c => break,
                        Some(other) => text.push(other),
                        None => return Err(format!("{file}, line {begin}: a quotation without an end")),
                    }
                }
                word = Some(text);
                finish(&mut word, &mut current, begin);
            }
            c if c.is_whitespace() => {
                let line = scanner.line - usize::from(c == '\n');
                finish(&mut word, &mut current, line);
            }
            ';' | '{' | '}'
                if !(c != ';'
                    && word
                        .as_deref()
                        .is_some_and(|word| word.ends_with('$') || word.contains("${") && !word.contains('}'))) =>
            {
                finish(&mut word, &mut current, scanner.line);
                count += 1;
                if count > MAX_DIRECTIVES || current.words.len() > MAX_WORDS {
                    return Err(format!("{file}, line {}: more directives or words than are read", scanner.line));
                }
                let made = std::mem::replace(&mut current, Directive { file: file.to_owned(), ..Directive::default() });
                match c {
                    ';' if made.name.is_empty() => {}
                    ';' => done.push(made),
                    '{' if made.name.ends_with("_by_lua_block") => {
                        scanner.skip_script();
                        done.push(made);
                    }
                    '{' if open.len() >= MAX_DEPTH => {
                        return Err(format!(
                            "{file}, line {}: blocks within each other, more than {MAX_DEPTH} deep",
                            scanner.line
                        ));
                    }
                    '{' => open.push((made, std::mem::take(&mut done))),
                    _ => {
                        let Some((mut block, before)) = open.pop() else {
                            return Err(format!("{file}, line {}: `}}` without its `{{`", scanner.line));
                        };
                        block.block = Some(std::mem::replace(&mut done, before));
                        done.push(block);
                    }
                }
            }
            '\\' => {
                let text = word.get_or_insert_default();
                text.push(c);
                text.extend(scanner.next());
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    match open.pop() {
        Some((block, _)) => Err(format!("{file}, line {}: `{{` without its `}}`", block.line)),
        None if !current.name.is_empty() || word.is_some() => {
            Err(format!("{file}, line {}: the last directive has no `;`", current.line.max(1)))
        }
        None => Ok(done),
    }
}

/// Reads httpd's syntax: a directive a line, sections in angle brackets.
pub fn read_httpd_syntax(file: &str, text: &str) -> Result<Vec<Directive>, String> {
    let mut open: Vec<(Directive, Vec<Directive>)> = Vec::new();
    let mut done: Vec<Directive> = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut count = 0usize;
    while let Some((at, first)) = lines.next() {
        let mut whole = first.trim().to_owned();
        while whole.ends_with('\\') && !whole.starts_with('#') {
            whole.pop();
            let Some((_, more)) = lines.next() else { break };
            whole.push_str(more.trim());
        }
        if whole.is_empty() || whole.starts_with('#') {
            continue;
        }
        count += 1;
        let section = whole
            .strip_prefix('<')
            .filter(|inner| !inner.starts_with('/'))
            .map(|inner| inner.trim_end_matches('>').to_owned());
        let words = httpd_words(section.as_deref().unwrap_or(&whole));
        if count > MAX_DIRECTIVES || words.len() > MAX_WORDS {
            return Err(format!("{file}, line {}: more directives or words than are read", at + 1));
        }
        if let Some(name) = whole.strip_prefix("</") {
            let name = name.trim_end_matches('>').trim();
            let Some((mut section, before)) = open.pop().filter(|(section, _)| section.name.eq_ignore_ascii_case(name))
            else {
                return Err(format!("{file}, line {}: a section ends that was not begun", at + 1));
            };
            section.block = Some(std::mem::replace(&mut done, before));
            done.push(section);
            continue;
        }
        let mut words = words.into_iter();
        let Some(name) = words.next() else { continue };
        let made = Directive { file: file.to_owned(), line: at + 1, name, words: words.collect(), block: None };
        if section.is_none() {
            done.push(made);
        } else if open.len() >= MAX_DEPTH {
            return Err(format!("{file}, line {}: sections within each other, more than {MAX_DEPTH} deep", at + 1));
        } else {
            open.push((made, std::mem::take(&mut done)));
        }
    }
    match open.pop() {
        Some((section, _)) => Err(format!("{file}, line {}: a section without an end", section.line)),
        None => Ok(done),
    }
}

fn httpd_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(first) = chars.next() {
        if first.is_whitespace() {
            continue;
        }
        let mut word = String::new();
        if first == '"' || first == '\'' {
            while let Some(c) = chars.next() {
                match c {
                    '\\' if chars.peek() == Some(&first) => word.extend(chars.next()),
                    c if c == first => break,
                    c => word.push(c),
                }
            }
        } else {
            word.push(first);
            while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
                word.push(c);
            }
        }
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nginx_blocks_quotes_comments_and_scripts_are_read() {
        let text = "# remark\nserver {\n  listen 8443 ssl; # here\n  set $a \"x; {y}\";\n  location ~ ^/a${b}c {\n    return 200 'it\\'s';\n  }\n  access_by_lua_block {\n    local a = { \"}\" }\n  }\n}\n";
        let found = read_nginx_syntax("f", text).expect("well-formed");
        let server = &found[0];
        assert_eq!((server.name.as_str(), server.line, server.inside().len()), ("server", 2, 4));
        assert_eq!(server.inside()[1].words, ["$a", "x; {y}"]);
        assert_eq!(server.inside()[2].words, ["~", "^/a${b}c"]);
        assert_eq!(server.inside()[2].inside()[0].words, ["200", "it's"]);
        assert_eq!((server.inside()[3].name.as_str(), server.inside()[3].line), ("access_by_lua_block", 8));
    }

    #[test]
    fn httpd_sections_quotes_and_continued_lines_are_read() {
        let text = "Listen 8443\n<VirtualHost *:8443>\n  # remark\n  RequestHeader set \\\n    X-A \"b \\\"c\\\"\"\n  <Location \"/a b\">\n    ProxyPass https://x/\n  </Location>\n</VirtualHost>\n";
        let found = read_httpd_syntax("f", text).expect("well-formed");
        let host = &found[1];
        assert_eq!((host.name.as_str(), host.word(0), host.line), ("VirtualHost", "*:8443", 2));
        assert_eq!(host.inside()[0].words, ["set", "X-A", "b \"c\""]);
        assert_eq!((host.inside()[1].word(0), host.inside()[1].inside()[0].line), ("/a b", 7));
    }

    #[test]
    fn broken_and_hostile_files_are_refused_with_a_line() {
        for text in ["a {", "a { b; } }", "a \"b", "a b", &"a {".repeat(10_000), &"a;".repeat(60_000)] {
            let why = read_nginx_syntax("f", text).expect_err("refused");
            assert!(why.starts_with("f, line "), "{why}");
        }
        for text in ["<A>\n", "</A>\n", "<A>\n</B>\n", &"<A>\n".repeat(10_000), &"A\n".repeat(60_000)] {
            let why = read_httpd_syntax("f", text).expect_err("refused");
            assert!(why.starts_with("f, line "), "{why}");
        }
    }

    proptest! {
        #[test]
        fn no_text_ends_in_a_panic(text in r#"([{};#"'$\\<>/ \n]|[a-z_]{1,6}|\PC){0,80}"#) {
            let _ = read_nginx_syntax("f", &text);
            let _ = read_httpd_syntax("f", &text);
        }
    }
}
