//! Markdown of the figures, so that no figure in a document is typed by hand.

use serde_json::Value;

/// All tables.
pub(crate) fn markdown(figures: &Value) -> String {
    format!("{figures}")
}
