// Functions that answer questions about a job.
import { browser } from "@web/core/browser/browser";
import { _t } from "@web/core/l10n/translation";

/**
 * @typedef {"waiting"|"created"|"processing"|"succeeded"|"done"|"failed"|"cancelled"} AsyncJobState
 *
 * @typedef {Object} AsyncJob
 * @property {number} id
 * @property {string|false} name shown to users; jobs without a name are not listed
 * @property {AsyncJobState} state
 * @property {number} revision grows with every change of state
 * @property {{ result: any }|{ error: Object }|null|undefined} payload undefined: too large for a message
 * @property {string|false} [resultType] the type of an action that is too large for a message
 * @property {{ done: number, total?: number, message?: string }|null} progress
 * @property {number} [startedAt] by this browser's clock, in milliseconds
 * @property {number} [endedAt]
 * @property {number|null} [scheduledAt] the earliest start; undefined: the server was not asked yet
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

// Ids are 32 bits in the database.
const MAX_ID = 2 ** 31 - 1;
const CLOSE = "ir.actions.act_window_close";
// Under these addresses, `download=` saves a file.
const FILE_PATH = /^\/web\/(content|image)(\/|$)/;
const LIVE_STATES = new Set(["waiting", "created", "processing"]);

/** @param {AsyncJob} job */
export function isLive(job) {
    return LIVE_STATES.has(job.state);
}

/** Return whether a job can have this id. */
export function isJobId(id) {
    return Number.isInteger(id) && id > 0 && id <= MAX_ID;
}

/** @returns {any} */
function getResultType({ payload, resultType }) {
    return payload === undefined ? resultType : payload?.result?.type;
}

/**
 * Return whether the result is an action that is still of use later.
 *
 * @param {Pick<AsyncJob, "payload"|"resultType">} job
 */
export function hasAction(job) {
    const type = getResultType(job);
    return Boolean(type?.startsWith?.("ir.actions.")) && type !== CLOSE;
}

/**
 * Return whether the result only closes the dialog that called the method, as most wizards do.
 *
 * @param {Pick<AsyncJob, "payload"|"resultType">} job
 */
export function hasCloseAction(job) {
    return getResultType(job) === CLOSE;
}

/** Return whether the result is text or data that users can look at. */
export function hasValue(job) {
    if (hasAction(job) || hasCloseAction(job)) {
        return false;
    }
    if (job.payload === undefined) {
        return job.state === "succeeded" && job.resultType !== undefined;
    }
    const value = job.payload?.result;
    if (value === null || value === undefined || typeof value === "boolean") {
        return false;
    }
    if (typeof value === "string" || Array.isArray(value)) {
        return value.length > 0; // it may be long
    }
    return typeof value === "number" || Object.keys(value).length > 0;
}

/** Return whether users have not opened the result yet. */
export function isResultWaiting(job) {
    return job.state === "succeeded" && hasAction(job);
}

/**
 * Return the state to show. A job whose result nobody can use is done.
 *
 * @param {AsyncJob} job
 * @returns {AsyncJobState}
 */
export function getShownState(job) {
    const isKnown = job.payload !== undefined || hasCloseAction(job);
    const isDone = job.state === "succeeded" && isKnown && !hasAction(job) && !hasValue(job);
    return isDone ? "done" : job.state;
}

/** Return whether the job is queued, and its earliest start was not read yet. */
export function isScheduleUnknown(job) {
    return ["waiting", "created"].includes(job.state) && job.scheduledAt === undefined;
}

/** Return whether the job needs attention: its result is unopened, or it failed. */
export function needsAttention(job) {
    return job.state === "failed" || isResultWaiting(job);
}

/**
 * Return the address of a file that an action downloads from this server.
 *
 * Files are not opened in a new window: long after the click, browsers block it as a pop-up. Odoo opens all other
 * addresses. They may be pages, or other sites, whose answers cannot be read.
 *
 * @param {Object} [action]
 * @returns {string|null}
 */
export function getDownloadUrl(action) {
    if (action?.type !== "ir.actions.act_url" || !action.url) {
        return null;
    }
    const path = /^(http|\/)/.test(action.url) ? action.url : `/${action.url}`; // as Odoo does
    const { href, origin } = browser.location;
    if (!URL.canParse(path, href)) {
        return null;
    }
    const url = new URL(path, href);
    if (url.origin !== origin) {
        return null;
    }
    const isFile = FILE_PATH.test(url.pathname) && url.searchParams.get("download");
    return isFile || action.target === "download" ? path : null;
}

/** @param {Object} [action] */
export function isDownload(action) {
    return getDownloadUrl(action) !== null;
}

/**
 * Add the views that an action leaves out, as the server does for the actions of buttons.
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

/**
 * Return an action that closes no dialog: the one that called the method may be gone, and another one open.
 *
 * @param {Object} action
 */
export function withoutClose(action) {
    const changes = {};
    for (const option of ["close", "close_on_report_download"]) {
        if (action[option]) {
            changes[option] = false;
        }
    }
    if (action.params?.next?.type === CLOSE) {
        changes.params = { ...action.params, next: false };
    }
    return { ...action, ...changes };
}
