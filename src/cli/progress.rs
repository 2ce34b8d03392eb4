//! Progress bars for long commands, shown only if standard error is a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// Creates a progress bar that counts `what`, up to `total` if that is known.
pub fn progress_bar(what: &str, total: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), format!("{{wide_bar}} {{human_pos}}/{{human_len}} {what}, {{eta}} left"))
        }
        None => (ProgressBar::new_spinner(), format!("{{spinner}} {{human_pos}} {what}, {{per_sec}}, {{elapsed}}")),
    };
    // With an invalid template the bar has the default style.
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}
