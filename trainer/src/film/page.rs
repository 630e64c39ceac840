//! The page of a folder of films.

use std::fmt::Write;

use super::FilmReport;
use crate::watch::page::{escape, page};

/// Name of the page.
pub const INDEX_FILE: &str = "index.html";

/// All films side by side, with what each episode came to.
pub(super) fn index(report: &FilmReport, who: &str) -> String {
    let mut body = format!(
        r#"<h1>{} on film</h1><p class="dim">{}; seed {}; {} pictures of {}×{} by {}, a frame every {} ms</p><div class="row">"#,
        report.task,
        escape(who),
        report.seed,
        report.quality,
        report.width,
        report.height,
        escape(&report.backend),
        report.frame_ms
    );
    for episode in &report.episodes {
        let verdict = match episode.success {
            Some(true) => r#", <span class="ok">success</span>"#,
            Some(false) => r#", <span class="miss">no success</span>"#,
            None => "",
        };
        let number = episode.episode;
        let _ = write!(
            body,
            r#"<figure><img src="{png}" width="{}" height="{}" alt="episode {number}"><figcaption>episode {number}: return {:.2}, {} steps{verdict} · <a href="{png}">PNG</a>{}</figcaption></figure>"#,
            report.width,
            report.height,
            episode.episode_return,
            episode.control_steps,
            episode.mp4.as_ref().map_or_else(String::new, |mp4| format!(r#" · <a href="{}">MP4</a>"#, escape(mp4))),
            png = escape(&episode.png),
        );
    }
    body += "</div>";
    page(&format!("{} on film", report.task), None, &body)
}
