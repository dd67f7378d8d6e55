import { reactive } from "@odoo/owl";
import { WORKER_STATE } from "@bus/workers/websocket_worker";
import { browser } from "@web/core/browser/browser";
import { downloadFile } from "@web/core/network/download";
import { ConnectionLostError, makeErrorFromResponse } from "@web/core/network/rpc";
import { registry } from "@web/core/registry";
import { Deferred } from "@web/core/utils/concurrency";
import { pick } from "@web/core/utils/objects";
import { batched } from "@web/core/utils/timing";
import { completeAction, hasAction, isDownload, isLive } from "../core/async_job";
import { AsyncJobCancelledError } from "../core/async_job_error";
import { nextFrame } from "../core/next_frame";
import { AsyncJobToasts } from "./async_job_toasts";

/** @typedef {import("../core/async_job").AsyncJob} AsyncJob */

// The user is kept waiting that long at most, and a quick call does not make the page flicker.
export const BLOCK_UI_DURATION = 5000;
const BLOCK_UI_DELAY = 300;
// While there is no websocket; and the jobs somebody waits for always, just in case.
export const POLL_DELAY = 5000;
export const SAFETY_POLL_DELAY = 60000;
// Jobs without a name are not listed. They are only kept for who starts to wait for them a bit late.
const NAMELESS_DURATION = 60000;

/**
 * Knows the background jobs of the user (model `ir.async`), and calls the methods that start some.
 *
 * Every tab has its own copy. What the bus tells is applied by the revisions of the jobs, in whatever order it
 * comes; what the bus could not tell is read.
 */
export class AsyncJobService {
    constructor(env, services) {
        this.setup(env, services);
    }

    /**
     * @param {import("@web/env").OdooEnv} env
     * @param {Partial<import("services").Services>} services
     */
    setup(env, services) {
        this.env = env;
        this.action = services.action;
        this.bus = services.bus_service;
        this.orm = services.orm;
        this.ui = services.ui;
        this.toasts = new AsyncJobToasts(this, services);
        /** @type {Record<number, AsyncJob>} */
        this.jobs = reactive({});
        /** Jobs that are not listed: somebody waits for them, and they may be over in a moment. */
        this.hidden = reactive(new Set());
        /** The last revision of the jobs that left `jobs`: late messages do not bring them back. */
        this.forgotten = new Map();
        /** @type {Map<number, Deferred & { isHeard?: boolean }>} who waits for the end of a job */
        this.watchers = new Map();
        this.inbox = [];
        this.isLoaded = false;

        const readInbox = batched(() => this.readInbox(), nextFrame);
        this.bus.subscribe("ir.async", (message) => {
            this.inbox.push(message);
            readInbox();
        });
        this.bus.addEventListener("BUS:DISCONNECT", () => (this.wasDisconnected = true));
        this.bus.addEventListener("BUS:CONNECT", () => this.wasDisconnected && this.repair());
        this.bus.addEventListener("BUS:RECONNECT", () => this.repair());
        document.addEventListener("visibilitychange", () => this.onVisibilityChange());
        env.bus.addEventListener("WEB_CLIENT_READY", () => this.bus.start(), { once: true });
        services.lazy_session.getValue("async_jobs", (rows) => this.onLoaded(rows || []));
    }

    // -------------------------------------------------------------------------
    // To run jobs
    // -------------------------------------------------------------------------

