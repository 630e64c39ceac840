//! A board as a PDF page, true to scale, with rulers to check the print.
//!
//! Only filled rectangles and the built-in font Helvetica, uncompressed, so that the page can be read back by anybody.

use super::{Board, BoardError};
use serde::{Deserialize, Serialize};

/// Paper that boards are printed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Paper {
    A4,
    A3,
    Letter,
}

impl Paper {
    pub fn name(self) -> &'static str {
        match self {
            Self::A4 => "A4",
            Self::A3 => "A3",
            Self::Letter => "Letter",
        }
    }

    /// Width and height upright, mm.
    pub fn size_mm(self) -> [f64; 2] {
        match self {
            Self::A4 => [210.0, 297.0],
            Self::A3 => [297.0, 420.0],
            Self::Letter => [215.9, 279.4],
        }
    }
}

/// Most printers leave this much of each edge white.
const EDGE_MM: f64 = 6.0;
/// Strip of a ruler with its numbers.
const RULER_MM: f64 = 10.0;
/// Lines of text at the top.
const CAPTION_MM: f64 = 17.0;
/// White around the pattern beside its own margin.
const APART_MM: f64 = 2.0;

/// A page and where the board lies on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    pub pdf: Vec<u8>,
    /// Width and height, mm.
    pub size_mm: [f64; 2],
    /// Origin of the board frame from the page's upper left corner, mm.
    pub board_origin_mm: [f64; 2],
}

/// The board on one page, upright or across, whichever it fits.
///
/// # Errors
/// [`BoardError::DoesNotFit`], and what [`Board::check`] refuses.
pub fn pdf(board: &Board, paper: Paper) -> Result<Page, BoardError> {
    board.check()?;
    let [board_width, board_height] = board.size_m().map(|m| m * 1000.0);
    let white = (board.margin_m() * 1000.0).max(APART_MM);
    let upright = paper.size_mm();
    let across = [upright[1], upright[0]];
    // Ruler left and below, caption on top.
    let room = |size: [f64; 2]| {
        [
            size[0] - 2.0 * EDGE_MM - RULER_MM - 2.0 * white,
            size[1] - 2.0 * EDGE_MM - RULER_MM - CAPTION_MM - 2.0 * white,
        ]
    };
    let fits = |size: &[f64; 2]| board_width <= room(*size)[0] && board_height <= room(*size)[1];
    let preferred = if board_width > board_height { [across, upright] } else { [upright, across] };
    let Some(size_mm) = preferred.into_iter().find(fits) else {
        let [room_width_mm, room_height_mm] = room(preferred[0]);
        return Err(BoardError::DoesNotFit {
            board: board.kind(),
            width_mm: board_width,
            height_mm: board_height,
            paper: paper.name(),
            room_width_mm,
            room_height_mm,
        });
    };
    let [room_width, room_height] = room(size_mm);
    let board_origin_mm = [
        EDGE_MM + RULER_MM + white + 0.5 * (room_width - board_width),
        EDGE_MM + CAPTION_MM + white + 0.5 * (room_height - board_height),
    ];

    let mut content = Content::new(size_mm[1]);
    content.grey(0.0);
    for paint in board.artwork()? {
        content.grey(if paint.black { 0.0 } else { 1.0 });
        content.rectangle(
            board_origin_mm[0] + paint.x_m * 1000.0,
            board_origin_mm[1] + paint.y_m * 1000.0,
            paint.width_m * 1000.0,
            paint.height_m * 1000.0,
        );
    }
    content.grey(0.0);
    rulers(&mut content, size_mm);
    let lines = [
        board.caption(),
        "Print at 100 % (\"actual size\", no fitting to the page). Then lay a ruler along both printed scales: 100 mm must \
         measure 100 mm. If not, measure the squares or tags themselves (tags on the outside of the black border) and write \
         that size into the board's description. Glue the page to something flat and stiff."
            .to_owned(),
    ];
    let mut y = EDGE_MM + 4.0;
    for line in lines {
        for part in wrapped(&line, ((size_mm[0] - 2.0 * EDGE_MM) / CHARACTER_MM) as usize) {
            content.text(EDGE_MM, y, TEXT_PT, &part);
            y += 2.9;
        }
    }
    Ok(Page { pdf: document(&content.bytes, size_mm), size_mm, board_origin_mm })
}

