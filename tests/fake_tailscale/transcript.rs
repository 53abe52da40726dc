//! Reads recorded transcripts: `$ command`, `[exit 0, 12 ms]`, `out|`, `err|`.

use crate::fake::{Fake, recording};

#[derive(Debug, Default)]
pub(crate) struct Step {
    /// The `## …` line above it, if one is.
    pub(crate) heading: Option<String>,
    pub(crate) args: Vec<String>,
    pub(crate) exit: i32,
    out: String,
    err: String,
}

pub(crate) fn steps(file: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut heading = None;
    for line in recording(file).lines() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = Some(text.to_owned());
        } else if let Some(command) = line.strip_prefix("$ tailscale") {
            steps.push(Step { heading: heading.take(), args: words(command), ..Step::default() });
        } else if let Some(step) = steps.last_mut() {
            if let Some(rest) = line.strip_prefix("[exit ") {
                step.exit = rest.split(',').next().unwrap().parse().unwrap();
            } else if let Some(text) = line.strip_prefix("out| ") {
                step.out.push_str(&format!("{text}\n"));
            } else if let Some(text) = line.strip_prefix("err| ") {
                step.err.push_str(&format!("{text}\n"));
            }
        }
    }
    assert!(!steps.is_empty(), "{file} holds no steps");
    steps
}

// As the shell that recorded them read the words: only `''` and `\` occur.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace()
        .map(|word| if word == "''" { String::new() } else { word.replace('\\', "") })
        .collect()
}

impl Step {
    pub(crate) fn words(&self) -> Vec<&str> {
        self.args.iter().map(String::as_str).collect()
    }

    /// Runs the command and demands byte for byte what was recorded.
    #[track_caller]
    pub(crate) fn replay(&self, fake: &Fake) {
        let ran = fake.run(&self.words());
        let shown = self.args.join(" ");
        similar(&ran.out(), &self.out, &format!("stdout of `{shown}`"));
        similar(&ran.stderr, &self.err, &format!("stderr of `{shown}`"));
        assert_eq!(ran.code, Some(self.exit), "exit status of `{shown}`");
    }

    pub(crate) fn is(&self, command: &str) -> bool {
        self.args.join(" ") == command
    }
}

#[track_caller]
pub(crate) fn similar(ours: &str, real: &str, what: &str) {
    // The recorder ended the last line of each stream.
    assert_eq!(ours.trim_end_matches('\n'), real.trim_end_matches('\n'), "{what}");
}
