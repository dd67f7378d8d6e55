// The news sources of a tab: it listens to the bus, polls, and reads the changes that it has missed.
import { WORKER_STATE } from "@bus/workers/websocket_worker";
import { browser } from "@web/core/browser/browser";
import { ConnectionLostError, rpcBus } from "@web/core/network/rpc";
import { batched } from "@web/core/utils/timing";
import { isScheduleUnknown } from "../core/async_job";
import { makeMissingJobError } from "../core/async_job_error";
import { nextFrame } from "../core/next_frame";
import { isSessionError } from "../core/request_error";

// While there is no websocket. Awaited jobs are always polled, in case a message is lost.
export const POLL_DELAY = 5000;
export const SAFETY_POLL_DELAY = 60000;

export class AsyncJobSync {
    /**
     * @param {import("@web/env").OdooEnv} env
     * @param {Partial<import("services").Services>} services
     * @param {Object} parts
     * @param {import("./async_job_news").AsyncJobNews} parts.news
     * @param {import("./async_job_store").AsyncJobStore} parts.store
     * @param {import("./async_job_watchers").AsyncJobWatchers} parts.watchers
     */
    constructor(env, services, parts) {
        this.setup(env, services, parts);
    }

    setup(env, { bus_service, lazy_session, orm }, { news, store, watchers }) {
        this.bus = bus_service;
        this.orm = orm;
        this.news = news;
        this.store = store;
        this.watchers = watchers;
        /** Resolved once the types of large results are known. */
        this.learning = Promise.resolve();
        this.isSessionExpired = false;
        this.wasDisconnected = false;
        this.hiddenSince = Infinity;
        this.pollDelay = POLL_DELAY;
        this.polledAt = null;
        this.pollTimeout = null;

        const inbox = [];
        const readInbox = batched(() => this.onMessages(inbox.splice(0)), nextFrame);
        this.bus.subscribe("ir.async", (message) => {
            inbox.push(message);
            readInbox();
        });
        this.bus.addEventListener("BUS:DISCONNECT", () => (this.wasDisconnected = true));
        this.bus.addEventListener("BUS:CONNECT", () => this.wasDisconnected && this.repair());
        this.bus.addEventListener("BUS:RECONNECT", () => this.repair());
        rpcBus.addEventListener("RPC:RESPONSE", ({ detail }) => this.onResponse(detail));
        document.addEventListener("visibilitychange", () => this.onVisibilityChange());
        env.bus.addEventListener("WEB_CLIENT_READY", () => this.bus.start(), { once: true });
        lazy_session.getValue("async_jobs", (rows) => this.onLoaded(rows || []));
    }

    get isConnected() {
        return this.bus.workerState === WORKER_STATE.CONNECTED;
    }

    // -------------------------------------------------------------------------
    // Events
    // -------------------------------------------------------------------------

    onLoaded(rows) {
        this.news.load(rows);
        this.store.countOlder(rows).catch((error) => this.onBackgroundError(error));
        this.schedulePoll();
    }

    /** Apply all messages since the last frame together, so that the page is rendered once. */
    onMessages(messages) {
        for (const message of messages) {
            this.watchers.hear(message.id);
            this.news.apply(message);
        }
        this.store.outdated.forEach((job) => this.news.forget(job));
        this.learning = this.learnResultTypes(messages.map(({ id }) => id));
        if (this.store.isShort) {
            this.tryRefresh();
        }
        this.schedulePoll();
    }

    /** A request that succeeds shows that the user has logged in again. */
    onResponse({ error, settings }) {
        if (this.isSessionExpired && !error && !settings.silent) {
            this.repair();
        }
    }

    /** A sleeping tab may have missed any message. */
    onVisibilityChange() {
        if (document.visibilityState === "hidden") {
            this.hiddenSince = Date.now();
        } else if (
            this.store.hasLive ||
            this.watchers.size ||
            this.hiddenSince < Date.now() - SAFETY_POLL_DELAY
        ) {
            this.repair();
        }
    }

    // -------------------------------------------------------------------------
    // Read the jobs
    // -------------------------------------------------------------------------

    /**
     * Read the jobs of the user from the server.
     *
     * @param {number[]} [jobIds] more of them
     */
    async refresh(jobIds = []) {
        const { jobs } = this.store;
        const known = new Map(Object.values(jobs).map(({ id, revision }) => [id, revision]));
        const watchers = new Map(this.watchers.byId);
        const missing = new Set([...known.keys(), ...watchers.keys(), ...jobIds]);
        const rows = await this.orm.silent.call("ir.async", "get_user_jobs", [[...missing]]);
        for (const row of rows) {
            if (watchers.has(row.id)) {
                watchers.get(row.id).staleRevision = undefined; // the row is current
            }
            this.news.apply(row);
            missing.delete(row.id);
        }
        for (const id of missing) {
            this.onMissing(id, known.get(id));
        }
        this.store.countOlder(rows).catch((error) => this.onBackgroundError(error));
    }

    /** Forget a job that the server did not return: it was deleted, or it belongs to another user. */
    onMissing(id, revision) {
        const job = this.store.jobs[id];
        if (job && job.revision === revision) {
            this.news.forget(job);
        }
        this.watchers.reject(id, makeMissingJobError(id));
    }

    /**
     * Read the jobs in the background. An error must not interrupt the user.
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
        if (isSessionError(error)) {
            this.isSessionExpired = true;
        } else if (!(error instanceof ConnectionLostError)) {
            this.pollDelay = SAFETY_POLL_DELAY; // the server is in trouble
        }
        this.wasDisconnected = true;
    }

    /** Read the changes that were missed. While the network is down, the poll tries again. */
    async repair() {
        this.wasDisconnected = false;
        this.isSessionExpired = false;
        if (this.news.isLoaded) {
            await this.tryRefresh();
            this.schedulePoll();
        }
    }

    /**
     * Read which large results are actions: the bus leaves results of that size out.
     *
     * @param {number[]} jobIds
     */
    async learnResultTypes(jobIds) {
        const isUnknown = (id) => {
            const { name, payload, resultType, state } = this.store.jobs[id] || {};
            const isLarge = state === "succeeded" && payload === undefined;
            return name && isLarge && resultType === undefined && !this.watchers.has(id);
        };
        if (jobIds.some(isUnknown)) {
            await this.tryRefresh();
        }
    }

    /** Read when dated jobs may start: bus messages do not include it. */
    async learnSchedules() {
        if (this.store.listed.some(isScheduleUnknown)) {
            await this.tryRefresh();
        }
    }

    // -------------------------------------------------------------------------
    // Poll
    // -------------------------------------------------------------------------

    get isPolling() {
        return !this.isSessionExpired && (this.watchers.size > 0 || this.store.hasLive);
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
        const isOverdue = Date.now() - this.polledAt >= SAFETY_POLL_DELAY;
        if (this.isPolling && (!this.isConnected || this.watchers.isAnyUnheard || isOverdue)) {
            this.polledAt = Date.now();
            await this.tryRefresh();
        }
        this.pollTimeout = null;
        this.schedulePoll();
    }
}
