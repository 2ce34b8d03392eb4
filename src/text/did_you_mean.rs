//! What a mistyped name was probably meant to be.

/// How near a name has to be, from 0 to 1, to be worth a question.
const NEAR: f64 = 0.75;

/// The nearest of the known names, if one is near at all.
pub fn did_you_mean<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let nearness = |known: &str| strsim::jaro(known, name);
    known.iter().copied().max_by(|a, b| nearness(a).total_cmp(&nearness(b))).filter(|best| nearness(best) >= NEAR)
}