const TEXT_PT: f64 = 6.5;
/// Mean width of a character of [`TEXT_PT`], with some reserve.
const CHARACTER_MM: f64 = 1.2;

fn wrapped(line: &str, most: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    for word in line.split_whitespace() {
        let last = parts.len() - 1;
        if !parts[last].is_empty() && parts[last].len() + 1 + word.len() > most {
            parts.push(word.to_owned());
        } else {
            if !parts[last].is_empty() {
                parts[last].push(' ');
            }
            parts[last].push_str(word);
        }
    }
    parts
}

/// Scales along the lower and the left edge, a mark a millimetre. Marks are centred on their place.
fn rulers(content: &mut Content, [width, height]: [f64; 2]) {
    const LINE_MM: f64 = 0.15;
    let start = EDGE_MM + RULER_MM;
    let base_y = height - EDGE_MM - 4.0;
    let base_x = EDGE_MM + 4.0;
    let mark = |mm: usize| match mm % 10 {
        0 => 4.0,
        5 => 3.0,
        _ => 2.0,
    };
    let along = ((width - EDGE_MM - start) as usize) / 10 * 10;
    for mm in 0..=along {
        let x = start + mm as f64;
        content.rectangle(x - 0.5 * LINE_MM, base_y - mark(mm), LINE_MM, mark(mm));
        if mm.is_multiple_of(10) {
            content.text(x - 1.2, base_y + 3.0, 6.0, &mm.to_string());
        }
    }
    content.text(start + along as f64 + 3.0, base_y + 3.0, 6.0, "mm");
    let top = EDGE_MM + CAPTION_MM;
    let along = ((height - start - top) as usize) / 10 * 10;
    for mm in 0..=along {
        let y = height - start - mm as f64;
        content.rectangle(base_x, y - 0.5 * LINE_MM, mark(mm), LINE_MM);
        if mm.is_multiple_of(10) {
            content.text(EDGE_MM - 0.5, y + 0.8, 6.0, &mm.to_string());
        }
    }
}

/// Drawing orders in millimetres from the page's upper left corner, y down.
struct Content {
    bytes: Vec<u8>,
}

/// Points (1/72 inch) in a millimetre.
const POINTS_PER_MM: f64 = 72.0 / 25.4;

impl Content {
    fn new(height_mm: f64) -> Self {
        let (k, top) = (POINTS_PER_MM, height_mm * POINTS_PER_MM);
        Self { bytes: format!("{k:.9} 0 0 {:.9} 0 {top:.6} cm\n", -k).into_bytes() }
    }

    fn line(&mut self, order: &str) {
        self.bytes.extend_from_slice(order.as_bytes());
        self.bytes.push(b'\n');
    }

    fn grey(&mut self, level: f64) {
        self.line(&format!("{level} g"));
    }

    fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64) {
        self.line(&format!("{x:.5} {y:.5} {width:.5} {height:.5} re f"));
    }

    fn text(&mut self, x: f64, y: f64, size_pt: f64, text: &str) {
        // The page's y axis is turned over, so letters are turned over once more. What is not ASCII has no place here.
        let mut safe = String::with_capacity(text.len());
        for character in text.chars() {
            match character {
                '(' | ')' | '\\' => safe.extend(['\\', character]),
                ' '..='~' => safe.push(character),
                _ => safe.push('?'),
            }
        }
        let size = size_pt / POINTS_PER_MM;
        self.line(&format!("BT /F1 {size:.4} Tf 1 0 0 -1 {x:.3} {y:.3} Tm ({safe}) Tj ET"));
    }
}

