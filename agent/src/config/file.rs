//! Files of settings: read whole and within a limit; what is wrong with one is said in a line.

use std::io::Read as _;
use std::path::Path;

/// A file of settings, whole. Who calls says which file an error is about.
pub(crate) fn read(file: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file).and_then(|open| open.take(limit + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("longer than {limit} bytes; is it the right file?"));
    }
    Ok(bytes)
}

/// Whether a YAML text says nothing: a file that is there but still empty.
pub(super) fn blank(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "---")
}

/// What the YAML reader complains of, in one line, without the text around it: that may be a secret.
pub(super) fn said(error: &serde_saphyr::Error) -> String {
    let line = error.location().map_or(1, |at| at.line());
    let said = error.without_snippet().to_string();
    let what = said.split(" at line ").next().unwrap_or_default().lines().next().unwrap_or_default();
    format!("line {line}: {what}")
}