    /**
     * Call a method of the server that starts a job and answers `{ asyncJobId: job.id }`, and wait for the end of
     * the job, however long it takes.
     *
     * Until then the user cannot do anything else, for 5 seconds at most: then he is told that the job goes on in
     * the background.
     *
     * @param {{ model: string, method: string, args?: any[], kwargs?: Object }} call
     * @param {Object} [options]
     * @param {boolean} [options.blockUI=true]
     * @param {() => void} [options.onBackground] called when the user is told so
     * @param {boolean} [options.isHidden=false] until then, or an error, the job is not listed; the caller is to
     *  dismiss it
     * @returns {Promise<Pick<AsyncJob, "id"|"name"|"state"|"payload">>} the job, if it ended well. The promise is
     *  rejected with the RPCError that the job ended with, or with an AsyncJobCancelledError.
     */
    async asyncRpc({ model, method, args = [], kwargs = {} }, options = {}) {
        const { blockUI = true, isHidden = false, onBackground } = options;
        let jobId;
        let isWaiting = true;
        const unblock = blockUI
            ? this.blockUI(() => {
                  isWaiting = false;
                  this.hidden.delete(jobId);
                  this.toasts.showBackground(this.jobs[jobId]?.name);
                  onBackground?.();
              })
            : () => {};
        try {
            this.bus.start();
            const answer = await this.orm.call(model, method, args, kwargs);
            jobId = answer?.asyncJobId;
            if (!Number.isInteger(jobId)) {
                throw new Error(
                    `${model}.${method}() is to answer { asyncJobId: <id of the job> } to be called by asyncRpc, ` +
                        `not ${JSON.stringify(answer)}`
                );
            }
            if (isHidden && isWaiting) {
                this.hidden.add(jobId);
            }
            return await this.watch(jobId);
        } catch (error) {
            this.hidden.delete(jobId);
            throw error;
        } finally {
            unblock();
        }
    }

    /**
     * @param {() => void} onTimeout
     * @returns {() => void} to be called when there is nothing to wait for any more
     */
    blockUI(onTimeout) {
        let isBlocked = true;
        const unblock = () => {
            browser.clearTimeout(timeout);
            if (isBlocked) {
                isBlocked = false;
                this.ui.unblock();
            }
        };
        const timeout = browser.setTimeout(() => {
            unblock();
            onTimeout();
        }, BLOCK_UI_DURATION);
        this.ui.block({ delay: BLOCK_UI_DELAY });
        return unblock;
    }

    /**
     * Wait for the end of a job.
     *
     * @param {number} jobId
     */
    watch(jobId) {
        const job = this.jobs[jobId];
        if (!this.watchers.has(jobId)) {
            this.watchers.set(jobId, new Deferred());
        }
        const watcher = this.watchers.get(jobId);
        if (job) {
            watcher.isHeard = true;
            this.settle(job); // it may be over already
        }
        this.schedulePoll();
        return watcher;
    }

    /** Tell those who wait for this job, if it has ended. */
    async settle(job) {
        const watcher = this.watchers.get(job.id);
        if (!watcher || isLive(job)) {
            return;
        }
        const { id, name, state, revision } = job;
        let payload = job.payload;
        if (payload === undefined) {
            try {
                payload = await this.readPayload(id);
            } catch (error) {
                if (error instanceof ConnectionLostError) {
                    return; // the next poll comes back here
                }
                this.watchers.delete(id);
                return watcher.reject(error);
            }
            if ((this.jobs[id]?.revision ?? revision) !== revision) {
                return; // run again meanwhile: that payload is of another state
            }
        }
        this.watchers.delete(id);
        if (state === "failed") {
            watcher.reject(makeErrorFromResponse(payload.error));
        } else if (state === "cancelled") {
            watcher.reject(new AsyncJobCancelledError(job));
        } else {
            watcher.resolve({ id, name, state, payload });
        }
    }

    // -------------------------------------------------------------------------
    // What the user does with his jobs
    // -------------------------------------------------------------------------

    getJobs() {
        return this.jobs;
    }

    /**
     * Open the result of a job, or download it, or show its error. A result that was used is completed.
     *
     * @param {number} jobId
     */
    async open(jobId) {
        const payload = this.jobs[jobId]?.payload ?? (await this.readPayload(jobId));
        if (payload?.error) {
            // Nobody catches it: the standard dialog shows up.
            Promise.reject(makeErrorFromResponse(payload.error));
            return;
        }
        await this.openPayload(payload);
        if (this.jobs[jobId]?.state !== "done") {
            await this.complete(jobId);
        }
    }

    /** @param {AsyncJob["payload"]} payload */
    async openPayload(payload) {
        const action = payload?.result;
        if (isDownload(action)) {
            await downloadFile(action.url);
        } else if (payload && hasAction({ payload })) {
            await this.action.doAction(completeAction(action));
        }
    }

