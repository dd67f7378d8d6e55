import { browser } from "@web/core/browser/browser";

const LOCK = "ir_async.foreground_tab";

/**
 * Of all tabs, elects the one that was shown last: what is to be told once is told there.
 *
 * Odoo's `multi_tab` elects the one that was opened first, where nobody may be looking. It is asked where the
 * browser has no locks, as in pages served without https.
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
     * Have the lock at once, or when the tab that has it is closed.
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
