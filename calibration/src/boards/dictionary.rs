//! Codes of the markers on ChArUco boards and AprilGrids.

use super::BoardError;
use serde::{Deserialize, Serialize};
use tenon_vision::Family;

/// Marker dictionaries, by OpenCV's names. A smaller one of the same width is the beginning of the larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dictionary {
    #[serde(rename = "DICT_4X4_50")]
    Aruco4x4Of50,
    #[serde(rename = "DICT_4X4_100")]
    Aruco4x4Of100,
    #[serde(rename = "DICT_4X4_250")]
    Aruco4x4Of250,
    #[serde(rename = "DICT_4X4_1000")]
    Aruco4x4Of1000,
    #[serde(rename = "DICT_5X5_50")]
    Aruco5x5Of50,
    #[serde(rename = "DICT_5X5_100")]
    Aruco5x5Of100,
    #[serde(rename = "DICT_5X5_250")]
    Aruco5x5Of250,
    #[serde(rename = "DICT_5X5_1000")]
    Aruco5x5Of1000,
    #[serde(rename = "DICT_6X6_50")]
    Aruco6x6Of50,
    #[serde(rename = "DICT_6X6_100")]
    Aruco6x6Of100,
    #[serde(rename = "DICT_6X6_250")]
    Aruco6x6Of250,
    #[serde(rename = "DICT_6X6_1000")]
    Aruco6x6Of1000,
    /// AprilTag 36h11 as OpenCV prints it: turned by 180° against the AprilTag library's own print.
    #[serde(rename = "DICT_APRILTAG_36h11")]
    AprilTag36h11,
}

/// Cells of one marker within its border: row by row from the upper left, 1 is white.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkerBits {
    /// Cells a side, 4 to 6.
    pub cells: usize,
    /// The first cell is bit `cells² − 1`.
    pub code: u64,
}

impl MarkerBits {
    pub fn is_white(&self, column: usize, row: usize) -> bool {
        let place = self.cells * self.cells - 1 - (row * self.cells + column);
        self.code >> place & 1 == 1
    }

    fn half_turned(self) -> Self {
        let bits = self.cells * self.cells;
        Self { cells: self.cells, code: self.code.reverse_bits() >> (64 - bits) }
    }
}

impl Dictionary {
    pub const ALL: [Self; 13] = [
        Self::Aruco4x4Of50,
        Self::Aruco4x4Of100,
        Self::Aruco4x4Of250,
        Self::Aruco4x4Of1000,
        Self::Aruco5x5Of50,
        Self::Aruco5x5Of100,
        Self::Aruco5x5Of250,
        Self::Aruco5x5Of1000,
        Self::Aruco6x6Of50,
        Self::Aruco6x6Of100,
        Self::Aruco6x6Of250,
        Self::Aruco6x6Of1000,
        Self::AprilTag36h11,
    ];

    /// Name, cells a side within the border, number of markers.
    const fn facts(self) -> (&'static str, usize, u32) {
        match self {
            Self::Aruco4x4Of50 => ("DICT_4X4_50", 4, 50),
            Self::Aruco4x4Of100 => ("DICT_4X4_100", 4, 100),
            Self::Aruco4x4Of250 => ("DICT_4X4_250", 4, 250),
            Self::Aruco4x4Of1000 => ("DICT_4X4_1000", 4, 1000),
            Self::Aruco5x5Of50 => ("DICT_5X5_50", 5, 50),
            Self::Aruco5x5Of100 => ("DICT_5X5_100", 5, 100),
            Self::Aruco5x5Of250 => ("DICT_5X5_250", 5, 250),
            Self::Aruco5x5Of1000 => ("DICT_5X5_1000", 5, 1000),
            Self::Aruco6x6Of50 => ("DICT_6X6_50", 6, 50),
            Self::Aruco6x6Of100 => ("DICT_6X6_100", 6, 100),
            Self::Aruco6x6Of250 => ("DICT_6X6_250", 6, 250),
            Self::Aruco6x6Of1000 => ("DICT_6X6_1000", 6, 1000),
            Self::AprilTag36h11 => ("DICT_APRILTAG_36h11", 6, 587),
        }
    }

    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// Cells a side within the border.
    pub fn cells(self) -> usize {
        self.facts().1
    }