    /** Open the list of all jobs of the user, also those he dismissed. */
    openAll() {
        return this.action.doAction("ir_async.ir_async_action_mine", { clearBreadcrumbs: true });
    }

    complete(jobIds) {
        return this.callJobs("complete", jobIds);
    }

    cancel(jobIds) {
        return this.callJobs("cancel", jobIds);
    }

    retry(jobIds) {
        return this.callJobs("retry", jobIds);
    }

    dismiss(jobIds) {
        return this.callJobs("dismiss", jobIds);
    }

    /**
     * @param {string} method
     * @param {number|number[]} jobIds
     */
    async callJobs(method, jobIds) {
        const ids = [jobIds].flat();
        const result = await this.orm.call("ir.async", method, [ids]);
        if (!this.isConnected) {
            await this.refresh(ids); // the bus will not tell
        }
        return result;
    }

    // -------------------------------------------------------------------------
    // What becomes of the jobs
    // -------------------------------------------------------------------------

    get isConnected() {
        return this.bus.workerState === WORKER_STATE.CONNECTED;
    }

    /** Apply all messages that came since the last frame, so that the page is rendered once for all of them. */
    readInbox() {
        for (const message of this.inbox.splice(0)) {
            const watcher = this.watchers.get(message.id);
            if (watcher) {
                watcher.isHeard = true;
            }
            this.update(message);
        }
        for (const job of Object.values(this.jobs)) {
            if (!job.name && !isLive(job) && job.endedAt < Date.now() - NAMELESS_DURATION) {
                this.forget(job);
            }
        }
        this.schedulePoll();
    }

    /**
     * Apply what the bus or the server tells about a job, unless it is old news.
     *
     * @param {AsyncJob & { dismissed?: boolean, elapsed?: number }} news
     * @param {boolean} [canToast=true]
     */
    update(news, canToast = true) {
        const { id, revision } = news;
        const old = this.jobs[id];
        const lastRevision = old?.revision ?? this.forgotten.get(id) ?? 0;
        const isForgotten = !old && revision === lastRevision && !this.watchers.has(id);
        if (revision < lastRevision || isForgotten) {
            return;
        }
        const job = makeJob(news, old);
        this.jobs[id] = job;
        if (isLive(job)) {
            this.toasts.remove(id);
        } else {
            if (old && !isLive(old)) {
                this.toasts.remove(id, job.state);
            } else if (canToast && this.isLoaded && job.name && !this.watchers.has(id)) {
                this.toasts.add(job);
            }
            this.settle(job);
        }
        if (news.dismissed) {
            this.forget(job);
        }
        this.env.bus.trigger("async_job", this.jobs[id] || job);
    }

    forget({ id, revision }) {
        this.forgotten.set(id, revision);
        this.toasts.remove(id);
        delete this.jobs[id];
    }

    // -------------------------------------------------------------------------
    // What the bus did not tell
    // -------------------------------------------------------------------------

    /** What had ended before the page was loaded is no news. */
    onLoaded(rows) {
        rows.forEach((row) => this.update(row));
        this.isLoaded = true;
        this.schedulePoll();
    }

    /** @returns {Promise<AsyncJob["payload"]>} */
    async readPayload(jobId) {
        const [row] = await this.orm.silent.read("ir.async", [jobId], ["payload"]);
        const payload = row?.payload || null;
        if (this.jobs[jobId]) {
            this.jobs[jobId].payload = payload;
        }
        return payload;
    }

    /**
     * Read the jobs of the user from the server.
     *
     * @param {number[]} [jobIds] more of them
     */
    async refresh(jobIds = []) {
        const known = Object.values(this.jobs).map(({ id, revision }) => ({ id, revision }));
        const ids = new Set([...known.map(({ id }) => id), ...this.watchers.keys(), ...jobIds]);
        const rows = await this.orm.silent.call("ir.async", "get_user_jobs", [[...ids]]);
        for (const row of rows) {
            this.update(row, row.id in this.jobs); // what we did not know may have ended long ago
            ids.delete(row.id);
        }
        for (const id of ids) {
            this.onMissing(id, known);
        }
    }

