//! The paths of tiles and bundles (C2SP tlog-tiles), relative to `tile/`: `<L>/<N>[.p/<W>]` and `entries/<N>[.p/<W>]`.

use std::fmt;

/// A tile or a bundle, identified by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TilePath {
    /// The level of a tile; `None` for a bundle.
    pub level: Option<u8>,
    /// The number of the tile on its level, or of the bundle.
    pub index: u64,
    /// The number of its hashes or entries, 1 to 256; fewer than 256 in a partial tile.
    pub width: usize,
}

impl fmt::Display for TilePath {
    /// Writes the path relative to `tile/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Some(level) => write!(f, "{level}/")?,
            None => f.write_str("entries/")?,
        }
        let mut groups = Vec::new();
        let mut rest = self.index;
        while rest >= 1000 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        groups.push(rest);
        while let Some(group) = groups.pop() {
            if groups.is_empty() { write!(f, "{group:03}")? } else { write!(f, "x{group:03}/")? }
        }
        if self.width < 256 { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl TilePath {
    /// Parses a path relative to `tile/`. Each tile has exactly one path; any other text gives `None`.
    pub fn parse(path: &str) -> Option<TilePath> {
        let (level, rest) = path.split_once('/')?;
        let level = match level {
            "entries" => None,
            level => Some(number(level).filter(|&level| level <= 63)? as u8),
        };
        let (rest, width) = match rest.rsplit_once(".p/") {
            // The path of a full tile has no width.
            Some((rest, width)) => (rest, number(width).filter(|width| (1..256).contains(width))? as usize),
            None => (rest, 256),
        };
        Some(TilePath { level, index: index(rest)?, width })
    }
}

/// Parses a decimal number without sign and without leading zeros.
fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// Parses a number in groups of three digits, all but the last one preceded by `x`: 1234067 is `x001/x234/067`.
fn index(text: &str) -> Option<u64> {
    let (before, last) = match text.rsplit_once('/') {
        Some((before, last)) => (Some(before), last),
        None => (None, text),
    };
    let group = |group: &str| {
        group.parse::<u64>().ok().filter(|_| group.len() == 3 && group.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut index = 0u64;
    for (at, part) in before.into_iter().flat_map(|before| before.split('/')).enumerate() {
        let value = group(part.strip_prefix('x')?)?;
        // A leading group of zeros would be a second form of the same number.
        if at == 0 && value == 0 {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(value)?;
    }
    index.checked_mul(1000)?.checked_add(group(last)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tile_has_exactly_one_path_and_other_texts_are_rejected() {
        let tile = |level, index, width| Some(TilePath { level, index, width });
        let cases = [
            ("0/000", tile(Some(0), 0, 256)),
            ("0/067.p/1", tile(Some(0), 67, 1)),
            ("3/x001/x234/067", tile(Some(3), 1_234_067, 256)),
            ("3/x001/x234/067.p/255", tile(Some(3), 1_234_067, 255)),
            ("entries/x001/000", tile(None, 1000, 256)),
            ("entries/999.p/17", tile(None, 999, 17)),
            ("63/000", tile(Some(63), 0, 256)),
        ];
        for (path, expected) in cases {
            assert_eq!(TilePath::parse(path), expected, "{path}");
            assert_eq!(expected.unwrap().to_string(), path);
        }
        let wrong = [
            "",
            "0",
            "0/",
            "64/000",
            "00/000",
            "+0/000",
            "-1/000",
            "0/0",
            "0/00",
            "0/0000",
            "0/x000/000",
            "0/001/000",
            "0/x001",
            "0/x001/",
            "0/x001/x002",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/000.p/",
            "0/000.p/+1",
            "0/000.p/1/2",
            "entries/",
            "data/000",
            "0/x999/x999/x999/x999/x999/x999/999",
            "0/../000",
            "0/x+01/000",
            "0/x-01/000",
            "0/ 00",
            "0/٠٠٠",
        ];
        for path in wrong {
            assert_eq!(TilePath::parse(path), None, "{path}");
        }
    }
}
