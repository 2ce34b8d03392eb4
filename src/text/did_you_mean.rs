//! Suggests the name that a mistyped one was probably meant to be.

/// The Jaro similarity, from 0 to 1, from which a name is suggested.
const MIN_SIMILARITY: f64 = 0.75;

/// The most similar known name, if it is similar enough.
pub fn did_you_mean<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let similarity = |known: &str| strsim::jaro(known, name);
    known
        .iter()
        .copied()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
        .filter(|best| similarity(best) >= MIN_SIMILARITY)
}
