// The jobs of the user that this tab knows.
import { reactive } from "@odoo/owl";
import { user } from "@web/core/user";
import { isLive } from "../core/async_job";
import { makeMissingJobError } from "../core/async_job_error";
import { makeJob } from "./async_job_record";

/** @typedef {import("../core/async_job").AsyncJob} AsyncJob */

// The store keeps jobs without a name, which are not listed, for callers that begin to wait late.
const NAMELESS_DURATION = 60000;
// As many as `get_user_jobs` returns. Users may have more.
const LISTED_MAX = 100;
// With fewer jobs, older ones are fetched.
const LISTED_MIN = 20;

/** Each tab has its own store. News may arrive in any order: the revision says which is the latest. */
export class AsyncJobStore {
    constructor(orm) {
        this.setup(orm);
    }

    setup(orm) {
        this.orm = orm;
        /** @type {Record<number, AsyncJob>} */
        this.jobs = reactive({});
        /** Jobs that a caller waits for. They may be over in a moment, so they are not listed yet. */
        this.hidden = reactive(new Set());
        /** How many jobs of the user are too old to be in `jobs`. */
        this.older = reactive({ count: 0 });
        /** The last revisions of the jobs that left `jobs`, so that late messages do not bring them back. */
        this.forgotten = new Map();
        this.lastLoadedId = 0;
    }

    /**
     * Apply news about a job from the bus or the server.
     *
     * @param {AsyncJob & { dismissed?: boolean, elapsed?: number, ended_ago?: number }} news
     * @param {boolean} isAwaited callers wait for the job: it is kept even if it had left the store
     * @returns {{ job: AsyncJob, old?: AsyncJob }|null} null for old news
     */
    update(news, isAwaited) {
        const { id, revision } = news;
        const old = this.jobs[id];
        const lastRevision = old?.revision ?? this.forgotten.get(id) ?? 0;
        const isForgotten = !old && revision === lastRevision && !isAwaited;
        if (revision < lastRevision || isForgotten) {
            return null;
        }
        const job = makeJob(news, old);
        if (!old && job.name && id <= this.lastLoadedId && !this.forgotten.has(id)) {
            this.older.count = Math.max(0, this.older.count - 1); // it is not too old any more
        }
        this.jobs[id] = job;
        return { job, old };
    }

    forget({ id, revision }) {
        this.forgotten.set(id, revision);
        delete this.jobs[id];
    }

    /** The jobs to list, without those that may be over in a moment. */
    get listed() {
        return Object.values(this.jobs).filter((job) => job.name && !this.hidden.has(job.id));
    }

    get hasLive() {
        return Object.values(this.jobs).some(isLive);
    }

    /** Jobs without a name that ended some time ago. */
    get outdated() {
        const limit = Date.now() - NAMELESS_DURATION;
        return Object.values(this.jobs).filter(
            (job) => !job.name && !isLive(job) && job.endedAt < limit
        );
    }

    /** Whether there is room in the list for older jobs. */
    get isShort() {
        return this.older.count > 0 && this.listed.length < LISTED_MIN;
    }

    /** @returns {Set<number>} */
    getOverIds() {
        const over = Object.values(this.jobs).filter((job) => !isLive(job));
        return new Set([...over.map(({ id }) => id), ...this.forgotten.keys()]);
    }

    /** @returns {Promise<number[]>} the listed jobs that have ended, also those too old to be in `jobs` */
    async findOver() {
        if (this.older.count) {
            const states = ["succeeded", "done", "failed", "cancelled"];
            return this.orm.search("ir.async", [...getListedDomain(), ["state", "in", states]]);
        }
        const over = Object.values(this.jobs).filter((job) => job.name && !isLive(job));
        return over.map(({ id }) => id);
    }

    /** @param {Object[]} rows the jobs of the user, as listed by the server */
    async countOlder(rows) {
        this.lastLoadedId = Math.max(this.lastLoadedId, ...rows.map(({ id }) => id));
        if (rows.length < LISTED_MAX) {
            this.older.count = 0;
            return;
        }
        const total = await this.orm.silent.searchCount("ir.async", getListedDomain());
        const known = Object.values(this.jobs).filter((job) => job.name);
        this.older.count = Math.max(0, total - known.length);
    }

    /** @returns {Promise<AsyncJob["payload"]>} also if it was too large for a message */
    async readPayload(jobId) {
        const [row] = await this.orm.silent.read("ir.async", [jobId], ["payload"]);
        if (!row) {
            throw makeMissingJobError(jobId);
        }
        const payload = row.payload || null;
        if (this.jobs[jobId]) {
            this.jobs[jobId].payload = payload;
        }
        return payload;
    }
}

function getListedDomain() {
    return [
        ["user_id", "=", user.userId],
        ["notify", "=", true],
        ["dismissed", "=", false],
        ["name", "!=", false],
    ];
}
