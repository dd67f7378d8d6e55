// The promises of the jobs that callers wait for.
import { Deferred } from "@web/core/utils/concurrency";
import { isLive } from "../core/async_job";
import { isPassing } from "../core/request_error";

/**
 * All callers of a job share one promise.
 *
 * isHeard: the bus has sent a message about the job.
 * staleRevision: the job may have been run again since that revision.
 *
 * @typedef {Deferred & { isHeard?: boolean, staleRevision?: number }} Watcher
 */

export class AsyncJobWatchers {
    /** @param {import("./async_job_store").AsyncJobStore} store */
    constructor(store) {
        this.setup(store);
    }

    setup(store) {
        this.store = store;
        /** @type {Map<number, Watcher>} */
        this.byId = new Map();
    }

    get size() {
        return this.byId.size;
    }

    /** Whether there is an awaited job without a message from the bus. */
    get isAnyUnheard() {
        return [...this.byId.values()].some((watcher) => !watcher.isHeard);
    }

    has(jobId) {
        return this.byId.has(jobId);
    }

    /**
     * @param {number} jobId
     * @param {boolean} isStale the known end may be that of an earlier run
     * @returns {Watcher} resolved with the job, in any final state
     */
    watch(jobId, isStale) {
        if (!this.byId.has(jobId)) {
            this.byId.set(jobId, new Deferred());
        }
        const watcher = this.byId.get(jobId);
        const job = this.store.jobs[jobId];
        if (isStale) {
            watcher.staleRevision = job.revision;
        } else if (job) {
            watcher.isHeard = true;
            this.settle(job); // it may be over already
        }
        return watcher;
    }

    /** Note that the bus has sent a message about a job. */
    hear(jobId) {
        const watcher = this.byId.get(jobId);
        if (watcher) {
            watcher.isHeard = true;
        }
    }

    /** Resolve the promise of a job that has ended. */
    async settle(job) {
        const { id, name, state, revision } = job;
        const watcher = this.byId.get(id);
        if (!watcher || isLive(job) || watcher.staleRevision === revision) {
            return;
        }
        let payload = job.payload;
        if (payload === undefined) {
            try {
                payload = await this.store.readPayload(id);
            } catch (error) {
                if (isPassing(error)) {
                    watcher.isHeard = false; // the next poll comes back here
                } else if (this.byId.get(id) === watcher) {
                    this.reject(id, error);
                }
                return;
            }
            if ((this.store.jobs[id]?.revision ?? revision) !== revision) {
                return; // run again meanwhile: the payload is out of date
            }
        }
        if (this.byId.get(id) === watcher) {
            this.byId.delete(id);
            watcher.resolve({ id, name, state, payload });
        }
    }

    /** Reject the promise of a job, if a caller waits for it. */
    reject(jobId, error) {
        this.byId.get(jobId)?.reject(error);
        this.byId.delete(jobId);
    }
}
