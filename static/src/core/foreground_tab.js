// The election of one tab.
import { browser } from "@web/core/browser/browser";

const LOCK = "ir_async.foreground_tab";

/**
 * Elects the tab that was shown last. It shows the messages that must not appear in all tabs.
 *
 * Odoo's `multi_tab` elects the tab that was opened first, which may be hidden. It is the fallback if the browser has
 * no locks, as for pages served without https.
 */
export class ForegroundTab {
    /** @param {{ isOnMainTab: () => Promise<boolean> }} multiTab */
    constructor(multiTab) {
        this.multiTab = multiTab;
        this.locks = this.getLocks();
        this.isElected = false;
        if (this.locks) {
            this.stand(document.visibilityState === "visible");
            document.addEventListener("visibilitychange", () => {
                if (document.visibilityState === "visible" && !this.isElected) {
                    this.stand(true);
                }
            });
        }
    }

    /** @returns {LockManager|undefined} */
    getLocks() {
        return browser.navigator.locks;
    }

    /** @returns {Promise<boolean>} */
    async isHere() {
        return this.locks ? this.isElected : this.multiTab.isOnMainTab();
    }

    /**
     * Take the lock at once, or when the tab that holds it is closed.
     *
     * @param {boolean} steal
     */
    async stand(steal) {
        try {
            await this.locks.request(LOCK, { steal }, () => {
                this.isElected = true;
                return new Promise(() => {}); // until the page is left, or another tab steals it
            });
        } catch {
            const wasElected = this.isElected;
            this.isElected = false;
            if (wasElected) {
                this.stand(false);
            }
        }
    }
}
