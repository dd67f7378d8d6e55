import { reactive } from "@odoo/owl";
import { browser } from "@web/core/browser/browser";

// Users are kept waiting that long at most, and a quick call does not make the page flicker.
export const BLOCK_UI_DURATION = 5000;
const BLOCK_UI_DELAY = 300;

let nextId = 1;

/**
 * @typedef {Object} Wait what a user is kept waiting for
 * @property {number} id
 * @property {number} [jobId] once the call has answered
 * @property {boolean} isShown not at once
 * @property {(byUser?: boolean) => void} letGo the call goes on in the background
 * @property {() => void} end there is nothing to wait for any more
 */

/**
 * Block the page, for 5 seconds at most.
 *
 * @param {Record<number, Wait>} waits the others, reactive
 * @param {Object} ui the service
 * @param {(byUser: boolean) => void} onLetGo called unless it ends before
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
