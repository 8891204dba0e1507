// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors of configurations, with their positions.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::json::{Key, locate};

/// Why a configuration was refused. Nothing of it has taken effect.
///
/// It is formatted like a compiler's errors, with the parts that are known: ``tenants.json:6:42:
/// tenants[1].limits.cpu_ms: invalid value: integer `0`, expected a whole number from 1 to 60000``.
#[derive(Debug)]
pub struct ConfigError {
    file: Option<PathBuf>,
    position: Option<Position>,
    keys: Vec<Key>,
    problem: String,
}

/// A position in a text, counted from 1; columns in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl ConfigError {
    pub(crate) fn new(keys: &[Key], problem: impl Into<String>) -> Self {
        Self { file: None, position: None, keys: keys.to_vec(), problem: problem.into() }
    }

    /// The file cannot be read; `problem` is the reason.
    pub fn unread(file: &Path, problem: impl fmt::Display) -> Self {
        Self::new(&[], format!("cannot be read: {problem}")).in_file(file)
    }

    /// The text is not JSON.
    pub fn syntax(error: serde_json::Error) -> Self {
        // At the beginning of a line, the library reports column 0.
        let position = (error.line() > 0).then(|| Position { line: error.line(), column: error.column().max(1) });
        Self { position, ..Self::new(&[], format!("not valid JSON: {}", without_position(&error))) }
    }

    /// An error of the JSON library about the value at `place`.
    pub(super) fn refused(place: &[Key], error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        use serde_path_to_error::Segment;
        let keys: Vec<Key> = error
            .path()
            .iter()
            .map_while(|segment| match segment {
                Segment::Seq { index } => Some(Key::Index(*index)),
                Segment::Map { key } => Some(Key::Name(key.clone())),
                Segment::Enum { .. } | Segment::Unknown => None,
            })
            .collect();
        let inner = error.into_inner();
        if inner.is_syntax() || inner.is_eof() {
            return Self::syntax(inner);
        }
        Self::new(&keys, without_position(&inner)).below(place)
    }

    /// Adds that the error is in the part of a configuration at `place`.
    pub(super) fn below(mut self, place: &[Key]) -> Self {
        self.keys.splice(0..0, place.iter().cloned());
        self
    }

    /// Adds the position of the error's key in `text`, unless the error has a position.
    pub(super) fn placed(mut self, text: &str) -> Self {
        if self.position.is_none() && !text.is_empty() {
            // A missing key gets the position of the object that lacks it.
            self.position = (0..=self.keys.len()).rev().find_map(|depth| {
                let at = locate(text, &self.keys[..depth])?.start;
                let before = &text[..at];
                let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
                Some(Position { line: before.matches('\n').count() + 1, column: at - line_start + 1 })
            });
        }
        self
    }

    /// Adds the file, unless the error has one.
    pub(super) fn in_file(mut self, file: &Path) -> Self {
        self.file.get_or_insert_with(|| file.to_owned());
        self
    }

    /// The file, if the error is about one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The position in the text, if there is one.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// The key, as in `tenants[2].limits.cpu_ms`; empty if the error is about the whole configuration.
    #[must_use]
    pub fn key(&self) -> String {
        let mut path = String::new();
        for key in &self.keys {
            match key {
                Key::Index(index) => path.push_str(&format!("[{index}]")),
                Key::Name(name) if path.is_empty() => path.push_str(name),
                Key::Name(name) => path.extend([".", name]),
            }
        }
        path
    }

    /// What is wrong, and what was expected.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.position) {
            (Some(file), Some(Position { line, column })) => write!(f, "{}:{line}:{column}: ", file.display())?,
            (Some(file), None) => write!(f, "{}: ", file.display())?,
            (None, Some(Position { line, column })) => write!(f, "line {line}, column {column}: ")?,
            (None, None) => {}
        }
        match self.key().as_str() {
            "" => f.write_str(&self.problem),
            key => write!(f, "{key}: {}", self.problem),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The library's message without its position, which is the end of the value; the start of the key is more useful.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).map(str::to_owned).unwrap_or(text)
}
