import { _t } from "@web/core/l10n/translation";

/**
 * @typedef {"waiting"|"created"|"processing"|"succeeded"|"done"|"failed"|"cancelled"} AsyncJobState
 *
 * @typedef {Object} AsyncJob
 * @property {number} id
 * @property {string|false} name what the user sees; he does not see jobs without one
 * @property {AsyncJobState} state
 * @property {number} revision grows with every change of state
 * @property {{ result: any }|{ error: Object }|null|undefined} payload undefined: it was too large to be told
 * @property {{ done: number, total?: number, message?: string }|null} progress
 * @property {number} [startedAt] by the clock of this browser, in milliseconds
 * @property {number} [endedAt]
 */

export const STATE_LABELS = {
    waiting: _t("Waiting for other jobs"),
    created: _t("Waiting for its turn"),
    processing: _t("Running"),
    succeeded: _t("Ready"),
    done: _t("Done"),
    failed: _t("Failed"),
    cancelled: _t("Cancelled"),
};

const LIVE_STATES = new Set(["waiting", "created", "processing"]);

/** @param {AsyncJob} job */
export function isLive(job) {
    return LIVE_STATES.has(job.state);
}

/** Tell whether the result is an action; one that was too large to be told may be one. */
export function hasAction({ payload }) {
    return payload === undefined || Boolean(payload?.result?.type?.startsWith?.("ir.actions."));
}

/** Tell whether the user was not shown the result yet. */
export function isResultWaiting(job) {
    return job.state === "succeeded" && hasAction(job);
}

/**
 * Files are not opened in a new window: long after the click, browsers take that for a pop-up.
 *
 * @param {Object} [action]
 */
export function isDownload(action) {
    return (
        action?.type === "ir.actions.act_url" &&
        (action.target === "download" ||
            /^\/?web\/(content|image)\b|[?&]download=/.test(action.url || ""))
    );
}

/**
 * As the server does with the action that a button returns, views are optional.
 *
 * @param {Object} action
 */
export function completeAction(action) {
    if (action.type === "ir.actions.act_window" && !action.views) {
        const modes = (action.view_mode || "list,form").split(",");
        const viewId = action.view_id?.[0] || action.view_id || false;
        return { ...action, views: modes.map((mode, i) => [i ? false : viewId, mode.trim()]) };
    }
    return action;
}
