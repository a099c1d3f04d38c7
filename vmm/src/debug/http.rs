//! As much of HTTP as `GET /metrics` needs.

use super::lab::Lab;
use super::metrics;

/// Most lines of a request.
const MAX_LINES: usize = 64;

/// A request, line by line.
#[derive(Debug, Default)]
pub struct Request {
    path: String,
    token: Option<String>,
    lines: usize,
}

impl Request {
    /// The first line.
    pub fn begin(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let target = line.split_whitespace().nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        path.clone_into(&mut self.path);
        self.token =
            query.split('&').find_map(|part| part.strip_prefix("token=")).map(str::to_owned);
    }

    /// A further line; whether it was the last.
    pub fn take_header(&mut self, line: &[u8]) -> bool {
        self.lines += 1;
        let line = String::from_utf8_lossy(line.trim_ascii());
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
            && let Some(token) = value.trim().strip_prefix("Bearer ")
        {
            self.token = Some(token.trim().to_owned());
        }
        line.is_empty() || self.lines >= MAX_LINES
    }

    /// The answer, head and body.
    #[must_use]
    pub fn answer(&self, lab: &Lab, token: Option<&str>) -> Vec<u8> {
        let said = self.token.as_deref().unwrap_or_default();
        let (status, body) = if !token.is_none_or(|token| same(said, token)) {
            let how = "say the lab's token: Authorization: Bearer TOKEN, or ?token=TOKEN\n";
            ("401 Unauthorized", how.to_owned())
        } else if self.path == "/metrics" {
            ("200 OK", metrics::render(lab))
        } else {
            ("404 Not Found", "there is only /metrics\n".to_owned())
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body.into_bytes()].concat()
    }
}

/// Whether two texts are the same, in a time that does not tell where they
/// differ.
#[must_use]
pub fn same(said: &str, token: &str) -> bool {
    let differing =
        said.bytes().zip(token.bytes()).fold(0, |differing, (a, b)| differing | (a ^ b));
    said.len() == token.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_both_places() {
        let mut request = Request::default();
        request.begin(b"GET /metrics?a=b&token=secret HTTP/1.1\r");
        assert_eq!((request.path.as_str(), request.token.as_deref()), ("/metrics", Some("secret")));
        assert!(!request.take_header(b"authorization:  Bearer other \r"));
        assert_eq!(request.token.as_deref(), Some("other"));
        assert!(request.take_header(b"\r"));
        assert!(same("ab", "ab") && !same("ab", "ac") && !same("a", "ab") && !same("", "ab"));
    }

    #[test]
    fn a_request_without_end_ends() {
        let mut request = Request::default();
        request.begin(b"GET");
        assert!((0..MAX_LINES).any(|_| request.take_header(b"x: y")));
    }
}