    /** A job that we know, or wait for, is not there: it was deleted, or it is somebody else's. */
    onMissing(id, known) {
        const revision = known.find((job) => job.id === id)?.revision;
        if (this.jobs[id] && this.jobs[id].revision === revision) {
            this.forget(this.jobs[id]);
        }
        this.watchers.get(id)?.reject(new Error(`Job ${id} does not exist (any more).`));
        this.watchers.delete(id);
    }

    /** Read what was missed. While the network is down, the poll tries again. */
    async repair() {
        this.wasDisconnected = false;
        if (!this.isLoaded) {
            return;
        }
        try {
            await this.refresh();
        } catch (error) {
            if (!(error instanceof ConnectionLostError)) {
                throw error;
            }
            this.wasDisconnected = true;
        }
        this.schedulePoll();
    }

    /** A tab that sleeps may miss anything. */
    onVisibilityChange() {
        if (document.visibilityState === "hidden") {
            this.hiddenSince = Date.now();
        } else if (
            this.hasLiveJobs ||
            this.watchers.size ||
            this.hiddenSince < Date.now() - SAFETY_POLL_DELAY
        ) {
            this.repair();
        }
    }

    get hasLiveJobs() {
        return Object.values(this.jobs).some(isLive);
    }

    schedulePoll() {
        if (!this.watchers.size && !this.hasLiveJobs) {
            this.polledAt = null;
        } else if (!this.pollTimeout) {
            this.polledAt ??= Date.now();
            this.pollTimeout = browser.setTimeout(() => this.poll(), POLL_DELAY);
        }
    }

    async poll() {
        const isUnheard = [...this.watchers.values()].some((watcher) => !watcher.isHeard);
        const isOverdue = Date.now() - this.polledAt >= SAFETY_POLL_DELAY;
        try {
            if (!this.isConnected || isUnheard || isOverdue) {
                this.polledAt = Date.now();
                await this.refresh();
            }
        } catch (error) {
            if (!(error instanceof ConnectionLostError)) {
                throw error;
            }
        } finally {
            this.pollTimeout = null;
            this.schedulePoll();
        }
    }
}

/**
 * @param {AsyncJob & { elapsed?: number }} news
 * @param {AsyncJob} [old]
 * @returns {AsyncJob}
 */
function makeJob(news, old) {
    const job = { ...pick(news, "id", "name", "state", "revision"), ...makeTimes(news, old) };
    const isSameState = old?.revision === news.revision;
    job.progress = "progress" in news ? news.progress : (isSameState && old.progress) || null;
    job.payload = "payload" in news ? news.payload : guessPayload(news, old);
    return job;
}

/** @returns {AsyncJob["payload"]} undefined: nobody knows before it is read */
function guessPayload({ state, revision }, old) {
    if (isLive({ state }) || state === "cancelled") {
        return null;
    }
    if (!old || revision > old.revision + 1) {
        return undefined; // something was missed
    }
    if (isLive(old)) {
        return state === "done" ? null : undefined; // done without a result; or it was too large for the bus
    }
    return old.payload;
}

function makeTimes({ state, revision, elapsed }, old) {
    const now = Date.now();
    const isEnded = !isLive({ state });
    const endedAt = isEnded ? (old && !isLive(old) && old.endedAt) || now : undefined;
    if (typeof elapsed === "number") {
        return { startedAt: (endedAt || now) - elapsed * 1000, endedAt };
    }
    if (state === "processing") {
        return { startedAt: old?.state === "processing" ? old.startedAt : now };
    }
    return { startedAt: isEnded ? old?.startedAt : undefined, endedAt };
}

export const asyncJobService = {
    dependencies: [
        "action",
        "bus_service",
        "lazy_session",
        "multi_tab",
        "notification",
        "orm",
        "ui",
    ],
    start(env, services) {
        return new AsyncJobService(env, services);
    },
};

registry.category("services").add("async_job", asyncJobService);
