//! What a page tells people to type, taken apart as a shell would.

/// The words of each command of a script. Operators end a command; comments, variables in front of a command and
/// redirections are left out. `$(…)` stands for one word.
pub fn commands(script: &str) -> Vec<Vec<String>> {
    let script = script.replace("\\\n", " ");
    let mut found = Vec::new();
    for line in script.lines() {
        let mut reader = Line::default();
        let mut chars = line.trim().trim_start_matches("$ ").chars().peekable();
        while let Some(c) = chars.next() {
            match (reader.quote, c) {
                (Some(quote), c) if c == quote => reader.quote = None,
                (Some(_), c) => reader.put(c),
                (None, '\'' | '"') => {
                    reader.quote = Some(c);
                    reader.word.get_or_insert_default();
                }
                (None, '#') if reader.word.is_none() => break,
                (None, '$') if chars.peek() == Some(&'(') => {
                    while chars.next().is_some_and(|c| c != ')') {}
                    reader.put('X');
                }
                (None, '|' | ';' | '&') => reader.end_command(),
                (None, '>' | '<') => {
                    // The descriptor before it, and the file behind it, are no words of the command.
                    reader.word = None;
                    reader.skip = true;
                    if chars.peek().is_some_and(|next| "&>".contains(*next)) {
                        chars.next();
                    }
                }
                (None, c) if c.is_whitespace() => reader.end_word(),
                (None, c) => reader.put(c),
            }
        }
        reader.end_command();
        found.append(&mut reader.commands);
    }
    found
}

#[derive(Default)]
struct Line {
    commands: Vec<Vec<String>>,
    words: Vec<String>,
    word: Option<String>,
    quote: Option<char>,
    skip: bool,
}

impl Line {
    fn put(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        let is_variable = self.words.is_empty() && word.split_once('=').is_some_and(|(name, _)| is_name(name));
        if !std::mem::take(&mut self.skip) && !is_variable {
            self.words.push(word);
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        if !self.words.is_empty() {
            self.commands.push(std::mem::take(&mut self.words));
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[test]
fn a_script_is_taken_apart() {
    let script = "A=1 b --c 'd e' f=g  # h\n$ i 2>/dev/null | j \\\n k > l &\nexport M=$(n o)p\nq \"r#\" && s\n";
    let expected: [&[&str]; 6] =
        [&["b", "--c", "d e", "f=g"], &["i"], &["j", "k"], &["export", "M=Xp"], &["q", "r#"], &["s"]];
    assert_eq!(commands(script), expected);
}
