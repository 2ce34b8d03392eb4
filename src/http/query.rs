//! The parameters of a call: each is known and has a value that makes sense, or the call is refused.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::response::ApiError;
use crate::text::did_you_mean;

/// Parts of a path, decoded.
pub struct PathSegments<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathSegments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathSegments<T>, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(segments)| PathSegments(segments)).map_err(|_| ApiError::bad_request("the path is not UTF-8"))
    }
}

/// A number as people write it: `parse` also takes a sign.
pub fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The parameters that are not taken yet.
pub struct QueryParams {
    pairs: Vec<(String, String)>,
    /// The names that were asked for, to suggest one of them.
    known: Vec<&'static str>,
}

impl QueryParams {
    /// Reads the query of a call.
    ///
    /// # Errors
    /// 400 if it is no query.
    pub fn of(uri: &Uri) -> Result<QueryParams, ApiError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
        let pairs = query.map_err(|error| ApiError::bad_request(format!("the query cannot be read: {error}")))?.0;
        Ok(QueryParams { pairs, known: Vec::new() })
    }

    /// For a call without parameters.
    ///
    /// # Errors
    /// 400 if there is one.
    pub fn none(uri: &Uri) -> Result<(), ApiError> {
        QueryParams::of(uri)?.end()
    }

    /// Takes the value of a parameter.
    ///
    /// # Errors
    /// 400 if it is there twice.
    pub fn take(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        self.known.push(name);
        let Some(at) = self.pairs.iter().position(|(key, _)| key == name) else { return Ok(None) };
        let (_, value) = self.pairs.swap_remove(at);
        if self.pairs.iter().any(|(key, _)| key == name) {
            return Err(ApiError::bad_request(format!("{name}: it is there twice")));
        }
        Ok(Some(value))
    }

    /// Takes the value of a parameter, read by `read`.
    ///
    /// # Errors
    /// 400 if `read` does not take it.
    pub fn take_as<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(name)? else { return Ok(None) };
        let wrong = || ApiError::bad_request(format!("{name}: expected {expected}, found {value:?}"));
        read(&value).map(Some).ok_or_else(wrong)
    }

    /// Takes all parameters whose names start with `prefix`, without it.
    pub fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (taken, rest) = std::mem::take(&mut self.pairs)
            .into_iter()
            .partition::<Vec<_>, _>(|(key, _)| key.len() > prefix.len() && key.starts_with(prefix));
        self.pairs = rest;
        taken.into_iter().map(|(key, value)| (key[prefix.len()..].to_owned(), value)).collect()
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// 400, with the name that was probably meant.
    pub fn end(self) -> Result<(), ApiError> {
        let Some((name, _)) = self.pairs.first() else { return Ok(()) };
        let near = did_you_mean(name, &self.known).or(name.starts_with("label").then_some("label.KEY"));
        let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Err(ApiError::bad_request(format!("unknown parameter {name:?}{hint}")))
    }
}
