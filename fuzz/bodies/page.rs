//! Any bytes at all as a log: made into a page that is whole, or refused and nothing written.

use std::fs;

pub(crate) fn run(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (log, page) = (folder.path().join("log.jsonl"), folder.path().join("page.html"));
    fs::write(&log, bytes).expect("a file");
    match aegis::page::write(&log, &page) {
        Ok(written) => {
            let text = fs::read_to_string(&page).expect("it was written");
            assert_eq!(text.len(), written.bytes);
            assert!(text.trim_end().ends_with("</html>"));
        }
        Err(error) => {
            assert!(!error.to_string().is_empty() && !page.exists());
        }
    }
}
