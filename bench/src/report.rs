//! The raw figures of a run in a file, for programs.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::Failure;
use crate::contender::Contender;
use crate::table::Rounds;

/// The figures measured so far and their file.
pub struct Report {
    file: Option<PathBuf>,
    all: Value,
    tests: Vec<Value>,
}

impl Report {
    /// Begins with all that is known before the first test.
    pub fn new(file: Option<PathBuf>, all: Value) -> Self {
        Self { file, all, tests: Vec::new() }
    }

    /// Adds every round of a test and writes the file anew: a run that ends early leaves what it has measured.
    pub fn add(&mut self, name: &str, what: &str, contenders: &[Contender], rounds: &Rounds) -> Result<(), Failure> {
        let contenders = contenders.iter().zip(rounds).map(|(contender, own)| {
            json!({
                "name": contender.name,
                "routes": contender.size.routes,
                "keys": contender.size.keys,
                "workers": contender.size.workers,
                "beside": contender.size.beside.map(crate::contender::Beside::word),
                "rounds": own.iter().map(crate::measure::Figures::json).collect::<Vec<_>>(),
            })
        });
        self.tests.push(json!({ "name": name, "what": what, "contenders": contenders.collect::<Vec<_>>() }));
        let Some(file) = &self.file else { return Ok(()) };
        if let Some(all) = self.all.as_object_mut() {
            all.insert("tests".to_owned(), Value::from(self.tests.clone()));
            all.insert("load_average_at_the_end".to_owned(), crate::machine::load_average().into());
        }
        let text = serde_json::to_string_pretty(&self.all)? + "\n";
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()).into())
    }
}
