import { _t } from "@web/core/l10n/translation";

/**
 * @typedef {"waiting"|"created"|"processing"|"succeeded"|"done"|"failed"|"cancelled"} AsyncJobState
 *
 * @typedef {Object} AsyncJob
 * @property {number} id
 * @property {string|false} name what users see; jobs without a name are not listed
 * @property {AsyncJobState} state
 * @property {number} revision grows with every change of state
 * @property {{ result: any }|{ error: Object }|null|undefined} payload undefined: too large for a message
 * @property {string|false} [resultType] the type of an action that is too large for a message
 * @property {{ done: number, total?: number, message?: string }|null} progress
 * @property {number} [startedAt] by the clock of this browser, in milliseconds
 * @property {number} [endedAt]
 * @property {number|null} [scheduledAt] not before that time; undefined: the server was not asked yet
 * @property {boolean} [isStuck] a job that it waits for has failed
 */

// As in the job views.
export const STATE_LABELS = {
    waiting: _t("Waiting"),
    created: _t("Queued"),
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

/** @param {Pick<AsyncJob, "payload"|"resultType">} job */
export function hasAction({ payload, resultType }) {
    const type = payload === undefined ? resultType : payload?.result?.type;
    return Boolean(type?.startsWith?.("ir.actions."));
}

/** Return whether the result is text or data that users can look at. */
export function hasValue(job) {
    if (hasAction(job)) {
        return false;
    }
    if (job.payload === undefined) {
        return job.state === "succeeded" && job.resultType !== undefined;
    }
    const value = job.payload?.result;
    if (value === null || value === undefined || typeof value === "boolean") {
        return false;
    }
    return typeof value === "number" || Object.keys(value).length > 0;
}

/** Return whether users did not open the result yet. */
export function isResultWaiting(job) {
    return job.state === "succeeded" && hasAction(job);
}

/** Return whether the job is queued and nobody asked the server when it may start. */
export function isScheduleUnknown(job) {
    return ["waiting", "created"].includes(job.state) && job.scheduledAt === undefined;
}

/** Return whether the job asks for attention: its result waits, or it failed. */
export function needsAttention(job) {
    return job.state === "failed" || isResultWaiting(job);
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
