//! What the unit tests share: the recordings of a real Tailscale.

use std::path::PathBuf;

/// One recorded file, by name.
pub(crate) fn recording(name: &str) -> String {
    let path = recordings().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folder of the recordings.
pub(crate) fn recordings() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tailscale/1.102.3")
}

/// What the first `command` line of a transcript printed on standard output.
pub(crate) fn json_after(transcript: &str, command: &str) -> String {
    outputs_of(transcript, command).into_iter().next().expect("the command is in the transcript")
}

/// What each run of `command` in a transcript printed on standard output.
pub(crate) fn outputs_of(transcript: &str, command: &str) -> Vec<String> {
    prefixed(transcript, command, "out|")
}

/// What each run of `command` in a transcript printed on standard error.
pub(crate) fn errors_of(transcript: &str, command: &str) -> Vec<String> {
    prefixed(transcript, command, "err|")
}

fn prefixed(transcript: &str, command: &str, prefix: &str) -> Vec<String> {
    let mut runs = Vec::new();
    let mut lines = transcript.lines().peekable();
    while let Some(line) = lines.next() {
        if line != command {
            continue;
        }
        let mut text = String::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
            if let Some(rest) = line.strip_prefix(prefix) {
                text.push_str(rest.strip_prefix(' ').unwrap_or(rest));
                text.push('\n');
            }
        }
        runs.push(text);
    }
    runs
}

/// Runs a future to its end, on a runtime of its own.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime starts").block_on(future)
}
