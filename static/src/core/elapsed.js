import { _t } from "@web/core/l10n/translation";

/**
 * @param {number} milliseconds
 * @returns {string} as on a stopwatch, "0:07", "12:30" or "1:02:03"; "0.3 s" for what took less than a second
 */
export function formatElapsed(milliseconds) {
    const seconds = Math.max(0, milliseconds) / 1000;
    if (seconds < 1) {
        return _t("%s s", Math.max(0.1, seconds).toFixed(1));
    }
    return luxon.Duration.fromMillis(milliseconds).toFormat(seconds < 3600 ? "m:ss" : "h:mm:ss");
}
