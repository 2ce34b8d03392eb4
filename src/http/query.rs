//! Query parameters and path segments. Unknown, repeated and invalid parameters are refused, as `docs/http-api.md`,
//! section "Conventions", specifies.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::response::ApiError;
use crate::text::did_you_mean;

/// The segments of the path that the route captures, percent-decoded.
pub struct PathSegments<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathSegments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathSegments<T>, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(segments)| PathSegments(segments)).map_err(|_| ApiError::bad_request("the path is not UTF-8"))
    }
}

/// Parses an unsigned decimal number. Unlike `parse`, it accepts no sign.
pub fn parse_number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The query parameters that no caller has taken yet.
pub struct QueryParams {
    pairs: Vec<(String, String)>,
    /// The names of the supported parameters so far, for suggestions.
    supported: Vec<&'static str>,
}

impl QueryParams {
    /// Parses the query of a request.
    ///
    /// # Errors
    /// 400 if the query is malformed.
    pub fn of(uri: &Uri) -> Result<QueryParams, ApiError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
        let pairs = query.map_err(|error| ApiError::bad_request(format!("the query is malformed: {error}")))?.0;
        Ok(QueryParams { pairs, supported: Vec::new() })
    }

    /// Checks that a request has no query parameters.
    ///
    /// # Errors
    /// 400 if the request has a query parameter.
    pub fn none(uri: &Uri) -> Result<(), ApiError> {
        QueryParams::of(uri)?.finish()
    }

    /// Takes the value of a parameter; `None` if it is absent.
    ///
    /// # Errors
    /// 400 if the parameter occurs twice.
    pub fn take(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        self.supported.push(name);
        let Some(at) = self.pairs.iter().position(|(key, _)| key == name) else { return Ok(None) };
        let (_, value) = self.pairs.swap_remove(at);
        if self.pairs.iter().any(|(key, _)| key == name) {
            return Err(ApiError::bad_request(format!("{name}: the parameter occurs twice")));
        }
        Ok(Some(value))
    }

    /// Takes the value of a parameter, parsed by `parse`. `expected` describes valid values in the error message.
    ///
    /// # Errors
    /// 400 if `parse` returns `None` or the parameter occurs twice.
    pub fn take_as<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(name)? else { return Ok(None) };
        let invalid = || ApiError::bad_request(format!("{name}: expected {expected}, found {value:?}"));
        parse(&value).map(Some).ok_or_else(invalid)
    }

    /// Takes all parameters whose names start with `prefix`. The prefix is removed from the names.
    pub fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (taken, rest) = std::mem::take(&mut self.pairs)
            .into_iter()
            .partition::<Vec<_>, _>(|(key, _)| key.len() > prefix.len() && key.starts_with(prefix));
        self.pairs = rest;
        taken.into_iter().map(|(key, value)| (key[prefix.len()..].to_owned(), value)).collect()
    }

    /// Checks that every parameter was taken.
    ///
    /// # Errors
    /// 400 if a parameter is unknown. The message suggests the most similar supported name.
    pub fn finish(self) -> Result<(), ApiError> {
        let Some((name, _)) = self.pairs.first() else { return Ok(()) };
        let suggestion = did_you_mean(name, &self.supported).or(name.starts_with("label").then_some("label.KEY"));
        let hint = suggestion.map(|suggestion| format!("; did you mean {suggestion}?")).unwrap_or_default();
        Err(ApiError::bad_request(format!("unknown parameter {name:?}{hint}")))
    }
}
