// The one tab of many that shows toasts.
import { ForegroundTab } from "@ir_async/core/foreground_tab";
import { Deferred, after, animationFrame, beforeEach, describe, expect, test } from "@odoo/hoot";
import { patchWithCleanup } from "@web/../tests/web_test_helpers";
import { browser } from "@web/core/browser/browser";
import {
    defineIrAsyncModels,
    mockForegroundTab,
    restoreForegroundTab,
} from "../ir_async_test_helpers";

describe.current.tags("headless");
defineIrAsyncModels();

beforeEach(() => {
    restoreForegroundTab();
    after(mockForegroundTab);
});

test("is the one that was shown last", async () => {
    const held = mockLocks();
    const first = new ForegroundTab();
    await animationFrame();
    expect(await first.isHere()).toBe(true);
    const second = new ForegroundTab(); // opened later
    await animationFrame();
    expect(await first.isHere()).toBe(false);
    expect(await second.isHere()).toBe(true);
    held.leave(); // closed
    await animationFrame();
    expect(await first.isHere()).toBe(true);
});

test("is the main one, in a browser without locks", async () => {
    patchWithCleanup(browser.navigator, { locks: undefined });
    const isOnMainTab = async () => true;
    expect(await new ForegroundTab({ isOnMainTab }).isHere()).toBe(true);
});

/** Locks as browsers have them, for one name. */
function mockLocks() {
    const queue = [];
    let holder = null;
    const grant = () => {
        if (!holder && queue.length) {
            holder = queue.shift();
            holder.callback();
        }
    };
    patchWithCleanup(browser.navigator, {
        locks: {
            request(name, { steal }, callback) {
                const request = Object.assign(new Deferred(), { callback });
                if (steal) {
                    holder?.reject(new DOMException("stolen", "AbortError"));
                    holder = null;
                    queue.unshift(request);
                } else {
                    queue.push(request);
                }
                grant();
                return request;
            },
        },
    });
    return {
        leave() {
            holder = null;
            grant();
        },
    };
}
