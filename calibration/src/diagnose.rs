//! Why a picture shows no tags: tries other settings and other readings of the picture, and turns what they find into
//! advice.

use crate::CalibrateError;
use crate::report::NoTagsReport;
use tenon_vision::detector::SearchStats;
use tenon_vision::image::check_size;
use tenon_vision::{Detector, DetectorSettings, Family, GreyImage, TagDetection};

/// Further tries count a tag only above this decision margin: a mirror or another family must not be blamed for noise.
const SURE_MARGIN: f32 = 30.0;

/// Searches again in other ways. `search`: what the first search went through.
pub fn why_no_tags(
    image: &GreyImage,
    asked: &DetectorSettings,
    search: SearchStats,
) -> Result<NoTagsReport, CalibrateError> {
    let mut tried = vec![format!(
        "{}, decimate {}, blur {}, sharpening {}, up to {} bit errors: {} quadrilaterals, none is a tag{}",
        asked.family.name(),
        asked.quad_decimate,
        asked.quad_sigma,
        asked.decode_sharpening,
        asked.max_hamming,
        search.quads,
        if search.dropped > 0 { format!(" ({} dropped by your limits)", search.dropped) } else { String::new() },
    )];
    let mut advice = Vec::new();
    if search.dropped > 0 {
        advice.push("lower --margin or --min-edge-px: tags were read but dropped by them".to_owned());
    }

    let plain = DetectorSettings { family: asked.family, threads: asked.threads, ..DetectorSettings::default() };
    let base = plain.family.name();
    let doubled = (check_size(2 * image.width(), 2 * image.height()).is_ok()
        && image.width() * image.height() <= 4_000_000)
        .then(|| image.doubled());
    let mut attempt = |what: &str, image: &GreyImage, settings: DetectorSettings, change: &str| {
        // The first thing that helps is the likeliest cause; more advice would bury it.
        if !advice.is_empty() {
            return Ok(());
        }
        let found = Detector::new(settings)?.detect(image.view())?;
        let sure: Vec<&TagDetection> = found.iter().filter(|tag| tag.decision_margin >= SURE_MARGIN).collect();
        let ids: Vec<String> = sure.iter().take(8).map(|tag| tag.id.to_string()).collect();
        if ids.is_empty() {
            tried.push(format!("{what}: nothing"));
        } else {
            tried.push(format!("{what}: {} tags (ids {})", sure.len(), ids.join(", ")));
            advice.push(change.to_owned());
        }
        Ok::<(), CalibrateError>(())
    };
    if *asked != plain {
        attempt(&format!("{base} with default settings"), image, plain, "leave out the detector options you gave")?;
    }
    let blurred = DetectorSettings { quad_sigma: 0.8, ..plain };
    attempt(
        &format!("{base}, blur 0.8 px"),
        image,
        blurred,
        "the picture is noisy: use --sigma 0.8, more light, less gain",
    )?;
    let sharper = DetectorSettings { decode_sharpening: 0.5, max_hamming: 2, ..plain };
    attempt(
        &format!("{base}, sharpening 0.5, 2 bit errors"),
        image,
        sharper,
        "use --sharpening 0.5 --max-hamming 2, or focus better",
    )?;
    if let Some(doubled) = &doubled {
        let change = "the tags are too small: move the camera nearer or use more pixels (an edge needs 18 px or more)";
        attempt(&format!("{base} on the picture enlarged twice"), doubled, plain, change)?;
    }
    attempt(
        &format!("{base} on the mirrored picture"),
        &image.mirrored(),
        plain,
        "the picture is mirrored: switch mirroring off in the camera software",
    )?;
    for family in [Family::Tag25h9, Family::TagStandard41h12, Family::Tag36h11] {
        if family == asked.family {
            continue;
        }
        let settings = DetectorSettings { family, ..plain };
        let change = format!("the tags are of family {}: print {base}, or set the family in --tags", family.name());
        attempt(family.name(), image, settings, &change)?;
    }

    let [dark, middle, bright] = image.view().percentiles_1_50_99();
    tried.push(format!("grey levels: 1 % below {dark}, half below {middle}, 99 % below {bright}"));
    if bright < 60 {
        advice.push("the picture is almost black: longer exposure or more light".to_owned());
    } else if dark > 200 {
        advice.push("the picture is almost white: shorter exposure".to_owned());
    } else if bright.saturating_sub(dark) < 40 {
        advice.push("the picture has hardly any contrast: check lens cap, focus and light".to_owned());
    }
    if advice.is_empty() {
        advice.extend(
            [
                "check that a tag36h11 tag is in the picture, with its white margin, not covered, cut off or glossy",
                "move nearer: an edge of the black border should be at least 18 px long (35 px for the base board)",
                "avoid motion blur (exposure of 8 ms or less), focus, and light the tags evenly",
            ]
            .map(str::to_owned),
        );
    }
    Ok(NoTagsReport { tried, advice })
}
