// The waits of users: a call blocks the page for a few seconds.
import { reactive } from "@odoo/owl";
import { browser } from "@web/core/browser/browser";

// The page is blocked for so long at most, and not at all during a quick call, so that it does not flicker.
export const BLOCK_UI_DURATION = 5000;
const BLOCK_UI_DELAY = 300;

let nextId = 1;

/**
 * @typedef {Object} Wait a call that the user waits for
 * @property {number} id
 * @property {number} [jobId] once the call has answered
 * @property {boolean} isShown false during the first moment
 * @property {(byUser?: boolean) => void} letGo free the page: the call goes on in the background
 * @property {() => void} end the call has ended
 */

/**
 * Block the page, for 5 seconds at most.
 *
 * @param {Record<number, Wait>} waits the other waits, reactive
 * @param {Object} ui the service
 * @param {(byUser: boolean) => void} onLetGo called unless the wait ends earlier
 * @returns {Wait}
 */
export function startWait(waits, ui, onLetGo) {
    const id = nextId++;
    const end = () => {
        if (id in waits) {
            delete waits[id];
            timeouts.forEach((timeout) => browser.clearTimeout(timeout));
            ui.unblock();
        }
    };
    const letGo = (byUser = false) => {
        if (id in waits) {
            end();
            onLetGo(byUser);
        }
    };
    const timeouts = [
        browser.setTimeout(() => (waits[id].isShown = true), BLOCK_UI_DELAY),
        browser.setTimeout(letGo, BLOCK_UI_DURATION),
    ];
    waits[id] = reactive({ id, jobId: undefined, isShown: false, letGo, end });
    ui.block({ delay: BLOCK_UI_DURATION }); // AsyncBlockUI says more than Odoo's "Loading…"
    return waits[id];
}