/// A PDF file of one page.
fn document(content: &[u8], [width_mm, height_mm]: [f64; 2]) -> Vec<u8> {
    let (width, height) = (width_mm * POINTS_PER_MM, height_mm * POINTS_PER_MM);
    let mut stream = format!("<< /Length {} >>\nstream\n", content.len()).into_bytes();
    stream.extend_from_slice(content);
    stream.extend_from_slice(b"endstream");
    let objects: [Vec<u8>; 5] = [
        // Viewers that listen print at 100 %.
        b"<< /Type /Catalog /Pages 2 0 R /ViewerPreferences << /PrintScaling /None >> >>".to_vec(),
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_vec(),
        format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width:.4} {height:.4}] /Contents 4 0 R /Resources << /Font << /F1 \
             5 0 R >> >> >>"
        )
        .into_bytes(),
        stream,
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_vec(),
    ];
    let mut out = b"%PDF-1.4\n%\xE2\xE3\xCF\xD3\n".to_vec();
    let mut offsets = Vec::with_capacity(objects.len());
    for (index, object) in objects.iter().enumerate() {
        offsets.push(out.len());
        out.extend_from_slice(format!("{} 0 obj\n", index + 1).as_bytes());
        out.extend_from_slice(object);
        out.extend_from_slice(b"\nendobj\n");
    }
    let table = out.len();
    out.extend_from_slice(format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).as_bytes());
    for offset in offsets {
        out.extend_from_slice(format!("{offset:010} 00000 n \n").as_bytes());
    }
    let size = objects.len() + 1;
    out.extend_from_slice(format!("trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n").as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::super::description::tests::samples;
    use super::super::{AprilGrid, BoardDetector, Checkerboard};
    use super::*;
    use tenon_vision::GreyImage;

    /// Reads the page back from the file: its size in points, and its rectangles (x, y, width, height, black) in points
    /// from the lower left.
    fn read_back(pdf: &[u8]) -> ([f64; 2], Vec<([f64; 4], bool)>) {
        let text = String::from_utf8_lossy(pdf).into_owned();
        let page = text.split("/MediaBox [").nth(1).unwrap().split(']').next().unwrap();
        let numbers: Vec<f64> = page.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let stream = text.split(">>\nstream\n").nth(1).unwrap().split("endstream").next().unwrap();
        let (mut stack, mut matrix) = (Vec::<f64>::new(), [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let (mut black, mut pending, mut out) = (true, Vec::new(), Vec::new());
        for line in stream.lines().filter(|line| !line.starts_with("BT")) {
            for token in line.split_whitespace() {
                match token {
                    "cm" => matrix = stack.split_off(stack.len() - 6).try_into().unwrap(),
                    "g" => black = stack.pop().unwrap() < 0.5,
                    "re" => pending.push(<[f64; 4]>::try_from(stack.split_off(stack.len() - 4)).unwrap()),
                    "f" => {
                        for [x, y, w, h] in pending.drain(..) {
                            let (left, a) = (matrix[0] * x + matrix[4], matrix[3] * y + matrix[5]);
                            let b = matrix[3] * (y + h) + matrix[5];
                            out.push(([left, a.min(b), matrix[0] * w, (a - b).abs()], black));
                        }
                    }
                    number => stack.push(number.parse().unwrap()),
                }
            }
        }
        ([numbers[2], numbers[3]], out)
    }

    /// Paints the rectangles at `px_per_mm`, three samples a pixel and axis.
    fn rasterised(pdf: &[u8], px_per_mm: f64) -> GreyImage {
        const FINE: usize = 3;
        let ([width_pt, height_pt], rectangles) = read_back(pdf);
        let scale = px_per_mm * 25.4 / 72.0;
        let (w, h) = ((width_pt * scale).round() as usize, (height_pt * scale).round() as usize);
        let mut fine = vec![255u8; w * h * FINE * FINE];
        for ([x, y, rw, rh], black) in rectangles {
            let k = scale * FINE as f64;
            let sample = |at: f64| (at * k - 0.5).ceil().max(0.0) as usize;
            for row in sample(height_pt - y - rh)..sample(height_pt - y).min(h * FINE) {
                for column in sample(x)..sample(x + rw).min(w * FINE) {
                    fine[row * w * FINE + column] = if black { 20 } else { 235 };
                }
            }
        }
        let mut image = GreyImage::filled(w, h, 0);
        for y in 0..h {
            for x in 0..w {
                let sum: u32 = (0..FINE * FINE)
                    .map(|i| u32::from(fine[(y * FINE + i / FINE) * w * FINE + x * FINE + i % FINE]))
                    .sum();
                image.pixels_mut()[y * w + x] = (sum / (FINE * FINE) as u32) as u8;
            }
        }
        image
    }

    #[test]
    fn the_printed_page_shows_the_board_at_its_true_size() {
        let px_per_mm = 5.0;
        let mut worst = 0f64;
        for board in samples() {
            let page = pdf(&board, Paper::A3).unwrap();
            let image = rasterised(&page.pdf, px_per_mm);
            let view = BoardDetector::new(&board).unwrap().detect(image.view()).unwrap();
            assert_eq!(view.points.len(), board.points().unwrap().len(), "{}", board.caption());
            for seen in &view.points {
                let wanted = [0, 1].map(|i| (page.board_origin_mm[i] + 1000.0 * seen.point_m[i]) * px_per_mm);
                worst = worst.max((seen.pixel[0] - wanted[0]).hypot(seen.pixel[1] - wanted[1]));
            }
        }
        println!("worst corner on the page {worst:.3} px at {px_per_mm} px/mm");
        // A fifth of a millimetre is a pixel here; plain tags without corner squares are found less exactly.
        assert!(worst < 0.5, "{worst}");
    }

    #[test]
    fn page_sizes_are_those_of_the_paper_and_the_ruler_marks_are_millimetres() {
        let board = Board::Checkerboard(Checkerboard { inner_columns: 5, inner_rows: 7, square_m: 0.02 });
        for paper in [Paper::A4, Paper::A3, Paper::Letter] {
            let page = pdf(&board, paper).unwrap();
            let (size_pt, rectangles) = read_back(&page.pdf);
            let wanted = paper.size_mm();
            for axis in 0..2 {
                assert!((size_pt[axis] / 72.0 * 25.4 - wanted[axis]).abs() < 1e-3);
            }
            // Marks of the lower scale: 0.15 mm wide, less than 5 mm high.
            let mut marks: Vec<f64> = rectangles
                .iter()
                .map(|(r, _)| r.map(|v| v / POINTS_PER_MM))
                .filter(|[_, _, w, h]| (*w - 0.15).abs() < 1e-4 && *h < 5.0 && *h > 1.0)
                .map(|[x, ..]| x)
                .collect();
            marks.sort_by(f64::total_cmp);
            assert!(marks.len() > 150, "{}", marks.len());
            assert!(marks.windows(2).all(|pair| (pair[1] - pair[0] - 1.0).abs() < 1e-3));
        }
    }

    #[test]
    fn the_table_of_objects_points_at_them_and_the_caption_has_the_numbers() {
        let board = Board::AprilGrid(AprilGrid {
            columns: 6,
            rows: 4,
            tag_m: 0.025,
            spacing_ratio: 0.3,
            first_id: 0,
            border_cells: 2,
            corner_squares: true,
        });
        let page = pdf(&board, Paper::A4).unwrap();
        let text = String::from_utf8_lossy(&page.pdf);
        for wanted in ["6 x 4 tags 36h11", "ids 0 to 23", "tag 25.00 mm", "black border", "Print at 100 %"] {
            assert!(text.contains(wanted), "{wanted}");
        }
        // Offsets count bytes; the comment in the first line is not UTF-8.
        let find = |needle: &str| page.pdf.windows(needle.len()).position(|w| w == needle.as_bytes()).unwrap();
        let table = find("xref\n0 6\n");
        let entries = std::str::from_utf8(&page.pdf[table..]).unwrap().lines().skip(3).take(5);
        for (index, entry) in entries.enumerate() {
            let offset: usize = entry[..10].parse().unwrap();
            assert!(page.pdf[offset..].starts_with(format!("{} 0 obj", index + 1).as_bytes()), "{entry}");
        }
        assert!(page.pdf.ends_with(format!("startxref\n{table}\n%%EOF\n").as_bytes()));
    }

    #[test]
    fn a_board_larger_than_the_paper_is_refused_with_both_sizes() {
        let board = Board::Checkerboard(Checkerboard { inner_columns: 11, inner_rows: 8, square_m: 0.03 });
        let message = pdf(&board, Paper::A4).unwrap_err().to_string();
        assert!(message.contains("360.0 x 270.0 mm") && message.contains("A4") && message.contains("larger paper"));
    }
}
