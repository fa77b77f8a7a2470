//! The bodies of JSON streams: splitting them into records, and writing records as JSON.

use serde_json::value::RawValue;

use crate::http::problem::Problem;

/// The records of a body: the elements of an array, or the body as a single value. Each is kept byte for byte. An
/// empty array has no records.
pub(super) fn split(body: &[u8], most: usize) -> Result<Vec<&[u8]>, Problem> {
    let bad = |why: &dyn std::fmt::Display| {
        Problem::body(format!("it is not JSON: {why}; nothing was appended"))
    };
    let text = std::str::from_utf8(body).map_err(|error| bad(&error))?;
    let values: Vec<&RawValue> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|error| bad(&error))?
    } else {
        vec![serde_json::from_str(text).map_err(|error| bad(&error))?]
    };
    if values.len() > most {
        return Err(Problem::batch_too_large(most));
    }
    Ok(values.into_iter().map(|value| value.get().as_bytes()).collect())
}

/// Writes a record that was appended through another listener, and may not be JSON: then as a string, or as
/// `{"data_base64": …}` if it is not text.
pub(super) fn write_foreign(out: &mut Vec<u8>, record: &[u8]) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let Ok(text) = std::str::from_utf8(record) else {
        let text = STANDARD.encode(record);
        out.extend_from_slice(format!("{{\"data_base64\":\"{text}\"}}").as_bytes());
        return;
    };
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        out.extend_from_slice(record);
    } else {
        // Cannot fail: any str can be written as JSON, and so can memory be written to.
        let _ = serde_json::to_writer(&mut *out, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(body: &str) -> Option<Vec<String>> {
        let records = split(body.as_bytes(), 3).ok()?;
        Some(records.iter().map(|record| String::from_utf8_lossy(record).into()).collect())
    }

    #[test]
    fn one_level_of_an_array_is_taken_apart() {
        for (body, expected) in [
            ("{\"a\": 1}", &["{\"a\": 1}"][..]),
            (" [1, [2,3] ,\"x\"]\n", &["1", "[2,3]", "\"x\""]),
            ("[[1]]", &["[1]"]),
            ("[]", &[]),
            ("null", &["null"]),
        ] {
            assert_eq!(records(body).unwrap(), expected, "{body}");
        }
        for bad in ["", "{", "[1", "1 2", "[1,]", "[1][2]", "hello", "[1,2,3,4]"] {
            assert!(records(bad).is_none(), "{bad}");
        }
        assert!(split(b"\"\xff\"", 3).is_err());
    }

    #[test]
    fn what_others_wrote_becomes_json() {
        let of = |record: &[u8]| {
            let mut out = Vec::new();
            write_foreign(&mut out, record);
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()
        };
        assert_eq!(of(b"{\"a\":1}"), serde_json::json!({"a": 1}));
        assert_eq!(of(b"hello"), "hello");
        assert_eq!(of(b"\xff"), serde_json::json!({"data_base64": "/w=="}));
        assert_eq!(of(b"1,2"), "1,2");
    }
}
