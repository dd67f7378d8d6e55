import { reactive } from "@odoo/owl";
import { WORKER_STATE } from "@bus/workers/websocket_worker";
import { browser } from "@web/core/browser/browser";
import { downloadFile } from "@web/core/network/download";
import { ConnectionLostError, rpcBus } from "@web/core/network/rpc";
import { registry } from "@web/core/registry";
import { user } from "@web/core/user";
import { Deferred } from "@web/core/utils/concurrency";
import { batched } from "@web/core/utils/timing";
import {
    completeAction,
    getDownloadUrl,
    hasAction,
    hasCloseAction,
    hasValue,
    isJobId,
    isLive,
    isScheduleUnknown,
    withoutClose,
} from "../core/async_job";
import { AsyncJobCancelledError, makeJobError } from "../core/async_job_error";
import { AsyncJobResultDialog } from "../core/async_job_result/async_job_result";
import { nextFrame } from "../core/next_frame";
import { makeJob } from "./async_job_record";
import { AsyncJobToasts } from "./async_job_toasts";
import { BLOCK_UI_DURATION, startWait } from "./async_job_waits";

/** @typedef {import("../core/async_job").AsyncJob} AsyncJob */

export { BLOCK_UI_DURATION };
// While there is no websocket; awaited jobs always, just in case.
export const POLL_DELAY = 5000;
export const SAFETY_POLL_DELAY = 60000;
// Jobs without a name are not listed. They are only kept for callers that start to wait a bit late.
const NAMELESS_DURATION = 60000;
// As many as `get_user_jobs` returns; users may have more.
const LISTED_MAX = 100;
// With fewer, older ones are fetched.
const LISTED_MIN = 20;
const MAX_SHOWN_ANSWER = 200; // characters
const SESSION_ERRORS = ["odoo.http.SessionExpiredException", "werkzeug.exceptions.Forbidden"];

