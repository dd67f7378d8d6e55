// Durations as texts.
import { _t } from "@web/core/l10n/translation";

/**
 * @param {number} milliseconds
 * @returns {string} as on a stopwatch, "0:07", "12:30" or "1:02:03"; "250 ms" below a second
 */
export function formatElapsed(milliseconds) {
    const seconds = milliseconds / 1000;
    if (seconds < 1) {
        return _t("%s ms", Math.max(1, Math.round(milliseconds)));
    }
    return luxon.Duration.fromMillis(milliseconds).toFormat(seconds < 3600 ? "m:ss" : "h:mm:ss");
}
