// The next frame of the page.
import { browser } from "@web/core/browser/browser";

// A tab in the background has no frames.
const LONGEST_FRAME = 100;

/**
 * @returns {Promise<void>} resolved before the page is painted, or soon if it is hidden
 */
export function nextFrame() {
    return new Promise((resolve) => {
        browser.requestAnimationFrame(() => resolve());
        browser.setTimeout(resolve, LONGEST_FRAME);
    });
}