/**
 * Knows the background jobs of the user (model `ir.async`), and calls the methods that start some.
 *
 * Every tab has its own copy. Messages of the bus are applied by the revisions of the jobs, in whatever order they
 * arrive; what the bus could not say is read.
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
        this.dialog = services.dialog;
        this.orm = services.orm;
        this.ui = services.ui;
        this.toasts = new AsyncJobToasts(this, services);
        /** @type {Record<number, AsyncJob>} */
        this.jobs = reactive({});
        /** Jobs that are not listed: somebody waits for them, and they may be over in a moment. */
        this.hidden = reactive(new Set());
        /** How many jobs of the user are too old to be in `jobs`. */
        this.older = reactive({ count: 0 });
        /** @type {Record<number, import("./async_job_waits").Wait>} what the user is kept waiting for */
        this.waits = reactive({});
        /** The calls that did not answer yet: nobody knows which job is theirs. */
        this.calls = new Set();
        /** The last revision of the jobs that left `jobs`: late messages do not bring them back. */
        this.forgotten = new Map();
        /** @type {Map<number, Deferred & { isHeard?: boolean, staleRevision?: number }>} */
        this.watchers = new Map();
        this.inbox = [];
        this.learning = Promise.resolve();
        this.isLoaded = false;
        this.lastLoadedId = 0;
        this.pageStart = Date.now() - browser.performance.now();
        this.isSessionExpired = false;
        this.wasDisconnected = false;
        this.hiddenSince = Infinity;
        this.pollDelay = POLL_DELAY;
        this.polledAt = null;
        this.pollTimeout = null;

        const readInbox = batched(() => this.readInbox(), nextFrame);
        this.bus.subscribe("ir.async", (message) => {
            this.inbox.push(message);
            readInbox();
        });
        this.bus.addEventListener("BUS:DISCONNECT", () => (this.wasDisconnected = true));
        this.bus.addEventListener("BUS:CONNECT", () => this.wasDisconnected && this.repair());
        this.bus.addEventListener("BUS:RECONNECT", () => this.repair());
        rpcBus.addEventListener("RPC:RESPONSE", ({ detail }) => this.onResponse(detail));
        document.addEventListener("visibilitychange", () => this.onVisibilityChange());
        env.bus.addEventListener("WEB_CLIENT_READY", () => this.bus.start(), { once: true });
        services.lazy_session.getValue("async_jobs", (rows) => this.onLoaded(rows || []));
    }

    // -------------------------------------------------------------------------
    // To run jobs
    // -------------------------------------------------------------------------

    /**
     * Call a method of the server that starts a job and answers `{ asyncJobId: job.id }`, and do the rest: open the
     * result if the user is still kept waiting for it, else let a toast and *Background jobs* offer it.
     *
     * A result that was opened is completed, and so is plain data, which the caller has then.
     *
     * @param {{ model: string, method: string, args?: any[], kwargs?: Object }} call
     * @param {Object} [options] as for `asyncRpc`
     * @returns {ReturnType<AsyncJobService["asyncRpc"]>}
     */
    async run(call, options = {}) {
        const job = await this.asyncRpc(call, { ...options, isOffered: true });
        if (!job.inBackground && job.state === "succeeded") {
            if (hasAction(job) || hasCloseAction(job)) {
                await this.doAction(job.payload.result);
            }
            await this.complete(job.id);
        }
        return job;
    }

    /**
     * Call a method of the server that starts a job and answers `{ asyncJobId: job.id }`, and wait for the end of
     * the job, however long it takes.
     *
     * Until then users cannot do anything else, for 5 seconds at most and unless they want to: then the job goes on
     * in the background, and nothing may happen to the page by itself any more.
     *
     * @param {{ model: string, method: string, args?: any[], kwargs?: Object }} call
     * @param {Object} [options]
     * @param {boolean} [options.blockUI=true]
     * @param {() => void} [options.onBackground] called when the user goes on with something else
     * @param {boolean} [options.isHidden=false] until then, or an error, the job is not listed; the caller must
     *  dismiss it
     * @param {boolean} [options.isOffered=blockUI] when the job ends in the background, a toast offers its result
     * @returns {Promise<Pick<AsyncJob, "id"|"name"|"state"|"payload"> & { inBackground: boolean }>} the job, if it
     *  ended well. `inBackground`: the user is not kept waiting for it (any more).
     *  The promise is rejected with the RPCError that the job ended with, or with an AsyncJobCancelledError.
     */
    async asyncRpc({ model, method, args = [], kwargs = {} }, options = {}) {
        const { blockUI = true, isHidden = false, isOffered = blockUI, onBackground } = options;
        let jobId;
        let inBackground = !blockUI;
        const onLetGo = (byUser) => {
            inBackground = true;
            this.hidden.delete(jobId);
            this.toasts.showBackground(this.jobs[jobId]?.name, byUser);
            onBackground?.();
        };
        const wait = blockUI ? startWait(this.waits, this.ui, onLetGo) : null;
        const letGoOfRetried = ({ detail: job }) => {
            if (job.id === jobId && job.state === "created" && job.payload?.error) {
                wait?.letGo(); // it is tried again later
            }
        };
        this.env.bus.addEventListener("async_job", letGoOfRetried);
        try {
            this.bus.start();
            const overBefore = this.getOverIds();
            jobId = await this.callForJob(model, method, args, kwargs);
            if (wait) {
                wait.jobId = jobId;
            }
            if (isHidden && !inBackground) {
                this.hidden.add(jobId);
            }
            const job = await this.watch(jobId, overBefore.has(jobId));
            if (inBackground && isOffered) {
                this.toasts.offer(job);
            }
            if (job.state === "failed") {
                throw makeJobError(job, inBackground);
            }
            if (job.state === "cancelled") {
                throw new AsyncJobCancelledError(job);
            }
            return { ...job, inBackground };
        } catch (error) {
            this.hidden.delete(jobId);
            throw error;
        } finally {
            this.env.bus.removeEventListener("async_job", letGoOfRetried);
            wait?.end();
        }
    }

    /** @returns {Promise<number>} the id of the job that the method has started */
    async callForJob(model, method, args, kwargs) {
        const call = this.orm.call(model, method, args, kwargs);
        this.calls.add(call);
        try {
            const answer = await call;
            if (!isJobId(answer?.asyncJobId)) {
                const text = String(JSON.stringify(answer)).slice(0, MAX_SHOWN_ANSWER);
                throw new Error(
                    `${model}.${method}() must answer { asyncJobId: <id of the job> } to be waited for, not ${text}`
                );
            }
            return answer.asyncJobId;
        } finally {
            this.calls.delete(call);
        }
    }

    /** @returns {Set<number>} the jobs that are over: a call that runs one of them again makes that old news */
    getOverIds() {
        const over = Object.values(this.jobs).filter((job) => !isLive(job));
        return new Set([...over.map(({ id }) => id), ...this.forgotten.keys()]);
    }

    /**
     * Wait for the end of a job.
     *
     * @param {number} jobId
     * @param {boolean} [mayBeStale=false] it was over before, and may have been run again since
     * @returns {Promise<Pick<AsyncJob, "id"|"name"|"state"|"payload">>} the job, whatever it ended with
     */
    watch(jobId, mayBeStale = false) {
        const job = this.jobs[jobId];
        if (!this.watchers.has(jobId)) {
            this.watchers.set(jobId, new Deferred());
        }
        const watcher = this.watchers.get(jobId);
        this.toasts.remove(jobId); // it was over before anybody knew that it is awaited
        if (job && mayBeStale && !isLive(job)) {
            watcher.staleRevision = job.revision;
            this.tryRefresh([jobId]);
        } else if (job) {
            watcher.isHeard = true;
            this.settle(job); // it may be over already
        }
        this.schedulePoll();
        return watcher;
    }

    /** Resolve the promise of a job that has ended. */
    async settle(job) {
        const { id, name, state, revision } = job;
        const watcher = this.watchers.get(id);
        if (!watcher || isLive(job) || watcher.staleRevision === revision) {
            return;
        }
        let payload = job.payload;
        if (payload === undefined) {
            try {
                payload = await this.readPayload(id);
            } catch (error) {
                if (this.isPassing(error)) {
                    watcher.isHeard = false; // the next poll comes back here
                } else if (this.watchers.get(id) === watcher) {
                    this.watchers.delete(id);
                    watcher.reject(error);
                }
                return;
            }
            if ((this.jobs[id]?.revision ?? revision) !== revision) {
                return; // run again meanwhile: that payload is of another state
            }
        }
        if (this.watchers.get(id) === watcher) {
            this.watchers.delete(id);
            watcher.resolve({ id, name, state, payload });
        }
    }

    // -------------------------------------------------------------------------
    // What users do with their jobs
    // -------------------------------------------------------------------------

    getJobs() {
        return this.jobs;
    }

    /**
     * Open the result of a job, download it, or show its error. A result that was used is completed.
     *
     * @param {number} jobId
     */
    async open(jobId) {
        const { name = false, payload: known, state } = this.jobs[jobId] || {};
        const payload = known ?? (await this.readPayload(jobId));
        if (payload?.error || state === "failed") {
            // Nobody catches it: the dialog shows up.
            Promise.reject(makeJobError({ id: jobId, name, payload }));
            return;
        }
        await this.openPayload(payload, name);
        if (this.jobs[jobId]?.state !== "done") {
            await this.complete(jobId);
        }
    }

    /**
     * @param {AsyncJob["payload"]} payload
     * @param {string|false} [name] of the job
     */
    async openPayload(payload, name) {
        if (payload && hasAction({ payload })) {
            await this.doAction(withoutClose(payload.result));
        } else if (payload && hasValue({ payload })) {
            this.dialog.add(AsyncJobResultDialog, { name, result: payload.result });
        }
    }

    async doAction(action) {
        const url = getDownloadUrl(action);
        await (url === null ? this.action.doAction(completeAction(action)) : downloadFile(url));
    }

    /**
     * Open the list of all jobs of the user, also the dismissed ones.
     *
     * @param {number[]} [jobIds] only these
     */
    async openAll(jobIds) {
        const xmlId = "ir_async.ir_async_action_mine";
        const options = { clearBreadcrumbs: true };
        if (!jobIds) {
            return this.action.doAction(xmlId, options);
        }
        const action = await this.action.loadAction(xmlId);
        return this.action.doAction({ ...action, domain: [["id", "in", jobIds]] }, options);
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

    /** Dismiss all jobs that ended, also those that are too old to be listed. */
    async dismissAll() {
        const over = Object.values(this.jobs).filter((job) => job.name && !isLive(job));
        let ids = over.map(({ id }) => id);
        if (this.older.count) {
            const states = ["succeeded", "done", "failed", "cancelled"];
            ids = await this.orm.search("ir.async", [
                ...this.getListedDomain(),
                ["state", "in", states],
            ]);
        }
        await this.dismiss(ids);
        if (this.older.count) {
            await this.tryRefresh();
        }
    }

    /**
     * @param {string} method
     * @param {number|number[]} jobIds
     */
    async callJobs(method, jobIds) {
        const ids = [jobIds].flat();
        const result = await this.orm.call("ir.async", method, [ids]);
        if (!this.isConnected) {
            await this.tryRefresh(ids); // the bus will not say
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
        const messages = this.inbox.splice(0);
        for (const message of messages) {
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
        this.learning = this.learnResultTypes(messages.map(({ id }) => id));
        if (this.older.count && this.listedJobs.length < LISTED_MIN) {
            this.tryRefresh();
        }
        this.schedulePoll();
    }

    /** The jobs that users see, but for those that may be over in a moment. */
    get listedJobs() {
        return Object.values(this.jobs).filter((job) => job.name && !this.hidden.has(job.id));
    }

    /**
     * Apply what the bus or the server says about a job, unless it is old news.
     *
     * @param {AsyncJob & { dismissed?: boolean, elapsed?: number, ended_ago?: number }} news
     */
    update(news) {
        const { id, revision } = news;
        const old = this.jobs[id];
        const lastRevision = old?.revision ?? this.forgotten.get(id) ?? 0;
        const isForgotten = !old && revision === lastRevision && !this.watchers.has(id);
        if (revision < lastRevision || isForgotten) {
            return;
        }
        const job = makeJob(news, old);
        if (!old && job.name && id <= this.lastLoadedId && !this.forgotten.has(id)) {
            this.older.count = Math.max(0, this.older.count - 1); // it is not too old any more
        }
        this.jobs[id] = job;
        if (isLive(job)) {
            this.toasts.remove(id);
        } else {
            if (old && !isLive(old)) {
                this.toasts.remove(id, job.state);
            } else if (this.isLoaded && (old || this.isRecent(job, news))) {
                this.announce(job);
            }
            this.settle(job);
        }
        if (news.dismissed) {
            this.forget(job);
        }
        this.env.bus.trigger("async_job", this.jobs[id] || job);
    }

    /** Messages say what happens now; rows, in case the user was not told yet. */
    isRecent({ endedAt }, news) {
        const isRow = "elapsed" in news;
        return !isRow || (typeof news.ended_ago === "number" && endedAt >= this.pageStart);
    }

    /** Say in a toast that a job has ended, unless somebody waits for it. */
    announce(job) {
        if (job.name && !this.watchers.has(job.id)) {
            this.toasts.add(job);
        }
    }

    forget({ id, revision }) {
        this.forgotten.set(id, revision);
        this.toasts.remove(id);
        delete this.jobs[id];
    }

    // -------------------------------------------------------------------------
    // What the bus did not say
    // -------------------------------------------------------------------------

    /** Jobs that ended before the page was loaded are no news; those that ended while it was loaded are. */
    onLoaded(rows) {
        const heard = { ...this.jobs };
        rows.forEach((row) => this.update(row));
        for (const row of rows) {
            const job = this.jobs[row.id];
            const wasLive = heard[row.id] && row.revision < heard[row.id].revision;
            if (job && !isLive(job) && (wasLive || this.isRecent(job, row))) {
                this.announce(job);
            }
        }
        this.isLoaded = true;
        this.afterRows(rows);
        this.schedulePoll();
    }

    /** @param {Object[]} rows the jobs of the user, as listed by the server */
    async afterRows(rows) {
        this.lastLoadedId = Math.max(this.lastLoadedId, ...rows.map(({ id }) => id));
        if (rows.length < LISTED_MAX) {
            this.older.count = 0;
            return;
        }
        try {
            const total = await this.orm.silent.searchCount("ir.async", this.getListedDomain());
            const known = Object.values(this.jobs).filter((job) => job.name);
            this.older.count = Math.max(0, total - known.length);
        } catch (error) {
            this.onBackgroundError(error);
        }
    }

    getListedDomain() {
        return [
            ["user_id", "=", user.userId],
            ["notify", "=", true],
            ["dismissed", "=", false],
            ["name", "!=", false],
        ];
    }

    /** @returns {Promise<AsyncJob["payload"]>} */
    async readPayload(jobId) {
        const [row] = await this.orm.silent.read("ir.async", [jobId], ["payload"]);
        if (!row) {
            throw new Error(`Job ${jobId} does not exist (any more).`);
        }
        const payload = row.payload || null;
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
        const watchers = new Map(this.watchers);
        const ids = new Set([...known.map(({ id }) => id), ...watchers.keys(), ...jobIds]);
        const rows = await this.orm.silent.call("ir.async", "get_user_jobs", [[...ids]]);
        for (const row of rows) {
            if (watchers.has(row.id)) {
                watchers.get(row.id).staleRevision = undefined; // it is as the server says now
            }
            this.update(row);
            ids.delete(row.id);
        }
        for (const id of ids) {
            this.onMissing(id, known);
        }
        this.afterRows(rows);
    }

    /**
     * Read the jobs in the background, where an error must not interrupt the user.
     *
     * @param {number[]} [jobIds]
     */
    async tryRefresh(jobIds) {
        if (this.isSessionExpired) {
            return;
        }
        try {
            await this.refresh(jobIds);
            this.pollDelay = POLL_DELAY;
        } catch (error) {
            this.onBackgroundError(error);
        }
    }

    onBackgroundError(error) {
        if (SESSION_ERRORS.includes(error.exceptionName)) {
            this.isSessionExpired = true;
        } else if (!(error instanceof ConnectionLostError)) {
            this.pollDelay = SAFETY_POLL_DELAY; // the server is in trouble
        }
        this.wasDisconnected = true;
    }

    /** Return whether the same request may go well later. */
    isPassing(error) {
        return error instanceof ConnectionLostError || SESSION_ERRORS.includes(error.exceptionName);
    }

    /** A request that went well says that the user has logged in again. */
    onResponse({ error, settings }) {
        if (this.isSessionExpired && !error && !settings.silent) {
            this.repair();
        }
    }

    /**
     * Learn which large results are actions: the bus leaves them out.
     *
     * @param {number[]} jobIds
     */
    async learnResultTypes(jobIds) {
        const isUnknown = (id) => {
            const { name, payload, resultType, state } = this.jobs[id] || {};
            const isLarge = state === "succeeded" && payload === undefined;
            return name && isLarge && resultType === undefined && !this.watchers.has(id);
        };
        if (jobIds.some(isUnknown)) {
            await this.tryRefresh();
        }
    }

    /** Learn when queued jobs will start: the bus does not say. */
    async learnSchedules() {
        if (this.listedJobs.some(isScheduleUnknown)) {
            await this.tryRefresh();
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
        this.isSessionExpired = false;
        if (this.isLoaded) {
            await this.tryRefresh();
            this.schedulePoll();
        }
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

    get isPolling() {
        return !this.isSessionExpired && (this.watchers.size > 0 || this.hasLiveJobs);
    }

    schedulePoll() {
        if (!this.isPolling) {
            this.polledAt = null;
        } else if (!this.pollTimeout) {
            this.polledAt ??= Date.now();
            this.pollTimeout = browser.setTimeout(() => this.poll(), this.pollDelay);
        }
    }

    async poll() {
        const isUnheard = [...this.watchers.values()].some((watcher) => !watcher.isHeard);
        const isOverdue = Date.now() - this.polledAt >= SAFETY_POLL_DELAY;
        if (this.isPolling && (!this.isConnected || isUnheard || isOverdue)) {
            this.polledAt = Date.now();
            await this.tryRefresh();
        }
        this.pollTimeout = null;
        this.schedulePoll();
    }
}

export const asyncJobService = {
    dependencies: [
        "action",
        "bus_service",
        "dialog",
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
