//! `tenon-calibrate board`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::boards::print::{Paper, pdf};
use crate::boards::{AprilGrid, Board, Charuco, Checkerboard, Dictionary};
use crate::run::Outcome;

const HELP: &str = "\
Examples:
  tenon-calibrate board --board april_grid --paper a3 --out board.pdf
  tenon-calibrate board --board my_board.toml --out my_board.pdf

Writes the page, true to scale and with rulers, and beside it board.toml with the sizes, which `tenon-calibrate intrinsics` reads.
Print at 100 % (not \"fit to page\") and glue it on something flat. Hold a steel ruler to the printed one: if 100 mm are not 100 mm, correct
the sizes in the .toml by that factor. (A wrong size changes no intrinsic number, but all distances.)

Exit code: 0; 2 the board does not fit the paper, or a file exists already.";

/// Boards that need no description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Kind {
    /// Kalibr's grid of AprilTags: found in parts, hard to mistake; the default
    AprilGrid,
    /// Checkerboard with markers
    Charuco,
    /// Plain checkerboard: must be seen whole
    Checkerboard,
}

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct BoardArgs {
    /// april_grid, charuco, checkerboard, or a description of your own (.toml)
    #[arg(long, value_name = "KIND|FILE", default_value = "april_grid")]
    pub board: String,

    /// a4, a3 or letter
    #[arg(long, value_name = "SIZE", default_value = "a4", value_parser = parse_paper)]
    pub paper: Paper,

    /// The page to write; an existing one is kept
    #[arg(long, value_name = "FILE", default_value = "board.pdf")]
    pub out: PathBuf,

    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

fn parse_paper(text: &str) -> Result<Paper, String> {
    match text.to_lowercase().as_str() {
        "a4" => Ok(Paper::A4),
        "a3" => Ok(Paper::A3),
        "letter" => Ok(Paper::Letter),
        _ => Err("one of a4, a3, letter".into()),
    }
}

/// A board by the name of its kind, sized for a paper, or from a file.
pub fn board_of(text: &str, paper: Paper) -> anyhow::Result<Board> {
    if let Ok(kind) = Kind::from_str(text, true) {
        return Ok(usual(kind, paper));
    }
    let path = Path::new(text);
    let described = std::fs::read_to_string(path).with_context(|| {
        format!("board {text:?} is neither april_grid, charuco, checkerboard nor a file that can be read")
    })?;
    Ok(Board::parse(&described, text)?)
}

/// Sizes that fill the page and can be measured with a ruler.
fn usual(kind: Kind, paper: Paper) -> Board {
    let large = paper == Paper::A3;
    match kind {
        Kind::AprilGrid => Board::AprilGrid(AprilGrid {
            columns: if large { 5 } else { 4 },
            rows: if large { 7 } else { 5 },
            tag_m: if large { 0.038 } else { 0.03 },
            spacing_ratio: 0.25,
            first_id: 0,
            border_cells: 1,
            corner_squares: true,
        }),
        Kind::Charuco => Board::Charuco(Charuco {
            columns: if large { 7 } else { 6 },
            rows: if large { 10 } else { 8 },
            square_m: if large { 0.034 } else { 0.026 },
            marker_m: if large { 0.025 } else { 0.019 },
            dictionary: Dictionary::Aruco5x5Of100,
            first_id: 0,
            legacy_layout: false,
        }),
        Kind::Checkerboard => Board::Checkerboard(Checkerboard {
            inner_columns: 6,
            inner_rows: 9,
            square_m: if large { 0.034 } else { 0.021 },
        }),
    }
}

/// Writes the page and its description.
pub fn board(args: &BoardArgs, out: &mut impl Write) -> anyhow::Result<Outcome> {
    let board = board_of(&args.board, args.paper)?;
    let page = pdf(&board, args.paper)?;
    let description = args.out.with_extension("toml");
    write_new(&args.out, &page.pdf)?;
    write_new(&description, board.to_toml()?.as_bytes())?;
    if args.json {
        let report = serde_json::json!({
            "schema": "tenon.board/1", "board": board, "page": args.out, "description": description, "size_mm": page.size_mm
        });
        writeln!(out, "{report}")?;
    } else {
        writeln!(out, "{}", board.caption())?;
        writeln!(
            out,
            "{}: print at 100 %, hold a ruler to the printed one, glue it on something flat",
            args.out.display()
        )?;
        writeln!(out, "{}: its sizes, for `tenon-calibrate intrinsics --board`", description.display())?;
    }
    Ok(Outcome::Done)
}

/// As a whole, and never over an existing file.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".tenon-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        let readable = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
        file.as_file().set_permissions(readable)?;
        file.persist_noclobber(path).map(|_| ()).map_err(|e| e.error)
    };
    write().with_context(|| {
        let exists = if path.exists() { " (it exists already; name another or delete it)" } else { "" };
        format!("cannot write {}{exists}", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_board_fits_its_paper() {
        for kind in [Kind::AprilGrid, Kind::Charuco, Kind::Checkerboard] {
            for paper in [Paper::A4, Paper::A3, Paper::Letter] {
                pdf(&usual(kind, paper), paper).unwrap_or_else(|e| panic!("{kind:?} on {paper:?}: {e}"));
            }
        }
        assert!(board_of("chessboard", Paper::A4).unwrap_err().to_string().contains("neither april_grid"));
    }
}