    /// Number of markers; ids run from 0.
    pub fn count(self) -> u32 {
        self.facts().2
    }

    /// Bit errors that may be corrected without mistaking one marker for another of the same board.
    pub(super) fn correctable_bits(self) -> i32 {
        // Codes of 4 × 4 cells differ by as little as two bits.
        if self.cells() == 4 { 0 } else { 1 }
    }

    /// The markers `first_id` to `first_id + count − 1`.
    pub fn markers(self, first_id: u32, count: u32) -> Result<Vec<MarkerBits>, BoardError> {
        let end = first_id.checked_add(count).filter(|end| *end <= self.count());
        let Some(end) = end else {
            let id = first_id.saturating_add(count).saturating_sub(1);
            return Err(BoardError::UnknownMarker { id, dictionary: self.name(), last: self.count() - 1 });
        };
        if self == Self::AprilTag36h11 {
            return (first_id..end).map(|id| Ok(april_tag_36h11(id)?.half_turned())).collect();
        }
        let cells = self.cells();
        let section = section(cells);
        let codes: Vec<u64> = section
            .split_whitespace()
            .skip(first_id as usize)
            .take(count as usize)
            .filter_map(|code| u64::from_str_radix(code, 16).ok())
            .collect();
        debug_assert_eq!(codes.len(), count as usize);
        Ok(codes.into_iter().map(|code| MarkerBits { cells, code }).collect())
    }
}

/// A tag of family 36h11 as the AprilTag library and Kalibr print it.
pub(super) fn april_tag_36h11(id: u32) -> Result<MarkerBits, BoardError> {
    let tag = Family::Tag36h11.bitmap(id)?;
    // One white and one black cell lie around the code.
    let (cells, around) = (6, 2);
    let mut code = 0;
    for row in 0..cells {
        for column in 0..cells {
            let white = tag.pixels()[(row + around) * tag.width() + column + around] > 127;
            code = code << 1 | u64::from(white);
        }
    }
    Ok(MarkerBits { cells, code })
}

const CODES: &str = include_str!("aruco_codes.txt");

/// The numbers of one width, from its heading to the next one.
fn section(cells: usize) -> &'static str {
    let heading = format!("[{cells}x{cells}]");
    let rest = CODES.split_once(&heading).map_or("", |(_, rest)| rest);
    rest.split('[').next().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dictionary_holds_as_many_distinct_markers_as_it_says_even_when_turned() {
        for dictionary in Dictionary::ALL {
            let markers = dictionary.markers(0, dictionary.count()).unwrap();
            assert_eq!(markers.len(), dictionary.count() as usize, "{}", dictionary.name());
            let mut seen = std::collections::HashSet::new();
            for marker in markers {
                assert_eq!(marker.cells, dictionary.cells());
                assert!(marker.code >> (marker.cells * marker.cells) == 0);
                assert!(seen.insert(marker.code) && !seen.contains(&marker.half_turned().code), "{marker:x?}");
            }
        }
    }

    #[test]
    fn markers_look_like_opencv_prints_them() {
        // Drawn with OpenCV 5.0's generateImageMarker, border left out.
        let rows = |marker: MarkerBits| -> Vec<String> {
            let cell = |column, row| if marker.is_white(column, row) { '1' } else { '0' };
            (0..marker.cells).map(|row| (0..marker.cells).map(|column| cell(column, row)).collect()).collect()
        };
        let tag = Dictionary::AprilTag36h11.markers(0, 2).unwrap();
        assert_eq!(rows(tag[0]), ["001000", "011010", "000101", "000110", "101110", "101011"]);
        assert_eq!(rows(tag[1]), ["100100", "101101", "000110", "001111", "111010", "011011"]);
        // The classic code of tag 0, which Kalibr prints too.
        assert_eq!(april_tag_36h11(0).unwrap().code, 0xd_5d62_8584);
    }

    #[test]
    fn ids_outside_the_dictionary_are_refused_by_name() {
        let error = Dictionary::Aruco5x5Of50.markers(40, 11).unwrap_err().to_string();
        assert!(error.contains("marker 50 ") && error.contains("DICT_5X5_50") && error.contains("0 to 49"), "{error}");
        assert!(Dictionary::Aruco5x5Of50.markers(u32::MAX, 2).is_err());
    }
}
