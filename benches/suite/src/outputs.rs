//! What drawing makes: files that are written, or compared with those that are there.

use std::fs;
use std::path::{Path, PathBuf};

/// Files with what shall be in them.
#[derive(Debug, Default)]
pub struct Outputs(Vec<(PathBuf, String)>);

impl Outputs {
    /// A whole file.
    pub fn put(&mut self, file: PathBuf, text: String) {
        match self.0.iter_mut().find(|(known, _)| *known == file) {
            Some((_, old)) => *old = text,
            None => self.0.push((file, text)),
        }
    }

    /// The part of a document between `<!-- mark -->` and `<!-- /mark -->`.
    ///
    /// # Errors
    ///
    /// A line that says what went wrong and what to do.
    pub fn place(&mut self, document: &Path, mark: &str, text: &str) -> Result<(), String> {
        let old = match self.0.iter().find(|(known, _)| known == document) {
            Some((_, pending)) => pending.clone(),
            None => read(document)?,
        };
        let (begin, end) = (format!("<!-- {mark} -->"), format!("<!-- /{mark} -->"));
        let parts = old
            .split_once(&begin)
            .and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
        let (before, after) = parts.ok_or_else(|| {
            format!("{} lacks a place for the tables: add {begin} and {end}", document.display())
        })?;
        self.put(document.to_owned(), format!("{before}{begin}\n\n{text}\n{end}{after}"));
        Ok(())
    }

    /// Writes the files, and says which.
    ///
    /// # Errors
    ///
    /// A line that says what went wrong.
    pub fn write(self) -> Result<(), String> {
        for (file, text) in self.0 {
            let failed = |error| format!("cannot write {}: {error}", file.display());
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            folder.map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
            fs::write(&file, text).map_err(failed)?;
            println!("{}", file.display());
        }
        Ok(())
    }

    /// Writes nothing, and fails if a file is not there or has anything else in it.
    ///
    /// # Errors
    ///
    /// A line for each such file.
    pub fn compare(self) -> Result<(), String> {
        let count = self.0.len();
        let is_as_drawn =
            |file: &Path, text: &str| fs::read_to_string(file).is_ok_and(|there| there == text);
        let differ = self.0.iter().filter(|(file, text)| !is_as_drawn(file, text));
        let differ: Vec<_> = differ.map(|(file, _)| file.display().to_string()).collect();
        if differ.is_empty() {
            println!("{count} files are as they would be drawn");
            return Ok(());
        }
        Err(format!("not as they would be drawn; run `draw` again: {}", differ.join(", ")))
    }
}

/// The text of a file.
///
/// # Errors
///
/// A line that says what went wrong.
pub fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced_and_differences_are_seen() {
        let file = std::env::temp_dir().join(format!("psa-suite-{}.md", std::process::id()));
        fs::write(&file, "a\n<!-- one -->\nold\n<!-- /one -->\nb\n<!-- two --><!-- /two -->\n")
            .unwrap();
        let placed = || {
            let mut outputs = Outputs::default();
            outputs.place(&file, "one", "new\n").unwrap();
            outputs.place(&file, "two", "more\n").unwrap();
            assert!(outputs.place(&file, "three", "").unwrap_err().contains("<!-- three -->"));
            outputs
        };
        let before = placed().compare();
        let mut absent = Outputs::default();
        absent.put(file.with_extension("absent"), String::new());
        assert!(absent.compare().is_err());
        placed().write().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let after = placed().compare();
        fs::remove_file(&file).unwrap();
        assert!(before.unwrap_err().contains(&file.display().to_string()));
        let one = "a\n<!-- one -->\n\nnew\n\n<!-- /one -->\nb\n";
        assert_eq!(text, format!("{one}<!-- two -->\n\nmore\n\n<!-- /two -->\n"));
        assert_eq!(after, Ok(()));
    }
}
