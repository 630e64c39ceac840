//! What can go wrong with a board.

use tenon_vision::VisionError;

/// Errors of boards. `NotFound` is an everyday answer about one picture, the others are about the description or the page.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    #[error(transparent)]
    Vision(#[from] VisionError),

    #[error("{origin}: {message}")]
    Syntax { origin: String, message: String },

    #[error("{board}.{field} = {value}: {requirement}")]
    Field { board: &'static str, field: &'static str, value: f64, requirement: String },

    #[error("marker {id} is not in dictionary {dictionary} (ids 0 to {last})")]
    UnknownMarker { id: u32, dictionary: &'static str, last: u32 },

    #[error("no {board} found: {reason}")]
    NotFound { board: &'static str, reason: String },

    #[error(
        "a {board} of {width_mm:.1} x {height_mm:.1} mm does not fit {paper} ({room_width_mm:.1} x {room_height_mm:.1} mm \
         are free beside ruler and caption): use larger paper, or fewer or smaller squares"
    )]
    DoesNotFit {
        board: &'static str,
        width_mm: f64,
        height_mm: f64,
        paper: &'static str,
        room_width_mm: f64,
        room_height_mm: f64,
    },

    #[error("the marker detector could not be made (out of memory?)")]
    DetectorCreate,
}
