// Views that reload when jobs change.
import { onWillUnmount, useComponent, useEffect } from "@odoo/owl";
import { browser } from "@web/core/browser/browser";
import { useBus, useService } from "@web/core/utils/hooks";

// The bus reports only the notified jobs of the user, so other changes need a poll.
export const REFRESH_DELAY = 10000;
export const NEWS_DELAY = 500;

/**
 * Reload the rows of a list or the cards of a kanban.
 *
 * @param {import("@web/model/relational_model/relational_model").RelationalModel} model
 */
export async function reloadRows(model) {
    if (model.useSampleModel) {
        const { domain, resModel } = model.root;
        if (!(await model.orm.searchCount(resModel, domain))) {
            return;
        }
        model.useSampleModel = false; // or the rows would look like samples
    }
    await model.load();
}

/**
 * Keep a view of jobs up to date while it is visible and the user is not working in it.
 *
 * @param {Object} params
 * @param {() => Promise<void>} params.reload
 * @param {(isNews: boolean) => boolean} params.canReload
 * @param {(job: import("../core/async_job").AsyncJob) => boolean} [params.isConcerned]
 */
export function useLiveView({ reload, canReload, isConcerned = () => true }) {
    const { env } = useComponent();
    const ui = useService("ui");
    let isReloading = false;
    let newsTimeout = null;

    async function refresh(isNews) {
        const isShown = document.visibilityState === "visible" && ui.activeElement === document;
        if (isShown && !isReloading && canReload(isNews)) {
            isReloading = true;
            try {
                await reload();
            } finally {
                isReloading = false;
            }
        }
    }

    useBus(env.bus, "async_job", ({ detail: job }) => {
        if (isConcerned(job)) {
            newsTimeout ??= browser.setTimeout(() => {
                newsTimeout = null;
                refresh(true);
            }, NEWS_DELAY);
        }
    });
    useEffect(
        () => {
            const interval = browser.setInterval(() => refresh(false), REFRESH_DELAY);
            return () => browser.clearInterval(interval);
        },
        () => []
    );
    onWillUnmount(() => browser.clearTimeout(newsTimeout));
}
