//! Calibration boards: what is printed on them, finding them in a picture, and printing them true to scale.
//!
//! [`Board`] describes a print (TOML), [`BoardDetector`] finds it in a grey picture and gives a [`BoardView`],
//! [`print::pdf`] makes the page, [`render`] draws a synthetic picture of it with the truth known.
//!
//! Board frame, the same for every kind: origin at the upper left corner of the printed pattern (of its first black square
//! or tag; margin not counted), x right, y down, z into the paper, metres. Pixels as in `tenon-vision`: (0, 0) is the outer
//! corner of the top left pixel.

mod checkerboard;
mod description;
mod detect;
mod dictionary;
mod error;
pub mod homography;
mod marker;
mod pattern;
pub mod print;
pub mod render;
mod saddle;

pub use description::{AprilGrid, Board, Charuco, Checkerboard, MarkerPlace, Paint};
pub use detect::{BoardDetector, BoardView};
pub use dictionary::{Dictionary, MarkerBits};
pub use error::BoardError;
pub use pattern::Pattern;

#[cfg(test)]
mod tests;
